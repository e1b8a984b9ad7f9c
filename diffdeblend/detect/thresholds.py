"""How bright a smoothed pixel must be, and what is connected above that. Host side."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.background.clipped import clipped_statistics
from diffdeblend.detect.smoothing import SmoothedImage
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.runs import label_stack

ThresholdType = Literal["pixel_stdev", "stdev", "variance", "value"]
THRESHOLD_TYPES = ("pixel_stdev", "stdev", "variance", "value")


class Level(NamedTuple):
    """How bright a pixel must be.

    - `threshold`: in the unit of the image, one number `(1, 1)` or `(y, x)`.
    - `noise`: what a significance of 1 is, likewise; None where the threshold is none of noise.
    """

    threshold: Float[np.ndarray, "y x"]
    noise: Float[np.ndarray, "y x"] | None


class Above(NamedTuple):
    """Connected pixels above a threshold.

    - `labels`: 1, 2, ... in the order of their first pixels, shape `(y, x)`.
    - `areas`: pixels of each label. `boxes`: of each, as in `LabelImage`.
    """

    labels: Int[np.ndarray, "y x"]
    areas: Int[np.ndarray, "label"]
    boxes: Int[np.ndarray, "label 4"]

    @property
    def label_image(self) -> LabelImage:
        """The same as a label image."""
        return LabelImage.from_components(self.labels, self.areas, self.boxes)


def threshold_level(
    smoothed: SmoothedImage,
    threshold: float,
    kind: ThresholdType,
    hidden: Bool[np.ndarray, "y x"] | None = None,
) -> Level:
    """The threshold of each pixel of a smoothed image.

    - `threshold`: in the unit of `kind`: "pixel_stdev", the noise that the variance gives each
        pixel; "stdev" or "variance", the clipped scatter of the smoothed image, or the root of its
        square, which is the same; "value", the unit of the image.
    - `hidden`: for "stdev", true where a pixel does not count for the scatter.

    **Raises:** `ValueError` for another kind, or a scatter that cannot be measured.
    """
    if kind not in THRESHOLD_TYPES:
        raise ValueError(f"`threshold_type` must be one of {THRESHOLD_TYPES}; got {kind!r}.")
    if kind == "value":
        return Level(np.full((1, 1), threshold, smoothed.image.dtype), None)
    if kind == "pixel_stdev":
        noise = smoothed.noise
    else:
        mask = None
        if kind == "stdev" and hidden is not None:
            mask = np.ascontiguousarray(hidden[smoothed.region])
        scatter = float(clipped_statistics(smoothed.middle, mask).std)
        if not np.isfinite(scatter):
            raise ValueError(
                f"`threshold_type` {kind!r} needs pixels to measure the scatter of; none is left."
            )
        noise = np.full((1, 1), scatter, smoothed.image.dtype)
    return Level(np.asarray(noise * threshold, smoothed.image.dtype), noise)


def connected_above(
    values: Float[np.ndarray, "y x"],
    threshold: Float[np.ndarray, "y x"],
    *,
    min_pixels: int = 1,
    include_multiplier: float = 1.0,
) -> Above:
    """Pixels at or above the threshold that touch, also at corners. NaN belongs to nothing.

    - `threshold`: shape of `values`, or one number `(1, 1)`.
    - `min_pixels`: fewest pixels of a group.
    - `include_multiplier`: a group needs one pixel at or above so many times the threshold.
    """
    above = values >= threshold
    found = label_stack(above[None], min_pixels, 8)
    labels, areas, boxes = found.labels[0], found.areas, found.boxes
    if include_multiplier > 1 and areas.size:
        place = np.flatnonzero(labels)
        level = threshold if threshold.size == 1 else threshold.reshape(-1)[place]
        bright = values.reshape(-1)[place] >= include_multiplier * level.reshape(-1)
        kept = np.zeros(len(areas) + 1, bool)
        kept[labels.reshape(-1)[place[bright]]] = True
        number = np.cumsum(kept, dtype=np.int32) * kept
        labels = number[labels]
        areas, boxes = areas[kept[1:]], boxes[kept[1:]]
    return Above(labels, areas, boxes)
