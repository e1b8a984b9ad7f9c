"""The peaks of labelled pixels: brighter than all pixels around them. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


class FoundPeaks(NamedTuple):
    """Peaks of all labels, those of label 1 first, of each the brightest first.

    - `label`: that a peak is of; `y`, `x`: its pixel; `value`: there.
    """

    label: Int[np.ndarray, "peak"]
    y: Int[np.ndarray, "peak"]
    x: Int[np.ndarray, "peak"]
    value: Float[np.ndarray, "peak"]


def peaks_of_labels(
    values: Float[np.ndarray, "y x"],
    labels: Int[np.ndarray, "y x"],
    region: tuple[slice, slice] | None = None,
) -> FoundPeaks:
    """Pixels with no brighter one among their eight neighbours; one for each plateau.

    Neighbours outside of the label count, those that are NaN do not. A plateau is a peak if none
    of its pixels has a brighter neighbour; its peak is its pixel nearest to its middle. A label
    without a peak, as at the border, has its brightest pixel for one. Of equal peaks the one with
    the smaller x, then y, is first.

    - `labels`: 0 where no peak is looked for; 1, 2, ... with at least one pixel each.
    - `region`: rows and columns of the image; the pixels at its border are no peaks.
    """
    ny, nx = values.shape
    rows, columns = region or (slice(0, ny), slice(0, nx))
    place = np.flatnonzero(labels)
    y, x = np.divmod(place, nx)
    flat, label = values.reshape(-1), labels.reshape(-1)[place]
    value = flat[place]
    inner = (y > rows.start) & (y < rows.stop - 1) & (x > columns.start) & (x < columns.stop - 1)
    top = np.ones(len(place), bool)
    equal = np.zeros(len(place), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy == dx == 0:
                continue
            beside = flat[np.clip(y + dy, 0, ny - 1) * nx + np.clip(x + dx, 0, nx - 1)]
            top &= ~(beside > value)
            equal |= beside == value
    chosen = top & inner
    # Plateaus are rare in smoothed images.
    if (chosen & equal).any():
        flats = np.flatnonzero(equal)
        chosen[flats] = _one_a_plateau(
            place[flats], value[flats], label[flats], top[flats], inner[flats], nx
        )
    n = int(label.max(initial=0))
    has = np.zeros(n + 1, bool)
    has[label[chosen]] = True
    if not has[1:].all():
        chosen = chosen | _brightest_of_others(place, value, label, has, nx)
    found = np.flatnonzero(chosen)
    order = found[np.lexsort((y[found], x[found], -value[found], label[found]))]
    return FoundPeaks(label[order], y[order], x[order], value[order])


def _one_a_plateau(
    place: np.ndarray,
    value: np.ndarray,
    label: np.ndarray,
    top: Bool[np.ndarray, "pixel"],
    inner: Bool[np.ndarray, "pixel"],
    nx: int,
) -> Bool[np.ndarray, "pixel"]:
    """Of equal pixels that touch, the one nearest to their middle, if none has a brighter one."""
    n = len(place)
    first, second = [], []
    column = place % nx
    for step_y, step_x in ((0, 1), (1, -1), (1, 0), (1, 1)):
        inside = (column + step_x >= 0) & (column + step_x < nx)
        beside = place + step_y * nx + step_x
        at = np.minimum(np.searchsorted(place, beside), n - 1)
        pair = inside & (place[at] == beside) & (value[at] == value) & (label[at] == label)
        first.append(np.flatnonzero(pair))
        second.append(at[pair])
    i, j = np.concatenate(first), np.concatenate(second)
    graph = csr_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n))
    count, flat = connected_components(graph, directed=False)
    size = np.bincount(flat, minlength=count)
    blocked = np.bincount(flat, weights=~top, minlength=count) > 0
    y, x = np.divmod(place, nx)
    away = np.hypot(
        y - (np.bincount(flat, weights=y, minlength=count) / size)[flat],
        x - (np.bincount(flat, weights=x, minlength=count) / size)[flat],
    )
    able = np.flatnonzero(inner & ~blocked[flat])
    order = able[np.lexsort((y[able], x[able], away[able], flat[able]))]
    _, nearest = np.unique(flat[order], return_index=True)
    chosen = np.zeros(n, bool)
    chosen[order[nearest]] = True
    return chosen


def _brightest_of_others(
    place: np.ndarray, value: np.ndarray, label: np.ndarray, has: np.ndarray, nx: int
) -> Bool[np.ndarray, "pixel"]:
    """The brightest pixel of each label that has no peak."""
    some = np.flatnonzero(~has[label])
    y, x = np.divmod(place[some], nx)
    order = some[np.lexsort((y, x, -value[some], label[some]))]
    _, first = np.unique(label[order], return_index=True)
    chosen = np.zeros(len(place), bool)
    chosen[order[first]] = True
    return chosen
