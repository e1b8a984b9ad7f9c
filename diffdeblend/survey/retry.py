"""Stamps that could not be fitted, once more: fitted beside the parts, then put in their places."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffdeblend.survey.parts import Run, list_parts, read_part, write_part
from diffdeblend.survey.status import RETRIED, Status


def retried(out: Path, own: Run) -> Iterator[Run]:
    """Stamps next to each other that are to be fitted again, none across two parts.

    - `own`: only parts that begin there, so that no two shards write to the same.
    """
    for run, path in _parts_of(out, own):
        status = np.array(read_part(path, run, ["status"]).column("status").to_pylist(), str)
        again = np.isin(status, [str(each) for each in RETRIED])
        edges = np.flatnonzero(np.diff(again, prepend=False, append=False)) + run.start
        for start, stop in edges.reshape(-1, 2).tolist():
            yield Run(start, stop)


def replace_rows(out: Path, fitted: Path, own: Run) -> int:
    """Put rows that were fitted again in the places of the old ones; returns how many.

    - `fitted`: folder with parts of them. A stamp that killed its process again is left as it was.

    All other rows stay to the bit. A part is replaced whole or not at all.
    """
    import pyarrow as pa

    count = 0
    new = list(list_parts(fitted))
    for run, path in _parts_of(out, own):
        patches = [(each, at) for each, at in new if run.start <= each.start < run.stop]
        if not patches:
            continue
        old = read_part(path, run)
        tables, taken = [old], np.arange(len(run))
        room = len(run)
        for each, at in patches:
            table = read_part(at, each).select(old.column_names).cast(old.schema)
            status = np.array(table.column("status").to_pylist())
            kept = np.flatnonzero(status != Status.KILLED_WORKER)
            taken[each.start - run.start + kept] = room + kept
            tables.append(table)
            room += len(each)
            count += len(kept)
        write_part(pa.concat_tables(tables).take(pa.array(taken)).combine_chunks(), out, run)
    return count


def _parts_of(out: Path, own: Run) -> Iterator[tuple[Run, Path]]:
    for run, path in list_parts(out):
        if own.start <= run.start < own.stop:
            yield run, path
