"""How probable data are under a model: the Gaussian approximation to the integral."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.arrow import linear_vector
from diffdeblend.fit.uncertainty import Covariance


def log_evidence(
    value: Float[Array, ""],
    found: Covariance,
    curvature: Float[Array, "shape"],
) -> Float[Array, ""]:
    r"""Logarithm of the evidence of a fit, up to a constant of the data; pure.

    $\ln Z = -v + \tfrac12 \ln\det(C_s P) + \tfrac12 \sum_b \ln\det C_b$ with the objective $v$ at
    the end, the covariance $C_s$ of the shapes, the curvature $P$ of their Gaussian prior, and the
    covariances $C_b$ of the fluxes and the sky of each band at held shapes, on which the prior is
    flat. Two models of the same data compare if they have the same number of fluxes: a star, a
    Sersic and a decoded galaxy have one a band.

    - `value`: half of chi2 minus the log-prior, as a fit minimises it.
    - `curvature`: of the prior in the mapped shapes, its diagonal.

    ??? cite
        Laplace's approximation: MacKay (2003), Information Theory, Inference, and Learning
        Algorithms, eq. 28.6. Of `found`: det C = det(shape) times the product of det(alone).
    """
    free = found.free
    on = free.flat_shape > 0
    root = jnp.sqrt(jnp.where(on, jnp.maximum(curvature, 0), 0))
    shapes = _log_det(found.shape * root[:, None] * root, on)
    linear = linear_vector(free) > 0
    bands = sum(_log_det(found.alone[b], linear[b]) for b in range(found.alone.shape[0]))
    return -value + 0.5 * shapes + 0.5 * bands


def _log_det(matrix: Float[Array, "n n"], on: Array) -> Float[Array, ""]:
    """Of the rows and columns that are on and vary at all."""
    variance = jnp.diagonal(matrix)
    varies = on & (variance > 0)
    scale = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1)
    scaled = jnp.where(varies[:, None] & varies, matrix / scale[:, None] / scale, 0)
    # Twins have a correlation of 1 but for rounding.
    tiny = 100 * jnp.finfo(matrix.dtype).eps
    lower = jnp.linalg.cholesky(scaled + jnp.diag(jnp.where(varies, tiny, 1)))
    # What is dark varies no more: a determinant of its own would be rounding.
    return 2 * jnp.sum(jnp.log(jnp.diagonal(lower))) + 2 * jnp.sum(jnp.log(scale))
