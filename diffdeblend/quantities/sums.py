"""Sums of powers of the coordinates over the pixels of a stamp."""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT

Scalar = Float[Array, ""]


def power_sums(
    values: Float[Array, "h w"], x: Scalar, y: Scalar, degree: int
) -> Float[Array, "j i"]:
    r"""$\sum v\,(p_x - x)^i (p_y - y)^j$ for i and j from 0 to `degree`; in `[j, i]`.

    Sums about the middle of the stamp first, whose powers are the same for all sources and make one
    product of matrices of a batch; then moved to (x, y), which for float32 should be within a few
    pixels of the middle, or within its own size.
    """
    height, width = values.shape
    # Materialised: the two products read it twice.
    values = jax.lax.optimization_barrier(values)
    of_x, of_y = (jnp.asarray(_powers(n, degree), values.dtype) for n in (width, height))
    rows = jnp.matmul(values, of_x, precision=EXACT)
    sums = jnp.matmul(of_y.T, rows, precision=EXACT)
    move_x = _moved(x - (width - 1) / 2, degree)
    move_y = _moved(y - (height - 1) / 2, degree)
    return jnp.matmul(jnp.matmul(move_y, sums, precision=EXACT), move_x.T, precision=EXACT)


def steps_along(length: int, start: Scalar) -> Float[Array, "length"]:
    """Coordinates of pixels along an axis, counted from `start`."""
    return jnp.arange(length, dtype=start.dtype) - start


def _powers(length: int, degree: int) -> np.ndarray:
    about = np.arange(length) - (length - 1) / 2
    return np.stack([about**k for k in range(degree + 1)], axis=1)


def _moved(by: Scalar, degree: int) -> Float[Array, "to from"]:
    """What turns powers of u into those of u - by: the binomial theorem."""
    n = degree + 1
    size = np.zeros((n, n, n))
    for i in range(n):
        for j in range(i + 1):
            size[i, j, i - j] = comb(i, j)
    # Products, not powers: the derivative of 0 to the 0 would be NaN.
    steps = [jnp.ones_like(by)]
    for _ in range(degree):
        steps.append(steps[-1] * -by)
    return jnp.matmul(jnp.asarray(size, by.dtype), jnp.stack(steps), precision=EXACT)
