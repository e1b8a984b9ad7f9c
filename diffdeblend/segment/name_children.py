"""Children become sources: their labels, and what is known of each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.segment.attractors import Children
from diffdeblend.segment.members import Members
from diffdeblend.segment.validate_children import child_properties


class Sources(NamedTuple):
    """The final sources, in the order of their labels (and of stamps), in pixels.

    - `stamp`, `label`; `parent_id`: label of the cluster it was in; `parent`: its row in `parents`.
    - `x`, `y`: flux-weighted centroid; `attractor_x`, `attractor_y`.
    - `n_pixels`, `flux`, `peak`: of its pixels, as given to the deblending.
    """

    stamp: Int[np.ndarray, "source"]
    label: Int[np.ndarray, "source"]
    parent_id: Int[np.ndarray, "source"]
    parent: Int[np.ndarray, "source"]
    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    attractor_x: Float[np.ndarray, "source"]
    attractor_y: Float[np.ndarray, "source"]
    n_pixels: Int[np.ndarray, "source"]
    flux: Float[np.ndarray, "source"]
    peak: Float[np.ndarray, "source"]


def with_the_unsplit(
    everyone: Members, members: Members, chosen: np.ndarray, children: Children
) -> Children:
    """Children of all clusters, where those that were not chosen have one: themselves."""
    whole = np.ones(everyone.n_groups, bool)
    whole[chosen] = False
    owner = np.concatenate([chosen[children.group], np.flatnonzero(whole)])
    size = np.maximum(everyone.sizes, 1)
    middle = [everyone.sum(v) / size for v in (everyone.x, everyone.y)]
    x = np.concatenate([children.x, middle[0][whole]])
    y = np.concatenate([children.y, middle[1][whole]])
    # Chosen clusters are in ascending order, and so are the children of each.
    order = np.argsort(owner, kind="stable")
    rank = np.argsort(order)
    of_pixel = np.zeros(len(everyone.x), int)
    apart = ~whole[everyone.group]
    of_pixel[apart] = rank[children.of_pixel]
    number = np.cumsum(whole) - 1 + len(children.group)
    of_pixel[~apart] = rank[number[everyone.group[~apart]]]
    return Children(of_pixel, owner[order], x[order], y[order])


def label_children(
    members: Members, children: Children, shape: tuple[int, ...]
) -> tuple[Int[np.ndarray, "stamp y x"], Sources, dict[int, np.ndarray]]:
    """Labels, the list of sources, and the labels of the children of each split cluster."""
    owner = children.group
    several = np.bincount(owner, minlength=members.n_groups)[owner] > 1
    stamp = members.stamp[owner]
    order = np.lexsort([np.arange(len(owner)), several, stamp])
    ordered = stamp[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    base = np.repeat(first, np.diff(np.append(first, len(ordered))))
    label = np.empty(len(owner), np.int32)
    label[order] = np.arange(len(owner)) - base + 1
    labels = np.zeros(shape, np.int32)
    labels[members.stamp[members.group], members.y, members.x] = label[children.of_pixel]
    size, flux, peak, x, y = child_properties(members, children)
    columns = (
        *(stamp, label, members.label[owner], owner),
        *(x, y, children.x, children.y, size, flux, peak),
    )
    sources = Sources(*(column[order] for column in columns))
    split = np.flatnonzero(np.bincount(owner, minlength=members.n_groups) > 1)
    start, end = np.searchsorted(owner, split), np.searchsorted(owner, split, side="right")
    family = {int(members.label[g]): label[a:b] for g, a, b in zip(split, start, end, strict=True)}
    return labels, sources, family
