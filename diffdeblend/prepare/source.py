"""What one is given to prepare: a file, an HDU, an array or an exposure, as the same thing."""

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.exposure import Exposure
from diffdeblend.psf import AbstractPSF

# Spellings of the same number in headers, the first that is there counts.
_GAIN = ("EFFGAIN", "GAIN", "EGAIN", "CCDGAIN")
_READ_NOISE = ("RDNOISE", "READNOIS", "RON", "ENOISE")
_SATURATION = ("SATURATE", "SATURATI", "SATLEVEL", "SATURLEV")
_ZERO_POINT = ("MAGZERO", "MAGZPT", "MAGZP", "ZP", "PHOTZP", "ZPT")


@dataclass(frozen=True, eq=False)
class Source:
    """Pixels in native byte order, and what is known of them.

    - `image`: shape `(band, y, x)`, float32, or float64 if it was so. `variance`: same, or None.
    - `mask`: what `make_exposure` takes, with `mask_planes` and `excluded`; or None.
    - `psf`: or None. `bands`, `wcs`, `unit`, `zero_points`, `gain`, `read_noise`, `saturation`,
        `exposure_time`, `date`: as in `Header`; None where nobody says.
    """

    image: Float[np.ndarray, "band y x"]
    variance: Float[np.ndarray, "band y x"] | None = None
    mask: np.ndarray | None = None
    mask_planes: tuple[str, ...] | None = None
    excluded: tuple[str, ...] | None = None
    psf: AbstractPSF | None = None
    bands: tuple[str, ...] | None = None
    wcs: Any = None
    unit: str = ""
    zero_points: tuple[float, ...] | None = None
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    exposure_time: float | None = None
    date: str | None = None


def as_source(source: Any) -> Source:
    """The pixels and the header of what was given.

    - `source`: a path of a FITS file, of which the first image counts; an HDU or a list of them;
        an array `(y, x)` or `(band, y, x)` of any integers or floats, in either byte order, a
        masked array included; or an `Exposure`.

    **Raises:** `ValueError` for anything else, a file that cannot be read or has no image.
    """
    if isinstance(source, Exposure):
        return _of_exposure(source)
    if isinstance(source, str | os.PathLike):
        return _of_file(Path(source))
    if hasattr(source, "header") and hasattr(source, "data"):
        return _of_hdu(source)
    if isinstance(source, list) and source and all(hasattr(part, "header") for part in source):
        return _of_hdu(_first_image(source, "the list of HDUs"))
    image = plain_image("source", source)
    mask = None
    if np.ma.isMaskedArray(source):
        mask = np.ma.getmaskarray(source)
        mask = mask if mask.ndim == 3 else mask[None]
    return Source(image, mask=mask)


def plain_image(name: str, value: Any) -> Float[np.ndarray, "band y x"]:
    """Real numbers in native byte order, `(band, y, x)`; masked entries become NaN.

    **Raises:** `ValueError` that names the argument for other numbers or shapes.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(
            f"`{name}` must be a path, an HDU, an Exposure, or an image of real numbers; got "
            f"{type(value).__name__} of {array.dtype}."
        )
    double = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    array = array.astype(np.float64 if double else np.float32)
    if np.ma.isMaskedArray(value):
        array[np.ma.getmaskarray(value)] = np.nan
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"`{name}` needs shape (y, x) or (band, y, x); got {np.shape(value)}.")
    return array


def _of_exposure(exposure: Exposure) -> Source:
    header = exposure.header
    return Source(
        image=np.asarray(exposure.image),
        variance=np.asarray(exposure.variance),
        mask=np.asarray(exposure.mask),
        mask_planes=header.mask_planes,
        excluded=header.excluded,
        psf=exposure.psf,
        bands=header.bands,
        wcs=header.wcs,
        unit=header.unit,
        zero_points=header.zero_points,
        gain=header.gain,
        read_noise=header.read_noise,
        saturation=header.saturation,
        exposure_time=header.exposure_time,
        date=header.date,
    )


def _of_file(path: Path) -> Source:
    from astropy.io import fits

    if not path.is_file():
        raise ValueError(f"`source`: there is no file {str(path)!r}.")
    try:
        # Kept in memory: a map of the file would be read again at each use.
        with fits.open(path, memmap=False) as hdus:
            return _of_hdu(_first_image(list(hdus), str(path)))
    except (OSError, TypeError) as error:
        raise ValueError(f"`source`: {str(path)!r} cannot be read as FITS: {error}") from error


def _first_image(hdus: list[Any], where: str) -> Any:
    for hdu in hdus:
        if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2:
            return hdu
    raise ValueError(f"`source`: {where} holds no image of 2 or 3 axes.")


def _of_hdu(hdu: Any) -> Source:
    if hdu.data is None:
        raise ValueError("`source` is an HDU without data.")
    cards = hdu.header
    return Source(
        image=plain_image("source", hdu.data),
        bands=_bands(cards, np.ndim(hdu.data)),
        wcs=_wcs(cards),
        zero_points=_zero_points(cards),
        gain=_number(cards, _GAIN),
        read_noise=_number(cards, _READ_NOISE),
        saturation=_number(cards, _SATURATION),
        exposure_time=_number(cards, ("EXPTIME", "EXPOSURE")),
        date=str(cards["DATE-OBS"]) if cards.get("DATE-OBS") else None,
    )


def _number(cards: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    """The first of the keywords that holds a positive number."""
    for key in keys:
        try:
            value = float(cards.get(key, math.nan))
        except (TypeError, ValueError):
            continue  # a keyword without a value, or text such as 'unknown'
        if math.isfinite(value) and value > 0:
            return value
    return None


def _bands(cards: Mapping[str, Any], axes: int) -> tuple[str, ...] | None:
    name = str(cards.get("FILTER", cards.get("BAND", ""))).strip()
    # A cube's FILTER cannot be the name of each of its bands.
    return (name,) if name and axes == 2 else None


def _zero_points(cards: Mapping[str, Any]) -> tuple[float, ...] | None:
    value = _number(cards, _ZERO_POINT)
    return None if value is None else (value,)


def _wcs(cards: Any) -> Any:
    """The celestial map, or None where there is none that can be used."""
    if not str(cards.get("CTYPE1", "")).strip():
        return None
    from astropy.wcs import WCS, FITSFixedWarning

    with warnings.catch_warnings():
        # Dates put in standard form and the like: of no use to the reader.
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(cards, naxis=2)
        # wcslib has an exception for each way of being wrong.
        except Exception as error:
            warnings.warn(f"the WCS cannot be used and is left out: {error}", stacklevel=2)
            return None
    return wcs if wcs.has_celestial else None
