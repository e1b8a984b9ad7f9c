"""Which children of a cluster are sources, and who takes in the others."""

from dataclasses import dataclass

import numpy as np

from diffdeblend.segment.attractors import Children, nearest_in_group
from diffdeblend.segment.by_first import by_first
from diffdeblend.segment.members import Members


@dataclass(frozen=True)
class Validation:
    """What makes a child a source, as fractions of its parent.

    A child is valid if it is compact (its size is at most `compact_frac_size`) and its peak at
    least `min_frac_peak_flux`; or extended (at least `ext_frac_size`) and its flux at least
    `min_frac_integ_flux`; or if its peak is at least `bright_frac_peak_flux`.

    **Raises:** `ValueError` for a fraction that is negative or not a number.

    ??? cite
        The flow chart of ASTErIsM: Tramacere et al. (2016), MNRAS 463, 2939.
    """

    min_frac_integ_flux: float = 0.1
    min_frac_peak_flux: float = 0.1
    compact_frac_size: float = 0.1
    ext_frac_size: float = 0.1
    bright_frac_peak_flux: float = 0.1

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"`{name}` must be at least 0; got {value}.")

    def __call__(self, members: Members, children: Children) -> tuple[Children, np.ndarray]:
        """The children that are left, with the pixels of the others; and who was valid.

        An only child is valid. An invalid one goes to the valid child of its parent whose centroid
        is the nearest; where none is valid, the parent stays whole, with the attractor of the
        brightest child.
        """
        n, parent = len(children.group), children.group
        light = members.light.astype(float)
        size, flux, peak, x, y = child_properties(members, children)
        whole_peak = np.zeros(members.n_groups)
        np.maximum.at(whole_peak, parent, peak)
        whole_flux = members.sum(light)[parent]
        size_frac = size / members.sizes[parent]
        flux_frac = flux / np.where(whole_flux > 0, whole_flux, 1)
        peak_frac = peak / np.where(whole_peak[parent] > 0, whole_peak[parent], 1)
        valid = (size_frac <= self.compact_frac_size) & (peak_frac >= self.min_frac_peak_flux)
        valid |= (size_frac >= self.ext_frac_size) & (flux_frac >= self.min_frac_integ_flux)
        valid |= peak_frac >= self.bright_frac_peak_flux
        valid |= np.bincount(parent, minlength=members.n_groups)[parent] == 1
        places = np.column_stack([x, y])
        near = nearest_in_group(places, parent, places[valid], parent[valid])
        taken = np.flatnonzero(valid)[near] if valid.any() else np.full(n, -1)
        # The brightest child stands for a parent without a valid one.
        first = np.flatnonzero(np.diff(parent, prepend=-1))
        brightest = np.lexsort((-peak, parent))[first]
        stands = np.zeros(members.n_groups, int)
        stands[parent[first]] = brightest
        keeper = np.where(valid, np.arange(n), np.where(near >= 0, taken, stands[parent]))
        kept, of_child = np.unique(keeper, return_inverse=True)
        merged = of_child[children.of_pixel]
        # Taken-in pixels may come before a child's own: number anew by the first pixel.
        number, first = by_first(merged)
        kept = kept[merged[first]]
        left = Children(number, parent[kept], children.x[kept], children.y[kept])
        return left, valid


def child_properties(
    members: Members, children: Children
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Number of pixels, flux, highest pixel and flux-weighted centroid x, y of each child."""
    n = len(children.group)
    light = members.light.astype(float)
    size = np.bincount(children.of_pixel, minlength=n)
    flux = np.bincount(children.of_pixel, light, n)
    peak = np.zeros(n)
    np.maximum.at(peak, children.of_pixel, light)
    # Without light, the middle of the pixels.
    dark = flux[children.of_pixel] <= 0
    weight = np.where(dark, 1, light)
    total = np.bincount(children.of_pixel, weight, n)
    x, y = (np.bincount(children.of_pixel, weight * v, n) / total for v in (members.x, members.y))
    return size, flux, peak, x, y
