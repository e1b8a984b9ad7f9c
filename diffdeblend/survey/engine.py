"""Where batches are fitted: what an engine is, and the one that is this process."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from diffdeblend.programs import keep_programs
from diffdeblend.stamps.store import open_store
from diffdeblend.survey.fit_runs import Done, fit_runs
from diffdeblend.survey.job import Job, choose_programs
from diffdeblend.survey.parts import Run
from diffdeblend.survey.settings import FitSettings, Programs


class Workers(Protocol):
    """Who fits, while an engine runs."""

    def choose(self, store: str, settings: FitSettings) -> Programs:
        """What to compile for the store at a path; asked for before the first fit of a run.

        **Raises:** `ValueError` if none of its PSFs is sound, or the prior is no prior.
        """
        ...

    def fit(self, job: Job, runs: Iterable[Run]) -> Iterator[Done]:
        """Fit batches; told of as their parts are on the disk, each once, in any order."""
        ...


# Opened for as long as there is work; it starts nothing before and leaves nothing behind.
Engine = Callable[[], AbstractContextManager[Workers]]


class _Here:
    """This process, with all of its cores or devices."""

    def choose(self, store: str, settings: FitSettings) -> Programs:
        return choose_programs(open_store(store, checked=True), settings)

    def fit(self, job: Job, runs: Iterable[Run]) -> Iterator[Done]:
        if job.cache is not None:
            keep_programs(job.cache)
        store, fitter = job.open()
        yield from fit_runs(store, fitter, Path(job.out), runs, job.about)


@contextmanager
def in_process() -> Iterator[Workers]:
    """The engine that is this process, with all of its cores or devices."""
    yield _Here()
