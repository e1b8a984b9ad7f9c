"""How much noise an image has, from whatever its files say about it."""

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.ndimage import gaussian_filter

from diffdeblend.background.statistics import MAD_TO_STD

VARIANCE_KINDS = ("variance", "rms", "ivar", "weight")


def background_noise(
    image: Real[np.ndarray, "y x"], used: Bool[np.ndarray, "y x"]
) -> tuple[float, float]:
    """Level and standard deviation of the empty sky.

    The median and 1.48 times the median absolute deviation of the used pixels within three
    standard deviations, iterated. Too high where sources cover most of the image, or where the
    sky has a gradient across it.

    **Raises:** `ValueError` if the pixels do not vary.
    """
    values = image[used & np.isfinite(image)].astype(float)
    for _ in range(20):
        level = float(np.median(values)) if values.size else 0.0
        sigma = MAD_TO_STD * float(np.median(np.abs(values - level))) if values.size else 0.0
        if sigma == 0:
            raise ValueError(
                "`variance` is missing and cannot be estimated: more than half of the usable "
                "pixels have one value. Give `variance`, or mask the pixels without data."
            )
        kept = values[np.abs(values - level) <= 3 * sigma]
        if kept.size == values.size:
            break
        values = kept
    return level, sigma


def estimated_variance(
    image: Real[np.ndarray, "y x"], used: Bool[np.ndarray, "y x"], gain: float | None = None
) -> Float[np.ndarray, "y x"]:
    """Variance of an image that comes without: that of its sky, constant, plus photon noise.

    - `used`: pixels that count for the sky.
    - `gain`: electrons per unit of flux; without it the photon noise of the sources is left out.

    Photon noise is taken from the image smoothed by a Gaussian of one pixel: from the pixels
    themselves, those that are low by chance would weigh more, and fluxes would come out low.
    """
    level, sigma = background_noise(image, used)
    variance = np.full(image.shape, sigma**2)
    if gain is None:
        return variance
    light = np.where(np.isfinite(image), image, level).astype(float) - level
    return variance + np.maximum(gaussian_filter(light, 1.0), 0) / gain


def as_variance(
    values: Real[np.ndarray, "y x"],
    kind: str,
    image: Real[np.ndarray, "y x"],
    used: Bool[np.ndarray, "y x"],
) -> Float[np.ndarray, "y x"]:
    """Variance from a map of the noise of any kind.

    - `kind`: `"variance"`; `"rms"`, its square root; `"ivar"`, its inverse; `"weight"`, in
        proportion to its inverse (Source Extractor's MAP_WEIGHT), scaled so that the median over
        the used pixels is the measured variance of the sky. Inverse variances and weights
        that are not positive mean no data: infinite variance.

    **Raises:** `ValueError` for another kind, or a weight without positive values.
    """
    if kind not in VARIANCE_KINDS:
        raise ValueError(f"`variance_kind` must be one of {VARIANCE_KINDS}; got {kind!r}.")
    values = np.asarray(values, dtype=float)
    if kind == "variance":
        return values
    if kind == "rms":
        # Keeps the sign, so that a negative rms is found as a negative variance.
        return values * np.abs(values)
    known = np.isfinite(values) & (values > 0)
    variance = np.full(values.shape, np.inf)
    variance[known] = 1 / values[known]
    if kind == "weight":
        if not (known & used).any():
            raise ValueError("`variance` of kind 'weight' has no positive value at a used pixel.")
        _, sigma = background_noise(image, used & known)
        variance *= sigma**2 / np.median(variance[known & used])
    return variance
