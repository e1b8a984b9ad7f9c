"""Rows of stamps as rows of sources, with magnitudes: what a catalogue is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.quantities.magnitudes import magnitudes
from diffdeblend.stamps.stamps import StampsHeader
from diffdeblend.survey.columns import Column, covariance_column
from diffdeblend.survey.covariance import own_triangles

if TYPE_CHECKING:
    import pyarrow

# Columns of stamps that have another name beside those of sources, whose places are `ra` and `dec`.
_STAMP = {"id": "stamp_id", "row": "stamp_row", "ra": "stamp_ra", "dec": "stamp_dec"}
_SOURCE = {"source_ra": "ra", "source_dec": "dec"}
_COVARIANCE = "flux_covariance"


def source_columns(columns: Sequence[Column], header: StampsHeader) -> tuple[Column, ...]:
    """The columns of rows of sources, from those of rows of stamps.

    First the number of the stamp, then all that is told of the source, with magnitudes where zero
    points are known, and then what is told of its stamp.
    """
    of_stamp = [column for column in columns if not column.by_source]
    made = [replace(column, name="stamp_id") for column in of_stamp if column.name == "id"]
    for column in columns:
        if column.by_source:
            made.append(replace(column, name=_SOURCE.get(column.name, column.name)))
    if header.zero_points is not None:
        after = 1 + max(k for k, c in enumerate(made) if c.name.startswith("flux_"))
        made[after:after] = [column for band in header.bands for column in _magnitudes(band)]
    made = [replace(column, by_source=False) for column in made]
    for column in of_stamp:
        if column.name == _COVARIANCE:
            text = (
                "Covariance of the source's fluxes between the bands: the upper triangle of the "
                "matrix, row by row; its diagonal is flux_err squared"
            )
            size = header.n_bands * (header.n_bands + 1) // 2
            made.append(covariance_column(header.unit, size, text))
        elif column.name != "id":
            text = column.description
            text = text if "stamp" in text else f"Of the stamp: {text[0].lower()}{text[1:]}"
            name = _STAMP.get(column.name, column.name)
            made.append(replace(column, name=name, description=text))
    return tuple(made)


def source_rows(
    table: "pyarrow.Table", columns: Sequence[Column], header: StampsHeader
) -> dict[str, np.ndarray]:
    """Values of the columns of rows of sources, `(source, ...)` each; stamps without any have none.

    - `table`: rows of stamps. `columns`: as of `source_columns`.
    """
    count = table.column("n_sources").to_numpy().astype(int)
    owner = np.repeat(np.arange(len(count)), count)
    back = {new: old for old, new in (_STAMP | _SOURCE).items()}
    values: dict[str, np.ndarray] = {}
    for column in columns:
        name = back.get(column.name, column.name)
        if name == _COVARIANCE:
            flat = _flat(table.column(name))
            values[name] = own_triangles(flat, count, header.n_bands)
        elif name in table.column_names:
            given: Any = table.column(name).combine_chunks()
            inner = _flat(given, column.size) if _is_list(given) else array_of(given)[owner]
            values[column.name] = inner
    points = header.zero_points or ()
    for band, point in zip(header.bands, points, strict=False):
        mag, error = magnitudes(values[f"flux_{band}"], values[f"flux_err_{band}"], point)
        values[f"mag_{band}"], values[f"mag_err_{band}"] = mag, error
    return {column.name: values[column.name] for column in columns}


def stamp_rows(table: "pyarrow.Table", columns: Sequence[Column]) -> Mapping[str, np.ndarray]:
    """Values of the columns of stamps that are no lists."""
    return {column.name: array_of(table.column(column.name)) for column in columns}


def array_of(column: Any) -> np.ndarray:
    """A column of Arrow, of numbers or words, in memory."""
    return column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(False)


def _is_list(array: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(array.type)


def _flat(column: Any, size: int = 0) -> np.ndarray:
    """What all lists of a column hold, one after the other; `size`: numbers of each, if many."""
    array = column.combine_chunks() if hasattr(column, "num_chunks") else column
    inner = array.flatten()
    if size == 0:
        return array_of(inner)
    return array_of(inner).reshape(-1, size)


def _magnitudes(band: str) -> tuple[Column, Column]:
    text = f"AB magnitude in {band}; NaN without positive flux"
    error = f"Error of the magnitude in {band}, first order"
    return (
        Column(f"mag_{band}", "float64", text, "mag"),
        Column(f"mag_err_{band}", "float64", error, "mag"),
    )
