"""What measures found in a set of blends, in a file."""

import os
from typing import Any

import numpy as np

from diffdeblend.score.archive import (
    get_table,
    put_table,
    read_archive,
    unreadable,
    write_archive,
)
from diffdeblend.score.measured import Measured
from diffdeblend.score.run import Measurements

_FORMAT, _VERSION = "diffdeblend measurements", 1
_ARRAYS = ("segmentation", "images")


def write_measurements(measurements: Measurements, path: str | os.PathLike) -> None:
    """Write all that was found into one file, from which `read_measurements` reads the same.

    **Raises:** `ValueError` for a column that is not an array of numbers, truth values or text.
    """
    arrays: dict[str, np.ndarray] = {}
    listing: list[dict[str, Any]] = []
    for number, name in enumerate(measurements.names):
        blends = []
        for k, found in enumerate(measurements.measured[name]):
            key = f"{number}/{k}"
            blends.append(put_table(arrays, key, found.catalog))
            for part in _ARRAYS:
                if getattr(found, part) is not None:
                    arrays[f"{key}/{part}"] = np.asarray(getattr(found, part))
        first = measurements.first_seconds[name]
        listing.append(
            {
                "name": name,
                "blends": blends,
                "seconds": measurements.seconds[name],
                # JSON has no NaN.
                "first_seconds": None if np.isnan(first) else first,
                "errors": {str(k): words for k, words in measurements.errors[name].items()},
            }
        )
    write_archive(path, _FORMAT, _VERSION, {"measures": listing}, arrays)


def read_measurements(path: str | os.PathLike) -> Measurements:
    """What `write_measurements` wrote.

    **Raises:** `ValueError` for a file that is cut short or holds something else, or one of another
    version; `FileNotFoundError` if there is none.
    """
    head, arrays = read_archive(path, _FORMAT, _VERSION)
    found = Measurements()
    try:
        for number, entry in enumerate(head["measures"]):
            name, first = entry["name"], entry["first_seconds"]
            found.measured[name] = [
                Measured(
                    get_table(arrays, f"{number}/{k}", columns),
                    *(arrays.get(f"{number}/{k}/{part}") for part in _ARRAYS),
                )
                for k, columns in enumerate(entry["blends"])
            ]
            found.seconds[name] = entry["seconds"]
            found.first_seconds[name] = float("nan") if first is None else first
            found.errors[name] = {int(k): words for k, words in entry["errors"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path, _FORMAT, error) from error
    return found
