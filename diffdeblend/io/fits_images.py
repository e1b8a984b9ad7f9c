"""Images as FITS, with the cards of the image that they come from and how they were made."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffdeblend import __version__
from diffdeblend.header import Header
from diffdeblend.io.fits import wcs_hdus

# They describe the numbers of the image that the cards are from.
_OF_PIXELS = (
    *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "PCOUNT"),
    *("GCOUNT", "GROUPS", "BSCALE", "BZERO", "BLANK", "BUNIT", "DATAMIN", "DATAMAX", "CHECKSUM"),
    *("DATASUM", "EXTNAME", "EXTVER", "EXTLEVEL", "SATURATE", "GAIN", "EGAIN", "RDNOISE"),
    *("MAGZERO", "MAGZPT", "MAGZP", "ZP", "PHOTZP", "EFFGAIN"),
)


def image_list(
    planes: Mapping[str, Any],
    header: Header,
    *,
    cards: Any = None,
    extra: Mapping[str, tuple[Any, str]] | None = None,
) -> Any:
    """Images `(band, y, x)` as a list of HDUs: the first is the primary one, the others by name.

    Of a single band they are `(y, x)`.

    - `header`: its WCS and names of bands are written.
    - `cards`: of the FITS file that the image is from: all are kept, WCS included, but for those
        that would no longer be true.
    - `extra`: more cards, with their comments; what is not finite is left out.
    """
    from astropy.io import fits

    shared, tables = kept_cards(cards), []
    if cards is None and header.wcs is not None:
        maps = wcs_hdus(header.wcs)
        shared.update(maps[0].header)
        tables = list(maps[1:])
    if len(header.bands) > 1:
        for k, band in enumerate(header.bands, start=1):
            shared[f"BAND{k}"] = (_ascii(band), f"band of plane {k}")
    with warnings.catch_warnings():
        # Cards that astropy mends on the way, or whose comment it cuts.
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        for key, (value, comment) in (extra or {}).items():
            if isinstance(value, float) and not np.isfinite(value):
                continue
            shared[key] = (_ascii(value) if isinstance(value, str) else value, comment)
        shared["CREATOR"] = (f"diffdeblend {__version__}", "made by")
        parts: list[Any] = []
        for name, cube in planes.items():
            array = np.asarray(cube)
            array = array[0] if len(array) == 1 else array
            array = array.astype(np.uint8) if array.dtype == bool else array
            if parts:
                parts.append(fits.ImageHDU(array, _wcs_only(shared), name=name))
            else:
                parts.append(fits.PrimaryHDU(array, shared))
    return fits.HDUList([*parts, *tables])


def per_band(name: str, values: Any, comment: str) -> dict[str, tuple[float, str]]:
    """Cards for a number of each band: NAME of one band, NAME1, NAME2, ... of several."""
    numbers = np.asarray(values, float).reshape(-1)
    if len(numbers) == 1:
        return {name: (float(numbers[0]), comment)}
    return {f"{name}{k}": (float(v), comment) for k, v in enumerate(numbers, start=1)}


def kept_cards(cards: Any) -> Any:
    """A copy of the cards of an image without those that describe its numbers."""
    from astropy.io import fits

    kept = fits.Header()
    if cards is None:
        return kept
    for card in cards.cards:
        if card.keyword not in _OF_PIXELS and not card.keyword.startswith("NAXIS"):
            try:
                kept.append(card, end=True)
            except (ValueError, fits.VerifyError):
                continue  # a card that breaks the standard, which astropy read but does not write
    return kept


def _wcs_only(cards: Any) -> Any:
    """What an extension needs of the primary header: the map to the sky."""
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    if "CTYPE1" not in cards or not str(cards["CTYPE1"]).strip():
        return fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(cards, naxis=2).to_header(relax=True)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
