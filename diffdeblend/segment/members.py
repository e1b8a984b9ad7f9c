"""Pixels of many clusters as one flat list, and how wide each cluster is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.segment.density_kernels import kernel_radius


@dataclass(frozen=True)
class Members:
    """Pixels of clusters, those of one cluster together and in raster order.

    - `stamp`: image of each cluster, 0 if there is one; `label`: of each cluster.
    - `start`: row of the first pixel of each cluster, and the number of pixels at the end.
    - `group`: cluster of each pixel; `x`, `y`: its place; `light`: its flux, not negative.
    """

    stamp: Int[np.ndarray, "group"]
    label: Int[np.ndarray, "group"]
    start: Int[np.ndarray, "group+1"]
    group: Int[np.ndarray, "n"]
    x: Int[np.ndarray, "n"]
    y: Int[np.ndarray, "n"]
    light: Float[np.ndarray, "n"]

    @property
    def n_groups(self) -> int:
        return len(self.label)

    @property
    def sizes(self) -> Int[np.ndarray, "group"]:
        """Number of pixels of each cluster."""
        return np.diff(self.start)

    def sum(self, values: np.ndarray) -> Float[np.ndarray, "group"]:
        """Sum of values of pixels over each cluster, in double precision."""
        return np.bincount(self.group, values, self.n_groups)

    def take(self, chosen: Int[np.ndarray, "chosen"]) -> "Members":
        """The chosen clusters, in the order given."""
        sizes = self.sizes[chosen]
        start = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(start[-1]) + np.repeat(self.start[:-1][chosen] - start[:-1], sizes)
        group = np.repeat(np.arange(len(chosen)), sizes)
        pixels = (self.x[rows], self.y[rows], self.light[rows])
        return Members(self.stamp[chosen], self.label[chosen], start, group, *pixels)


def find_members(
    data: Float[np.ndarray, "stamp y x"], labels: Int[np.ndarray, "stamp y x"]
) -> Members:
    """The pixels of all labels but 0 of all stamps. Negative and non-finite flux counts as 0."""
    flat = np.flatnonzero(labels)
    stamp, place = np.divmod(flat, labels[0].size)
    highest = int(labels.max(initial=0)) + 1
    key = stamp * highest + labels.ravel()[flat]
    order = np.argsort(key, kind="stable")
    key, flat, place = key[order], flat[order], place[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    y, x = np.divmod(place, labels.shape[2])
    light = data.ravel()[flat].astype(data.dtype)
    light = np.where(np.isfinite(light), np.maximum(light, 0), 0)
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(key))))
    owner, label = np.divmod(key[first], highest)
    return Members(owner, label, np.append(first, len(key)), group, x, y, light)


def cluster_radii(members: Members) -> tuple[np.ndarray, np.ndarray]:
    """`r_cluster` and `r_max` of each cluster in pixels, from its pixels, unweighted.

    The first is the root of the summed variances of x and y (with n - 1), the second the largest
    distance to the mean. 0 for a single pixel.

    ??? cite
        The scales that ASTErIsM prints: Tramacere et al. (2016), MNRAS 463, 2939.
    """
    n = np.maximum(members.sizes, 1)
    dx = members.x - (members.sum(members.x) / n)[members.group]
    dy = members.y - (members.sum(members.y) / n)[members.group]
    square = dx * dx + dy * dy
    r_cluster = np.sqrt(members.sum(square) / np.maximum(n - 1, 1))
    if members.n_groups == 0:
        return r_cluster, r_cluster
    return r_cluster, np.sqrt(np.maximum.reduceat(square, members.start[:-1]))


def kernel_width(
    r_cluster: np.ndarray,
    r_max: np.ndarray,
    h_frac: float = 0.2,
    h_min: float = 1.0,
    h_max: float | None = None,
) -> np.ndarray:
    """Width of the kernel for clusters: h_frac sqrt(r_max² + r_cluster²), between h_min and h_max.

    **Raises:** `ValueError` for an `h_frac` below 0, an `h_min` that is not positive, or an `h_max`
    below it.
    """
    if not h_frac >= 0:
        raise ValueError(f"`h_frac` must be at least 0; got {h_frac}.")
    if not h_min > 0:
        raise ValueError(f"`h_min` must be positive; got {h_min}.")
    if h_max is not None and not h_max >= h_min:
        raise ValueError(f"`h_max` must be at least `h_min`, {h_min}; got {h_max}.")
    width = np.maximum(h_min, h_frac * np.hypot(r_max, r_cluster))
    return width if h_max is None else np.minimum(width, h_max)


def influence_radius(
    kernel: str,
    h: np.ndarray,
    r_max: np.ndarray,
    R_max_frac: float | None = None,
    R_max_kern_th: float | None = None,
) -> np.ndarray:
    """Distance up to which a pixel counts, in pixels.

    - `R_max_frac`: as a fraction of `r_max`; or
    - `R_max_kern_th`: where the kernel has fallen to this share of its peak; or, with neither,
        where it is 1e-5, for a Gaussian 4.80981 h.

    **Raises:** `ValueError` if both are given, or one that is not positive.
    """
    if R_max_frac is not None and R_max_kern_th is not None:
        raise ValueError(
            f"`R_max_frac` and `R_max_kern_th` exclude each other; got {R_max_frac} and "
            f"{R_max_kern_th}."
        )
    if R_max_frac is not None:
        if not R_max_frac > 0:
            raise ValueError(f"`R_max_frac` must be positive; got {R_max_frac}.")
        return R_max_frac * r_max
    return kernel_radius(kernel, R_max_kern_th) * h
