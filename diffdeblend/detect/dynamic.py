"""What the noise of an image really is, and what is left of its sky. Host side."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.background.clipped import IQR_TO_STD
from diffdeblend.detect.sky_objects import (
    InsufficientSourcesError,
    forced_psf_fluxes,
    sky_objects,
)
from diffdeblend.detect.smoothing import SmoothedImage
from diffdeblend.footprints.spans import SpanSet
from diffdeblend.segment.dilate import dilate

Direction = Literal["calibrated", "lsst"]
# Pixels that stand out by so much of the threshold hold a source, above and below the sky.
# On both sides alike: cut on one side, the level would be off by 0.02 sigma.
_MASKED = 0.7
# Very bright sources get a wide margin: so many times the threshold, so many times sigma.
_BRIGHT, _BRIGHT_GROW = 1000.0, 40.0
_LARGEST_SHARE = 0.95
_FACTORS = (0.1, 10.0)
_LARGEST_TWEAK = 100.0
_LEAST_GOOD = 0.005
# In crowded fields light lifts even the lower half: masked and measured again, until it settles.
_ROUNDS, _SETTLED = 6, 0.97
# Of the smoothed image so many pixels tell its quartiles.
_SAMPLE = 400_000


@dataclass(frozen=True, eq=False)
class SkyMeasurement:
    """What was measured where there is no source.

    - `factor`: what thresholds are multiplied by.
    - `noise_ratio`: scatter of the sky over what the variance says.
    - `level`: of the sky, in the unit of the image.
    - `places`: of the sky objects, (x, y). `flux`, `flux_err`: of the PSF there.
    - `hidden`: true where there is light, or no data.
    """

    factor: float
    noise_ratio: float
    level: float
    places: Int[np.ndarray, "place 2"]
    flux: Float[np.ndarray, "place"]
    flux_err: Float[np.ndarray, "place"]
    hidden: Bool[np.ndarray, "y x"]


def measure_sky(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    smoothed: SmoothedImage,
    psf: Float[np.ndarray, "h w"],
    *,
    unused: Bool[np.ndarray, "y x"] | None = None,
    direction: Direction = "calibrated",
    threshold: float = 5.0,
    sigma: float,
    grow: float = 2.4,
    n: int = 1000,
    radius: int = 8,
    seed: int = 0,
) -> SkyMeasurement:
    """Noise and level of the sky between the sources.

    With "calibrated" the factor is the scatter of the smoothed image between the sources over what
    the variance says: with it a threshold of 5 is 5 of the standard deviations that there are. It
    is measured on all these pixels. With "lsst" it is the inverse, from the fluxes of sky objects,
    as the LSST pipelines have it: where the variance is too small, it lowers the threshold.

    The level is the median of the fluxes of sky objects over the area of the PSF.

    - `image`, `variance`, `smoothed`: the latter made of the others. `psf`: of unit sum.
    - `unused`: true where a pixel is not used.
    - `threshold`: that will be used, in standard deviations. `sigma`: of the kernel, in pixels.
    - `grow`: margin around sources, in units of `sigma`.
    - `n`, `radius`, `seed`: of the sky objects, see `sky_objects`.

    **Raises:** `ValueError` if less than 0.5 % of the pixels are in use;
    `InsufficientSourcesError` if there is room for less than 2 % of the sky objects.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = smoothed.image / smoothed.noise
    seen = np.isfinite(significance)
    unused = np.zeros(image.shape, bool) if unused is None else unused
    share = np.mean(~unused & np.isfinite(image))
    if share < _LEAST_GOOD or not seen.any():
        raise ValueError(
            f"`exposure` has {100 * share:.2g} % of its pixels in use; at least "
            f"{100 * _LEAST_GOOD:g} % are needed to measure the noise."
        )
    # Of the lower half: sources are in the upper one. A mask at a share of what the variance says
    # would hide half of the sky where that is too small, and all but its quietest noise.
    clear, ratio = seen, np.inf
    for _ in range(_ROUNDS):
        low, middle = np.quantile(_some(significance[clear]), (0.25, 0.5))
        new = float(2 * IQR_TO_STD * (middle - low))
        if not new < _SETTLED * ratio:
            break
        ratio = new
        light = _light(significance, threshold * ratio, sigma, grow)
        clear = seen & ~light
        # Pixels need no room for a disc: what is shrunk for these stays masked here.
        if np.count_nonzero(clear) < _LEAST_GOOD * clear.size:
            clear = seen
            break
    no_data = unused | ~np.isfinite(image)
    places, hidden = _places(light, no_data, n, radius, seed)
    # A small stamp: far wings of the PSF carry noise of neighbours alone.
    flux, error, area = forced_psf_fluxes(image, variance, psf, places, no_data)
    known = np.isfinite(flux) & np.isfinite(error)
    if known.sum() < 0.02 * n:
        raise InsufficientSourcesError(
            f"There is room for {int(known.sum())} of {n} sky objects; at least {0.02 * n:g} are "
            "needed to measure the noise. Give a smaller `radius`, or an image with more sky."
        )
    level = float(np.clip(np.median(flux[known]) / area, -_LARGEST_TWEAK, _LARGEST_TWEAK))
    if direction == "calibrated":
        ratio = _spread(_some(significance[clear]))
        factor = ratio
    else:
        ratio = _spread(flux[known]) / float(np.median(error[known]))
        factor = 1 / ratio
    return SkyMeasurement(
        float(np.clip(factor, *_FACTORS)), ratio, level, places, flux, error, hidden
    )


def _some(values: np.ndarray) -> np.ndarray:
    # An odd step: no column of the image is taken again and again.
    step = max(1, values.size // _SAMPLE) | 1
    return values[::step]


def _spread(values: np.ndarray) -> float:
    low, high = np.quantile(values, (0.25, 0.75))
    return float(IQR_TO_STD * (high - low))


def _light(
    significance: np.ndarray, threshold: float, sigma: float, grow: float
) -> Bool[np.ndarray, "y x"]:
    """Pixels that stand out above or below the sky, with a margin."""
    shape = significance.shape
    with np.errstate(invalid="ignore"):
        out = np.abs(significance) >= _MASKED * threshold
        light = _grown(out, int(grow * sigma + 0.5))
        bright = _BRIGHT * threshold
        for _ in range(10):
            wide = _grown(significance >= bright, int(_BRIGHT_GROW * sigma + 0.5))
            if np.count_nonzero(wide) < _LARGEST_SHARE * shape[0] * shape[1]:
                return light | wide
            bright *= 1.2
    return light


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    if not mask.any():
        return mask
    return SpanSet.from_mask(mask).dilate(radius).clipped(mask.shape).to_mask(mask.shape)


def _places(
    light: np.ndarray, no_data: np.ndarray, n: int, radius: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sky objects, and what they kept clear of: less of it where there is little sky."""
    hidden = light | no_data
    places = sky_objects(hidden, n=n, radius=radius, seed=seed)
    for k in range(10):
        if len(places) >= 0.04 * n or not light.any():
            break
        step = (4, 2, 1)[min(k, 2)]
        disc = np.hypot(*np.mgrid[-step : step + 1, -step : step + 1]) <= step
        light = ~dilate(~light, disc)
        hidden = light | no_data
        places = sky_objects(hidden, n=n, radius=radius, seed=seed)
    return places, hidden
