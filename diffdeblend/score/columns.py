"""Columns of the tables of scores."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from astropy.table import Table

from diffdeblend.score import fluxes
from diffdeblend.score.matching import Matching


class MeasuredLike(Protocol):
    """What is used of what was measured in a blend; all have one row for each detection."""

    @property
    def catalog(self) -> Table: ...
    @property
    def segmentation(self) -> Any: ...
    @property
    def images(self) -> Any: ...


def detection_rows(
    measured: Sequence[MeasuredLike], parts: Sequence[tuple[Matching, np.ndarray]]
) -> Table:
    """One row a detection."""
    sizes = [pairs.n_found for pairs, _ in parts]
    xy = np.concatenate([np.zeros((0, 2)), *(at for _, at in parts)])
    source = np.concatenate([np.zeros(0, int), *(pairs.truth_of_found for pairs, _ in parts)])
    return Table(
        {
            "blend": np.repeat(np.arange(len(measured)), sizes),
            "found": np.concatenate([np.zeros(0, int), *(np.arange(size) for size in sizes)]),
            "x": xy[:, 0],
            "y": xy[:, 1],
            "source": source,
            "matched": source >= 0,
        }
    )


def with_fluxes(
    per_source: Table,
    detections: Table,
    measured: Sequence[MeasuredLike],
    bands: tuple[str, ...],
    start: np.ndarray,
    colours: Sequence[tuple[str, str]] | None,
) -> None:
    """Add fluxes, their errors and colours to both tables, of the bands that are measured.

    - `start`: first row of each blend in `per_source`.
    """
    # A blend in which a code failed has no columns.
    with_rows = [result.catalog for result in measured if len(result.catalog)]
    known = {name for catalog in with_rows for name in catalog.colnames}
    detected = np.asarray(detections["source"]) >= 0
    row = start[np.asarray(detections["blend"])] + np.asarray(detections["source"])
    row = row[detected]
    for b in bands:
        if f"flux_{b}" not in known or f"flux_{b}" not in per_source.colnames:
            continue
        for name in (f"flux_{b}", f"flux_err_{b}"):
            if name in known:
                values = [numbers(catalog, name) for catalog in with_rows]
                detections[name] = np.concatenate(values)
                column = np.full(len(per_source), np.nan)
                column[row] = np.asarray(detections[name])[detected]
                per_source[f"found_{name}"] = column
        true, seen = (numbers(per_source, f"{k}flux_{b}") for k in ("", "found_"))
        per_source[f"flux_error_{b}"] = fluxes.flux_error(true, seen)
        if f"flux_err_{b}" in known:
            error = numbers(per_source, f"found_flux_err_{b}")
            per_source[f"pull_{b}"] = fluxes.pulls(true, seen, error)
    for a, b in pairwise(bands) if colours is None else colours:
        if {f"found_flux_{a}", f"found_flux_{b}"} <= set(per_source.colnames):
            per_source[f"colour_error_{a}_{b}"] = fluxes.colour_error(
                *(numbers(per_source, f"{k}flux_{c}") for c in (a, b) for k in ("", "found_"))
            )


def judged_detections(per_source: Table, detections: Table) -> np.ndarray:
    """Which detections count: all but those of sources that do not."""
    source, blend = np.asarray(detections["source"]), np.asarray(detections["blend"])
    # The truth is sorted by blend.
    first = np.searchsorted(np.asarray(per_source["blend"]), blend)
    counts = np.ones(len(detections), bool)
    some = source >= 0
    counts[some] = np.asarray(per_source["judged"])[first[some] + source[some]]
    return counts


def coordinate_columns(table: Table, names: Sequence[str], where: str) -> np.ndarray:
    """Two columns as coordinates."""
    missing = [name for name in names if name not in table.colnames]
    if missing or len(names) != 2:
        raise ValueError(f"`{where}` needs columns {tuple(names)}; it has {table.colnames}.")
    return np.stack([numbers(table, name) for name in names], axis=1)


def numbers(table: Table, name: str) -> np.ndarray:
    """A column as floats; NaN where it is masked, or absent."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    column: Any = table[name]
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    return np.asarray(column, float)
