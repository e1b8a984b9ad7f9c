"""Parts of a run on disk: one Parquet file a batch, named by the rows that it holds."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdeblend.files import whole_file

if TYPE_CHECKING:
    import pyarrow

_NAME = re.compile(r"part-(\d{12})-(\d{12})\.parquet")
# Rows whose parts share a folder: file systems dislike folders of millions.
_FOLDER = 1 << 20


@dataclass(frozen=True, order=True)
class Run:
    """The stamps from `start` up to `stop`, by their numbers in the store."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def part_path(out: Path, run: Run) -> Path:
    """Where the part of these stamps is, or will be."""
    name = f"part-{run.start:012d}-{run.stop:012d}.parquet"
    return out / "parts" / f"{run.start // _FOLDER:06d}" / name


def write_part(table: "pyarrow.Table", out: Path, run: Run) -> Path:
    """A finished part: it is there whole, and on the disk, or not at all."""
    import pyarrow.parquet as pq

    path = part_path(out, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, sync=True) as temporary:
        # A dictionary of numbers that are all different only takes room.
        words: Any = [name for name in ("status", "error", "model") if name in table.column_names]
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=words,
            write_page_checksum=True,
        )
    return path


def read_part(path: Path) -> "pyarrow.Table":
    """A part, its checksums checked.

    **Raises:** `ValueError` if the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the part {path} is damaged: {error}") from error


def list_parts(out: Path) -> Iterator[tuple[Run, Path]]:
    """All parts that are there, in the order of their stamps."""
    for folder in sorted((out / "parts").glob("[0-9]*")):
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is not None:
                yield Run(int(match[1]), int(match[2])), path


def is_whole(run: Run, path: Path) -> bool:
    """Whether a part has its end and as many rows as its name says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows == len(run)
    except (pa.ArrowException, OSError):
        return False
