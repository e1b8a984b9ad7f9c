"""Where the bright points of an image are, and which of two images are the same."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.widths import FWHM_PER_SIGMA

_STEPS = 8
# Each star makes triangles with so many of its neighbours.
_NEIGHBOURS = 6
# Triangles are alike if the ratios of their sides differ by less.
_ALIKE = 0.004
# Stars are the same if the first transform brings them so near, in pixels.
_NEAR = 3.0
_LEAST = 4
_MOST_TRIALS = 3000


def bright_points(
    image: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    noise: Float[np.ndarray, "y x"] | float,
    *,
    fwhm: float = 3.0,
    n_sigma: float = 10.0,
    most: int = 300,
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """x, y and brightness of the brightest peaks, the brightest first.

    Peaks of the image smoothed by the width of a star, their centroids weighted by a Gaussian of
    that width, iterated. Peaks near bad pixels or the border are left out.

    - `image`: without its sky; `noise`: sigma of its pixels.

    ??? cite
        Windowed centroids: SExtractor's XWIN_IMAGE.
    """
    sigma = fwhm / FWHM_PER_SIGMA
    clean = np.where(bad, 0, image).astype(np.float32)
    smooth = gaussian_filter(clean, sigma, truncate=3.0)
    gain = 1 / (2 * np.sqrt(np.pi) * sigma)
    peak = (smooth == maximum_filter(smooth, 2 * round(fwhm) + 1)) & (
        smooth > n_sigma * gain * np.asarray(noise)
    )
    reach = int(np.ceil(2 * fwhm))
    y, x = np.nonzero(peak[reach:-reach, reach:-reach])
    y, x = y + reach, x + reach
    offset = np.arange(-reach, reach + 1)
    boxes = y[:, None, None] + offset[:, None], x[:, None, None] + offset
    free = ~bad[boxes].any(axis=(1, 2))
    order = np.argsort(-smooth[y[free], x[free]])[:most]
    y, x = y[free][order], x[free][order]
    stamps = clean[y[:, None, None] + offset[:, None], x[:, None, None] + offset]
    cx, cy = np.zeros(len(x)), np.zeros(len(y))
    for _ in range(_STEPS):
        dy = offset[:, None] - cy[:, None, None]
        dx = offset - cx[:, None, None]
        weighted = stamps * np.exp(-0.5 * (dx**2 + dy**2) / sigma**2)
        total = np.maximum(weighted.sum(axis=(1, 2)), 1e-30)
        # The window narrows the star: twice the step for one as wide as itself.
        cx += np.clip(2 * (weighted * dx).sum(axis=(1, 2)) / total, -0.5, 0.5)
        cy += np.clip(2 * (weighted * dy).sum(axis=(1, 2)) / total, -0.5, 0.5)
    kept = np.hypot(cx, cy) < 0.5 * reach
    return (x + cx)[kept], (y + cy)[kept], smooth[y, x][kept]


def match_stars(
    xy: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "m 2"], *, brightest: int = 50
) -> Float[np.ndarray, "2 3"] | None:
    """The affine map that brings `onto` to `xy`, from nothing but the lists; None if none does.

    Triangles of each star with its neighbours are told by the ratios of their sides, which shifts,
    rotations and scales leave as they are. Of the similarities that pairs of like triangles stand
    for, that which brings most stars together is refined on all stars: least squares, outliers
    cut at three of their own scatter.

    - `xy`, `onto`: x and y of stars, the brightest first; of each so many make triangles.

    The map takes `(x, y, 1)` of `onto` to `(x, y)` of `xy`.

    ??? cite
        Triangles: Groth (1986), AJ 91, 1244; of neighbours: Beroiz et al. (2020), astroalign.
    """
    if min(len(xy), len(onto)) < _LEAST:
        return None
    few, few_onto = xy[:brightest], onto[:brightest]
    shapes, corners = _triangles(few)
    shapes_onto, corners_onto = _triangles(few_onto)
    apart, nearest = KDTree(shapes).query(
        shapes_onto, k=min(4, len(shapes)), distance_upper_bound=_ALIKE
    )
    apart, nearest = apart.reshape(len(shapes_onto), -1), nearest.reshape(len(shapes_onto), -1)
    rows, columns = np.nonzero(np.isfinite(apart))
    order = np.argsort(apart[rows, columns])[:_MOST_TRIALS]
    tree, best, most = KDTree(few), None, _LEAST - 1
    for row, column in zip(rows[order], columns[order], strict=True):
        sides = few[corners[nearest[row, column]]], few_onto[corners_onto[row]]
        similarity = _similarity(*sides)
        distance, _ = tree.query(_moved(few_onto, similarity), distance_upper_bound=_NEAR)
        n_near = int(np.count_nonzero(np.isfinite(distance)))
        if n_near > most:
            best, most = similarity, n_near
            if most > 0.6 * min(len(few), len(few_onto)):
                break
    return None if best is None else _refined(best, xy, onto)


def _triangles(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of sides, and corners in the order of the sides opposite to them."""
    _, near = KDTree(points).query(points, k=min(_NEIGHBOURS, len(points)))
    sets = {tuple(sorted(c)) for row in np.asarray(near).tolist() for c in combinations(row, 3)}
    corners = np.array(sorted(sets))
    sides = np.stack(
        [
            np.linalg.norm(
                points[corners[:, (k + 1) % 3]] - points[corners[:, (k + 2) % 3]], axis=1
            )
            for k in range(3)
        ],
        -1,
    )
    order = np.argsort(sides, axis=1)
    sides = np.take_along_axis(sides, order, 1)
    corners = np.take_along_axis(corners, order, 1)
    # Flat triangles are all alike.
    wide = sides[:, 0] > 0.1 * sides[:, 2]
    ratios = np.stack([sides[:, 0] / sides[:, 1], sides[:, 1] / sides[:, 2]], -1)
    return (ratios[wide], corners[wide]) if wide.any() else (ratios, corners)


def _similarity(to: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift that bring `of` to `to`, by complex least squares."""
    z, w = of[:, 0] + 1j * of[:, 1], to[:, 0] + 1j * to[:, 1]
    dz, dw = z - z.mean(), w - w.mean()
    turn = np.vdot(dz, dw) / max(np.vdot(dz, dz).real, 1e-30)
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _refined(matrix: np.ndarray, xy: np.ndarray, onto: np.ndarray) -> np.ndarray | None:
    tree = KDTree(xy)
    kept = np.zeros(0, int)
    for turn in range(6):
        distance, which = tree.query(_moved(onto, matrix), distance_upper_bound=_NEAR)
        near = np.isfinite(distance)
        if turn:
            scatter = MAD_TO_STD * np.median(distance[near]) if near.any() else 0.0
            near &= distance < max(3 * scatter, 0.05)
        kept = np.flatnonzero(near)
        if len(kept) < _LEAST:
            return None
        design = np.column_stack([onto[kept], np.ones(len(kept))])
        matrix = np.linalg.lstsq(design, xy[np.asarray(which)[kept]], rcond=None)[0].T
    return matrix
