"""Connected pixels on the host: runs of rows first, then a graph of the runs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


class Components(NamedTuple):
    """Labels of a stack of masks, and what is known of each label; labels in raster order.

    - `labels`: shape `(stamp, y, x)`, 0 for background; each stamp counts from 1.
    - `stamp`: that a label is in, shape `(label,)`; `areas`: its pixels.
    - `boxes`: its first row, the row after the last, and likewise columns, shape `(label, 4)`.
    """

    labels: Int[np.ndarray, "stamp y x"]
    stamp: Int[np.ndarray, "label"]
    areas: Int[np.ndarray, "label"]
    boxes: Int[np.ndarray, "label 4"]


def label_stack(
    mask: Bool[np.ndarray, "stamp y x"], n_pixels: int = 1, connectivity: int = 8
) -> Components:
    """Connected pixels of each stamp, in one go for the whole stack.

    Labels count up in the order of their first pixels, row by row. Those of less than `n_pixels`
    pixels are left out. On 16 million pixels several times faster than labelling pixels.

    - `connectivity`: 4 joins pixels that share an edge, 8 also those that share a corner.
    """
    n_stamps, ny, nx = mask.shape
    row, start, stop = row_runs(mask.reshape(n_stamps * ny, nx))
    n_runs = len(row)
    # Columns along one line, a gap of two between rows: runs of other rows are never in reach.
    line, slack = nx + 2, connectivity == 8
    below = (row + 1) * line
    here = row * line
    first = np.searchsorted(here + stop, below + start - slack, side="right")
    last = np.searchsorted(here + start, below + stop + slack, side="left")
    last[row % max(ny, 1) == ny - 1] = 0
    count = np.maximum(last - first, 0)
    ends = np.cumsum(count)
    indices = np.arange(ends[-1] if n_runs else 0) + np.repeat(first - (ends - count), count)
    joined = csr_array(
        (np.ones(len(indices), np.int8), indices, np.concatenate([[0], ends])),
        shape=(n_runs, n_runs),
    )
    # Nodes are visited in order: components count up with their first runs, in raster order.
    n, component = connected_components(joined, directed=True, connection="weak")
    areas = np.bincount(component, weights=stop - start, minlength=n).astype(np.int64)
    large = areas >= n_pixels
    seed = np.zeros(n, dtype=np.int64)
    seed[component[::-1]] = np.arange(n_runs)[::-1]
    stamp = (row[seed] // max(ny, 1))[large]
    number = np.zeros(n, np.int32)
    before = np.searchsorted(stamp, np.arange(n_stamps))
    number[large] = np.arange(1, len(stamp) + 1) - before[stamp]
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(number[component], stop - start)
    boxes = np.empty((n, 4), np.int32)
    boxes[:, 0] = row[seed] % max(ny, 1)
    boxes[:, 1], boxes[:, 3] = 0, 0
    boxes[:, 2] = nx
    np.maximum.at(boxes[:, 1], component, (row % max(ny, 1) + 1).astype(np.int32))
    np.minimum.at(boxes[:, 2], component, start.astype(np.int32))
    np.maximum.at(boxes[:, 3], component, stop.astype(np.int32))
    return Components(labels, stamp, areas[large], boxes[large])


def row_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and the column after the last of all runs, in raster order."""
    # A row of False cells between rows ends each run in its own row.
    edge = np.zeros((mask.shape[0], mask.shape[1] + 1), dtype=bool)
    if mask.size:
        edge[:, 0] = mask[:, 0]
        np.not_equal(mask[:, 1:], mask[:, :-1], out=edge[:, 1:-1])
        edge[:, -1] = mask[:, -1]
    places = np.flatnonzero(edge)
    row = places[::2] // edge.shape[1]
    return row, places[::2] - row * edge.shape[1], places[1::2] - row * edge.shape[1]
