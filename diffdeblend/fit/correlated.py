r"""Errors of a weighted fit whose noise is correlated from pixel to pixel.

The estimate stays that of least squares with the weights $W$ of the pixels. Under noise of
covariance $N$ it scatters by the sandwich $H^{-1} (J^T W N W J + P) H^{-1}$, with $J$ what the
image changes by, $P$ the curvature of the prior and $H = J^T W J + P$. White noise, $N = W^{-1}$,
gives $H^{-1}$ back.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from diffdeblend.fit.arrow import Factors, Normal
from diffdeblend.fit.evaluate import exact_columns
from diffdeblend.fit.normal_matrix import sum_of_products
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.stacks import solve_lower_each
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.fourier import EXACT
from diffdeblend.scene import Scene


def with_scatter(unknowns: Unknowns, template: Scene, problem: Problem) -> tuple[Normal, Normal]:
    r"""$J^T W J$, and $J^T W N W J$: how the gradient of chi2/2 scatters under the noise.

    Both with the weight of each single pixel: a matrix that is 5 % off counts twice in a sandwich.
    The noise of a pixel has the variance that its weight says, and the correlation of
    `problem.noise` with the pixels around it; noise of different bands is independent.
    """
    assert problem.noise is not None

    def product(images: Array, of_band: tuple[Array, Array]) -> Array:
        weight, noise = of_band
        scaled = images * jnp.sqrt(weight)
        # Pixels without weight are dark, and so is what lies beyond the border.
        filtered = jax.lax.conv_general_dilated(
            scaled[:, None], noise[None, None], (1, 1), "SAME", precision=EXACT
        )
        flat = (len(images), -1)
        gram = jnp.matmul(filtered.reshape(flat), scaled.reshape(flat).T, precision=EXACT)
        white = jnp.matmul(scaled.reshape(flat), scaled.reshape(flat).T, precision=EXACT)
        return jnp.stack(jax.lax.optimization_barrier((white, 0.5 * (gram + gram.T))))

    grid, background = problem.grid, template.background
    both = sum_of_products(
        unknowns,
        problem,
        exact_columns(unknowns, template, problem),
        product,
        (problem.weight, problem.noise),
        np.arange(grid.nx),
        np.arange(grid.ny),
        None if background is None else background.basis(grid),
    )
    white, scatter = (Normal(both.band[:, i], both.cross[:, i], both.shape[i]) for i in range(2))
    return white, scatter


class Sandwich(NamedTuple):
    """The parts of a `Covariance` under correlated noise; see there."""

    shape: Float[Array, "shape shape"]
    alone: Float[Array, "band linear linear"]
    response: Float[Array, "band linear shape"]


def sandwich(factors: Factors, inverse: Float[Array, "shape shape"], middle: Normal) -> Sandwich:
    r"""$H^{-1} M H^{-1}$ of two arrows, in the parts of `Covariance`.

    To a gradient $g$ the bands answer by $a = B^{-1} g_b$ at held shapes, and the shapes by
    $s = C u$, $u = g_s - R^T g_b$; the bands end at $a - R s$. Independent bands make
    $\mathrm{cov}(a)$ a block a band; $\mathrm{cov}(a, u) = K$ is zero for white noise. What of $a$
    goes with $s$ is taken into the response; the rest has the covariance
    $\mathrm{cov}(a) - K U^{-1} K^T$. That is exact but for the blocks of the second term between
    different bands, which an arrow cannot hold: they are some 1e-3 of the errors' product.

    - `factors`: of $H$. `inverse`: $C$, the covariance of the shapes for white noise.
    - `middle`: $M$.
    """
    scale, lower = factors.scale, factors.lower

    def halved(right: Array) -> Array:
        return solve_lower_each(lower, right)

    def whole(right: Array) -> Array:
        return scale[:, :, None] * solve_lower_each(lower, right, trans=1)

    # In units in which the blocks of the bands are the identity: float32 is safe there.
    once = halved(middle.band * scale[:, :, None] * scale[:, None, :])
    band = halved(jnp.swapaxes(once, 1, 2))
    band = 0.5 * (band + jnp.swapaxes(band, 1, 2))
    cross = halved(middle.cross * scale[:, :, None])
    half = jnp.einsum("bml,bmt->blt", lower, factors.response / scale[:, :, None], precision=EXACT)
    turned = jnp.einsum("blm,bmt->blt", band, half, precision=EXACT)
    mixed = jnp.einsum("blt,blu->tu", half, cross, precision=EXACT)
    u = middle.shape - mixed - mixed.T
    u = u + jnp.einsum("blt,blu->tu", half, turned, precision=EXACT)
    shape = _dot(_dot(inverse, u), inverse)
    # What does not scatter, such as a held shape, goes with nothing.
    moves = jnp.diagonal(u) > 0
    unit = jnp.where(moves, 1 / jnp.sqrt(jnp.where(moves, jnp.diagonal(u), 1)), 0)
    tiny = 100 * jnp.finfo(u.dtype).eps
    root = jnp.linalg.cholesky(u * unit[:, None] * unit + jnp.diag(jnp.where(moves, tiny, 1)))
    goes_with = whole(cross - turned) * unit
    n_bands, n_linear, n_shapes = goes_with.shape
    # One root for all bands: their right-hand sides lie side by side.
    flat = solve_triangular(root, goes_with.reshape(-1, n_shapes).T, lower=True)
    between = flat.T.reshape(n_bands, n_linear, n_shapes)
    # K U^{-1}, then times the inverse of C, from its own factors.
    by_u = solve_triangular(root, flat, lower=True, trans=1).T.reshape(between.shape)
    tip = factors.shape_lower / factors.shape_scale[:, None]
    by_shape = _dot(_dot(by_u * unit, tip), tip.T)
    alone = whole(jnp.swapaxes(whole(band), 1, 2)) - _dot(between, jnp.swapaxes(between, 1, 2))
    return Sandwich(shape, alone, factors.response - by_shape)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)
