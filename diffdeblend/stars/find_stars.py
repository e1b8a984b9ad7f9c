"""Sources, which of them are stars, and which stars the PSF is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.stars.select import neighbours_of, reserve_stars, spread_stars, stellar_locus
from diffdeblend.stars.sources import Peaks, find_point_sources, measure_peaks

_FIRST_SIGMA = 1.6
_ROUNDS = 2


@dataclass(frozen=True)
class Chosen:
    """All sources, with what each of them is for.

    - `used`: rows of `peaks` that the PSF is determined from; `size`: their median sigma in pixels.
    - `reason`: why a source is not among them, or an empty string.
    """

    peaks: Peaks
    is_star: Bool[np.ndarray, "peak"]
    reserved: Bool[np.ndarray, "peak"]
    used: Int[np.ndarray, "used"]
    reason: np.ndarray
    size: float


def find_stars(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    positions: Float[np.ndarray, "n 2"] | None,
    min_snr: float,
    reserve: float,
    seed: int,
    max_stars: int,
) -> Chosen:
    """Stars of an image for a PSF; see `determine_psf` for the arguments. Host side.

    **Raises:** `ValueError` if nothing is found, or nothing that is bright enough to tell.
    """
    shape = (image.shape[0], image.shape[1])
    if positions is None:
        x, y = find_point_sources(image, variance, masked)
    else:
        x, y = positions[:, 0], positions[:, 1]
    if not len(x):
        raise ValueError("no source stands out of the noise of `image`: it has no star.")
    # The weight takes the size of the stars that it finds.
    sigma = _FIRST_SIGMA
    for _ in range(_ROUNDS):
        peaks, is_star, size = _measured(image, variance, masked, x, y, sigma, min_snr)
        if abs(size / sigma - 1) < 0.25:
            break
        sigma = size
    else:
        peaks, is_star, size = _measured(image, variance, masked, x, y, sigma, min_snr)
    stars = np.flatnonzero(is_star)
    reserved = np.zeros(len(peaks), bool)
    reserved[stars[reserve_stars(len(stars), reserve, seed=seed)]] = True
    kept = np.flatnonzero(is_star & ~reserved)
    used = kept[spread_stars(peaks.x[kept], peaks.y[kept], peaks.snr[kept], shape, max_stars)]
    reason = np.full(len(peaks), "", dtype="U16")
    reason[~is_star] = "size"
    reason[peaks.snr < min_snr] = "faint"
    reason[peaks.touched] = "masked or border"
    reason[reserved] = "reserved"
    reason[np.setdiff1d(kept, used)] = "enough others"
    return Chosen(peaks, is_star, reserved, used, reason, size)


def _measured(
    image: np.ndarray,
    variance: np.ndarray,
    masked: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    sigma: float,
    min_snr: float,
) -> tuple[Peaks, np.ndarray, float]:
    """All sources, which of them are stars, and the stars' median size."""
    peaks = _without_doubles(measure_peaks(image, variance, masked, x, y, sigma=sigma), sigma)
    is_star = stellar_locus(
        np.where(peaks.touched, np.nan, peaks.size),
        peaks.snr,
        x=peaks.x,
        y=peaks.y,
        shape=(image.shape[0], image.shape[1]),
        min_snr=min_snr,
    )
    return peaks, is_star, float(np.median(peaks.size[is_star]))


def _without_doubles(peaks: Peaks, sigma: float) -> Peaks:
    """Without those whose centroid ran to that of a brighter one, which come after it."""
    index, distance = neighbours_of(peaks.x, peaks.y, sigma, 3)
    again = ((index >= 0) & (index < np.arange(len(peaks))[:, None]) & (distance < sigma)).any(1)
    return Peaks(*(getattr(peaks, name)[~again] for name in peaks.__dataclass_fields__))
