"""Pixels that are dense in light, and how they hang together: DBSCAN on an image."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.ndimage import label, minimum_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from diffdeblend.segment.around import follow
from diffdeblend.segment.by_first import by_first

# Of no cluster: larger than any label.
_NONE = np.iinfo(np.int32).max


def box_density(
    light: Float[np.ndarray, "y x"],
    active: Bool[np.ndarray, "y x"],
    reach: int,
    norm: str,
) -> Float[np.ndarray, "y x"]:
    """Light of the active pixels in the box of 2 `reach` + 1 around each.

    - `norm`: its "sum", the "mean" of the active pixels, or the sum by "area" of the box.
    """
    total = _box_sum(np.where(active, light, 0), reach)
    if norm == "mean":
        return total / np.maximum(_box_sum(active.astype(total.dtype), reach), 1)
    return total / (2 * reach + 1) ** 2 if norm == "area" else total


def link_pixels(
    core: Bool[np.ndarray, "y x"],
    active: Bool[np.ndarray, "y x"],
    footprint: Bool[np.ndarray, "k k"],
) -> Int[np.ndarray, "y x"]:
    """Clusters of the active pixels from 1 on, by their first core in raster order; 0 elsewhere.

    Cores are linked with those in the footprint around them; an active pixel that is no core joins
    the first cluster that has a core in its footprint.
    """
    if footprint.shape == (3, 3) and footprint.all():
        labels = np.empty(core.shape, np.int32)
        label(core, np.ones((3, 3), bool), output=labels)
    else:
        labels = _link_far(core, footprint)
    if np.count_nonzero(active) > np.count_nonzero(core):
        reach = minimum_filter(
            np.where(core, labels, _NONE), footprint=footprint, mode="constant", cval=_NONE
        )
        labels = np.where(active & ~core & (reach < _NONE), reach, labels)
    return labels


def _box_sum(image: np.ndarray, reach: int) -> np.ndarray:
    """Sum over a box, row by row and then column by column, as on the device."""
    padded = np.pad(image, reach)
    height, width = image.shape
    rows = np.zeros((height, padded.shape[1]), image.dtype)
    for d in range(2 * reach + 1):
        rows += padded[d : d + height]
    total = np.zeros(image.shape, image.dtype)
    for d in range(2 * reach + 1):
        total += rows[:, d : d + width]
    return total


def _link_far(core: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Labels of cores that may be linked across pixels that are none."""
    reach = len(footprint) // 2
    y, x = np.nonzero(core)
    index = np.full(np.add(core.shape, 2 * reach), -1)
    index[reach : -reach or None, reach : -reach or None][core] = np.arange(len(y))
    edges = [np.zeros((2, 0), int)]
    for dy, dx in np.argwhere(footprint) - reach:
        if (dy, dx) > (0, 0):
            other = index[y + reach + dy, x + reach + dx]
            edges.append(np.stack([np.flatnonzero(other >= 0), other[other >= 0]]))
    first, second = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(y), len(y)))
    component = connected_components(graph, directed=False)[1]
    labels = np.zeros(core.shape, np.int32)
    labels[core] = 1 + by_first(component)[0]
    return labels


def dbscan_stamp(
    data: Float[Array, "y x"],
    threshold: Float[Array, ""],
    density: Float[Array, ""],
    *,
    reach: int = 1,
    min_size: int = 25,
    norm: str = "sum",
) -> tuple[Int[Array, "y x"], Int[Array, ""]]:
    """Labels of one stamp from 1 on, and how many: `dbscan_segments` for use under jit and vmap.

    The same clusters in the same order as on the host. Labels have no gradient.

    - `threshold`: pixels have to be above it; `density`: least light in the box around a core.
    - `reach`: the box has 2 `reach` + 1 pixels on a side; static.
    - `min_size`: least number of pixels of a cluster; `norm`: "sum", "mean" or "area"; static.
    """
    data = jax.lax.stop_gradient(jnp.asarray(data))
    active = data > threshold
    light = _window(jnp.where(active, data, 0), reach, jnp.add, 0)
    if norm == "mean":
        light = light / jnp.maximum(_window(active.astype(light.dtype), reach, jnp.add, 0), 1)
    elif norm == "area":
        light = light / (2 * reach + 1) ** 2
    core = active & (light >= density)
    root = _roots(core, reach)
    near = _window(root, reach, jnp.minimum, core.size)
    root = jnp.where(core, root, jnp.where(active, near, core.size)).ravel()
    size = jnp.zeros(core.size + 1, jnp.int32).at[root].add(1)
    kept = (size >= min_size).at[-1].set(False)
    # A root is its own first core, so numbers follow the raster order of first cores.
    number = jnp.cumsum(kept & (size > 0))
    labels = jnp.where(kept[root] & (size[root] > 0), number[root], 0)
    return labels.reshape(core.shape), number[-1]


def _window(image: Array, reach: int, combine, fill: float) -> Array:
    """Sum or minimum over the box around each pixel."""
    for axis in (0, 1):
        width = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = jnp.pad(image, width, constant_values=fill)
        n = image.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, d, d + n, axis=axis) for d in range(2 * reach + 1)]
        image = parts[0]
        for part in parts[1:]:
            image = combine(image, part)
    return image


def _roots(core: Array, reach: int) -> Array:
    """First pixel, in raster order, of the cluster of each core; elsewhere the number of pixels.

    Roots are hooked to the lowest root next to any of their pixels, and pointers halved until
    nothing moves: about log2 of the size of the image rounds, also for a spiral.
    """
    n = core.size
    flat = core.ravel()
    start = jnp.where(flat, jnp.arange(n), n)

    def turn(state):
        pointer, _ = state
        image = jnp.where(core, pointer[:-1].reshape(core.shape), n)
        lowest = jnp.where(flat, _window(image, reach, jnp.minimum, n).ravel(), n)
        hooked = follow(pointer.at[pointer[:-1]].min(lowest))
        return hooked, jnp.any(hooked != pointer)

    pointer = jnp.append(start, n)
    pointer, _ = jax.lax.while_loop(lambda s: s[1], turn, (pointer, jnp.array(True)))
    return pointer[:-1].reshape(core.shape)
