"""The spans of many sets of pixels as a few long arrays: what is done for all sets at once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.footprints import lines
from diffdeblend.footprints.spans import SpanSet, check_inside, pixels_of
from diffdeblend.segment.boxes import BoundingBox


@dataclass(frozen=True, eq=False, repr=False)
class RaggedSpans:
    """Span sets one after the other; they may overlap, and be empty.

    - `y`, `x0`, `x1`: int32, all spans, those of a set as in `SpanSet`.
    - `ends`: where the spans of each set end, shape `(set + 1,)`, from 0.
    """

    y: Int[np.ndarray, "span"]
    x0: Int[np.ndarray, "span"]
    x1: Int[np.ndarray, "span"]
    ends: Int[np.ndarray, "end"]

    @classmethod
    def of_owners(cls, y: Any, x0: Any, x1: Any, owner: np.ndarray, n: int) -> "RaggedSpans":
        """Spans in raster order with the set of each, out of `n`."""
        if (owner[1:] < owner[:-1]).any():
            order = np.argsort(owner, kind="stable")
            y, x0, x1 = y[order], x0[order], x1[order]
        y, x0, x1 = (one.astype(np.int32, copy=False) for one in (y, x0, x1))
        return cls(y, x0, x1, ends_of(np.bincount(owner, minlength=n)))

    @classmethod
    def of_any(cls, y: Any, x0: Any, x1: Any, owner: np.ndarray, n: int) -> "RaggedSpans":
        """Spans in any order, overlapping or not, with the set of each, out of `n`."""
        frame = lines.frame_of((y, x0, x1))
        owner, y, x0, x1 = frame.back(*lines.merged(*frame.onto(y, x0, x1, owner)))
        return cls(y, x0, x1, ends_of(np.bincount(owner, minlength=n)))

    @classmethod
    def of_parts(cls, spans: SpanSet, connectivity: int) -> tuple["RaggedSpans", np.ndarray]:
        """The connected parts of one set, in raster order, and the part of each of its spans."""
        frame = lines.frame_of(spans.arrays)
        start, stop = frame.onto(*spans.arrays)
        n, part = lines.components(start, stop, frame.stride, connectivity)
        return cls.of_owners(*spans.arrays, part, n), part

    @classmethod
    def of_sets(cls, sets: list[SpanSet]) -> "RaggedSpans":
        """Of single sets."""
        none = np.zeros(0, np.int32)
        y, x0, x1 = (np.concatenate([none, *arrays]) for arrays in _columns(sets))
        return cls(y, x0, x1, ends_of(np.array([len(one) for one in sets], np.int64)))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place: int) -> SpanSet:
        """One of the sets."""
        own = slice(self.ends[place], self.ends[place + 1])
        return SpanSet.from_sorted(self.y[own], self.x0[own], self.x1[own])

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`y`, `x0` and `x1`."""
        return self.y, self.x0, self.x1

    @property
    def counts(self) -> Int[np.ndarray, "set"]:
        """Spans of each set."""
        return np.diff(self.ends)

    @property
    def owner(self) -> Int[np.ndarray, "span"]:
        """Set of each span."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.counts)

    @cached_property
    def pixel_ends(self) -> Int[np.ndarray, "end"]:
        """Where the pixels of each set end, shape `(set + 1,)`, from 0."""
        return ends_of((self.x1 - self.x0 + 1).astype(np.int64))[self.ends]

    @property
    def areas(self) -> Int[np.ndarray, "set"]:
        """Pixels of each set."""
        return np.diff(self.pixel_ends)

    @property
    def boxes(self) -> Int[np.ndarray, "set 4"]:
        """Of each set ixmin, ixmax, iymin, iymax, as in `BoundingBox`; zeros if it is empty."""
        full = self.counts > 0
        out = np.zeros((len(self), 4), np.int64)
        if full.any():
            first = self.ends[:-1][full]
            out[full, 0] = np.minimum.reduceat(self.x0, first)
            out[full, 1] = np.maximum.reduceat(self.x1, first) + 1
            out[full, 2] = self.y[first]
            out[full, 3] = self.y[self.ends[1:][full] - 1] + 1
        return out

    @property
    def bbox(self) -> BoundingBox:
        """The smallest box around all sets; zeros if there is no pixel."""
        if not len(self.y):
            return BoundingBox(0, 0, 0, 0)
        x0, x1 = int(self.x0.min()), int(self.x1.max()) + 1
        return BoundingBox(x0, x1, int(self.y.min()), int(self.y.max()) + 1)

    @property
    def centroids(self) -> Float[np.ndarray, "set 2"]:
        """Mean x and y of the pixels of each set; NaN if it is empty."""
        length = (self.x1 - self.x0 + 1).astype(float)
        owner = self.owner
        sums = [
            np.bincount(owner, weights=values * length, minlength=len(self))
            for values in ((self.x0.astype(float) + self.x1) / 2, self.y.astype(float))
        ]
        with np.errstate(invalid="ignore"):
            return np.stack(sums, axis=1) / self.areas[:, None]

    def indices(
        self, shape: tuple[int, ...] | None = None
    ) -> tuple[Int[np.ndarray, "pixel"], Int[np.ndarray, "pixel"]]:
        """y and x of all pixels, set by set and span by span.

        **Raises:** `ValueError` if a pixel is outside of an image of `shape`.
        """
        if shape is not None and len(self.y):
            check_inside(self.bbox, (shape[0], shape[1]))
        return pixels_of(*self.arrays)

    def chosen(self, places: Int[np.ndarray, "chosen"]) -> "RaggedSpans":
        """Some of the sets, in another order perhaps."""
        counts = self.counts[places]
        at = ranges(self.ends[places], counts)
        return RaggedSpans(self.y[at], self.x0[at], self.x1[at], ends_of(counts))

    def clipped(self, box: BoundingBox) -> "RaggedSpans":
        """Pixels in a box; sets stay in their places, if empty. The same object if all are."""
        low = np.maximum(self.x0, box.ixmin).astype(np.int32)
        high = np.minimum(self.x1, box.ixmax - 1).astype(np.int32)
        kept = (low <= high) & (self.y >= box.iymin) & (self.y < box.iymax)
        if kept.all() and (low == self.x0).all() and (high == self.x1).all():
            return self
        counts = np.bincount(self.owner[kept], minlength=len(self))
        return RaggedSpans(self.y[kept], low[kept], high[kept], ends_of(counts))

    def dilate(self, radius: int, stencil: str) -> "RaggedSpans":
        """Each set grown by itself, see `SpanSet.dilate`."""
        return self._back(*lines.grown(*self.arrays, self.owner, radius, stencil))

    def erode(self, radius: int, stencil: str) -> "RaggedSpans":
        """Each set shrunk by itself, see `SpanSet.erode`."""
        return self._back(*lines.shrunk(*self.arrays, self.owner, radius, stencil))

    def union(self) -> SpanSet:
        """The pixels of all sets as one."""
        return SpanSet(*self.arrays)

    def holds(
        self, x: Int[np.ndarray, "point"], y: Int[np.ndarray, "point"], owner: np.ndarray
    ) -> Bool[np.ndarray, "point"]:
        """Whether each pixel is in the set named beside it."""
        box = self.bbox
        near = (x >= box.ixmin) & (x < box.ixmax) & (y >= box.iymin) & (y < box.iymax)
        frame = lines.frame_of(self.arrays)
        start, stop = frame.onto(*self.arrays, self.owner)
        at = frame.onto(y[near], x[near], x[near], owner[near])[0]
        span = np.searchsorted(start, at, side="right") - 1
        near[near] = (span >= 0) & (at < stop[span])
        return near

    def overlaps(
        self, other: "RaggedSpans"
    ) -> tuple[Int[np.ndarray, "pair"], Int[np.ndarray, "pair"]]:
        """Which sets have pixels in common: places here and in `other`, each pair once."""
        frame = lines.frame_of(self.arrays, other.arrays)
        (a, first), (b, second) = (_in_order(frame, one) for one in (self, other))
        i, j = lines.overlapping(a, b)
        pairs = np.unique(first[i] * len(other) + second[j])
        return pairs // max(len(other), 1), pairs % max(len(other), 1)

    def _back(self, frame: lines.Frame, interval: lines.Interval) -> "RaggedSpans":
        owner, y, x0, x1 = frame.back(*interval)
        return RaggedSpans(y, x0, x1, ends_of(np.bincount(owner, minlength=len(self))))


def _in_order(frame: lines.Frame, spans: RaggedSpans) -> tuple[lines.Interval, np.ndarray]:
    """Spans of all sets by where they begin in the image, and the set of each."""
    start, stop = frame.onto(*spans.arrays)
    order = np.argsort(start, kind="stable")
    return (start[order], stop[order]), spans.owner[order].astype(np.int64)


def ends_of(counts: np.ndarray) -> Int[np.ndarray, "end"]:
    """Where parts of these lengths end, from 0 on."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ranges(first: np.ndarray, counts: np.ndarray) -> Int[np.ndarray, "all"]:
    """The numbers from each first on, one count after the other."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(first - before, counts)


def _columns(sets: list[SpanSet]) -> list[list[np.ndarray]]:
    return [[one.arrays[k] for one in sets] for k in range(3)]
