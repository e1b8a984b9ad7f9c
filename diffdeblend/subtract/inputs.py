"""Two exposures as plain arrays of one band, checked and without holes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.exposure import Exposure
from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.subtract.fill import fill_holes
from diffdeblend.widths import equivalent_fwhm

_SAMPLED = 100_000


class BandPair(NamedTuple):
    """One band of a new exposure and its reference, on the host; missing pixels are filled.

    Images, variances and masks have shape `(y, x)`; `fwhm` is that of the broader PSF, in pixels.
    """

    new: Float[np.ndarray, "y x"]
    reference: Float[np.ndarray, "y x"]
    variance_new: Float[np.ndarray, "y x"]
    variance_reference: Float[np.ndarray, "y x"]
    missing_new: Bool[np.ndarray, "y x"]
    missing_reference: Bool[np.ndarray, "y x"]
    sigma_new: float
    sigma_reference: float
    psf_new: AbstractPSF
    psf_reference: AbstractPSF
    band: int
    fwhm: float


def check_pair(new: Exposure, reference: Exposure) -> None:
    """**Raises:** `ValueError` for exposures that cannot be subtracted pixel by pixel."""
    for name, exposure in (("new", new), ("reference", reference)):
        if not isinstance(exposure, Exposure):
            raise ValueError(f"`{name}` must be an Exposure; got {type(exposure).__name__}.")
    if new.image.shape != reference.image.shape:
        raise ValueError(
            "`new` and `reference` need the same number of bands and pixels; got "
            f"{new.image.shape} and {reference.image.shape}. Align them first."
        )
    if new.psf.n_bands != new.n_bands or reference.psf.n_bands != reference.n_bands:
        raise ValueError(
            "`new` and `reference` need a PSF in each band; got "
            f"{new.psf.n_bands} and {reference.psf.n_bands} for {new.n_bands} bands."
        )


def band_pair(new: Exposure, reference: Exposure, band: int) -> BandPair:
    """One band of both.

    **Raises:** `ValueError` if no pixel of an image is in use.
    """
    parts = []
    for name, exposure in (("new", new), ("reference", reference)):
        good = np.asarray(exposure.good[band])
        if not good.any():
            raise ValueError(f"`{name}` has no pixel in use in band {exposure.bands[band]!r}.")
        image, variance = np.asarray(exposure.image[band]), np.asarray(exposure.variance[band])
        sky = background_variance(variance, good)
        whole = good.all()
        parts.append(
            (
                image if whole else fill_holes(image, ~good),
                variance if whole else np.where(good, variance, variance.dtype.type(sky)),
                ~good,
                float(np.sqrt(sky)),
            )
        )
    stamps = [psf_stamp(e.psf, e.shape)[band] for e in (new, reference)]
    (image_n, variance_n, missing_n, sigma_n), (image_r, variance_r, missing_r, sigma_r) = parts
    return BandPair(
        image_n,
        image_r,
        variance_n,
        variance_r,
        missing_n,
        missing_r,
        sigma_n,
        sigma_r,
        new.psf,
        reference.psf,
        band,
        float(max(equivalent_fwhm(stamp) for stamp in stamps)),
    )


def background_variance(variance: np.ndarray, good: np.ndarray) -> float:
    """Median variance of the pixels in use; of a sample of them, evenly spread."""
    stride = max(1, int(np.sqrt(variance.size / _SAMPLED)))
    few = variance[::stride, ::stride][good[::stride, ::stride]]
    return float(np.median(few if few.size else variance[good]))
