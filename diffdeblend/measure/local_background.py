"""The level of the sky around each source, from a rectangular ring."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.background.sorted_rows import clip_rows, sextractor_mode_of
from diffdeblend.background.statistics import clip, sextractor_mode
from diffdeblend.cores import in_threads
from diffdeblend.measure.windows import Planes, Window

# The hole is so many times as large as the box of the source.
_HOLE = 1.5
_SIGMA, _ITERATIONS = 3.0, 20
# From fewer pixels nothing is estimated.
LEAST_PIXELS = 10
# Values that go through one sort; a few megabytes.
_AT_ONCE = 2**20


def local_background(
    window: Window, box: Int[Array, "4"], width: float
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Level of the sky around one source, and how many pixels it comes from.

    SExtractor's mode of the pixels of no source whose centre is in the ring: between 1.5 times the
    box of the source, and so much further out; clipped at three standard deviations about the
    median. 0 from fewer than ten pixels.

    - `window`: has to hold the ring.
    - `box`: (y0, x0, y1, x1) of the source in pixels of the window.
    - `width`: in pixels.
    """
    h, w = window.data.shape
    y0, x0, y1, x1 = box
    dx = jnp.abs(jnp.arange(w) - 0.5 * (x0 + x1 - 1))[None]
    dy = jnp.abs(jnp.arange(h) - 0.5 * (y0 + y1 - 1))[:, None]
    half_x, half_y = _HOLE * (x1 - x0) / 2, _HOLE * (y1 - y0) / 2
    hole = (dx < half_x) & (dy < half_y)
    ring = (dx < half_x + width) & (dy < half_y + width) & ~hole
    used = (ring & window.good & (window.labels == 0)).ravel()
    n_used = jnp.sum(used)
    kept = clip(window.data.ravel(), used, sigma=_SIGMA, max_iterations=_ITERATIONS)
    level = sextractor_mode(jnp.where(kept.good, window.data.ravel(), 0), kept.good)
    return jnp.where(n_used < LEAST_PIXELS, 0.0, level), n_used


def local_background_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    boxes: Int[np.ndarray, "source 4"],
    width: float,
) -> tuple[Float[np.ndarray, "source"], Int[np.ndarray, "source"]]:
    """`local_background` of sources in images, by one sort of many rings. Host side.

    - `boxes`: of the sources, rows (y0, x0, y1, x1) in pixels of the image.

    **Raises:** `ValueError` for a width that is not positive.
    """
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"`local_bkg_width` must be finite and positive here; got {width!r}.")
    data = np.asarray(planes.data)
    free = (np.asarray(planes.labels) == 0) & np.isfinite(data)
    if planes.mask is not None:
        free &= ~np.asarray(planes.mask)
    sky = np.where(free, data, np.nan)
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    middle, side = (boxes[:, :2] + boxes[:, 2:] - 1) / 2, boxes[:, 2:] - boxes[:, :2]
    inner = _pixels_within(middle, _HOLE * side / 2, sky.shape)
    outer = _pixels_within(middle, _HOLE * side / 2 + width, sky.shape)
    length = _area(outer) - _area(inner)
    level, n_used = np.zeros(len(boxes)), np.zeros(len(boxes), int)

    def measure(rows: np.ndarray) -> None:
        values = np.full((len(rows), max(int(length[rows].max()), 1)), np.nan, sky.dtype)
        for values_, i in zip(values, rows, strict=True):
            image = sky[stamp[i]]
            (y0, x0, y1, x1), (v0, u0, v1, u1) = outer[i], inner[i]
            at = 0
            for part in (
                image[y0:v0, x0:x1],
                image[v1:y1, x0:x1],
                image[v0:v1, x0:u0],
                image[v0:v1, u1:x1],
            ):
                values_[at : at + part.size].reshape(part.shape)[...] = part
                at += part.size
        kept = clip_rows(values, _SIGMA, _ITERATIONS)
        n_used[rows] = kept.n_used
        level[rows] = np.where(kept.n_used < LEAST_PIXELS, 0.0, sextractor_mode_of(kept))

    # Rings of about a size go together: little is padded.
    order = np.argsort(length, kind="stable")
    ends = np.cumsum(length[order]) // _AT_ONCE
    in_threads(measure, np.split(order, np.flatnonzero(np.diff(ends)) + 1) if len(order) else [])
    return level, n_used


def _pixels_within(middle: np.ndarray, half: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes of pixels of an image whose centre is nearer than `half`, along each axis."""
    most = np.array(shape[-2:])
    low = np.clip(np.floor(middle - half) + 1, 0, most)
    high = np.clip(np.ceil(middle + half), low, most)
    return np.hstack([low, high]).astype(int)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
