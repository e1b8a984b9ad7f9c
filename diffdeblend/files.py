"""How files are written: whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard


@contextmanager
def whole_file(path: str | os.PathLike, *, sync: bool = False, new: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends without an error.

    A reader never sees half a file, and what stood at `path` stays if the block fails.

    - `sync`: wait until it is on the disk, so that it outlives a loss of power.
    - `new`: of several who write at once one wins.

    **Raises:** with `new`, `FileExistsError` if there is such a file by then.
    """
    path = Path(path)
    # In the same folder, as a rename is atomic only within one file system; with the same
    # suffixes, as they choose the compression.
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        if sync:
            _sync(temporary)
        if new:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
        if sync:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    """A second name for a file, if no other has that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # Some network file systems have no second names.
        if path.exists():
            raise FileExistsError(f"{str(path)!r} is there.") from None
        os.replace(temporary, path)


def _sync(path: Path) -> None:
    """Of a folder, its list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_path(value: object) -> TypeGuard[str | os.PathLike]:
    """Whether a value is one path."""
    return isinstance(value, str | os.PathLike)


def are_paths(value: object) -> bool:
    """Whether a value is one path or several."""
    several = isinstance(value, list | tuple) and len(value) > 0 and all(map(is_path, value))
    return is_path(value) or several


def as_paths(value: Any) -> list[Path]:
    """One path or several as a list.

    **Raises:** `ValueError` if they are no paths, or none.
    """
    if not are_paths(value):
        raise ValueError(f"`paths` must be a path or a list of paths; got {value!r}.")
    return [Path(value)] if is_path(value) else [Path(path) for path in value]
