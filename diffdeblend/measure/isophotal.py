"""Light and shape within the isophotes: of all sources at once, on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.measure.pixels import SegmentPixels
from diffdeblend.measure.shapes import PIXEL_VARIANCE, floor_variances

# Powers (of y, of x) in the moments of second order and below.
_SECOND = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
# No pixel of a source without pixels has a place.
_NOWHERE = -1


class Weights(NamedTuple):
    """The light that moments are taken of, at each used pixel of each source, and where.

    - `value`: of the convolved image; 0 where negative or not finite.
    - `counted`: whether it was neither.
    - `y`, `x`: from the first row and column of the box of the source.
    """

    value: Float[np.ndarray, "pixel"]
    counted: Bool[np.ndarray, "pixel"]
    y: Float[np.ndarray, "pixel"]
    x: Float[np.ndarray, "pixel"]


def weights(
    used: SegmentPixels, convolved: Float[np.ndarray, "stamp y x"], boxes: np.ndarray
) -> Weights:
    """What `centroids` and `central_moments` need."""
    values = used.values(convolved).astype(float)
    counted = values >= 0
    if not counted.all():
        values[~counted] = 0
    if np.isinf(values).any():
        counted &= np.isfinite(values)
        values[~counted] = 0
    return Weights(
        values, counted, used.y - used.spread(boxes[:, 0]), used.x - used.spread(boxes[:, 1])
    )


def raw_moments(
    used: SegmentPixels, light: Weights, order: int = 3
) -> Float[np.ndarray, "source power power"]:
    """Sums of y^p x^q light, `[source, p, q]`, from the first pixel of the box; p, q <= `order`."""
    return _moments(used, light.value, light.y, light.x, _all_powers(order), order)


def centroids(
    used: SegmentPixels, light: Weights
) -> tuple[Float[np.ndarray, "source"], Float[np.ndarray, "source"], Float[np.ndarray, "source"]]:
    """Sum of the light and its mean y and x in the box; these are NaN where there is no light."""
    total = used.sum(light.value)
    there = np.where(total > 0, total, np.nan)
    return total, used.sum(light.y * light.value) / there, used.sum(light.x * light.value) / there


def central_moments(
    used: SegmentPixels,
    light: Weights,
    y: Float[np.ndarray, "source"],
    x: Float[np.ndarray, "source"],
    order: int = 2,
) -> Float[np.ndarray, "source power power"]:
    """As `raw_moments`, from the centroid (x, y) in the box.

    With `order` 2 only the moments of second order and below are taken; the others are NaN.
    """
    dy, dx = light.y - used.spread(y), light.x - used.spread(x)
    powers = _SECOND if order == 2 else _all_powers(order)
    return _moments(used, light.value, dy, dx, powers, order)


def centroid_covariance(
    used: SegmentPixels,
    light: Weights,
    error: Float[np.ndarray, "stamp y x"],
    y: Float[np.ndarray, "source"],
    x: Float[np.ndarray, "source"],
) -> Float[np.ndarray, "source 2 2"]:
    """Covariance of the centroid, `[x, y]`, from the errors of the pixels.

    $\\sum (x_i - x)(y_i - y) \\sigma_i^2 / F^2$; along no principal axis less than
    $\\sum \\sigma_i^2 / 12 F^2$, what the extent of a pixel leaves open. NaN where no light is.
    """
    variance = np.where(light.counted, used.values(error).astype(float) ** 2, 0)
    dy, dx = light.y - used.spread(y), light.x - used.spread(x)
    total = used.sum(light.value)
    square = np.where(total > 0, total, np.nan) ** 2
    xy = used.sum(dx * dy * variance)
    cov = np.stack([used.sum(dx * dx * variance), xy, xy, used.sum(dy * dy * variance)], axis=-1)
    cov = cov.reshape(-1, 2, 2) / square[:, None, None]
    return floor_variances(cov, PIXEL_VARIANCE * used.sum(variance) / square)


def extremes(
    used: SegmentPixels, data: Float[np.ndarray, "stamp y x"]
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "source 4"]]:
    """Least and largest value, and rows (y, x of the least, y, x of the largest): the first such.

    NaN and -1 for a source without pixels.
    """
    values = used.values(data)
    places, found = [], []
    for ufunc in (np.minimum, np.maximum):
        extreme = used.reduce(ufunc, values, np.nan)
        there = np.flatnonzero(values == used.spread(extreme))
        source, first = np.unique(used.source[there], return_index=True)
        place = np.full((used.n_sources, 2), _NOWHERE)
        place[source] = np.stack([used.y[there[first]], used.x[there[first]]], axis=1)
        found.append(extreme)
        places.append(place)
    return found[0], found[1], np.concatenate(places, axis=1)


def gini(used: SegmentPixels, data: Float[np.ndarray, "stamp y x"]) -> Float[np.ndarray, "source"]:
    """Gini coefficient of the absolute values: 0 if all are equal, 1 if one pixel has all.

    0 for a single pixel and for zeros; NaN without pixels.

    ??? cite
        Lotz, Primack & Madau (2004), eq. 6.
    """
    values = np.abs(used.values(data))
    if values.dtype == np.float32:
        # As integers, positive floats keep their order: one sort, of source and value together.
        key = (used.source.astype(np.uint64) << np.uint64(32)) | values.view(np.uint32)
        key.sort()
        ordered = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32).astype(float)
    else:
        ordered = values[np.lexsort((values, used.source))]
    start = np.cumsum(used.count) - used.count
    rank = np.arange(len(ordered)) - used.spread(start) + 1
    n = used.count
    weighted = used.sum((2 * rank - used.spread(n) - 1) * ordered)
    total = used.sum(ordered)
    # mean times n (n - 1) is total times (n - 1).
    scale = total * (n - 1)
    return np.where(n > 0, np.where(scale > 0, weighted / np.where(scale > 0, scale, 1), 0), np.nan)


def _all_powers(order: int) -> tuple[tuple[int, int], ...]:
    return tuple((p, q) for p in range(order + 1) for q in range(order + 1))


def _moments(
    used: SegmentPixels,
    value: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    powers: tuple[tuple[int, int], ...],
    order: int,
) -> Float[np.ndarray, "source power power"]:
    found = np.full((used.n_sources, order + 1, order + 1), np.nan)
    along_x = [value]
    for _ in range(order):
        along_x.append(along_x[-1] * x)
    for q, term in enumerate(along_x):
        for p in range(order + 1):
            if (p, q) in powers:
                found[:, p, q] = used.sum(term)
            if (p + 1, q) in powers:
                term = term * y
    return found
