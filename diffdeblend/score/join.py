"""Scores of parts of a set of blends as those of the whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Table, vstack

from diffdeblend.score.score import Scores
from diffdeblend.score.summary import summarise

# What may differ from part to part.
_OF_A_PART = {"n_blends", "draws", "seconds", "failures", "failed"}


def join_scores(parts: Sequence[Scores], draws: int = 400) -> Scores:
    """One `Scores` of several, their blends numbered one after the other.

    - `draws`: of the intervals of the new summary, see `Bootstrap`.

    The `seconds` and `failures` that parts may have in their settings are added up.

    **Raises:** `ValueError` for none, or parts that were scored with other settings.
    """
    if not parts:
        raise ValueError("`parts` is empty; give at least one.")
    common = [{k: v for k, v in part.settings.items() if k not in _OF_A_PART} for part in parts]
    if any(settings != common[0] for settings in common):
        raise ValueError("`parts` were scored with different settings; they are of no one set.")
    sources, found, blends = [], [], 0
    for part in parts:
        for table, into in ((part.per_source, sources), (part.detections, found)):
            moved: Any = table.copy()
            moved["blend"] = np.asarray(moved["blend"]) + blends
            into.append(moved)
        blends += part.n_blends
    settings = common[0] | {"n_blends": blends, "draws": int(draws)}
    for name in ("seconds", "failures"):
        if all(name in part.settings for part in parts):
            settings[name] = sum(part.settings[name] for part in parts)
    failed = [part.settings["failed"] for part in parts if "failed" in part.settings]
    if failed:
        settings["failed"] = failed[0]
    per_source, detections = (_stacked(tables) for tables in (sources, found))
    return Scores(per_source, detections, summarise(per_source, detections, settings), settings)


def _stacked(tables: list[Table]) -> Table:
    """Rows of all, NaN where one lacks a column of numbers: a part without detections has few."""
    table: Any = vstack(tables, metadata_conflicts="silent")
    for name in table.colnames:
        column = table[name]
        if np.ma.is_masked(column):
            table[name] = column.astype(float).filled(np.nan)
    return table
