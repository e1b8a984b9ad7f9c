"""The labels of a stack of stamps before and after sources came apart. An image is one stamp."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.segment.bits import DEBLENDED, LOW_MINIMUM, MANY_MARKERS, NOT_CONNECTED
from diffdeblend.segment.split import Parts, Settings, split_sources

# Sources of a list of pixels to their parts, in the arguments of `split_sources`.
Split = Callable[..., Parts]


class Deblended(NamedTuple):
    """`labels` after, and one row per source before: its stamp, label, bits, parts and numbers.

    `numbers` are the labels after of the first part of each.
    """

    labels: Int[np.ndarray, "stamp y x"]
    stamp: Int[np.ndarray, "source"]
    label: Int[np.ndarray, "source"]
    bits: Int[np.ndarray, "source"]
    count: Int[np.ndarray, "source"]
    numbers: Int[np.ndarray, "source"]


def deblend_stack(
    stack: Float[np.ndarray, "stamp y x"],
    before: Int[np.ndarray, "stamp y x"],
    settings: Settings,
    chosen: np.ndarray | None,
    relabel: bool,
    split: Split = split_sources,
) -> Deblended:
    """Take sources apart: all of at least twice the pixels, or those `chosen` labels of them."""
    flat = np.flatnonzero(before.reshape(-1))
    lab = before.reshape(-1)[flat]
    stamp, label, area, row = _sources(flat, lab, before.shape)
    apart = area >= 2 * settings.n_pixels
    if settings.contrast == 1:
        apart[:] = False
    if chosen is None:
        order = np.flatnonzero(apart)
    else:
        order = np.searchsorted(label, chosen)
        _, first = np.unique(order, return_index=True)
        order = order[np.sort(first)]
        order = order[apart[order]]
    number = np.full(len(label), -1, np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    parent = number[row]
    used = np.flatnonzero(parent >= 0)
    place, parent = flat[used], parent[used]
    value = stack.reshape(-1)[place]
    parts = split(place, value, parent, len(order), before.shape, settings)
    bits = np.zeros(len(label), np.int32)
    bits[order] = (
        DEBLENDED * (parts.n_parts > 1)
        + LOW_MINIMUM * parts.low_minimum
        + MANY_MARKERS * parts.many_markers
        + NOT_CONNECTED * parts.unreachable
    )
    count = np.ones(len(label), np.int32)
    count[order] = parts.n_parts
    numbers = _new_numbers(stamp, label, count, order, relabel)
    labels = np.zeros(before.shape, np.int32)
    labels.reshape(-1)[flat] = numbers[row]
    labels.reshape(-1)[parts.place] = numbers[order][parts.parent] + parts.part
    return Deblended(labels, stamp, label, bits, count, numbers)


def _sources(
    flat: np.ndarray, lab: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stamp, label and area of every source, in this order, and the source of each pixel."""
    width = int(lab.max(initial=0)) + 1
    key = lab.astype(np.int64)
    if shape[0] > 1:
        key += flat // (shape[1] * shape[2]) * width
    if shape[0] * width <= 4 * shape[0] * shape[1] * shape[2]:
        counts = np.bincount(key, minlength=1)
        present = np.flatnonzero(counts)
        area = counts[present]
        row_of = np.empty(len(counts), np.int32)
        row_of[present] = np.arange(len(present), dtype=np.int32)
        row = row_of[key]
    else:
        present, row, area = np.unique(key, return_inverse=True, return_counts=True)
    stamp, label = np.divmod(present, width)
    return stamp, label, area, row


def _new_numbers(
    stamp: np.ndarray, label: np.ndarray, count: np.ndarray, order: np.ndarray, relabel: bool
) -> np.ndarray:
    """The label after of each source, or of its first part."""
    whole = count == 1
    n_stamps = int(stamp.max(initial=0)) + 1
    numbers = label.copy()
    n_whole = np.full(n_stamps, label.max(initial=0))
    if relabel:
        n_whole = np.bincount(stamp[whole], minlength=n_stamps)
        before = np.cumsum(n_whole) - n_whole
        numbers[whole] = np.arange(1, whole.sum() + 1) - before[stamp[whole]]
    split = order[count[order] > 1]
    ends = np.cumsum(count[split])
    starts = ends - count[split]
    # Parts of earlier stamps do not count.
    n_parts = np.bincount(stamp[split], count[split], n_stamps).astype(np.int64)
    earlier = np.cumsum(n_parts) - n_parts
    numbers[split] = starts - earlier[stamp[split]] + n_whole[stamp[split]] + 1
    return numbers.astype(np.int32)
