"""Our own detection by topology as a measure: thresholds, a watershed, apertures; no models."""

import warnings

import numpy as np
from jaxtyping import Float

from diffdeblend.detect import (
    GaussianKernel,
    MultiThreshold,
    NoSky,
    PSFKernel,
    Threshold,
    detect,
)
from diffdeblend.exposure import Exposure
from diffdeblend.score.measured import Measured, add_column, catalog_of
from diffdeblend.score.measurers.images import add_fluxes, cut_out, pixels_of
from diffdeblend.segment import NoDetectionsWarning


def segments(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    threshold: float = 1.5,
    area: int = 5,
    matched: bool = False,
    levels: int = 32,
    contrast: float = 0.001,
    most: int | None = None,
    images: bool = True,
) -> Measured:
    """Sources by `diffdeblend.detect.detect`, in all bands together, fluxes in Kron apertures.

    A deblended image is the image in the pixels of a segment, in all bands.

    - `positions`: not used; it finds its own.
    - `threshold`: in standard deviations of a pixel, after a narrow Gaussian; or, if `matched`, the
        significance of a point through the matched filter of all bands, which finds fainter
        sources and parts fewer neighbours.
    - `area`: least number of pixels. `levels`, `contrast`: of the deblending.
    - `most`: largest number of sources; the brightest are kept and `truncated` says so.
    - `images`: whether to give deblended images; they take memory.

    **Raises:** `ValueError` for settings that `detect` refuses.
    """
    with warnings.catch_warnings():
        # Nothing found is an empty catalogue.
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = detect(
            exposure,
            n_sigma=threshold,
            kernel=PSFKernel() if matched else GaussianKernel(),
            # Simulated blends have none.
            sky=NoSky(),
            segmentation=Threshold(area),
            deblending=MultiThreshold(area, levels, contrast),
            apertures=(),
        )
    pixels = pixels_of(exposure)
    bands = found.measured[1:] or found.measured
    flux = np.stack([np.asarray(of.kron_flux, float) for of in bands], axis=1)
    error = np.stack([np.asarray(of.kron_flux_err, float) for of in bands], axis=1)
    own = np.asarray(found.measured[0].segment_flux, float)
    table = catalog_of(found.positions, exposure.header, exposure.shape)
    add_column(table, "segment_flux", own, "Sum of the segment in the detection image")
    add_fluxes(table, pixels.bands, flux, error, "Flux in the Kron aperture, unit of the image")
    each = found.labels.data == found.labels.labels[:, None, None]
    every = Measured(table, each).brightest(most, own)
    if not images:
        return every
    assert every.segmentation is not None
    return Measured(every.catalog, every.segmentation, cut_out(pixels.image, every.segmentation))
