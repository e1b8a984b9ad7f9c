"""Sources as clusters of pixels that are dense in light."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.backend import Backend, on_host
from diffdeblend.segment.cluster_points import cluster_points
from diffdeblend.segment.dbscan_pixels import box_density, dbscan_stamp, link_pixels
from diffdeblend.segment.labels import LabelImage, NoDetectionsWarning
from diffdeblend.segment.sources import StampLabels

Method = Literal["dbscan_binned", "dbscan", "connected", "from_seg_map"]
_METHODS = ("dbscan_binned", "dbscan", "connected", "from_seg_map")
_NORMS = ("sum", "mean", "area")


@dataclass(frozen=True, eq=False)
class DBSCANSegments:
    """Clusters of an image.

    - `labels`: the clusters; `K`: least density of a core, in the unit of the image, one number
        or shape `(y, x)`; -inf where every pixel counts.
    - `selected`: pixels that were looked at, above the threshold, shape `(y, x)`.
    """

    labels: LabelImage
    K: float | Float[np.ndarray, "y x"]
    selected: Bool[np.ndarray, "y x"]


def dbscan_segments(
    data: Any,
    threshold: Any,
    *,
    eps: float = 1.5,
    K: float | None = 1.5,
    K_pix: bool = True,
    norm: str = "sum",
    method: Method = "dbscan_binned",
    min_size: int = 25,
    mask: Any = None,
    max_image_size: int | None = None,
    use_only_central_sub_stamp: bool = False,
    buffer_size: int | None = None,
    segment_map: Any = None,
    seg_map_bkg_val: float = 0,
) -> DBSCANSegments:
    """Clusters of pixels by DBSCAN, weighted with their light. Host side.

    Pixels above the threshold are cores if the light around them, their own included, is at least
    `K`. Cores within `eps` are one cluster, others join the first cluster that has a core within
    `eps`. Labels are 1, 2, ... in the order of their first cores, row by row. If there is none, the
    result is empty, with a `NoDetectionsWarning`.

    - `data`: shape `(y, x)`, the sky included if the threshold includes it, as in ASTErIsM.
    - `threshold`: in the unit of `data`, one number or shape `(y, x)`.
    - `eps`: in pixels.
    - `K`: density of a core, times the threshold if `K_pix`. `None`: every pixel above the
        threshold is a core, so that clusters are pixels linked within `eps`.
    - `norm`: light around a pixel is its "sum", the "mean" of the pixels above the threshold, or
        the sum divided by the "area" in pixels. With "sum" ASTErIsM's printed results can be had,
        with the others not.
    - `method`: "dbscan_binned", where around means a box, |dx| and |dy| up to `eps`; "dbscan", a
        circle; "connected": 8-connected pixels; "from_seg_map": the clusters of `segment_map`.
    - `min_size`: least number of pixels of a cluster.
    - `mask`: True on pixels that are of no source, shape `(y, x)`.
    - `max_image_size`: an image of more pixels is cut into tiles that are done one by one; clusters
        end at their borders. `use_only_central_sub_stamp`: only the tile in the middle.
    - `buffer_size`: the neighbours of so many pixels at a time, for "dbscan"; this bounds memory.
    - `segment_map`: shape `(y, x)`, one value a cluster; `seg_map_bkg_val`: its background.

    **Raises:** `ValueError` for shapes that do not fit or an argument out of its range.

    ??? cite
        Tramacere et al. (2016), MNRAS 463, 2939, section 3; Ester et al. (1996), KDD-96, 226.
    """
    image = np.asarray(data)
    if image.ndim != 2:
        raise ValueError(f"`data` needs shape (y, x); got {image.shape}.")
    _check(eps, K, norm, min_size)
    if method not in _METHODS:
        raise ValueError(f"`method` must be one of {', '.join(_METHODS)}; got {method!r}.")
    if (segment_map is not None) != (method == "from_seg_map"):
        raise ValueError('`segment_map` is needed by `method="from_seg_map"`, and by no other.')
    if max_image_size is not None and max_image_size < 1:
        raise ValueError(f"`max_image_size` must be at least 1; got {max_image_size}.")
    level = _fit("threshold", threshold, image.shape)
    selected = image > level
    if mask is not None:
        selected &= ~_fit("mask", mask, image.shape).astype(bool)
    density = _density(K, K_pix, level)
    if method == "from_seg_map":
        given = np.asarray(segment_map)
        if given.shape != image.shape:
            raise ValueError(f"`segment_map` needs shape {image.shape}; got {given.shape}.")
        selected = given != seg_map_bkg_val
        selected &= np.isfinite(given) if given.dtype.kind == "f" else True
        if mask is not None:
            selected &= ~np.asarray(mask, bool)

    labels = np.zeros(image.shape, np.int32)
    used = np.zeros(image.shape, bool)
    for tile in _tiles(image.shape, max_image_size, use_only_central_sub_stamp):
        used[tile] = selected[tile]
        if method == "from_seg_map":
            _, values = np.unique(np.asarray(segment_map)[tile][used[tile]], return_inverse=True)
            found = np.zeros(used[tile].shape, np.int32)
            found[used[tile]] = values + 1
        else:
            least = density if np.ndim(density) == 0 else np.asarray(density)[tile]
            options = (eps, norm, method, buffer_size)
            found = _clusters(image[tile], used[tile], least, *options)
        found = _drop_small(found, min_size)
        labels[tile] = np.where(found > 0, found + labels.max(initial=0), 0)
    made = LabelImage(labels)
    if not made.max_label:
        warnings.warn(
            "No clusters were found. A lower `threshold`, `K` or `min_size` may find some.",
            NoDetectionsWarning,
            stacklevel=2,
        )
    return DBSCANSegments(made, density, used)


def dbscan_stamps(
    data: Any,
    threshold: Any,
    *,
    eps: float = 1.5,
    K: float | None = 1.5,
    K_pix: bool = True,
    norm: str = "sum",
    min_size: int = 25,
    backend: Backend = "auto",
) -> StampLabels:
    """`dbscan_segments` with boxes for many stamps at once, each with labels of its own.

    - `data`: shape `(stamp, y, x)`; `threshold`: one number, or one a stamp.
    - `backend`: "host", "jax" (one program for a shape of stamps), or as the device is.

    Other arguments are as in `dbscan_segments`. No warning where a stamp is empty.

    **Raises:** `ValueError` as `dbscan_segments`.
    """
    stack = np.asarray(data)
    if stack.ndim != 3:
        raise ValueError(f"`data` needs shape (stamp, y, x); got {stack.shape}.")
    _check(eps, K, norm, min_size)
    n, height, width = stack.shape
    level = np.broadcast_to(_fit("threshold", threshold, (n,)), (n,))
    density = np.broadcast_to(_density(K, K_pix, level), (n,))
    reach = int(eps)
    if not on_host(backend):
        images = jnp.asarray(stack)
        limits = (jnp.asarray(level, images.dtype), jnp.asarray(density, images.dtype))
        options = {"reach": reach, "min_size": min_size, "norm": norm}
        labels, n_labels = _on_device(images, *limits, **options)
        return StampLabels(np.asarray(labels), np.asarray(n_labels))
    # One tall image; rows between stamps are more than a box can span.
    rows = np.zeros((n, height + reach, width), stack.dtype)
    rows[:, :height] = stack
    active = np.zeros(rows.shape, bool)
    active[:, :height] = stack > level[:, None, None]
    tall = (n * (height + reach), width)
    least = np.repeat(density, height + reach)[:, None].astype(stack.dtype)
    found = _clusters(
        rows.reshape(tall), active.reshape(tall), least, eps, norm, "dbscan_binned", None
    )
    found = _drop_small(found, min_size).reshape(rows.shape)[:, :height]
    highest = np.maximum.accumulate(found.max(axis=(1, 2), initial=0))
    before = np.concatenate([[0], highest])
    labels = np.where(found > 0, found - before[:-1, None, None], 0).astype(np.int32)
    return StampLabels(labels, np.diff(before))


@partial(jax.jit, static_argnames=("reach", "min_size", "norm"))
def _on_device(data, level, density, *, reach: int, min_size: int, norm: str):
    one = partial(dbscan_stamp, reach=reach, min_size=min_size, norm=norm)
    return jax.vmap(one)(data, level, density)


def _clusters(image, active, density, eps, norm, method, buffer_size) -> np.ndarray:
    """Clusters of the active pixels of one image, from 1 on."""
    if method == "connected":
        return link_pixels(active, active, np.ones((3, 3), bool))
    reach = int(eps)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    if method == "dbscan_binned":
        footprint = np.ones(y.shape, bool)
        core = active & (box_density(image, active, reach, norm) >= density)
        return link_pixels(core, active, footprint)
    place = np.argwhere(active)
    light = image[active].astype(float)
    if norm == "area":
        light = light / np.count_nonzero(y * y + x * x <= eps * eps)
    least = density if np.ndim(density) == 0 else np.broadcast_to(density, image.shape)[active]
    mean = norm == "mean"
    found = cluster_points(place, eps, least, mean=mean, weights=light, buffer_size=buffer_size)
    labels = np.zeros(image.shape, np.int32)
    labels[active] = found + 1
    return labels


def _drop_small(labels: np.ndarray, min_size: int) -> np.ndarray:
    kept = np.bincount(labels.ravel()) >= max(min_size, 1)
    kept[:1] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]


def _tiles(shape, most: int | None, central: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of nearly equal size, each of at most `most` pixels; or the one in the middle."""
    n = (1, 1)
    while most is not None and -(-shape[0] // n[0]) * -(-shape[1] // n[1]) > most:
        longer = int(shape[1] / n[1] > shape[0] / n[0])
        n = (n[0] + (not longer), n[1] + longer)
    edges = [np.linspace(0, s, k + 1).astype(int) for s, k in zip(shape, n, strict=True)]
    for i in range(n[0]):
        for j in range(n[1]):
            if not central or (i, j) == (n[0] // 2, n[1] // 2):
                yield slice(*edges[0][i : i + 2]), slice(*edges[1][j : j + 2])


def _density(K: float | None, K_pix: bool, level: np.ndarray) -> Any:
    """Least density of a core; one number where the threshold is one."""
    if K is None:
        return -np.inf
    if not K_pix:
        return float(K)
    return K * (level.item() if level.ndim == 0 else level)


def _fit(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(value)
    if values.ndim and values.shape != shape:
        raise ValueError(f"`{name}` needs one number or shape {shape}; got {values.shape}.")
    return values


def _check(eps: float, K: float | None, norm: str, min_size: int) -> None:
    if not (np.isfinite(eps) and eps > 0):
        raise ValueError(f"`eps` must be positive; got {eps}.")
    if K is not None and not np.isfinite(K):
        raise ValueError(f"`K` must be finite or None; got {K}.")
    if norm not in _NORMS:
        raise ValueError(f"`norm` must be one of {', '.join(_NORMS)}; got {norm!r}.")
    if min_size < 0:
        raise ValueError(f"`min_size` must be at least 0; got {min_size}.")
