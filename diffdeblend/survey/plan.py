"""Which stamps are still to be fitted, and in which batches."""

from collections.abc import Iterable, Iterator

from diffdeblend.survey.parts import Run


def gaps(done: Iterable[Run], of: Run) -> Iterator[Run]:
    """The stamps of a run that none of those done holds; `done` in the order of their starts."""
    reached = of.start
    for run in done:
        if run.start >= of.stop:
            break
        if run.start > reached:
            yield Run(reached, run.start)
        reached = max(reached, run.stop)
    if reached < of.stop:
        yield Run(reached, of.stop)


def batches(runs: Iterable[Run], size: int) -> Iterator[Run]:
    """Runs cut at the multiples of `size`."""
    for run in runs:
        start = run.start
        while start < run.stop:
            stop = min(run.stop, (start // size + 1) * size)
            yield Run(start, stop)
            start = stop


def shard_of(n: int, number: int, of: int, size: int) -> Run:
    """The share of `n` stamps that job `number` (from 1) of `of` has: whole batches of `size`.

    **Raises:** `ValueError` for a number that is not between 1 and `of`.
    """
    if not 1 <= number <= of:
        raise ValueError(f"`shard` must be i/n with i between 1 and n; got {number}/{of}.")
    n_batches = -(-n // size)
    start, stop = ((n_batches * k // of) * size for k in (number - 1, number))
    return Run(min(start, n), min(stop, n))


def limited(runs: Iterable[Run], most: int | None) -> Iterator[Run]:
    """The first of these, until they hold at least `most` stamps; all for None."""
    left = most
    for run in runs:
        if left is not None and left <= 0:
            return
        yield run
        left = None if left is None else left - len(run)
