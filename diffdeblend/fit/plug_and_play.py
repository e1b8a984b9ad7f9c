"""Free pixels with a denoiser for a prior, by turns of a data step and a denoising step."""

from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components import Frame, Pixels, Stack
from diffdeblend.fit.levenberg_marquardt import Solution
from diffdeblend.fit.linear import solved_fluxes
from diffdeblend.fit.objective import Problem, model_image
from diffdeblend.fit.unknowns import scene_of, unknowns_of
from diffdeblend.fourier import EXACT, Pair, multiply, shift, to_image
from diffdeblend.parameters import as_float
from diffdeblend.scene import Scene, profiles


class Transform(Protocol):
    """The scale that a denoiser's noise is added on."""

    def forward(self, image: Array) -> Array: ...
    def inverse(self, value: Array) -> Array: ...


@runtime_checkable
class DenoisingPrior(Protocol):
    """What `PlugAndPlay` needs of a prior; `diffdeblend.priors.DenoiserPrior` is one."""

    @property
    def frame(self) -> Frame: ...
    @property
    def transform(self) -> Transform: ...
    def denoise(self, value: Array, sigma: Array) -> Array: ...


class PlugAndPlay(eqx.Module):
    r"""Half-quadratic splitting: pixels go to the data, and to what a denoiser makes of them.

    Each round denoises the galaxies, $v = D(u, \sigma)$, and takes a Gauss-Newton step down
    $\chi^2 / 2 + \sum |u - v|^2 / 2 \sigma^2$ with $\sigma$ falling from round to round; v is held
    in it, as the slope of a denoiser summed with that of the data leads astray. Varied are the
    logarithms of the weights, so that these stay positive; fluxes and sky are at their best all
    the way (variable projection), places and other shapes are held.

    u is on the denoiser's scale, of the galaxy seen through the frame's Gaussian PSF: the weights,
    blurred by $\sqrt{\mathrm{blur}^2 + \mathrm{psf\_sigma}^2}$, of unit sum on the stamp. The PSF
    of the data has no part in it. All bands share a morphology.

    What it ends at minimises no objective, so errors (those of a fit with the morphology held) are
    too small; `history` is chi2/2 plus the pull.

    - `prior`: the denoiser.
    - `rounds`: of denoising.
    - `first`, `last`: levels of noise of the first and the last round, in its scale.
    - `products`: of the conjugate gradients in one step.

    ??? cite
        Half-quadratic splitting: Geman & Yang (1995), IEEE TIP 4, 932; with a denoiser: Zhang et
        al. (2022), IEEE TPAMI 44, 6360, eq. 6. Variable projection: Kaufman (1975), BIT 15, 49.
    """

    prior: DenoisingPrior
    rounds: int = eqx.field(static=True, default=24)
    products: int = eqx.field(static=True, default=10)
    # Arrays: another level compiles nothing.
    first: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    last: Float[Array, ""] = eqx.field(converter=as_float, default=0.3)

    def __check_init__(self):
        if not isinstance(self.prior, DenoisingPrior):
            raise ValueError(
                "`prior` must be a denoiser, such as `DenoiserPrior`; got "
                f"{type(self.prior).__name__}."
            )
        for name in ("rounds", "products"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")


# Pixels without light have no curvature: what holds them still, in units of the pull.
_RIDGE = 0.01
# Longest change of the logarithm of a weight in one step.
_LONGEST = 1.5


class _Step(NamedTuple):
    change: Array
    rest: Array
    direction: Array
    size: Array


def plug_and_play(method: PlugAndPlay, start: Scene, problem: Problem) -> Solution:
    """Fit from `start`; its one stack of `Pixels` is varied. Pure.

    **Raises:** `ValueError` if the scene has not exactly one stack of `Pixels`, of one part each
    and of the size of the denoiser's frame.
    """
    place = _place(start, method.prior.frame)
    stack = start.sources[place]
    assert isinstance(stack.members, Pixels)
    free = problem.free.image[place].reshape(stack.members.morphology.shape)
    domain = jnp.log(jnp.maximum(_unit(stack.members.morphology), 1e-9))
    levels = method.first * (method.last / method.first) ** jnp.linspace(0, 1, method.rounds)

    def one_round(logarithm: Array, sigma: Array) -> tuple[Array, Array]:
        scene = _with_weights(start, place, logarithm)
        scene = scene_of(solved_fluxes(scene, problem), scene)
        return _data_step(scene, place, logarithm, free, sigma, method, problem)

    logarithm, history = jax.lax.scan(one_round, domain, levels.astype(domain.dtype))
    scene = _with_weights(start, place, logarithm)
    unknowns = unknowns_of(scene_of(solved_fluxes(scene, problem), scene))
    return Solution(
        unknowns,
        history[-1],
        history,
        jnp.asarray(method.rounds),
        jnp.all(jnp.isfinite(history)),
    )


def _data_step(
    scene: Scene,
    place: int,
    logarithm: Array,
    free: Array,
    sigma: Array,
    method: PlugAndPlay,
    problem: Problem,
) -> tuple[Array, Array]:
    """Denoise, then one Gauss-Newton step; the new logarithms, and the cost there."""
    prior, stack, grid = method.prior, scene.sources[place], problem.grid
    members, active = stack.members, stack.active.astype(logarithm.dtype)
    assert isinstance(members, Pixels)
    spread = _spread(logarithm.shape[-2:], members.blur, prior.frame, logarithm.dtype)
    through = multiply(problem.psf, shift(grid.modes, scene.dx, scene.dy))
    flux = stack.flux * active[:, None]
    weight = jnp.sqrt(problem.weight)

    def seen_by_prior(logarithm: Array) -> Array:
        return prior.transform.forward(_unit(spread(_softmax(logarithm))))

    def light(weights: Array) -> Array:
        re, im = jax.vmap(lambda m, w: m.linear_fourier(w, grid.modes))(members, weights)
        spectrum = tuple(jnp.matmul(flux.T, part, precision=EXACT) for part in (re, im))
        return weight * to_image(multiply((spectrum[0], spectrum[1]), through), grid)

    value, push = jax.linearize(seen_by_prior, logarithm)
    pull = jax.linear_transpose(push, logarithm)
    goal = jax.vmap(lambda u: prior.denoise(u, sigma))(value)
    goal = jax.lax.stop_gradient(goal)
    weights, spread_out = jax.linearize(_softmax, logarithm)
    gather = jax.linear_transpose(spread_out, logarithm)
    dim = jax.linear_transpose(light, weights)
    keep = free * active[:, None, None]
    strength = 1 / sigma**2
    project = _without_linear(scene, through, problem)
    # Fluxes are at their best: the residual has nothing of what these can do.
    left = weight * (problem.data - model_image(scene, problem))

    def product(vector: Array) -> Array:
        vector = keep * vector
        by_data = gather(dim(project(light(spread_out(vector))))[0])[0]
        return keep * (by_data + strength * (pull(push(vector))[0] + _RIDGE * vector))

    downhill = keep * (gather(dim(left)[0])[0] - strength * pull(value - goal)[0])
    change = _conjugate_gradients(product, downhill, method.products)
    longest = jnp.max(jnp.abs(change), axis=(-2, -1), keepdims=True)
    change = change * jnp.minimum(1, _LONGEST / jnp.maximum(longest, 1e-6))

    def cost(length: Array) -> Array:
        moved = logarithm + length * change
        rest = project(left - light(_softmax(moved) - weights))
        away = active[:, None, None] * (seen_by_prior(moved) - goal)
        return 0.5 * jnp.sum(rest**2) + 0.5 * strength * jnp.sum(away**2)

    lengths = jnp.asarray([1.0, 0.5, 0.2, 0.0], logarithm.dtype)
    costs = jax.vmap(cost)(lengths)
    costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    best = jnp.argmin(costs)
    # Not 0 times a change that is not finite.
    moved = jnp.where(jnp.isfinite(change), lengths[best] * change, 0)
    return logarithm + moved, costs[best]


def _conjugate_gradients(product, right: Array, n: int) -> Array:
    def one(_: int, step: _Step) -> _Step:
        pushed = product(step.direction)
        curvature = jnp.sum(step.direction * pushed)
        length = jnp.where(curvature > 0, step.size / jnp.where(curvature > 0, curvature, 1), 0)
        rest = step.rest - length * pushed
        size = jnp.sum(rest**2)
        turn = jnp.where(step.size > 0, size / jnp.where(step.size > 0, step.size, 1), 0)
        return _Step(
            step.change + length * step.direction, rest, rest + turn * step.direction, size
        )

    first = _Step(jnp.zeros_like(right), right, right, jnp.sum(right**2))
    return jax.lax.fori_loop(0, n, one, first).change


def _without_linear(scene: Scene, through: Pair, problem: Problem):
    """What takes from weighted images all that free fluxes and the sky could do."""
    values = profiles(scene, problem.grid.modes)
    sky = None if scene.background is None else scene.background.basis(problem.grid)
    on = jnp.concatenate([problem.free.flux.T, problem.free.sky], axis=1)

    def one_band(band: tuple[Pair, Array, Array]) -> Array:
        psf, weight, on = band
        images = to_image(multiply(psf, values), problem.grid)
        if sky is not None:
            images = jnp.concatenate([images, sky])
        images = (images * jnp.sqrt(weight) * on[:, None, None]).reshape(len(on), -1)
        norm = jnp.sqrt(jnp.sum(images**2, axis=1, keepdims=True))
        images = images / jnp.where(norm > 0, norm, 1)
        matrix = jnp.matmul(images, images.T, precision=EXACT)
        ridge = jnp.where(norm[:, 0] > 0, 100 * jnp.finfo(images.dtype).eps, 1)
        lower = jnp.linalg.cholesky(matrix + jnp.diag(ridge))
        return jax.scipy.linalg.solve_triangular(lower, images, lower=True)

    axes = jax.lax.map(one_band, (through, problem.weight, on))

    def project(image: Array) -> Array:
        flat = image.reshape(image.shape[0], -1)
        along = jnp.einsum("bsp,bp->bs", axes, flat, precision=EXACT)
        return image - jnp.einsum("bsp,bs->bp", axes, along, precision=EXACT).reshape(image.shape)

    return project


def _spread(shape: tuple[int, ...], blur: float, frame: Frame, dtype):
    """From weights to the galaxy in the denoiser's frame, at the centres of its pixels."""
    sigma = np.hypot(blur, frame.psf_sigma)

    def matrix(size: int) -> Array:
        apart = np.subtract.outer(np.arange(size), np.arange(size)) / sigma
        return jnp.asarray(np.exp(-0.5 * apart**2) / (sigma * np.sqrt(2 * np.pi)), dtype)

    rows, columns = matrix(shape[0]), matrix(shape[1])

    def spread(weights: Array) -> Array:
        along = jnp.matmul(rows, weights, precision=EXACT)
        return jnp.matmul(along, columns, precision=EXACT)

    return spread


def _place(scene: Scene, frame: Frame) -> int:
    places = [i for i, s in enumerate(scene.sources) if isinstance(s.members, Pixels)]
    if len(places) != 1:
        raise ValueError(
            f"`PlugAndPlay` needs a scene with one stack of `Pixels`; got {len(places)}."
        )
    shape = scene.sources[places[0]].members.morphology.shape[1:]  # type: ignore[attr-defined]
    if shape != (frame.size, frame.size):
        raise ValueError(
            f"`morphology` must have one part of {frame.size} by {frame.size} pixels, the frame of "
            f"the denoiser; got {shape}."
        )
    return places[0]


def _softmax(logarithm: Array) -> Array:
    flat = logarithm.reshape(logarithm.shape[0], -1)
    return jax.nn.softmax(flat, axis=1).reshape(logarithm.shape)


def _unit(images: Array) -> Array:
    total = jnp.sum(images, axis=(-2, -1), keepdims=True)
    return images / jnp.where(total > 0, total, 1)


def _with_weights(scene: Scene, place: int, logarithm: Array) -> Scene:
    stack = scene.sources[place]
    stacks: list[Stack] = list(scene.sources)
    stacks[place] = eqx.tree_at(lambda s: s.members.morphology, stack, _softmax(logarithm))
    return Scene(stacks, scene.background, scene.dx, scene.dy)
