"""Catalogues of survey runs as files, written piece by piece: Parquet and FITS."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from diffdeblend.io.results import catalog_hdus
from diffdeblend.survey.columns import RAGGED, Column, arrow_schema

if TYPE_CHECKING:
    import pyarrow

# Rows that a Parquet file holds together: as many are in memory.
_GROUP = 1 << 16
# FITS files are multiples of it, in bytes.
_BLOCK = 2880

Values = Mapping[str, np.ndarray]


@contextmanager
def parquet_writer(
    path: Path, columns: Sequence[Column], about: Mapping[str, Any], widths: Mapping[str, int]
) -> Iterator[Callable[["pyarrow.Table"], None]]:
    """A function that adds rows to a Parquet file, which is closed with the block.

    astropy, pandas and pyarrow read it; units and descriptions are those of astropy, and stand with
    Arrow's fields, too.

    - `about`: what is told of the whole. `widths`: of the longest word of each column of words.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = {
        "diffdeblend": json.dumps(about),
        "table_meta_yaml": _yaml(columns, about, widths),
        **{f"table::len::{name}": str(width) for name, width in widths.items()},
    }
    schema = arrow_schema(columns, told)
    words: Any = [column.name for column in columns if column.dtype == "str"]
    waiting: list[Any] = []
    with pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=words, write_page_checksum=True
    ) as file:

        def flush(least: int) -> None:
            if sum(map(len, waiting)) >= least:
                file.write_table(pa.concat_tables(waiting), row_group_size=_GROUP)
                waiting.clear()

        def add(table: "pyarrow.Table") -> None:
            waiting.append(table.cast(schema))
            flush(_GROUP)

        yield add
        flush(1)


def arrow_rows(columns: Sequence[Column], values: Values) -> "pyarrow.Table":
    """Rows in memory as Arrow's."""
    import pyarrow as pa

    arrays: list[Any] = []
    for column in columns:
        flat: Any = pa.array(np.asarray(values[column.name]).reshape(-1))
        if column.size:
            flat = pa.FixedSizeListArray.from_arrays(flat, column.size)
        arrays.append(flat.cast(column.one_type()))
    return pa.table(arrays, names=[column.name for column in columns])


@contextmanager
def fits_writer(
    path: Path,
    columns: Sequence[Column],
    about: Mapping[str, Any],
    widths: Mapping[str, int],
    n_rows: int,
) -> Iterator[Callable[[Values], None]]:
    """A function that adds rows to a FITS table, which is closed with the block.

    Descriptions stand in TCOMMn, what is told of the whole in PROVENAN, as JSON.

    - `columns`: without lists of any length. `about`, `widths`: as of `parquet_writer`.
    - `n_rows`: that will be added in all.
    """
    empty = _empty(columns, widths, about)
    hdus = catalog_hdus(empty)
    header = hdus[1].header
    header["NAXIS2"] = n_rows
    record = np.dtype([_packed(column, widths) for column in columns])
    assert header["NAXIS1"] == record.itemsize
    written = 0
    with path.open("wb") as file:
        for hdu in hdus:
            file.write(hdu.header.tostring().encode("ascii"))

        def add(values: Values) -> None:
            nonlocal written
            rows = np.empty(len(values[columns[0].name]), record)
            for column in columns:
                rows[column.name] = _fits_values(values[column.name], column)
            file.write(rows.tobytes())
            written += len(rows)

        yield add
        file.write(bytes(-written * record.itemsize % _BLOCK))
    assert written == n_rows


def _empty(columns: Sequence[Column], widths: Mapping[str, int], about: Mapping[str, Any]) -> Any:
    """A table of these columns without rows, as astropy has it; lists of any length as numbers."""
    table: Any = Table(meta=dict(about))
    for column in columns:
        dtype = f"U{widths.get(column.name, 1)}" if column.dtype == "str" else column.dtype
        shape = (0, column.size) if column.size not in (0, RAGGED) else (0,)
        table[column.name] = np.zeros(shape, dtype)
        table[column.name].info.description = column.description
        if column.unit:
            table[column.name].unit = column.unit
    return table


def _yaml(columns: Sequence[Column], about: Mapping[str, Any], widths: Mapping[str, int]) -> str:
    """What astropy asks of a Parquet file beside its columns."""
    from astropy.table import meta

    return "\n".join(meta.get_yaml_from_table(_empty(columns, widths, about)))


def _packed(column: Column, widths: Mapping[str, int]) -> tuple[str, str, tuple[int, ...]]:
    """Name, type and shape of a column in a row of FITS."""
    if column.dtype == "str":
        return column.name, f"S{widths.get(column.name, 1)}", ()
    if column.dtype == "bool":
        return column.name, "S1", ()
    shape = (column.size,) if column.size else ()
    return column.name, np.dtype(column.dtype).newbyteorder(">").str, shape


def _fits_values(values: np.ndarray, column: Column) -> np.ndarray:
    if column.dtype == "bool":
        return np.where(values, b"T", b"F")
    if column.dtype == "str":
        # FITS has no other letters.
        ascii_only = [str(word).encode("ascii", "replace") for word in values]
        return np.array(ascii_only, dtype="S")
    return values
