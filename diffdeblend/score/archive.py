"""Tables and arrays in one file that is whole or not there."""

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


def write_archive(
    path: str | os.PathLike,
    kind: str,
    version: int,
    head: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Arrays and a head of JSON as an `.npz`. It replaces one that is there, at once."""
    content = {"format": kind, "version": version, **head}
    whole: dict[str, Any] = {**arrays, "head": np.array(json.dumps(content))}
    path = Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **whole)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def read_archive(
    path: str | os.PathLike, kind: str, version: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Head and arrays.

    **Raises:** `ValueError` for a file that is cut short, holds something else, or is of another
    version; `FileNotFoundError` if there is none.
    """
    try:
        # It leaves open what it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        head = json.loads(str(arrays.pop("head")))
        found = head["format"], head["version"]
    except FileNotFoundError:
        raise
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(path, kind, error) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, kind, error) from error
    if found != (kind, version):
        raise ValueError(
            f"`path` needs a file of {kind!r}, version {version}; "
            f"{str(path)!r} is {found[0]!r}, version {found[1]}."
        )
    return head, arrays


def unreadable(path: str | os.PathLike, kind: str, error: Exception) -> ValueError:
    """The error for a file that is not what it should be."""
    return ValueError(
        f"`path` needs a whole file of {kind}; {str(path)!r} is none, or is cut short "
        f"({type(error).__name__}: {error})."
    )


def put_table(arrays: dict[str, np.ndarray], key: str, table: Table) -> list[list[Any]]:
    """Add the columns of a table to the arrays; what `get_table` needs to know of them.

    **Raises:** `ValueError` for a column that is not an array of numbers, truth values or text.
    """
    columns = []
    column: Any
    for number, column in enumerate(table.itercols()):
        mask = getattr(column, "mask", None)
        data = np.asarray(column.data if mask is None else np.ma.getdata(column))
        if data.dtype.kind not in "biufUS":
            raise ValueError(f"column {column.name!r} cannot be written: it is {data.dtype}.")
        arrays[f"{key}/{number}"] = data
        if mask is not None:
            arrays[f"{key}/{number}/mask"] = np.asarray(mask)
        columns.append([column.name, None if column.unit is None else column.unit.to_string()])
    return columns


def get_table(arrays: Mapping[str, np.ndarray], key: str, columns: list[list[Any]]) -> Table:
    """A table of the columns that are listed."""
    table: Any = Table()
    for number, (name, unit) in enumerate(columns):
        data, mask = arrays[f"{key}/{number}"], arrays.get(f"{key}/{number}/mask")
        masked = mask is not None
        values = np.ma.array(data, mask=mask) if masked else data
        table[name] = (MaskedColumn if masked else Column)(values, unit=unit)
    return table
