"""Stores of stamps, written shard by shard."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from diffdeblend.stamps.check_store import check_format
from diffdeblend.stamps.layout import (
    CHUNK,
    FORMAT,
    OPTIONAL,
    PIXELS,
    PSF,
    REQUIRED,
    SHARD,
    SMALL,
    TRUTH,
    VERSION,
)
from diffdeblend.stamps.stamps import Stamps, StampsHeader

# Sources of a stamp that chunks have room for, so that a store can be widened in place.
_ROOM = 32
# Images of PSFs that are known again.
_KNOWN = 4096
# What all stamps of a store must agree in.
_SHARED = ("bands", "pixel_scale", "zero_points", "unit", "oversampling", "noise_correlation")


class StampWriter:
    """Writes a store of stamps that may be larger than memory, a shard at a time.

    - `path`: of the Zarr folder, usually ending in `.zarr`.
    - `header`: what all stamps share. Its `n_stamps` and `most_sources` are not used.
    - `append`: go on with a store that is there, after its last finished stamp; if there is none,
        begin one.
    - `attributes`: more of the folder, JSON; kept with a new store.
    - `keep`: with `append`, how many of the stamps stay; by default all. The others are written
        over.

    Stamps count once they are `finished`, which is said last: a writing that is interrupted leaves
    a store that opens with what it has, and goes on with `append`. Ids are not compared here but
    when the store is opened.

    A context manager: on leaving it, also by an error, what was given is written.

    **Raises:** `ValueError` if there is something at `path`, or with `append` no store, or one of
    another header.
    """

    def __init__(
        self,
        path: str | Path,
        header: StampsHeader,
        *,
        append: bool = False,
        attributes: Mapping[str, Any] | None = None,
        keep: int | None = None,
    ):
        self.path = Path(path)
        shared = _shared(header)
        if self.path.exists() and not append:
            raise ValueError(f"`path`: {str(self.path)!r} exists; give another, or append=True.")
        more = dict(attributes or {})
        self._root = (
            _opened(self.path, shared)
            if self.path.exists()
            else _begun(self.path, {**shared, **more})
        )
        self._header = header
        self._finished = int(self._root.attrs["finished"])
        self._psfs = int(self._root.attrs["psfs"])
        if keep is not None and keep != self._finished:
            if not 0 <= keep < self._finished:
                raise ValueError(f"`keep` must be between 0 and {self._finished}; got {keep}.")
            self._finished = keep
            self._root.attrs["finished"] = keep
        if self._finished == 0:
            self._psfs = 0
            # Arrays that an interrupted writing began may be of other shapes.
            for name in (*REQUIRED, *OPTIONAL, PSF, TRUTH):
                if name in self._root:
                    del self._root[name]
        self._pending: list[Stamps] = []
        self._places: dict[bytes, int] = {}
        self._remember_psfs()

    @property
    def n_stamps(self) -> int:
        """How many stamps there are, with those that are not written yet."""
        return self._finished + sum(map(len, self._pending))

    def append(self, stamps: Stamps) -> None:
        """Add stamps; whole shards are written at once, the rest is kept.

        **Raises:** `ValueError` for stamps of other shapes, or other arrays, than the store.
        """
        if not len(stamps):
            return
        self._check(stamps)
        self._pending.append(stamps)
        # Up to the end of a shard, so that none is written twice.
        while (room := SHARD - self._finished % SHARD) <= sum(map(len, self._pending)):
            together = _joined(self._pending)
            self._write(together.part(0, room))
            rest = together.part(room, len(together))
            self._pending = [rest] if len(rest) else []

    def close(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Write what is left.

        - `attributes`: of the folder, JSON; they change with the last stamps.
        """
        more = dict(attributes or {})
        if self._pending:
            together = _joined(self._pending)
            self._pending = []
            self._write(together, more)
        elif more:
            self._root.attrs.update(more)

    def __enter__(self) -> "StampWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, stamps: Stamps) -> None:
        given = {name: values.shape[1:] for name, values in _columns(stamps)}
        given[PSF] = stamps.psf.shape[1:]
        if stamps.image.shape[1] != self._header.n_bands:
            raise ValueError(
                f"`stamps` have {stamps.image.shape[1]} bands, and the store "
                f"{self._header.n_bands}: {self._header.bands}."
            )
        if self._pending:
            there = {name: values.shape[1:] for name, values in _columns(self._pending[0])}
            there[PSF] = self._pending[0].psf.shape[1:]
        elif "image" in self._root:
            there = {name: self._root[name].shape[1:] for name in self._names()}
        else:
            return
        if set(given) != set(there):
            raise ValueError(
                f"`stamps` have the arrays {sorted(given)}, and the store {sorted(there)}."
            )
        for name, shape in given.items():
            # The number of sources may differ.
            own, other = (s[1:] if _by_source(name) else s for s in (shape, there[name]))
            if own != other:
                raise ValueError(
                    f"`stamps` have `{name}` of shape {('stamp', *shape)}, and the store "
                    f"{('stamp', *there[name])}."
                )

    def _names(self) -> Iterator[str]:
        yield from (name for name in (*REQUIRED, *OPTIONAL, PSF) if name in self._root)
        if TRUTH in self._root:
            yield from (f"{TRUTH}/{name}" for name in self._root[TRUTH])

    def _write(self, stamps: Stamps, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        import zarr

        # Chunks that are all fill value, too: one that is missing is then one that was lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            index, new = self._put_psfs(stamps)
            for name, values in _columns(replace(stamps, psf_index=index)):
                self._put(name, values, self._finished)
        # Last: a reader never sees half of a shard.
        self._finished, self._psfs = self._finished + len(stamps), self._psfs + len(new)
        self._places |= new
        while len(self._places) > _KNOWN:
            del self._places[next(iter(self._places))]
        self._root.attrs.update({"finished": self._finished, "psfs": self._psfs, **more})

    def _put(self, name: str, values: np.ndarray, at: int) -> None:
        """Rows from place `at` on, over what an interrupted writing may have left there."""
        stop = at + len(values)
        array = self._root[name] if name in self._root else self._create(name, values)
        shape = [stop, *values.shape[1:]]
        if _by_source(name):
            shape[1] = max(array.shape[1], shape[1])
        if array.shape != tuple(shape):
            array.resize(tuple(shape))
        if _by_source(name) and shape[1] > values.shape[1]:
            wide = np.full((len(values), *shape[1:]), array.fill_value, array.dtype)
            wide[:, : values.shape[1]] = values
            values = wide
        array[at:] = values

    def _create(self, name: str, values: np.ndarray) -> Any:
        from zarr.codecs import BloscCodec, Crc32cCodec

        shape = values.shape[1:]
        times = 1 if name in PIXELS and values.ndim > 2 else SMALL
        room = shape
        if _by_source(name):
            room = (-(-shape[0] // _ROOM) * _ROOM, *shape[1:])
        return self._root.create_array(
            name,
            shape=(0, *shape),
            dtype=values.dtype,
            chunks=(times * CHUNK, *room),
            shards=(times * SHARD, *room),
            compressors=(BloscCodec(cname="zstd", shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=np.nan if values.dtype.kind == "f" else 0,
        )

    def _put_psfs(self, stamps: Stamps) -> tuple[np.ndarray, dict[bytes, int]]:
        """The row in the store of the PSF of each stamp; and the rows of those that are new."""
        used, own = np.unique(stamps.psf_index, return_inverse=True)
        rows, images = [], []
        new: dict[bytes, int] = {}
        for image in (np.asarray(stamps.psf[k]) for k in used):
            mark = _mark(image)
            if mark not in self._places and mark not in new:
                new[mark] = self._psfs + len(new)
                images.append(image)
            rows.append(self._places[mark] if mark in self._places else new[mark])
        if images:
            self._put(PSF, np.stack(images), self._psfs)
        return np.array(rows, np.int64)[own.reshape(-1)], new

    def _remember_psfs(self) -> None:
        """The last PSFs of a store that is gone on with."""
        for start in range(max(0, self._psfs - _KNOWN), self._psfs, CHUNK):
            for k, image in enumerate(self._root[PSF][start : min(start + CHUNK, self._psfs)]):
                self._places[_mark(np.asarray(image))] = start + k


def write_stamps(stamps: Stamps, header: StampsHeader, path: str | Path) -> Path:
    """Stamps as a store of their own: a Zarr folder, sharded; see STORE.md.

    **Raises:** `ValueError` if there is something at `path`, or shapes do not agree.
    """
    with StampWriter(path, header) as writer:
        writer.append(stamps)
    return writer.path


def _by_source(name: str) -> bool:
    return name in ("position", "source_id") or name.startswith(f"{TRUTH}/")


def _columns(stamps: Stamps) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays with a row a stamp, by their names in a store."""
    for name in (*REQUIRED, *OPTIONAL):
        values = getattr(stamps, name)
        if values is not None:
            yield name, np.asarray(values)
    for name, values in stamps.truth.items():
        yield f"{TRUTH}/{name}", np.asarray(values)


def _mark(image: np.ndarray) -> bytes:
    content = np.ascontiguousarray(image, np.float32).tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def _joined(runs: list[Stamps]) -> Stamps:
    """Runs as one, with room for the most sources of any."""
    if len(runs) == 1:
        return runs[0]
    most = max(run.position.shape[1] for run in runs)
    before = np.cumsum([0, *(len(run.psf) for run in runs)])
    whole: dict[str, Any] = {}
    for name in (*REQUIRED, *OPTIONAL):
        values = [getattr(run, name) for run in runs]
        if values[0] is not None:
            whole[name] = np.concatenate(_widened(values, most) if _by_source(name) else values)
    index = [run.psf_index + n for run, n in zip(runs, before, strict=False)]
    whole["psf_index"] = np.concatenate(index)
    known = {f.name for f in fields(Stamps)}
    return replace(
        runs[0],
        **{name: values for name, values in whole.items() if name in known},
        psf=np.concatenate([run.psf for run in runs]),
        psf_key=np.arange(before[-1]),
        truth={
            name: np.concatenate(_widened([run.truth[name] for run in runs], most))
            for name in runs[0].truth
        },
    )


def _widened(values: list[np.ndarray], most: int) -> list[np.ndarray]:
    wide = []
    for array in values:
        missing = most - array.shape[1]
        fill = np.nan if array.dtype.kind == "f" else 0
        room = [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)]
        wide.append(np.pad(array, room, constant_values=fill) if missing else array)
    return wide


def _shared(header: StampsHeader) -> dict[str, Any]:
    found = {name: getattr(header, name) for name in _SHARED}
    # As JSON has them.
    return json.loads(json.dumps(found))


def _begun(path: Path, attributes: dict[str, Any]) -> Any:
    import zarr

    root: Any = zarr.open_group(str(path), mode="w-", zarr_format=3)
    head = {"format": FORMAT, "version": VERSION, "finished": 0, "psfs": 0}
    root.attrs.update({**head, **attributes})
    return root


def _opened(path: Path, shared: dict[str, Any]) -> Any:
    root = check_format(path, mode="r+")
    attributes = dict(root.attrs)
    for name, value in shared.items():
        if attributes.get(name) != value:
            if name == "noise_correlation":
                raise ValueError(f"`header` has another `{name}` than the store at {str(path)!r}.")
            raise ValueError(
                f"`header` has `{name}` {value!r}, and the store at {str(path)!r} "
                f"{attributes.get(name)!r}."
            )
    if "finished" not in attributes or "psfs" not in attributes:
        raise ValueError(
            f"`path`: {str(path)!r} was not written by `StampWriter`: it has no attributes "
            "`finished` and `psfs`."
        )
    return root
