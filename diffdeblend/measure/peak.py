"""The centroid from a parabola through the brightest pixel and its neighbours. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.measure.pixels import SegmentPixels

_Y, _X = (axis.ravel() for axis in np.mgrid[:3, :3])
# Least squares for 1, x, y, xy, x^2, y^2 on 3 x 3 pixels.
_FIT = np.linalg.pinv(np.stack([_X**0, _X, _Y, _X * _Y, _X**2, _Y**2], axis=1).astype(float))


class Peaks(NamedTuple):
    """Centroids from parabolas, see `quadratic_centroids`.

    - `x`, `y`: in pixels of the image, NaN where the source has no such centroid.
    - `covariance`: of (x, y), NaN where no parabola was fitted or no errors are known.
    - `fitted`: whether they come from a parabola; else they are a pixel at the edge of the box.
    """

    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    covariance: Float[np.ndarray, "source 2 2"]
    fitted: Bool[np.ndarray, "source"]


def quadratic_centroids(
    used: SegmentPixels,
    data: Float[np.ndarray, "stamp y x"],
    largest: Int[np.ndarray, "source 2"],
    boxes: Int[np.ndarray, "source 4"],
    error: Float[np.ndarray, "stamp y x"] | None = None,
) -> Peaks:
    """The top of the parabola through 3 x 3 pixels around the brightest of each source.

    Pixels that are not of the source count as 0. If the brightest is at the edge of the box of the
    source, it is the centroid itself. There is none if the box is less than 3 pixels wide, if the
    source is nowhere above 0 while pixels of its box are not its own, or if the parabola has no top
    within the box.

    - `largest`: (y, x) of the brightest pixel. `boxes`: as `SegmentPixels.boxes` has them.
    - `error`: of the pixels; theirs are carried through the fit to first order.

    ??? cite
        Vakili & Hogg (2016), section 2.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    ymax, xmax = (largest - boxes[:, :2]).T
    peak = used.reduce(np.maximum, used.values(data), np.nan)
    # Zeros around the source outshine one that is negative: the first of them is the brightest.
    hidden = (used.count > 0) & (used.count < size.prod(axis=1)) & (peak <= 0)
    if hidden.any():
        first = _first_empty(used, boxes, data, hidden)
        ymax, xmax = np.where(hidden, first[:, 0], ymax), np.where(hidden, first[:, 1], xmax)
    possible = (used.count > 0) & (size >= 3).all(axis=1)
    edge = (xmax == 0) | (ymax == 0) | (xmax == size[:, 1] - 1) | (ymax == size[:, 0] - 1)
    rows = np.flatnonzero(possible & ~edge)
    n = used.n_sources
    values, variances = np.zeros((n, 9)), np.zeros((n, 9))
    if rows.size:
        stack = used.shape
        number = np.zeros(int(np.prod(stack)), np.int32)
        number[used.index] = used.source + 1
        y = (ymax + boxes[:, 0])[rows, None] + _Y - 1
        x = (xmax + boxes[:, 1])[rows, None] + _X - 1
        place = (used.stamp[rows, None] * stack[1] + y) * stack[2] + x
        mine = number[place] == rows[:, None] + 1
        values[rows] = np.where(mine, data.reshape(-1)[place], 0)
        if error is not None:
            variances[rows] = np.where(mine, error.reshape(-1)[place].astype(float) ** 2, 0)
    found_x, found_y, jacobian, top = _tops(values)
    found_x, found_y = found_x + xmax - 1, found_y + ymax - 1
    inside = (found_x > 0) & (found_y > 0) & (found_x < size[:, 1] - 1) & (found_y < size[:, 0] - 1)
    fitted = possible & ~edge & top & inside
    stays = possible & edge
    found_x = np.where(fitted, found_x, np.where(stays, xmax, np.nan)) + boxes[:, 1]
    found_y = np.where(fitted, found_y, np.where(stays, ymax, np.nan)) + boxes[:, 0]
    covariance = np.einsum("nik,nk,njk->nij", jacobian, variances, jacobian)
    known = fitted & (error is not None)
    covariance = np.where(known[:, None, None], covariance, np.nan)
    return Peaks(found_x, found_y, covariance, fitted)


def _tops(
    values: Float[np.ndarray, "source 9"],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "source 2 9"], np.ndarray]:
    """Place (x, y) of the top from the first pixel, its derivative by the values, whether it is."""
    _, c10, c01, c11, c20, c02 = _FIT @ values.T
    det = 4 * c20 * c02 - c11 * c11
    top = (det > 0) & (c20 <= 0)
    det = np.where(top, det, 1)
    x, y = (c01 * c11 - 2 * c02 * c10) / det, (c10 * c11 - 2 * c20 * c01) / det
    none = np.zeros_like(x)
    by_x = [none, -2 * c02, c11, c01 + 2 * c11 * x, -4 * c02 * x, -2 * c10 - 4 * c20 * x]
    by_y = [none, c11, -2 * c20, c10 + 2 * c11 * y, -2 * c01 - 4 * c02 * y, -4 * c20 * y]
    by = np.stack([np.stack(by_x, axis=1), np.stack(by_y, axis=1)], axis=1)
    return x, y, by @ _FIT / det[:, None, None], top


def _first_empty(
    used: SegmentPixels, boxes: np.ndarray, data: np.ndarray, which: np.ndarray
) -> Int[np.ndarray, "source 2"]:
    """(y, x) in the box of the first pixel that is 0 or not of the source, row by row."""
    found = np.zeros((used.n_sources, 2), np.int64)
    end = np.cumsum(used.count)
    for row in np.flatnonzero(which):
        pixels = slice(end[row] - used.count[row], end[row])
        y0, x0, y1, x1 = boxes[row]
        image = np.zeros((y1 - y0, x1 - x0))
        values = data.reshape(-1)[used.index[pixels]]
        image[used.y[pixels] - y0, used.x[pixels] - x0] = values
        found[row] = np.unravel_index(np.argmax(image), image.shape)
    return found
