"""A detected source: its pixels and its peaks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from diffdeblend.footprints.peaks import Peaks
from diffdeblend.footprints.spans import SpanSet
from diffdeblend.segment.boxes import BoundingBox


@dataclass(frozen=True, eq=False, repr=False)
class Footprint:
    """The pixels of one detection, with its peaks. Immutable: methods return a new one.

    - `spans`: the pixels; they need not be connected.
    - `peaks`: the strongest first.
    - `region`: box of the image that it was found in; None if it is of no image.
    """

    spans: SpanSet
    peaks: Peaks = field(default_factory=Peaks.empty)
    region: BoundingBox | None = None

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind}: {self.area} pixels, {len(self.peaks)} peaks, {self.bbox}>"

    @property
    def is_heavy(self) -> bool:
        """Whether it has pixel values."""
        return False

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.spans.area

    @property
    def bbox(self) -> BoundingBox:
        """The smallest box; all zeros if there is no pixel."""
        return self.spans.bbox

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean x and y of the pixels, unweighted."""
        return self.spans.centroid

    @property
    def shape(self) -> tuple[float, float, float]:
        """Second moments xx, yy and xy of the pixels, unweighted, in px^2."""
        return self.spans.shape

    def contains(self, x: Any, y: Any) -> Bool[np.ndarray, "..."]:
        """Whether positions are on its pixels."""
        return self.spans.contains(x, y)

    def overlaps(self, other: "Footprint") -> bool:
        """Whether the two have a pixel in common."""
        return self.spans.overlaps(other.spans)

    def split(self, connectivity: int = 4) -> "list[Footprint]":
        """Its connected parts, each with the peaks on it; see `SpanSet.split`."""
        return [self.on(part) for part in self.spans.split(connectivity)]

    def on(self, spans: SpanSet) -> "Footprint":
        """Other pixels; peaks that are not on them go."""
        return Footprint(spans, self._peaks_on(spans), self.region)

    def intersect(self, other: "Footprint | SpanSet | np.ndarray") -> "Footprint":
        """Pixels of both, and the peaks there; `other` may be a mask `(y, x)` from (0, 0)."""
        return self.on(self.spans.intersect(_spans(other)))

    def subtract(self, other: "Footprint | SpanSet | np.ndarray") -> "Footprint":
        """Pixels that are not of `other`, and the peaks there."""
        return self.on(self.spans.subtract(_spans(other)))

    def clipped(self, box: BoundingBox | tuple[int, ...] | None = None) -> "Footprint":
        """Pixels and peaks in a box or an image of shape `(ny, nx)`; default: in its region.

        **Raises:** `ValueError` without a box and a region.
        """
        box = self.region if box is None else box
        if box is None:
            raise ValueError("`box` is missing, and the footprint has no region; give one.")
        return self.on(self.spans.clipped(box))

    def shifted(self, dx: int, dy: int) -> "Footprint":
        """Pixels and peaks moved by whole pixels; the region stays."""
        return replace(self, spans=self.spans.shifted(dx, dy), peaks=self.peaks.shifted(dx, dy))

    def dilate(self, radius: int, stencil: str = "circle") -> "Footprint":
        """Grown by a stencil, perhaps beyond its region (see `clipped`); peaks stay."""
        return Footprint(self.spans.dilate(radius, stencil), self.peaks, self.region)

    def erode(self, radius: int, stencil: str = "circle") -> "Footprint":
        """Shrunk by a stencil, perhaps to nothing or to several parts; peaks outside go."""
        return self.on(self.spans.erode(radius, stencil))

    def edge(self) -> SpanSet:
        """Pixels with one of their four neighbours outside."""
        return self.spans.edge()

    def transformed(
        self,
        forward: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]],
        backward: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]],
        region: BoundingBox | None = None,
    ) -> "Footprint":
        """On another grid of pixels.

        A pixel of the new grid is in it if its middle falls on a pixel of the old one.

        - `forward`: x and y of the old grid to those of the new one, in pixels; `backward`: the way
            back. For two maps of the sky: `new.world_to_pixel_values(*old.pixel_to_world_values(x,
            y))` and the other way round.
        - `region`: box of the new image, to which the result is clipped.
        """
        if not self.spans:
            return Footprint(self.spans, Peaks.empty(tuple(self.peaks.bands)), region)
        y, x = self.edge().indices()
        # The corners of the pixels on the edge; what is inside them stays inside.
        corners = [forward(x + dx, y + dy) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5)]
        box = BoundingBox(*(end for axis in (0, 1) for end in _reach([c[axis] for c in corners])))
        if region is not None:
            box = BoundingBox(
                *(max(box.ixmin, region.ixmin), min(box.ixmax, region.ixmax)),
                *(max(box.iymin, region.iymin), min(box.iymax, region.iymax)),
            )
        spans = SpanSet.empty()
        if box.ixmax > box.ixmin and box.iymax > box.iymin:
            y, x = np.mgrid[box.slices]
            spans = SpanSet.from_mask(
                self.contains(*backward(x.astype(float), y.astype(float))), (box.ixmin, box.iymin)
            )
        px, py = forward(self.peaks.x.astype(float), self.peaks.y.astype(float))
        moved = replace(self.peaks, x=_nearest(px), y=_nearest(py))
        return Footprint(spans, moved, region)

    def _peaks_on(self, spans: SpanSet) -> Peaks:
        return self.peaks[spans.contains(self.peaks.x, self.peaks.y)]


def _spans(other: Any) -> Any:
    return other.spans if isinstance(other, Footprint) else other


def _reach(values: list[Any]) -> tuple[int, int]:
    low, high = min(map(np.min, values)), max(map(np.max, values))
    return int(np.floor(low + 0.5)), int(np.floor(high + 0.5)) + 1


def _nearest(values: Any) -> np.ndarray:
    return np.floor(np.asarray(values) + 0.5).astype(np.int32)
