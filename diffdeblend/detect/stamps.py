"""Many stamps at once: sky, detection, deblending and a catalogue with fixed slots."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.backend import Backend
from diffdeblend.background import estimate_background
from diffdeblend.detect.methods import median_scatter
from diffdeblend.measure import StampCatalog, measure_stamps
from diffdeblend.segment import deblend_stamps, detect_stamps, make_2dgaussian_kernel, smooth


@dataclass(frozen=True, eq=False)
class StampDetections:
    """What was found on each of many stamps.

    - `labels`: shape `(stamp, y, x)`; 1, 2, ... in each stamp. `n_sources`: shape `(stamp,)`.
    - `catalog`: measurements in slots, `(stamp, slot)`; see `measure_stamps`.
    - `background`, `background_rms`: the sky, `(stamp, y, x)`.
    """

    labels: Int[np.ndarray, "stamp y x"]
    n_sources: Int[np.ndarray, "stamp"]
    catalog: StampCatalog
    background: Float[np.ndarray, "stamp y x"]
    background_rms: Float[np.ndarray, "stamp y x"]


def detect_batch(
    images: Any,
    *,
    mask: Any = None,
    box_size: int | None = 64,
    n_sigma: float = 1.5,
    kernel: Any = None,
    n_pixels: int = 5,
    connectivity: Literal[4, 8] = 8,
    n_levels: int = 32,
    contrast: float = 0.001,
    max_sources: int = 12,
    backend: Backend = "auto",
) -> StampDetections:
    """`detect` for a stack of stamps of one band, all at once.

    Each stamp is as if it were alone. Stamps with more sources than slots are flagged; their labels
    are whole.

    - `images`: shape `(stamp, y, x)`. `mask`: true on pixels not to be used, same shape.
    - `box_size`: of the sky's mesh, in pixels; larger than a stamp stands for all of it. None: the
        sky is taken away already, and its noise is that of all pixels by their median deviation.
    - `n_sigma`: in standard deviations of the sky's noise in a pixel.
    - `kernel`: to smooth with, odd in height and width; default a Gaussian of 3 pixels.
    - `n_pixels`, `connectivity`, `n_levels`, `contrast`: as in `detect_stamps`, `deblend_stamps`.
    - `max_sources`: slots of a stamp.
    - `backend`: where it is done; "auto" is the host where JAX has no accelerator.

    **Raises:** `ValueError` for another shape, or what the steps refuse.
    """
    stack = np.asarray(images)
    if stack.ndim != 3:
        raise ValueError(f"`images` needs shape (stamp, y, x); got {stack.shape}.")
    if not (np.isfinite(n_sigma) and n_sigma > 0):
        raise ValueError(f"`n_sigma` must be a finite positive number; got {n_sigma!r}.")
    if kernel is None:
        kernel = make_2dgaussian_kernel(2.0, 3)
    if box_size is None:
        level, rms = _no_sky(stack, mask)
    else:
        sky = estimate_background(stack, box_size, mask=mask, backend=backend)
        level, rms = np.asarray(sky.background), np.asarray(sky.background_rms)
    data = stack - level
    smoothed = np.asarray(smooth(data, kernel, mask=mask, backend=backend))
    found = detect_stamps(
        smoothed,
        n_sigma * rms,
        n_pixels,
        connectivity=connectivity,
        mask=mask,
        backend=backend,
    )
    split = deblend_stamps(
        smoothed,
        found.labels,
        n_pixels,
        n_levels=n_levels,
        contrast=contrast,
        connectivity=connectivity,
        backend=backend,
    )
    catalog = measure_stamps(
        data,
        split.labels,
        max_sources=max_sources,
        convolved_data=smoothed,
        error=rms,
        mask=mask,
    )
    return StampDetections(split.labels, split.n_labels, catalog, level, rms)


def _no_sky(stack: np.ndarray, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Nothing, and the scatter of each stamp, NaN where none of its pixels is used."""
    hidden = np.zeros(stack.shape, bool) if mask is None else np.asarray(mask, bool)
    rms = median_scatter(stack, hidden)
    return np.zeros_like(stack), np.broadcast_to(rms[:, None, None], stack.shape)
