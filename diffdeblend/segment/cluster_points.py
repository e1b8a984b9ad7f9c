"""Points that lie close together: DBSCAN with weights, for many sets of points at once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from diffdeblend.segment.by_first import by_first

_BUFFER = 100_000


def cluster_points(
    points: Float[np.ndarray, "n d"],
    eps: float,
    min_weight: float | Float[np.ndarray, "n"],
    *,
    mean: bool = False,
    weights: Float[np.ndarray, "n"] | None = None,
    group: Int[np.ndarray, "n"] | None = None,
    buffer_size: int | None = None,
) -> Int[np.ndarray, "n"]:
    """Cluster of each point, -1 for noise. Host side.

    A point is a core if the weights within `eps` of it, its own included, sum to `min_weight` or
    more. Cores within `eps` of each other are in one cluster; another point joins the first of the
    clusters that have a core within `eps`. Clusters are numbered from 0 by their first core.

    - `points`: positions, shape `(n, d)`; `eps` in the same unit.
    - `weights`: of the points, shape `(n,)`; 1 each if not given, so that `min_weight` is a count.
    - `min_weight`: one number or one a point; `mean`: compare it with the mean weight instead.
    - `group`: points of different groups do not see each other, shape `(n,)`.
    - `buffer_size`: neighbours are looked up for so many points at a time, which bounds memory and
        changes nothing else.

    **Raises:** `ValueError` for an `eps` that is not positive, arrays of other shapes, or a
    `buffer_size` below 1.

    ??? cite
        Ester et al. (1996), KDD-96, 226.
    """
    points = np.asarray(points, float)
    if points.ndim != 2:
        raise ValueError(f"`points` needs shape (n, d); got {points.shape}.")
    if not (np.isfinite(eps) and eps > 0):
        raise ValueError(f"`eps` must be positive; got {eps}.")
    if buffer_size is not None and buffer_size < 1:
        raise ValueError(f"`buffer_size` must be at least 1; got {buffer_size}.")
    n = len(points)
    for name, values in (("weights", weights), ("group", group)):
        if values is not None and np.shape(values) != (n,):
            raise ValueError(f"`{name}` needs shape ({n},); got {np.shape(values)}.")
    if n == 0:
        return np.zeros(0, int)
    mass = np.ones(n) if weights is None else np.asarray(weights, float)
    if group is not None:
        # Groups lie on floors too far apart for a pair.
        floor = 4.0 * eps * np.asarray(group, float)
        points = np.column_stack([points, floor])

    first, second = _pairs(points, eps, _BUFFER if buffer_size is None else buffer_size)
    near = mass + np.bincount(first, mass[second], n) + np.bincount(second, mass[first], n)
    if mean:
        near = near / (1 + np.bincount(first, minlength=n) + np.bincount(second, minlength=n))
    core = near >= min_weight
    both = core[first] & core[second]
    labels = _link(core, first[both], second[both])
    # The first cluster, where several have a core nearby.
    joined = np.where(core, labels, n)
    for one, other in ((first, second), (second, first)):
        edge = ~core[one] & core[other]
        np.minimum.at(joined, one[edge], labels[other[edge]])
    return np.where(joined < n, joined, -1)


def _pairs(points: np.ndarray, eps: float, buffer: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of points within `eps`, the lower first."""
    found = list(_pairs_by_part(points, eps, buffer))
    return np.concatenate([f for f, _ in found]), np.concatenate([s for _, s in found])


def _pairs_by_part(
    points: np.ndarray, eps: float, buffer: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    tree = KDTree(points)
    for start in range(0, len(points), buffer):
        part = KDTree(points[start : start + buffer])
        near = part.sparse_distance_matrix(tree, eps, output_type="ndarray")
        kept = near[near["i"] + start < near["j"]]
        yield kept["i"] + start, kept["j"]


def _link(core: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number of the cluster of each core, by its first core; what is no core gets -1."""
    n = len(core)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    labels = np.full(n, -1)
    labels[core] = by_first(component[core])[0]
    return labels
