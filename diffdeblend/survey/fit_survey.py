"""A store of stamps to a folder of parts: planned, fitted, resumed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from diffdeblend.io.results import make_directory
from diffdeblend.programs import keep_programs
from diffdeblend.survey.fit_runs import Done, fit_runs
from diffdeblend.survey.job import TINY, Job, choose_programs
from diffdeblend.survey.manifest import keep_manifest, make_manifest
from diffdeblend.survey.parts import Run, is_whole, list_parts
from diffdeblend.survey.plan import batches, gaps, limited, shard_of
from diffdeblend.survey.settings import FitSettings
from diffdeblend.survey.store import open_store

# A way to fit batches somewhere: all of them, told of as they are finished.
Engine = Callable[[Job, Iterable[Run]], Iterator[Done]]


def fit_survey(
    store: str | Path,
    out: str | Path,
    settings: FitSettings | None = None,
    *,
    batch: int = 256,
    engine: Engine | None = None,
    shard: tuple[int, int] = (1, 1),
    limit: int | None = None,
    cache: str | Path | None = None,
    report: Callable[[Done, int], None] | None = None,
) -> None:
    """Fit all stamps of a store that have not been fitted, a part for each batch.

    - `store`: path of a store, see `open_store`. `out`: folder of the run, made if need be.
    - `settings`: how to fit; by default `FitSettings()`.
    - `batch`: stamps of a part.
    - `engine`: where; by default in this process.
    - `shard`: `(i, n)`: only share i of n, from 1.
    - `limit`: stop after so many stamps.
    - `cache`: folder of compiled programs.
    - `report`: called with each finished batch and the number of stamps that were to be done.

    **Raises:** `ValueError` for a store that is broken, or a folder of another run.
    """
    opened, settings = open_store(store), settings or FitSettings()
    folder = make_directory(out)
    programs = choose_programs(opened, settings)
    prior = settings.prior
    content = None if prior is None or prior == TINY else Path(prior).read_bytes()
    keep_manifest(folder, make_manifest(opened, settings, programs, content))
    job = Job(
        str(opened.path.absolute()),
        str(folder.absolute()),
        settings,
        programs,
        None if cache is None else str(Path(cache).absolute()),
    )
    own = shard_of(opened.header.n_stamps, *shard, batch)
    done = list(_finished(folder))
    wanted = list(limited(batches(gaps(done, own), batch), limit))
    total = sum(map(len, wanted))
    for each in (engine or in_process)(job, wanted):
        if report is not None:
            report(each, total)


def in_process(job: Job, runs: Iterable[Run]) -> Iterator[Done]:
    """All batches in this process, on all of its cores or devices."""
    if job.cache is not None:
        keep_programs(job.cache)
    store, fitter = job.open()
    yield from fit_runs(store, fitter, Path(job.out), runs)


def _finished(out: Path) -> Iterator[Run]:
    """What is there whole. A part that is not is taken away: it would stay beside the new one."""
    for run, path in list_parts(out):
        if is_whole(run, path):
            yield run
        else:
            path.unlink()
