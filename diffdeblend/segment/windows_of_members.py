"""Clusters drawn on square windows of a few sizes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffdeblend.segment.members import Members

# Each size is one more program; each window may be twice too large.
_SIZES = 2 ** np.arange(4, 16)
_PIXELS_AT_ONCE = 2**22


class Windows(NamedTuple):
    """Some clusters, one on each window.

    - `group`: cluster of each window; `x0`, `y0`: first column and row of each of all clusters.
    - `row`: pixels of these clusters, as rows of the list of members; `slot`: their place in
        `light.ravel()`.
    - `light`: `(window, size, size)`, 0 outside the cluster.
    """

    group: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    light: np.ndarray

    @property
    def size(self) -> int:
        return self.light.shape[1]


def window_size(members: Members) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Size of the window of each cluster, and its first column and row."""
    if members.n_groups == 0:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)
    first = members.start[:-1]
    x0, y0 = np.minimum.reduceat(members.x, first), np.minimum.reduceat(members.y, first)
    x1, y1 = np.maximum.reduceat(members.x, first), np.maximum.reduceat(members.y, first)
    extent = np.maximum(x1 - x0, y1 - y0) + 1
    return _SIZES[np.searchsorted(_SIZES, extent)], x0, y0


def draw_windows(members: Members) -> Iterator[Windows]:
    """All clusters, by size of window and in parts that fit into memory."""
    size, x0, y0 = window_size(members)
    for edge in np.unique(size):
        groups = np.flatnonzero(size == edge)
        most = max(1, _PIXELS_AT_ONCE // edge**2)
        for start in range(0, len(groups), most):
            part = groups[start : start + most]
            place = np.full(members.n_groups, -1)
            place[part] = np.arange(len(part))
            row = np.flatnonzero(place[members.group] >= 0)
            g = members.group[row]
            slot = (place[g] * edge + members.y[row] - y0[g]) * edge + members.x[row] - x0[g]
            light = np.zeros((len(part), edge, edge), members.light.dtype)
            light.ravel()[slot] = members.light[row]
            yield Windows(part, x0, y0, row, slot, light)
