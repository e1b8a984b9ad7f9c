"""The pixels of many sources as one list, and who is next to whom. Host side.

Sources of an image, or of a stack of stamps, are one ragged problem: no loop runs over them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_PIECE = 1 << 15


class PixelList(NamedTuple):
    """Pixels in raster order, with those that touch them.

    - `place`: index into the flattened image or stack.
    - `value`: what is flooded; finite.
    - `parent`: the number of the source that a pixel is of, from 0.
    - `neighbours`: rows of this list, one row of the table per direction, the first half of them
        earlier in raster order. Where there is no neighbour of the same parent: the pixel itself.
    """

    place: Int[np.ndarray, "pixel"]
    value: Float[np.ndarray, "pixel"]
    parent: Int[np.ndarray, "pixel"]
    neighbours: Int[np.ndarray, "direction pixel"]

    def select(self, keep: np.ndarray) -> "PixelList":
        """The pixels of some parents, all of them; parents keep their numbers."""
        rows = np.flatnonzero(keep)
        new = np.empty(len(keep), np.int32)
        new[rows] = np.arange(len(rows), dtype=np.int32)
        table = new[self.neighbours[:, rows]]
        return PixelList(self.place[rows], self.value[rows], self.parent[rows], table)


def list_pixels(
    place: Int[np.ndarray, "pixel"],
    value: Float[np.ndarray, "pixel"],
    parent: Int[np.ndarray, "pixel"],
    shape: tuple[int, int, int],
    connectivity: int,
    least_peaks: int = 2,
) -> PixelList:
    """The list of the pixels of those parents that have at least so many local maxima.

    Parents with one cannot come apart; most are such, and are gone before anything costs time.

    - `place`, `value`, `parent`: as in `PixelList`, in raster order.
    - `shape`: of the stack `(stamp, y, x)`.
    """
    index, where, steps = _index_image(place, shape, connectivity)
    value_or_low = np.append(value, value.dtype.type(-np.inf))
    parent_or_none = np.append(parent, np.int32(-1))
    # `take` is a third faster than brackets.
    forward = np.empty((len(steps), len(place)), np.int32)
    is_peak = np.ones(len(place) + 1, bool)
    # In pieces, which stay in the cache from one line to the next.
    for start in range(0, len(place), _PIECE):
        piece = slice(start, min(start + _PIECE, len(place)))
        here, level, owner = where[piece], value[piece], parent[piece]
        for step, row in zip(steps, forward, strict=True):
            other = index.take(here + step)
            touches = parent_or_none.take(other) == owner
            np.copyto(other, len(place), where=~touches)
            # Of equal pixels the later one is taken for the higher.
            higher = value_or_low.take(other) >= level
            is_peak[piece] &= ~higher
            is_peak[other[~higher]] = False
            row[piece] = other
    is_peak = is_peak[:-1]
    del index
    n_peaks = np.bincount(parent[is_peak], minlength=1)
    rows = np.flatnonzero((n_peaks >= least_peaks)[parent])
    new = np.full(len(place) + 1, -1, np.int32)
    new[rows] = own = np.arange(len(rows), dtype=np.int32)
    half = len(forward)
    table = np.empty((2 * half, len(rows)), np.int32)
    table[:half] = own
    for direction, other in enumerate(forward):
        later = new[other[rows]]
        exists = later >= 0
        table[half + direction] = np.where(exists, later, own)
        table[half - 1 - direction, later[exists]] = own[exists]
    return PixelList(place[rows], value[rows], parent[rows], table)


def _index_image(
    place: np.ndarray, shape: tuple[int, int, int], connectivity: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows of the list by place in a stack with a frame, places there, and steps to go forward.

    What is in no source has the length of the list. One column and one row between stamps will do
    for both sides.
    """
    _, ny, nx = shape
    row = place // nx
    width = nx + 1
    where = place + row + 1 + (row // ny + 1) * width
    size = (shape[0] * (ny + 1) + 1) * width + 1
    kind = np.int32 if size < np.iinfo(np.int32).max else np.int64
    where = where.astype(kind)
    index = np.full(size, len(place), np.int32)
    index[where] = np.arange(len(place), dtype=np.int32)
    steps = [1, width] if connectivity == 4 else [1, width - 1, width, width + 1]
    return index, where, steps


def follow(target: Int[np.ndarray, "pixel"]) -> Int[np.ndarray, "pixel"]:
    """Where each pixel ends up that goes from target to target. No circles but of one."""
    while True:
        further = target.take(target)
        if np.array_equal(further, target):
            return target
        target = further
