"""The engine of many processes: Dask workers on this machine, or of a cluster that is there."""

import logging
import os
import queue
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from diffdeblend import __version__
from diffdeblend.survey.dispatch import Event, Piece, dispatch
from diffdeblend.survey.engine import Engine, Workers
from diffdeblend.survey.finished import look
from diffdeblend.survey.fit_runs import Done
from diffdeblend.survey.job import Job
from diffdeblend.survey.on_worker import choose_there, fit_piece, make_plugin, of_message
from diffdeblend.survey.parts import Run
from diffdeblend.survey.placement import Place, places
from diffdeblend.survey.settings import FitSettings, Programs

# Seconds between two counts of the workers; and without any of our own, until we give up.
_COUNTED, _PATIENCE = 2.0, 600.0


def on_cluster(workers: int | None = None, *, scheduler_file: str | Path | None = None) -> Engine:
    """An engine of Dask workers, which are told what to fit and read and write themselves.

    Workers that die are replaced, and what they had in hand is fitted by others. On this machine
    each worker has a GPU of its own, or else a core; nothing listens but on the loopback device.
    This process starts no device of JAX.

    - `workers`: how many processes to start here; by default one a GPU, or else one a core.
    - `scheduler_file`: of a cluster that is there already, as `dask scheduler --scheduler-file`
        writes it; instead of `workers`. Its workers need the store and the folder of the run under
        the same paths, and should have one thread each.

    Warns where workers must share GPUs or cores.

    **Raises:** `ImportError` without Dask; `ValueError` for a number below 1, both arguments, or a
    file that is not there.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "a cluster needs Dask: pip install 'diffdeblend[survey]'", name="distributed"
        ) from error
    if scheduler_file is not None:
        if workers is not None:
            raise ValueError("`workers` are those of `scheduler_file` where that is given.")
        if not Path(scheduler_file).is_file():
            raise ValueError(f"`scheduler_file`: {str(scheduler_file)!r} is not there.")
        return partial(_external, Path(scheduler_file))
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ValueError(f"`workers` must be an integer from 1; got {workers!r}.")
    return partial(_local, places(workers))


@contextmanager
def _local(own: Sequence[Place]) -> Iterator[Workers]:
    """Workers of our own on this machine, which end with us, whatever becomes of us."""
    from dask import config
    from distributed import Client, Nanny, Scheduler, SpecCluster

    quiet: Any = logging.CRITICAL
    here: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard": False}
    # Whether a stamp is to blame is judged in `dispatch`, which must hear of each death.
    scheduler = {"cls": Scheduler, "options": {**here, "port": 0, "allowed_failures": 0}}
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                **here,
                "nthreads": 1,
                # Dask's limit would pause workers for what XLA keeps.
                "memory_limit": None,
                "env": dict(place.environment),
                "silence_logs": quiet,
            },
        }
        for number, place in enumerate(own)
    }
    # What must be set before the first import: the same for all.
    common = dict(own[0].environment.items())
    for place in own:
        common = dict(common.items() & place.environment.items())
    # To give memory back at once, and fetch it again for the next batch, takes a tenth of the time.
    before = {
        **config.get("distributed.nanny.pre-spawn-environ"),
        "MALLOC_TRIM_THRESHOLD_": None,
    }
    with ExitStack() as stack:
        # Nannies set variables in this process, too.
        stack.callback(_restore, dict(os.environ))
        stack.enter_context(
            config.set(
                {
                    "distributed.nanny.pre-spawn-environ": {**before, **common},
                    # Else a worker that takes longer to start again would be given up for good.
                    "distributed.deploy.lost-worker-timeout": "1 day",
                }
            )
        )
        programs = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="diffdeblend-", ignore_cleanup_errors=True)
        )
        cluster: Any = stack.enter_context(
            SpecCluster(workers, scheduler=scheduler, silence_logs=quiet)
        )
        client: Any = stack.enter_context(Client(cluster, set_as_default=False))
        cores = {number: place.cores for number, place in enumerate(own)}
        # Workers that are started again must not compile again.
        yield stack.enter_context(_connected(client, cores, programs))


@contextmanager
def _external(scheduler_file: Path) -> Iterator[Workers]:
    """Workers that others have started."""
    from distributed import Client

    client: Any
    with (
        Client(scheduler_file=str(scheduler_file), set_as_default=False) as client,
        _connected(client, None, None) as workers,
    ):
        yield workers


@contextmanager
def _connected(client: Any, cores: Any, programs: str | None) -> Iterator[Workers]:
    """Workers with our plugin, as long as we are here."""
    topic = f"diffdeblend-{uuid.uuid4().hex}"
    client.register_plugin(make_plugin(cores), name=topic)
    pool = _DaskWorkers(client, topic, programs)
    try:
        client.subscribe_topic(topic, pool.hear)
        yield pool
    finally:
        pool.cancel()
        if cores is None:
            client.unregister_worker_plugin(topic)


class _DaskWorkers:
    """The workers of a client: `Workers` for a run, and a `Pool` for `dispatch`."""

    def __init__(self, client: Any, topic: str, programs: str | None):
        self._client, self._topic, self._programs = client, topic, programs
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flying: dict[str, tuple[Piece, Any]] = {}
        self._size, self._counted = 1, -_COUNTED
        # Those of another's cluster may have to wait for a machine, for hours.
        self._patience = float("inf") if programs is None else _PATIENCE
        self._seen = time.monotonic()
        self._sent = 0
        self._job: Job | None = None

    def choose(self, store: str, settings: FitSettings) -> Programs:
        return self._client.submit(choose_there, __version__, store, settings, pure=False).result()

    def fit(self, job: Job, runs: Iterable[Run]) -> Iterator[Done]:
        self._job = replace(job, cache=job.cache or self._programs)
        try:
            yield from dispatch(runs, self)
        finally:
            self.cancel()

    def size(self) -> int:
        now = time.monotonic()
        if now - self._counted > _COUNTED:
            self._size, self._counted = len(self._client.nthreads()), now
        if self._size:
            self._seen = now
        elif now - self._seen > self._patience:
            raise ChildProcessError(f"no worker has come back for {self._patience:.0f} seconds.")
        return self._size

    def submit(self, piece: Piece) -> None:
        assert self._job is not None
        self._sent += 1
        key = f"fit_piece-{self._topic}-{self._sent}"
        future = self._client.submit(
            fit_piece, __version__, self._job, piece, self._topic, key=key, pure=False
        )
        self._flying[key] = piece, future
        future.add_done_callback(self._events.put)

    def next(self, timeout: float) -> Event | None:
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, Event):
            return event
        piece, future = self._flying.pop(event.key, (None, None))
        return None if piece is None else _ended(piece, future)

    def look(self, run: Run) -> Done | None:
        assert self._job is not None
        return look(Path(self._job.out), run)

    def hear(self, event: tuple[float, Any]) -> None:
        """A part is on the disk, says a worker."""
        self._events.put(Event(None, (of_message(event[1]),)))

    def cancel(self) -> None:
        """Have what is under way given up."""
        futures = [future for _, future in self._flying.values()]
        self._flying.clear()
        if futures:
            self._client.cancel(futures)


def _ended(piece: Piece, future: Any) -> Event:
    """How a piece ended."""
    from distributed.scheduler import KilledWorker

    try:
        return Event(piece, tuple(future.result()))
    except KilledWorker as dead:
        return Event(piece, deaths=dead.allowed_failures + 1)
    except CancelledError:
        return Event(piece, error=ConnectionError("the scheduler of the cluster is gone."))
    except Exception as error:
        return Event(piece, error=error)


def _restore(environment: dict[str, str]) -> None:
    """The variables as they were."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
