"""Which stage a command is in, how long each took, and how much of it was compiling."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, Protocol

Interval = tuple[float, float]

# Back to the first column, and away with what stands there.
_CLEAR = "\r\x1b[K"


class Progress:
    """Stages one after another, a line each as they end. Loads nothing.

    - `out`: stream of text to show them on; None for nowhere.
    """

    def __init__(self, out: Any = None):
        self._out = out
        self._stages: list[tuple[str, Interval]] = []
        self._current: tuple[str, float] | None = None
        self._compiled: list[Interval] = []

    def begin(self, stage: str) -> None:
        """End the stage before, if there is one, and begin another."""
        self.end()
        self._current = (stage, time.perf_counter())
        if self._out is not None and self._out.isatty():
            print(f"  {stage} ...", end="", file=self._out, flush=True)

    def end(self) -> None:
        """End the stage, if there is one."""
        if self._current is None:
            return
        stage, begun = self._current
        now = time.perf_counter()
        self._stages.append((stage, (begun, now)))
        self._current = None
        if self._out is not None:
            compiling = covered(self._compiled, (begun, now))
            note = f", {compiling:.1f} s of it compiling" if compiling > 0.05 else ""
            # On a terminal over the unfinished line of `begin`.
            start = _CLEAR if self._out.isatty() else ""
            print(f"{start}  {stage:<10} {now - begun:6.2f} s{note}", file=self._out, flush=True)

    def say(self, text: str) -> None:
        """A line between those of the stages: a warning or an error. On stderr, even if quiet."""
        start = _CLEAR if sys.stderr.isatty() else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of every compilation by JAX within the block."""
        from jax import monitoring

        def hear(event: str, duration_secs: float, **_: Any) -> None:
            if event.startswith("/jax/core/compile/"):
                now = time.perf_counter()
                self._compiled.append((now - duration_secs, now))

        monitoring.register_event_duration_secs_listener(hear)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(hear)

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage without compiling, in their order; then `compile`; then `total`.

        Tracing counts as compiling. A stage that comes twice counts as one.
        """
        found: dict[str, float] = {}
        compiling = 0.0
        for stage, (begun, ended) in self._stages:
            share = covered(self._compiled, (begun, ended))
            found[stage] = found.get(stage, 0.0) + ended - begun - share
            compiling += share
        rounded = {stage: round(seconds, 3) for stage, seconds in found.items()}
        total = sum(found.values()) + compiling
        return rounded | {"compile": round(compiling, 3), "total": round(total, 3)}


def covered(intervals: list[Interval], within: Interval) -> float:
    """How much of an interval others cover. They may overlap: JAX traces functions in functions."""
    total, reached = 0.0, within[0]
    for begun, ended in sorted(intervals):
        begun, ended = max(begun, reached), min(ended, within[1])
        if ended > begun:
            total += ended - begun
            reached = ended
    return total


def one_line(error: BaseException) -> str:
    """What an exception or a warning says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def bar(total: int, out: Any = None) -> Any:
    """A bar with blends a second and the time left: a function of how many are finished.

    - `out`: stream of text; None for nowhere, and nothing is shown where it is no terminal.

    Called with None it ends.
    """
    shown = _bar_of(total, "blend", out)

    def report(finished: int | None) -> None:
        if finished is None:
            shown.close()
        else:
            shown.update(finished - shown.n)

    return report


def _bar_of(total: int | None, unit: str, out: Any) -> Any:
    """A bar on a stream; none where that is no terminal."""
    from tqdm import tqdm

    hidden = True if out is None else None
    return tqdm(total=total, unit=unit, file=out, dynamic_ncols=True, disable=hidden)


def blend_bar(total: int | None = None, out: Any = None) -> Any:
    """A bar with blends a second and the time left, to be given to `fit_batch` as `report`.

    - `total`: fits to be made, where that is known better than `fit_batch` can.
    - `out`: stream of text; standard error without.
    """
    from tqdm import tqdm

    bar = tqdm(total=total, unit="blend", file=out, dynamic_ncols=True)

    def report(finished: int, needed: int) -> None:
        # Second fits of some blends are found to be needed on the way.
        bar.total = needed if total is None else max(total, needed)
        bar.update(finished - bar.n)
        if finished >= needed:
            bar.refresh()

    return report


def step_bar(total: int, chunk: int, out: Any = None) -> Any:
    """A bar with steps a second, the time left and losses: `report(step, loss, validation_loss)`.

    - `chunk`: steps between two reports. A training that goes on does not begin at 0.
    - `out`: stream of text; None for nowhere, and nothing is shown where it is no terminal.

    Called with None it ends.
    """
    shown = _bar_of(total, "step", out)
    begun = False

    def report(step: int | None, loss: float = 0.0, validation_loss: float = 0.0) -> None:
        nonlocal begun
        if step is None:
            shown.close()
            return
        if not begun:
            # What was done by a run before this one says nothing of how fast this one is.
            shown.initial = shown.n = max(0, step - chunk)
            begun = True
        shown.set_postfix_str(f"loss {loss:.4g}, held out {validation_loss:.4g}", refresh=False)
        shown.update(step - shown.n)

    return report


class FinishedBatch(Protocol):
    """What `survey_bar` is told of: stamps, and how many of them became what."""

    @property
    def run(self) -> Sized:
        """The stamps of the batch."""
        ...

    @property
    def status(self) -> Mapping[str, int]:
        """How many of its stamps have each status."""
        ...


def survey_bar(total: int | None = None, out: Any = None) -> Any:
    """A bar with stamps a second, the time left and failures by kind: `report(batch, wanted)`.

    - `total`: stamps of the whole run, those that were finished before it went on among them; None
        for those alone that are wanted now.
    - `out`: stream of text; None for nowhere, and nothing is shown where it is no terminal.

    `report` is called with each finished batch and the number of stamps that are wanted now, as
    `fit_survey` does. Called with None it ends.
    """
    shown = _bar_of(total, "stamp", out)
    begun = False
    failed: Counter[str] = Counter()

    def report(batch: FinishedBatch | None, wanted: int = 0) -> None:
        nonlocal begun
        if batch is None:
            shown.close()
            return
        if not begun:
            shown.total = wanted if total is None else total
            # What was done by a run before this one says nothing of how fast this one is.
            shown.initial = shown.n = max(0, shown.total - wanted)
            shown.refresh()
            begun = True
        failed.update({str(kind): n for kind, n in batch.status.items() if str(kind) != "ok"})
        told = ", ".join(f"{kind} {n}" for kind, n in sorted(failed.items()))
        shown.set_postfix_str(told, refresh=False)
        shown.update(len(batch.run))

    return report
