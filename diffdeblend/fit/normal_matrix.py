"""The Gauss-Newton matrix, and the solution of its equations.

Unknowns that only one band knows (fluxes, sky, shift of the band) form one small block a band;
the shapes, which all bands share, are what remains when these are eliminated.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import Unknowns, scene_of
from diffdeblend.fourier import (
    EXACT,
    Pair,
    low_modes,
    multiply,
    multiply_conjugate,
    shift,
    to_image,
    to_modes,
)
from diffdeblend.grid import Modes
from diffdeblend.scene import Scene, profiles, slot_flux

# The lowest half of the modes on each axis carries the matrix; a third makes bad steps.
_LOW = 0.5


class Normal(eqx.Module):
    """A symmetric matrix in the form of an arrow, or its right-hand side's curvature.

    - `band`: block of the unknowns of each band, `(band, linear, linear)`.
    - `cross`: `(band, linear, shape)`.
    - `shape`: `(shape, shape)`.
    """

    band: Float[Array, "band linear linear"]
    cross: Float[Array, "band linear shape"]
    shape: Float[Array, "shape shape"]


class Columns(eqx.Module):
    """Fourier modes of what a unit change of each unknown adds, before the PSF.

    - `flux`: profiles, `(slot, k)`.
    - `shape`: derivatives, `(band, shape, k)`.
    - `moved`: derivatives by dx and dy of a band, `(band, 2, k)`.
    """

    flux: Pair
    shape: Pair
    moved: Pair


def columns(
    unknowns: Unknowns,
    template: Scene,
    modes: Modes,
    emphasis: Float[Array, "slot band"] | float = 1.0,
) -> Columns:
    """Derivatives by forward-mode autodiff of the profiles alone, one tangent a parameter.

    - `emphasis`: factor on what each slot adds to the derivatives by a shape.
    """
    emphasis = jnp.broadcast_to(jnp.asarray(emphasis), unknowns.flux.shape)
    first = 0
    scene = scene_of(unknowns, template)
    values: list[Pair] = []
    shapes: list[Pair] = []
    for number, stack in enumerate(scene.sources):

        def profile(vector: Array, number: int = number) -> Pair:
            changed = eqx.tree_at(lambda u: u.shape[number], unknowns, vector)
            return scene_of(changed, template).sources[number].fourier(modes)

        value, push = jax.linearize(profile, unknowns.shape[number])
        size, parameters = unknowns.shape[number].shape
        slots = slice(first, first + stack.n_slots)
        first = slots.stop
        # (band, source, slot): what each slot gives to its owner's derivative.
        flux = (stack.flux * emphasis[slots]).T[:, None, :] * stack.membership
        still = jnp.zeros_like(unknowns.shape[number])
        by_parameter: list[Pair] = []
        # One tangent a parameter for all sources at once, unrolled: batching them is slower.
        for p in range(parameters):
            tangent = push(still.at[:, p].set(1))
            re, im = (
                jnp.matmul(flux.reshape(-1, stack.n_slots), t, precision=EXACT) for t in tangent
            )
            by_parameter.append(
                (re.reshape(-1, size, re.shape[1]), im.reshape(-1, size, im.shape[1]))
            )
        values.append(value)
        shapes.append(_join(by_parameter, axis=2, stack=True, shape=(size * parameters,)))
    value = _join(values, axis=0)
    total = [jnp.matmul(slot_flux(scene).T, v, precision=EXACT) for v in value]
    # Moving by d multiplies by exp(-i k d): the derivative at 0 is -i k.
    moved = (
        jnp.stack([modes.kx * total[1], modes.ky * total[1]], axis=1),
        jnp.stack([-modes.kx * total[0], -modes.ky * total[0]], axis=1),
    )
    return Columns(value, _join(shapes, axis=1), moved)


def _join(pairs: list[Pair], axis: int, stack: bool = False, shape: tuple = ()) -> Pair:
    """Concatenate, or stack and join the new axis with the one before it."""
    if not stack:
        if len(pairs) == 1:
            return pairs[0]
        return (
            jnp.concatenate([p[0] for p in pairs], axis),
            jnp.concatenate([p[1] for p in pairs], axis),
        )
    re, im = (jnp.stack([p[i] for p in pairs], axis) for i in (0, 1))
    joined = (re.shape[0], *shape, re.shape[-1])
    return re.reshape(joined), im.reshape(joined)


def normal_by_modes(
    unknowns: Unknowns, template: Scene, problem: Problem, fixed: "Fixed"
) -> Normal:
    """The matrix as if the noise were the same everywhere under a source; needs no transform.

    By Parseval the sum over pixels is one over modes. It only sets the pace of a fit, never its
    end: gradient and objective are exact.

    - `fixed`: `fixed_terms` of the problem, which stay the same through a fit.
    """
    low = problem.grid.low(_LOW)
    through = multiply(
        low_modes(problem.psf, problem.grid, low),
        shift(low.modes, unknowns.dx, unknowns.dy),
    )
    sky = fixed.sky
    per_mode = fixed.mean_weight[:, None] * low.mode_weight * (through[0] ** 2 + through[1] ** 2)
    c = columns(unknowns, template, low.modes, fixed.emphasis)
    by_slot = fixed.emphasis.T
    n_bands, n_slots = template.n_bands, c.flux[0].shape[0]

    zero = jnp.zeros((), dtype=per_mode.dtype)
    band = cross = shape = moved_flux = moved_shape = moved = zero
    for flux, shapes, move in zip(c.flux, c.shape, c.moved, strict=True):
        weighted = (per_mode[:, None] * flux).reshape(n_bands * n_slots, -1)
        weighted_shapes = per_mode[:, None] * shapes
        weighted_move = per_mode[:, None] * move
        band += _dot(weighted, flux).reshape(n_bands, n_slots, n_slots)
        cross += _dot(flux, weighted_shapes.reshape(-1, flux.shape[1])).reshape(
            n_slots, n_bands, -1
        )
        # One product a band: a batched one is slower on CPU.
        for b in range(n_bands):
            shape += _dot(weighted_shapes[b], shapes[b])
        moved_flux += jnp.einsum("bmk,ck->bmc", weighted_move, flux, precision=EXACT)
        moved_shape += jnp.einsum("bmk,btk->bmt", weighted_move, shapes, precision=EXACT)
        moved += jnp.einsum("bmk,bnk->bmn", weighted_move, move, precision=EXACT)
    band = band * by_slot[:, :, None] * by_slot[:, None, :]
    cross = jnp.swapaxes(cross, 0, 1) * by_slot[:, :, None]
    moved_flux = moved_flux * by_slot[:, None, :]
    if sky is None:
        return Normal(
            _block([[band, _turn(moved_flux)], [moved_flux, moved]]),
            jnp.concatenate([cross, moved_shape], axis=1),
            shape,
        )
    back = multiply_conjugate(
        (through[0][:, None], through[1][:, None]), low_modes(sky, problem.grid, low)
    )
    background = template.background
    assert background is not None
    basis = background.basis(problem.grid)
    sky_sky = jnp.einsum("nyx,byx,myx->bnm", basis, problem.weight, basis, precision=EXACT)
    sky_flux = sky_shape = sky_moved = zero
    for flux, shapes, move, sky_part in zip(c.flux, c.shape, c.moved, back, strict=True):
        weighted_sky = low.mode_weight * sky_part
        sky_flux += jnp.einsum("bnk,ck->bnc", weighted_sky, flux, precision=EXACT)
        sky_shape += jnp.einsum("bnk,btk->bnt", weighted_sky, shapes, precision=EXACT)
        sky_moved += jnp.einsum("bnk,bmk->bnm", weighted_sky, move, precision=EXACT)
    return Normal(
        _block(
            [
                [band, _turn(sky_flux), _turn(moved_flux)],
                [sky_flux, sky_sky, sky_moved],
                [moved_flux, _turn(sky_moved), moved],
            ]
        ),
        jnp.concatenate([cross, sky_shape, moved_shape], axis=1),
        shape,
    )


def normal_by_pixels(unknowns: Unknowns, template: Scene, problem: Problem) -> Normal:
    """The matrix with the exact weight of every pixel; slower, for the end of a fit."""
    grid = problem.grid
    c = columns(unknowns, template, grid.modes)
    through = multiply(problem.psf, shift(grid.modes, unknowns.dx, unknowns.dy))
    background = template.background
    sky = None if background is None else background.basis(grid)

    def one_band(band: tuple[Pair, Pair, Pair, Array]) -> tuple[Array, Array, Array]:
        shape, moved, psf, weight = band
        images = [to_image(multiply(psf, c.flux), grid)]
        if sky is not None:
            images.append(sky)
        images.append(to_image(multiply(psf, moved), grid))
        linear = jnp.concatenate(images).reshape(-1, weight.size)
        shapes = to_image(multiply(psf, shape), grid).reshape(-1, weight.size)
        flat = weight.reshape(-1)
        return (
            _dot(linear * flat, linear),
            _dot(linear * flat, shapes),
            _dot(shapes * flat, shapes),
        )

    # One band at a time bounds the memory.
    band, cross, shape = jax.lax.map(one_band, (c.shape, c.moved, through, problem.weight))
    return Normal(band, cross, jnp.sum(shape, axis=0))


class Fixed(NamedTuple):
    """What the matrix by modes needs of the weights; the same through a fit.

    - `mean_weight`: of the used pixels of each band.
    - `emphasis`: root of the weight that the pixels of a slot have, in units of the mean.
    - `sky`: modes of weight times each image of the background, `(band, n, k)`; None without one.
    """

    mean_weight: Float[Array, "band"]
    emphasis: Float[Array, "slot band"]
    sky: Pair | None


def fixed_terms(start: Scene, problem: Problem) -> Fixed:
    """The terms of `Fixed` for a fit that starts at `start`."""
    grid, weight = problem.grid, problem.weight
    used = jnp.maximum(jnp.sum(weight > 0, axis=(1, 2)), 1)
    mean = jnp.sum(weight, axis=(1, 2)) / used
    mean = jnp.where(mean > 0, mean, 1)
    # Averaged over the squared image of each source as the middle band would see it.
    low = grid.low(_LOW)
    psf = low_modes(problem.psf, grid, low)
    middle = start.n_bands // 2
    seen = to_image(multiply((psf[0][middle], psf[1][middle]), profiles(start, low.modes)), low)
    squared = seen.reshape(seen.shape[0], -1) ** 2
    total = jnp.sum(squared, axis=1)
    under = jnp.matmul(squared, weight.reshape(weight.shape[0], -1).T, precision=EXACT)
    share = under / jnp.where(total > 0, total, 1)[:, None] / mean
    # A source on masked pixels still needs some curvature to be held by.
    emphasis = jnp.where(total[:, None] > 0, jnp.sqrt(jnp.clip(share, 1e-4, 4)), 1)
    sky = None
    if start.background is not None:
        basis = start.background.basis(grid)
        sky = to_modes(weight[:, None] * basis, grid)
    return Fixed(mean, emphasis, sky)


def prior_curvature(unknowns: Unknowns, template: Scene, problem: Problem) -> Float[Array, "shape"]:
    """A diagonal matrix above the prior's curvature in the shapes; exact where that is diagonal."""
    if problem.prior is None:
        return jnp.zeros_like(unknowns.flat_shape)
    prior = problem.prior

    def negative(flat: Array) -> Array:
        return -prior(scene_of(unknowns.with_flat_shape(flat), template))

    rows = jax.jacfwd(jax.grad(negative))(unknowns.flat_shape)
    return jnp.sum(jnp.abs(rows), axis=1)


def linear_vector(unknowns: Unknowns) -> Float[Array, "band linear"]:
    """Fluxes, sky and shift of each band, in the order of `Normal.band`."""
    return jnp.concatenate(
        [unknowns.flux.T, unknowns.sky, unknowns.dx[:, None], unknowns.dy[:, None]], axis=1
    )


def from_vectors(
    linear: Float[Array, "band linear"], shape: Float[Array, "shape"], like: Unknowns
) -> Unknowns:
    """Inverse of `linear_vector` and `Unknowns.flat_shape`."""
    slots, sky = like.flux.shape[0], like.sky.shape[1]
    filled = eqx.tree_at(
        lambda u: (u.flux, u.sky, u.dx, u.dy),
        like,
        (linear[:, :slots].T, linear[:, slots : slots + sky], linear[:, -2], linear[:, -1]),
    )
    return filled.with_flat_shape(shape)


def hold(normal: Normal, free: Unknowns) -> Normal:
    """The matrix with the rows and columns of held numbers replaced by those of the identity."""
    linear, shape = linear_vector(free), free.flat_shape
    # What does nothing, such as a dark part of a source, is held too.
    linear = jnp.where(jnp.diagonal(normal.band, axis1=1, axis2=2) > 0, linear, 0)
    shape = jnp.where(jnp.diagonal(normal.shape) > 0, shape, 0)
    band = normal.band * linear[:, :, None] * linear[:, None, :]
    return Normal(
        band + jax.vmap(jnp.diag)(1 - linear),
        normal.cross * linear[:, :, None] * shape,
        normal.shape * shape[:, None] * shape + jnp.diag(1 - shape),
    )


class Factors(eqx.Module):
    """The matrix, factored.

    - `scale`, `lower`: scales of the band blocks and their Cholesky factors after scaling.
    - `response`: change of the unknowns of a band for a unit change of each shape, with the
        opposite sign, `(band, linear, shape)`.
    - `shape_scale`, `shape_lower`: the same of the shapes after elimination.
    """

    scale: Float[Array, "band linear"]
    lower: Float[Array, "band linear linear"]
    response: Float[Array, "band linear shape"]
    shape_scale: Float[Array, "shape"]
    shape_lower: Float[Array, "shape shape"]


def factor(normal: Normal, damping: Float[Array, ""]) -> Factors:
    """Eliminate the bands and factor what remains, with Marquardt damping.

    Both parts are scaled to a unit diagonal first: the condition falls from 1e6 to below 100, and
    float32 is safe.
    """
    scale = _inverse_root(jnp.diagonal(normal.band, axis1=1, axis2=2))
    scaled = normal.band * scale[:, :, None] * scale[:, None, :]
    tiny = 100 * jnp.finfo(scaled.dtype).eps
    # Fluxes are linear and need little damping: some, for parts that look alike.
    ridge = tiny + 0.1 * damping
    lower = jnp.linalg.cholesky(scaled + ridge * jnp.eye(scaled.shape[-1], dtype=scaled.dtype))
    half = jax.vmap(lambda m, r: jax.scipy.linalg.solve_triangular(m, r, lower=True))(
        lower, normal.cross * scale[:, :, None]
    )
    response = scale[:, :, None] * jax.vmap(
        lambda m, r: jax.scipy.linalg.solve_triangular(m, r, lower=True, trans=1)
    )(lower, half)
    remaining = normal.shape - jnp.einsum("blt,blu->tu", half, half, precision=EXACT)
    diagonal = jnp.diagonal(normal.shape)
    remaining = remaining + damping * jnp.diag(diagonal)
    shape_scale = _inverse_root(jnp.maximum(jnp.diagonal(remaining), 1e-6 * diagonal))
    scaled_shape = remaining * shape_scale[:, None] * shape_scale
    shape_lower = jnp.linalg.cholesky(
        scaled_shape + tiny * jnp.eye(scaled_shape.shape[0], dtype=scaled_shape.dtype)
    )
    return Factors(scale, lower, response, shape_scale, shape_lower)


def solve_shape(factors: Factors, right: Float[Array, "shape *n"]) -> Float[Array, "shape *n"]:
    """Solve for the shapes, given what elimination leaves of the right-hand side."""
    scale = factors.shape_scale.reshape(-1, *[1] * (right.ndim - 1))
    solved = jax.scipy.linalg.cho_solve((factors.shape_lower, True), scale * right)
    return scale * solved


def solve_band(factors: Factors, right: Float[Array, "band linear"]) -> Float[Array, "band linear"]:
    """Solve for the unknowns of each band at held shapes."""
    scaled = factors.scale * right
    solved = jax.vmap(lambda m, r: jax.scipy.linalg.cho_solve((m, True), r))(factors.lower, scaled)
    return factors.scale * solved


def _inverse_root(diagonal: Array) -> Array:
    positive = diagonal > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, diagonal, 1)), 1)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=EXACT)


def _turn(a: Array) -> Array:
    return jnp.swapaxes(a, 1, 2)


def _block(blocks: list[list[Array]]) -> Array:
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in blocks], axis=1)
