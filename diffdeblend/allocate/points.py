"""Which peaks of blends are points, with what flux and where."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.allocate.blends import OpenBlend, put_around
from diffdeblend.allocate.psf_test import fit_points
from diffdeblend.widths import equivalent_fwhm

# Fits side by side in one program, and for how many points at most each.
_TOGETHER = 256
_POINTS = (4, 16)
# Fits that move the points; neighbours move with them from one to the next.
_SWEEPS = 4
# Farther than that from its peak, in pixels, it is another source that is fitted.
_FARTHEST = 1.0


class Points(NamedTuple):
    """Of each peak whether it is a point.

    - `is_point`; `flux`, `flux_err`: of a point there; `dx`, `dy`: from the peak, in pixels.
    - `chi2_per_dof`: of the fit; NaN where there was none.
    """

    is_point: Bool[np.ndarray, "peak"]
    flux: Float[np.ndarray, "peak"]
    flux_err: Float[np.ndarray, "peak"]
    dx: Float[np.ndarray, "peak"]
    dy: Float[np.ndarray, "peak"]
    chi2_per_dof: Float[np.ndarray, "peak"]


def find_points(
    blends: Sequence[OpenBlend], psf: Float[np.ndarray, "peak h w"], most_chi2: float
) -> Points:
    """Fit points at all peaks of blends, and see which are nothing else. Host side.

    A peak is a point where chi2 per degree of freedom is below `most_chi2` with the point on the
    peak's pixel, or at the place within a pixel where it fits best. Each fit has the neighbours
    as points, too, at the places where these fitted best the time before.

    - `psf`: at each peak, blend by blend.
    """
    n = len(psf)
    if n == 0:
        return Points(np.zeros(0, bool), *(np.zeros(0) for _ in range(5)))
    full = equivalent_fwhm(psf)
    ramp = np.stack([np.ceil(full), np.ceil(1.5 * full)], axis=1).astype(np.float32)
    half = int(4 * np.ceil(ramp[:, 1].max() / 4))
    image = np.zeros((n, 2 * half + 1, 2 * half + 1), np.float32)
    weight = np.zeros_like(image)
    for blend in blends:
        inverse = np.where(blend.inside, blend.weight, 0)
        for k in range(blend.n_peaks):
            at = int(blend.peak_x[k]), int(blend.peak_y[k])
            put_around(image[blend.first + k], blend.image, *at, reach_x=half, reach_y=half)
            put_around(weight[blend.first + k], inverse, *at, reach_x=half, reach_y=half)
    near = _neighbours(blends, ramp[:, 1] + min(psf.shape[1:]) / 2)
    place_x = np.concatenate([blend.box.ixmin + blend.peak_x for blend in blends])
    place_y = np.concatenate([blend.box.iymin + blend.peak_y for blend in blends])

    def fitted(dx: np.ndarray, dy: np.ndarray, moves: bool) -> list[np.ndarray]:
        out = [np.zeros(n) for _ in range(6)]
        for rows, members in near:
            there = members >= 0
            x = np.where(there, (place_x + dx)[members] - place_x[rows][:, None], 0)
            y = np.where(there, (place_y + dy)[members] - place_y[rows][:, None], 0)
            given = [image[rows], weight[rows], psf[rows], x, y, there, ramp[rows]]
            padded = [_padded(v) for v in given]
            for values, found in zip(out, fit_points(*padded, np.asarray(moves)), strict=True):
                values[rows] = np.asarray(found)[: len(rows)]
        return out

    none = np.zeros(n)
    dx, dy = none, none
    for _ in range(_SWEEPS):
        _, _, more_x, more_y, *_ = fitted(dx, dy, True)
        dx = np.clip(np.nan_to_num(dx + np.clip(more_x, -0.5, 0.5)), -1.5, 1.5)
        dy = np.clip(np.nan_to_num(dy + np.clip(more_y, -0.5, 0.5)), -1.5, 1.5)
    moved, still = fitted(dx, dy, False), fitted(none, none, False)
    near_peak = (np.abs(dx) < _FARTHEST) & (np.abs(dy) < _FARTHEST)
    # Columns of place cost two degrees of freedom, of which the last fit knows nothing.
    better = near_peak & (_reduced(moved, 2) < _reduced(still, 0))
    best = [np.where(better, a, b) for a, b in zip(moved, still, strict=True)]
    chi2 = np.where(better, _reduced(moved, 2), _reduced(still, 0))
    return Points(
        (chi2 < most_chi2) & (best[0] > 0),
        best[0],
        best[1],
        np.where(better, dx, 0.0),
        np.where(better, dy, 0.0),
        np.where(np.isfinite(chi2), chi2, np.nan),
    )


def _reduced(fit: list[np.ndarray], columns: int) -> np.ndarray:
    chi2, dof = fit[4], fit[5] - columns
    return np.where((dof > 0) & np.isfinite(chi2), chi2 / np.where(dof > 0, dof, 1), np.inf)


def _neighbours(
    blends: Sequence[OpenBlend], reach: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Peaks in groups, each with the places of itself and of its nearest neighbours; -1: none."""
    n = len(reach)
    most = _POINTS[-1]
    members = np.full((n, most), -1)
    for blend in blends:
        own = np.arange(blend.first, blend.first + blend.n_peaks)
        apart_x = np.abs(blend.peak_x[:, None] - blend.peak_x[None, :])
        apart_y = np.abs(blend.peak_y[:, None] - blend.peak_y[None, :])
        far = np.maximum(apart_x, apart_y) > reach[own][:, None]
        squared = np.where(far, np.inf, (apart_x**2 + apart_y**2).astype(float))
        # Itself first, also where two peaks are on one pixel.
        np.fill_diagonal(squared, -1)
        order = np.argsort(squared, axis=1, kind="stable")[:, :most]
        kept = np.isfinite(np.take_along_axis(squared, order, axis=1))
        members[own, : order.shape[1]] = np.where(kept, own[order], -1)
    number = (members >= 0).sum(axis=1)
    groups = []
    for low, high in zip((0, *_POINTS), _POINTS, strict=False):
        rows = np.flatnonzero((number > low) & (number <= high))
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            groups.append((some, members[some, :high]))
    return groups


def _padded(values: np.ndarray) -> np.ndarray:
    """To as many fits as the program is for."""
    values = values if values.dtype == bool else values.astype(np.float32)
    return np.concatenate(
        [values, np.zeros((_TOGETHER - len(values), *values.shape[1:]), values.dtype)]
    )
