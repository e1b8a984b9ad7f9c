"""The sky as a coarse mesh, and the full maps that it stands for."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.background.mesh_repair import spline_matrix
from diffdeblend.cores import in_threads

# Pixels that are joined at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, repr=False)
class BackgroundMap:
    """Level and scatter of the sky, box by box, and at every pixel.

    Of a stack of stamps each array has a first axis more, `(stamp, my, mx)` and `(stamp, y, x)`.

    - `background_mesh`, `background_rms_mesh`: level and scatter of each box, after filling and
        filtering, in the unit of the image; shape `(my, mx)`.
    - `n_pixels_mesh`: pixels of each box that clipping left.
    - `excluded`: boxes that had too few pixels left, and take their values from others.
    - `crowded`: those among them that lost so many by clipping, as where sources fill a box.
    - `box_size`: pixels of a box, `(ny, nx)`; at the top and right boxes may be smaller.
    - `shape`: of the full maps.
    - `coverage_mask`, `fill_value`: the maps are `fill_value` where the mask is true.
    - `unit`: None, or the unit of the image; all levels carry it.
    """

    background_mesh: Any
    background_rms_mesh: Any
    n_pixels_mesh: Int[np.ndarray, "*stack my mx"]
    excluded: Bool[np.ndarray, "*stack my mx"]
    crowded: Bool[np.ndarray, "*stack my mx"]
    box_size: tuple[int, int]
    shape: tuple[int, ...]
    coverage_mask: Bool[np.ndarray, "*stack y x"] | None = None
    fill_value: float = 0.0
    unit: Any = None

    @property
    def n_excluded(self) -> int:
        """How many boxes take their values from others."""
        return int(np.count_nonzero(self.excluded))

    @property
    def background(self) -> Any:
        """Level at every pixel. Made anew at each access: keep it if you need it twice."""
        return self._full(self.background_mesh)

    @property
    def background_rms(self) -> Any:
        """Scatter at every pixel. Made anew at each access."""
        return self._full(self.background_rms_mesh)

    @property
    def background_median(self) -> Any:
        """Median of the mesh: one number, or one for each stamp."""
        return _median(self.background_mesh)

    @property
    def background_rms_median(self) -> Any:
        """Median of the mesh of the scatter."""
        return _median(self.background_rms_mesh)

    @property
    def n_pixels_map(self) -> Int[np.ndarray, "*stack y x"]:
        """`n_pixels_mesh` at every pixel."""
        whole = self.n_pixels_mesh.repeat(self.box_size[0], axis=-2)
        whole = whole.repeat(self.box_size[1], axis=-1)
        return whole[..., : self.shape[-2], : self.shape[-1]]

    @property
    def box_centres(self) -> tuple[Float[np.ndarray, "box"], Float[np.ndarray, "box"]]:
        """x and y, in pixels, of the middles of the boxes of one image that were not excluded."""
        y, x = np.nonzero(~self.excluded.reshape(-1, *self.excluded.shape[-2:])[0])
        (ny, nx) = self.box_size
        return x * nx + (nx - 1) / 2, y * ny + (ny - 1) / 2

    def subtract_from(self, image: np.ndarray) -> np.ndarray:
        """The image without the sky, in rows: no full map lies in memory.

        What has no coverage loses `fill_value`.

        **Raises:** `ValueError` for another shape.
        """
        image = np.asarray(image)
        if image.shape != self.shape:
            raise ValueError(f"`image` needs shape {self.shape}; got {image.shape}.")
        dtype = image.dtype if image.dtype.kind == "f" else np.dtype(np.float32)
        # First what the sky is, then the difference in its place.
        out = self._full(np.asarray(self.background_mesh), dtype)
        return np.subtract(image, out, out=out)

    def __repr__(self) -> str:
        lost = f", {self.n_excluded} excluded" if self.n_excluded else ""
        return (
            f"<BackgroundMap shape={self.shape}, boxes of {self.box_size}: "
            f"median {np.median(self.background_median):.6g}, "
            f"rms {np.median(self.background_rms_median):.6g}{lost}>"
        )

    @cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Splines along y and x, `(pixel, node)`, in the precision of the mesh."""
        mesh = np.asarray(self.background_mesh)
        my, mx = mesh.shape[-2:]
        matrix_y = spline_matrix(my, self.box_size[0], self.shape[-2]).astype(mesh.dtype)
        matrix_x = spline_matrix(mx, self.box_size[1], self.shape[-1]).astype(mesh.dtype)
        return matrix_y, matrix_x

    def _full(self, mesh: Any, dtype: Any = None) -> Any:
        mesh = np.asarray(mesh)
        out = np.empty(self.shape, dtype or mesh.dtype)
        matrix_y, matrix_x = self.matrices
        # About the middle, so that single precision keeps the digits of small differences. Not in
        # double: scipy's splines of six nodes sum to one within 5e-8, and the map is to be scipy's.
        middle = _median(mesh)[..., None, None] * (mesh.dtype.itemsize < 8)
        low = mesh.min(axis=(-2, -1), keepdims=True)
        high = mesh.max(axis=(-2, -1), keepdims=True)
        along = np.matmul(mesh - middle, matrix_x.T)

        def make(part: tuple[slice, ...]) -> None:
            stamps, rows = part[:-1], part[-1]
            block = out[(*stamps, rows)]
            np.matmul(matrix_y[rows], along[stamps], out=block, casting="same_kind")
            block += middle[stamps]
            # A spline overshoots.
            np.clip(block, low[stamps], high[stamps], out=block)

        in_threads(make, list(self._parts()))
        if self.coverage_mask is not None:
            out[self.coverage_mask] = self.fill_value
        return out if self.unit is None else out << self.unit

    def _parts(self) -> Iterator[tuple[slice, ...]]:
        """Rows of one image, or stamps of a stack, of some pixels each."""
        if len(self.shape) == 2:
            step = max(1, _BLOCK // self.shape[1])
            yield from ((slice(y, y + step),) for y in range(0, self.shape[0], step))
        else:
            step = max(1, _BLOCK // (self.shape[1] * self.shape[2]))
            for first in range(0, self.shape[0], step):
                yield slice(first, first + step), slice(None)


def _median(mesh: Any) -> Any:
    """Of each mesh; numpy's median over two axes fails where there is no stamp."""
    return np.median(mesh.reshape(*mesh.shape[:-2], mesh.shape[-2] * mesh.shape[-1]), axis=-1)
