"""The blends of an exposure, each with its box, as the steps of allocation want them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.footprints import Footprint
from diffdeblend.segment.boxes import BoundingBox


@dataclass(frozen=True, eq=False)
class OpenBlend:
    """One blend in its box. Host side.

    - `row`: of the parent in the records; `box`: of its pixels on the image.
    - `image`, `weight`: `(y, x)`; the weight is one over the variance, 0 where a pixel is masked.
    - `inside`: pixels of the parent that have a value.
    - `peak_x`, `peak_y`: in pixels of the box; perhaps outside of it.
    - `first`: place of its first peak among those of all blends.
    """

    row: int
    box: BoundingBox
    image: Float[np.ndarray, "y x"]
    weight: Float[np.ndarray, "y x"]
    inside: Bool[np.ndarray, "y x"]
    peak_x: Int[np.ndarray, "peak"]
    peak_y: Int[np.ndarray, "peak"]
    first: int

    @property
    def n_peaks(self) -> int:
        """Number of peaks."""
        return len(self.peak_x)


def open_blend(
    row: int,
    footprint: Footprint,
    image: Float[np.ndarray, "y x"],
    weight: Float[np.ndarray, "y x"],
    n_peaks: int,
    first: int,
) -> OpenBlend:
    """The box of a parent with its first `n_peaks` peaks."""
    spans = footprint.spans.clipped(image.shape)
    box = spans.bbox
    known = np.isfinite(image[box.slices])
    peaks = footprint.peaks
    return OpenBlend(
        row,
        box,
        np.where(known, image[box.slices], 0).astype(np.float32),
        weight[box.slices].astype(np.float32),
        spans.to_mask(box) & known,
        peaks.x[:n_peaks].astype(int) - box.ixmin,
        peaks.y[:n_peaks].astype(int) - box.iymin,
        first,
    )


def put_around(
    stamp: np.ndarray, plane: np.ndarray, x: int, y: int, *, reach_x: int, reach_y: int
) -> None:
    """Fill a stamp whose middle pixel is (x, y) of `plane`, as far as both reach from there."""
    height, width = plane.shape
    cy, cx = stamp.shape[0] // 2, stamp.shape[1] // 2
    x0, x1 = max(x - min(reach_x, cx), 0), min(x + min(reach_x, cx) + 1, width)
    y0, y1 = max(y - min(reach_y, cy), 0), min(y + min(reach_y, cy) + 1, height)
    if x0 < x1 and y0 < y1:
        stamp[y0 - y + cy : y1 - y + cy, x0 - x + cx : x1 - x + cx] = plane[y0:y1, x0:x1]


def take_from(out: np.ndarray, stamp: np.ndarray, x: int, y: int) -> None:
    """Put a stamp whose middle pixel is (x, y) of `out` there, as far as it is on it."""
    height, width = out.shape
    cy, cx = stamp.shape[0] // 2, stamp.shape[1] // 2
    x0, x1 = max(x - cx, 0), min(x - cx + stamp.shape[1], width)
    y0, y1 = max(y - cy, 0), min(y - cy + stamp.shape[0], height)
    if x0 < x1 and y0 < y1:
        out[y0:y1, x0:x1] = stamp[y0 - y + cy : y1 - y + cy, x0 - x + cx : x1 - x + cx]
