"""A star, or anything too small to tell from one."""

import equinox as eqx
from jaxtyping import Array, Float

from diffdeblend.components.abstract import AbstractComponent, check_flux
from diffdeblend.fourier import Pair, shift
from diffdeblend.grid import Modes
from diffdeblend.parameters import as_float, real


class PointSource(AbstractComponent):
    """A point: it looks like the PSF.

    - `flux`: total flux in each band, shape `(band,)`, in the unit of the exposure.
    - `x`, `y`: position, in pixels; the first pixel is centred on `(0, 0)`.

    **Raises:** `ValueError` if `flux` is not one number per band.
    """

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)

    def __check_init__(self):
        check_flux(self.flux)

    def fourier(self, modes: Modes) -> Pair:
        return shift(modes, self.x, self.y)
