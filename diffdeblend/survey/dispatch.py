"""Batches to workers that may die: handed out piece by piece, and cut where one kills its worker.

Knows of no cluster: a `Pool` is one. One loop, which holds no more than what is under way.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from diffdeblend.survey.fit_runs import Done
from diffdeblend.survey.parts import Run

# Pieces that a worker has: one that it fits, one to go on with.
_FLIGHT = 2
# Batches of a piece, and the seconds that it should take: long beside what handing it out costs,
# short beside a run.
_MOST, _SECONDS = 16, 10.0
# How many stamps die together is found by cutting into so many: each death costs a new process.
_CUT = 8
# A stamp is given up when so many processes died of it, the last with nothing else in hand.
_DEATHS = 3
# Then its row is written without a fit; if that is the death of so many in all, the run stops.
_MOST_DEATHS = 8
# Seconds after which to look how many workers there are.
_LOOK = 2.0


@dataclass(frozen=True)
class Piece:
    """Batches that a worker is given together.

    - `deaths`: processes that died with these stamps in hand.
    - `alone`: nothing else runs meanwhile, so that it is clear who is to blame.
    - `lost`: not to be fitted; the stamp becomes a row that says so.
    """

    runs: tuple[Run, ...]
    deaths: int = 0
    alone: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened in a pool.

    - `piece`: that came back; None if it goes on.
    - `done`: batches whose parts are on the disk; of a piece that ended well, all of its own.
    - `deaths`: processes that died of the piece. `error`: what it raised.
    """

    piece: Piece | None
    done: tuple[Done, ...] = ()
    deaths: int = 0
    error: BaseException | None = None


class Pool(Protocol):
    """Processes that fit."""

    def size(self) -> int:
        """How many there are now."""
        ...

    def submit(self, piece: Piece) -> None:
        """Have a piece done; `next` tells how that ended."""
        ...

    def next(self, timeout: float) -> Event | None:
        """What happened next; None if nothing did for so many seconds."""
        ...

    def look(self, run: Run) -> Done | None:
        """The part of a batch as it is on the disk; None if it is not."""
        ...


def dispatch(runs: Iterable[Run], pool: Pool) -> Iterator[Done]:
    """Have batches fitted; tell of each once.

    A piece whose worker died is cut, down to the one stamp, which becomes a row with the status
    `killed_worker`.

    **Raises:** what a piece raised, after what was under way has ended.
    """
    ahead = _Ahead(runs)
    again: deque[Piece] = deque()
    suspects: deque[Piece] = deque()
    flying: set[Piece] = set()
    open_runs: set[Run] = set()
    pace = _Pace()
    failure: BaseException | None = None

    def following(workers: int) -> Piece | None:
        if any(piece.alone for piece in flying):
            return None
        if again:
            return again.popleft()
        fresh = ahead.take(pace.batches(ahead, workers))
        if fresh:
            return Piece(fresh)
        return suspects.popleft() if suspects and not flying else None

    while True:
        workers = max(1, pool.size())
        while failure is None and len(flying) < _FLIGHT * workers:
            piece = following(workers)
            if piece is None:
                break
            open_runs.update(piece.runs)
            flying.add(piece)
            pool.submit(piece)
        if not flying:
            break
        event = pool.next(_LOOK)
        if event is None:
            continue
        told = list(event.done)
        piece = event.piece
        if piece is not None:
            flying.discard(piece)
            if event.error is not None:
                failure = failure or event.error
            elif event.deaths:
                told = [done for run in piece.runs if (done := pool.look(run)) is not None]
        for done in told:
            # The news of a batch may come twice, and after the end of its piece.
            if done.run in open_runs:
                open_runs.discard(done.run)
                pace.note(done)
                yield done
        if piece is not None:
            left = [run for run in piece.runs if run in open_runs]
            open_runs.difference_update(left)
            if piece.deaths >= _MOST_DEATHS and left and failure is None:
                failure = ChildProcessError(
                    f"stamp {left[0].start} of the store kills each process that reads it."
                )
            elif left and event.deaths:
                for smaller in _after_death(piece, left, event.deaths):
                    (suspects if smaller.alone else again).append(smaller)
            elif left and failure is None:
                failure = ChildProcessError(
                    f"stamps {left[0].start} to {left[0].stop} were not fitted."
                )
    if failure is not None:
        raise failure


def _after_death(piece: Piece, left: list[Run], deaths: int) -> Iterator[Piece]:
    """What to try instead of a piece whose worker died, `left` being not finished."""
    deaths += piece.deaths
    first = left[0]
    if len(left) > 1:
        yield from (Piece((run,), deaths) for run in left)
    elif len(first) == 1:
        yield Piece(
            (first,), deaths, alone=True, lost=piece.lost or (piece.alone and deaths >= _DEATHS)
        )
    elif deaths == 1:
        # Once may be chance.
        yield Piece((first,), deaths)
    else:
        step = -(-len(first) // _CUT)
        for start in range(first.start, first.stop, step):
            yield Piece((Run(start, min(start + step, first.stop)),), deaths)


class _Ahead:
    """Runs still to come, of which it looks no further ahead than need be."""

    def __init__(self, runs: Iterable[Run]):
        self._coming, self._seen = iter(runs), deque[Run]()

    def count(self, most: int) -> int:
        """How many there are, or `most` if more."""
        self._seen.extend(islice(self._coming, max(0, most - len(self._seen))))
        return min(most, len(self._seen))

    def first(self) -> Run:
        """The next; there must be one."""
        return self._seen[0]

    def take(self, count: int) -> tuple[Run, ...]:
        """The next of them, fewer at the end."""
        return tuple(self._seen.popleft() for _ in range(self.count(count)))


class _Pace:
    """How long stamps take, and how many batches make a piece."""

    def __init__(self):
        self._seconds: float | None = None

    def note(self, done: Done) -> None:
        """Learn from a batch; the first ones compile, and are forgotten."""
        if "fit" not in done.seconds:
            return
        own = (done.seconds["fit"] + done.seconds.get("wait", 0.0)) / len(done.run)
        self._seconds = own if self._seconds is None else 0.7 * self._seconds + 0.3 * own

    def batches(self, ahead: _Ahead, workers: int) -> int:
        """Batches of the next piece: fewer towards the end, so that all end together."""
        left = ahead.count(_MOST * _FLIGHT * workers)
        if left == 0 or self._seconds is None:
            return 1
        fitting = _SECONDS / max(self._seconds * len(ahead.first()), 1e-9)
        return max(1, min(_MOST, int(fitting), left // (_FLIGHT * workers)))
