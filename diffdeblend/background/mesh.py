"""The sky of an image or of a stack of stamps from clipped statistics in boxes."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from diffdeblend.backend import Backend, on_host
from diffdeblend.background.background_map import BackgroundMap
from diffdeblend.background.mesh_repair import fill_holes, filter_mesh
from diffdeblend.background.sorted_rows import LEVELS, SCATTERS, KeptRows, clip_rows
from diffdeblend.background.stamp import box_statistics
from diffdeblend.cores import in_threads

# Pixels that are sorted at a time: their running sums take 16 MB in double precision.
_CHUNK = 1 << 20

Estimator = str | Callable[..., Any]


def estimate_background(
    data: Any,
    box_size: int | tuple[int, int],
    *,
    mask: Any = None,
    coverage_mask: Any = None,
    fill_value: float = 0.0,
    exclude_percentile: float | None = 10.0,
    filter_size: int | tuple[int, int] = (3, 3),
    filter_threshold: float | None = None,
    sigma: float | None = 3.0,
    max_iterations: int | None = 10,
    estimator: Estimator = "sextractor",
    rms_estimator: Estimator = "std",
    backend: Backend = "auto",
) -> BackgroundMap:
    """Level and scatter of the sky, box by box, joined by a cubic spline.

    The numbers are those of photutils' `Background2D` (3.1). The pixels of each box are clipped at
    `sigma` standard deviations about their median; boxes that keep too few are filled from their
    neighbours, which the result says and, where clipping was the cause, a warning too.

    - `data`: image `(y, x)`, or stack of stamps `(stamp, y, x)`, each stamp a sky of its own.
        Floats keep their precision, integers become float32. A `Quantity` or an `NDData` hands on
        its unit, an `NDData` also its mask.
    - `box_size`: pixels, or `(ny, nx)`; from the first pixel on. What is left over at the top and
        right is boxes of its own, which keep enough pixels only if nearly full.
    - `mask`: true where there is light of sources or a bad pixel; the sky there is interpolated.
    - `coverage_mask`: true where the detector did not look; the maps are `fill_value` there.
    - `exclude_percentile`: a box of which more than so many percent are masked, clipped, or outside
        the image is excluded. A stamp of a stack that would lose all boxes keeps those with any
        pixel. None: 10, and an image that would lose all keeps them too, with a warning.
    - `filter_size`: window of the median filter of the mesh, odd, in boxes; 1 for none.
    - `filter_threshold`: filter only boxes whose level is above it.
    - `sigma`, `max_iterations`: of the clipping; `sigma=None` for none, `max_iterations=None` for
        as often as it takes.
    - `estimator`: of the level: "sextractor", "mean", "median", "mode" (3 median - 2 mean), "mmm"
        (the same), "biweight_location", or a function of values `(box, pixel)`, NaN where they
        are not used, and `axis`, as numpy's NaN-functions and photutils' estimators are.
    - `rms_estimator`: of the scatter: "std", "mad_std", "biweight_scale", or such a function.
    - `backend`: "host" is numpy; "jax" runs `stamp_background`; "auto" takes the host where JAX
        has no accelerator.

    Pixels that are not finite are masked, with a warning.

    **Raises:** `ValueError` for a wrong shape, setting or name, or if an image has no box left.

    ??? cite
        Bertin & Arnouts (1996), section 7.1.
    """
    data, mask, unit = plain_values(data, mask)
    if data.ndim not in (2, 3) or 0 in data.shape[-2:]:
        raise ValueError(f"`data` needs shape (y, x) or (stamp, y, x); got {data.shape}.")
    mask = check_mask("mask", mask, data.shape)
    coverage = check_mask("coverage_mask", coverage_mask, data.shape)
    given = _pair("box_size", box_size)
    box = min(given[0], data.shape[-2]), min(given[1], data.shape[-1])
    window = _pair("filter_size", filter_size)
    if not all(n % 2 for n in window):
        raise ValueError(f"`filter_size` must be odd; got {filter_size!r}.")
    # What a survey, or a command, would rather have than an error.
    forgiving = data.ndim == 3 or exclude_percentile is None
    exclude_percentile = 10.0 if exclude_percentile is None else exclude_percentile
    statistics = _on_host if on_host(backend) else _on_device
    settings = _Settings(sigma, max_iterations, estimator, rms_estimator)
    _check_settings(settings, exclude_percentile)
    hidden = mask if coverage is None else coverage if mask is None else mask | coverage
    stack = data if data.ndim == 3 else data[None]
    hidden_stack = hidden if hidden is None or hidden.ndim == 3 else hidden[None]
    level, scatter, kept, used, odd = statistics(stack, hidden_stack, box, settings)
    if odd:
        warnings.warn("`data` has values that are not finite; they are masked.", stacklevel=2)
    enough = (1 - exclude_percentile / 100) * box[0] * box[1]
    excluded = (kept < enough) | (kept == 0)
    # Too few in the image or outside the mask is what the caller knows; this he does not.
    crowded = excluded & (used >= enough) & (kept < (1 - exclude_percentile / 100) * used)
    empty = excluded.all(axis=(1, 2))
    if data.ndim == 2 and empty[0] and not (forgiving and (kept > 0).any()):
        raise ValueError(
            f"No box of {box} pixels has {enough:g} of them left after masking and clipping: give "
            f"a larger `exclude_percentile` than {exclude_percentile:g}, or another `mask`."
        )
    # Where there is none to borrow from, crowded boxes are better than nothing.
    if forgiving and data.ndim == 2:
        crowded |= excluded & empty[:, None, None] & (kept > 0)
    holes = excluded & ~(empty[:, None, None] & (kept > 0))
    level[holes], scatter[holes] = np.nan, np.nan
    level, scatter = fill_holes(level), fill_holes(scatter)
    smooth, smooth_scatter = filter_mesh(level, window), filter_mesh(scatter, window)
    if filter_threshold is not None:
        bright = level > filter_threshold
        smooth = np.where(bright, smooth, level)
        smooth_scatter = np.where(bright, smooth_scatter, scatter)
    n_crowded = int(np.count_nonzero(crowded))
    if n_crowded:
        warnings.warn(
            f"{n_crowded} of {crowded.size} boxes lost more than {exclude_percentile:g} % of their "
            "pixels to clipping: they are crowded, and take the sky of other boxes of their image, "
            "if it has any. Mask the sources, or give larger boxes or a larger "
            "`exclude_percentile`.",
            stacklevel=2,
        )
    meshes = smooth, smooth_scatter, kept, excluded, crowded
    level, scatter, *counts = (values if data.ndim == 3 else values[0] for values in meshes)
    if unit is not None:
        level, scatter = level << unit, scatter << unit
    kept, excluded, crowded = counts
    return BackgroundMap(
        level, scatter, kept, excluded, crowded, box, data.shape, coverage, fill_value, unit
    )


class _Settings(NamedTuple):
    sigma: float | None
    max_iterations: int | None
    estimator: Estimator
    rms_estimator: Estimator


def _check_settings(settings: _Settings, exclude_percentile: float) -> None:
    if not 0 <= exclude_percentile <= 100:
        raise ValueError(f"`exclude_percentile` must be 0 to 100; got {exclude_percentile!r}.")
    sigma, most = settings.sigma, settings.max_iterations
    if sigma is not None and not sigma > 0:
        raise ValueError(f"`sigma` must be positive or None; got {sigma!r}.")
    if most is not None and most < 1:
        raise ValueError(f"`max_iterations` must be at least 1 or None; got {most!r}.")
    check_name("estimator", settings.estimator, LEVELS)
    check_name("rms_estimator", settings.rms_estimator, SCATTERS)


def _on_host(
    stack: np.ndarray, hidden: np.ndarray | None, box: tuple[int, int], settings: _Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Level, scatter, pixels kept and pixels used of each box, `(stamp, my, mx)`."""
    n_stamps, (ny, nx) = len(stack), stack.shape[1:]
    my, mx = -(-ny // box[0]), -(-nx // box[1])
    level = np.empty((n_stamps, my, mx), stack.dtype)
    scatter = np.empty_like(level)
    kept, used = np.empty(level.shape, np.int64), np.empty(level.shape, np.int64)

    def measure(part: tuple[slice, slice, slice, int, int]) -> bool:
        """Boxes of one height and width: some stamps, some rows of boxes, some columns."""
        stamps, down, across, height, width = part
        rows = slice(down.start * box[0], (down.stop - 1) * box[0] + height)
        columns = slice(across.start * box[1], (across.stop - 1) * box[1] + width)
        pixels = _boxes(stack[stamps, rows, columns], height, width)
        unmasked = pixels.shape[1]
        if hidden is not None:
            here = _boxes(hidden[stamps, rows, columns], height, width)
            np.copyto(pixels, np.nan, where=here)
            unmasked = unmasked - np.count_nonzero(here, axis=1)
        clipped = clip_rows(pixels, settings.sigma, settings.max_iterations)
        target = (stamps, down, across)
        shape = level[target].shape
        level[target] = estimated(settings.estimator, LEVELS, clipped).reshape(shape)
        scatter[target] = estimated(settings.rms_estimator, SCATTERS, clipped).reshape(shape)
        kept[target] = clipped.n.reshape(shape)
        used[target] = clipped.n_used.reshape(shape)
        return bool(np.any(clipped.n_used < unmasked))

    odd = in_threads(measure, list(_parts(n_stamps, (ny, nx), box)))
    return level, scatter, kept, used, any(odd)


def _on_device(
    stack: np.ndarray, hidden: np.ndarray | None, box: tuple[int, int], settings: _Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """As `_on_host`, in JAX; in its precision."""
    good = np.ones(stack.shape, bool) if hidden is None else ~hidden
    statistics = partial(
        box_statistics,
        box=box,
        sigma=settings.sigma,
        max_iterations=settings.max_iterations,
        estimator=settings.estimator,
        rms_estimator=settings.rms_estimator,
    )
    found = jax.device_get(jax.vmap(statistics)(stack, good))
    # What comes from the device may not be written to.
    level, scatter, kept, used = (np.array(values) for values in found)
    return level, scatter, kept, used, bool(used.sum() < np.count_nonzero(good))


def _parts(
    n_stamps: int, shape: tuple[int, int], box: tuple[int, int]
) -> Iterator[tuple[slice, slice, slice, int, int]]:
    """Slices over stamps and boxes, with the size of these: the full ones, and what is left."""
    strips = [
        [(0, n // b, b)] * (n >= b) + [(n // b, n // b + 1, n % b)] * (n % b > 0)
        for n, b in zip(shape, box, strict=True)
    ]
    for top, bottom, height in strips[0]:
        for left, right, width in strips[1]:
            across = slice(left, right)
            row = (right - left) * height * width
            step = max(1, min(bottom - top, _CHUNK // row))
            stamps = max(1, _CHUNK // (row * step))
            for first in range(0, n_stamps, stamps):
                some = slice(first, min(first + stamps, n_stamps))
                for y in range(top, bottom, step):
                    yield some, slice(y, min(y + step, bottom)), across, height, width


def _boxes(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A copy with one row of pixels a box."""
    n, ny, nx = pixels.shape
    split = pixels.reshape(n, ny // height, height, nx // width, width)
    rows = np.ascontiguousarray(split.swapaxes(2, 3)).reshape(-1, height * width)
    # One box a row and column: nothing was moved, and sorting would reach the caller's pixels.
    return rows.copy() if np.shares_memory(rows, pixels) else rows


def plain_values(data: Any, mask: Any) -> tuple[np.ndarray, Any, Any]:
    """Plain floats, the mask and the unit."""
    unit = getattr(data, "unit", None)
    if hasattr(data, "uncertainty"):
        own = data.mask
        if own is not None:
            mask = own if mask is None else np.asarray(mask, bool) | own
        values = np.asarray(data.data)
    else:
        values = np.asarray(data)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"`data` needs real numbers; got {values.dtype}.")
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    # FITS files have the other byte order, in which numpy sorts slowly.
    return values.astype(values.dtype.newbyteorder("="), copy=False), mask, unit


def check_mask(name: str, mask: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(
            f"`{name}` needs booleans of shape {shape}; got {mask.dtype} of shape {mask.shape}."
        )
    return mask


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = np.atleast_1d(np.asarray(value))
    if pair.dtype.kind not in "iu" or pair.size not in (1, 2) or pair.ndim > 1 or pair.min() < 1:
        raise ValueError(f"`{name}` must be a positive integer or (ny, nx); got {value!r}.")
    return int(pair[0]), int(pair[-1])


def check_name(name: str, given: Estimator, known: Mapping[str, Any]) -> None:
    if not callable(given) and given not in known:
        raise ValueError(f"`{name}` must be a function or one of {sorted(known)}; got {given!r}.")


def estimated(
    given: Estimator, known: Mapping[str, Callable[[KeptRows], np.ndarray]], rows: KeptRows
) -> np.ndarray:
    if callable(given):
        return np.asarray(given(rows.with_nan(), axis=1))
    return known[given](rows)
