"""A mask grown by a window."""

from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Bool


def footprint_of(size: Any = None, footprint: Any = None) -> Bool[np.ndarray, "y x"]:
    """A window from its size (one number, or height and width), or as it is given.

    **Raises:** `ValueError` if `size` is not one or two positive integers, or `footprint` not 2-D.
    """
    if footprint is not None:
        window = np.asarray(footprint, dtype=bool)
        if window.ndim != 2 or window.size == 0:
            raise ValueError(f"`footprint` needs shape (y, x); got {window.shape}.")
        return window
    sides = (size, size) if isinstance(size, Integral) else tuple(np.ravel(size))
    if len(sides) != 2 or any(not isinstance(n, Integral) or n < 1 for n in sides):
        raise ValueError(f"`size` must be one or two positive integers; got {size!r}.")
    return np.ones(tuple(int(n) for n in sides), dtype=bool)


def dilate(
    mask: Bool[np.ndarray, "y x"], footprint: Bool[np.ndarray, "y x"]
) -> Bool[np.ndarray, "y x"]:
    """True where the window, moved to a True pixel, reaches. Pixels outside are False.

    A window of even size reaches farther to smaller x and y if it is all True, else farther to
    larger ones, as in photutils.
    """
    full = bool(footprint.all())
    # Each run of a row of the window is a few shifts: 16 million pixels and a disc of 11 take
    # a fifth of a second, a transform ten times that.
    out = np.zeros_like(mask)
    rows = [_runs(row) for row in footprint]
    if full:
        wide = _widened(mask, 0, footprint.shape[1], footprint.shape[1] // 2)
        return _widened(wide.T, 0, footprint.shape[0], footprint.shape[0] // 2).T
    middle_y, middle_x = (n // 2 if n % 2 else n // 2 - 1 for n in footprint.shape)
    for y, runs in enumerate(rows):
        for start, stop in runs:
            wide = _widened(mask, start, stop, middle_x)
            _or_shifted(out, wide, y - middle_y)
    return out


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _widened(mask: np.ndarray, start: int, stop: int, middle: int) -> np.ndarray:
    """Grown along x by offsets from start - middle up to stop - middle, that excluded."""
    # Shifts that double reach a run of n pixels in log2(n) steps; the pad takes what runs over.
    pad = stop - start + abs(start - middle) + middle
    wide = np.zeros((mask.shape[0], mask.shape[1] + 2 * pad), dtype=bool)
    first = pad + start - middle
    wide[:, first : first + mask.shape[1]] = mask
    reach, length = 1, stop - start
    while reach < length:
        step = min(reach, length - reach)
        grown = wide.copy()
        grown[:, step:] |= wide[:, :-step]
        wide, reach = grown, reach + step
    return wide[:, pad : pad + mask.shape[1]]


def _or_shifted(out: np.ndarray, rows: np.ndarray, shift: int) -> None:
    n = len(out)
    if abs(shift) >= n:
        return
    out[max(shift, 0) : n + min(shift, 0)] |= rows[max(-shift, 0) : n - max(shift, 0)]
