"""All measurements of all sources of an image."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from diffdeblend.cores import available_cores
from diffdeblend.exposure import Exposure
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.one_band import band_of
from diffdeblend.quantities.compiling import compiler_options
from diffdeblend.quantities.psf_stamps import PSFStamps
from diffdeblend.quantities.source_cutter import SourceCutter
from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.standard import STANDARD, Measurement

Columns = dict[str, np.ndarray]
Given = Mapping[str, Mapping[str, np.ndarray]]

# Sides of stamps. Each that is needed compiles a program, some seconds the first time.
SIZES = (32, 64, 128)
# Pixels of the stamps that go through a program together: what caches hold; on an accelerator all.
_PIXELS, _PIXELS_ON_DEVICE = 2**17, 2**24


def measure_sources(
    exposure: Exposure,
    records: SourceRecords | Any,
    *,
    band: str | None = None,
    measurements: Mapping[str, Measurement] = STANDARD,
    places: Any = None,
    given: Given | None = None,
    noise: str | float = "measure",
    sizes: Sequence[int] = SIZES,
    seed: int = 1,
) -> Columns:
    """Every measurement of every source in one band, as columns with a row a source. Host side.

    Each source is cut out with its own pixels; all others are replaced by noise. Stamps of one size
    go through one compiled program, many at a time; a second call compiles nothing, whatever the
    number of sources. What a measurement calls `<key>` is the column `<name>_<key>`, and its `x`
    and `y` are in pixels of the image. A measurement that asks for more room, by a key `reach` in
    pixels from the peak, gets the next larger stamp while there is one.

    - `records`: sources with footprints, of which `deblend_footprints` makes children; or bare
        positions, shape `(source, 2)`, x and y in pixels: then nothing is replaced, and the
        footprint is a disc of the PSF's noise-equivalent area. What is not finite or off the image
        is measured as far as it goes, with flags.
    - `band`: name; None for the only one.
    - `measurements`: by name, in their order: functions of a `SourceStamp` and of what was found
        before. `{**STANDARD, "mine": my_function}` adds one. The same objects in every call, so
        that the compiled program is found again.
    - `places`: where each source is sought, `(source, 2)`, if not at its peak.
    - `given`: numbers of each source that measurements find as if measured, by name and key.
    - `noise`, `seed`: of what replaces sources; see `replace_noise.draw_replacement`.
    - `sizes`: sides of stamps, in pixels.

    **Raises:** `ValueError` for an unknown band or noise, positions of another shape, sizes that
    are not increasing, or given columns of another length.
    """
    names = tuple(measurements.items())
    _check_sizes(sizes)
    place = _places(records, places)
    n = len(place)
    known = _checked(given, n)
    number = band_of(exposure, band)
    cutter = SourceCutter.of(exposure, records, number, pad=sizes[-1], noise=noise, seed=seed)
    psf = PSFStamps.of(exposure.psf, number)
    rows = cutter.record_columns()
    reach = max((float(getattr(m, "reach", 0.0)) for m in measurements.values()), default=0.0)
    wanted = np.maximum(cutter.extent(place), reach)
    halves = np.array([size // 2 - 1 for size in sizes])

    columns: Columns = {}
    todo, size_of = np.arange(n), np.full(n, -1)
    # A source that needs no more room than it had is done.
    first = True
    while todo.size or first:
        first = False
        bucket = np.minimum(np.searchsorted(halves, wanted[todo]), len(sizes) - 1)
        fresh = bucket > size_of[todo]
        todo, bucket = todo[fresh], bucket[fresh]
        if not todo.size and columns:
            break
        for which in np.unique(bucket) if todo.size else [0]:
            chosen = todo[bucket == which]
            made = _measured(names, cutter, psf, place, known, chosen, sizes[which])
            if not columns:
                columns = {name: np.zeros(n, v.dtype) for name, v in made.items()}
            for name, values in made.items():
                columns[name][chosen] = values
        size_of[todo] = bucket
        asked = [v for name, v in columns.items() if name.endswith("_reach")]
        for values in asked:
            wanted[todo] = np.fmax(wanted[todo], values[todo])
    return rows | {name: v for name, v in columns.items() if not name.endswith("_reach")}


def _measured(
    names: tuple,
    cutter: SourceCutter,
    psf: PSFStamps,
    place: np.ndarray,
    given: Given,
    chosen: np.ndarray,
    size: int,
) -> Columns:
    """Columns of some sources, on stamps of one size."""
    on_cpu = jax.default_backend() == "cpu"
    capacity = max(8, (_PIXELS if on_cpu else _PIXELS_ON_DEVICE) // size**2)
    parts = [chosen[i : i + capacity] for i in range(0, len(chosen), capacity)]
    if not len(chosen):
        return _empty(names, cutter, psf, given, size)
    double = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]

    def work(part: np.ndarray) -> Columns:
        # Free places repeat the first source: their values are sound, and dropped.
        rows = np.full(capacity, part[0])
        rows[: len(part)] = part
        # A switch that was set for the caller's thread alone would not reach this one.
        with jax.enable_x64(double):
            stamps = cutter.cut(rows, place, psf, size)
            found = jax.device_get(_program()(names, stamps, _shifted(given, rows, stamps)))
        origin = {"x": stamps.x0, "y": stamps.y0}
        return {
            f"{name}_{key}": _on_image(values, origin.get(key))[: len(part)]
            for name, columns in found.items()
            for key, values in columns.items()
        }

    # The first compiles; the others find the program.
    done = [work(parts[0])]
    with ThreadPoolExecutor(available_cores() if on_cpu else 1) as pool:
        done += pool.map(work, parts[1:])
    return {name: np.concatenate([part[name] for part in done]) for name in done[0]}


def _on_image(values: Any, origin: Any) -> np.ndarray:
    """Places on the stamp as places on the image, in double precision."""
    return np.asarray(values) if origin is None else np.asarray(values, float) + origin


@cache
def _program() -> Callable[..., dict[str, dict[str, Any]]]:
    """`_of_all`, compiled."""
    return jax.jit(_of_all, static_argnums=0, compiler_options=compiler_options())


def _of_all(names: tuple, stamps: SourceStamp, given: Any) -> dict[str, dict[str, Any]]:
    # One PSF for all is not one of many: what is worked out of it alone is so once.
    axes = jax.tree.map(lambda _: 0, stamps)
    if stamps.psf.ndim == 2:
        axes = replace(axes, psf=None)
    return jax.vmap(partial(_one, names), in_axes=(axes, 0))(stamps, given)


def _one(names: tuple, stamp: SourceStamp, given: Any) -> dict[str, dict[str, Any]]:
    found = dict(given)
    for name, measurement in names:
        found[name] = measurement(stamp, found)
    return {name: found[name] for name, _ in names}


def _shifted(given: Given, rows: np.ndarray, stamps: SourceStamp) -> dict[str, dict[str, Any]]:
    """Given columns of some rows, places counted from the first pixel of each stamp."""
    origin: dict[str, Any] = {"x": stamps.x0, "y": stamps.y0}
    dtype = np.asarray(stamps.image).dtype

    def one(key: str, values: np.ndarray) -> np.ndarray:
        values = values[rows]
        # Flags stay booleans: less a zero they would be integers.
        values = values - origin[key] if key in origin else values
        return values.astype(dtype) if values.dtype.kind == "f" else values

    return {
        name: {key: one(key, values) for key, values in columns.items()}
        for name, columns in given.items()
    }


def _empty(names: tuple, cutter: SourceCutter, psf: PSFStamps, given: Given, size: int) -> Columns:
    """The columns of no source."""
    rows = np.zeros(1, int)
    blank = {n: {k: np.zeros(1, v.dtype) for k, v in c.items()} for n, c in given.items()}
    stamps = cutter.blank(psf, size)
    found = jax.eval_shape(partial(_of_all, names), stamps, _shifted(blank, rows, stamps))
    return {
        f"{name}_{key}": np.zeros(0, float if key in ("x", "y") else values.dtype)
        for name, columns in found.items()
        for key, values in columns.items()
    }


def _places(records: Any, places: Any) -> Float[np.ndarray, "source 2"]:
    if isinstance(records, SourceRecords):
        peaks = np.stack([records.peak_x, records.peak_y], axis=1).astype(float)
    else:
        peaks = np.asarray(records, float)
        if peaks.ndim != 2 or peaks.shape[1] != 2:
            raise ValueError(
                f"`records` must be source records or positions of shape (source, 2); "
                f"got shape {peaks.shape}."
            )
    if places is None:
        return peaks
    own = np.asarray(places, float)
    if own.shape != peaks.shape:
        raise ValueError(f"`places` needs shape {peaks.shape}; got {own.shape}.")
    # What is not known is sought at the peak.
    return np.where(np.isfinite(own), own, peaks)


def _checked(given: Given | None, n: int) -> dict[str, dict[str, np.ndarray]]:
    columns = {
        name: {key: np.asarray(values) for key, values in mapping.items()}
        for name, mapping in (given or {}).items()
    }
    for name, mapping in columns.items():
        for key, values in mapping.items():
            if values.shape != (n,):
                raise ValueError(
                    f"`given` needs one number a source, shape ({n},); "
                    f"got {values.shape} for {name!r}, {key!r}."
                )
    return columns


def _check_sizes(sizes: Sequence[int]) -> None:
    whole = all(isinstance(size, int) and size >= 8 for size in sizes)
    if not sizes or not whole or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"`sizes` must be increasing integers of at least 8; got {sizes!r}.")
