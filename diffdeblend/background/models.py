"""Models of the sky that are linear in their coefficients, so that a fit solves them exactly."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT
from diffdeblend.grid import Grid
from diffdeblend.parameters import as_float


class AbstractBackground(eqx.Module):
    """A sky that is a sum of coefficients times fixed images.

    To add one: subclass, declare `coefficients`, write `basis`.
    """

    coefficients: eqx.AbstractVar[Float[Array, "band n"]]

    @abstractmethod
    def basis(self, grid: Grid) -> Float[Array, "n y x"]:
        """The images that the coefficients multiply, the same in every band."""

    def with_coefficients(self, coefficients: Float[Array, "band n"]) -> "AbstractBackground":
        """The same model with other coefficients."""
        return eqx.tree_at(lambda b: b.coefficients, self, coefficients)

    def __call__(self, grid: Grid) -> Float[Array, "band y x"]:
        """The sky on the pixels of a stamp, in the unit of the exposure."""
        return jnp.einsum("bn,nyx->byx", self.coefficients, self.basis(grid), precision=EXACT)


class ConstantBackground(AbstractBackground):
    """One level a band.

    - `coefficients`: the level, shape `(band, 1)`, in the unit of the exposure.
    """

    coefficients: Float[Array, "band 1"] = eqx.field(converter=as_float)

    def __init__(self, level: Float[Array, "band"]):
        """`level`: one number per band. **Raises:** `ValueError` for another shape."""
        level = as_float(level)
        if level.ndim != 1:
            raise ValueError(f"`level` needs one number per band; got shape {level.shape}.")
        self.coefficients = level[:, None]

    def basis(self, grid: Grid) -> Float[Array, "1 y x"]:
        return jnp.ones((1, grid.ny, grid.nx), dtype=self.coefficients.dtype)


class PolynomialBackground(AbstractBackground):
    """A polynomial in x and y of a total degree.

    - `coefficients`: shape `(band, n)` with n = (degree + 1)(degree + 2) / 2, of products of
        Legendre polynomials on the stamp mapped to -1 ... 1: P0(y) P0(x), P0(y) P1(x), ...

    **Raises:** `ValueError` if their number fits no degree.
    """

    coefficients: Float[Array, "band n"] = eqx.field(converter=as_float)

    def __check_init__(self):
        n = self.coefficients.shape[-1]
        if self.coefficients.ndim != 2 or _degree(n) is None:
            raise ValueError(
                "`coefficients` needs shape (band, n) with n = 1, 3, 6, 10, ...; "
                f"got {self.coefficients.shape}."
            )

    def basis(self, grid: Grid) -> Float[Array, "n y x"]:
        degree = _degree(self.coefficients.shape[1])
        assert degree is not None
        x = _legendre(2 * grid.x / max(grid.nx - 1, 1) - 1, degree)
        y = _legendre(2 * grid.y / max(grid.ny - 1, 1) - 1, degree)
        terms = [
            y[j][:, None] * x[i][None, :] for j in range(degree + 1) for i in range(degree + 1 - j)
        ]
        return jnp.stack(terms).astype(self.coefficients.dtype)


class MeshBackground(AbstractBackground):
    """Levels at the nodes of a regular mesh, joined by a bilinear surface.

    - `nodes`: levels, shape `(band, my, mx)`; the outermost nodes sit on the stamp's border pixels.

    **Raises:** `ValueError` for another number of axes, or fewer than two nodes an axis.
    """

    nodes: Float[Array, "band my mx"] = eqx.field(converter=as_float)

    def __check_init__(self):
        if self.nodes.ndim != 3 or min(self.nodes.shape[1:]) < 2:
            raise ValueError(
                "`nodes` needs shape (band, my, mx) with at least 2 x 2 nodes; "
                f"got {self.nodes.shape}."
            )

    @property
    def coefficients(self) -> Float[Array, "band n"]:
        return self.nodes.reshape(self.nodes.shape[0], -1)

    def with_coefficients(self, coefficients: Float[Array, "band n"]) -> "MeshBackground":
        return eqx.tree_at(lambda b: b.nodes, self, coefficients.reshape(self.nodes.shape))

    def basis(self, grid: Grid) -> Float[Array, "n y x"]:
        my, mx = self.nodes.shape[1:]
        y = _hats(grid.y, grid.ny, my)
        x = _hats(grid.x, grid.nx, mx)
        product = y[:, None, :, None] * x[None, :, None, :]
        return product.reshape(my * mx, grid.ny, grid.nx).astype(self.nodes.dtype)


def _degree(n: int) -> int | None:
    degree = 0
    while (degree + 1) * (degree + 2) // 2 < n:
        degree += 1
    return degree if (degree + 1) * (degree + 2) // 2 == n else None


def _legendre(t: Array, degree: int) -> list[Array]:
    values = [jnp.ones_like(t), t]
    for n in range(1, degree):
        values.append(((2 * n + 1) * t * values[n] - n * values[n - 1]) / (n + 1))
    return values[: degree + 1]


def _hats(position: Array, length: int, nodes: int) -> Array:
    at = position / max(length - 1, 1) * (nodes - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[None, :] - jnp.arange(nodes)[:, None]))
