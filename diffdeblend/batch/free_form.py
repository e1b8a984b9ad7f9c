"""The compiled part of free pixels in a batch: a factor on the parametric light of a source.

Data are linear in the factors and in the fluxes, so that no small steps are needed: fluxes and sky
are solved exactly and eliminated, and the factors follow by conjugate gradients.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.batch.program import Setup, in_turn, start_of
from diffdeblend.batch.task import Packed
from diffdeblend.components import AnyStack
from diffdeblend.fourier import EXACT, Pair, multiply, multiply_conjugate, to_image, to_modes
from diffdeblend.grid import Grid, make_grid
from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.abstract import transfer


@dataclass(frozen=True)
class FreeForm:
    r"""How free pixels are fitted.

    The light of a source, seen through a narrow round Gaussian, is what its model says times
    1 + z, pixel by pixel and the same z in all bands. z is not below -1 and costs
    $z^2 / 2 \\tau^2$, which pulls it back to the model.

    - `freedom`: $\\tau$, the standard deviation of the relative change of one pixel.
    - `blur`: standard deviation of the Gaussian, in pixels.
    - `rounds`: how often fluxes and sky are solved before the pixels.
    - `steps`: of conjugate gradients in each round.
    - `least_snr`: signal-to-noise ratio, all bands together, of the faintest source to refine.
    - `every`: refine every source that is so bright, and not only where residuals ask for it.

    **Raises:** `ValueError` for a width that is not positive, or fewer than one round or step.
    """

    freedom: float = 2.0
    blur: float = 0.4
    rounds: int = 4
    steps: int = 5
    least_snr: float = 20.0
    every: bool = False

    def __post_init__(self):
        for name in ("freedom", "blur"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)}.")
        for name in ("rounds", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")


# For sources of any brightness: what is faint cannot pay for so much freedom.
CAUTIOUS = FreeForm(freedom=1.0, blur=0.7, every=True)


class Refined(NamedTuple):
    """One blend with free pixels; what has an axis of sources includes padding.

    - `chosen`: which sources have free pixels, `(source,)`.
    - `flux`, `bulge`: of each source and of its bulge, `(source, band)`; `sky`: coefficients.
    - `chi2`, `n_pixels`: of each band.
    - `value`: of the objective before and after, both with fluxes of least chi2, `(2,)`.
    - `contest`: how much of the change of each source may be a neighbour's, see `contested`.
    - `images`: of each source as the camera sees it, `(source, band, y, x)`, or None.
    """

    chosen: Any
    flux: Any
    bulge: Any
    sky: Any
    chi2: Any
    n_pixels: Any
    value: Any
    contest: Any
    images: Any


@eqx.filter_jit
def free_form_in_turn(
    tasks: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    method: FreeForm,
    setup: Setup,
    keep: bool,
) -> Refined:
    """The first `count` tasks; what is returned has a leading axis.

    - `tasks`: with the fluxes and the sky to start from.
    - `keep`: whether to return the images of the sources.
    """

    def one(task: Packed, psf: AbstractPSF) -> Refined:
        return free_form_one(task, psf, method, setup, keep)

    return in_turn(one, tasks, psfs, count, together=setup.together)


def free_form_one(
    task: Packed, psf: AbstractPSF, method: FreeForm, setup: Setup, keep: bool
) -> Refined:
    """One blend: arrays without the leading axis of `Packed`. Pure."""
    scene = start_of(task, setup)[0]
    stack, size = scene.sources[0], task.data.shape[-1]
    assert isinstance(stack, AnyStack)
    grid = make_grid((size, size), setup.quality)
    basis = jnp.zeros((0, size, size), task.data.dtype)
    if scene.background is not None:
        basis = scene.background.basis(grid)
    blend = ParametricBlend(stack, task, transfer(psf, grid, setup.quality), basis, grid, method)
    start = blend.state(stack.flux, task.sky, blend.plain)
    chosen = stack.active & _asks(blend, start, method)
    # Most blends have nothing to refine: on a CPU they cost next to nothing.
    value, end, growth = jax.lax.cond(
        jnp.any(chosen),
        lambda: _refine(blend, chosen, method),
        lambda: (jnp.zeros(2, task.data.dtype), start, jnp.ones(stack.n_slots, task.data.dtype)),
    )
    light = end.light * growth[:, None]
    bulge = light * (stack.slot_part == 1)[:, None]
    total, was = blend.by_source(light), blend.by_source(stack.flux)
    change = jnp.where(was != 0, total / jnp.where(was != 0, was, 1) - 1, 0)
    images = blend.each(end)
    return Refined(
        chosen,
        total,
        blend.by_source(bulge),
        end.level,
        jnp.sum(blend.weight * end.left**2, axis=1),
        jnp.sum(blend.weight > 0, axis=1),
        value,
        contested(blend.each(start), change, blend.weight),
        images.reshape(*images.shape[:2], size, size) if keep else None,
    )


class _State(NamedTuple):
    """Fluxes, sky, images of slots of unit flux, and what they leave of the data.

    - `inverse`: of the normal matrix of fluxes and sky of each band; 0 for what is at its bound.
    """

    light: Float[Array, "slot band"]
    level: Float[Array, "band term"]
    images: Float[Array, "band slot p"]
    left: Float[Array, "band p"]
    inverse: Float[Array, "band n n"]


class ParametricBlend:
    """A blend with its parametric sources; pixels are one axis."""

    def __init__(
        self,
        stack: AnyStack,
        task: Packed,
        through: Pair,
        basis: Float[Array, "term y x"],
        grid: Grid,
        method: FreeForm,
    ):
        bands, self.size = task.data.shape[0], grid.nx
        self.stack, self.grid = stack, grid
        self.data = task.data.reshape(bands, -1)
        self.weight = task.weight.reshape(bands, -1)
        flat = basis.reshape(basis.shape[0], grid.ny * grid.nx)
        self.basis = jnp.broadcast_to(flat, (bands, *flat.shape))
        modes = grid.modes
        profiles = jax.lax.optimization_barrier(stack.fourier(modes))
        sharp = jnp.exp(-0.5 * method.blur**2 * (modes.kx**2 + modes.ky**2))
        # From the narrow Gaussian to the PSF of each band.
        self.kernel = (through[0] / sharp, through[1] / sharp)
        narrow = to_image((profiles[0] * sharp, profiles[1] * sharp), grid)
        self.template = jnp.maximum(narrow, 0).reshape(stack.n_slots, -1)
        self.plain = self._by_band(profiles, through)
        self.membership = stack.membership

    def by_source(self, values: Float[Array, "slot n"]) -> Float[Array, "source n"]:
        return jnp.matmul(self.membership, values, precision=EXACT)

    def by_slot(self, z: Float[Array, "source p"]) -> Float[Array, "slot p"]:
        """What a factor adds to each slot, before it is blurred."""
        return jnp.matmul(self.membership.T, z, precision=EXACT) * self.template

    def each(self, state: _State) -> Float[Array, "source band p"]:
        """The sources as they are seen."""
        lit = state.light.T[:, :, None] * state.images
        return jnp.einsum("ks,bsp->kbp", self.membership, lit, precision=EXACT)

    def images(self, z: Float[Array, "source p"]) -> Float[Array, "band slot p"]:
        """Each slot as each band sees it. At z = 0 exactly the parametric model."""
        spread = self.by_slot(z).reshape(-1, self.size, self.size)
        return self.plain + self._by_band(to_modes(spread, self.grid), self.kernel)

    def _by_band(self, modes: Pair, through: Pair) -> Float[Array, "band slot p"]:
        def seen(psf: Pair) -> Array:
            image = to_image(multiply(psf, modes), self.grid)
            return image.reshape(image.shape[0], -1)

        # One band at a time bounds the memory.
        return jax.lax.map(seen, through)

    def forward(
        self, light: Float[Array, "slot band"], z: Float[Array, "source p"]
    ) -> Float[Array, "band p"]:
        """What a factor adds to the image at these fluxes."""
        drawn = jnp.matmul(light.T, self.by_slot(z), precision=EXACT)
        modes = to_modes(drawn.reshape(-1, self.size, self.size), self.grid)
        return to_image(multiply(self.kernel, modes), self.grid).reshape(drawn.shape)

    def adjoint(
        self, light: Float[Array, "slot band"], values: Float[Array, "band p"]
    ) -> Float[Array, "source p"]:
        modes = to_modes(values.reshape(-1, self.size, self.size), self.grid)
        back = to_image(multiply_conjugate(self.kernel, modes), self.grid).reshape(values.shape)
        return self.by_source(self.template * jnp.matmul(light, back, precision=EXACT))

    def state(self, light: Array, level: Array, images: Array) -> _State:
        """At given fluxes and sky."""
        size = self.stack.n_slots + self.basis.shape[1]
        inverse = jnp.zeros((self.data.shape[0], size, size), self.data.dtype)
        return _State(light, level, images, self._left(light, level, images), inverse)

    def _left(self, light: Array, level: Array, images: Array) -> Array:
        model = jnp.einsum("sb,bsp->bp", light, images, precision=EXACT)
        return self.data - model - jnp.einsum("bn,bnp->bp", level, self.basis, precision=EXACT)

    def columns(self, images: Array) -> Float[Array, "band n p"]:
        return jnp.concatenate(jax.lax.optimization_barrier([images, self.basis]), axis=1)

    def solved(self, images: Array, positive: Bool[Array, "slot"]) -> _State:
        """At the fluxes and the sky of least chi2; those of some slots are not negative."""
        columns = self.columns(images)
        weighted = columns * self.weight[:, None]
        matrix = jnp.einsum("bip,bjp->bij", weighted, columns, precision=EXACT)
        right = jnp.einsum("bip,bp->bi", weighted, self.data, precision=EXACT)
        terms = self.basis.shape[1]
        bound = jnp.concatenate([positive, jnp.zeros(terms, bool)])
        # One band after the other: see `diffdeblend.fit.stacks`.
        linear, inverse = jax.lax.map(
            lambda band: non_negative(band[0], band[1], bound), (matrix, right)
        )
        n = self.stack.n_slots
        light, level = linear[:, :n].T, linear[:, n:]
        return _State(light, level, images, self._left(light, level, images), inverse)


def _asks(blend: ParametricBlend, start: _State, method: FreeForm) -> Bool[Array, "source"]:
    """The rule of `asks_for_pixels`: what is wrong in a source's own pixels is not noise."""
    models = blend.each(start)
    weight = blend.weight
    snr = jnp.sqrt(jnp.einsum("bp,kbp->k", weight, models**2, precision=EXACT))
    if method.every:
        return snr > method.least_snr
    signal = jnp.einsum("bp,kbp->kp", weight, jnp.maximum(models, 0))
    share = signal / jnp.maximum(jnp.sum(signal, axis=0), 1e-30)
    own = (share > 0.5) & (signal > jnp.sqrt(jnp.sum(weight, axis=0)))
    chi2 = jnp.sum(jnp.where(own, jnp.sum(weight * start.left**2, axis=0), 0), axis=1)
    count = jnp.sum(jnp.where(own, jnp.sum(weight > 0, axis=0), 0), axis=1)
    safe = jnp.maximum(count, 1)
    excess = chi2 / safe - 1
    wrong = (excess > 0.05) & (excess > 4 * jnp.sqrt(2 / safe))
    return (snr > method.least_snr) & (count > 0) & wrong


def _refine(
    blend: ParametricBlend, chosen: Bool[Array, "source"], method: FreeForm
) -> tuple[Array, _State, Array]:
    """Objective before and after, the end, and how much the sum over each slot has grown."""
    weight, pull = blend.weight, 1 / method.freedom**2
    free = chosen[:, None] & jnp.any(weight > 0, axis=0)
    positive = chosen[blend.stack.owner] & blend.stack.active_slot

    def value_of(state: _State, z: Array) -> Array:
        return 0.5 * jnp.sum(weight * state.left**2) + 0.5 * pull * jnp.sum(z**2)

    z = jnp.zeros((chosen.size, weight.shape[1]), weight.dtype)
    state = blend.solved(blend.plain, positive)
    first = value_of(state, z)

    def one_round(_: int, best: tuple[Array, _State, Array]) -> tuple[Array, _State, Array]:
        z = _moved(blend, best[1], best[0], free, method)
        state = blend.solved(blend.images(z), positive)
        value = value_of(state, z)
        better = value < best[2]
        # What is not finite is not better.
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), (z, state, value), best)

    z, state, last = jax.lax.fori_loop(0, method.rounds, one_round, (z, state, first))
    growth = 1 + jnp.sum(blend.by_slot(z), axis=1)
    return jnp.stack([first, last]), state, growth


def _moved(
    blend: ParametricBlend,
    state: _State,
    z: Float[Array, "source p"],
    free: Bool[Array, "source p"],
    method: FreeForm,
) -> Float[Array, "source p"]:
    """The factors of least chi2 at fluxes and sky that follow, as far as the steps reach.

    Conjugate gradients on the normal equations from which fluxes and sky are eliminated, each
    pixel in units of its own error; then no pixel below zero.

    ??? cite
        Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413, in Kaufman's (1975) form.
    """
    weight, pull = blend.weight, 1 / method.freedom**2
    slope = pull * z - blend.adjoint(state.light, weight * state.left)
    # What is dark and would be darker stays.
    moves = free & ~((z <= -1) & (slope > 0))
    columns = blend.columns(state.images)
    kernel, grid = blend.kernel, blend.grid
    depth = jnp.sum(weight, axis=1) / jnp.maximum(jnp.sum(weight > 0, axis=1), 1)
    power = depth * jnp.sum(grid.mode_weight * (kernel[0] ** 2 + kernel[1] ** 2), axis=1)
    scale = jnp.full_like(z, pull)
    for band in range(weight.shape[0]):
        seen = blend.by_source(state.light[:, band, None] * blend.template)
        scale = scale + power[band] * seen**2

    def bent(step: Array) -> Array:
        seen = weight * blend.forward(state.light, step)
        right = jnp.einsum("bip,bp->bi", columns, seen, precision=EXACT)
        follow = jnp.einsum("bij,bj->bi", state.inverse, right, precision=EXACT)
        seen = seen - weight * jnp.einsum("bip,bi->bp", columns, follow, precision=EXACT)
        return jnp.where(moves, blend.adjoint(state.light, seen) + pull * step, 0)

    def step(_: int, walk: tuple[Array, ...]) -> tuple[Array, ...]:
        change, left, along, size = walk
        bending = bent(along)
        length = _ratio(size, jnp.sum(along * bending))
        change, left = change + length * along, left - length * bending
        scaled = left / scale
        new = jnp.sum(left * scaled)
        return change, left, scaled + _ratio(new, size) * along, new

    left = jnp.where(moves, -slope, 0)
    first = (jnp.zeros_like(z), left, left / scale, jnp.sum(left**2 / scale))
    change = jax.lax.fori_loop(0, method.steps, step, first)[0]
    return jnp.maximum(z + change, -1)


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def non_negative(
    matrix: Float[Array, "n n"], right: Float[Array, "n"], positive: Bool[Array, "n"]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Least squares from normal equations, and the inverse of the matrix of what is not at 0.

    What is to be positive and comes out negative is left out, and the rest is solved again, three
    times; what is negative still becomes 0.
    """
    diagonal = jnp.diagonal(matrix)
    there = diagonal > 0
    scale = jnp.where(there, 1 / jnp.sqrt(jnp.where(there, diagonal, 1)), 0)
    scaled = matrix * scale * scale[:, None]
    ridge = 100 * jnp.finfo(matrix.dtype).eps

    def solve(kept: Array) -> tuple[Array, Array]:
        on = jnp.where(kept, 1, 0).astype(matrix.dtype)
        some = scaled * on * on[:, None] + jnp.diag(jnp.where(kept, ridge, 1))
        factor = jax.scipy.linalg.cho_factor(some, lower=True)
        inverse = jax.scipy.linalg.cho_solve(factor, jnp.diag(on * scale)) * (on * scale)[:, None]
        return jnp.matmul(inverse, right, precision=EXACT), inverse

    kept = there
    for _ in range(3):
        kept = kept & ~(positive & (solve(kept)[0] < 0))
    found, inverse = solve(kept)
    return jnp.where(positive, jnp.maximum(found, 0), found), inverse


def contested(
    before: Float[Array, "source band p"],
    change: Float[Array, "source band"],
    weight: Float[Array, "band p"],
) -> Float[Array, "source"]:
    """Relative change of the flux of each source, times its largest overlap with another.

    Light that two sources can exchange leaves chi2 as it is, so that chi2 cannot tell who has
    stolen it. What can be seen is that a flux has changed, and that a neighbour looks alike: the
    overlap is the correlation of the two images in units of the noise, 0 for sources apart, 1 for
    two in one place.

    - `before`: the parametric sources as they are seen.
    - `change`: flux after over flux before, minus 1.
    """
    power = jnp.einsum("bp,kbp->kb", weight, before**2, precision=EXACT)
    total = jnp.sum(power, axis=1)
    safe = jnp.where(total > 0, total, 1)
    flat = (jnp.sqrt(weight) * before).reshape(before.shape[0], -1)
    flat = flat / jnp.sqrt(safe)[:, None]
    overlap = jnp.matmul(flat, flat.T, precision=EXACT) * (
        1 - jnp.eye(flat.shape[0], dtype=flat.dtype)
    )
    moved = jnp.sqrt(jnp.sum(power * change**2, axis=1) / safe)
    return moved * jnp.max(jnp.maximum(overlap, 0), axis=1)
