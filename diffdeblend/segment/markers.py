"""Where a source has peaks that stand apart, by levels. Host side."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from diffdeblend.segment.by_first import by_first
from diffdeblend.segment.flood import ascent
from diffdeblend.segment.levels import count_levels_below
from diffdeblend.segment.pixel_list import PixelList


def find_markers(
    pixels: PixelList,
    levels: Float[np.ndarray, "parent level"],
    n_pixels: int,
    least_flux: Float[np.ndarray, "parent"] | None = None,
) -> Int[np.ndarray, "pixel"]:
    """Numbers from 1 in raster order of each marker's first pixel, 0 elsewhere.

    What is above a level falls into connected parts. A part, or the source as a whole, splits where
    two or more of the parts at the next level have at least `n_pixels`; those of them in which
    nothing splits any more are markers. A source that does not split has none.

    A connected part is a set of hills (pixels that lead up to one maximum) joined by passes above
    the level: so all parts of all sources at a level are components of one small graph.

    - `least_flux`: parts must also hold more light than this above their level ('saddle').
    """
    if len(pixels.place) == 0:
        return np.zeros(0, np.int32)
    hill, n_hills = _numbered(ascent(pixels.value, pixels.neighbours))
    above = count_levels_below(pixels.value, pixels.parent, levels)
    n_levels = levels.shape[1]
    of_level = above.astype(np.int64) * n_hills + hill
    count = np.bincount(of_level, minlength=(n_levels + 1) * n_hills).reshape(-1, n_hills)
    parent = np.empty(n_hills, pixels.parent.dtype)
    parent[hill] = pixels.parent
    light = None
    if least_flux is not None:
        light = np.bincount(of_level, pixels.value, (n_levels + 1) * n_hills)
        light = light.reshape(-1, n_hills)
    joins = _joins(pixels.neighbours, hill, above, n_levels)
    part = np.arange(n_hills)
    area, flux = np.zeros(n_hills, np.int64), np.zeros(n_hills)
    has_split = np.zeros(n_hills, bool)
    marker = np.full(n_hills, -1)
    base = np.full(n_hills, n_levels)
    # From the top: parts above level `at` are known, those one level below are made of them.
    for at in range(n_levels, -1, -1):
        if at == 0:
            # The source as a whole is one, however its pixels touch.
            first = np.full(len(levels), -1)
            first[parent[::-1]] = np.arange(n_hills)[::-1]
            one, other = np.arange(n_hills), first[parent]
        else:
            one, other = joins[at]
        one, other = part[one], part[other]
        apart = one != other
        if apart.any():
            nodes, group, n_groups = _groups(one[apart], other[apart])
            stands = area[nodes] >= n_pixels
            if least_flux is not None and at < n_levels:
                level = levels[parent[nodes], at]
                stands &= flux[nodes] - level * area[nodes] > least_flux[parent[nodes]]
            splits = np.bincount(group, stands, n_groups) >= 2
            chosen = np.zeros(n_hills, bool)
            chosen[nodes[stands & splits[group] & ~has_split[nodes]]] = True
            new = chosen[part]
            marker[new] = part[new]
            base[new] = at
            head = np.empty(n_groups, nodes.dtype)
            head[group] = nodes
            becomes = np.arange(n_hills)
            becomes[nodes] = head[group]
            area[head] = np.bincount(group, area[nodes], n_groups).astype(np.int64)
            flux[head] = np.bincount(group, flux[nodes], n_groups)
            has_split[head] = splits | (np.bincount(group, has_split[nodes], n_groups) > 0)
            part = becomes[part]
        if at:
            area += np.bincount(part, count[at], n_hills).astype(np.int64)
            if light is not None:
                flux += np.bincount(part, light[at], n_hills)
    inside = np.flatnonzero(above > base[hill])
    found = np.zeros(len(hill), np.int32)
    found[inside] = 1 + by_first(marker[hill[inside]])[0]
    return found


def _numbered(top: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers from 0 in place of the rows of maxima, and how many there are."""
    tops = np.flatnonzero(top == np.arange(len(top)))
    number = np.empty(len(top), np.int32)
    number[tops] = np.arange(len(tops), dtype=np.int32)
    return number[top], len(tops)


def _joins(
    neighbours: np.ndarray, hill: np.ndarray, above: np.ndarray, n_levels: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each count of levels the pairs of hills whose highest pass is above so many."""
    ones, others, passes = [], [], []
    for other in neighbours[len(neighbours) // 2 :]:
        crosses = np.flatnonzero(hill[other] != hill)
        to = other[crosses]
        ones.append(hill[crosses])
        others.append(hill[to])
        passes.append(np.minimum(above[crosses], above[to]))
    one, other = np.concatenate(ones), np.concatenate(others)
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
    n_hills = int(hill.max(initial=0)) + 1
    # One sorted list of numbers: faster than sorting rows by columns.
    pair = (low * n_hills + high) * (n_levels + 1) + np.concatenate(passes)
    pair.sort()
    pair, level = np.divmod(pair, n_levels + 1)
    last = np.append(pair[1:] != pair[:-1], True)[: len(pair)]
    (low, high), level = np.divmod(pair[last], n_hills), level[last]
    order = np.argsort(level, kind="stable")
    low, high = low[order], high[order]
    ends = np.searchsorted(level[order], np.arange(n_levels + 2))
    return [(low[a:b], high[a:b]) for a, b in pairwise(ends)]


def _groups(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The nodes of some edges, the group that each is in, and how many groups there are."""
    nodes, index = np.unique(np.concatenate([one, other]), return_inverse=True)
    edges = (index[: len(one)], index[len(one) :])
    graph = coo_matrix((np.ones(len(one), bool), edges), shape=(len(nodes),) * 2)
    n_groups, group = connected_components(graph, directed=False)
    return nodes, group, n_groups
