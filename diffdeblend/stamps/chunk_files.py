"""The files of a Zarr array: all there and none cut short, seen without reading the pixels."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

# In a shard's index: a chunk that is not there.
_ABSENT = 2**64 - 1
# Bytes of a checksum.
_SUM = 4
# Files that a thread looks at one after the other, and that are waited for: all that is in memory.
_TOGETHER, _AHEAD = 64, 1024
# Network file systems answer many at a time.
_THREADS = 8
# Files without checksums are read themselves, if there are not many and they are small.
_FEW, _SMALL = 256, 1 << 20


@dataclass(frozen=True)
class ChunkFiles:
    """How an array lies in files, of which each is a chunk or a shard of chunks.

    - `name`: of the array, for messages. `folder`: where its files are.
    - `array`: of zarr. `rows`: how many count on the first axis.
    - `files`: numbers of files along each axis. `outer`, `inner`: shape of a file and of a chunk.
    - `sharded`, `at_end`: whether there are indices, and where in a file. `summed`: whether every
        chunk ends in a checksum. `plain`: bytes of a chunk that is not compressed, else None.
    """

    name: str
    folder: Path
    array: Any
    rows: int
    files: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    sharded: bool
    at_end: bool
    summed: bool
    plain: int | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the part of the array that counts."""
        return self.rows, *self.array.shape[1:]

    @property
    def n_files(self) -> int:
        """How many files there must be."""
        return int(np.prod(self.files, dtype=np.int64))

    def marks(self) -> Iterator[bytes]:
        """What tells the content of each file from another: lengths of its chunks, checksums.

        Files are opened in a few threads; memory does not grow with their number.

        **Raises:** `ValueError` for a file that is missing or cut short.
        """
        coordinates = product(*map(range, self.files))
        with ThreadPoolExecutor(_THREADS) as threads:
            while some := list(islice(coordinates, _AHEAD)):
                parts = [some[k : k + _TOGETHER] for k in range(0, len(some), _TOGETHER)]
                yield from threads.map(self._marks_of, parts)

    def _marks_of(self, some: list[tuple[int, ...]]) -> bytes:
        return b"".join(self._mark_of(place) for place in some)

    def _mark_of(self, place: tuple[int, ...]) -> bytes:
        key = self.array.metadata.encode_chunk_key(place)
        try:
            handle = os.open(self.folder / key, os.O_RDONLY)
        except FileNotFoundError:
            raise self._wrong(
                place, "is missing. Chunks that are all fill value must be written too"
            ) from None
        except OSError as error:
            raise self._wrong(place, f"cannot be opened: {error.strerror}") from error
        try:
            size = os.fstat(handle).st_size
            if self.sharded:
                return self._mark_of_shard(handle, size, place)
            return self._mark_of_chunk(handle, size, place)
        finally:
            os.close(handle)

    def _mark_of_chunk(self, handle: int, size: int, place: tuple[int, ...]) -> bytes:
        if size <= (_SUM if self.summed else 0) or self.plain not in (None, size):
            raise self._wrong(place, f"is cut short: it has {size} bytes")
        mark = size.to_bytes(8, "little")
        if self.summed:
            return mark + os.pread(handle, _SUM, size - _SUM)
        return mark + self._content(handle, size)

    def _mark_of_shard(self, handle: int, size: int, place: tuple[int, ...]) -> bytes:
        chunks = tuple(o // i for o, i in zip(self.outer, self.inner, strict=True))
        length = 16 * int(np.prod(chunks)) + _SUM
        first, last = (0, size - length) if self.at_end else (length, size)
        if size <= length:
            raise self._wrong(place, f"is cut short: it has {size} bytes")
        raw = os.pread(handle, length, last if self.at_end else 0)
        index = np.frombuffer(raw[:-_SUM], "<u8").reshape(*chunks, 2)
        # Chunks beyond the end of the array are not there.
        own = tuple(
            slice(min(n, -(-(size - c * o) // i)))
            for n, size, c, o, i in zip(
                chunks, self.sizes, place, self.outer, self.inner, strict=True
            )
        )
        offset, length_of = index[own].reshape(-1, 2).T
        if (offset == _ABSENT).any():
            raise self._wrong(
                place,
                f"lacks {int((offset == _ABSENT).sum())} of {len(offset)} chunks. Chunks that are "
                "all fill value must be written too",
            )
        # Not their sum, which could overflow.
        least = _SUM + 1 if self.summed else 1
        fits = (offset >= first) & (offset <= last) & (length_of >= least)
        if not (fits & (length_of <= np.where(fits, last - offset, 0))).all():
            raise self._wrong(place, f"is cut short or damaged: it has {size} bytes")
        mark = length_of.tobytes()
        if self.summed:
            ends = (offset + length_of).tolist()
            return mark + b"".join(os.pread(handle, _SUM, end - _SUM) for end in ends)
        return mark + self._content(handle, size)

    def _content(self, handle: int, size: int) -> bytes:
        if self.n_files > _FEW or size > _SMALL:
            return b""
        return hashlib.sha256(os.pread(handle, size, 0)).digest()

    def _wrong(self, place: tuple[int, ...], what: str) -> ValueError:
        key = self.array.metadata.encode_chunk_key(place)
        start = place[0] * self.outer[0]
        stop = min(start + self.outer[0], self.rows)
        return ValueError(
            f"file {key!r} of array `{self.name}`, for rows {start} to {stop - 1}, {what}."
        )


def chunk_files(name: str, array: Any, folder: Path, rows: int) -> ChunkFiles:
    """How an array lies in files.

    - `folder`: of the group that it is in. `rows`: how many of its rows count.
    """
    codecs = array.metadata.to_dict()["codecs"]
    first: Any = codecs[0]["configuration"] if codecs[0]["name"] == "sharding_indexed" else None
    index = [codec["name"] for codec in first["index_codecs"]] if first else []
    outer = tuple(array.shards or array.chunks)
    within = first["codecs"] if first else codecs
    names = [codec["name"] for codec in within]
    plain = None if first or names != ["bytes"] else int(np.prod(outer)) * array.dtype.itemsize
    # Indices that are packed in another way are left alone.
    sharded = len(codecs) == 1 and index == ["bytes", "crc32c"]
    if sharded and first["index_codecs"][0].get("configuration", {}).get("endian") == "big":
        sharded = False
    return ChunkFiles(
        name=name,
        folder=folder / name,
        array=array,
        rows=rows,
        files=tuple(-(-n // o) for n, o in zip((rows, *array.shape[1:]), outer, strict=True)),
        outer=outer,
        inner=tuple(array.chunks),
        sharded=sharded,
        at_end=not first or first.get("index_location", "end") == "end",
        summed=names[-1] == "crc32c" and (sharded or not first),
        plain=plain,
    )
