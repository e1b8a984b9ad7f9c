"""Clusters taken apart by a flood from few markers: GLW, and DENCLUE's attractors as markers."""

from typing import Any

import numpy as np
from jaxtyping import Int

from diffdeblend.segment.around import STEPS
from diffdeblend.segment.attractors import Children, find_laplace_maxima, nearest_in_group
from diffdeblend.segment.by_first import by_first
from diffdeblend.segment.flood import flood
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.members import Members, find_members
from diffdeblend.segment.name_children import label_children, with_the_unsplit


def glw_deblend(
    data: Any,
    clusters: Any,
    *,
    sigma: float = 1.25,
    gl_th_rel: float = 0.1,
    min_size: int = 9,
) -> LabelImage:
    """Sources of clusters: a watershed from the maxima of the Laplacian of a Gaussian. Host side.

    Labels are in the order of `denclue_deblend`'s.

    - `data`: shape `(y, x)`; `clusters`: a `LabelImage`, or integers of that shape.
    - `sigma`: of the Gaussian, in pixels; `gl_th_rel`: maxima above this fraction of the highest of
        the cluster are markers.
    - `min_size`: clusters of fewer pixels stay whole.

    **Raises:** `ValueError` for shapes that do not fit or an argument out of its range.

    ??? cite
        ASTErIsM's Gaussian-Laplacian watershed: Tramacere et al. (2016), MNRAS 463, 2939.
    """
    image = np.asarray(data)
    given = clusters.data if isinstance(clusters, LabelImage) else np.asarray(clusters)
    if image.ndim != 2 or given.shape != image.shape:
        raise ValueError(
            f"`data` and `clusters` need one shape (y, x); got {image.shape} and {given.shape}."
        )
    light = image if image.dtype.kind == "f" else image.astype(float)
    everyone = find_members(light[None], given[None])
    chosen = np.flatnonzero(everyone.sizes >= min_size)
    members = everyone.take(chosen)
    markers = find_laplace_maxima(members, sigma=sigma, gl_th_rel=gl_th_rel)
    # Who has no maximum, on level ground, has its brightest pixel.
    brightest = np.lexsort((-members.light, members.group))[members.start[:-1]]
    bare = np.bincount(members.group[markers], minlength=members.n_groups) == 0
    markers = np.sort(np.concatenate([markers, brightest[bare]]))
    children = flood_children(members, markers)
    whole = with_the_unsplit(everyone, members, chosen, children)
    labels, _, family = label_children(everyone, whole, (1, *image.shape))
    return LabelImage(labels[0], family)


def flood_children(members: Members, markers: Int[np.ndarray, "marker"]) -> Children:
    """Children by a flood from pixels, given as ascending rows of the list, at least one a cluster.

    What the flood cannot reach, where a cluster is in several pieces, goes to the nearest marker.
    """
    number = np.zeros(len(members.x), int)
    number[markers] = np.arange(len(markers)) + 1
    child = flood(members.light, neighbour_rows(members), number) - 1
    places = np.column_stack([members.x, members.y])
    dry = np.flatnonzero(child < 0)
    seeds = (places[markers], members.group[markers])
    child[dry] = nearest_in_group(places[dry], members.group[dry], *seeds)
    # By the first pixel, as everywhere.
    numbered, first = by_first(child)
    marker = markers[child[first]]
    x, y = members.x[marker].astype(float), members.y[marker].astype(float)
    return Children(numbered, members.group[marker], x, y)


def attractor_pixels(members: Members, children: Children) -> Int[np.ndarray, "marker"]:
    """The pixel of its child that is nearest to each attractor, as ascending rows of the list."""
    places = np.column_stack([members.x, members.y])
    attractors = np.column_stack([children.x, children.y])
    owner = np.arange(len(attractors))
    return np.sort(nearest_in_group(attractors, owner, places, children.of_pixel))


def neighbour_rows(members: Members) -> Int[np.ndarray, "8 n"]:
    """Rows of the eight neighbours of each pixel in its cluster; its own where there is none."""
    n = len(members.x)
    own = np.arange(n)
    if n == 0:
        return np.zeros((8, 0), int)
    height, width = int(members.y.max()) + 3, int(members.x.max()) + 3
    stamp = members.stamp[members.group]
    place = (stamp * height + members.y + 1) * width + members.x + 1
    row = np.full((int(stamp.max()) + 1) * height * width, -1)
    row[place] = own
    # Earlier pixels first, as the flood wants them.
    found = np.stack([row[place + dy * width + dx] for dy, dx in STEPS[8]])
    return np.where((found >= 0) & (members.group[found] == members.group), found, own)
