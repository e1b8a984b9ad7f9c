"""From a smoothed image to footprints of one polarity. Host side."""

from typing import Any, NamedTuple

import numpy as np

from diffdeblend.detect.footprint_peaks import peaks_of_labels
from diffdeblend.detect.redetect import redetected_peaks
from diffdeblend.detect.smoothing import SmoothedImage
from diffdeblend.detect.thresholds import Level, connected_above
from diffdeblend.footprints import FootprintSet, Peaks
from diffdeblend.segment.dilate import dilate


class FootprintSteps(NamedTuple):
    """What both polarities share.

    - `smoothed`, `level`: what is thresholded, and where. `local`: the same without the local
        background, for peaks; None: as it is.
    - The rest: as in `detect_footprints`; `grow` in pixels.
    """

    smoothed: SmoothedImage
    level: Level
    local: tuple[SmoothedImage, Level] | None
    min_pixels: int
    include_multiplier: float
    grow: int
    stencil: str
    combined: bool


def footprints_of(steps: FootprintSteps, sign: int) -> FootprintSet:
    """Footprints above (`sign` 1) or below (-1) the sky, grown."""
    values = steps.smoothed.image if sign > 0 else -steps.smoothed.image
    region = steps.smoothed.region
    rule: dict[str, Any] = {
        "min_pixels": steps.min_pixels,
        "include_multiplier": steps.include_multiplier,
    }
    found = connected_above(values, steps.level.threshold, **rule)
    peaks = peaks_of_labels(values, found.labels, region)
    if steps.local is not None:
        other, level = steps.local
        flat = other.image if sign > 0 else -other.image
        peaks = redetected_peaks(found, peaks, flat, level.threshold, region, **rule)
    noise = steps.level.noise
    if noise is None:
        significance = np.zeros(len(peaks.x))
    else:
        significance = peaks.value / np.broadcast_to(noise, values.shape)[peaks.y, peaks.x]
    table = Peaks(peaks.x, peaks.y, sign * peaks.value, significance)
    made = FootprintSet.from_labels(found.label_image, table)
    if steps.grow == 0 and not steps.combined:
        return made
    return made.dilate(steps.grow, steps.stencil, combined=steps.combined)


def with_image(smoothed: SmoothedImage, image: np.ndarray) -> SmoothedImage:
    """Other pixels with the same noise."""
    return SmoothedImage(image, smoothed.noise, smoothed.reach_y, smoothed.reach_x)


def lowered(smoothed: SmoothedImage, level: float) -> SmoothedImage:
    """All pixels less a level."""
    return with_image(smoothed, smoothed.image - np.asarray(level, smoothed.image.dtype))


def widened(flagged: np.ndarray | None, smoothed: SmoothedImage) -> np.ndarray | None:
    """Pixels whose kernel meets a flagged one; None if there is none."""
    if flagged is None or not flagged.any():
        return None
    return dilate(flagged, np.ones((2 * smoothed.reach_y + 1, 2 * smoothed.reach_x + 1), bool))
