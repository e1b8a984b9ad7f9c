"""Image segmentation and its fluxes, by photutils."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from diffdeblend.exposure import Exposure
from diffdeblend.score.measured import Measured, add_column, catalog_of
from diffdeblend.score.measurers.images import add_fluxes, cut_out, pixels_of


def photutils(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    band: str | None = None,
    threshold: float = 1.5,
    area: int = 5,
    smooth: float = 1.0,
    levels: int = 32,
    contrast: float = 0.001,
    most: int | None = None,
    images: bool = True,
) -> Measured:
    """Segments by `detect_sources` and `deblend_sources`, fluxes by `SourceCatalog`.

    A deblended image is the image in the pixels of a segment, in all bands. `flux_{band}` is
    `kron_flux`, in the aperture of the detection image, with its error from the variance of the
    exposure.

    - `positions`: not used; it finds its own.
    - `band`: name of the band for detection; None: the mean of all.
    - `threshold`: in standard deviations of a pixel that is not smoothed. `area`: least number of
        pixels.
    - `smooth`: standard deviation, in pixels, of the Gaussian that the image is smoothed with
        before detection; 0 for none.
    - `levels`, `contrast`: of `deblend_sources`.
    - `most`: largest number of sources; the brightest are kept and `truncated` says so.
    - `images`: whether to give deblended images; they take memory.

    **Raises:** `ValueError` for an unknown band; `ImportError` without photutils.

    ??? cite
        Bradley et al., photutils, https://doi.org/10.5281/zenodo.596036.
    """
    try:
        from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources
        from photutils.utils.exceptions import NoDetectionsWarning
    except ImportError as error:
        raise ImportError(
            "the measure `photutils` needs photutils: pip install 'diffdeblend[interop]'"
        ) from error
    pixels = pixels_of(exposure)
    seen = pixels.band(band)
    mask = None if seen.bad is None else seen.bad[0]
    image = seen.image[0].astype(float)
    smoothed = gaussian_filter(image, smooth) if smooth > 0 else image
    limit = threshold * np.sqrt(seen.variance[0].astype(float))
    with warnings.catch_warnings():
        # It warns where it finds nothing: an empty catalogue says so here.
        warnings.simplefilter("ignore", NoDetectionsWarning)
        segments: Any = detect_sources(smoothed, limit, n_pixels=area, mask=mask)
        if segments is not None:
            segments = deblend_sources(
                smoothed,
                segments,
                n_pixels=area,
                n_levels=levels,
                contrast=contrast,
                progress_bar=False,
            )
        shape = 0 if segments is None else segments.n_labels, len(pixels.bands)
        flux, error, own = np.zeros(shape), np.zeros(shape), np.zeros(shape[0])
        places, each = np.zeros((0, 2)), np.zeros((0, *exposure.shape), bool)
        if segments is not None:
            found = SourceCatalog(image, segments, convolved_data=smoothed, mask=mask)
            places = np.stack([found.x_centroid, found.y_centroid], axis=1)
            own = np.asarray(found.segment_flux, float)
            each = segments.data == np.asarray(segments.labels)[:, None, None]
            for k in range(shape[1]):
                of_band = SourceCatalog(
                    pixels.image[k].astype(float),
                    segments,
                    error=np.sqrt(pixels.variance[k].astype(float)),
                    mask=None if pixels.bad is None else pixels.bad[k],
                    detection_catalog=found,
                )
                flux[:, k], error[:, k] = of_band.kron_flux, of_band.kron_flux_err
    # A centroid of a segment whose pixels sum to nothing is not a number.
    known = np.isfinite(places).all(axis=1)
    table = catalog_of(places[known], exposure.header, exposure.shape)
    add_column(table, "segment_flux", own[known], "Sum of the segment in the detection image")
    what = "Flux in the Kron aperture, unit of the image"
    add_fluxes(table, pixels.bands, flux[known], error[known], what)
    every = Measured(table, each[known]).brightest(most, own[known])
    if not images:
        return every
    assert every.segmentation is not None
    return Measured(every.catalog, every.segmentation, cut_out(pixels.image, every.segmentation))
