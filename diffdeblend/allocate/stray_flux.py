"""Light that no template claims, and who gets it."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

STRAY_FLUX = ("trim", "r_to_peak", "r_to_footprint", "nearest")

# A source whose part of a pixel is smaller gets none of it.
_LEAST = 1e-3


def stray_shares(
    rule: str,
    shape: tuple[int, int],
    peak_x: Int[np.ndarray, "source"],
    peak_y: Int[np.ndarray, "source"],
    claimed: Bool[np.ndarray, "source y x"],
    is_point: Bool[np.ndarray, "source"],
) -> Float[np.ndarray, "source y x"]:
    """What fraction of a stray pixel each source has, for all pixels of a box. Host side.

    Points get none where there is any other source.

    - `rule`: `"r_to_peak"`: in proportion to 1 / (1 + r^2), r the distance to the peak;
        `"r_to_footprint"`: the same with the distance to the pixels that a source claims;
        `"nearest"`: all to the source whose pixels are nearest, along rows and columns;
        `"trim"`: none to anyone.
    - `peak_x`, `peak_y`: in pixels of the box; `claimed`: the pixels of each source.

    **Raises:** `ValueError` for another rule.
    """
    if rule not in STRAY_FLUX:
        raise ValueError(f"`stray_flux` must be one of {', '.join(STRAY_FLUX)}; got {rule!r}.")
    n = len(peak_x)
    if rule == "trim" or n == 0:
        return np.zeros((n, *shape), np.float32)
    y, x = np.indices(shape)
    if rule == "r_to_peak":
        squared = (x - peak_x[:, None, None]) ** 2 + (y - peak_y[:, None, None]) ** 2
        weight = 1 / (1 + squared)
    else:
        # A source that claims no pixel is where its peak is.
        mine = claimed.copy()
        on = (peak_x >= 0) & (peak_x < shape[1]) & (peak_y >= 0) & (peak_y < shape[0])
        bare = np.flatnonzero(~claimed.any(axis=(1, 2)) & on)
        mine[bare, peak_y[bare], peak_x[bare]] = True
        weight = np.zeros((n, *shape))
        for k in np.flatnonzero(mine.any(axis=(1, 2))):
            if rule == "nearest":
                steps: Any = distance_transform_cdt(~mine[k], "taxicab")
                weight[k] = 1 / (1.0 + steps)
            else:
                far: Any = distance_transform_edt(~mine[k])
                weight[k] = 1 / (1 + far**2)
    if not is_point.all():
        weight[is_point] = 0
    if rule == "nearest":
        # Of two as near the first.
        best = np.argmax(weight, axis=0)
        weight = np.where(np.arange(n)[:, None, None] == best, weight, 0)
    weight = np.where(weight < _LEAST * weight.sum(axis=0), 0, weight)
    total = weight.sum(axis=0)
    return (weight / np.where(total > 0, total, 1)).astype(np.float32)
