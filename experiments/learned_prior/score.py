"""How far estimates are from the truth: pure functions of arrays.

Errors `(blend, source)` are relative: flux over truth minus 1.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value with the limits between which it lies nine times out of ten."""

    value: float
    low: float
    high: float


# Standard deviations of a normal number within which so much of it lies.
NOMINAL = {0.5: 0.6745, 0.68: 0.9945, 0.95: 1.9600, 0.997: 2.9677}


def relative(flux: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Flux over truth minus 1."""
    return flux / true - 1


def median_error(error: np.ndarray) -> float:
    """Median of |dF/F|; what is no number counts as infinitely wrong."""
    return float(np.median(np.nan_to_num(np.abs(error), nan=np.inf)))


def faint_one(value: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of each blend the entry of its faintest source, `(blend,)`."""
    return np.take_along_axis(value, np.argmin(true, axis=1)[:, None], axis=1)[:, 0]


def image_error(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared difference over squared truth of each source's noiseless image, `(blend, source)`.

    - `images`, `truth`: `(blend, source, band, y, x)`.
    """
    axes = (2, 3, 4)
    return np.sum((images - truth) ** 2, axis=axes) / np.sum(truth**2, axis=axes)


def summary(
    flux: np.ndarray, true: np.ndarray, images: np.ndarray | None, truth: np.ndarray
) -> dict[str, float]:
    """The columns of a table; of images NaN where a way makes none."""
    error = relative(flux, true)
    size = np.nan_to_num(np.abs(error), nan=np.inf)
    wrong = np.full(1, np.nan) if images is None else image_error(images, truth)
    return {
        "median": float(np.median(size)),
        "mean": float(np.mean(size)),
        "90 %": float(np.quantile(size, 0.9)),
        "bias": float(np.median(error)),
        "faint one": median_error(faint_one(error, true)),
        "relMSE": float(np.median(wrong)),
        "mean relMSE": float(np.mean(wrong)),
    }


def reduction(ours: np.ndarray, theirs: np.ndarray, *, n: int = 2000, seed: int = 0) -> Interval:
    """By how much the median of one is below that of another, 1 - ours / theirs.

    Blends are drawn again with replacement, the same for both: they are paired, and the sources of
    a blend stay together. Limits at 5 and 95 %.

    - `ours`, `theirs`: something positive, `(blend, source)`.
    """

    rng = np.random.default_rng(seed)
    rows = rng.integers(len(ours), size=(n, len(ours)))
    above, below = (np.median(v[rows].reshape(n, -1), axis=1) for v in (ours, theirs))
    whole = 1 - float(np.median(ours) / np.median(theirs))
    return Interval(whole, *np.quantile(1 - above / below, (0.05, 0.95)))


def wins(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the sources for which ours is closer; ties count by half."""
    return float(np.mean((ours < theirs) + 0.5 * (ours == theirs)))


def binned(value: np.ndarray, by: np.ndarray, edges: tuple[float, ...]) -> list[tuple[float, int]]:
    """Median of a value in bins of another, and how many are in it; bins are [low, high)."""
    found = []
    for low, high in pairwise(edges):
        inside = value[(by >= low) & (by < high)]
        found.append((float(np.median(inside)) if inside.size else np.nan, int(inside.size)))
    return found


def coverage(flux: np.ndarray, sigma: np.ndarray, true: np.ndarray) -> dict[float, float]:
    """Share of truths within intervals of nominal 50, 68, 95 and 99.7 %, from normal errors."""
    pull = np.abs(flux - true) / sigma
    return {share: float(np.mean(pull <= width)) for share, width in NOMINAL.items()}


def weighted_coverage(
    draws: np.ndarray, weights: np.ndarray, true: np.ndarray
) -> dict[float, float]:
    """The same from weighted draws: central intervals between their quantiles.

    - `draws`: `(case, draw)`; `weights`: sums to 1 for each case; `true`: `(case,)`.
    """
    rank = weighted_rank(draws, weights, true)
    return {share: float(np.mean(np.abs(2 * rank - 1) <= share)) for share in NOMINAL}


def weighted_rank(draws: np.ndarray, weights: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Share of the posterior below the truth, `(case,)`, uniform where the posterior is honest."""
    below = np.sum(weights * (draws < true[:, None]), axis=1)
    equal = np.sum(weights * (draws == true[:, None]), axis=1)
    return below + 0.5 * equal


def robust_pull(flux: np.ndarray, sigma: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Median of the pulls, and half of what lies between their 16 and 84 %."""
    pull = (flux - true) / sigma
    low, high = np.quantile(pull, (0.1587, 0.8413))
    return float(np.median(pull)), float(high - low) / 2


def uniform_chance(rank: np.ndarray, bins: int = 20) -> float:
    """Chance that uniform ranks fill equal bins as unevenly, by chi2."""
    from scipy.stats import chisquare

    count = np.histogram(rank, bins, (0, 1))[0]
    return float(chisquare(count).pvalue)


def separability(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the ROC curve: how often one from outside has the larger statistic."""
    below = np.mean(outside[:, None] > inside[None])
    return float(below + 0.5 * np.mean(outside[:, None] == inside[None]))
