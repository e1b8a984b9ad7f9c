"""Whether a Zarr folder is a sound store of stamps: found before any work, one line each."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.noise import checked_noise_correlation
from diffdeblend.stamps.chunk_files import chunk_files
from diffdeblend.stamps.layout import FORMAT, KINDS, OPTIONAL, PSF, REQUIRED, TRUTH, VERSION
from diffdeblend.stamps.stamps import NestedTuples, StampsHeader, nested

_BLENDS = "diffdeblend blends"
# Numbers of one array that are in memory at a time.
_BLOCK = 1 << 20
# Ids that are compared at a time, where they are in no order.
_COMPARED = 1 << 24
# Spreads numbers of any pattern over all bits: 2^64 over the golden ratio.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Opened:
    """A Zarr folder whose metadata were found sound.

    - `path`: of it. `attributes`: of its group. `header`: what they say.
    - `arrays`: by their names; those of the truth are `truth/...`.
    - `n_psfs`: how many rows of `psf` count.
    """

    path: Path
    attributes: Mapping[str, Any]
    header: StampsHeader
    arrays: Mapping[str, Any]
    n_psfs: int

    def rows(self, name: str) -> int:
        """How many rows of an array count."""
        return self.n_psfs if name == PSF else self.header.n_stamps


def check_metadata(path: Path) -> Opened:
    """The arrays and the header of a store, from metadata alone.

    **Raises:** `ValueError` that names what is wrong and what is accepted.
    """
    root = check_format(path)
    attributes = dict(root.attrs)
    if attributes.get("finished") == 0:
        raise wrong(path, "holds no stamps yet.")
    arrays = _arrays(path, root)
    bands = _bands(path, attributes)
    n = _count(path, attributes, "finished", arrays["image"].shape[:1])
    n = arrays["image"].shape[0] if n is None else n
    if n == 0:
        raise wrong(path, "holds no stamps.")
    sizes = {"band": len(bands), "xy": 2}
    for word, axis, name in (("y", 2, "image"), ("x", 3, "image"), ("source", 1, "position")):
        if arrays[name].ndim > axis:
            sizes[word] = arrays[name].shape[axis]
    exact = "finished" not in attributes
    for name, array in arrays.items():
        if name != PSF:
            _check_array(path, name, array, n, exact, sizes)
    if sizes["source"] == 0:
        raise wrong(
            path,
            "has array `position` with no room for sources; it needs (stamp, source, 2).",
        )
    n_psfs = _check_psf(path, arrays, attributes, n, exact, len(bands))
    header = StampsHeader(
        bands=bands,
        shape=(sizes["y"], sizes["x"]),
        n_stamps=n,
        most_sources=sizes["source"],
        pixel_scale=_positive(path, attributes, "pixel_scale"),
        zero_points=_zero_points(path, attributes, len(bands)),
        unit=_text(path, attributes, "unit"),
        oversampling=_count(path, attributes, "oversampling", ()) or 1,
        noise_correlation=_noise(path, attributes, len(bands)),
    )
    return Opened(path, attributes, header, arrays, n_psfs)


def check_files(opened: Opened) -> str:
    """That no file is missing or cut short; returns the SHA-256 of what was seen.

    It is of attributes, metadata of the arrays, the lengths of all chunks and their checksums: the
    content, where chunks end in checksums, without reading it.

    **Raises:** `ValueError` that names the file.
    """
    digest = hashlib.sha256(json.dumps(opened.attributes, sort_keys=True).encode())
    for name, array in sorted(opened.arrays.items()):
        about = array.metadata.to_dict()
        told = {key: about[key] for key in ("shape", "chunk_grid", "codecs", "fill_value")}
        told |= {"dtype": str(array.dtype), "rows": opened.rows(name)}
        digest.update(f"{name} {json.dumps(told, sort_keys=True, default=str)}\n".encode())
        try:
            for mark in chunk_files(name, array, opened.path, opened.rows(name)).marks():
                digest.update(mark)
        except ValueError as error:
            raise wrong(opened.path, f"is damaged: {error}") from error
    return digest.hexdigest()


def check_numbers(opened: Opened) -> None:
    """That ids are different, and that every stamp has a PSF of which one at least is sound.

    In blocks. Ascending ids need no memory; others are compared 16 million at a time.

    **Raises:** `ValueError` that names the array.
    """
    _check_ids(opened)
    _check_psf_index(opened)
    for block in _blocks(opened, PSF, 64):
        if (np.isfinite(block).all(axis=(1, 2, 3)) & (block != 0).any(axis=(1, 2, 3))).any():
            return
    raise wrong(opened.path, "has in array `psf` no image that is finite and not all zero.")


def wrong(path: Path, what: str) -> ValueError:
    """An error about a store."""
    return ValueError(f"`store`: {str(path)!r} {what}")


def check_format(path: Path, mode: Any = "r") -> Any:
    """The Zarr group of a store, of our format and version.

    **Raises:** `ValueError` for anything else.
    """
    import zarr

    if not (path / "zarr.json").is_file():
        old = any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray"))
        raise wrong(
            path,
            "is a Zarr folder of format 2; stores are of Zarr's format 3."
            if old
            else "is no Zarr folder: it has no zarr.json.",
        )
    try:
        root: Any = zarr.open(str(path), mode=mode, zarr_format=3)
    # What a damaged zarr.json raises is of many kinds.
    except Exception as error:
        raise wrong(path, f"has a zarr.json that cannot be read: {error}") from error
    if not isinstance(root, zarr.Group):
        raise wrong(path, "is a Zarr array, not a group of arrays.")
    found = root.attrs.get("format")
    if found == _BLENDS:
        raise wrong(
            path,
            "holds blends of `diffdeblend simulate`, not stamps; simulate with `--format stamps`.",
        )
    if found != FORMAT:
        raise wrong(path, f"has the attribute `format` {found!r}; that of a store is {FORMAT!r}.")
    version = root.attrs.get("version")
    if version != VERSION:
        raise wrong(
            path, f"is of version {version!r} of its format; this diffdeblend reads {VERSION}."
        )
    return root


def _arrays(path: Path, root: Any) -> dict[str, Any]:
    import zarr

    found: dict[str, Any] = {}
    try:
        for name in (*REQUIRED, *OPTIONAL, PSF):
            if name in root:
                found[name] = root[name]
        if TRUTH in root:
            truth: Any = root[TRUTH]
            found |= {f"{TRUTH}/{name}": truth[name] for name in sorted(truth.keys())}
    except Exception as error:
        raise wrong(path, f"has metadata that cannot be read: {error}") from error
    for name in (*REQUIRED, PSF):
        if name not in found:
            raise wrong(path, f"lacks the array `{name}`.")
    for name, array in found.items():
        if not isinstance(array, zarr.Array):
            raise wrong(path, f"has a group `{name}`, where an array is needed.")
    return found


def _check_array(
    path: Path, name: str, array: Any, n: int, exact: bool, sizes: Mapping[str, int]
) -> None:
    forms = {**REQUIRED, **OPTIONAL}.get(name, (("source",),))
    form = next((form for form in forms if len(form) + 1 == array.ndim), None)
    accepted = " or ".join(f"({', '.join(('stamp', *form))})" for form in forms)
    if form is None:
        raise wrong(path, f"has array `{name}` of shape {array.shape}; it needs {accepted}.")
    wanted = tuple(sizes[word] for word in form)
    if array.shape[1:] != wanted or array.shape[0] < n or (exact and array.shape[0] != n):
        raise wrong(
            path,
            f"has array `{name}` of shape {array.shape}; it needs {(n, *wanted)}, "
            f"({', '.join(('stamp', *form))}) by {'`bands`, ' if 'band' in form else ''}`image`"
            f"{' and `position`' if 'source' in form else ''}.",
        )
    _check_kind(path, name, array)


def _check_kind(path: Path, name: str, array: Any) -> None:
    kinds, words = KINDS[TRUTH if name.startswith(f"{TRUTH}/") else name]
    dtype = np.dtype(array.dtype)
    if dtype.kind not in kinds or (kinds == "f" and dtype.itemsize not in (4, 8)):
        raise wrong(path, f"has array `{name}` of {dtype}; it needs {words}.")


def _check_psf(
    path: Path,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any],
    n: int,
    exact: bool,
    n_bands: int,
) -> int:
    array = arrays[PSF]
    shape = array.shape
    if array.ndim != 4 or shape[1] != n_bands:
        raise wrong(
            path,
            f"has array `psf` of shape {shape}; it needs (psf, band, h, w) with {n_bands} bands.",
        )
    if shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise wrong(
            path,
            f"has array `psf` of {shape[2]} x {shape[3]} pixels; height and width must be odd, so "
            "that there is a middle pixel.",
        )
    _check_kind(path, PSF, array)
    if "psf_index" in arrays:
        own = _count(path, attributes, "psfs", shape[:1])
        own = shape[0] if own is None else own
        if own == 0:
            raise wrong(path, "has array `psf` without any image.")
        return own
    if shape[0] < n or (exact and shape[0] != n):
        raise wrong(
            path,
            f"has array `psf` of {shape[0]} images for {n} stamps; it needs one a stamp, or an "
            "array `psf_index` that says which each stamp has.",
        )
    return n


def _bands(path: Path, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    bands: Any = attributes.get("bands")
    sound = isinstance(bands, list) and bands and all(isinstance(b, str) and b for b in bands)
    if not sound or len(set(bands)) < len(bands):
        raise wrong(
            path, f"has the attribute `bands` {bands!r}; it needs a list of different names."
        )
    return tuple(bands)


def _count(
    path: Path, attributes: Mapping[str, Any], name: str, most: tuple[int, ...]
) -> int | None:
    """A whole number, of at least 0 and at most `most` where that is given; or None."""
    value = attributes.get(name)
    if value is None:
        return None
    least = 1 if name == "oversampling" else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong(
            path,
            f"has the attribute `{name}` {value!r}; it needs a whole number of at least {least}.",
        )
    if most and value > most[0]:
        raise wrong(path, f"has the attribute `{name}` {value}, and arrays of only {most[0]} rows.")
    return value


def _positive(path: Path, attributes: Mapping[str, Any], name: str) -> float | None:
    value = attributes.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise wrong(
            path, f"has the attribute `{name}` {value!r}; it needs a positive number or null."
        )
    return float(value)


def _zero_points(
    path: Path, attributes: Mapping[str, Any], n_bands: int
) -> tuple[float, ...] | None:
    values = attributes.get("zero_points")
    if values is None:
        return None
    numbers = isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values
    )
    if not numbers or len(values) != n_bands:
        raise wrong(
            path,
            f"has the attribute `zero_points` {values!r}; it needs {n_bands} numbers, one a band, "
            "or null.",
        )
    return tuple(map(float, values))


def _noise(path: Path, attributes: Mapping[str, Any], n_bands: int) -> NestedTuples | None:
    value = attributes.get("noise_correlation")
    if value is None:
        return None
    try:
        return nested(checked_noise_correlation(value, n_bands))
    except ValueError as error:
        raise wrong(path, f"has an attribute that is refused: {error}") from error


def _text(path: Path, attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name) or ""
    if not isinstance(value, str):
        raise wrong(path, f"has the attribute `{name}` {value!r}; it needs a text.")
    return value


def _blocks(opened: Opened, name: str, rows: int) -> Iterator[np.ndarray]:
    """An array in blocks of rows.

    **Raises:** `ValueError` for one that cannot be read.
    """
    n = opened.rows(name)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        try:
            yield np.asarray(opened.arrays[name][start:stop])
        # Codecs have no common exception.
        except Exception as error:
            raise wrong(
                opened.path,
                f"is damaged: array `{name}`, rows {start} to {stop - 1}, cannot be read: {error}",
            ) from error


def _check_ids(opened: Opened) -> None:
    last, ascending = None, True
    for block in _blocks(opened, "id", _BLOCK):
        if block.dtype == np.uint64 and (block > np.uint64(2**63 - 1)).any():
            raise wrong(
                opened.path,
                f"has the id {block.max()} in array `id`; ids must be below 2^63.",
            )
        block = block.astype(np.int64)
        joined = block if last is None else np.concatenate([[last], block])
        ascending &= bool((joined[1:] > joined[:-1]).all())
        last = block[-1]
    if ascending:
        return
    passes = 1 << max(0, int(np.ceil(np.log2(opened.header.n_stamps / _COMPARED))))
    shift = np.uint64(64 - (passes.bit_length() - 1)) if passes > 1 else None
    for number in range(passes):
        _check_share_of_ids(opened, number, shift)


def _check_share_of_ids(opened: Opened, number: int, shift: np.uint64 | None) -> None:
    """That those ids differ whose share it is; equal ones are always in the same share."""
    own, places = [], []
    for k, block in enumerate(_blocks(opened, "id", _BLOCK)):
        ids = block.astype(np.int64)
        mine = slice(None)
        if shift is not None:
            mine = (ids.view(np.uint64) * _SPREAD) >> shift == np.uint64(number)
        own.append(ids[mine])
        places.append((k * _BLOCK + np.arange(len(ids)))[mine])
    ids, place = np.concatenate(own), np.concatenate(places)
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(same):
        first, second = place[order[same[0]]], place[order[same[0] + 1]]
        raise wrong(
            opened.path,
            f"has the same id {ids[order[same[0]]]} in array `id` for stamps {first} and {second}; "
            "every stamp needs its own.",
        )


def _check_psf_index(opened: Opened) -> None:
    if "psf_index" not in opened.arrays:
        return
    for number, block in enumerate(_blocks(opened, "psf_index", _BLOCK)):
        bad = (block < 0) | (block >= opened.n_psfs)
        if bad.any():
            place = int(np.argmax(bad))
            raise wrong(
                opened.path,
                f"has {block[place]} in array `psf_index` for stamp {number * _BLOCK + place}; it "
                f"must be at least 0 and below {opened.n_psfs}, the number of images in `psf`.",
            )
