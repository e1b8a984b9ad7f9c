"""Clipped levels of the cells of a grid that covers an image evenly. Host side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.background.clipped import clip_rows_from_quartiles
from diffdeblend.cores import in_threads


@dataclass(frozen=True, eq=False)
class CellLevels:
    """Level of each cell of a grid.

    - `level`, `std`: clipped mean and scatter, in the unit of the image, `(my, mx)`; NaN where a
        cell has no pixel to use.
    - `n`: pixels that clipping left; `n_used`: before clipping.
    - `shift_y`, `shift_x`: mean place of the pixels in use, from the middle of the cell, in pixels:
        where a mask is on one side of it, the level is that of the other side.
    - `edges_y`, `edges_x`: first row of each cell and the row after the last, likewise columns.
    """

    level: Float[np.ndarray, "my mx"]
    std: Float[np.ndarray, "my mx"]
    n: Int[np.ndarray, "my mx"]
    n_used: Int[np.ndarray, "my mx"]
    shift_y: Float[np.ndarray, "my mx"]
    shift_x: Float[np.ndarray, "my mx"]
    edges_y: Int[np.ndarray, "edge"]
    edges_x: Int[np.ndarray, "edge"]

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of the image along y and x."""
        return int(self.edges_y[-1]), int(self.edges_x[-1])

    @property
    def middles(self) -> tuple[Float[np.ndarray, "my"], Float[np.ndarray, "mx"]]:
        """y and x of the middles of the cells, in pixels."""
        y, x = (0.5 * (edges[:-1] + edges[1:] - 1) for edges in (self.edges_y, self.edges_x))
        return y, x

    @property
    def area(self) -> Int[np.ndarray, "my mx"]:
        """Pixels of each cell, used or not."""
        return np.diff(self.edges_y)[:, None] * np.diff(self.edges_x)


def cell_edges(length: int, bin_size: int) -> Int[np.ndarray, "edge"]:
    """Borders of the fewest even cells of at most `bin_size` pixels."""
    n = -(-length // bin_size)
    return np.arange(n + 1) * length // n


def cell_levels(
    image: Float[np.ndarray, "y x"],
    hidden: Bool[np.ndarray, "y x"] | None,
    bin_size: int,
) -> CellLevels:
    """Clipped mean of each cell; see `clipped_statistics`.

    - `hidden`: true where a pixel is not used, as those that are not finite are not.
    - `bin_size`: largest height and width of a cell, in pixels. Cells are even: none is left over.
    """
    edges_y, edges_x = cell_edges(image.shape[0], bin_size), cell_edges(image.shape[1], bin_size)
    shape = len(edges_y) - 1, len(edges_x) - 1
    level, std = np.empty(shape), np.empty(shape)
    n, n_used = np.empty(shape, np.int64), np.empty(shape, np.int64)
    shift_y, shift_x = np.zeros(shape), np.zeros(shape)
    width = int(np.diff(edges_x).max())

    def measure(row: int) -> None:
        top, bottom = edges_y[row], edges_y[row + 1]
        rows = np.full((shape[1], bottom - top, width), np.nan, image.dtype)
        for column in range(shape[1]):
            left, right = edges_x[column], edges_x[column + 1]
            rows[column, :, : right - left] = image[top:bottom, left:right]
            if hidden is not None:
                rows[column, :, : right - left][hidden[top:bottom, left:right]] = np.nan
        flat = rows.reshape(shape[1], -1)
        level[row], std[row], n[row] = clip_rows_from_quartiles(flat)
        good = np.isfinite(rows)
        n_used[row] = np.count_nonzero(good, axis=(1, 2))
        total = np.maximum(n_used[row], 1)
        across, down = np.count_nonzero(good, axis=1), np.count_nonzero(good, axis=2)
        shift_x[row] = across @ np.arange(width) / total - (np.diff(edges_x) - 1) / 2
        shift_y[row] = down @ np.arange(bottom - top) / total - (bottom - top - 1) / 2

    in_threads(measure, list(range(shape[0])))
    return CellLevels(level, std, n, n_used, shift_y, shift_x, edges_y, edges_x)
