"""Room around images, so that nothing comes back on the other side of a Fourier transform."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import fast_length, mode_counts


def padded_shape(shape: tuple[int, int], border: int) -> tuple[int, int]:
    """The next sides that are fast to transform, with `border` pixels and more on all sides."""
    return fast_length(shape[0] + 2 * border), fast_length(shape[1] + 2 * border)


def pad(image: Float[Array, "y x"], shape: tuple[int, int]) -> Float[Array, "Y X"]:
    """The image in the middle of `shape`, continued by its mirror image.

    A star that the border cuts is continued in both images alike, so that it is still subtracted;
    zeros there leave edges that the two filters see differently.
    """
    widths = [
        ((large - small) // 2, large - small - (large - small) // 2)
        for small, large in zip(image.shape, shape, strict=True)
    ]
    return jnp.pad(image, widths, mode="symmetric")


def unpad(image: Float[Array, "Y X"], shape: tuple[int, int], margin: int = 0) -> Array:
    """The middle `shape` of a padded image, with so many pixels more on each side."""
    y, x = ((large - small) // 2 for small, large in zip(shape, image.shape, strict=True))
    return image[y - margin : y + shape[0] + margin, x - margin : x + shape[1] + margin]


def mirrored_noise(
    power: Float[Array, "ky kx"], padded: tuple[int, int], shape: tuple[int, int]
) -> Float[Array, "y x"]:
    """How much larger the variance of filtered noise is near the borders of a mirrored image.

    - `power`: squared absolute value of the filter, on half of the Fourier plane of `padded`.

    A pixel and its mirror image have the same noise: at distance d the variance gains the
    autocorrelation of the filter at a lag of 2 d + 1. Exact for noise of one variance and filters
    that are symmetric in the direction of the axis.
    """
    weights = jnp.asarray(mode_counts(padded[1]), power.dtype)
    along_x = jnp.fft.irfft(jnp.sum(power, axis=0).astype(complex), n=padded[1])
    along_y = jnp.real(jnp.fft.ifft(jnp.matmul(power, weights)))
    gain_y, gain_x = (
        1 + _both_ends(line / line[0], length)
        for line, length in zip((along_y, along_x), shape, strict=True)
    )
    return (gain_y[:, None] * gain_x).astype(power.dtype)


def _both_ends(autocorrelation: Float[Array, "lag"], length: int) -> Float[Array, "length"]:
    lags = 2 * np.arange(length) + 1
    # Lags beyond half a period come from the other side: by then there is nothing left.
    known = lags < len(autocorrelation) // 2
    one_end = jnp.where(known, autocorrelation[np.where(known, lags, 0)], 0)
    return one_end + one_end[::-1]
