"""Cut a stamp down to where its sources are seen: the cost of a fit follows the area."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import correlate1d, label

from diffdeblend.batch.blend import Blend

# Where light stands out by that much, in units of the noise of the smoothed image.
_THRESHOLD = 1.5
# Extents and margin, in half-light radii of the PSF.
_LEAST_EXTENT, _MARGIN = 2.5, 2.5


def sources_box(
    weighted: Float[np.ndarray, "y x"],
    depth: Float[np.ndarray, "y x"],
    positions: Float[np.ndarray, "source 2"],
    psf_radius: float,
) -> Int[np.ndarray, "4"]:
    """First and last pixel (x0, y0, x1, y1; the last two not included) of what sources need.

    The isophotes that the positions are in, and discs around these, with a margin.

    - `weighted`, `depth`: sum over bands of weight times light, and of weight.
    """
    ny, nx = depth.shape
    sigma = psf_radius / np.sqrt(2 * np.log(2))
    reach = np.arange(-int(3 * sigma + 1), int(3 * sigma + 1) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    signal, noise = weighted, depth
    for axis in (0, 1):
        signal = correlate1d(signal, kernel, axis=axis, mode="constant")
        noise = correlate1d(noise, kernel**2, axis=axis, mode="constant")
    bright = signal > _THRESHOLD * np.sqrt(np.maximum(noise, 0))
    made: Any = label(bright)
    labelled, count = made
    pixel = nearest_pixel(positions, depth.shape)
    own = np.zeros(count + 1, bool)
    own[labelled[pixel[:, 1], pixel[:, 0]]] = True
    # What is not bright is labelled 0.
    own[0] = False
    inside = own[labelled]
    disc = _LEAST_EXTENT * psf_radius
    low, high = positions.min(axis=0) - disc, positions.max(axis=0) + disc
    if inside.any():
        columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
        low = np.minimum(low, (columns[0], rows[0]))
        high = np.maximum(high, (columns[-1], rows[-1]))
    margin = np.ceil(_MARGIN * psf_radius)
    first = np.clip(np.floor(low - margin), 0, (nx - 1, ny - 1)).astype(int)
    last = np.clip(np.ceil(high + margin) + 1, first + 1, (nx, ny)).astype(int)
    return np.concatenate([first, last])


def nearest_pixel(
    positions: Float[np.ndarray, "source 2"], shape: tuple[int, ...]
) -> Int[np.ndarray, "source 2"]:
    """The pixel (x, y) of an image of `shape` (y, x) that is nearest to each position."""
    pixel = np.floor(positions + 0.5).astype(int)
    return np.minimum(np.maximum(pixel, 0), (shape[1] - 1, shape[0] - 1))


def trimmed(blend: Blend, box: Int[np.ndarray, "4"]) -> Blend:
    """The part of a blend in a box."""
    x0, y0, x1, y1 = (int(v) for v in box)
    part = (slice(None), slice(y0, y1), slice(x0, x1))
    return Blend(
        blend.data[part],
        blend.weight[part],
        blend.psf,
        blend.positions - (x0, y0),
        (blend.origin[0] + x0, blend.origin[1] + y0),
        blend.rows,
        blend.crowded,
        blend.noise_correlation,
    )
