"""Pixels of many sets as intervals of one line: their algebra is that of sorted numbers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = Int[np.ndarray, "span"]
Interval = tuple[Int[np.ndarray, "span"], Int[np.ndarray, "span"]]


class Frame(NamedTuple):
    """Where rows lie on the line: one after the other, with a gap, then those of the next set."""

    x: int
    y: int
    stride: int
    height: int

    def onto(self, y: Ints, x0: Ints, x1: Ints, owner: Ints | int = 0) -> Interval:
        """Begin and end (not in it) of spans on the line."""
        row = (np.asarray(owner, np.int64) * self.height + (y - self.y)) * self.stride - self.x
        return row + x0, row + x1 + 1

    def back(self, start: Ints, stop: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Owner, row, first and last column."""
        row, x = np.divmod(start, self.stride)
        owner, y = np.divmod(row, self.height)
        x0 = (x + self.x).astype(np.int32)
        last = (x0 + (stop - start) - 1).astype(np.int32)
        return owner.astype(np.int32), (y + self.y).astype(np.int32), x0, last


def frame_of(*spans: tuple[Ints, Ints, Ints], margin: int = 0) -> Frame:
    """Room for all spans `(y, x0, x1)` and `margin` pixels around them."""
    spans = tuple(one for one in spans if len(one[0]))
    if not spans:
        return Frame(0, 0, 2, 1)
    y = min(int(one[0].min()) for one in spans) - margin
    x = min(int(one[1].min()) for one in spans) - margin
    height = max(int(one[0].max()) for one in spans) + margin + 1 - y
    # One more than the width: the end of a row never touches the start of the next.
    return Frame(x, y, max(int(one[2].max()) for one in spans) + margin + 2 - x, height)


def merged(start: Ints, stop: Ints) -> Interval:
    """The same numbers as sorted intervals that neither overlap nor touch; empty ones go."""
    full = stop > start
    start, stop = start[full], stop[full]
    if len(start) > 1 and (start[1:] < start[:-1]).any():
        order = np.argsort(start, kind="stable")
        start, stop = start[order], stop[order]
    reach = np.maximum.accumulate(stop)
    first = np.flatnonzero(np.concatenate([[True], start[1:] > reach[:-1]])[: len(start)])
    return start[first], reach[np.concatenate([first[1:], [len(start)]])[: len(first)] - 1]


def pairs(a: Interval, b: Interval, slack: int = 0) -> tuple[Ints, Ints]:
    """Which intervals have numbers in common, as places in `a` and `b`; both sorted, disjoint.

    - `slack`: 1 counts as well those that touch.
    """
    first = np.searchsorted(b[1], a[0] - slack, side="right")
    last = np.searchsorted(b[0], a[1] + slack, side="left")
    return _expanded(first, last)


def overlapping(a: Interval, b: Interval) -> tuple[Ints, Ints]:
    """As `pairs`, of intervals that may overlap among themselves; both sorted by their starts."""
    first = np.searchsorted(b[0], a[0], side="left")
    i, j = _expanded(first, np.searchsorted(b[0], a[1], side="left"))
    # Those of which the one from `a` begins inside the one from `b`.
    first = np.searchsorted(a[0], b[0], side="right")
    k, m = _expanded(first, np.searchsorted(a[0], b[1], side="left"))
    return np.concatenate([i, m]), np.concatenate([j, k])


def _expanded(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All pairs of a place and a number from its first to before its last."""
    count = np.maximum(last - first, 0)
    before = np.cumsum(count) - count
    return (
        np.repeat(np.arange(len(count)), count),
        np.arange(int(count.sum())) + np.repeat(first - before, count),
    )


def common(a: Interval, b: Interval) -> Interval:
    """Numbers in both; both sorted and disjoint."""
    i, j = pairs(a, b)
    return np.maximum(a[0][i], b[0][j]), np.minimum(a[1][i], b[1][j])


def without(a: Interval, b: Interval) -> Interval:
    """Numbers in `a` that are not in `b`; both sorted and disjoint."""
    low, high = np.iinfo(np.int64).min // 2, np.iinfo(np.int64).max // 2
    gaps = np.concatenate([[low], b[1]]), np.concatenate([b[0], [high]])
    return common(a, gaps)


def covered(start: Ints, stop: Ints, times: int) -> Interval:
    """Numbers in at least `times` of the intervals."""
    at = np.concatenate([start, stop])
    step = np.repeat([1, -1], [len(start), len(stop)])
    order = np.argsort(at, kind="stable")
    at, depth = at[order], np.cumsum(step[order])
    # Of several steps at one place only the depth after the last of them counts.
    final = np.flatnonzero(np.concatenate([at[1:] != at[:-1], [True]])[: len(at)])
    at, enough = at[final], depth[final] >= times
    turn = np.flatnonzero(np.diff(np.concatenate([[False], enough]).astype(np.int8)))
    return at[turn[::2]], at[turn[1::2]]


def components(start: Ints, stop: Ints, stride: int, connectivity: int) -> tuple[int, Ints]:
    """How many connected parts sorted, disjoint spans have, and the part of each.

    Parts count up with their first spans.
    """
    n = len(start)
    below_start, below_stop = start + stride, stop + stride
    i, j = pairs((below_start, below_stop), (start, stop), slack=int(connectivity == 8))
    graph = csr_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n))
    count, part = connected_components(graph, directed=True, connection="weak")
    return int(count), part.astype(np.int32)


def half_widths(radius: int, stencil: str) -> Int[np.ndarray, "row"]:
    """How far a stencil reaches along x, for dy from -radius to radius.

    `"circle"`: |dx| <= sqrt(radius^2 - dy^2); `"manhattan"`: |dx| + |dy| <= radius; `"box"`.

    **Raises:** `ValueError` for another stencil, or a radius that is no integer of at least 0.
    """
    if isinstance(radius, bool) or not isinstance(radius, int | np.integer) or radius < 0:
        raise ValueError(f"`radius` must be an integer of at least 0; got {radius!r}.")
    dy = np.arange(-radius, radius + 1)
    if stencil == "circle":
        # Nudged: the root of a square must not fall below it.
        return np.floor(np.sqrt(radius**2 - dy**2) + 1e-9).astype(np.int64)
    if stencil == "manhattan":
        return radius - np.abs(dy)
    if stencil == "box":
        return np.full(len(dy), radius)
    raise ValueError(f'`stencil` must be "circle", "manhattan" or "box"; got {stencil!r}.')


def grown(
    y: Ints, x0: Ints, x1: Ints, owner: Ints | int, radius: int, stencil: str
) -> tuple[Frame, Interval]:
    """Spans after a dilation by the stencil, on a line; each owner by itself."""
    widths = half_widths(radius, stencil)
    frame = frame_of((y, x0, x1), margin=int(radius))
    start, stop = frame.onto(y, x0, x1, owner)
    shift = np.arange(-radius, radius + 1) * frame.stride
    # Row by row of the stencil: each is nearly sorted, which the stable sort uses.
    starts = (start[None] + (shift - widths)[:, None]).reshape(-1)
    stops = (stop[None] + (shift + widths)[:, None]).reshape(-1)
    return frame, merged(starts, stops)


def shrunk(
    y: Ints, x0: Ints, x1: Ints, owner: Ints | int, radius: int, stencil: str
) -> tuple[Frame, Interval]:
    """Spans after an erosion by the stencil, on a line; what is outside of them counts as empty."""
    widths = half_widths(radius, stencil)
    frame = frame_of((y, x0, x1), margin=int(radius))
    start, stop = frame.onto(y, x0, x1, owner)
    shift = np.arange(-radius, radius + 1) * frame.stride
    starts = (start[None] + (widths - shift)[:, None]).reshape(-1)
    stops = (stop[None] - (widths + shift)[:, None]).reshape(-1)
    full = stops > starts
    # Each row of the stencil covers a pixel at most once.
    return frame, covered(starts[full], stops[full], len(widths))


def equal_runs(data: Int[np.ndarray, "y x"]) -> tuple[Ints, Ints, Ints]:
    """Row, first column and the column after the last of runs of one number that is not 0."""
    ny, nx = data.shape
    edge = np.ones((ny, nx + 1), dtype=bool)
    np.not_equal(data[:, 1:], data[:, :-1], out=edge[:, 1:-1])
    edge[:, 0] = data[:, 0] != 0
    edge[:, -1] = False
    places = np.flatnonzero(edge)
    row = places // (nx + 1)
    start = places - row * (nx + 1)
    # A run ends where the next of its row begins, or with the row.
    stop = np.append(start[1:], nx)
    stop[np.append(row[1:] != row[:-1], True)] = nx
    full = data[row, start] != 0
    return row[full], start[full], stop[full]
