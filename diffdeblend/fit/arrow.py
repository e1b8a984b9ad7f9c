"""A symmetric matrix in the form of an arrow: its parts, and the solution of its equations.

Unknowns that only one band knows (fluxes, sky, shift of the band) form one small block a band;
the shapes, which all bands share, are what remains when these are eliminated.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.stacks import factor_each, solve_each, solve_lower_each
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.fourier import EXACT


class Normal(eqx.Module):
    """A symmetric matrix in the form of an arrow, or its right-hand side's curvature.

    - `band`: block of the unknowns of each band, `(band, linear, linear)`.
    - `cross`: `(band, linear, shape)`.
    - `shape`: `(shape, shape)`.
    """

    band: Float[Array, "band linear linear"]
    cross: Float[Array, "band linear shape"]
    shape: Float[Array, "shape shape"]


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
    lower = factor_each(scaled + ridge * jnp.eye(scaled.shape[-1], dtype=scaled.dtype))
    half = solve_lower_each(lower, normal.cross * scale[:, :, None])
    response = scale[:, :, None] * solve_lower_each(lower, half, trans=1)
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
    return factors.scale * solve_each(factors.lower, factors.scale * right)


def _inverse_root(diagonal: Array) -> Array:
    positive = diagonal > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, diagonal, 1)), 1)
