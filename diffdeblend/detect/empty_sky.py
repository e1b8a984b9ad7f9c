"""The noise of an image where it is empty."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import binary_dilation, gaussian_filter

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.exposure import Exposure

# Pixels whose smoothed value stands out by that many standard deviations hold a source.
_BRIGHT = 4.0


def measure_noise_correlation(
    exposure: Exposure, size: int = 9, empty: Any = None
) -> Float[np.ndarray, "band size size"]:
    """Autocorrelation of the noise, measured where there is no source. Host side.

    For the `noise_correlation` of `make_exposure`. Its sum is how much larger the variance of sums
    over many pixels is than independent pixels would make it. That sum is known to some
    size / sqrt(pixels): take a large piece of sky.

    - `exposure`: an image with much empty sky; or the residual of a fit in the place of the image.
    - `size`: height and width of the stamp, odd; the correlation has to end within half of it.
    - `empty`: true where there is no source, `(y, x)`; without it, pixels that stand out by 4
        standard deviations in an image smoothed by 1.5 pixels are left out, with a margin of 3
        pixels. Sources too faint for that count as noise.

    **Raises:** `ValueError` for a size that is even or larger than the image, an `empty` of another
    shape, or a band without empty pixels.
    """
    shape = exposure.shape
    if size % 2 == 0 or not 1 <= size <= min(shape):
        raise ValueError(f"`size` must be odd and at most {min(shape)}; got {size}.")
    clear = np.ones(shape, bool)
    if empty is not None:
        clear = np.asarray(empty)
        if clear.dtype != bool or clear.shape != shape:
            raise ValueError(
                f"`empty` needs booleans of shape {shape}; "
                f"got {clear.dtype} of shape {clear.shape}."
            )
    data, weight = np.asarray(exposure.data, float), np.asarray(exposure.weight, float)
    found = []
    for name, values, inverse in zip(exposure.bands, data, weight, strict=True):
        used = clear & (inverse > 0)
        if not used.any():
            raise ValueError(f"band {name!r} of `exposure` has no empty pixel that is used.")
        noise = np.where(used, (values - np.median(values[used])) * np.sqrt(inverse), 0)
        if empty is None:
            used &= ~_with_light(noise, used)
            if not used.any():
                raise ValueError(f"band {name!r} of `exposure` has no pixel without a source.")
        noise = np.where(used, noise - noise[used].mean(), 0)
        pairs = _pairs(used.astype(float), size)
        stamp = _pairs(noise, size) / np.maximum(np.round(pairs), 1)
        found.append(stamp / stamp[size // 2, size // 2])
    return np.stack(found)


def _pairs(image: np.ndarray, size: int) -> np.ndarray:
    """Sum of image(p) image(p + d) over p, for d up to half of `size` on either axis."""
    # Here: it takes long to load.
    from scipy.signal import fftconvolve

    half = size // 2
    all_ = fftconvolve(np.pad(image, half), image[::-1, ::-1], mode="valid")
    # By symmetry both halves are one number measured twice.
    return 0.5 * (all_ + all_[::-1, ::-1])


def _with_light(noise: np.ndarray, used: np.ndarray) -> np.ndarray:
    smooth = gaussian_filter(noise, 1.5)
    middle = np.median(smooth[used])
    # Its own scatter: that of correlated noise is wider than what the variance says.
    spread = MAD_TO_STD * np.median(np.abs(smooth[used] - middle))
    return binary_dilation(smooth - middle > _BRIGHT * spread, iterations=3)
