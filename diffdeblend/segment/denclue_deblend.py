"""A blend taken apart where its light has maxima, by DENCLUE."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from diffdeblend.segment.attractors import Children
from diffdeblend.segment.denclue_children import AscentMethod, find_children
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.members import (
    Members,
    cluster_radii,
    find_members,
    influence_radius,
    kernel_width,
)
from diffdeblend.segment.validate_children import Validation, child_properties


class Parents(NamedTuple):
    """What is known of each cluster before it was taken apart, in pixels.

    - `stamp`: its image, 0 if there is one; `label`: in that image; `n_pixels`.
    - `r_cluster`, `r_max`: its scales; `h`: width of the kernel; `R_max`: radius of influence.
    - `n_found`, `n_children`: how many children were found, and were left by the validation.
    """

    stamp: Int[np.ndarray, "parent"]
    label: Int[np.ndarray, "parent"]
    n_pixels: Int[np.ndarray, "parent"]
    r_cluster: Float[np.ndarray, "parent"]
    r_max: Float[np.ndarray, "parent"]
    h: Float[np.ndarray, "parent"]
    R_max: Float[np.ndarray, "parent"]
    n_found: Int[np.ndarray, "parent"]
    n_children: Int[np.ndarray, "parent"]


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


class Paths(NamedTuple):
    """How pixels climbed: `x`, `y` after each step, `(step, pixel)`, and `parent` of each pixel."""

    parent: Int[np.ndarray, "pixel"]
    x: Float[np.ndarray, "step pixel"]
    y: Float[np.ndarray, "step pixel"]


@dataclass(frozen=True, eq=False)
class DenclueResult:
    """Labels of the sources, and what was found on the way.

    - `labels`: a `LabelImage`, or for a stack of stamps an array `(stamp, y, x)`.
    - `parents`, `sources`: see there; `converged`: whether all attractors did.
    - `paths`: only if asked for.
    """

    labels: Any
    parents: Parents
    sources: Sources
    converged: bool
    paths: Paths | None = None

    @property
    def n_sources(self) -> int:
        return len(self.sources.label)

    def table(self) -> Table:
        """One row a source; the scales are those of its parent."""
        columns = self.sources._asdict()
        parent = columns.pop("parent")
        columns |= {
            name: getattr(self.parents, name)[parent] for name in ("r_cluster", "r_max", "h", "R_max")
        }
        return Table(columns)


def denclue_deblend(
    data: Any,
    clusters: Any,
    *,
    method: AscentMethod = "grid",
    kernel: str = "gauss",
    h_frac: float = 0.2,
    h_min: float = 1.0,
    h_max: float | None = None,
    R_max_frac: float | None = None,
    R_max_kern_th: float | None = None,
    eps: float | None = None,
    k_table_size: int | None = None,
    speed_up: bool = True,
    max_steps: int = 600,
    digitize_attractors: bool = False,
    mask_unchanged: float | None = None,
    min_size: int = 9,
    attr_dbs_eps: float = 1.0,
    attr_dbs_K: float = 4.0,
    gl_downsampling: bool = False,
    gl_sigma: float = 1.25,
    gl_th_rel: float = 0.1,
    h_grid: int = 3,
    validation: Validation | None = None,
    paths: bool = False,
) -> DenclueResult:
    """Sources of clusters: pixels whose attractors coincide. Host side, all clusters at once.

    Clusters that stay whole come first, in old order, then the children, cluster by cluster; labels
    are 1, 2, ... . All pixels of a cluster stay with one of its sources.

    - `data`: shape `(y, x)`, or `(stamp, y, x)`; weights are its positive pixels, the sky included
        if it is in, as in ASTErIsM.
    - `clusters`: a `LabelImage`, or integers of the shape of `data`, 0 for background.
    - `method`: "exact", every pixel climbs by the mean shift; "grid", pixels climb from neighbour to
        neighbour on the density at pixel centres, and only the tops by the mean shift.
    - `kernel`: "gauss", "uniform", "logistic" or "epanechnikov"; others than "gauss" need "exact".
    - `h_frac`, `h_min`, `h_max`: width of the kernel as a fraction of sqrt(r_max² + r_cluster²), and
        its limits in pixels.
    - `R_max_frac`, `R_max_kern_th`: radius of influence as a fraction of `r_max`, or where the kernel
        has fallen to this share. With neither 4.81 h for a Gaussian, or, if down-sampled,
        `r_cluster`.
    - `eps`: the climb ends at steps shorter than this, in pixels; default 1e-3 h. ASTErIsM's 0.01
        and more may leave the attractors of a flat cluster in several groups.
    - `k_table_size`, `speed_up`, `max_steps`: as in `climb`.
    - `digitize_attractors`: round attractors to whole pixels.
    - `mask_unchanged`: pixels that move less than this have no say in the merging; they join the
        nearest child.
    - `min_size`: clusters of fewer pixels stay whole.
    - `attr_dbs_eps`, `attr_dbs_K`: attractors are merged by DBSCAN with this radius in pixels, and at
        least this number of pixels.
    - `gl_downsampling`: only maxima of the Laplacian of a Gaussian and a mesh of pixels climb; others
        go where the nearest of these goes. Needs "exact". `gl_sigma`, `gl_th_rel`, `h_grid`: width in
        pixels, least fraction of the highest maximum, spacing of the mesh in pixels.
    - `validation`: which children are sources; `None` for all.
    - `paths`: give the way of each pixel that climbs, too.

    **Raises:** `ValueError` for shapes that do not fit, options that exclude each other, or an
    argument out of its range.

    ??? cite
        Tramacere et al. (2016), MNRAS 463, 2939, section 4.
    """
    image = np.asarray(data)
    is_labels = isinstance(clusters, LabelImage)
    given = clusters.data if is_labels else np.asarray(clusters)
    if image.ndim not in (2, 3):
        raise ValueError(f"`data` needs shape (y, x) or (stamp, y, x); got {image.shape}.")
    if given.shape != image.shape:
        raise ValueError(f"`clusters` needs the shape of `data`, {image.shape}; got {given.shape}.")
    if given.dtype.kind not in "iu" or given.min(initial=0) < 0:
        raise ValueError(f"`clusters` needs integers from 0; got {given.dtype}.")
    if method not in ("grid", "exact"):
        raise ValueError(f'`method` must be "grid" or "exact"; got {method!r}.')
    if method == "grid" and (gl_downsampling or kernel != "gauss" or k_table_size):
        raise ValueError(
            '`method="grid"` excludes `gl_downsampling`, `k_table_size` and other kernels than '
            '"gauss"; take `method="exact"`.'
        )
    if min_size < 0:
        raise ValueError(f"`min_size` must be at least 0; got {min_size}.")
    shape = (1, *image.shape) if image.ndim == 2 else image.shape
    light = image if image.dtype.kind == "f" else image.astype(float)
    everyone = find_members(light.reshape(shape), given.reshape(shape))
    r_cluster, r_max = cluster_radii(everyone)
    h = kernel_width(r_cluster, r_max, h_frac, h_min, h_max)
    if gl_downsampling and R_max_frac is None and R_max_kern_th is None:
        radius = r_cluster
    else:
        radius = influence_radius(kernel, h, r_max, R_max_frac, R_max_kern_th)
    # A cluster without light has no maxima.
    split = (everyone.sizes >= min_size) & (everyone.sum(everyone.light) > 0) & (radius > 0)
    chosen = np.flatnonzero(split)
    members = everyone.take(chosen)
    children, start, climbed = find_children(
        members,
        h[chosen],
        radius[chosen],
        method=method,
        gl_downsampling=gl_downsampling,
        gl_sigma=gl_sigma,
        gl_th_rel=gl_th_rel,
        h_grid=h_grid,
        digitize_attractors=digitize_attractors,
        mask_unchanged=mask_unchanged,
        attr_dbs_eps=attr_dbs_eps,
        attr_dbs_K=attr_dbs_K,
        kernel=kernel,
        eps=eps,
        k_table_size=k_table_size,
        speed_up=speed_up,
        max_steps=max_steps,
        paths=paths,
    )
    trace = None
    if climbed.path_x is not None and climbed.path_y is not None:
        trace = Paths(chosen[members.group[start]], climbed.path_x, climbed.path_y)
    n_found = np.bincount(chosen[children.group], minlength=everyone.n_groups)
    if validation is not None:
        children, _ = validation(members, children)
    whole = with_the_unsplit(everyone, members, chosen, children)
    n_children = np.bincount(whole.group, minlength=everyone.n_groups)
    labels, sources, family = label_children(everyone, whole, shape)
    parents = Parents(
        everyone.stamp,
        everyone.label,
        everyone.sizes,
        *(r_cluster, r_max, h, radius, np.maximum(n_found, 1), n_children),
    )
    made = LabelImage(labels[0], family) if image.ndim == 2 else labels
    return DenclueResult(made, parents, sources, bool(climbed.converged.all()), trace)


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
    """Labels, the list of sources, and the labels of the children of each cluster that was split."""
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
    family = {
        int(members.label[g]): label[a:b] for g, a, b in zip(split, start, end, strict=True)
    }
    return labels, sources, family
