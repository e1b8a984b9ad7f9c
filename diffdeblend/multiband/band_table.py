"""The columns of all bands as one table with units and descriptions."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from astropy import units
from astropy.table import QTable

from diffdeblend.footprints import SourceRecords
from diffdeblend.header import Header
from diffdeblend.multiband.column_words import FLUX, column_words
from diffdeblend.quantities.magnitudes import magnitudes
from diffdeblend.sky import sky_positions

# Fluxes that have magnitudes and colours, where they were measured.
_FLUXES = ("psf", "gaussian", "kron", "cmodel")


def band_table(
    header: Header,
    records: SourceRecords,
    held: Mapping[str, np.ndarray],
    forced: Mapping[str, Mapping[str, np.ndarray]],
    reference: np.ndarray,
    seen: Mapping[str, np.ndarray],
    priority: tuple[str, ...],
) -> QTable:
    """One table: a row a source, the same in all bands. Host side.

    - `held`: columns of the reference band, under their own names, those of places and shapes with
        the rest of what was measured there under `ref_<column>`.
    - `forced`: of each band, columns that become `<column>_<band>`. With zero points there are
        magnitudes `<flux>_mag_<band>` with errors, as `aperture_mag_12_<band>` of circles, and
        colours of neighbouring bands, `<flux>_color_<band>_<band>`, but of circles.
    - places and radii are in pixels, moments in square pixels, fluxes in the unit of the header.
    """
    out: dict[str, Any] = {}
    said: dict[str, str] = {}
    table = records.table()
    unit = units.Unit(header.unit) if header.unit else None
    for name in table.colnames:
        out[name], said[name] = _told(name, np.asarray(table[name]), unit)
    for name, values in held.items():
        if name in out:
            continue
        key = name if name.startswith(("centroid_", "shape_")) else f"ref_{name}"
        out[key], words = _told(name, values, unit)
        said[key] = words + ", in the reference band"
    out["ref_band"] = np.array(priority)[reference] if len(reference) else np.zeros(0, "U1")
    said["ref_band"] = "Band that gives place and shape"
    for band in priority:
        out[f"detected_{band}"] = seen[band]
        said[f"detected_{band}"] = f"Seen in {band}: footprint of a parent, peak of a child"
    if header.wcs is not None and len(reference):
        x, y = held["centroid_x"], held["centroid_y"]
        known = np.isfinite(x) & np.isfinite(y)
        ra, dec = sky_positions(header, np.where(known, x, 0.0), np.where(known, y, 0.0))
        for name, values in (("ra", ra), ("dec", dec)):
            out[name] = np.where(known, values, np.nan) * units.deg
            said[name] = "ICRS, of the centroid"
    shared = set(table.colnames)
    for band in header.bands:
        for name, values in forced[band].items():
            if name not in shared:
                out[f"{name}_{band}"], words = _told(name, values, unit)
                said[f"{name}_{band}"] = f"{words}; in {band}, forced"
    if header.zero_points is not None:
        _add_magnitudes(out, said, header, forced)
    made: Any = QTable(out)
    for name, words in said.items():
        made[name].info.description = words
    made.meta["bands"] = list(header.bands)
    made.meta["priority"] = list(priority)
    return made


def _add_magnitudes(
    out: dict[str, Any],
    said: dict[str, str],
    header: Header,
    forced: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    assert header.zero_points is not None
    for kind, tail in _measured_fluxes(forced[header.bands[0]]):
        known = {}
        for band, zero_point in zip(header.bands, header.zero_points, strict=True):
            flux, error = (forced[band][f"{kind}_flux{tail}{end}"] for end in ("", "_err"))
            known[band] = magnitudes(flux, error, zero_point)
            for end, values in zip(("", "_err"), known[band], strict=True):
                key = f"{kind}_mag{tail}{end}_{band}"
                out[key] = values * units.mag
                of_flux = f"AB magnitude of {kind}_flux{tail} in {band}"
                said[key] = f"Standard deviation of the {of_flux}" if end else of_flux
        # Circles are many, and their colours the difference of two columns.
        for one, two in pairwise(() if tail else header.bands):
            key = f"{kind}_color_{one}_{two}"
            out[key] = (known[one][0] - known[two][0]) * units.mag
            said[key] = f"{one} - {two} of {kind}_flux, AB magnitudes"
            # Noise of the bands is of its own in each.
            out[f"{key}_err"] = np.hypot(known[one][1], known[two][1]) * units.mag
            said[f"{key}_err"] = f"Standard deviation of {key}"


def _measured_fluxes(columns: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Fluxes with errors, as what comes before and after `_flux` in their names."""
    circles = [name.removeprefix("aperture_flux") for name in columns if "aperture_flux_" in name]
    found = [("aperture", tail) for tail in circles if not tail.endswith("_err")]
    return [(kind, "") for kind in _FLUXES if f"{kind}_flux" in columns] + found


def _told(name: str, values: np.ndarray, unit: Any) -> tuple[Any, str]:
    """A column with its unit, and what it means."""
    words = column_words(name)
    own = unit if words.unit is FLUX else words.unit
    return values if own is None else values * own, words.description
