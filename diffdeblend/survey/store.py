"""A store of stamps in a Zarr folder: checked on opening, read run by run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.survey.layout import FORMAT, OPTIONAL, PSF, REQUIRED, TRUTH, VERSION
from diffdeblend.survey.stamps import Stamps, StampsHeader


class ZarrStore:
    """Stamps in a Zarr folder, of which no more is in memory than was asked for.

    Made by `open_store`, which checks it.
    """

    def __init__(self, path: Path, header: StampsHeader, arrays: Mapping[str, Any]):
        self.path, self.header, self._arrays = path, header, arrays

    def read(self, start: int, stop: int) -> Stamps:
        """The stamps from `start` up to `stop`. Those that cannot be read are said to be so."""
        of = self._arrays
        own = slice(start, stop)

        def maybe(name: str) -> Any:
            return of[name][own] if name in of else None

        position = np.asarray(of["position"][own], float)
        psf, index, key = self._psfs(start, stop)
        return Stamps(
            first=start,
            id=np.asarray(of["id"][own], np.int64),
            image=of["image"][own],
            variance=of["variance"][own],
            position=position,
            source_id=self._source_ids(start, position.shape),
            psf=psf,
            psf_index=index,
            psf_key=key,
            mask=maybe("mask"),
            ra=maybe("ra"),
            dec=maybe("dec"),
            cd=maybe("cd"),
            crowded=maybe("crowded"),
            truth={
                name.removeprefix(f"{TRUTH}/"): array[own]
                for name, array in of.items()
                if name.startswith(f"{TRUTH}/")
            },
        )

    def psf_at(self, place: int) -> tuple[int, np.ndarray]:
        """The key and the image of the PSF of one stamp."""
        key = place
        if "psf_index" in self._arrays:
            key = int(self._arrays["psf_index"][place])
        return key, np.asarray(self._arrays[PSF][key])

    def fingerprint(self) -> str:
        """SHA-256 of what tells this store from another: attributes, sizes of its files."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(self.path)} {file.stat().st_size}\n".encode())
            if file.name == "zarr.json":
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def _source_ids(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        if "source_id" in self._arrays:
            return np.asarray(self._arrays["source_id"][start : start + shape[0]], np.int64)
        # Numbers in the order of the stamps, with room for the largest.
        first = (start + np.arange(shape[0])) * shape[1]
        return first[:, None] + np.arange(shape[1])

    def _psfs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images of the PSFs that these stamps have, which of them each has, and their keys."""
        if "psf_index" not in self._arrays:
            key = np.arange(start, stop)
            return self._arrays[PSF][start:stop], key - start, key
        key, index = np.unique(self._arrays["psf_index"][start:stop], return_inverse=True)
        return self._arrays[PSF].oindex[key], index, key


def open_store(path: str | Path) -> ZarrStore:
    """A store of stamps, from its folder.

    **Raises:** `ValueError` for a folder that is not there, is none of ours or of another version,
    or lacks arrays.
    """
    import zarr

    path = Path(path)
    root: Any = zarr.open_group(str(path), mode="r")
    found = root.attrs.get("format"), root.attrs.get("version")
    if found != (FORMAT, VERSION):
        raise ValueError(f"`store`: {str(path)!r} holds {found}, not {FORMAT} {VERSION}.")
    names = [*REQUIRED, *OPTIONAL, PSF]
    arrays = {name: root[name] for name in names if name in root}
    if TRUTH in root:
        arrays |= {f"{TRUTH}/{name}": array for name, array in root[TRUTH].arrays()}
    n, _, ny, nx = arrays["image"].shape
    attrs = dict(root.attrs)
    points = attrs["zero_points"]
    header = StampsHeader(
        bands=tuple(attrs["bands"]),
        shape=(ny, nx),
        n_stamps=n,
        most_sources=arrays["position"].shape[1],
        pixel_scale=attrs["pixel_scale"],
        zero_points=None if points is None else tuple(points),
        unit=attrs["unit"],
        oversampling=attrs["oversampling"],
    )
    return ZarrStore(path, header, arrays)
