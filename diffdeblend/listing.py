"""A catalogue as text, for a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable

from diffdeblend.deblend.catalog import FLAG_MEANINGS, Flag, flag_names
from diffdeblend.io.results import FIGURE


def listing(catalog: QTable, bands: Sequence[str]) -> str:
    """Small tables that a terminal is wide enough for: shapes, fluxes and any magnitudes.

    Below them the meaning of the flags that occur.
    """
    blocks = [table_of(_shape_rows(catalog)), table_of(_flux_rows(catalog, bands))]
    if bands and f"mag_{bands[0]}" in catalog.colnames:
        blocks.append(table_of(_magnitude_rows(catalog, bands)))
    seen = int(np.bitwise_or.reduce(np.asarray(catalog["flags"], dtype=int), initial=0))
    if seen:
        blocks.append(
            "\n".join(f"{flag.name}: {FLAG_MEANINGS[flag]}" for flag in Flag if seen & flag)
        )
    return "\n\n".join(blocks)


def with_error(value: float, error: float, most: int = 6) -> str:
    """`12.34±0.56`: as many digits as two of the error's need, at most `most` behind the point.

    An error that is not a positive number is left out.
    """
    if not np.isfinite(value):
        return "-"
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, most))
    return f"{value:.{digits}f}±{error:.{digits}f}"


def _shape_rows(catalog: Any) -> list[list[str]]:
    sky = "ra" in catalog.colnames
    radius = "radius_arcsec" if sky else "radius"
    place = [["ra", "dec"]] if sky else [[]]
    head = ["id", "x", "y", *place[0], "model", 'radius ["]' if sky else "radius [px]"]
    rows = [[*head, "axis ratio", "index", "snr", "chi2", "flags"]]
    for row in catalog:
        at = [f"{row['ra'].value:.6f}", f"{row['dec'].value:+.6f}"] if sky else []
        rows.append(
            [
                str(row["id"]),
                f"{row['x'].value:.2f}",
                f"{row['y'].value:.2f}",
                *at,
                str(row["model"]),
                _number(row[radius].value, 2),
                _number(row["axis_ratio"].value, 2),
                _number(row["index"].value, 1),
                _number(row["snr"].value, 1),
                _number(row["reduced_chi2"].value, 2),
                " ".join(flag_names(int(row["flags"]))) or "-",
            ]
        )
    return rows


def _flux_rows(catalog: Any, bands: Sequence[str]) -> list[list[str]]:
    values = np.array([catalog[f"flux_{band}"].value for band in bands])
    power = _power(values)
    unit = str(catalog[f"flux_{bands[0]}"].unit)
    measure = " ".join(part for part in (f"1e{power}" if power else "", unit) if part)
    head = f"flux [{measure}]" if measure else "flux"
    rows = [["id", *bands, head]]
    for row in catalog:
        pairs = (
            (row[f"flux_{band}"].value / 10.0**power, row[f"flux_err_{band}"].value / 10.0**power)
            for band in bands
        )
        rows.append([str(row["id"]), *(with_error(*pair) for pair in pairs), ""])
    return rows


def _magnitude_rows(catalog: Any, bands: Sequence[str]) -> list[list[str]]:
    rows = [["id", *bands, "AB magnitude"]]
    for row in catalog:
        pairs = ((row[f"mag_{band}"].value, row[f"mag_err_{band}"].value) for band in bands)
        # More digits than any zero point is good for would only be hard to read.
        rows.append([str(row["id"]), *(with_error(*pair, most=3) for pair in pairs), ""])
    return rows


def _power(values: np.ndarray) -> int:
    """A power of ten, a multiple of 3, that brings typical values near 1; 0 if they are."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    typical = float(np.median(sizes)) if sizes.size else 1.0
    return 0 if 1e-2 <= typical < 1e6 else 3 * int(np.floor(np.log10(typical) / 3))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def table_of(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each: numbers to the right, words to the left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    left = [column[0] in ("model", "flags") or column[-1] == "" for column in columns]
    lines = [
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def closing_lines(written: Mapping[str, Path]) -> list[str]:
    """Where the results are, and, where there is no figure, why."""
    folder = written["summary.json"].parent
    lines = [f"written to {folder}: {', '.join(sorted(written))}"]
    if FIGURE not in written:
        lines.append(f"no {FIGURE}: matplotlib is not installed (pip install 'diffdeblend[plot]')")
    return lines
