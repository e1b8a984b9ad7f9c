"""The pixels of the band whose blends are taken apart."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints import SourceRecords
from diffdeblend.one_band import band_of
from diffdeblend.planes import as_int32, bits_of, excluded_bits


class BandPixels(NamedTuple):
    """One band of an exposure, on the host; all of shape `(y, x)`.

    - `weight`: one over the variance, 0 where a pixel is not used.
    - `no_data`: not finite, or on the plane NO_DATA.
    - `planes`: names of the bits of `mask`.
    """

    image: Float[np.ndarray, "y x"]
    variance: Float[np.ndarray, "y x"]
    mask: Int[np.ndarray, "y x"]
    weight: Float[np.ndarray, "y x"]
    no_data: Bool[np.ndarray, "y x"]
    planes: tuple[str, ...]


def band_pixels(exposure: Exposure, band: str | None) -> BandPixels:
    """The pixels of a band; None for the only one.

    **Raises:** `ValueError` for an unknown band.
    """
    k = band_of(exposure, band)
    image, variance, mask = (
        np.asarray(getattr(exposure, name)[k]) for name in ("image", "variance", "mask")
    )
    planes = exposure.header.mask_planes
    no_data = ~np.isfinite(image)
    good = (mask & as_int32(excluded_bits(exposure.header))) == 0
    good &= ~no_data & np.isfinite(variance) & (variance > 0)
    no_data |= (mask & as_int32(bits_of(["NO_DATA"], planes))) != 0
    weight = np.where(good, 1 / np.where(good, variance, 1), 0)
    return BandPixels(image, variance, mask, weight, no_data, planes)


def flag_not_deblended(exposure: Exposure, records: SourceRecords) -> Exposure:
    """The exposure with blends that were left alone on the mask plane NOT_DEBLENDED."""
    left = np.zeros(exposure.shape, bool)
    for row in np.flatnonzero(records.flags["skipped"]):
        left[records.footprints[row].spans.clipped(exposure.shape).indices()] = True
    return exposure.with_mask("NOT_DEBLENDED", left)
