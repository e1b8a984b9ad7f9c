"""What a worker of a cluster does: opens store and programs once, fits pieces, tells of parts."""

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffdeblend import __version__
from diffdeblend.cores import collect_seldom
from diffdeblend.programs import keep_programs
from diffdeblend.stamps.store import StampStore, open_store
from diffdeblend.survey.dispatch import Piece
from diffdeblend.survey.finished import look
from diffdeblend.survey.fit_runs import Done, fit_runs
from diffdeblend.survey.fit_stamps import Fitter
from diffdeblend.survey.job import Job, choose_programs
from diffdeblend.survey.parts import Run, write_part
from diffdeblend.survey.placement import pin
from diffdeblend.survey.settings import FitSettings, Programs
from diffdeblend.survey.status import Status


class Held:
    """What a worker keeps between pieces: one store, with what fits its stamps."""

    def __init__(self):
        # Two threads would share programs and the PSFs that are remembered.
        self.lock = threading.Lock()
        self._job: Job | None = None
        self._opened: tuple[StampStore, Fitter] | None = None

    def open(self, job: Job) -> tuple[StampStore, Fitter]:
        """Store and fitter of a job, opened the first time."""
        if self._opened is None or self._job != job:
            if job.cache is not None:
                keep_programs(job.cache)
            self._job, self._opened = job, job.open()
        return self._opened


def make_plugin(cores: Mapping[Any, tuple[int, ...]] | None) -> Any:
    """A Dask plugin that gives each worker a `Held`, also to those that come late.

    - `cores`: of each worker by its name, for workers of our own; None for those of others, which
        are left as they are.
    """
    from distributed import WorkerPlugin

    class Holder(WorkerPlugin):
        idempotent = True
        held: Held

        def setup(self, worker: Any) -> None:
            self.held = Held()
            collect_seldom()
            if cores is not None:
                # Ctrl-C reaches all processes of a terminal; the driver ends its workers itself.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                pin(cores.get(worker.name, ()))

    return Holder()


def choose_there(version: str, store: str, settings: FitSettings) -> Programs:
    """What to compile for the store at a path.

    **Raises:** `ValueError` on a worker with another version of the package.
    """
    _check_version(version)
    return choose_programs(open_store(store, checked=True), settings)


def fit_piece(version: str, job: Job, piece: Piece, topic: str) -> list[Done]:
    """Fit the batches of a piece, or tell of those that are on the disk since.

    - `topic`: name of our plugin, and where to tell of each part at once.

    **Raises:** `ValueError` on a worker with another version of the package.
    """
    from distributed import get_worker

    _check_version(version)
    worker: Any = get_worker()
    held: Held = worker.plugins[topic].held
    out = Path(job.out)
    with held.lock:
        found = [look(out, run) for run in piece.runs]
        done = [each for each in found if each is not None]
        left = [run for run, each in zip(piece.runs, found, strict=True) if each is None]
        if not left:
            return done
        store, fitter = held.open(job)
        if piece.lost:
            return done + [lose(store, fitter, job, run) for run in left]
        for each in fit_runs(store, fitter, out, left, job.about):
            worker.log_event(topic, as_message(each))
            done.append(each)
    return done


def lose(store: StampStore, fitter: Fitter, job: Job, run: Run) -> Done:
    """A part for stamps that were given up: their rows hold nothing but that."""
    status, error = Status.KILLED_WORKER, "its process died, each time that it was tried"
    table = fitter.without_fit(store.read(run.start, run.stop), status, error)
    write_part(table, Path(job.out), run, job.about)
    return Done(run, {str(status): len(run)}, {})


def as_message(done: Done) -> dict[str, Any]:
    """A batch in words that Dask sends."""
    return {
        "run": [done.run.start, done.run.stop],
        "status": {str(name): int(count) for name, count in done.status.items()},
        "seconds": {name: float(value) for name, value in done.seconds.items()},
    }


def of_message(message: Mapping[str, Any]) -> Done:
    """The batch of a message."""
    return Done(Run(*message["run"]), dict(message["status"]), dict(message["seconds"]))


def _check_version(version: str) -> None:
    if version != __version__:
        raise ValueError(
            f"`scheduler_file`: its workers have diffdeblend {__version__}; here it is {version}."
        )
