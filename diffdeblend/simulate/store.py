"""Sets of blends on disk: Zarr, written batch by batch, read whole or as a stream."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from diffdeblend.simulate.blends import Blends
from diffdeblend.simulate.survey_file import survey_from_dict, survey_to_dict

FORMAT, VERSION = "diffdeblend blends", 1
# Blends in a chunk: read together, and lost together if a file is damaged.
_CHUNK = 16
_CUBES = ("images", "isolated", "psf_images", "psf_index")


def write_blends(
    blends: Blends | Mapping[str, Blends], path: str | Path, *, overwrite: bool = False
) -> None:
    """A set of blends, or the same blends in several surveys, as a Zarr folder.

    - `path`: usually ends in `.zarr`. An existing one is replaced only with `overwrite`.

    The layout: one group a survey, with the arrays `images`, `isolated`, `psf_images`, `psf_index`
    and, under `truth`, one array a column, all as in `Blends`; attributes hold the rest, and how
    many blends are finished. Checksums guard every chunk.

    **Raises:** `ValueError` if there is something at `path` already.
    """
    write_stream([blends], path, overwrite=overwrite)


def write_stream(
    batches: Iterable[Blends | Mapping[str, Blends]], path: str | Path, *, overwrite: bool = False
) -> int:
    """Batches of one set as they are made; what is written stays if it is interrupted.

    Returns the number of blends. Else as `write_blends`.
    """
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise ValueError(f"`path`: {str(path)!r} exists; give another, or overwrite=True.")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    written = 0
    for batch in batches:
        written = append_blends(batch, path)
    return written


def append_blends(
    blends: Blends | Mapping[str, Blends],
    path: str | Path,
    *,
    attributes: Mapping[str, Any] | None = None,
) -> int:
    """One more batch of a set, or the first; returns how many blends there are now.

    A batch counts once it is whole: one that was interrupted is written over by the next.

    - `attributes`: of the folder, JSON; kept with the first batch.

    **Raises:** `ValueError` if the batch is of other surveys, bands or stamps than the set.
    """
    import zarr

    given = {blends.survey.name: blends} if isinstance(blends, Blends) else dict(blends)
    if not given:
        raise ValueError("`blends` is empty; give at least one survey.")
    path = Path(path)
    root: Any
    if path.exists():
        root = _open(path, "a")
    else:
        root = zarr.open_group(str(path), mode="w-")
        head = {"format": FORMAT, "version": VERSION, "finished": 0, "surveys": list(given)}
        root.attrs.update({**head, **(attributes or {})})
    if list(root.attrs["surveys"]) != list(given):
        raise ValueError(
            f"`blends` are of {list(given)}, the set at {str(path)!r} of {root.attrs['surveys']}."
        )
    finished = int(root.attrs["finished"])
    # Chunks of zeros, too: one that is missing on reading is then one that was lost.
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, batch in given.items():
            _append(root, name, batch, finished)
    n = {batch.n_blends for batch in given.values()}
    if len(n) > 1:
        raise ValueError(f"`blends` need the same number of blends in all surveys; got {n}.")
    # Last, and alone: a reader never sees half of a batch.
    root.attrs["finished"] = finished + n.pop()
    return int(root.attrs["finished"])


def read_blends(path: str | Path, survey: str | None = None, **part: int) -> Blends:
    """A set from its folder.

    - `survey`: which, if there are several.
    - `start`, `stop`: only these blends.

    **Raises:** `ValueError` for a folder that is not there, is none of ours or of another version,
    is damaged, or has several surveys and none is named.
    """
    found = read_surveys(path, **part)
    if survey is None and len(found) == 1:
        return next(iter(found.values()))
    if survey not in found:
        raise ValueError(f"`survey` must be one of {list(found)}; got {survey!r}.")
    return found[survey]


def read_surveys(path: str | Path, start: int = 0, stop: int | None = None) -> dict[str, Blends]:
    """All surveys of a set by their names; see `read_blends`."""
    path = Path(path)
    root = _open(path, "r")
    finished = int(root.attrs["finished"])
    stop = finished if stop is None else min(stop, finished)
    if not 0 <= start <= stop:
        raise ValueError(f"`start` must be between 0 and {stop}; got {start}.")
    names: Any = root.attrs["surveys"]
    try:
        return {name: _read(root[name], start, stop) for name in names}
    except (KeyError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"`path`: {str(path)!r} is damaged: {error}") from error


def count_blends(path: str | Path) -> int:
    """How many blends of a set are finished.

    **Raises:** `ValueError` as `read_blends`.
    """
    return int(_open(Path(path), "r").attrs["finished"])


def read_stream(path: str | Path, batch: int = 100, survey: str | None = None) -> Iterator[Blends]:
    """A set in batches, for more than memory holds; see `read_blends`."""
    for start in range(0, count_blends(path), batch):
        yield read_blends(path, survey, start=start, stop=start + batch)


def _open(path: Path, mode: Any) -> Any:
    import zarr

    if not path.is_dir():
        raise ValueError(f"`path`: there is no folder {str(path)!r}.")
    try:
        root = zarr.open_group(str(path), mode=mode)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise ValueError(f"`path`: {str(path)!r} is no Zarr folder: {error}") from error
    found = root.attrs.get("format"), root.attrs.get("version")
    if found[0] != FORMAT:
        raise ValueError(f"`path`: {str(path)!r} holds no blends of diffdeblend.")
    if found[1] != VERSION:
        raise ValueError(
            f"`path`: {str(path)!r} is of version {found[1]} of its format; this is diffdeblend "
            f"for version {VERSION}."
        )
    return root


def _append(root: Any, name: str, batch: Blends, finished: int) -> None:
    columns: Any = batch.truth
    known = name in root
    group = root[name] if known else root.create_group(name)
    if not known:
        group.attrs.update(
            {
                "survey": survey_to_dict(batch.survey),
                "bands": list(batch.bands),
                "pixel_scale": batch.survey.pixel_scale,
                "zero_points": batch.survey.zero_points.tolist(),
                "sky": batch.sky.tolist(),
                "noise": batch.noise,
                "noise_correlation": None
                if batch.noise_correlation is None
                else np.asarray(batch.noise_correlation).tolist(),
                "seed": batch.seed,
                "settings": batch.settings,
                "units": {c: str(columns[c].unit or "") for c in columns.colnames},
                "rows": 0,
                "psfs": 0,
            }
        )
    elif list(batch.bands) != group.attrs["bands"] or (batch.isolated is None) == (
        "isolated" in group
    ):
        raise ValueError(
            f"`blends` of {name} have bands {batch.bands} and "
            f"{'no ' if batch.isolated is None else ''}isolated images, unlike the set."
        )
    rows, psfs = int(group.attrs["rows"]), int(group.attrs["psfs"])
    _extend(group, "images", batch.images, finished)
    if batch.isolated is not None:
        _extend(group, "isolated", batch.isolated, rows)
    # Most often all batches have the same PSFs.
    same = psfs == len(batch.psf_images) and psfs > 0
    if same and np.array_equal(group["psf_images"][:psfs], batch.psf_images):
        shift = 0
    else:
        shift = psfs
        _extend(group, "psf_images", batch.psf_images, psfs)
        psfs += len(batch.psf_images)
    _extend(group, "psf_index", np.asarray(batch.psf_index, dtype=np.int64) + shift, finished)
    truth = group["truth"] if "truth" in group else group.create_group("truth")
    for column in batch.truth.colnames:
        values = np.asarray(batch.truth[column])
        values = values + finished if column == "blend" else values
        _extend(truth, column, values, rows)
    group.attrs.update({"rows": rows + len(batch.truth), "psfs": psfs})


def _extend(group: Any, name: str, values: np.ndarray, at: int) -> None:
    """Write values from place `at` on, over what an interrupted run may have left there."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    shape = (at + len(values), *values.shape[1:])
    if name in group:
        array = group[name]
        if array.shape[1:] != values.shape[1:]:
            raise ValueError(
                f"`blends`: `{name}` has shape {values.shape[1:]}, and the set {array.shape[1:]}."
            )
        array.resize(shape)
    else:
        chunk = _CHUNK if values.ndim > 1 else 65536
        array = group.create_array(
            name,
            shape=shape,
            dtype=values.dtype,
            chunks=(chunk, *values.shape[1:]),
            compressors=(BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()),
        )
    array[at:] = values


def _read(group: Any, start: int, stop: int) -> Blends:
    attrs = dict(group.attrs)
    first = np.asarray(group["truth"]["blend"][: attrs["rows"]])
    a, b = np.searchsorted(first, [start, stop])
    for name in (*_CUBES, *(f"truth/{column}" for column in attrs["units"])):
        if name in group:
            array = group[name]
            if array.nchunks_initialized < array.nchunks:
                raise ValueError(
                    f"{array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks of "
                    f"`{name}` are missing."
                )
    truth: Any = Table()
    for column, unit in attrs["units"].items():
        truth[column] = group[f"truth/{column}"][a:b]
        truth[column].unit = unit or None
    truth["blend"] = truth["blend"] - start
    correlation = attrs["noise_correlation"]
    return Blends(
        images=group["images"][start:stop],
        isolated=group["isolated"][a:b] if "isolated" in group else None,
        truth=truth,
        psf_images=group["psf_images"][: attrs["psfs"]],
        psf_index=group["psf_index"][start:stop],
        survey=survey_from_dict(attrs["survey"]),
        sky=np.array(attrs["sky"]),
        noise=attrs["noise"],
        seed=attrs["seed"],
        noise_correlation=None if correlation is None else np.array(correlation),
        settings=attrs["settings"],
    )
