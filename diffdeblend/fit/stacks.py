"""Cholesky factors and triangular solutions of a stack of matrices, one after the other.

On CPU jaxlib 0.10 shares out a stack among XLA's threads, and one of these waits for the others:
when as many programs do so at once as it has threads, all wait for ever. One matrix is not shared.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float


def factor_each(matrices: Float[Array, "n row row"]) -> Float[Array, "n row row"]:
    """The lower Cholesky factor of each."""
    return jax.lax.map(jnp.linalg.cholesky, matrices)


def solve_lower_each(
    lower: Float[Array, "n row row"], right: Float[Array, "n row *column"], trans: int = 0
) -> Float[Array, "n row *column"]:
    r"""$L^{-1} r$ of each; with `trans=1` $L^{-T} r$."""
    return jax.lax.map(
        lambda pair: solve_triangular(*pair, lower=True, trans=trans), (lower, right)
    )


def solve_each(
    lower: Float[Array, "n row row"], right: Float[Array, "n row *column"]
) -> Float[Array, "n row *column"]:
    r"""$(L L^T)^{-1} r$ of each."""
    return jax.lax.map(lambda pair: cho_solve((pair[0], True), pair[1]), (lower, right))
