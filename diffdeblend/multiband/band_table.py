"""The columns of all bands as one table with units and descriptions."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from astropy import units
from astropy.table import QTable

from diffdeblend.footprints import SourceRecords
from diffdeblend.header import Header
from diffdeblend.quantities.magnitudes import magnitudes
from diffdeblend.sky import sky_positions

# Fluxes that have magnitudes and colours, where they were measured.
_FLUXES = ("psf", "gaussian", "kron", "cmodel")
# By the end of a column's name, the longest first.
_SAID = {
    "flux_err": "Standard deviation of the flux",
    "flux": "Flux",
    "frac_dev": "Share of the de Vaucouleurs profile in the flux",
    "flag": "No number of this measurement is to be trusted",
    "radius": "Radius, pixels",
    "xx": "Second moment along x, square pixels",
    "yy": "Second moment along y, square pixels",
    "xy": "Mixed second moment, square pixels",
    "x": "Place along x; the first pixel is centred on 0",
    "y": "Place along y; the first pixel is centred on 0",
}


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
        magnitudes `<flux>_mag_<band>` with errors, and colours of neighbouring bands,
        `<flux>_color_<band>_<band>`.
    """
    out: dict[str, Any] = {}
    said: dict[str, str] = {}
    table = records.table()
    for name in table.colnames:
        out[name] = np.asarray(table[name])
    unit = units.Unit(header.unit) if header.unit else None
    for name, values in held.items():
        if name in out:
            continue
        key = name if name.startswith(("centroid_", "shape_")) else f"ref_{name}"
        out[key] = _with_unit(name, values, unit)
        said[key] = _description(name) + ", in the reference band"
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
                out[f"{name}_{band}"] = _with_unit(name, values, unit)
                said[f"{name}_{band}"] = f"{_description(name)} in {band}, forced"
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
    for kind in _FLUXES:
        if f"{kind}_flux" not in forced[header.bands[0]]:
            continue
        known = {}
        for band, zero_point in zip(header.bands, header.zero_points, strict=True):
            flux, error = (forced[band][f"{kind}_flux{end}"] for end in ("", "_err"))
            known[band] = magnitudes(flux, error, zero_point)
            for end, values in zip(("", "_err"), known[band], strict=True):
                key = f"{kind}_mag{end}_{band}"
                out[key] = values * units.mag
                said[key] = f"AB magnitude of {kind}_flux in {band}" if not end else "Its error"
        for one, two in pairwise(header.bands):
            key = f"{kind}_color_{one}_{two}"
            out[key] = (known[one][0] - known[two][0]) * units.mag
            said[key] = f"{one} - {two} of {kind}_flux, AB magnitudes"
            # Noise of the bands is of its own in each.
            out[f"{key}_err"] = np.hypot(known[one][1], known[two][1]) * units.mag
            said[f"{key}_err"] = "Standard deviation of the colour"


def _with_unit(name: str, values: np.ndarray, unit: Any) -> Any:
    flux = "flux" in name and values.dtype.kind == "f" and "chi2" not in name
    return values * unit if unit is not None and flux else values


def _description(name: str) -> str:
    measurement, _, key = name.partition("_")
    for end, words in _SAID.items():
        if key == end or key.endswith(f"_{end}"):
            return f"{measurement}: {words}"
    return f"{measurement}: {key}"
