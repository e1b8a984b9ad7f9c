"""The light in a circle of an image that is sampled well: weights without pixels' corners."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import j1

from diffdeblend.fourier import EXACT, cos_sin

Scalar = Float[Array, ""]


def sinc_weights(
    shape: tuple[int, int], x: Scalar, y: Scalar, radius: float
) -> Float[Array, "h w"]:
    r"""Weights of pixels whose weighted sum is the light in a circle: a disc, band-limited.

    The image, taken as the Fourier series of its stamp, is integrated over the disc:
    $c(p) = \frac{1}{hw} \sum_k \frac{2 \pi r J_1(k r)}{k} \cos k \cdot (p - x)$. Exact for images
    with no light at the highest frequencies or at the rim of the stamp; the sum of the weights is
    $\pi r^2$. May be differentiated by the place.

    - `shape`: of the stamp; static. The disc should lie within it.
    - `radius`: in pixels; static.

    ??? cite
        Bickerton & Lupton (2013), MNRAS 431, 1275, eq. 8.
    """
    weights_y, weights_x = (_half(n) for n in shape)
    middle = jnp.asarray(_disc_modes(shape, float(radius)), x.dtype)
    along_y, along_x = _cosines(shape[0], weights_y, y), _cosines(shape[1], weights_x, x)
    rows = jnp.matmul(along_y, middle, precision=EXACT)
    return jnp.matmul(rows, along_x.T, precision=EXACT)


def _half(length: int) -> int:
    """Number of frequencies from 0; that of Nyquist, whose phase is not known, is left out."""
    return (length + 1) // 2


def _cosines(length: int, n: int, place: Scalar) -> Float[Array, "length n"]:
    """cos k (p - place): the disc is even along either axis, and needs no sines."""
    k = 2 * np.pi / length * np.arange(n)
    angle = np.arange(length)[:, None] * k
    cosine, sine = (jnp.asarray(f(angle), place.dtype) for f in (np.cos, np.sin))
    moved_cosine, moved_sine = cos_sin(place * jnp.asarray(k, place.dtype))
    return cosine * moved_cosine + sine * moved_sine


@lru_cache(maxsize=64)
def _disc_modes(shape: tuple[int, int], radius: float) -> np.ndarray:
    """Fourier transform of the disc by (ky, kx) from 0 up, times how often each counts."""
    ky, kx = (2 * np.pi / n * np.arange(_half(n)) for n in shape)
    k = np.hypot(ky[:, None], kx)
    k[0, 0] = 1.0
    transform = 2 * np.pi * radius * j1(k * radius) / k
    transform[0, 0] = np.pi * radius**2
    twice_y, twice_x = (np.where(np.arange(_half(n)) == 0, 1.0, 2.0) for n in shape)
    return transform * twice_y[:, None] * twice_x / (shape[0] * shape[1])
