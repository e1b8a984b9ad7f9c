"""What every PSF must do, and how its wings are kept from wrapping around."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fourier import Pair, sampled_modes, to_image
from diffdeblend.grid import Grid, Modes, Quality


class AbstractPSF(eqx.Module):
    """How a point is seen, in every band: optics, atmosphere and the pixel's own response.

    To add a PSF: subclass, declare its parameters, write `fourier`.
    """

    @property
    @abstractmethod
    def n_bands(self) -> int:
        """Number of bands."""

    @abstractmethod
    def fourier(self, modes: Modes) -> Pair:
        """Transfer function: real and imaginary part, each `(band, k)`, 1 at k = 0.

        The centre is at the origin.
        """

    def ends_within(self, grid: Grid) -> bool:
        """Whether all light is closer than half a period, so that nothing can wrap around."""
        return False

    def at(self, x: Float[Array, ""], y: Float[Array, ""]) -> "AbstractPSF":
        """The PSF at a place of the image, in pixels; the same everywhere unless overridden."""
        return self


def pixel_response(modes: Modes) -> Float[Array, "k"]:
    """Transfer function of a square pixel of unit side."""
    return jnp.sinc(modes.ky / (2 * jnp.pi)) * jnp.sinc(modes.kx / (2 * jnp.pi))


def transfer(psf: AbstractPSF, grid: Grid, quality: Quality) -> Pair:
    """Transfer function on the modes of a grid, `(band, k)`.

    With `quality.corrections` the PSF is cut in real space to the box of one period around its
    centre, so that its wings do not come back on the other side of the stamp.
    """
    if not quality.corrections or psf.ends_within(grid):
        return psf.fourier(grid.modes)
    # Four periods are wide enough that what wraps around there is below 1e-6 of the light.
    steps_y = _samples(grid.period_y, grid.modes_y)
    steps_x = _samples(grid.period_x, grid.modes_x)
    y = (jnp.arange(steps_y) - steps_y // 2) * (grid.period_y / steps_y)
    x = (jnp.arange(steps_x) - steps_x // 2) * (grid.period_x / steps_x)
    wide = Grid(
        steps_y, steps_x, 4 * grid.period_y, 4 * grid.period_x, 4 * grid.modes_y, 4 * grid.modes_x
    )
    image = to_image(psf.fourier(wide.modes), wide, x=x, y=y)
    area = (grid.period_y / steps_y) * (grid.period_x / steps_x)
    return sampled_modes(image * area, grid.modes, x, y)


def _samples(period: int, modes: int) -> int:
    """An odd number of samples a period that carries the modes without aliasing."""
    return max(period, 2 * modes + 1)
