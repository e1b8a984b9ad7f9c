"""A flood from markers downhill, all pixels at once. Host side.

The same regions as a flood with a queue, highest pixel first (Meyer 1994; scikit-image's
`watershed` of the negative image), wherever no two pixels are equally high.
"""

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.segment.pixel_list import follow


def flood(
    value: Float[np.ndarray, "pixel"],
    neighbours: Int[np.ndarray, "direction pixel"],
    markers: Int[np.ndarray, "pixel"],
) -> Int[np.ndarray, "pixel"]:
    """The marker that reaches each pixel first; 0 for those that none can reach.

    A pixel is reached once one of its neighbours is; from there on, higher pixels are taken before
    lower ones. So all of a hollow's hill above its highest pass is taken at once when the flood is
    at the pass, and any other pixel from the neighbour that was reached first.

    - `value`: finite. `neighbours`: as in `PixelList`.
    - `markers`: positive numbers, 0 where there is none.
    """
    free = np.flatnonzero(markers == 0)
    if free.size == 0:
        return markers.copy()
    near = neighbours[:, free]
    top = np.arange(len(value), dtype=np.int32)
    top[free] = _highest(value, near, free)
    top = follow(top)
    # The level at which the hill of each top is entered: at once where a marker is on top.
    level = np.full(len(value), np.inf, value.dtype)
    hills = np.flatnonzero(markers[top[free]] == 0)
    # Of each hill the pixel that is reached first, and from which one outside.
    door, outside = np.zeros((2, len(value)), np.int32)
    if hills.size:
        _enter_hills(value, near[:, hills], free[hills], top, level, door, outside)
    own = level[top[free]]
    reached = value.copy()
    reached[free] = np.minimum(value[free], own)
    at_once = np.zeros(len(value), bool)
    at_once[free[hills]] = value[free[hills]] >= own[hills]
    # A door that is the pass itself may be open to several sides: it chooses as any other pixel.
    doors = door[np.unique(top[free[hills]])]
    doors = doors[at_once[doors]]
    passes = doors[value[doors] == level[top[doors]]]
    at_once[passes] = False
    target = np.arange(len(value), dtype=np.int32)
    # What is taken at once from a pass is not asked where a pixel can choose: else two equally
    # high pixels may point at each other.
    target[free] = _first_reached(reached, ~at_once, near)
    stuck = passes[reached[target[passes]] <= value[passes]]
    target[stuck] = outside[top[stuck]]
    taken = np.flatnonzero(at_once)
    target[taken] = door[top[taken]]
    open_doors = doors[at_once[doors]]
    target[open_doors] = outside[top[open_doors]]
    return markers[follow(target)]


def ascent(
    value: Float[np.ndarray, "pixel"], neighbours: Int[np.ndarray, "direction pixel"]
) -> Int[np.ndarray, "pixel"]:
    """The local maximum that each pixel gets to by steps to the highest neighbour."""
    rows = np.arange(len(value), dtype=np.int32)
    return follow(_highest(value, neighbours, rows))


def _highest(value: np.ndarray, near: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The highest of a pixel and its neighbours; of equals a later one than the pixel itself."""
    best, target = value[rows], rows.astype(np.int32)
    half = len(near) // 2
    for direction, other in enumerate(near):
        seen = value.take(other)
        better = seen >= best if direction >= half else seen > best
        np.copyto(best, seen, where=better)
        np.copyto(target, other, where=better)
    return target


def _first_reached(reached: np.ndarray, plain: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The neighbour that is reached first."""
    best, best_plain, target = reached[near[0]], plain[near[0]], near[0].copy()
    for other in near[1:]:
        seen, seen_plain = reached.take(other), plain.take(other)
        better = (seen > best) | ((seen == best) & (seen_plain >= best_plain))
        np.copyto(best, seen, where=better)
        np.copyto(best_plain, seen_plain, where=better)
        np.copyto(target, other, where=better)
    return target


def _enter_hills(
    value: np.ndarray,
    near: np.ndarray,
    rows: np.ndarray,
    top: np.ndarray,
    level: np.ndarray,
    door: np.ndarray,
    outside: np.ndarray,
) -> None:
    """Writes the level at which hills without a marker are entered, the pixel, and where from.

    `rows` are the pixels of those hills, `near` their neighbours. The best of the worst passes on
    the way from a marker, by Bellman and Ford's rounds on the hills.
    """
    hill = top[rows]
    level[hill] = -np.inf
    door[hill] = outside[hill] = hill
    direction, pixel = np.nonzero(top[near] != hill)
    if pixel.size == 0:
        return
    order = np.argsort(hill[pixel], kind="stable")
    inside, beyond = rows[pixel[order]], near[direction[order], pixel[order]]
    passes = np.minimum(value[inside], value[beyond])
    outer = top[beyond]
    starts = np.flatnonzero(np.diff(top[inside], prepend=-1))
    counts = np.diff(starts, append=len(inside))
    hills = top[inside[starts]]
    while True:
        over = np.minimum(passes, level[outer])
        best = np.maximum.reduceat(over, starts)
        # Only who gains is changed: ways stay free of circles.
        gains = best > level[hills]
        if not gains.any():
            return
        winners = np.flatnonzero(over == np.repeat(best, counts))
        first = winners[np.searchsorted(winners, starts[gains])]
        level[hills[gains]] = best[gains]
        door[hills[gains]], outside[hills[gains]] = inside[first], beyond[first]
