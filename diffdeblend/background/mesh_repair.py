"""From the levels of the boxes to a smooth map: holes filled, outliers filtered, nodes joined."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import spline_filter1d
from scipy.spatial import KDTree

# From so many nodes on, scipy's splines are right to single precision.
_SCIPY_IS_RIGHT = 6
# Nearest boxes that a hole is filled from.
NEIGHBOURS = 10


def fill_holes(meshes: Float[np.ndarray, "stamp my mx"]) -> Float[np.ndarray, "stamp my mx"]:
    """Boxes that are NaN from the 10 nearest others, weighted by inverse distance in boxes.

    Of boxes equally far away the k-d tree chooses; its leaves are those of photutils, so that the
    choice is too. A mesh with none to fill from stays as it is.
    """
    hole = np.isnan(meshes)
    some = np.flatnonzero(hole.any(axis=(1, 2)) & ~hole.all(axis=(1, 2)))
    if not some.size:
        return meshes
    filled = meshes.copy()
    shape = meshes.shape[1:]
    if shape[0] * shape[1] <= NEIGHBOURS + 1:
        # All others count: all stamps at once.
        y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
        distance = np.hypot(y[:, None] - y, x[:, None] - x)
        np.fill_diagonal(distance, np.inf)
        here = hole[some].reshape(len(some), -1)
        values = np.where(here, 0, meshes[some].reshape(here.shape).astype(float))
        level = (values @ (1 / distance)) / np.maximum(~here @ (1 / distance), 1e-300)
        filled[some] = np.where(here, level, values).reshape(-1, *shape)
        return filled
    for stamp in some:
        mesh, gap = meshes[stamp], hole[stamp]
        places, values = np.argwhere(~gap), mesh[~gap].astype(float)
        distance, near = KDTree(places, leafsize=10).query(np.argwhere(gap), k=NEIGHBOURS)
        # With fewer boxes than asked for, the rest is infinitely far away.
        weight = 1 / distance
        near = np.minimum(near, len(values) - 1)
        filled[stamp][gap] = (weight * values[near]).sum(axis=1) / weight.sum(axis=1)
    return filled


def filter_mesh(
    mesh: Float[np.ndarray, "*stack my mx"], size: tuple[int, int]
) -> Float[np.ndarray, "*stack my mx"]:
    """Median of a window around each box; beyond the edge nothing counts."""
    if size == (1, 1):
        return mesh
    reach = [(n // 2, n // 2) for n in size]
    none = [(0, 0)] * (mesh.ndim - 2)
    padded = np.pad(mesh.astype(float), none + reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(-2, -1))
    ordered = np.sort(windows.reshape(*mesh.shape, size[0] * size[1]), axis=-1)
    n = ordered.shape[-1] - np.count_nonzero(np.isnan(ordered), axis=-1)
    n = np.maximum(n, 1)[..., None]
    low = np.take_along_axis(ordered, (n - 1) // 2, axis=-1)
    high = np.take_along_axis(ordered, n // 2, axis=-1)
    return (0.5 * (low + high))[..., 0].astype(mesh.dtype)


def spline_matrix(n_nodes: int, box: int, length: int) -> Float[np.ndarray, "pixel node"]:
    """Values at pixels of the cubic spline through levels at the middles of boxes.

    `matrix_y @ mesh @ matrix_x.T` is `scipy.ndimage.zoom(mesh, box, order=3, mode="reflect",
    grid_mode=True)`, cut to the image, where there are six nodes or more. With fewer, scipy's
    spline misses its nodes, by 6e-4 of the level with two of them; ours goes through.

    - `n_nodes`: boxes along an axis. `box`: pixels of a box. `length`: pixels of the image.
    """
    if n_nodes < _SCIPY_IS_RIGHT:
        # The spline that is 1 at one node, reflected about the border of a box.
        coefficients = np.linalg.inv(_weights(np.arange(n_nodes, dtype=float), n_nodes))
    else:
        coefficients = spline_filter1d(np.eye(n_nodes), order=3, axis=0, mode="reflect")
    return _weights((np.arange(length) + 0.5) / box - 0.5, n_nodes) @ coefficients


def _weights(at: np.ndarray, n_nodes: int) -> Float[np.ndarray, "place node"]:
    """How much each coefficient of a cubic spline counts at places in units of nodes."""
    first = np.floor(at).astype(int)
    t = at - first
    pieces = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    matrix = np.zeros((at.size, n_nodes))
    for step, weight in enumerate(pieces, start=-1):
        node = np.mod(first + step, 2 * n_nodes)
        node = np.where(node >= n_nodes, 2 * n_nodes - 1 - node, node)
        # The four may be the same node: added, not set.
        np.add.at(matrix, (np.arange(at.size), node), weight)
    return matrix
