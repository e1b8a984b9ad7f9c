"""Where the light is: stamps around bright sources, on which two images are compared."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.fft import next_fast_len
from scipy.ndimage import uniform_filter1d

_LEAST_WINDOW, _LEAST_MARGIN = 7, 10
# In units of the FWHM of the broader PSF.
_WINDOW, _MARGIN = 2.0, 3.0
_BLOCK = 16


class StampPlan(NamedTuple):
    """Sizes of the stamps, the same for all: `side` pixels, of which the middle is compared."""

    side: int
    window: int


def stamp_plan(fwhm: float, shape: tuple[int, int]) -> StampPlan:
    """Stamps for PSFs of this width; the window is no larger than the image."""
    half = max(_LEAST_WINDOW, int(np.ceil(_WINDOW * fwhm)))
    half = max(min(half, (min(shape) - 1) // 2), 0)
    margin = max(_LEAST_MARGIN, int(np.ceil(_MARGIN * fwhm)))
    # Odd, so that the window is in the middle of it.
    side = 2 * (half + margin) + 1
    while next_fast_len(side) != side:
        side += 2
    return StampPlan(side, 2 * half + 1)


def bright_places(
    image: Float[np.ndarray, "y x"],
    sigma: float,
    usable: Bool[np.ndarray, "y x"],
    plan: StampPlan,
    number: int,
    least: float = 5.0,
) -> Int[np.ndarray, "place 2"]:
    """Pixels (x, y) of the brightest sources, up to `number`, spread over the image.

    - `sigma`: noise of a pixel. `usable`: false near what spoils a comparison.
    - `least`: significance of the mean of 3 x 3 pixels.

    Each block of 16 pixels gives its brightest pixel; these are taken from an 8 x 8 grid of cells
    in turns, so that no part of the image has all of them. Windows stay inside of the image.
    """
    smooth = uniform_filter1d(uniform_filter1d(image, 3, axis=0), 3, axis=1)
    smooth = np.where(usable, smooth, -np.inf)
    reach = plan.window // 2
    ny, nx = image.shape
    inner = smooth[reach : ny - reach, reach : nx - reach]
    rows, columns = inner.shape[0] // _BLOCK, inner.shape[1] // _BLOCK
    if not rows or not columns:
        blocks = inner.reshape(1, 1, -1)
        rows, columns, high, wide = 1, 1, *inner.shape
    else:
        high, wide = _BLOCK, _BLOCK
        cut = inner[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
        blocks = cut.swapaxes(1, 2).reshape(rows, columns, high * wide)
    best = blocks.argmax(axis=2)
    light = np.take_along_axis(blocks, best[..., None], axis=2)[..., 0]
    y = (np.arange(rows)[:, None] * high + best // wide + reach).ravel()
    x = (np.arange(columns) * wide + best % wide + reach).ravel()
    light = light.ravel()
    # Of one source cut by the border of a block the brighter part is enough.
    peak = light >= _around(smooth, y, x)
    found = np.flatnonzero((light > least * sigma / 3) & peak)
    found = found[np.argsort(-light[found], kind="stable")]
    cell = (y[found] * 8 // ny) * 8 + x[found] * 8 // nx
    rank = np.zeros(len(found), int)
    for place in np.unique(cell):
        mine = np.flatnonzero(cell == place)
        rank[mine] = np.arange(len(mine))
    chosen = found[np.argsort(rank, kind="stable")[:number]]
    return np.stack([x[chosen], y[chosen]], axis=1)


def cut_stamps(
    image: Float[np.ndarray, "y x"], places: Int[np.ndarray, "place 2"], side: int
) -> Float[np.ndarray, "place side side"]:
    """The pixels around each place, `side` odd; beyond the border the mirror image."""
    half = side // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(image, half, mode="symmetric"), (side, side)
    )
    return windows[places[:, 1], places[:, 0]]


def _around(smooth: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The largest value of the eight pixels around each."""
    ny, nx = smooth.shape
    values = [
        smooth[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    return np.max(values, axis=0)
