"""Stars of middling size and flux, and their stamps, for principal components."""

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy.ndimage import shift

_AREAS, _FLUXES = (20, 80), (15, 85)
_FEWEST = 5


def middling_stars(
    area: ArrayLike,
    flux: ArrayLike,
    unblended: ArrayLike | None = None,
    *,
    most: int = 1800,
    seed: int = 0,
) -> Int[np.ndarray, "star"]:
    """Which sources are neither small nor large, faint nor bright: mostly stars. Host side.

    Area between percentiles 20 and 80, flux between 15 and 85, and not flagged; all, if those are
    fewer than 5. The rule of ProperImage: simple, and without a look at the stars' sizes; see
    `stellar_locus` for a better one.

    - `area`: in pixels above the threshold, shape `(n,)`. `flux`: within them.
    - `unblended`: true where nothing is wrong with a source; default all.
    - `most`: of more than so many a random choice by `seed`.

    **Raises:** `ValueError` for lengths that differ.
    """
    area, flux = np.asarray(area, float), np.asarray(flux, float)
    fine = np.ones(area.shape, bool) if unblended is None else np.asarray(unblended, bool)
    if area.ndim != 1 or area.shape != flux.shape or area.shape != fine.shape:
        raise ValueError(
            "`area`, `flux` and `unblended` need one value a source; got shapes "
            f"{area.shape}, {flux.shape} and {fine.shape}."
        )
    if not area.size:
        return np.zeros(0, int)
    chosen = fine.copy()
    for values, limits in ((area, _AREAS), (flux, _FLUXES)):
        low, high = np.percentile(values, limits)
        chosen &= (values >= low) & (values <= high)
    if chosen.sum() < _FEWEST:
        chosen[:] = True
    found = np.flatnonzero(chosen)
    if found.size > most:
        found = np.sort(np.random.default_rng(seed).choice(found, most, replace=False))
    return found


def stamp_side(area: ArrayLike) -> int:
    """Side in pixels, odd, of stamps that hold most stars of these areas with their wings.

    Three times the root of percentile 65 of the areas, and three more pixels on each side.
    """
    side = int(3 * np.sqrt(np.percentile(np.asarray(area, float), 65)))
    return side + (side % 2 == 0) + 6


def whole_pixel_stamps(
    image: Float[np.ndarray, "y x"], x: ArrayLike, y: ArrayLike, side: int
) -> Float[np.ndarray, "n side side"]:
    """Stamps around the nearest pixel of each place, of unit sum; stars jitter in them.

    From each the median of its fainter 70 % of pixels is taken. Outside of the image they are
    filled with zero.

    - `image`: without sky. `side`: odd.

    **Raises:** `ValueError` for an even `side`.
    """
    stamps = _cut(image, np.rint(np.asarray(x, float)), np.rint(np.asarray(y, float)), side)
    return _without_sky(stamps)


def centred_stamps(
    image: Float[np.ndarray, "y x"], x: ArrayLike, y: ArrayLike, side: int
) -> Float[np.ndarray, "n side side"]:
    """Stamps with the place of each star in the middle of the middle pixel, of unit sum.

    Moved by a cubic spline; else as `whole_pixel_stamps`.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    near_x, near_y = np.rint(x), np.rint(y)
    # The spline needs neighbours.
    wide = _cut(image, near_x, near_y, side + 4)
    moved = [
        shift(stamp, (dy, dx), order=3, mode="nearest")
        for stamp, dx, dy in zip(wide, near_x - x, near_y - y, strict=True)
    ]
    return _without_sky(np.reshape(moved, wide.shape)[:, 2:-2, 2:-2])


def _cut(image: np.ndarray, x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    if side < 1 or side % 2 == 0:
        raise ValueError(f"`side` must be odd, so that a stamp has a middle pixel; got {side}.")
    half = side // 2
    padded = np.pad(np.asarray(image, float), half)
    column = x.astype(int)[:, None] + np.arange(side)
    row = y.astype(int)[:, None] + np.arange(side)
    return padded[row[:, :, None], column[:, None, :]]


def _without_sky(stamps: np.ndarray) -> np.ndarray:
    flat = stamps.reshape(len(stamps), -1)
    faint = flat <= np.percentile(flat, 70, axis=1, keepdims=True)
    level = np.nanmedian(np.where(faint, flat, np.nan), axis=1)
    flat = flat - level[:, None]
    return (flat / flat.sum(axis=1, keepdims=True)).reshape(stamps.shape)
