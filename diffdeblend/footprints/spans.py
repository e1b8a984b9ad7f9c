"""A set of pixels as runs of rows: a ragged shape of any size, anywhere."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from diffdeblend.footprints import lines
from diffdeblend.segment.boxes import BoundingBox
from diffdeblend.segment.runs import row_runs


@dataclass(frozen=True, eq=False, repr=False)
class SpanSet:
    """Pixels as spans: `y`, and `x0` to `x1` along the row, both ends in it. Lives on the host.

    Sorted by y, then x0; spans of a row neither overlap nor touch. Positions may be negative: a
    dilation reaches beyond the image until it is `clipped`. It does not change: methods return a
    new one. Two sets of the same pixels are equal.

    - `y`, `x0`, `x1`: int32, shape `(span,)`; in any order, overlapping or not.

    **Raises:** `ValueError` if they are not integers of one shape, or an `x1` is below its `x0`.
    """

    y: Int[np.ndarray, "span"]
    x0: Int[np.ndarray, "span"]
    x1: Int[np.ndarray, "span"]

    def __post_init__(self):
        given = [np.asarray(one) for one in (self.y, self.x0, self.x1)]
        if any(one.size and one.dtype.kind not in "iu" for one in given):
            raise ValueError(
                f"`y`, `x0` and `x1` must be integers; got {[str(one.dtype) for one in given]}."
            )
        if len({one.shape for one in given}) > 1 or given[0].ndim != 1:
            raise ValueError(
                "`y`, `x0` and `x1` need one shape (span,); "
                f"got {', '.join(str(one.shape) for one in given)}."
            )
        y, x0, x1 = (one.astype(np.int64) for one in given)
        if (x1 < x0).any():
            k = int(np.argmax(x1 < x0))
            raise ValueError(f"`x1` must be at least `x0`; got {x0[k]} to {x1[k]}.")
        frame = lines.frame_of((y, x0, x1))
        made = frame.back(*lines.merged(*frame.onto(y, x0, x1)))
        self.__dict__.update(y=made[1], x0=made[2], x1=made[3])

    @classmethod
    def from_sorted(cls, y: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> "SpanSet":
        """Of int32 spans that are sorted and apart already; they are not looked at."""
        made = object.__new__(cls)
        made.__dict__.update(y=y, x0=x0, x1=x1)
        return made

    @classmethod
    def empty(cls) -> "SpanSet":
        """No pixel."""
        none = np.zeros(0, np.int32)
        return cls.from_sorted(none, none, none)

    @classmethod
    def from_mask(cls, mask: Any, origin: tuple[int, int] = (0, 0)) -> "SpanSet":
        """The pixels that are True.

        - `mask`: shape `(y, x)`. `origin`: x and y of its first pixel.

        **Raises:** `ValueError` for another shape, or numbers other than 0 and 1.
        """
        array = np.asarray(mask)
        if array.ndim != 2 or (array.dtype != bool and not np.isin(array, (0, 1)).all()):
            raise ValueError(
                f"`mask` needs booleans of shape (y, x); got {array.dtype} of shape {array.shape}."
            )
        row, start, stop = row_runs(array.astype(bool))
        x, y = origin
        return cls.from_sorted(_int32(row + y), _int32(start + x), _int32(stop + x - 1))

    @classmethod
    def from_box(cls, box: BoundingBox | tuple[int, int, int, int]) -> "SpanSet":
        """All pixels of a box `(ixmin, ixmax, iymin, iymax)`, upper ends not in it."""
        x0, x1, y0, y1 = box
        y = np.arange(y0, max(y1, y0) if x1 > x0 else y0, dtype=np.int32)
        return cls.from_sorted(y, np.full_like(y, x0), np.full_like(y, x1 - 1))

    @classmethod
    def from_stencil(
        cls, radius: int, stencil: str = "circle", origin: tuple[int, int] = (0, 0)
    ) -> "SpanSet":
        """The pixels of a stencil about `origin` (x, y).

        - `stencil`: `"circle"`: |dx| <= sqrt(radius^2 - dy^2); `"manhattan"`: |dx| + |dy| <=
            radius; `"box"`.

        **Raises:** `ValueError` for another stencil, or a radius that is no integer of at least 0.
        """
        width = lines.half_widths(radius, stencil)
        y = np.arange(-radius, radius + 1) + origin[1]
        return cls.from_sorted(_int32(y), _int32(origin[0] - width), _int32(origin[0] + width))

    def __len__(self) -> int:
        """Number of spans."""
        return len(self.y)

    def __bool__(self) -> bool:
        """Whether there is any pixel."""
        return len(self.y) > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SpanSet):
            return NotImplemented
        mine, others = self.arrays, other.arrays
        return all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<SpanSet: {self.area} pixels in {len(self)} spans, {self.bbox}>"

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`y`, `x0` and `x1`."""
        return self.y, self.x0, self.x1

    @cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.x1.astype(np.int64) - self.x0 + 1).sum())

    @cached_property
    def bbox(self) -> BoundingBox:
        """The smallest box; all zeros if there is no pixel."""
        if not self:
            return BoundingBox(0, 0, 0, 0)
        x0, x1 = int(self.x0.min()), int(self.x1.max()) + 1
        return BoundingBox(x0, x1, int(self.y[0]), int(self.y[-1]) + 1)

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean x and y of the pixels, unweighted; NaN if there are none."""
        n, sx, sy, *_ = self._sums
        box = self.bbox
        return (box.ixmin + sx / n, box.iymin + sy / n) if n else (np.nan, np.nan)

    @property
    def shape(self) -> tuple[float, float, float]:
        """Second moments of the pixels about their centroid, xx, yy and xy, unweighted, in px^2."""
        n, sx, sy, sxx, syy, sxy = self._sums
        if not n:
            return np.nan, np.nan, np.nan
        # Whole numbers up to the one division: exact.
        return (
            (n * sxx - sx * sx) / n**2,
            (n * syy - sy * sy) / n**2,
            (n * sxy - sx * sy) / n**2,
        )

    @cached_property
    def _sums(self) -> tuple[int, ...]:
        """Of 1, x, y, xx, yy and xy over the pixels, from the corner of the box."""
        box = self.bbox
        a, b = self.x0.astype(np.int64) - box.ixmin, self.x1.astype(np.int64) - box.ixmin
        y, n = self.y.astype(np.int64) - box.iymin, b - a + 1
        sx = (a + b) * n // 2
        sxx = (b * (b + 1) * (2 * b + 1) - (a - 1) * a * (2 * a - 1)) // 6
        return tuple(_total(s) for s in (n, sx, y * n, sxx, y * y * n, y * sx))

    def contains(self, x: Any, y: Any) -> Bool[np.ndarray, "..."]:
        """Whether the pixels `x`, `y` are in the set; of a position, the pixel it is on."""
        x, y = (np.floor(np.asarray(one, float) + 0.5).astype(np.int64) for one in (x, y))
        x, y = np.broadcast_arrays(x, y)
        return (self.span_of(x.reshape(-1), y.reshape(-1)) >= 0).reshape(x.shape)

    def span_of(
        self, x: Int[np.ndarray, "point"], y: Int[np.ndarray, "point"]
    ) -> Int[np.ndarray, "point"]:
        """Place of the span that each pixel is in; -1 if it is in none."""
        out = np.full(len(x), -1, np.int64)
        if not self:
            return out
        box = self.bbox
        near = (x >= box.ixmin) & (x < box.ixmax) & (y >= box.iymin) & (y < box.iymax)
        frame = lines.frame_of(self.arrays)
        start, stop = frame.onto(*self.arrays)
        at = frame.onto(y[near], x[near], x[near])[0]
        place = np.searchsorted(start, at, side="right") - 1
        out[near] = np.where(at < stop[place], place, -1)
        return out

    def overlaps(self, other: "SpanSet") -> bool:
        """Whether the two have a pixel in common."""
        _, a, b = self._with(other)
        return len(lines.pairs(a, b)[0]) > 0

    def union(self, other: "SpanSet") -> "SpanSet":
        """Pixels of either."""
        both = (np.concatenate(pair) for pair in zip(self.arrays, other.arrays, strict=True))
        return SpanSet(*both)

    def intersect(self, other: "SpanSet | np.ndarray") -> "SpanSet":
        """Pixels of both; `other` may be a mask `(y, x)` of an image that begins at (0, 0)."""
        frame, a, b = self._with(_as_spans(other))
        return _back(frame, lines.common(a, b))

    def subtract(self, other: "SpanSet | np.ndarray") -> "SpanSet":
        """Pixels that are not of `other`, which may be a mask as in `intersect`."""
        frame, a, b = self._with(_as_spans(other))
        return _back(frame, lines.without(a, b))

    def clipped(self, box: BoundingBox | tuple[int, ...]) -> "SpanSet":
        """Pixels in a box `(ixmin, ixmax, iymin, iymax)`, or in an image of shape `(ny, nx)`."""
        x0, x1, y0, y1 = _box(box)
        low, high = np.maximum(self.x0, x0), np.minimum(self.x1, x1 - 1)
        kept = (low <= high) & (self.y >= y0) & (self.y < y1)
        return SpanSet.from_sorted(self.y[kept], _int32(low[kept]), _int32(high[kept]))

    def shifted(self, dx: int, dy: int) -> "SpanSet":
        """All pixels moved by whole pixels."""
        return SpanSet.from_sorted(_int32(self.y + dy), _int32(self.x0 + dx), _int32(self.x1 + dx))

    def split(self, connectivity: int = 4) -> "list[SpanSet]":
        """Connected parts, in the order of their first pixels.

        - `connectivity`: 4 joins pixels that share an edge, 8 also those that share a corner, as
            detection does.

        **Raises:** `ValueError` for another `connectivity`.
        """
        if connectivity not in (4, 8):
            raise ValueError(f"`connectivity` must be 4 or 8; got {connectivity!r}.")
        frame = lines.frame_of(self.arrays)
        start, stop = frame.onto(*self.arrays)
        n, part = lines.components(start, stop, frame.stride, connectivity)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=n))[:-1]
        pieces = (np.split(one[order], ends) for one in self.arrays)
        return [SpanSet.from_sorted(*piece) for piece in zip(*pieces, strict=True)] if n else []

    def dilate(self, radius: int, stencil: str = "circle") -> "SpanSet":
        """The pixels within a stencil of a pixel of the set; may reach beyond the image."""
        return _back(*lines.grown(*self.arrays, 0, radius, stencil))

    def erode(self, radius: int, stencil: str = "circle") -> "SpanSet":
        """The pixels whose whole stencil is in the set; may be none, or several parts."""
        return _back(*lines.shrunk(*self.arrays, 0, radius, stencil))

    def edge(self) -> "SpanSet":
        """Pixels with one of their four neighbours outside of the set."""
        return self.subtract(self.erode(1))

    def to_mask(self, box: BoundingBox | tuple[int, ...] | None = None) -> Bool[np.ndarray, "y x"]:
        """True where the pixels are, in a box or an image of shape `(ny, nx)`; default: `bbox`."""
        x0, x1, y0, y1 = self.bbox if box is None else _box(box)
        mask = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        y, x = self.clipped((x0, x1, y0, y1)).indices()
        mask[y - y0, x - x0] = True
        return mask

    def indices(
        self, shape: tuple[int, int] | None = None
    ) -> tuple[Int[np.ndarray, "pixel"], Int[np.ndarray, "pixel"]]:
        """y and x of all pixels, span by span.

        - `shape`: of an image that must hold them.

        **Raises:** `ValueError` if a pixel is outside of `shape`.
        """
        box = self.bbox
        if shape is not None and self:
            check_inside(box, shape)
        return pixels_of(*self.arrays)

    def _with(self, other: "SpanSet") -> tuple[lines.Frame, lines.Interval, lines.Interval]:
        frame = lines.frame_of(self.arrays, other.arrays)
        return frame, frame.onto(*self.arrays), frame.onto(*other.arrays)


def pixels_of(y: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y and x of all pixels of spans, span by span."""
    n = (x1 - x0 + 1).astype(np.int64)
    before = np.cumsum(n) - n
    x = np.arange(int(n.sum())) + np.repeat(x0 - before, n)
    return np.repeat(y, n), x


def check_inside(box: BoundingBox, shape: tuple[int, int]) -> None:
    """**Raises:** `ValueError` if pixels of the box are not on an image of this shape."""
    if box.ixmin < 0 or box.iymin < 0 or box.iymax > shape[0] or box.ixmax > shape[1]:
        raise ValueError(
            f"`spans` reach beyond the image of shape {tuple(shape)}: {box}; clip them with "
            "`clipped(shape)` first."
        )


def _back(frame: lines.Frame, interval: lines.Interval) -> SpanSet:
    return SpanSet.from_sorted(*frame.back(*interval)[1:])


def _as_spans(other: Any) -> SpanSet:
    return other if isinstance(other, SpanSet) else SpanSet.from_mask(other)


def _box(box: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box, or the whole of an image of a shape."""
    if len(box) == 2:
        return 0, int(box[1]), 0, int(box[0])
    if len(box) != 4:
        raise ValueError(
            "`box` must be (ixmin, ixmax, iymin, iymax), or the shape (ny, nx) of an image; "
            f"got {box!r}."
        )
    x0, x1, y0, y1 = (int(end) for end in box)
    return x0, x1, y0, y1


def _total(values: np.ndarray) -> int:
    """A sum that may be more than 64 bits hold, as that of x^2 over a large image."""
    return (int((values >> 24).sum()) << 24) + int((values & 0xFFFFFF).sum())


def _int32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32)
