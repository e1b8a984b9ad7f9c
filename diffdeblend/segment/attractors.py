"""From the attractors of pixels to the children of a cluster."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d, maximum_filter
from scipy.spatial import KDTree

from diffdeblend.segment.by_first import by_first
from diffdeblend.segment.cluster_points import cluster_points
from diffdeblend.segment.members import Members
from diffdeblend.segment.windows_of_members import Windows, draw_windows

# Attractors are told apart to this fraction of the merging radius: most coincide.
_FINE = 1024


class Children(NamedTuple):
    """Parts of clusters; those of one cluster together, by their first pixel in raster order.

    - `of_pixel`: child of each pixel of the list of members.
    - `group`: cluster of each child; `x`, `y`: its attractor, the mean of those merged, in pixels.
    """

    of_pixel: Int[np.ndarray, "n"]
    group: Int[np.ndarray, "child"]
    x: Float[np.ndarray, "child"]
    y: Float[np.ndarray, "child"]


def merge_attractors(
    members: Members,
    group: Int[np.ndarray, "point"],
    x: Float[np.ndarray, "point"],
    y: Float[np.ndarray, "point"],
    of_pixel: Int[np.ndarray, "n"],
    *,
    eps: float = 1.0,
    K: float = 4.0,
    left_out: np.ndarray | None = None,
) -> Children:
    """Children by DBSCAN on the attractors of pixels.

    An attractor in no dense group joins the nearest cluster; where nothing is dense, the whole is
    one child.

    - `group`, `x`, `y`: cluster and place of each attractor, in pixels; `of_pixel`: attractor of
        each pixel.
    - `eps`: attractors within this distance are neighbours, in pixels (told to a 1024th).
    - `K`: least number of pixels whose attractors lie within `eps`, the pixel itself included.
    - `left_out`: of pixels, true for those that have no say, but only join.

    **Raises:** `ValueError` for an `eps` or a `K` that is not positive.
    """
    for name, value in (("attr_dbs_eps", eps), ("attr_dbs_K", K)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be positive; got {value}.")
    point, same = _distinct(group, x, y, eps / _FINE)
    of_pixel = same[of_pixel]
    said = None if left_out is None else np.where(left_out, 0.0, 1.0)
    weight = np.bincount(of_pixel, said, len(point))
    group, x, y = group[point], x[point], y[point]
    places = np.column_stack([x, y])
    found = cluster_points(places, eps, K, weights=weight, group=group)
    dense = found >= 0
    near = nearest_in_group(places, group, places[dense], group[dense])
    cluster = np.where(near >= 0, found[dense][near] if dense.any() else -1, -1)
    # What has no cluster to join is one child a group.
    cluster = np.where(cluster >= 0, cluster, found.max(initial=-1) + 1 + group)
    # The mean is that of what is dense, where anything is.
    weight = np.where(dense | (near < 0), weight, 0)
    return _number(members, cluster[of_pixel], cluster, weight, x, y)


def nearest_in_group(
    points: Float[np.ndarray, "n 2"],
    group: Int[np.ndarray, "n"],
    targets: Float[np.ndarray, "m 2"],
    target_group: Int[np.ndarray, "m"],
) -> Int[np.ndarray, "n"]:
    """Row of the nearest target of the same group for each point, -1 if the group has none."""
    if len(points) == 0 or len(targets) == 0:
        return np.full(len(points), -1)
    # Groups lie on floors farther apart than the image is wide.
    floor = 2.0 * (1.0 + np.ptp(np.concatenate([points, targets]), axis=0).sum())
    tree = KDTree(np.column_stack([targets, floor * target_group]))
    near = tree.query(np.column_stack([points, floor * group]))[1]
    return np.where(target_group[near] == group, near, -1)


def find_targets(
    members: Members, *, sigma: float = 1.25, gl_th_rel: float = 0.1, h_grid: int = 3
) -> Int[np.ndarray, "target"]:
    """Pixels that stand for their neighbours, as ascending rows of the list of members.

    Maxima of the Laplacian of a Gaussian, a mesh of pixels, and the brightest pixel of each
    cluster.

    - `sigma`: of the Gaussian, in pixels.
    - `gl_th_rel`: maxima above this fraction of the highest of the cluster count.
    - `h_grid`: every so many pixels on either axis, from the corner of the cluster's box.

    **Raises:** `ValueError` for a `sigma` that is not positive, a `gl_th_rel` outside of [0, 1), or
    an `h_grid` below 1.
    """
    if h_grid < 1:
        raise ValueError(f"`h_grid` must be at least 1; got {h_grid}.")
    chosen = np.zeros(len(members.x), bool)
    for windows in draw_windows(members):
        chosen[windows.row] = _laplace_maxima(windows, sigma, gl_th_rel)
        place_y, place_x = np.divmod(windows.slot % windows.size**2, windows.size)
        chosen[windows.row] |= (place_x % h_grid == 0) & (place_y % h_grid == 0)
    brightest = np.lexsort((-members.light, members.group))
    chosen[brightest[members.start[:-1]]] = True
    return np.flatnonzero(chosen)


def find_laplace_maxima(
    members: Members, *, sigma: float = 1.25, gl_th_rel: float = 0.1
) -> Int[np.ndarray, "maximum"]:
    """Maxima of the Laplacian of a Gaussian alone; arguments as for `find_targets`."""
    chosen = np.zeros(len(members.x), bool)
    for windows in draw_windows(members):
        chosen[windows.row] = _laplace_maxima(windows, sigma, gl_th_rel)
    return np.flatnonzero(chosen)


def _laplace_maxima(windows: Windows, sigma: float, gl_th_rel: float) -> np.ndarray:
    """Which pixels of the clusters on these windows are such maxima."""
    if not sigma > 0:
        raise ValueError(f"`sigma` must be positive; got {sigma}.")
    if not 0 <= gl_th_rel < 1:
        raise ValueError(f"`gl_th_rel` must be at least 0 and below 1; got {gl_th_rel}.")
    laplace = np.zeros(windows.light.shape, windows.light.dtype)
    for orders in ((0, 2), (2, 0)):
        part = windows.light
        for axis, order in zip((1, 2), orders, strict=True):
            part = gaussian_filter1d(part, sigma, axis, order, mode="constant")
        laplace -= part
    inside = np.zeros(laplace.shape, bool)
    inside.ravel()[windows.slot] = True
    laplace = np.where(inside, laplace, -np.inf)
    highest = laplace.max(axis=(1, 2), keepdims=True)
    peak = (laplace == maximum_filter(laplace, (1, 3, 3))) & (laplace > gl_th_rel * highest)
    return peak.ravel()[windows.slot] & (laplace.ravel()[windows.slot] > 0)


def _distinct(group, x, y, fine: float) -> tuple[np.ndarray, np.ndarray]:
    """One of each set of points that share a cell of that width, and the cell of each point."""
    key = np.stack([group, np.round(x / fine).astype(int), np.round(y / fine).astype(int)])
    order = np.lexsort(key[::-1])
    new = np.any(np.diff(key[:, order], axis=1, prepend=key[:, order[:1]] - 1) != 0, axis=0)
    same = np.empty(len(order), int)
    same[order] = np.cumsum(new) - 1
    return order[new], same


def _number(members: Members, of_pixel, of_point, weight, x, y) -> Children:
    """Children in the order of clusters and of their first pixels; members are in that order."""
    number, first = by_first(of_pixel)
    place = np.full(int(of_point.max(initial=-1)) + 1, -1)
    place[of_pixel[first]] = np.arange(len(first))
    child = place[of_point]
    weight = np.where(child >= 0, weight, 0)
    child = np.maximum(child, 0)
    total = np.bincount(child, weight, len(first))
    total = np.where(total > 0, total, 1)
    mean_x, mean_y = (np.bincount(child, weight * v, len(first)) / total for v in (x, y))
    return Children(number, members.group[first], mean_x, mean_y)
