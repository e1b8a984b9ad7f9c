"""What figures of scores take from them: columns, their ranges, and what they are called."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffdeblend.score.score import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By the name of a column: smallest and largest value shown.
Limits = Mapping[str, tuple[float, float]]
Given = Scores | Mapping[str, Scores]

# Spread over powers of ten.
_LOGARITHMIC = ("snr", "msr", "rmse", "relative_residual")
_IMAGES = ("psnr", "ssim", "iou")
SOURCE = ("magnitude", "size", "snr", "blendedness", "distance_closest_galaxy")
_WORDS = {
    "snr": "signal to noise",
    "size": "half-light radius (arcsec)",
    "distance_detection": "distance of the detection",
    "distance_closest_galaxy": "distance to the closest source (pixels)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "iou": "IoU",
    "msr": "mean square residual",
    "rmse": "RMSE (electrons)",
    "f1": "F1",
}


def named_scores(scores: Given) -> dict[str, Scores]:
    """By name.

    **Raises:** `ValueError` if there are none.
    """
    named = {"": scores} if isinstance(scores, Scores) else dict(scores)
    if not named:
        raise ValueError("`scores` is empty; give those of at least one measure function.")
    return named


def default_columns(named: Mapping[str, Scores]) -> list[str]:
    """Columns of images, segmentations and fluxes that there are; else that of positions."""
    bands = dict.fromkeys(one.settings["band"] for one in named.values())
    fluxes = [f"{kind}_{band}" for band in bands for kind in ("flux_error", "pull")]
    found = [
        column
        for column in (*_IMAGES, *fluxes)
        if any(
            is_number(one, column) and np.isfinite(judged(one, column)).any()
            for one in named.values()
        )
    ]
    return found or ["distance_detection"]


def target_names(named: Mapping[str, Scores]) -> list[str]:
    return list(dict.fromkeys(t for one in named.values() for t in one.settings["target_measures"]))


def is_number(one: Scores, column: str) -> bool:
    table = one.per_source
    return column in table.colnames and np.asarray(table[column]).dtype.kind in "biuf"


def checked_columns(
    named: Mapping[str, Scores],
    columns: Sequence[str] | None,
    default: Sequence[str],
    *,
    name: str = "columns",
    more: tuple[str, ...] = (),
) -> list[str]:
    """The columns asked for, checked."""
    if isinstance(columns, str):
        raise ValueError(f"`{name}` needs a list of columns; got {columns!r}.")
    chosen = list(default if columns is None else columns)
    for column in chosen:
        if column not in more and not any(is_number(one, column) for one in named.values()):
            known = sorted({c for one in named.values() for c in one.per_source.colnames})
            raise ValueError(f"`{name}` must be columns of numbers, of {known}; got {column!r}.")
    if not chosen:
        raise ValueError(f"`{name}` is empty; give at least one.")
    return chosen


def judged(one: Scores, column: str) -> np.ndarray:
    """A column, of the sources that count; NaN if there is none."""
    rows = np.asarray(one.per_source["judged"])
    if not is_number(one, column):
        return np.full(int(rows.sum()), np.nan)
    return np.asarray(one.per_source[column], float)[rows]


def column_values(named: Mapping[str, Scores], column: str) -> list[tuple[str, np.ndarray]]:
    """A column of the scores that have it, of the sources that count."""
    return [(n, judged(one, column)) for n, one in named.items() if is_number(one, column)]


def set_scale(axes: "Axes", column: str, values: Iterable[np.ndarray], axis: str = "x") -> None:
    """A logarithmic axis for what is spread over powers of ten and always positive."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    pooled = _finite(values)
    if column in _LOGARITHMIC and pooled.size and (pooled > 0).all():
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        own = axes.xaxis if axis == "x" else axes.yaxis
        # Often less than a power of ten is shown: its ends alone would be no scale.
        own.set_major_locator(LogLocator(subs=(1, 2, 5)))
        own.set_major_formatter(StrMethodFormatter("{x:g}"))
        own.set_minor_formatter(NullFormatter())


def column_range(
    column: str, values: Iterable[np.ndarray], limits: Limits | None, margin: float = 0.0
) -> tuple[float, float]:
    """Limits of an axis: those given, or three times the central 80 % of all finite values.

    But no further than there are values: a Gaussian is shown to 3.8 standard deviations, and a few
    gross errors do not squeeze all others into one bin.

    - `margin`: added at both ends, as a share of the range, unless the limits are given.

    **Raises:** `ValueError` for limits that do not rise.
    """
    if limits is not None and column in limits:
        low, high = limits[column]
        if not low < high:
            raise ValueError(f"`limits` of {column!r} must rise; got {limits[column]}.")
        return float(low), float(high)
    pooled = _finite(values)
    if not pooled.size:
        return 0.0, 1.0
    logarithmic = column in _LOGARITHMIC and (pooled > 0).all()
    pooled = np.log(pooled) if logarithmic else pooled
    low, high = np.quantile(pooled, [0.1, 0.9])
    low, high = 2 * low - high, 2 * high - low
    low, high = max(low, pooled.min()), min(high, pooled.max())
    if not low < high:
        low, high = low - 0.5, low + 0.5
    low, high = low - margin * (high - low), high + margin * (high - low)
    low, high = np.exp([low, high]) if logarithmic else (low, high)
    return float(low), float(high)


def _finite(values: Iterable[np.ndarray]) -> np.ndarray:
    pooled = np.concatenate([np.zeros(0), *values])
    return pooled[np.isfinite(pooled)]


def column_word(column: str) -> str:
    """What is written at an axis."""
    return _WORDS.get(column, column.replace("_", " "))
