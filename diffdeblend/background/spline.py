"""A smooth sky for a fit: the cubic spline through levels at the middles of boxes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.background.background_map import BackgroundMap
from diffdeblend.background.mesh_repair import spline_matrix
from diffdeblend.background.models import AbstractBackground
from diffdeblend.fourier import EXACT
from diffdeblend.grid import Grid
from diffdeblend.parameters import as_float


class SplineBackground(AbstractBackground):
    """Levels of boxes of an image, joined by a cubic spline reflected at the borders.

    The map of `estimate_background`, but linear in its levels: where that is cut at the largest
    and the least level, this overshoots. So a fit solves for the levels exactly.

    - `nodes`: levels in the middles of the boxes, shape `(band, my, mx)`, in the unit of the
        exposure.
    - `box_size`: pixels of a box, `(ny, nx)`; boxes begin at the first pixel.

    **Raises:** `ValueError` for a wrong shape; when drawn, for boxes that do not cover the stamp.

    ??? cite
        Bertin & Arnouts (1996), section 7.1, have such a map; the spline is `scipy.ndimage.zoom`'s.
    """

    nodes: Float[Array, "band my mx"] = eqx.field()
    box_size: tuple[int, int] = eqx.field(static=True)

    def __init__(self, nodes: Float[Array, "band my mx"], box_size: tuple[int, int]):
        self.nodes, self.box_size = as_float(nodes), box_size

    def __check_init__(self):
        if self.nodes.ndim != 3 or min(self.nodes.shape[1:]) < 1:
            raise ValueError(f"`nodes` needs shape (band, my, mx); got {self.nodes.shape}.")
        if len(self.box_size) != 2 or min(self.box_size) < 1:
            raise ValueError(f"`box_size` must be two positive integers; got {self.box_size}.")

    @staticmethod
    def from_map(sky: BackgroundMap) -> "SplineBackground":
        """The sky that was measured, to start a fit; each stamp of a stack is a band."""
        mesh = jnp.asarray(np.asarray(sky.background_mesh))
        return SplineBackground(mesh.reshape(-1, *mesh.shape[-2:]), sky.box_size)

    @property
    def coefficients(self) -> Float[Array, "band n"]:
        return self.nodes.reshape(self.nodes.shape[0], -1)

    def with_coefficients(self, coefficients: Float[Array, "band n"]) -> "SplineBackground":
        return eqx.tree_at(lambda b: b.nodes, self, coefficients.reshape(self.nodes.shape))

    def basis(self, grid: Grid) -> Float[Array, "n y x"]:
        matrix_y, matrix_x = self._matrices(grid)
        product = matrix_y.T[:, None, :, None] * matrix_x.T[None, :, None, :]
        return product.reshape(-1, grid.ny, grid.nx)

    def __call__(self, grid: Grid) -> Float[Array, "band y x"]:
        """The sky on the pixels of a stamp, in the unit of the exposure."""
        matrix_y, matrix_x = self._matrices(grid)
        # Two small products: the basis would be as large as all its images.
        along = jnp.matmul(self.nodes, matrix_x.T, precision=EXACT)
        return jnp.matmul(matrix_y, along, precision=EXACT)

    def _matrices(self, grid: Grid) -> tuple[Array, Array]:
        found = []
        for n, box, length in zip(
            self.nodes.shape[1:], self.box_size, (grid.ny, grid.nx), strict=True
        ):
            if length > n * box:
                raise ValueError(
                    f"`nodes` of {self.nodes.shape[1:]} boxes of {self.box_size} pixels do not "
                    f"cover a stamp of {(grid.ny, grid.nx)} pixels."
                )
            found.append(jnp.asarray(spline_matrix(n, box, length), self.nodes.dtype))
        return found[0], found[1]
