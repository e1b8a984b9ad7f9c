"""Exposures from astropy's CCDData and back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from diffdeblend.exposure import Exposure, Numbers
from diffdeblend.files import are_paths
from diffdeblend.io import keywords
from diffdeblend.io.fits import read_psf
from diffdeblend.io.layers import Layer, chosen, combined
from diffdeblend.io.stamps import psf_images

if TYPE_CHECKING:
    from astropy.nddata import CCDData


def from_ccddata(
    data: "CCDData | Sequence[CCDData]",
    *,
    psf: Any = None,
    bands: Sequence[str] | str | None = None,
    zero_points: Numbers | None = None,
    unit: str | None = None,
    gain: SupportsFloat | None = None,
    excluded: Sequence[str] | None = None,
) -> Exposure:
    """An exposure from one `CCDData` per band.

    Takes over image, unit, uncertainty of any kind, mask (true is bad), WCS, PSF and the keywords
    of `meta`. Without an uncertainty, the variance is estimated.

    - `psf`: a PSF, its image in each band, or FITS files of it; default: the `psf` of `data`.
    - `bands`: names. Default: FILTER or BAND of `meta`.
    - `zero_points`, `unit`, `gain`, `excluded`: as in `read_fits`.

    **Raises:** `ValueError` if `data` is something else, or as `read_fits`.
    """
    from astropy.nddata import CCDData

    several: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    if not several or not all(isinstance(one, CCDData) for one in several):
        kinds = [type(one).__name__ for one in several]
        raise ValueError(f"`data` must be a CCDData or a list of them, one per band; got {kinds}.")
    found = [_layer(one, place) for place, one in enumerate(several)]
    _, names = chosen([layer.name for layer in found], bands, one_file=False)
    layers = [replace(layer, name=name) for layer, name in zip(found, names, strict=True)]
    return combined(
        layers,
        psf=read_psf(psf) if are_paths(psf) else psf,
        unit=unit,
        zero_points=zero_points,
        gain=gain,
        excluded=excluded,
    )


def to_ccddata(exposure: Exposure) -> "list[CCDData]":
    """One `CCDData` per band; its mask is true where a pixel is not in use."""
    from astropy.nddata import CCDData, VarianceUncertainty

    header = exposure.header
    stamps = psf_images(exposure.psf)
    good = np.asarray(exposure.good)
    meta = {
        "EFFGAIN": header.gain,
        "RDNOISE": header.read_noise,
        "SATURATE": header.saturation,
        "EXPTIME": header.exposure_time,
        "DATE-OBS": header.date,
        "PIXSCALE": header.pixel_scale,
    }
    meta = {key: value for key, value in meta.items() if value is not None}
    bands = []
    for k, band in enumerate(exposure.bands):
        zero_point = None if header.zero_points is None else header.zero_points[k]
        own = {"FILTER": band} | ({} if zero_point is None else {"MAGZERO": zero_point})
        bands.append(
            CCDData(
                np.array(exposure.image[k]),
                # CCDData refuses to be without a unit; empty is dimensionless.
                unit=header.unit,
                uncertainty=VarianceUncertainty(np.array(exposure.variance[k])),
                mask=~good[k],
                wcs=header.wcs,  # type: ignore[arg-type]
                meta=meta | own,
                psf=stamps[k],
            )
        )
    return bands


def _layer(data: "CCDData", place: int) -> Layer:
    from astropy import units
    from astropy.nddata import VarianceUncertainty
    from astropy.wcs import WCS

    where = f"data[{place}]"
    if np.ndim(data.data) != 2:
        raise ValueError(f"`{where}` needs an image of 2 axes; got shape {np.shape(data.data)}.")
    if data.wcs is not None and not isinstance(data.wcs, WCS):
        raise ValueError(f"`{where}.wcs` must be an astropy.wcs.WCS; got {type(data.wcs)}.")
    noise = None
    if data.uncertainty is not None:
        try:
            with np.errstate(divide="ignore"):  # an inverse variance of 0 is no data
                variance = data.uncertainty.represent_as(VarianceUncertainty)
        except Exception as error:
            raise ValueError(f"`{where}.uncertainty` has no variance: {error}") from error
        noise = np.asarray(variance.array, dtype=float)
        if variance.unit is not None:
            noise = noise * variance.unit.to(data.unit**2)
    given: Any = data.meta
    meta = {str(key).upper(): given[key] for key in given}
    return Layer(
        image=np.asarray(data.data),
        where=where,
        headers=(meta,),
        name=keywords.band_name((meta,)),
        unit="" if data.unit == units.dimensionless_unscaled else data.unit.to_string(),
        wcs=data.wcs if data.wcs is not None and data.wcs.has_celestial else None,
        noise=noise,
        mask=None if data.mask is None else np.broadcast_to(data.mask, data.data.shape),
        psf=None if data.psf is None else np.asarray(data.psf),
    )
