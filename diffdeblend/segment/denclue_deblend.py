"""A blend taken apart where its light has maxima, by DENCLUE."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from diffdeblend.segment.denclue_children import AscentMethod, find_children
from diffdeblend.segment.glw import attractor_pixels, flood_children
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.members import (
    cluster_radii,
    find_members,
    influence_radius,
    kernel_width,
)
from diffdeblend.segment.name_children import Sources, label_children, with_the_unsplit
from diffdeblend.segment.validate_children import Validation


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
            name: getattr(self.parents, name)[parent]
            for name in ("r_cluster", "r_max", "h", "R_max")
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
    assignment: Literal["attractor", "watershed"] = "attractor",
    validation: Validation | None = None,
    paths: bool = False,
) -> DenclueResult:
    """Sources of clusters: pixels whose attractors coincide. Host side, all clusters at once.

    Clusters that stay whole come first, in old order, then the children, cluster by cluster; labels
    are 1, 2, ... . All pixels of a cluster stay with one of its sources.

    - `data`: shape `(y, x)`, or `(stamp, y, x)`; weights are its positive pixels, the sky included
        if it is in, as in ASTErIsM.
    - `clusters`: a `LabelImage`, or integers of the shape of `data`, 0 for background.
    - `method`: "exact", every pixel climbs by the mean shift; "grid", pixels climb from neighbour
        to neighbour on the density at pixel centres, and only the tops by the mean shift.
    - `kernel`: "gauss", "uniform", "logistic" or "epanechnikov"; others than "gauss" need "exact".
    - `h_frac`, `h_min`, `h_max`: width of the kernel as a fraction of sqrt(r_max² + r_cluster²),
        and its limits in pixels.
    - `R_max_frac`, `R_max_kern_th`: radius of influence as a fraction of `r_max`, or where the
        kernel has fallen to this share. With neither 4.81 h for a Gaussian, or, if down-sampled,
        `r_cluster`.
    - `eps`: the climb ends at steps shorter than this, in pixels; default 1e-3 h. ASTErIsM's 0.01
        and more may leave the attractors of a flat cluster in several groups.
    - `k_table_size`, `speed_up`, `max_steps`: as in `climb`.
    - `digitize_attractors`: round attractors to whole pixels.
    - `mask_unchanged`: pixels that move less than this have no say in the merging; they join the
        nearest child.
    - `min_size`: clusters of fewer pixels stay whole.
    - `attr_dbs_eps`, `attr_dbs_K`: attractors are merged by DBSCAN with this radius in pixels,
        and at least this number of pixels; twice as many if down-sampled.
    - `gl_downsampling`: only maxima of the Laplacian of a Gaussian and a mesh of pixels climb;
        others go where the nearest of these goes. Needs "exact". `gl_sigma`, `gl_th_rel`, `h_grid`:
        width in pixels, least fraction of the highest maximum, spacing of the mesh in pixels.
    - `assignment`: pixels belong to their "attractor", or to that from which a "watershed" floods
        them first.
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
    if assignment not in ("attractor", "watershed"):
        raise ValueError(f'`assignment` must be "attractor" or "watershed"; got {assignment!r}.')
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
    if assignment == "watershed":
        children = flood_children(members, attractor_pixels(members, children))
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
