"""Clipped statistics of many boxes at once: one sort, sums from the middle, no loop. Host side."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.background.statistics import MAD_TO_STD

# Values in double precision that a core keeps near.
_IN_CACHE = 1 << 15


@dataclass(frozen=True)
class KeptRows:
    """What is left of the rows after clipping, and its moments.

    - `values`: each row ascending, what is not used as NaN at its end.
    - `first`, `stop`: the places of a row that are kept are `first` to `stop - 1`.
    - `mean`, `median`, `std`: of what is kept, in double precision; NaN where that is nothing.
    - `n_used`: values of a row before clipping.
    """

    values: Float[np.ndarray, "row n"]
    first: Int[np.ndarray, "row"]
    stop: Int[np.ndarray, "row"]
    mean: Float[np.ndarray, "row"]
    median: Float[np.ndarray, "row"]
    std: Float[np.ndarray, "row"]
    n_used: Int[np.ndarray, "row"]

    @property
    def n(self) -> Int[np.ndarray, "row"]:
        """How many values are kept."""
        return self.stop - self.first

    def with_nan(self) -> Float[np.ndarray, "row n"]:
        """The values, NaN where they are not kept."""
        place = np.arange(self.values.shape[1])
        kept = (place >= self.first[:, None]) & (place < self.stop[:, None])
        return np.where(kept, self.values, np.nan)


def clip_rows(
    values: Float[np.ndarray, "row n"], sigma: float | None, max_iterations: int | None
) -> KeptRows:
    """Sigma-clip each row about its median. `values` is sorted in place.

    The same as `astropy.stats.SigmaClip` with its defaults: bounds `median +- sigma * std` of what
    is left, again until nothing more is lost; the last bounds, closed, are those of the result.

    - `values`: floats; what is not finite is not used.
    - `sigma`: None for no clipping. `max_iterations`: None for as many as it takes.
    """
    values.sort(axis=1)
    n_rows, length = values.shape
    n_used = np.full(n_rows, length)
    # Sorted, infinities and NaN are at the ends: no pass over all pixels to find them.
    odd = np.flatnonzero(~np.isfinite(values[:, 0]) | ~np.isfinite(values[:, -1]))
    if odd.size:
        some = values[odd]
        some[np.isinf(some)] = np.nan
        some.sort(axis=1)
        values[odd] = some
        n_used[odd] = length - np.count_nonzero(np.isnan(some), axis=1)
    centre = np.zeros(n_rows)
    has = n_used > 0
    centre[has] = values[has, n_used[has] // 2]
    sums, squares = _sums_from_the_middle(values, centre, odd)
    rows = np.arange(n_rows)

    def moments(
        which: np.ndarray, first: np.ndarray, stop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = stop - first
        one = np.maximum(n, 1)
        mean = (sums[which, stop] - sums[which, first]) / one
        square = (squares[which, stop] - squares[which, first]) / one
        std = np.sqrt(np.maximum(square - mean * mean, 0))
        high = np.minimum(first + n // 2, length - 1)
        low = np.maximum(np.minimum(first + (n - 1) // 2, length - 1), 0)
        median = 0.5 * (values[which, low].astype(float) + values[which, high])
        # Equal values have no spread; the difference of two sums says otherwise.
        last = np.clip(stop - 1, 0, length - 1)
        std[values[which, np.minimum(first, length - 1)] == values[which, last]] = 0
        mean, median, std = (
            np.where(n > 0, v, np.nan) for v in (mean + centre[which], median, std)
        )
        return mean, median, std

    first, stop = np.zeros(n_rows, np.int64), n_used.copy()
    if sigma is not None:
        active = rows[has]
        passes = 0
        # Both from what was left; the result is what lies in the last bounds, a hair more at times.
        left, right = first.copy(), stop.copy()
        while active.size and (max_iterations is None or passes < max_iterations):
            _, median, std = moments(active, left[active], right[active])
            low, high = _within(
                values, active, n_used[active], median - sigma * std, median + sigma * std
            )
            first[active], stop[active] = low, high
            low, high = np.maximum(low, left[active]), np.minimum(high, right[active])
            kept = np.maximum(high - low, 0)
            changed = (kept < right[active] - left[active]) & (kept > 0)
            left[active], right[active] = low, high
            active = active[changed]
            passes += 1
    return KeptRows(values, first, stop, *moments(rows, first, stop), n_used)


def _sums_from_the_middle(
    values: np.ndarray, centre: np.ndarray, odd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Running sums of values - centre and its square, zero at the middle place of a row.

    From the middle outwards, so that an outlier's rounding spoils only sums that contain it.
    """
    n_rows, length = values.shape
    middle = length // 2
    sums, squares = np.empty((n_rows, length + 1)), np.empty((n_rows, length + 1))
    bad = np.zeros(n_rows, bool)
    bad[odd] = True
    # A few rows at a time: they stay in the cache from one step to the next.
    step = max(1, _IN_CACHE // length)
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        shifted = np.subtract(values[rows], centre[rows, None], dtype=float)
        if bad[rows].any():
            np.nan_to_num(shifted, copy=False)
        for found in (sums[rows], squares[rows]):
            found[:, middle] = 0
            np.cumsum(shifted[:, middle:], axis=1, out=found[:, middle + 1 :])
            below = found[:, :middle]
            np.cumsum(shifted[:, :middle][:, ::-1], axis=1, out=below[:, ::-1])
            np.negative(below, out=below)
            shifted *= shifted
    return sums, squares


def _within(
    values: np.ndarray, rows: np.ndarray, n_used: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First place with a value of at least `low`, and first with one above `high`, by bisection."""
    # Above `high` is at least the next number; so both are one search.
    bound = np.concatenate([low, np.nextafter(high, np.inf)])
    start = np.concatenate([rows, rows]) * values.shape[1]
    flat = values.reshape(-1)
    left, right = np.zeros(bound.size, np.int64), np.concatenate([n_used, n_used])
    for _ in range(int(values.shape[1]).bit_length()):
        middle = (left + right) >> 1
        # At the end of the search the place may be one beyond the row.
        below = flat[np.minimum(start + middle, flat.size - 1)] < bound
        below &= left < right
        left = np.where(below, middle + 1, left)
        right = np.where(below, right, middle)
    return left[: rows.size], left[rows.size :]


def sextractor_mode_of(rows: KeptRows) -> Float[np.ndarray, "row"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        crowded = np.abs(rows.mean - rows.median) / rows.std >= 0.3
    mode = np.where(crowded, rows.median, 2.5 * rows.median - 1.5 * rows.mean)
    return np.where(rows.std == 0, rows.mean, mode)


def mode_of(rows: KeptRows) -> Float[np.ndarray, "row"]:
    return 3 * rows.median - 2 * rows.mean


def mad_of(rows: KeptRows) -> Float[np.ndarray, "row"]:
    """Median absolute deviation from the median."""
    away = np.abs(rows.with_nan() - rows.median[:, None])
    away.sort(axis=1)
    n = np.maximum(rows.n, 1)
    all_ = np.arange(n.size)
    return 0.5 * (away[all_, (n - 1) // 2] + away[all_, n // 2])


def biweight_location_of(rows: KeptRows) -> Float[np.ndarray, "row"]:
    away, weight, _ = _tukey(rows, 6.0)
    weight **= 2
    total = weight.sum(axis=1)
    moved = (away * weight).sum(axis=1) / np.where(total > 0, total, 1)
    return rows.median + moved


def biweight_scale_of(rows: KeptRows) -> Float[np.ndarray, "row"]:
    away, weight, u2 = _tukey(rows, 9.0)
    above = (away**2 * weight**4).sum(axis=1)
    below = (weight * (1 - 5 * u2)).sum(axis=1)
    scale = np.sqrt(rows.n * above) / np.where(below == 0, 1, np.abs(below))
    return np.where(rows.n > 0, scale, np.nan)


def _tukey(rows: KeptRows, c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance from the median, 1 - u^2 where |u| < 1 else 0, and u^2, with u of Tukey."""
    mad = mad_of(rows)[:, None]
    away = np.nan_to_num(rows.with_nan() - rows.median[:, None])
    kept = np.isfinite(rows.with_nan()) & (mad > 0)
    u2 = np.where(kept, away / np.where(mad > 0, c * mad, 1), 2.0) ** 2
    return away, np.where(u2 < 1, 1 - u2, 0.0), np.where(u2 < 1, u2, 0.0)


LEVELS: dict[str, Callable[[KeptRows], np.ndarray]] = {
    "sextractor": sextractor_mode_of,
    "mean": lambda rows: rows.mean,
    "median": lambda rows: rows.median,
    "mode": mode_of,
    "mmm": mode_of,
    "biweight_location": biweight_location_of,
}
SCATTERS: dict[str, Callable[[KeptRows], np.ndarray]] = {
    "std": lambda rows: rows.std,
    "mad_std": lambda rows: MAD_TO_STD * mad_of(rows),
    "biweight_scale": biweight_scale_of,
}
