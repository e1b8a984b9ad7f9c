"""Smooth fields over an image: products of Chebyshev polynomials of x and y."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def n_terms(degree: int) -> int:
    """How many products T_i(u) T_j(v) there are with i + j <= `degree`."""
    return (degree + 1) * (degree + 2) // 2


def term_powers(degree: int) -> tuple[tuple[int, int], ...]:
    """(i, j) of each term, the lower degrees first: those of a lower degree are a prefix."""
    return tuple((total - j, j) for total in range(degree + 1) for j in range(total + 1))


def scaled(position: ArrayLike, length: int) -> Array:
    """A position on -1..1 between the centres of the first and the last pixel.

    NaN is the middle. Outside of the image the value at its border holds: polynomials that were
    fitted inside run away there.
    """
    position = jnp.asarray(position, dtype=jnp.result_type(position, float))
    # `where` inside as well: NaN must not enter a derivative.
    known = jnp.where(jnp.isnan(position), (length - 1) / 2, position)
    return jnp.clip(2 * known / max(length - 1, 1) - (1 if length > 1 else 0), -1, 1)


def chebyshev_values(u: Float[Array, "*n"], degree: int) -> list[Float[Array, "*n"]]:
    """T_0(u) to T_degree(u), by their recurrence."""
    values = [jnp.ones_like(u), u]
    for _ in range(1, degree):
        values.append(2 * u * values[-1] - values[-2])
    return values[: degree + 1]


def chebyshev_terms(
    x: ArrayLike, y: ArrayLike, shape: tuple[int, int], degree: int
) -> Float[Array, "term *n"]:
    """T_i(u) T_j(v) at positions in pixels, i + j <= `degree`, in the order of `term_powers`.

    - `x`, `y`: positions, of one shape; see `scaled` for those outside of the image and NaN.
    - `shape`: pixels of the image, (ny, nx); u and v run over -1..1 on it.
    """
    along_x = chebyshev_values(scaled(x, shape[1]), degree)
    along_y = chebyshev_values(scaled(y, shape[0]), degree)
    return jnp.stack([along_x[i] * along_y[j] for i, j in term_powers(degree)])


def chebyshev_design(
    x: np.ndarray, y: np.ndarray, shape: tuple[int, int], degree: int
) -> Float[np.ndarray, "n term"]:
    """`chebyshev_terms` of a list of positions on the host, in double precision."""
    u = np.clip(2 * np.asarray(x, float) / max(shape[1] - 1, 1) - (shape[1] > 1), -1, 1)
    v = np.clip(2 * np.asarray(y, float) / max(shape[0] - 1, 1) - (shape[0] > 1), -1, 1)
    along_x = np.polynomial.chebyshev.chebvander(u, degree)
    along_y = np.polynomial.chebyshev.chebvander(v, degree)
    return np.stack([along_x[:, i] * along_y[:, j] for i, j in term_powers(degree)], axis=1)


def field_maps(
    coefficients: Float[Array, "*field term"], shape: tuple[int, int], degree: int
) -> Float[Array, "*field y x"]:
    """Fields at every pixel of the image, from their coefficients; two small matrix products."""
    dtype = coefficients.dtype
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    along_y, along_x = (
        jnp.asarray(np.polynomial.chebyshev.chebvander(axis, degree), dtype) for axis in axes
    )
    powers = term_powers(degree)
    # From the list of terms to a square of powers (j, i); the rest of it is zero.
    place = np.full((degree + 1, degree + 1), len(powers))
    for term, (i, j) in enumerate(powers):
        place[j, i] = term
    padded = jnp.concatenate([coefficients, jnp.zeros_like(coefficients[..., :1])], axis=-1)
    return jnp.einsum(
        "yj,...ji,xi->...yx", along_y, padded[..., place], along_x, precision="highest"
    )


def degree_of(n: int) -> int | None:
    """The degree that has so many terms, or None if none has."""
    for degree, (here, following) in enumerate(pairwise(map(n_terms, range(n + 2)))):
        if here == n:
            return degree
        if following > n:
            break
    return None
