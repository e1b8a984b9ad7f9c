"""Scores in a file."""

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Column, MaskedColumn, Table

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
            entry[table] = []
            for column in getattr(one, table).itercols():
                key = f"{number}/{table}/{len(entry[table])}"
                unit = column.unit
                entry[table].append([column.name, None if unit is None else unit.to_string()])
                _put(arrays, key, column)
        listing.append(entry)
    head = {"format": _FORMAT, "version": _VERSION, "scores": listing}
    arrays["head"] = np.array(json.dumps(head))
    path = Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def read_scores(path: str | os.PathLike) -> dict[str, Scores]:
    """Scores by name, as `write_scores` wrote them.

    **Raises:** `ValueError` for a file that is cut short or is no file of scores, or one of another
    version; `FileNotFoundError` if there is none.
    """
    try:
        # It leaves open what it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        head = json.loads(str(arrays["head"]))
        kind, version = head["format"], head["version"]
    except FileNotFoundError:
        raise
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(_unreadable(path, error)) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(_unreadable(path, error)) from error
    if kind != _FORMAT or version != _VERSION:
        raise ValueError(
            f"`path` needs a file of {_FORMAT!r}, version {_VERSION}; "
            f"{str(path)!r} is {kind!r}, version {version}."
        )
    try:
        return {
            entry["name"]: Scores(
                *(_table(arrays, f"{number}/{table}", entry[table]) for table in _TABLES),
                settings=entry["settings"],
            )
            for number, entry in enumerate(head["scores"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_unreadable(path, error)) from error


def _unreadable(path: str | os.PathLike, error: Exception) -> str:
    return (
        f"`path` needs a whole file of scores; {str(path)!r} is none, or is cut short "
        f"({type(error).__name__}: {error})."
    )


def _put(arrays: dict[str, np.ndarray], key: str, column: Any) -> None:
    """Add a column, and its mask if it has one."""
    mask = getattr(column, "mask", None)
    data = np.asarray(column.data if mask is None else np.ma.getdata(column))
    if data.dtype.kind not in "biufUS":
        raise ValueError(f"`scores` cannot be written: column {column.name!r} is {data.dtype}.")
    arrays[key] = data
    if mask is not None:
        arrays[f"{key}/mask"] = np.asarray(mask)


def _table(arrays: Mapping[str, np.ndarray], key: str, columns: list[list[Any]]) -> Table:
    """A table of the columns that are listed."""
    table = Table()
    for i, (name, unit) in enumerate(columns):
        data, mask = arrays[f"{key}/{i}"], arrays.get(f"{key}/{i}/mask")
        masked = mask is not None
        values = np.ma.array(data, mask=mask) if masked else data
        table[name] = (MaskedColumn if masked else Column)(values, unit=unit)
    return table
