"""Pixels that say nothing: saturated, dead, without data."""

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.grow import grown

# A pixel that is clipped has the value of all others that are: among the brightest fifth of the
# range, that one value is at least so often, and so large a share.
_LEAST_COUNT = 5
_LEAST_SHARE = 0.25
# Counts of a faint image repeat, too: only far above the sky is a repeated value a ceiling.
_FAR_ABOVE = 50.0


def saturation_level(image: Float[np.ndarray, "y x"], level: float, sigma: float) -> float | None:
    """The value at which the image is clipped, in its unit, or None if it does not look clipped.

    That value of the brightest fifth of the range which comes up most often, if it comes up at
    least 5 times and is a quarter of them. Cosmic rays that were added after clipping may lie
    above it. Frames that were resampled or scaled pixel by pixel have none: give it.

    - `level`, `sigma`: of the sky; below 50 sigma nothing counts as clipped.
    """
    finite = image[np.isfinite(image)]
    if not finite.size or finite.max() <= level + _FAR_ABOVE * sigma:
        return None
    top = finite.max()
    high = finite[finite > level + 0.8 * (top - level)]
    values, counts = np.unique(high, return_counts=True)
    most = int(np.argmax(counts))
    often = counts[most] >= _LEAST_COUNT and counts[most] >= _LEAST_SHARE * high.size
    return float(values[most]) if often else None


def saturated_pixels(
    image: Float[np.ndarray, "y x"], saturation: float | None, grow: int = 1
) -> Bool[np.ndarray, "y x"]:
    """Pixels at or above the saturation level, with so many pixels around them.

    A neighbour along rows and columns takes what a full pixel spills, and where the image was
    resampled it has a share of it. NaN is not saturated.
    """
    if saturation is None:
        return np.zeros(image.shape, bool)
    return grown(image >= saturation, grow)


def dark_pixels(
    residual: Float[np.ndarray, "y x"], rms: Float[np.ndarray, "y x"], n_sigma: float | None
) -> Bool[np.ndarray, "y x"]:
    """Pixels so far below the sky around them that no light explains it: dead, or without data.

    - `residual`: image without its sky. So a frame without sky is treated as any other.
    - `n_sigma`: None for none.
    """
    if n_sigma is None:
        return np.zeros(residual.shape, bool)
    return residual < np.float32(-n_sigma) * rms
