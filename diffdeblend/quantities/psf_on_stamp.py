"""The PSF at its place among the pixels of a stamp."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT, cos_sin
from diffdeblend.quantities.sums import steps_along

Scalar = Float[Array, ""]

# Closer to a sample the ratio of sines is taken as a series: 0/0 has no derivative.
_NEAR = 1e-2


def psf_on_stamp(
    psf: Float[Array, "k l"], shape: tuple[int, int], x: Scalar, y: Scalar
) -> Float[Array, "h w"]:
    """The PSF with its centre at (x, y), on the pixels of a stamp; 0 beyond its own stamp.

    Moved by the Fourier series of its stamp, which keeps its light for any fraction of a pixel.
    What a stamp of the PSF reaches around the pixel nearest to (x, y) is drawn. May be
    differentiated by all but `shape`.

    - `psf`: `k` and `l` odd, centre in the middle pixel.
    - `shape`: (h, w) of the result; static.
    - `x`, `y`: in pixels of the stamp.
    """
    x, y = jnp.asarray(x, psf.dtype), jnp.asarray(y, psf.dtype)
    along_y = _placed(shape[0], psf.shape[0], y)
    along_x = _placed(shape[1], psf.shape[1], x)
    rows = jnp.matmul(along_y, psf, precision=EXACT)
    return jnp.matmul(rows, along_x.T, precision=EXACT)


def _placed(length: int, samples: int, position: Scalar) -> Float[Array, "to from"]:
    """Values on pixels of a periodic series of odd length whose middle is at `position`."""
    nearest = jnp.floor(position + 0.5)
    # Whole steps and the fraction apart: the sine of many turns would lose digits.
    fraction = position - nearest
    middle = (samples - 1) // 2
    step = np.arange(length)[:, None] - (np.arange(samples) - middle)
    whole = jnp.asarray(step, position.dtype) - nearest
    distance = whole - fraction
    sign = 1 - 2 * jnp.mod(whole, 2)
    top = -jnp.sin(jnp.pi * fraction) * sign
    near = jnp.abs(distance) < _NEAR
    bottom = samples * cos_sin(jnp.where(near, 1.0, distance) * (jnp.pi / samples))[1]
    # One period apart the series has the same sample again.
    again = jnp.abs(bottom) < _NEAR
    ratio = top / jnp.where(again, 1.0, bottom)
    series = 1 - (jnp.pi * distance) ** 2 * ((1 - 1 / samples**2) / 6)
    kernel = jnp.where(near, series, jnp.where(again, 0.0, ratio))
    reached = jnp.abs(steps_along(length, nearest)) <= middle
    return jnp.where(reached[:, None], kernel, 0.0)
