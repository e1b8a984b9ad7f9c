"""Parts of a run on disk: one Parquet file a batch, named by the rows that it holds."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdeblend.deblend.catalog import versions
from diffdeblend.files import whole_file

if TYPE_CHECKING:
    import pyarrow

FORMAT = "diffdeblend survey part 1"
_NAME = re.compile(r"part-(\d{12})-(\d{12})\.parquet")
# Rows whose parts share a folder: file systems dislike folders of millions.
_FOLDER = 1 << 20
# Columns without which a file is none of ours; columns of words.
_NEEDED = ("id", "row", "status")
_WORDS = ("status", "error")
_AGAIN = "remove it and run fit-survey again, which makes it anew"


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


def part_about(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a part says of its run: from what and how it was made; nothing of where or when.

    Equal values so make equal files, whichever machine and run they come from.
    """
    return {
        "store_sha256": manifest["store"]["sha256"],
        "settings_sha256": manifest["settings_sha256"],
        "versions": json.dumps(versions(), sort_keys=True),
    }


def write_part(
    table: "pyarrow.Table", out: Path, run: Run, about: Mapping[str, str] | None = None
) -> Path:
    """A finished part: it is there whole, and on the disk, or not at all.

    - `about`: what the file says of its run, see `part_about`.
    """
    import pyarrow.parquet as pq

    path = part_path(out, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = table.schema.metadata or {}
    told = {"format": FORMAT, **(about or {})}
    metadata = known | {key.encode(): value.encode() for key, value in told.items()}
    with whole_file(path, sync=True) as temporary:
        # A dictionary of numbers that are all different only takes room.
        words: Any = [name for name in _WORDS if name in table.column_names]
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            use_dictionary=words,
            write_page_checksum=True,
        )
    return path


def read_part(
    path: Path, run: Run | None = None, columns: Sequence[str] | None = None
) -> "pyarrow.Table":
    """A part, its checksums checked.

    - `run`: the stamps that its name says it holds. `columns`: names of some of them.

    **Raises:** `ValueError` if the file is damaged, is no part, or holds other stamps.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        chosen = None if columns is None else [*columns]
        # Not a data set: folders and names are no columns.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            missing = [name for name in (*_NEEDED, *(chosen or ())) if name not in names]
            if missing:
                raise ValueError(f"it has no column {missing[0]!r}")
            table = file.read(chosen)
    except (pa.ArrowException, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"the part {str(path)!r} is damaged: {text}; {_AGAIN}") from error
    if run is not None and table.num_rows != len(run):
        raise ValueError(
            f"the part {str(path)!r} is damaged: it has {table.num_rows} rows, not {len(run)}; "
            f"{_AGAIN}"
        )
    return table


def list_parts(out: Path) -> Iterator[tuple[Run, Path]]:
    """All parts that are there, in the order of their stamps."""
    for folder in sorted((out / "parts").glob("[0-9]*")):
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is not None:
                yield Run(int(match[1]), int(match[2])), path


def is_whole(run: Run, path: Path) -> bool:
    """Whether a part has its end, our columns and as many rows as its name says.

    Its values are not read: `read_part` checks them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            return file.metadata.num_rows == len(run) and set(_NEEDED) <= set(names)
    except (pa.ArrowException, OSError, ValueError):
        return False
