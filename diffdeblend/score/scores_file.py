"""Scores in a file."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffdeblend.score.archive import (
    get_table,
    put_table,
    read_archive,
    unreadable,
    write_archive,
)
from diffdeblend.score.score import Scores

_FORMAT, _VERSION = "diffdeblend scores", 1
_TABLES = ("per_source", "detections", "summary")


def write_scores(scores: Mapping[str, Scores], path: str | os.PathLike) -> None:
    """Write scores by name into one file, from which `read_scores` reads the same ones.

    An archive of arrays, one for each column. The file appears whole or not at all, and replaces
    one that is there.

    **Raises:** `ValueError` for a column that is not an array of numbers, truth values or text.
    """
    arrays: dict[str, np.ndarray] = {}
    listing: list[dict[str, Any]] = []
    for number, (name, one) in enumerate(scores.items()):
        entry: dict[str, Any] = {"name": name, "settings": one.settings}
        for table in _TABLES:
            entry[table] = put_table(arrays, f"{number}/{table}", getattr(one, table))
        listing.append(entry)
    write_archive(path, _FORMAT, _VERSION, {"scores": listing}, arrays)


def read_scores(path: str | os.PathLike) -> dict[str, Scores]:
    """Scores by name, as `write_scores` wrote them.

    **Raises:** `ValueError` for a file that is cut short or is no file of scores, or one of another
    version; `FileNotFoundError` if there is none.
    """
    head, arrays = read_archive(path, _FORMAT, _VERSION)
    try:
        return {
            entry["name"]: Scores(
                *(get_table(arrays, f"{number}/{table}", entry[table]) for table in _TABLES),
                settings=entry["settings"],
            )
            for number, entry in enumerate(head["scores"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path, _FORMAT, error) from error
