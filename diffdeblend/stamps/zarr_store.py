"""A store of stamps in a Zarr folder, read run by run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffdeblend.progress import one_line
from diffdeblend.stamps.check_store import Opened, check_files, check_metadata, check_numbers
from diffdeblend.stamps.layout import PIXELS, PSF, TRUTH
from diffdeblend.stamps.stamp_store import check_places, check_run, counted_sources
from diffdeblend.stamps.stamps import Stamps, StampsHeader

# Of an array with larger chunks nothing is kept.
_MOST_KEPT = 65536


class _Kept(NamedTuple):
    """Rows of an array from `start` up to `stop`, and why some of them could not be read."""

    start: int
    stop: int
    values: np.ndarray
    broken: dict[int, str]


class ZarrStore:
    """Stamps in a Zarr folder; a `StampStore`. Made by `open_store`."""

    path: Path
    header: StampsHeader

    def __init__(self, opened: Opened, fingerprint: str | None = None):
        self.path, self.header = opened.path, opened.header
        self._opened, self._arrays, self._fingerprint = opened, opened.arrays, fingerprint
        # Of small arrays the rows that were read last: each way to a file takes a millisecond.
        self._kept: dict[str, _Kept] = {}

    def read(self, start: int, stop: int) -> Stamps:
        """The stamps from `start` up to `stop`.

        Where a chunk is damaged, its stamps are in `unreadable`, with the array and the reason;
        what cannot be read of them is NaN, or 0 for whole numbers. All others are read.

        **Raises:** `ValueError` for a run that is not in the store, or ids that cannot be read.
        """
        check_run(start, stop, self.header.n_stamps)
        broken: dict[int, str] = {}
        found = {
            name: self._rows(name, start, stop, broken) for name in self._arrays if name != PSF
        }
        psf, index, key = self._psfs(start, stop, found.get("psf_index"), broken)
        return Stamps(
            first=start,
            id=found["id"].astype(np.int64),
            image=found["image"],
            variance=found["variance"],
            position=found["position"].astype(float),
            source_id=self._source_ids(start, stop, found.get("source_id")),
            psf=psf,
            psf_index=index,
            psf_key=key,
            **{name: found.get(name) for name in ("mask", "ra", "dec", "cd", "crowded")},
            truth={
                name.removeprefix(f"{TRUTH}/"): values
                for name, values in found.items()
                if name.startswith(f"{TRUTH}/")
            },
            unreadable=dict(sorted(broken.items())),
        )

    def psfs_at(self, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The PSFs of some stamps, each once: keys, and images `(psf, band, h, w)`.

        NaN where an image cannot be read.
        """
        check_places(places, self.header.n_stamps)
        keys = np.asarray(places, np.int64)
        if "psf_index" in self._arrays:
            keys = np.asarray(self._arrays["psf_index"].oindex[keys], np.int64)
        keys = np.unique(keys)
        return keys, self._images(keys)[0]

    def fingerprint(self) -> str:
        """SHA-256 of attributes, metadata, and lengths and checksums of all chunks."""
        if self._fingerprint is None:
            self._fingerprint = check_files(self._opened)
        return self._fingerprint

    def _rows(self, name: str, start: int, stop: int, broken: dict[int, str]) -> np.ndarray:
        """Rows of an array; those that cannot be read are added to `broken` by their place."""
        array, n = self._arrays[name], self.header.n_stamps
        chunk = array.chunks[0]
        pixels = name in PIXELS and array.ndim > 2
        if pixels or chunk > _MOST_KEPT or start == stop:
            return self._read_rows(name, start, stop, broken)
        kept = self._kept.get(name)
        if kept is None or not kept.start <= start <= stop <= kept.stop:
            low, high = start - start % chunk, min(n, -(-stop // chunk) * chunk)
            bad: dict[int, str] = {}
            values = self._read_rows(name, low, high, bad)
            kept = self._kept[name] = _Kept(low, high, values, bad)
        for place in range(start - kept.start, stop - kept.start) if kept.broken else ():
            if place in kept.broken:
                broken.setdefault(place + kept.start - start, kept.broken[place])
        return kept.values[start - kept.start : stop - kept.start].copy()

    def _read_rows(self, name: str, start: int, stop: int, broken: dict[int, str]) -> np.ndarray:
        array = self._arrays[name]
        try:
            return np.asarray(array[start:stop])
        # Codecs have no common exception.
        except Exception as error:
            if name == "id":
                raise ValueError(
                    f"`store`: {str(self.path)!r}: no ids: {one_line(error)}"
                ) from error
        floats = array.dtype.kind == "f"
        values = np.full((stop - start, *array.shape[1:]), np.nan if floats else 0, array.dtype)
        chunk = array.chunks[0]
        for low in range(start - start % chunk, stop, chunk):
            a, b = max(low, start), min(low + chunk, stop)
            try:
                values[a - start : b - start] = array[a:b]
            except Exception as error:
                for place in range(a - start, b - start):
                    broken.setdefault(place, f"`{name}` cannot be read: {one_line(error)}")
        return values

    def _source_ids(self, start: int, stop: int, found: np.ndarray | None) -> np.ndarray:
        if found is not None:
            return found.astype(np.int64)
        return counted_sources(start, stop, self.header.most_sources)

    def _psfs(
        self, start: int, stop: int, index: np.ndarray | None, broken: dict[int, str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images of the PSFs that these stamps have, which of them each has, and their keys."""
        of_stamp = np.arange(start, stop) if index is None else index.astype(np.int64)
        key, own = np.unique(of_stamp, return_inverse=True)
        images, lost = self._images(key)
        for place in np.flatnonzero(np.isin(own, list(lost))).tolist():
            broken.setdefault(place, lost[int(own[place])])
        return images, own.reshape(-1), key

    def _images(self, key: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """Rows of `psf`, NaN where they cannot be read, and why by their place."""
        array: Any = self._arrays[PSF]
        try:
            return np.asarray(array.oindex[key]), {}
        except Exception:
            images = np.full((len(key), *array.shape[1:]), np.nan, array.dtype)
        lost: dict[int, str] = {}
        chunk = array.chunks[0]
        for number in np.unique(key // chunk).tolist():
            places = np.flatnonzero(key // chunk == number)
            try:
                images[places] = array.oindex[key[places]]
            except Exception as error:
                why = f"`psf` cannot be read: {one_line(error)}"
                lost |= dict.fromkeys(places.tolist(), why)
        return images, lost


def open_zarr(path: Path, *, checked: bool = False) -> ZarrStore:
    """A store of stamps, from its Zarr folder; see `open_store`."""
    opened = check_metadata(path)
    if checked:
        return ZarrStore(opened)
    fingerprint = check_files(opened)
    check_numbers(opened)
    return ZarrStore(opened, fingerprint)
