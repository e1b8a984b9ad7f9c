"""An elliptical mixture of Gaussians whose weights are positive, as peers have it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components.abstract import AbstractComponent, place, sheared_frequency
from diffdeblend.components.gaussian import SIGMA_PER_RADIUS
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import Real, as_float, positive, real, unit_disk

# Half-light radii in units of the galaxy's, and the shares of a profile of index 1.5: what a fit
# starts from, and what its prior is centred on.
SCALES = (0.15, 0.35, 0.75, 1.4, 2.4, 4.0)
_SHARES = np.array([0.03, 0.11, 0.29, 0.36, 0.17, 0.04])
_WEIGHT = {"domain": Real(step=1.0, width=1.5, wall=20.0)}


class PositiveMixture(AbstractComponent):
    """Six concentric Gaussians of one shape; the same weights in all bands.

    - `flux`, `x`, `y`, `radius`, `ellipticity`: as in `Gaussian`.
    - `weight`: logarithms of the shares of the Gaussians, up to a constant.
    """

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)
    weight: Float[Array, "6"] = eqx.field(
        converter=as_float, default_factory=lambda: np.log(_SHARES), metadata=_WEIGHT
    )

    def fourier(self, modes: Modes) -> Pair:
        sigma_squared = (SIGMA_PER_RADIUS * self.radius * np.array(SCALES)) ** 2
        q_squared = sheared_frequency(modes, self.ellipticity)
        share = jax.nn.softmax(self.weight)
        profile = jnp.sum(
            share[:, None] * jnp.exp(-0.5 * sigma_squared[:, None] * q_squared), axis=0
        )
        return place(profile, modes, self.x, self.y)
