"""What of a run is on the disk already, and what was left there by processes that died."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from diffdeblend.survey.fit_runs import Done
from diffdeblend.survey.parts import Run, is_whole, list_parts, part_path, read_part

# Seconds after which nobody still writes to a temporary file: those of other shards are younger.
_OLD = 86400.0


def finished(out: Path, own: Run) -> Iterator[Run]:
    """The parts that are there whole, in the order of their stamps.

    A part that is not whole is taken away, as it would stay beside the new one; and one whose
    stamps another holds, as each stamp must be there once. Only parts with stamps of `own` are
    looked into: the others are another shard's.
    """
    reached = 0
    for run, path in list_parts(out):
        if run.stop <= own.start or run.start >= own.stop:
            continue
        if run.start < reached or not is_whole(run, path):
            path.unlink(missing_ok=True)
            continue
        reached = run.stop
        yield run


def look(out: Path, run: Run) -> Done | None:
    """A batch as its part tells it; None if it is not there whole."""
    path = part_path(out, run)
    if not path.exists():
        return None
    try:
        status = read_part(path, run, ["status"]).column("status")
    except ValueError:
        return None
    return Done(run, dict(Counter(status.to_pylist())), {})


def sweep(out: Path) -> int:
    """Remove what writers that were killed left behind, more than a day ago; returns how many."""
    before = time.time() - _OLD
    count = 0
    for folder in (out, *(out / "parts").glob("[0-9]*")):
        # As `whole_file` names them: a dot and 32 hexadecimal digits.
        for path in folder.glob(f".{'[0-9a-f]' * 32}-*"):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                # Its writer has ended, or another shard sweeps.
                continue
    return count
