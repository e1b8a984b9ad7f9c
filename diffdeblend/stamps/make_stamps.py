"""Stamps from plain arrays, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffdeblend.exposure import ab_zero_point
from diffdeblend.noise import checked_noise_correlation
from diffdeblend.stamps.stamps import Stamps, StampsHeader, has_position, nested


def make_stamps(
    image: Any,
    variance: Any,
    psf: Any,
    position: Any,
    *,
    bands: str | Sequence[str],
    mask: Any = None,
    psf_index: Any = None,
    id: Any = None,
    source_id: Any = None,
    ra: Any = None,
    dec: Any = None,
    cd: Any = None,
    crowded: Any = None,
    truth: Mapping[str, Any] | None = None,
    pixel_scale: float | None = None,
    zero_points: float | Sequence[float] | None = None,
    unit: str = "",
    oversampling: int = 1,
    noise_correlation: Any = None,
) -> tuple[Stamps, StampsHeader]:
    """Stamps from plain arrays, with what they share: what `write_stamps` takes.

    - `image`: `(stamp, band, y, x)`, or `(stamp, y, x)` for one band; linear flux a pixel, NaN
        where there is none. Kept as float32, of any byte order.
    - `variance`: of the same shape; or numbers `(stamp, band)`, `(band,)` or one for all.
    - `psf`: odd in height and width: `(band, h, w)` for all stamps, `(stamp, band, h, w)` for one
        each, or with `psf_index` a table `(psf, band, h, w)`; of one band also `(h, w)`.
        Normalised by the caller: what is missing to a sum of 1 is taken for light beyond the image.
    - `position`: x and y of the sources in pixels, the first pixel of a stamp centred on (0, 0):
        a list with an array `(source, 2)` for each stamp, or one array `(stamp, source, 2)` that is
        NaN beyond the last source; `(stamp, 2)` for one source each.
    - `bands`: names.
    - `mask`: not zero, or true, where a pixel is bad; shape of `image` or `(stamp, y, x)`.
    - `id`: of each stamp, whole numbers, all different; by default 0, 1, ...
    - `source_id`: as `position`, a list for each stamp or an array; by default numbers from 1 on.
    - `ra`, `dec`: of the middle of each stamp, ICRS, degrees. `cd`: `(stamp, 2, 2)`, degrees a
        pixel, rows towards east and north.
    - `crowded`: whether the sources of a stamp are part of a larger group.
    - `truth`: what is known of the sources, `(stamp, source)` each.
    - `pixel_scale`: arcseconds. `zero_points`: AB magnitude of one unit of flux, of each band or
        one for all; by default that of the `unit`, where it is a flux density. `oversampling`: of
        the images of `psf`.
    - `noise_correlation`: as in `make_exposure`, the same for all stamps.

    **Raises:** `ValueError` that names the argument, what it was and what is accepted.
    """
    names = (bands,) if isinstance(bands, str) else tuple(bands)
    if not names or len(set(names)) < len(names) or not all(isinstance(b, str) for b in names):
        raise ValueError(f"`bands` must be different names; got {bands!r}.")
    images = _real("image", image)
    if images.ndim == 3 and len(names) == 1:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] != len(names) or 0 in images.shape:
        raise ValueError(
            f"`image` needs shape (stamp, {len(names)}, y, x) for the bands {names}; got "
            f"{np.shape(image)}."
        )
    n = len(images)
    positions = _positions(position, n)
    most = positions.shape[1]
    there = has_position(positions)
    psfs, index = _psfs(psf, psf_index, n, len(names))
    stamps = Stamps(
        first=0,
        id=np.arange(n) if id is None else _ids(id, n),
        image=images,
        variance=_variance(variance, images.shape),
        position=positions,
        source_id=_source_ids(source_id, n, most, there),
        psf=psfs,
        psf_index=index,
        psf_key=np.arange(len(psfs)),
        mask=None if mask is None else _mask(mask, images.shape),
        ra=_of_stamps("ra", ra, (n,)),
        dec=_of_stamps("dec", dec, (n,)),
        cd=_of_stamps("cd", cd, (n, 2, 2)),
        crowded=_flags("crowded", crowded, n),
        truth={name: _truth(name, values, (n, most)) for name, values in (truth or {}).items()},
    )
    header = StampsHeader(
        bands=names,
        shape=(images.shape[2], images.shape[3]),
        n_stamps=n,
        most_sources=most,
        pixel_scale=_scale(pixel_scale),
        zero_points=_zero_points(zero_points, unit, len(names)),
        unit=unit,
        oversampling=_oversampling(oversampling),
        noise_correlation=None
        if noise_correlation is None
        else nested(checked_noise_correlation(noise_correlation, len(names))),
    )
    return stamps, header


def padded(runs: Sequence[Any], most: int, fill: float, dtype: Any) -> np.ndarray:
    """Lists of different lengths as one array `(list, most, ...)`."""
    shape = next((np.shape(run)[1:] for run in runs if len(run)), ())
    wide = np.full((len(runs), most, *shape), fill, dtype)
    for row, run in zip(wide, runs, strict=True):
        if len(run):
            row[: len(run)] = run
    return wide


def _real(name: str, value: Any) -> np.ndarray:
    """Native float32; masked entries become NaN."""
    if hasattr(value, "unit") and hasattr(value, "to_value"):
        raise ValueError(
            f"`{name}` must be plain numbers; got a Quantity in {str(value.unit)!r}. Pass its "
            "`.value` here and its unit as `unit`."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"`{name}` must be real numbers; got {array.dtype}.")
    with np.errstate(over="ignore"):
        native = array.astype(np.float32)
    if (np.isinf(native) & np.isfinite(array)).any():
        raise ValueError(
            f"`{name}` does not fit float32: the largest is {np.nanmax(np.abs(array)):.3g}. Give "
            "it in a unit in which it is nearer to 1."
        )
    if isinstance(value, np.ma.MaskedArray):
        native[np.ma.getmaskarray(value)] = np.nan
    return native


def _variance(variance: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _real("variance", variance)
    n, n_bands = shape[:2]
    if array.ndim == 3 and n_bands == 1:
        array = array[:, None]
    if array.shape == shape:
        return array
    # As many stamps as bands: `(band,)` is meant by one axis, `(stamp, band)` by two.
    if array.shape in ((), (n_bands,), (n, n_bands)):
        numbers = np.broadcast_to(array, (n, n_bands)).copy()
        if not (numbers > 0).all():
            raise ValueError(f"`variance` must be positive; the least is {numbers.min()}.")
        return numbers
    raise ValueError(
        f"`variance` needs the shape of `image`, {shape}, or numbers ({n}, {n_bands}), "
        f"({n_bands},) or one; got {np.shape(variance)}."
    )


def _psfs(psf: Any, index: Any, n: int, n_bands: int) -> tuple[np.ndarray, np.ndarray]:
    array = _real("psf", psf)
    if n_bands == 1 and array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and n_bands == 1 and array.shape[0] != 1:
        array = array[:, None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] != n_bands or 0 in array.shape:
        raise ValueError(
            f"`psf` needs shape ({n_bands}, h, w), or (stamp, {n_bands}, h, w), or with "
            f"`psf_index` (psf, {n_bands}, h, w); got {np.shape(psf)}."
        )
    if array.shape[2] % 2 == 0 or array.shape[3] % 2 == 0:
        raise ValueError(
            "`psf` needs odd height and width, so that it has a middle pixel to be centred on; "
            f"got {array.shape[2]} x {array.shape[3]}."
        )
    if index is None:
        if len(array) not in (1, n):
            raise ValueError(
                f"`psf` has {len(array)} images for {n} stamps; give one, one each, or `psf_index`."
            )
        return array, np.zeros(n, np.int64) if len(array) == 1 else np.arange(n)
    which = _whole("psf_index", index, (n,))
    if which.min() < 0 or which.max() >= len(array):
        raise ValueError(
            f"`psf_index` must be at least 0 and below {len(array)}; got {which.min()} to "
            f"{which.max()}."
        )
    return array, which


def _positions(position: Any, n: int) -> np.ndarray:
    if isinstance(position, np.ndarray) and position.dtype != object:
        array = position
        if array.ndim == 2 and array.shape == (n, 2):
            array = array[:, None]
    else:
        array = _ragged("position", position, n, (2,))
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[::2] != (n, 2):
        raise ValueError(
            f"`position` needs an array (source, 2) for each of {n} stamps, or one "
            f"({n}, source, 2); got {array.dtype} of shape {array.shape}."
        )
    found = array.astype(float)
    # A stamp without sources is a row without any; the store has room for one at least.
    return found if found.shape[1] else np.full((n, 1, 2), np.nan)


def _ragged(name: str, values: Any, n: int, shape: tuple[int, ...]) -> np.ndarray:
    try:
        runs = [np.asarray(run) for run in values]
    except TypeError as error:
        raise ValueError(f"`{name}` needs a list for each stamp; got {values!r}.") from error
    runs = [run if len(shape) == 0 or run.size else run.reshape(0, *shape) for run in runs]
    if len(runs) != n or any(run.ndim != 1 + len(shape) or run.shape[1:] != shape for run in runs):
        odd = next((k for k, run in enumerate(runs) if run.shape[1:] != shape), None)
        got = f"{len(runs)} of them" if odd is None else f"{runs[odd].shape} for stamp {odd}"
        wanted = ", ".join(("source", *map(str, shape)))
        raise ValueError(f"`{name}` needs an array ({wanted}) for each of {n} stamps; got {got}.")
    kinds = {run.dtype.kind for run in runs if run.size}
    whole = kinds <= set("iu")
    fill = 0 if whole and not shape else np.nan
    return padded(runs, max(map(len, runs)), fill, np.int64 if fill == 0 else float)


def _source_ids(value: Any, n: int, most: int, there: np.ndarray) -> np.ndarray:
    if value is None:
        return np.where(there, np.cumsum(there).reshape(there.shape), 0)
    array = value
    if not isinstance(value, np.ndarray) or value.dtype == object:
        array = _ragged("source_id", value, n, ())
    if array.ndim == 1 and most == 1:
        array = array[:, None]
    if array.ndim == 2 and array.shape[1] < most:
        array = np.pad(array, [(0, 0), (0, most - array.shape[1])])
    found = _whole("source_id", array, (n, most))
    return np.where(there, found, 0)


def _ids(value: Any, n: int) -> np.ndarray:
    found = _whole("id", value, (n,))
    ids, count = np.unique(found, return_counts=True)
    if len(ids) < n:
        raise ValueError(
            f"`id` must be all different; {ids[count > 1][0]} comes {count.max()} times."
        )
    return found


def _whole(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape != shape:
        raise ValueError(
            f"`{name}` needs whole numbers of shape {shape}; got {array.dtype} of shape "
            f"{array.shape}."
        )
    if array.dtype == np.uint64 and (array > np.uint64(2**63 - 1)).any():
        raise ValueError(f"`{name}` must be below 2^63; got {array.max()}.")
    return array.astype(np.int64)


def _mask(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    small = shape[0], *shape[2:]
    if array.dtype.kind not in "biu" or array.shape not in (shape, small):
        raise ValueError(
            f"`mask` needs booleans or whole numbers of shape {shape} or {small}; got "
            f"{array.dtype} of shape {array.shape}."
        )
    return (array != 0).astype(np.uint8)


def _flags(name: str, value: Any, n: int) -> np.ndarray | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "biu" or array.shape != (n,):
        raise ValueError(f"`{name}` needs {n} booleans; got {array.dtype} of shape {array.shape}.")
    return array != 0


def _of_stamps(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if value is None:
        return None
    array = np.asarray(getattr(value, "value", value))
    if array.dtype.kind not in "fiu" or array.shape != shape:
        raise ValueError(
            f"`{name}` needs numbers of shape {shape}; got {array.dtype} of shape {array.shape}."
        )
    return array.astype(float)


def _truth(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.shape != shape:
        raise ValueError(
            f"`truth` needs numbers of shape {shape}; {name!r} is {array.dtype} of shape "
            f"{array.shape}."
        )
    return array.astype(float)


def _scale(value: Any) -> float | None:
    if value is not None and not (np.ndim(value) == 0 and 0 < float(value) < np.inf):
        raise ValueError(f"`pixel_scale` must be one positive number or None; got {value!r}.")
    return None if value is None else float(value)


def _zero_points(value: Any, unit: str, n_bands: int) -> tuple[float, ...] | None:
    of_unit = ab_zero_point(unit)
    if value is None:
        return None if of_unit is None else (of_unit,) * n_bands
    array = np.asarray(value, float)
    if array.shape not in ((), (n_bands,)) or not np.isfinite(array).all():
        raise ValueError(
            f"`zero_points` needs {n_bands} finite numbers, one a band, or one for all; got "
            f"{value!r}."
        )
    return tuple(np.broadcast_to(array, n_bands).tolist())


def _oversampling(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"`oversampling` must be a whole number of at least 1; got {value!r}.")
    return int(value)
