"""The pixels of all segments as one list: sums over sources without a loop. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped


class SegmentPixels(NamedTuple):
    """Pixels of the sources of a stack of label images, source after source, each row by row.

    - `stamp`, `label`: of each source, `(source,)`; by stamp, then by label.
    - `source`: number of the source of each pixel, `(pixel,)`, rising.
    - `index`: place of each pixel in the stack, all axes in one.
    - `y`, `x`: place of each pixel in its stamp.
    - `count`: pixels of each source, `(source,)`.
    - `shape`: of the stack.
    """

    stamp: Int[np.ndarray, "source"]
    label: Int[np.ndarray, "source"]
    source: Int[np.ndarray, "pixel"]
    index: Int[np.ndarray, "pixel"]
    y: Int[np.ndarray, "pixel"]
    x: Int[np.ndarray, "pixel"]
    count: Int[np.ndarray, "source"]
    shape: tuple[int, int, int]

    @property
    def n_sources(self) -> int:
        return len(self.label)

    def only(self, chosen: Bool[np.ndarray, "pixel"]) -> "SegmentPixels":
        """Some of the pixels; a source that loses all of them stays, with none."""
        if chosen.all():
            return self
        source = self.source[chosen]
        return self._replace(
            source=source,
            index=self.index[chosen],
            y=self.y[chosen],
            x=self.x[chosen],
            count=np.bincount(source, minlength=self.n_sources),
        )

    def values(self, plane: Shaped[np.ndarray, "stamp y x"]) -> Shaped[np.ndarray, "pixel"]:
        """What an image has in each pixel."""
        return np.ascontiguousarray(plane).reshape(-1)[self.index]

    def sum(self, values: Shaped[np.ndarray, "pixel"]) -> Float[np.ndarray, "source"]:
        """Sum over each source, in double precision; 0 where it has no pixel."""
        return np.bincount(self.source, values, minlength=self.n_sources)

    def reduce(self, ufunc: np.ufunc, values: np.ndarray, empty: float) -> np.ndarray:
        """`ufunc` over each source, as `np.minimum`; `empty` where it has no pixel."""
        there = self.count > 0
        found = np.full(self.n_sources, empty, values.dtype)
        if there.any():
            found[there] = ufunc.reduceat(values, (np.cumsum(self.count) - self.count)[there])
        return found

    def spread(self, values: Shaped[np.ndarray, "source"]) -> Shaped[np.ndarray, "pixel"]:
        """A value of each source, for each of its pixels."""
        return np.repeat(values, self.count)

    def boxes(self) -> Int[np.ndarray, "source 4"]:
        """Rows (y0, x0, y1, x1) around the pixels; the last is the one before (y1, x1)."""
        reduced = (
            self.reduce(np.minimum, self.y, 0),
            self.reduce(np.minimum, self.x, 0),
            self.reduce(np.maximum, self.y, -1) + 1,
            self.reduce(np.maximum, self.x, -1) + 1,
        )
        return np.stack(reduced, axis=1)


def list_pixels(labels: Int[np.ndarray, "stamp y x"]) -> SegmentPixels:
    """The pixels of every label above 0 of every stamp.

    **Raises:** `ValueError` for another shape, what is not integers, or a negative label.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` needs integers of shape (stamp, y, x); "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    n_stamps, ny, nx = labels.shape
    # Of booleans, which numpy looks through eight times as fast as through integers.
    index = np.flatnonzero(labels != 0)
    found = labels.reshape(-1)[index].astype(np.int64)
    if found.size and found.min() < 0:
        raise ValueError(f"`labels` must be at least 0; got {found.min()}.")
    stamp = index // (ny * nx) if n_stamps > 1 else np.zeros_like(index)
    most = np.zeros(n_stamps, np.int64)
    if n_stamps == 1:
        most[0] = found.max(initial=0)
    elif labels.size:
        most = labels.max(axis=(1, 2)).astype(np.int64)
    first = np.cumsum(most) - most
    number = found - 1 + first[stamp]
    n_numbers = int(most.sum())
    if n_numbers > 4 * labels.size:
        # Labels of billions would want a table of as many rows.
        there, number = np.unique(number, return_inverse=True)
    else:
        there = np.flatnonzero(np.bincount(number, minlength=n_numbers))
        row = np.zeros(n_numbers, np.int64)
        row[there] = np.arange(len(there))
        number = row[number]
    order = _stable_order(number)
    index, number = index[order], number[order]
    place = index % (ny * nx) if n_stamps > 1 else index
    y = place // nx if nx else place
    of = np.searchsorted(np.cumsum(most), there, side="right")
    return SegmentPixels(
        stamp=of,
        label=there - first[of] + 1,
        source=number,
        index=index,
        y=y.astype(np.int32),
        x=(place - y * nx).astype(np.int32),
        count=np.bincount(number, minlength=len(there)),
        shape=(n_stamps, ny, nx),
    )


def _stable_order(number: Int[np.ndarray, "pixel"]) -> Int[np.ndarray, "pixel"]:
    """As a stable argsort; numpy sorts 16 bits at a time in linear time, and no more than those."""
    order = np.argsort(number.astype(np.uint16), kind="stable")
    if number.size and number.max() >= 2**16:
        high = (number >> 16).astype(np.uint16)
        order = order[np.argsort(high[order], kind="stable")]
    return order
