"""The Gauss-Newton matrix: in Fourier space for the steps of a fit, in pixels for its errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components import Stack
from diffdeblend.fit.arrow import Normal
from diffdeblend.fit.columns import Columns
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.prior import CostedPrior
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
from diffdeblend.grid import Grid, Quality
from diffdeblend.scene import Scene

# The lowest half of the modes on each axis carries the matrix; a third makes bad steps.
_LOW = 0.5


def low_grid(problem: Problem) -> Grid:
    """The grid of the modes that carry the matrix by modes."""
    return problem.grid.low(_LOW)


def matrix_grid(problem: Problem) -> Grid:
    """The grid of the modes that carry the exact matrix."""
    quality = problem.quality
    return problem.grid if quality.matrix >= quality.cut else problem.grid.low(_share(quality))


def _share(quality: Quality) -> float:
    return quality.matrix / quality.cut


def normal_by_modes(
    unknowns: Unknowns, template: Scene, problem: Problem, fixed: "Fixed", columns: Columns
) -> Normal:
    """The matrix as if the noise were the same everywhere under a source; needs no transform.

    By Parseval the sum over pixels is one over modes. It only sets the pace of a fit, never its
    end: gradient and objective are exact.

    - `fixed`: `fixed_terms` of the problem, which stay the same through a fit.
    - `columns`: on the modes of `low_grid`.
    """
    low = low_grid(problem)
    through = multiply(
        low_modes(problem.psf, problem.grid, low),
        shift(low.modes, unknowns.dx, unknowns.dy),
    )
    per_mode = fixed.mean_weight[:, None] * low.mode_weight * (through[0] ** 2 + through[1] ** 2)
    per_mode = jnp.concatenate([per_mode, per_mode], axis=1)
    n_bands, n_slots = template.n_bands, columns.n_slots
    d = columns.modes
    # One product a band: a batched one is no faster, and is slower at other sizes.
    grams = jnp.stack([_dot(d * per_mode[b], d.T) for b in range(n_bands)])
    rows = rows_of(columns, unknowns, fixed.emphasis)
    by_slot = fixed.emphasis.T
    band = grams[:, :n_slots, :n_slots] * by_slot[:, :, None] * by_slot[:, None, :]
    turned = jax.lax.dot_general(
        grams[:, :, n_slots:], rows, (((2,), (1,)), ((0,), (0,))), precision=EXACT
    )
    cross = by_slot[:, :, None] * turned[:, :n_slots]
    inner = jnp.einsum("brt,bru->btu", rows, turned[:, n_slots:], precision=EXACT)
    moved_flux, moved_shape = cross[:, :, -2:], inner[:, -2:, :-2]
    linear = [[band, moved_flux], [_turn(moved_flux), inner[:, -2:, -2:]]]
    crosses = [cross[:, :, :-2], moved_shape]
    if fixed.sky is not None:
        back = multiply_conjugate(
            (through[0][:, None], through[1][:, None]), low_modes(fixed.sky, problem.grid, low)
        )
        weighted = jnp.concatenate([low.mode_weight * part for part in back], axis=2)
        seen = jnp.einsum("bnk,rk->bnr", weighted, d, precision=EXACT)
        sky_flux, sky_rows = seen[:, :, :n_slots], seen[:, :, n_slots:]
        sky_cross = jnp.einsum("bnr,brt->bnt", sky_rows, rows, precision=EXACT)
        background = template.background
        assert background is not None
        basis = background.basis(problem.grid)
        sky_sky = jnp.einsum("nyx,byx,myx->bnm", basis, problem.weight, basis, precision=EXACT)
        sky_moved = sky_cross[:, :, -2:]
        linear = [
            [band, _turn(sky_flux), moved_flux],
            [sky_flux, sky_sky, sky_moved],
            [_turn(moved_flux), _turn(sky_moved), inner[:, -2:, -2:]],
        ]
        crosses = [cross[:, :, :-2], sky_cross[:, :, :-2], moved_shape]
    return Normal(
        _block(linear), jnp.concatenate(crosses, axis=1), jnp.sum(inner[:, :-2, :-2], axis=0)
    )


def normal_by_pixels(
    unknowns: Unknowns, template: Scene, problem: Problem, columns: Columns
) -> Normal:
    """The matrix with the exact weight of every pixel; slower, for the end of a fit.

    - `columns`: on the modes of `matrix_grid`.
    """
    grid, weights = matrix_grid(problem), problem.weight
    x, y = np.arange(grid.nx), np.arange(grid.ny)
    background = template.background
    sky = None if background is None else background.basis(grid)
    if problem.quality.matrix <= 0.5:
        # What is band-limited at half of Nyquist is known from every second pixel, and so is the
        # sum of a product of two.
        x, y, weights = _halved(x), _halved(y), _summed(weights)
        sky = None if sky is None else _summed(sky) / 4

    def product(images: Array, weight: Array) -> Array:
        images = jax.lax.optimization_barrier(images.reshape(-1, weight.size))
        return _dot(images * weight.reshape(-1), images.T)

    return sum_of_products(unknowns, problem, columns, product, weights, x, y, sky)


def sum_of_products(
    unknowns: Unknowns,
    problem: Problem,
    columns: Columns,
    product: Callable[..., Array],
    of_band: Any,
    x: np.ndarray,
    y: np.ndarray,
    sky: Float[Array, "n y x"] | None,
) -> Normal:
    """Products of the images of all unknowns with each other, band by band.

    - `columns`: on the modes of `matrix_grid`.
    - `product`: of the images of a band, `(unknown, y, x)`, and its entry of `of_band`; axes of it
        before the last two are kept, behind that of the bands.
    - `x`, `y`: where the images are drawn. `sky`: images of the background there.
    """
    grid = matrix_grid(problem)
    psf = low_modes(problem.psf, problem.grid, grid)
    through = multiply(psf, shift(grid.modes, unknowns.dx, unknowns.dy))
    n_slots, n_modes = columns.n_slots, grid.modes.kx.size

    def one_band(band: tuple[Array, Pair, Any]) -> tuple[Array, Array, Array]:
        rows, psf, given = band
        derivatives = _dot(rows.T, columns.modes[n_slots:])
        # Fluxes, shifts of the band, shapes.
        modes = jnp.concatenate([columns.modes[:n_slots], derivatives[-2:], derivatives[:-2]])
        seen = multiply(psf, (modes[:, :n_modes], modes[:, n_modes:]))
        images = to_image(seen, grid, x, y)
        linear = [images[:n_slots], images[n_slots : n_slots + 2]]
        if sky is not None:
            linear.insert(1, sky)
        n_shape = images.shape[0] - n_slots - 2
        gram = product(jnp.concatenate([*linear, images[n_slots + 2 :]]), given)
        linear, shapes = slice(None, -n_shape), slice(-n_shape, None)
        return gram[..., linear, linear], gram[..., linear, shapes], gram[..., shapes, shapes]

    # One band at a time bounds the memory.
    rows = rows_of(columns, unknowns)
    band, cross, shape = jax.lax.map(one_band, (rows, through, of_band))
    return Normal(band, cross, jnp.sum(shape, axis=0))


def _halved(places: np.ndarray) -> np.ndarray:
    """Middles of pairs of pixels; of an odd number, the last has its partner beyond the end."""
    return places[::2] + 0.5


def _summed(images: Float[Array, "n y x"]) -> Float[Array, "n half half"]:
    """Sums over 2 x 2 pixels; 0 beyond the end."""
    _, ny, nx = images.shape
    even = jnp.pad(images, ((0, 0), (0, ny % 2), (0, nx % 2)))
    rows = even[:, ::2] + even[:, 1::2]
    return rows[:, :, ::2] + rows[:, :, 1::2]


def rows_of(
    columns: Columns, unknowns: Unknowns, emphasis: Float[Array, "slot band"] | float = 1.0
) -> Float[Array, "band row unknown"]:
    """How each row answers to a unit change of each shape, and of dx and dy of the band."""
    flux = (unknowns.flux * emphasis)[columns.slot]
    return flux.T[:, :, None] * jnp.concatenate([columns.chain, columns.along], axis=1)


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
    # Averaged under a Gaussian about as wide as the source is seen.
    x, y, width = (
        jnp.concatenate(parts) for parts in zip(*map(_window, start.sources), strict=True)
    )
    near_x, near_y = (
        jnp.exp(-0.5 * ((pixels - place[:, None]) / width[:, None]) ** 2)
        for pixels, place in ((grid.x, x), (grid.y, y))
    )
    total = jnp.sum(near_x, axis=1) * jnp.sum(near_y, axis=1)
    under = jnp.einsum("byc,cy->cb", jnp.matmul(weight, near_x.T, precision=EXACT), near_y)
    share = under / jnp.where(total > 0, total, 1)[:, None] / mean
    # A source on masked pixels still needs some curvature to be held by.
    emphasis = jnp.where(total[:, None] > 0, jnp.sqrt(jnp.clip(share, 1e-4, 4)), 1)
    sky = None
    if start.background is not None:
        basis = start.background.basis(grid)
        sky = to_modes(weight[:, None] * basis, grid)
    return Fixed(mean, emphasis, sky)


def _window(stack: Stack) -> tuple[Array, Array, Array]:
    """Place and rough width of each slot as it is seen."""
    members, owner = stack.members, stack.owner
    radius = getattr(members, "radius", jnp.full_like(members.x, 2.0))
    # Of the square of its image, which is what a mean weight counts by: narrower than the image.
    width = jnp.sqrt(1.2**2 + (0.6 * radius[owner]) ** 2)
    return members.x[owner], members.y[owner], width


def prior_terms(
    unknowns: Unknowns, template: Scene, problem: Problem
) -> tuple[Float[Array, ""], Unknowns, Float[Array, "*shape shape"]]:
    """Minus the log-prior, its gradient, and its curvature in the shapes, `(shape,)` or a matrix.

    Of a prior that is a mere function it is a diagonal above the curvature, exact where that is
    diagonal.
    """
    still = jax.tree.map(jnp.zeros_like, unknowns)
    zero = jnp.zeros_like(unknowns.flat_shape)
    if problem.prior is None:
        return jnp.zeros((), dtype=zero.dtype), still, zero
    prior = problem.prior
    if isinstance(prior, CostedPrior):
        return prior.cost(unknowns, template)

    def negative(unknowns: Unknowns) -> Array:
        return -prior(scene_of(unknowns, template))

    def of_shape(flat: Array) -> Array:
        return negative(unknowns.with_flat_shape(flat))

    value, slope = jax.value_and_grad(negative)(unknowns)
    rows = jax.jacfwd(jax.grad(of_shape))(unknowns.flat_shape)
    return value, slope, jnp.sum(jnp.abs(rows), axis=1)


def with_curvature(normal: Normal, curvature: Float[Array, "*shape shape"]) -> Normal:
    """The matrix with the prior's curvature."""
    return eqx.tree_at(lambda n: n.shape, normal, normal.shape + as_matrix(curvature))


def as_matrix(curvature: Float[Array, "*shape shape"]) -> Float[Array, "shape shape"]:
    """The curvature of a prior as a matrix, of which only the diagonal may be given."""
    return jnp.diag(curvature) if curvature.ndim == 1 else curvature


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)


def _turn(a: Array) -> Array:
    return jnp.swapaxes(a, 1, 2)


def _block(blocks: list[list[Array]]) -> Array:
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in blocks], axis=1)
