"""One measure function over many blends, in this process and, where it pays, in others."""

import os
import pickle
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from astropy.table import Column, Table

from diffdeblend.cores import available_cores
from diffdeblend.score.load_measure import load_function
from diffdeblend.score.measured import Measure, Measured
from diffdeblend.score.stamps import Stamps

# What a function made of a blend, or what it said when it failed.
Outcome = Measured | str
# Seconds of work for one process below which none is started: it takes some three to import
# what it needs, and there must be something left to do then.
_WORTH = 8.0
# Seconds of work that are sent to another process at once, and known before that is decided.
_CHUNK, _TRIAL = 0.5, 0.5


@dataclass(frozen=True, eq=False)
class Jobs:
    """What a function is given of each blend.

    - `stamps`: of each survey that it sees, by name.
    - `positions`: of each survey, an array a blend; None where they are to be found.
    - `surveys`: whether the function takes dicts by survey.
    """

    stamps: dict[str, Stamps]
    positions: dict[str, list[np.ndarray]] | None
    surveys: bool

    def __len__(self) -> int:
        return next(iter(self.stamps.values())).n_blends

    def part(self, start: int, stop: int) -> "Jobs":
        """Some of the blends."""
        own = self.positions
        return Jobs(
            {name: of.part(start, stop) for name, of in self.stamps.items()},
            None if own is None else {name: of[start:stop] for name, of in own.items()},
            self.surveys,
        )

    def outcome(self, measure: Measure, number: int) -> Outcome:
        """What a function makes of one blend; its words where it fails."""
        exposures = {name: of.exposure(number) for name, of in self.stamps.items()}
        own = self.positions
        places = None if own is None else {name: of[number] for name, of in own.items()}
        try:
            if self.surveys:
                made = measure.function(exposures, places, **measure.settings)
            else:
                name = next(iter(exposures))
                place = None if places is None else places[name]
                made = measure.function(exposures[name], place, **measure.settings)
        except ImportError:
            # Not there for this blend, nor for any other.
            raise
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if not isinstance(made, Measured):
            return f"it returned {type(made).__name__}, not Measured"
        return made


def run_jobs(
    measure: Measure,
    jobs: Jobs,
    *,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> tuple[list[Outcome], float]:
    """The outcome of each job, and the seconds that the first one took.

    This process works from the beginning; where it pays, others work from the end. So their start
    costs nothing, and how much they do need not be known before.

    - `workers`: processes, this one included.
    - `advance`: called with the number of finished jobs.
    """
    n = len(jobs)
    outcomes: list[Any] = [None] * n
    finished = 0

    def put(start: int, made: list[Outcome]) -> None:
        nonlocal finished
        for number, one in enumerate(made, start):
            # What this process did while it waited may come once more.
            finished += outcomes[number] is None
            outcomes[number] = one
        if advance is not None:
            advance(finished)

    def here(number: int) -> None:
        put(number, [jobs.outcome(measure, number)])

    low, first, begun = 0, float("nan"), time.perf_counter()
    while low < n and (low < 2 or time.perf_counter() - begun < _TRIAL):
        here(low)
        low += 1
        if low == 1:
            # Imports and compilation are no measure of what is to come.
            first, begun = time.perf_counter() - begun, time.perf_counter()
    each = (time.perf_counter() - begun) / max(low - 1, 1)
    others = min(workers, _cores()) - 1
    worth = others > 0 and (n - low) * each > _WORTH and _can_be_sent(measure)
    if worth:
        try:
            low = _with_others(measure, jobs, low, others, max(1, int(_CHUNK / each)), put, here)
        except (BrokenProcessPool, pickle.PicklingError):
            # Killed for memory, started by a script that others cannot import, or with results that
            # cannot be sent: what is missing is done here.
            low = 0
    for number in range(low, n):
        if outcomes[number] is None:
            here(number)
    return outcomes, first


def _with_others(
    measure: Measure,
    jobs: Jobs,
    low: int,
    others: int,
    size: int,
    put: Callable[[int, list[Outcome]], None],
    here: Callable[[int], None],
) -> int:
    """Do all jobs from `low` on, with `others` more processes; gives the number of jobs."""
    high = len(jobs)
    waiting: dict[Future, int] = {}
    sent = replace(measure, function=_elsewhere) if measure.origin else measure
    # Spawned: a fork of a process whose threads hold locks may hang.
    pool = ProcessPoolExecutor(others, get_context("spawn"))
    try:
        while low < high or waiting:
            # When less than a chunk for each is left, this process ends it alone.
            while len(waiting) < 2 * others and high - low > size * (others + 1):
                high -= size
                waiting[pool.submit(_work, sent, jobs.part(high, high + size))] = high
            if low < high:
                here(low)
                low += 1
                ready = [future for future in waiting if future.done()]
            else:
                # Not idle while others are slow: the chunk that was sent last is done here too,
                # and who is first has it. So two are never much slower than one.
                last = next(reversed(waiting))
                for number in range(waiting[last], waiting[last] + size):
                    if last.done():
                        break
                    here(number)
                else:
                    del waiting[last]
                ready = [future for future in waiting if future.done()]
            for future in ready:
                put(waiting.pop(future), _parted(future.result()))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return len(jobs)


def _work(measure: Measure, jobs: Jobs) -> Any:
    """In another process: outcomes, with their tables as one."""
    if measure.origin:
        measure = replace(measure, function=load_function(measure.origin))
    return _stacked([jobs.outcome(measure, number) for number in range(len(jobs))])


def _stacked(outcomes: list[Outcome]) -> Any:
    """To be sent: a table takes as long to unpickle as some functions take to measure.

    What has other columns than the first, or columns with more to them than an array, is sent as
    it is.
    """
    tables: list[Any] = [o.catalog if isinstance(o, Measured) else None for o in outcomes]
    first: Any = next((table for table in tables if table is not None and _plain(table)), None)
    if first is None:
        return outcomes
    like = [t is not None and t.colnames == first.colnames and _plain(t) for t in tables]
    alike = [t for t, same in zip(tables, like, strict=True) if same]
    names: list[str] = [str(name) for name in first.colnames]
    columns = {name: np.concatenate([np.asarray(t[name]) for t in alike]) for name in names}
    about = {name: (first[name].description, first[name].unit) for name in names}
    rest = [
        (len(o.catalog), {**(o.catalog.meta or {})}, o.segmentation, o.images)
        if same and isinstance(o, Measured)
        else o
        for o, same in zip(outcomes, like, strict=True)
    ]
    return columns, about, rest


def _plain(table: Any) -> bool:
    return all(type(table[name]) is Column for name in table.colnames)


def _parted(sent: Any) -> list[Outcome]:
    """The outcomes that were sent."""
    if isinstance(sent, list):
        return sent
    columns, about, rest = sent
    every: Any = Table(columns, copy=False)
    for name, (description, unit) in about.items():
        every[name].description, every[name].unit = description, unit
    outcomes: list[Outcome] = []
    start = 0
    for one in rest:
        if isinstance(one, Measured | str):
            outcomes.append(one)
            continue
        count, meta, segmentation, images = one
        table = every[start : start + count]
        table.meta.update(meta)
        outcomes.append(Measured(table, segmentation, images))
        start += count
    return outcomes


def _elsewhere(*_: Any, **__: Any) -> Any:
    """In the place of a function that the other process finds by its origin."""
    raise AssertionError


def _can_be_sent(measure: Measure) -> bool:
    function = None if measure.origin else measure.function
    typed = getattr(function, "__module__", "") == "__main__"
    if typed and not hasattr(sys.modules["__main__"], "__file__"):
        # At a prompt or in a notebook: there is no file that another process could read it from.
        return False
    try:
        pickle.dumps((function, measure.settings))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _cores() -> int:
    """Cores that this process may use, less those that others are busy on."""
    busy = os.getloadavg()[0] - 1 if hasattr(os, "getloadavg") else 0
    return max(1, available_cores() - max(0, round(busy)))
