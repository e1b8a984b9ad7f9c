"""The edges of labels as closed rings, all labels in one go."""

import numpy as np
from jaxtyping import Float, Int

Ring = Float[np.ndarray, "corner 2"]

# Along the sides of a pixel with the pixel on the left: below, right, above, left.
_DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
# Seen from a pixel: the other side of each of its sides, x and y.
_BEYOND = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])
# Where a side starts, less half a pixel.
_START = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


def outlines(data: Int[np.ndarray, "y x"], labels: Int[np.ndarray, "label"]) -> list[list[Ring]]:
    """Rings around each label, x and y of their corners; the last corner is the first again.

    A pixel reaches half a pixel to all sides of its position. The rings run with the label on the
    left: counter-clockwise around it (x to the right, y up), clockwise around holes, so that their
    areas add up to the area of the label. Where two pixels of a label share only a corner, one
    ring passes it twice. Those of a label are in the order of their first pixels.

    - `labels`: sorted; all others are left out.
    """
    pixel, side = _sides(data, labels)
    if not len(pixel):
        return [[] for _ in labels]
    nxt = _followers(data, pixel, side)
    ring, rank = _along_rings(nxt)
    order = np.lexsort((rank, ring))
    pixel, side, ring = pixel[order], side[order], ring[order]
    width = data.shape[1]
    corner = np.stack([pixel % width, pixel // width], axis=1) + _START[side] - 0.5
    # Corners are where the direction is another than before, around the ring.
    first = np.r_[True, ring[1:] != ring[:-1]]
    begin = np.flatnonzero(first)
    last = np.r_[begin[1:], len(ring)] - 1
    before = np.roll(side, 1)
    before[begin] = side[last]
    turn = side != before
    sizes = np.add.reduceat(turn, begin)
    rings = np.split(corner[turn], np.cumsum(sizes)[:-1])
    found: list[list[Ring]] = [[] for _ in labels]
    owner = np.searchsorted(labels, data.reshape(-1)[pixel[begin]])
    for place, points in zip(owner, rings, strict=True):
        found[place].append(np.concatenate([points, points[:1]]))
    return found


def _sides(data: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel and number of each side that is on an edge; those of a pixel together."""
    wide = np.pad(data, 1)
    on_edge = np.empty((*data.shape, 4), dtype=bool)
    for k, (dx, dy) in enumerate(_BEYOND):
        other = wide[1 + dy : 1 + dy + data.shape[0], 1 + dx : 1 + dx + data.shape[1]]
        on_edge[..., k] = (data != other) & (data != 0)
    places = np.flatnonzero(on_edge)
    pixel, side = places // 4, places % 4
    chosen = np.isin(data.reshape(-1)[pixel], labels)
    return pixel[chosen], side[chosen]


def _followers(data: np.ndarray, pixel: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Which side comes after each, around the same label."""
    wide = np.pad(data, 1)
    width = data.shape[1]
    y, x = pixel // width, pixel % width
    label = data[y, x]
    # Ahead of the pixel, and ahead of what is on the right of its side.
    dx, dy = _DIRECTIONS[side].T
    bx, by = _BEYOND[side].T
    ahead = wide[1 + y + dy, 1 + x + dx] == label
    across = wide[1 + y + dy + by, 1 + x + dx + bx] == label
    to_pixel = np.where(
        across,
        (y + dy + by) * width + x + dx + bx,
        np.where(ahead, (y + dy) * width + x + dx, pixel),
    )
    to_side = np.where(across, side - 1, np.where(ahead, side, side + 1)) % 4
    return np.searchsorted(pixel * 4 + side, to_pixel * 4 + to_side)


def _along_rings(nxt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each side the first of its ring, and how far along the ring it is."""
    n = len(nxt)
    least, jump = np.arange(n), nxt
    # Twice as far in each round: the least of a ring is known after log2 of its length.
    while True:
        other = np.minimum(least, least[jump])
        if np.array_equal(other, least):
            break
        least, jump = other, jump[jump]
    start = least == np.arange(n)
    # Steps left to the first side, where all stop.
    jump = np.where(start, np.arange(n), nxt)
    left = np.where(start, 0, 1)
    while not start[jump].all():
        left, jump = left + left[jump], jump[jump]
    length = np.bincount(least, minlength=n)[least]
    return least, np.where(start, 0, length - left)
