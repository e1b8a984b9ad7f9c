"""Gaussian profiles, alone and as mixtures with free weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components.abstract import (
    AbstractComponent,
    check_flux,
    place,
    sheared_frequency,
    unsheared_distance,
)
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import as_float, positive, real, unit_disk

# Standard deviation of a round Gaussian whose half-light radius is 1.
SIGMA_PER_RADIUS = 1 / np.sqrt(2 * np.log(2))
# Half-light radii of the mixture in units of its `radius`: a factor of about two apart, where
# neighbouring Gaussians still add freedom and their weights stay well determined.
MIXTURE_SCALES = (0.4, 0.85, 1.8, 3.6)


class Gaussian(AbstractComponent):
    """An elliptical Gaussian.

    - `flux`: total flux in each band, shape `(band,)`, in the unit of the exposure.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `radius`: half-light radius, in pixels, positive.
    - `ellipticity`: reduced shear `(g1, g2)`; positive `g1` stretches along x.

    **Raises:** `ValueError` if `flux` is not one number per band.
    """

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)

    def __check_init__(self):
        check_flux(self.flux)

    def fourier(self, modes: Modes) -> Pair:
        q_squared = self.radius**2 * sheared_frequency(modes, self.ellipticity)
        return place(jnp.exp(-0.5 * SIGMA_PER_RADIUS**2 * q_squared), modes, self.x, self.y)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "*p"]:
        distance = unsheared_distance(x - self.x, y - self.y, self.ellipticity)
        return _wings(distance, self.radius)


class MultiGaussian(AbstractComponent):
    """A mixture of concentric Gaussians of one shape, with a weight of its own in every band.

    - `flux`: flux of each Gaussian in each band, shape `(part, band)`; the weights are free, so
        that colour may change with radius. Single ones may be negative.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `radius`: half-light radius, in pixels, of a Gaussian of scale 1.
    - `ellipticity`: reduced shear `(g1, g2)`; positive `g1` stretches along x.
    - `scales`: half-light radius of each Gaussian in units of `radius`, shape `(part,)`; held.

    **Raises:** `ValueError` if `flux` has not one row for each of the scales.

    ??? cite
        Hogg & Lang (2013), PASP 125, 719; Cappellari (2002), MNRAS 333, 400.
    """

    flux: Float[Array, "part band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)
    scales: Float[Array, "part"] = eqx.field(
        converter=as_float, default_factory=lambda: np.array(MIXTURE_SCALES)
    )

    def __check_init__(self):
        check_flux(self.flux, self.scales.shape[0])

    def fourier(self, modes: Modes) -> Pair:
        sigma_squared = (SIGMA_PER_RADIUS * self.radius * self.scales) ** 2
        q_squared = sheared_frequency(modes, self.ellipticity)
        profile = jnp.exp(-0.5 * sigma_squared[:, None] * q_squared)
        return place(profile, modes, self.x, self.y)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "part *p"]:
        distance = unsheared_distance(x - self.x, y - self.y, self.ellipticity)
        return jax.vmap(lambda radius: _wings(distance, radius))(self.radius * self.scales)


def _wings(distance_squared: Float[Array, "*p"], radius: Float[Array, ""]) -> Float[Array, "*p"]:
    """Surface brightness of a Gaussian of unit flux, per square pixel."""
    # A radius of zero is a star, which has no wings.
    safe_squared = jnp.maximum(radius, 1e-3) ** 2
    density = np.log(2) / (np.pi * safe_squared)
    return density * jnp.exp(-np.log(2) * distance_squared / safe_squared)
