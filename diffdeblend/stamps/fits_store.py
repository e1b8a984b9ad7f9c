"""A store of stamps in one FITS file of cubes, read by memory map."""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.exposure import ab_zero_point
from diffdeblend.io import keywords
from diffdeblend.stamps.check_store import wrong
from diffdeblend.stamps.make_stamps import padded
from diffdeblend.stamps.stamp_store import check_places, check_run, counted_sources
from diffdeblend.stamps.stamps import Stamps, StampsHeader, has_position

_TABLE, _TRUE = "STAMPS", "true_"
# Of a larger file the fingerprint has so many blocks, evenly spread.
_BLOCK, _BLOCKS = 1 << 16, 1 << 14
# Images of PSFs that are looked at at a time.
_PSFS = 64


@dataclass(frozen=True)
class _Found:
    """What is where in a file.

    - `image`: number of the HDU of the images, which may be the first. `columns`: of the table, by
        their names in lower case.
    - `psfs`: `"one"`, `"each"` or `"table"`.
    """

    header: StampsHeader
    image: int
    columns: Mapping[str, str]
    psfs: str
    has_mask: bool


class FitsStore:
    """Stamps in a FITS file; a `StampStore`. Made by `open_store`.

    The file is opened anew for each reading, so that threads do not share a place in it.
    """

    path: Path
    header: StampsHeader

    def __init__(self, path: Path, found: _Found):
        self.path, self.header, self._found = path, found.header, found

    def read(self, start: int, stop: int) -> Stamps:
        """The stamps from `start` up to `stop`.

        **Raises:** `ValueError` for a run that is not in the store.
        """
        check_run(start, stop, self.header.n_stamps)
        with _opened(self.path) as hdus:
            return self._read(hdus, start, stop)

    def _read(self, hdus: Any, start: int, stop: int) -> Stamps:
        n, n_bands = stop - start, self.header.n_bands
        rows = hdus[_TABLE].data[start:stop]

        def column(name: str) -> Any:
            found = self._found.columns.get(name)
            return None if found is None else rows.field(found)

        def numbers(name: str) -> Any:
            values = column(name)
            return None if values is None else np.asarray(values, float).reshape(n)

        x, y = (self._by_source(column(axis), np.nan) for axis in "xy")
        position = np.stack([x, y], axis=-1)
        source_id = column("source_id")
        if source_id is None:
            ids = counted_sources(start, stop, self.header.most_sources)
        else:
            ids = self._by_source(source_id, 0).astype(np.int64)
        variance = _native(hdus["VARIANCE"].section[start:stop])
        if variance.ndim == 3:
            variance = variance[:, None]
        mask = None
        if self._found.has_mask:
            mask = (np.asarray(hdus["MASK"].section[start:stop]) != 0).astype(np.uint8)
        psf, index, key = self._psfs(hdus, start, stop, rows)
        return Stamps(
            first=start,
            id=np.asarray(column("id"), np.int64).reshape(n),
            image=_native(hdus[self._found.image].section[start:stop]).reshape(
                n, n_bands, *self.header.shape
            ),
            variance=variance,
            position=position,
            source_id=np.where(has_position(position), ids, 0),
            psf=psf,
            psf_index=index,
            psf_key=key,
            mask=mask,
            ra=numbers("ra"),
            dec=numbers("dec"),
            truth={
                name.removeprefix(_TRUE): self._by_source(rows.field(own), np.nan)
                for name, own in self._found.columns.items()
                if name.startswith(_TRUE)
            },
        )

    def psfs_at(self, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The PSFs of some stamps, each once: keys, and images `(psf, band, h, w)`."""
        check_places(places, self.header.n_stamps)
        found = {}
        with _opened(self.path) as hdus:
            for place in places:
                rows = hdus[_TABLE].data[place : place + 1]
                psf, _, key = self._psfs(hdus, place, place + 1, rows)
                found[int(key[0])] = psf[0]
        keys = sorted(found)
        return np.array(keys), np.stack([found[key] for key in keys])

    def fingerprint(self) -> str:
        """SHA-256 of the file; of one above 1 GiB, of 16384 blocks that are spread evenly."""
        size = self.path.stat().st_size
        n = -(-size // _BLOCK)
        digest = hashlib.sha256(str(size).encode())
        with open(self.path, "rb") as file:
            for block in np.unique(np.linspace(0, n - 1, min(n, _BLOCKS)).astype(int)).tolist():
                digest.update(os.pread(file.fileno(), _BLOCK, block * _BLOCK))
        return digest.hexdigest()

    def _by_source(self, values: Any, fill: float) -> np.ndarray:
        """A column as `(stamp, source)`; of whole numbers where `fill` is 0."""
        most, dtype = self.header.most_sources, np.int64 if fill == 0 else float
        if _is_ragged(values):
            return padded([np.asarray(own, dtype) for own in values], most, fill, dtype)
        array = np.asarray(values).astype(dtype)
        array = array.reshape(len(array), int(np.prod(array.shape[1:])))
        room = [(0, 0), (0, most - array.shape[1])]
        return np.pad(array, room, constant_values=fill) if array.shape[1] < most else array

    def _psfs(
        self, hdus: Any, start: int, stop: int, rows: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hdu, kind = hdus["PSF"], self._found.psfs
        size = self.header.n_bands, *hdu.shape[-2:]
        if kind == "one":
            return (
                _native(hdu.data).reshape(1, *size),
                np.zeros(stop - start, int),
                np.zeros(1, int),
            )
        if kind == "each":
            key = np.arange(start, stop)
            return _native(hdu.section[start:stop]).reshape(-1, *size), key - start, key
        which = np.asarray(rows.field(self._found.columns["psf_index"]), np.int64)
        key, own = np.unique(which.reshape(-1), return_inverse=True)
        images = [_native(hdu.section[k : k + 1]).reshape(size) for k in key.tolist()]
        return np.array(images, np.float32).reshape(-1, *size), own.reshape(-1), key


def open_fits(path: Path, *, checked: bool = False) -> FitsStore:
    """A store of stamps, from a FITS file.

    HDUs by their names: IMAGE `(stamp, band, y, x)`, or the first one; `(stamp, y, x)` for one
    band. VARIANCE, of the same shape or `(stamp, band)`. MASK, which may be left out, of the same
    shape or `(stamp, y, x)`. PSF `(band, h, w)` for all, or `(stamp, band, h, w)`, or a table
    `(psf, band, h, w)` with a column PSF_INDEX that counts from 0. A table STAMPS with the columns
    ID, X and Y (numbers, arrays with NaN beyond the last source, or arrays of variable length; the
    first pixel is centred on (0, 0)) and, where wanted, SOURCE_ID, RA, DEC and TRUE_<name>.

    Keywords, of IMAGE or of the first HDU: BANDS, as `g,r,i`; PIXSCALE in arcseconds; ZP_<band> or
    ZEROPNT; BUNIT; OVERSAMP, of the PSF.

    - `checked`: see `open_store`.

    **Raises:** `ValueError` that names what is missing, or wrong.
    """
    with open(path, "rb") as file:
        begin = file.read(9)
    if begin.startswith(b"\x1f\x8b"):
        raise wrong(path, "is compressed; a store is read in parts: decompress it.")
    if begin != b"SIMPLE  =":
        raise wrong(path, "is a file that is no FITS; a store is a Zarr folder or a FITS file.")
    try:
        with _opened(path) as hdus:
            found = _find(path, hdus)
            if not checked:
                _check_numbers(path, hdus, found)
    except (OSError, TypeError, KeyError, IndexError) as error:
        raise wrong(path, f"is damaged: {error}") from error
    return FitsStore(path, found)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    # What is cut short is an error of ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        with fits.open(path, memmap=True, lazy_load_hdus=False) as hdus:
            yield hdus


def _find(path: Path, hdus: Any) -> _Found:
    """What is where; shapes are checked, numbers are not."""
    size = path.stat().st_size
    names = [hdu.name.upper() for hdu in hdus]
    image = names.index("IMAGE") if "IMAGE" in names else 0
    if not hdus[image].shape:
        raise wrong(path, "lacks an HDU IMAGE.")
    for name in ("VARIANCE", "PSF", _TABLE):
        if name not in names:
            raise wrong(path, f"lacks an HDU {name}.")
    for number in {
        image,
        *(names.index(n) for n in ("VARIANCE", "MASK", "PSF", _TABLE) if n in names),
    }:
        info = hdus[number].fileinfo()
        if info is not None and info["datLoc"] + hdus[number].size > size:
            raise wrong(path, f"is cut short: HDU {names[number] or 'IMAGE'} is not all there.")
    cards = [hdus[image].header, hdus[0].header]
    bands = _bands(path, cards)
    shape = _cube(path, "IMAGE", hdus[image].shape, len(bands))
    n = shape[0]
    given = tuple(hdus["VARIANCE"].shape)
    one_band = (n, *shape[2:]) if len(bands) == 1 else shape
    if given not in (shape, shape[:2], one_band):
        raise wrong(path, f"has VARIANCE of shape {given}; it needs {shape} or {shape[:2]}.")
    if "MASK" in names and tuple(hdus["MASK"].shape) not in (shape, (n, *shape[2:])):
        raise wrong(
            path,
            f"has MASK of shape {tuple(hdus['MASK'].shape)}; it needs {shape} or "
            f"{(n, *shape[2:])}.",
        )
    table = hdus[_TABLE]
    named = getattr(table, "columns", None)
    columns = {} if named is None else {name.lower(): name for name in named.names}
    for name in ("id", "x", "y"):
        if name not in columns:
            raise wrong(path, f"lacks a column {name.upper()} in the table {_TABLE}.")
    if len(table.data) != n:
        raise wrong(path, f"has {len(table.data)} rows in {_TABLE} and {n} stamps in IMAGE.")
    if table.columns[columns["id"]].format[-1] not in "BIJK":
        raise wrong(path, "has a column ID that holds no whole numbers.")
    most = [_most(table, columns[axis]) for axis in "xy"]
    if most[0] != most[1]:
        raise wrong(path, f"has columns X and Y of {most[0]} and {most[1]} sources.")
    unit = keywords.unit(cards)
    header = StampsHeader(
        bands=bands,
        shape=(shape[2], shape[3]),
        n_stamps=n,
        most_sources=max(most[0], 1),
        pixel_scale=keywords.number(cards, "PIXSCALE", positive=True),
        zero_points=_zero_points(cards, bands, unit),
        unit=unit,
        oversampling=int(keywords.number(cards, "OVERSAMP", positive=True) or 1),
    )
    psfs = _psf_kind(path, tuple(hdus["PSF"].shape), n, len(bands), "psf_index" in columns)
    return _Found(header, image, columns, psfs, "MASK" in names)


def _bands(path: Path, cards: list[Any]) -> tuple[str, ...]:
    text = keywords.text(cards, "BANDS") or keywords.band_name(cards)
    if text is None:
        raise wrong(path, "lacks the keyword BANDS, as 'g,r,i', in the header of IMAGE.")
    bands = tuple(part.strip() for part in text.split(","))
    if "" in bands or len(set(bands)) < len(bands):
        raise wrong(path, f"has the keyword BANDS {text!r}; it needs different names, as 'g,r,i'.")
    return bands


def _cube(path: Path, name: str, shape: tuple[int, ...], n_bands: int) -> tuple[int, ...]:
    """A shape with an axis of bands."""
    full = (shape[0], 1, *shape[1:]) if len(shape) == 3 and n_bands == 1 else tuple(shape)
    if len(full) != 4 or full[1] != n_bands:
        raise wrong(
            path,
            f"has {name} of shape {tuple(shape)}; it needs (stamp, band, y, x) with the {n_bands} "
            "bands of the keyword BANDS.",
        )
    return full


def _zero_points(cards: list[Any], bands: tuple[str, ...], unit: str) -> tuple[float, ...] | None:
    own = [keywords.number(cards, f"ZP_{band}", "ZEROPNT") for band in bands]
    if all(value is not None for value in own):
        return tuple(float(value) for value in own if value is not None)
    of_unit = ab_zero_point(unit)
    return None if of_unit is None else (of_unit,) * len(bands)


def _most(table: Any, name: str) -> int:
    """Sources that a column has room for."""
    values = table.data.field(name)
    if _is_ragged(values):
        return max((len(own) for own in values), default=0)
    return int(np.prod(values.shape[1:], dtype=int))


def _psf_kind(path: Path, shape: tuple[int, ...], n: int, n_bands: int, indexed: bool) -> str:
    odd = len(shape) >= 2 and shape[-1] % 2 == 1 and shape[-2] % 2 == 1
    lead = shape[:-2]
    if n_bands == 1 and len(lead) < 2 and lead != (1,):
        lead = (*lead, 1)
    if odd and lead == (n_bands,):
        return "one"
    if odd and len(lead) == 2 and lead[1] == n_bands:
        kind = "one" if lead[0] == 1 else "each" if lead[0] == n else None
        kind = "table" if indexed else kind
        if kind is not None:
            return kind
    raise wrong(
        path,
        f"has PSF of shape {shape}; it needs ({n_bands}, h, w), ({n}, {n_bands}, h, w), or a table "
        f"(psf, {n_bands}, h, w) with a column PSF_INDEX; h and w odd.",
    )


def _check_numbers(path: Path, hdus: Any, found: _Found) -> None:
    table = hdus[_TABLE].data
    ids, count = np.unique(np.asarray(table.field(found.columns["id"])), return_counts=True)
    if (count > 1).any():
        raise wrong(
            path, f"has the same ID {ids[count > 1][0]} for several stamps; all must be different."
        )
    hdu = hdus["PSF"]
    if found.psfs == "table":
        which = np.asarray(table.field(found.columns["psf_index"]))
        if which.min() < 0 or which.max() >= hdu.shape[0]:
            raise wrong(
                path,
                f"has {which.min()} to {which.max()} in PSF_INDEX; it must be at least 0 and below "
                f"{hdu.shape[0]}.",
            )
    n = 1 if found.psfs == "one" else hdu.shape[0]
    for start in range(0, n, _PSFS):
        few = _native(hdu.data if found.psfs == "one" else hdu.section[start : start + _PSFS])
        few = few.reshape(min(_PSFS, n - start), -1)
        if (np.isfinite(few).all(axis=1) & (few != 0).any(axis=1)).any():
            return
    raise wrong(path, "has in PSF no image that is finite and not all zero.")


def _is_ragged(values: Any) -> bool:
    """Whether a column has arrays of variable length."""
    return getattr(values, "dtype", np.dtype(float)).kind == "O"


def _native(values: Any) -> np.ndarray:
    """FITS has the other byte order."""
    return np.asarray(values).astype(np.float32)
