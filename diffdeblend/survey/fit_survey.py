"""A store of stamps to a folder of parts: planned, fitted, resumed."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffdeblend.io.bundled import named_prior_file
from diffdeblend.io.results import make_directory
from diffdeblend.stamps.store import open_store
from diffdeblend.survey.engine import Engine, Workers, in_process
from diffdeblend.survey.finished import finished, sweep
from diffdeblend.survey.fit_runs import Done
from diffdeblend.survey.job import Job
from diffdeblend.survey.manifest import keep_manifest, make_manifest, read_manifest
from diffdeblend.survey.parts import Run, part_about
from diffdeblend.survey.plan import batches, gaps, limited, shard_of
from diffdeblend.survey.retry import replace_rows, retried
from diffdeblend.survey.settings import FitSettings, Programs


@dataclass(frozen=True)
class SurveyRun:
    """What a call of `fit_survey` has done.

    - `planned`: stamps that were to be fitted; `done`: those that were; `retried`: those of them
        that had failed before.
    - `status`: how many of those done became what.
    - `seconds`: of reading, waiting for what is read, fitting and writing, summed over all
        workers; and on the clock, `wall`.
    """

    planned: int
    done: int = 0
    retried: int = 0
    status: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def stamps_per_second(self) -> float:
        """Of all workers together; 0 where nothing was to be done."""
        return self.done / self.seconds["wall"] if self.done else 0.0


def fit_survey(
    store: str | Path,
    out: str | Path,
    settings: FitSettings | None = None,
    *,
    batch: int = 256,
    engine: Engine = in_process,
    shard: tuple[int, int] = (1, 1),
    limit: int | None = None,
    retry_failed: bool = False,
    cache: str | Path | None = None,
    report: Callable[[Done, int], None] | None = None,
) -> SurveyRun:
    """Fit all stamps of a store that have not been fitted, a part for each batch.

    Whatever interrupts it, the same call again goes on where it was stopped. Several shards may
    run at once.

    - `store`: path of a store, see `open_store`. `out`: folder of the run, made if need be.
    - `settings`: how to fit; by default `FitSettings()`.
    - `batch`: stamps of a part.
    - `engine`: where; by default in this process, see `on_cluster`.
    - `shard`: `(i, n)`: only share i of n, from 1.
    - `limit`: stop after so many stamps, rounded up to a batch.
    - `retry_failed`: then fit once more the stamps that could not be read or fitted, of all parts
        of this shard, and put their rows in the places of the old ones.
    - `cache`: folder of compiled programs.
    - `report`: called with each finished batch and the number of stamps that were to be done.

    **Raises:** `ValueError` for an argument that is out of its range, a store that is broken, or a
    folder of another run; `OSError` for a disk that is full or gone. What was finished stays.
    """
    begun = time.perf_counter()
    _check(batch, shard, limit)
    opened, settings = open_store(store), settings or FitSettings()
    folder = make_directory(out)
    path = str(opened.path.absolute())
    prior = settings.prior
    content = None if prior is None else named_prior_file(prior).read_bytes()
    known = read_manifest(folder)
    if known is not None:
        # Of another store, or of other settings, it is refused here.
        programs = Programs.of_dict(known["programs"])
        known = keep_manifest(folder, make_manifest(opened, settings, programs, content))
    own = shard_of(opened.header.n_stamps, *shard, batch)
    sweep(folder)
    missing = list(gaps(finished(folder, own), own))
    failed = list(retried(folder, own)) if retry_failed else []
    first = _size(limited(batches(missing, batch), limit))
    rest = None if limit is None else max(0, limit - first)
    planned = first + _size(limited(batches(failed, batch), rest))
    count = _Count(planned, report)
    if planned > 0:
        with engine() as workers:
            if known is None:
                programs = workers.choose(path, settings)
                wanted = make_manifest(opened, settings, programs, content)
                # Another shard may have been first.
                known = keep_manifest(folder, wanted)
            job = Job(
                path,
                str(folder.absolute()),
                settings,
                Programs.of_dict(known["programs"]),
                None if cache is None else str(Path(cache).absolute()),
                about=part_about(known),
            )
            count.all_of(workers.fit(job, limited(batches(missing, batch), limit)))
            if planned > first:
                own_name = f"retry-{shard[0]}-of-{shard[1]}"
                again = limited(batches(failed, batch), rest)
                _fit_again(workers, job, again, folder / own_name, own, count)
    return count.as_run(planned - first, time.perf_counter() - begun)


class _Count:
    """Sums over the batches that are finished."""

    def __init__(self, planned: int, report: Callable[[Done, int], None] | None):
        self._planned, self._report = planned, report
        self._done = 0
        self._status: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter(dict.fromkeys(("read", "wait", "fit", "write"), 0))

    def all_of(self, told: Iterable[Done]) -> None:
        """Add batches, and tell of each."""
        for done in told:
            self._done += len(done.run)
            self._status.update(done.status)
            self._seconds.update(done.seconds)
            if self._report is not None:
                self._report(done, self._planned)

    def as_run(self, retried: int, wall: float) -> SurveyRun:
        """The sums."""
        seconds = {**self._seconds, "wall": wall}
        return SurveyRun(self._planned, self._done, retried, dict(self._status), seconds)


def _fit_again(
    workers: Workers, job: Job, runs: Iterable[Run], beside: Path, own: Run, count: _Count
) -> None:
    """Fit stamps that failed in a folder beside the parts, and put their rows in place."""
    # What an interrupted call left there is fitted again with the rest.
    shutil.rmtree(beside, ignore_errors=True)
    out = Path(job.out)
    count.all_of(workers.fit(replace(job, out=str(beside), again=True), runs))
    replace_rows(out, beside, own)
    shutil.rmtree(beside)


def _size(runs: Iterable[Run]) -> int:
    return sum(map(len, runs))


def _check(batch: Any, shard: Any, limit: Any) -> None:
    """**Raises:** `ValueError` for what is no count from 1, or no share."""
    counts = {"batch": batch} | ({} if limit is None else {"limit": limit})
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be an integer from 1; got {value!r}.")
    if not isinstance(shard, tuple) or len(shard) != 2 or not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"`shard` must be (i, n) with i from 1 to n; got {shard!r}.")
