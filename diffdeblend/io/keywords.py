"""What headers say about an image: band, unit, zero point, gain and the like."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

Headers = Sequence[Mapping[str, Any]]  # the image's own first, then what it inherits from

ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ZP", "PHOTZP", "ZPT")

# Spellings that astropy does not read.
_UNITS = {
    "electrons": "electron",
    "electrons/s": "electron / s",
    "electrons/sec": "electron / s",
    "e-": "electron",
    "e-/s": "electron / s",
    "e/s": "electron / s",
    "e-/sec": "electron / s",
    "electron/sec": "electron / s",
    "counts": "ct",
    "counts/s": "ct / s",
    "counts/sec": "ct / s",
    "count/sec": "ct / s",
    "dn/sec": "DN / s",
    "adu/sec": "adu / s",
    "nanomaggies": "nmgy",
    "njy": "nJy",
    "ujy": "uJy",
    "mjy/sr": "MJy / sr",
}


def text(headers: Headers, *keys: str) -> str | None:
    """The first of the keywords that is there and not empty, as text."""
    for key in keys:
        for header in headers:
            value = str(header[key]).strip() if key in header else ""
            if value:
                return value
    return None


def number(headers: Headers, *keys: str, positive: bool = False) -> float | None:
    """The first of the keywords that holds a finite (positive) number."""
    for key in keys:
        for header in headers:
            try:
                value = float(header[key]) if key in header else math.nan
            except (TypeError, ValueError):
                continue  # a keyword without a value, or text such as 'unknown'
            if math.isfinite(value) and (value > 0 or not positive):
                return value
    return None


def band_name(headers: Headers) -> str | None:
    """Name of the filter."""
    name = text(headers, "FILTER", "BAND", "FILTNAME")
    if name is not None:
        return name
    # HST: two wheels, one of them clear.
    wheels = [text(headers, key) for key in ("FILTER1", "FILTER2")]
    wheels = [wheel for wheel in wheels if wheel and not wheel.upper().startswith("CLEAR")]
    return wheels[0] if wheels else None


def unit(headers: Headers) -> str:
    """The unit of flux as astropy reads it, from BUNIT; empty, with a warning, if it cannot."""
    from astropy import units

    written = text(headers, "BUNIT")
    if written is None:
        return ""
    spelling = _UNITS.get(written.replace(" ", "").lower())
    # Upper case is common and wrong: 'COUNT/S' is no unit, but 'MJy' and 'mJy' are two.
    candidates = (written, spelling, written.lower())
    for candidate in candidates:
        if candidate is None:
            continue
        try:
            parsed = units.Unit(candidate)
        except (ValueError, TypeError):
            continue
        return "" if parsed == units.dimensionless_unscaled else candidate
    warnings.warn(
        f"BUNIT {written!r} is no unit that astropy reads; fluxes are taken as plain counts.",
        UserWarning,
        stacklevel=2,
    )
    return ""


def zero_point(headers: Headers, flux_unit: str, pixel_area: float | None) -> float | None:
    """AB magnitude of one unit of flux, from the headers or the unit, or None.

    - `pixel_area`: in steradian, for surface brightnesses.

    **Raises:** `ValueError` if the headers contradict the unit.
    """
    from astropy import units

    from diffdeblend.exposure import ab_zero_point

    stated = number(headers, *ZERO_POINT_KEYS)
    if stated is None:
        flux = number(headers, "FLUXMAG0", positive=True)
        stated = None if flux is None else 2.5 * math.log10(flux)
    implied = ab_zero_point(flux_unit)
    if implied is None and flux_unit:
        parsed = units.Unit(flux_unit)
        pixel_area = number(headers, "PIXAR_SR", positive=True) or pixel_area
        if pixel_area is not None and parsed.is_equivalent("Jy/sr"):
            implied = ab_zero_point("Jy") - 2.5 * math.log10(parsed.to("Jy/sr") * pixel_area)  # type: ignore[operator]
    if stated is not None and implied is not None and abs(stated - implied) > 0.02:
        raise ValueError(
            f"the header's zero point {stated} contradicts its BUNIT {flux_unit!r}, which has "
            f"{implied:.3f}. Pass `unit=''` to go by the zero point, or correct the header."
        )
    return implied if stated is None else stated


def gain(headers: Headers, flux_unit: str, exposure_time: float | None) -> float | None:
    """Electrons per unit of flux, or None where the header's GAIN says nothing about the unit.

    EFFGAIN is taken as it is. GAIN is electrons per ADU: it holds for ADU, DN, counts or no unit,
    and, times the exposure time, for those a second. In other units, such as nJy, it does not.
    """
    from astropy import units

    effective = number(headers, "EFFGAIN", positive=True)
    if effective is not None:
        return effective
    parsed = units.Unit(flux_unit)
    per_adu = number(headers, "GAIN", positive=True)
    for amount, seconds in ((parsed, 1.0), (parsed * units.s, exposure_time)):
        if seconds is None:
            continue
        if amount == units.electron:
            return seconds
        if amount in (units.adu, units.DN, units.ct, units.dimensionless_unscaled):
            return None if per_adu is None else per_adu * seconds
    return None
