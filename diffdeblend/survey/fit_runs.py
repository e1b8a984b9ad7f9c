"""Batches one after the other: the next is read and the last is written while one is fitted."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffdeblend.stamps.stamps import Stamps
from diffdeblend.stamps.store import StampStore
from diffdeblend.survey.fit_stamps import Fitter
from diffdeblend.survey.parts import Run, write_part

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Done:
    """A batch whose part is on the disk.

    - `run`: its stamps. `status`: how many stamps became what.
    - `seconds`: of reading and writing, which are done beside the fit; of the fit; and of waiting
        for the reader.
    """

    run: Run
    status: Mapping[str, int]
    seconds: Mapping[str, float]


def fit_runs(
    store: StampStore,
    fitter: Fitter,
    out: Path,
    runs: Iterable[Run],
    about: Mapping[str, str] | None = None,
) -> Iterator[Done]:
    """Fit batches of stamps and write a part for each; tell of each once it is on the disk.

    - `out`: folder of the run. `about`: what its parts say of it.

    No more than three batches are in memory: one that is read, one fitted, one written.
    """

    def read(run: Run) -> tuple[Stamps, float]:
        begun = time.perf_counter()
        return store.read(run.start, run.stop), time.perf_counter() - begun

    def write(table: "pyarrow.Table", run: Run) -> float:
        begun = time.perf_counter()
        write_part(table, out, run, about)
        return time.perf_counter() - begun

    waiting = iter(runs)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        own = next(waiting, None)
        coming = None if own is None else reader.submit(read, own)
        before: tuple[Run, Mapping[str, int], dict[str, float], Future] | None = None
        first = True
        while own is not None and coming is not None:
            begun = time.perf_counter()
            stamps, reading = coming.result()
            after = next(waiting, None)
            coming = None if after is None else reader.submit(read, after)
            arrived = time.perf_counter()
            table = fitter.fit(stamps)
            fitted = time.perf_counter()
            if before is not None:
                yield _done(*before)
            seconds = {"read": reading, "wait": arrived - begun, "fit": fitted - arrived}
            status = Counter(table.column("status").to_pylist())
            finished = own, status, seconds, writer.submit(write, table, own)
            # The first is told of at once: whoever waits sees that it works.
            if first:
                yield _done(*finished)
            before, first = None if first else finished, False
            own = after
        if before is not None:
            yield _done(*before)


def _done(run: Run, status: Mapping[str, int], seconds: dict[str, float], written: Future) -> Done:
    return Done(run, dict(status), {**seconds, "write": written.result()})
