"""Mean and scatter of pixels without their outliers, clipped from the quartiles on. Host side."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.background.mesh import check_mask, plain_values

# What turns the distance of the quartiles into a standard deviation of a Gaussian.
IQR_TO_STD = 0.741301109252801
# Values that stay in the cache of a core.
_BLOCK = 1 << 18


class ClippedStatistics(NamedTuple):
    """What is left after clipping; each a number, or one for each row.

    - `mean`, `std`: in the unit of the values, the latter with n - 1; NaN where nothing is left.
    - `n`: values that are left.
    """

    mean: Any
    std: Any
    n: Any


def clipped_statistics(
    values: Any,
    mask: Any = None,
    *,
    sigma: float = 3.0,
    rounds: int = 3,
    unbias: bool = False,
) -> ClippedStatistics:
    r"""Mean and standard deviation of all values, those far from the middle left out.

    The first round keeps what is within `sigma` standard deviations of the median, these taken
    from the quartiles; each other what is within `sigma` of the mean and scatter of the round
    before. Every round looks at all values anew. Unlike `estimate_background`, which starts from
    the scatter of all values, one wild outlier cannot widen the first bounds.

    - `values`: any shape; what is not finite is not used.
    - `mask`: true where a value is not used, same shape.
    - `rounds`: how many bounds there are, at least one.
    - `unbias`: divide by what the cut leaves of the scatter of a Gaussian: 0.9866 for one cut at 3
        standard deviations, 0.9849 for three.

    **Raises:** `ValueError` for a mask of another shape, or wrong settings.

    ??? cite
        The rule of the clipped mean and scatter of the LSST Science Pipelines.
    """
    array, mask, _ = plain_values(values, mask)
    known = check_mask("mask", mask, array.shape)
    used = array.reshape(1, -1)
    if known is not None and known.any():
        used = used[:, ~known.reshape(-1)]
    found = clip_rows_from_quartiles(used, sigma, rounds, unbias=unbias)
    return ClippedStatistics(*(values[0] for values in found))


def clip_rows_from_quartiles(
    values: Float[np.ndarray, "row n"],
    sigma: float = 3.0,
    rounds: int = 3,
    *,
    unbias: bool = False,
) -> ClippedStatistics:
    """`clipped_statistics` of each row; in double precision, whatever the values are in."""
    if not sigma > 0:
        raise ValueError(f"`sigma` must be positive; got {sigma!r}.")
    if not isinstance(rounds, int | np.integer) or rounds < 1:
        raise ValueError(f"`rounds` must be an integer of at least 1; got {rounds!r}.")
    median, spread, n_used = _quartiles(values)
    centre, half = median, sigma * IQR_TO_STD * spread
    for _ in range(rounds):
        mean, std, n = _moments_within(values, centre, half)
        centre, half = mean, sigma * std
    mean, std = np.where(n_used > 0, mean, np.nan), np.where(n_used > 0, std, np.nan)
    if unbias:
        std = std / _left_of_gaussian(float(sigma), int(rounds))
    return ClippedStatistics(mean, std, n)


def _quartiles(
    values: np.ndarray,
) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"], Int[np.ndarray, "row"]]:
    """Median, distance of the quartiles and number of finite values of each row."""
    good = np.isfinite(values)
    n = np.count_nonzero(good, axis=1)
    ordered = values if good.all() else np.where(good, values, np.inf)
    length = values.shape[1]
    if length == 0:
        nothing = np.full(len(values), np.nan)
        return nothing, nothing, n
    if len(values) == 1 and n[0] == length:
        # One long row: no full sort. Of many short rows a sort is quicker.
        places = np.array([0.25, 0.5, 0.75]) * (length - 1)
        kth = np.unique(np.concatenate([np.floor(places), np.ceil(places)]).astype(int))
        ordered = np.partition(ordered, kth, axis=1)
    else:
        ordered = np.sort(ordered, axis=1)
    rows = np.arange(len(values))
    found = []
    for fraction in (0.25, 0.5, 0.75):
        at = fraction * np.maximum(n - 1, 0)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, np.maximum(n - 1, 0))
        first, second = (ordered[rows, k].astype(float) for k in (low, high))
        with np.errstate(invalid="ignore"):
            between = first + (at - low) * (second - first)
        found.append(np.where(n > 0, between, np.nan))
    return found[1], found[2] - found[0], n


def _moments_within(
    values: np.ndarray, centre: np.ndarray, half: np.ndarray
) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"], Int[np.ndarray, "row"]]:
    """Mean, scatter (n - 1) and number of the values at most `half` from `centre`."""
    n = np.zeros(len(values), np.int64)
    total, square = np.zeros(len(values)), np.zeros(len(values))
    # In the precision of the values: differences from the centre keep their digits.
    about, width = (one.astype(values.dtype)[:, None] for one in (centre, half))
    centre = about[:, 0].astype(float)
    # Pieces of rows that stay in the cache.
    length = values.shape[1]
    wide = max(1, min(length, _BLOCK))
    tall = max(1, _BLOCK // wide)
    for top in range(0, len(values), tall):
        rows = slice(top, top + tall)
        for first in range(0, length, wide):
            part = values[rows, first : first + wide]
            with np.errstate(invalid="ignore"):
                away = part - about[rows]
                inside = np.abs(away) <= width[rows]
            away = np.where(inside, away, 0)
            n[rows] += np.count_nonzero(inside, axis=1)
            total[rows] += away.sum(axis=1)
            square[rows] += np.einsum("rn,rn->r", away, away)
    shift = total / np.maximum(n, 1)
    variance = (square - n * shift**2) / np.maximum(n - 1, 1)
    mean = np.where(n > 0, centre + shift, np.nan)
    return mean, np.where(n > 0, np.sqrt(np.maximum(variance, 0)), np.nan), n


def _left_of_gaussian(sigma: float, rounds: int) -> float:
    """The scatter that clipping leaves of a Gaussian of scatter 1."""
    from scipy.stats import norm

    left = 1.0
    for _ in range(rounds):
        cut = sigma * left
        inside = 2 * norm.cdf(cut) - 1
        left = float(np.sqrt(1 - 2 * cut * norm.pdf(cut) / inside))
    return left
