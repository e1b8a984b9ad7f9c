"""Peaks of the matched-filtered image of all bands."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.exposure import Exposure
from diffdeblend.psf.as_images import psf_images as psf_images
from diffdeblend.segment.threshold import combined_significance


def find_peaks(
    exposure: Exposure, *, threshold: float = 5.0, separation: float = 2.0
) -> Float[np.ndarray, "peak 2"]:
    """Positions (x, y) of local maxima of `significance`, the strongest first.

    Host side. Positions are refined to a fraction of a pixel by a parabola through the
    neighbours. Good enough to start a fit; not a detection with known completeness.

    - `threshold`: least significance, in standard deviations.
    - `separation`: no other maximum within this many pixels on either axis.

    **Raises:** `ValueError` if `threshold` or `separation` is not positive.
    """
    for name, value in (("threshold", threshold), ("separation", separation)):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive; got {value}.")
    image = significance(exposure)
    size = 2 * int(np.ceil(separation)) + 1
    peak = (image == maximum_filter(image, size=size)) & (image > threshold)
    # The border of the stamp makes maxima of what lies outside.
    peak[[0, -1], :] = False
    peak[:, [0, -1]] = False
    y, x = np.nonzero(peak)
    order = np.argsort(-image[y, x], kind="stable")
    y, x = y[order], x[order]
    return np.stack(
        [
            x + _vertex(image[y, x - 1], image[y, x], image[y, x + 1]),
            y + _vertex(image[y - 1, x], image[y, x], image[y + 1, x]),
        ],
        axis=1,
    ).reshape(-1, 2)


def significance(exposure: Exposure) -> Float[np.ndarray, "y x"]:
    """Signal-to-noise of a point source at each pixel, all bands together. Host side.

    That of `combined_significance`, above `sky_level`.
    """
    data = np.asarray(exposure.data, dtype=float)
    weight = np.asarray(exposure.weight, dtype=float)
    level = sky_level(data, weight > 0)
    kernels = psf_images(exposure.psf, max(3, min(min(data.shape[1:]) | 1, 41)))
    return combined_significance(data - level[:, None, None], weight, kernels)


def sky_level(
    data: Float[np.ndarray, "band y x"], used: Bool[np.ndarray, "band y x"]
) -> Float[np.ndarray, "band"]:
    """A sigma-clipped median of each band: a first guess of the sky. NaN without used pixels."""
    return np.array([_clipped_median(band[on]) for band, on in zip(data, used, strict=True)])


def _clipped_median(values: Float[np.ndarray, "n"]) -> np.floating:
    # Of sorted values, those near the middle lie side by side.
    kept = np.sort(values)
    for _ in range(10):
        distance = np.abs(kept - _middle(kept))
        spread = MAD_TO_STD * _middle(np.sort(distance))
        inside = distance <= 2.5 * spread
        count = np.count_nonzero(inside)
        if count == kept.size or count < 10:
            break
        first = inside.argmax()
        kept = kept[first : first + count]
    return _middle(kept)


def _middle(ordered: Float[np.ndarray, "n"]) -> np.floating:
    """The median of sorted values, as `np.median` has it."""
    # NaN are sorted to the end.
    if not ordered.size or np.isnan(ordered[-1]):
        return ordered.dtype.type(np.nan)
    half = ordered.size // 2
    return ordered[half] if ordered.size % 2 else (ordered[half - 1] + ordered[half]) / 2


def _vertex(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Place of the vertex of a parabola through three points at -1, 0, 1."""
    bend = left - 2 * middle + right
    return np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0.0)
