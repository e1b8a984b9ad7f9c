r"""The family of profiles that fall off as $\exp[-b_n (r / r_e)^{1/n}]$."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.components.abstract import (
    AbstractComponent,
    bulge_shear,
    check_flux,
    place,
    sheared_frequency,
    unsheared_distance,
)
from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import as_float, interval, positive, real, unit_disk
from diffdeblend.radial import radial_transform, surface_brightness


class Sersic(AbstractComponent):
    r"""A galaxy whose light falls off as $\exp[-b_n (r/r_e)^{1/n}]$.

    - `flux`: total flux in each band, shape `(band,)`, in the unit of the exposure.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `radius`: half-light radius (of the round profile before shear), in pixels, positive.
    - `index`: $n$, between 0.5 and 6.2.
    - `ellipticity`: reduced shear `(g1, g2)`; positive `g1` stretches along x.

    **Raises:** `ValueError` if `flux` is not one number per band.

    ??? cite
        Profile: Graham & Driver (2005), PASA 22, 118, eqs. 1 and 4.
    """

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    index: Float[Array, ""] = eqx.field(converter=as_float, metadata=interval(0.5, 6.2))
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)

    def __check_init__(self):
        check_flux(self.flux)

    def fourier(self, modes: Modes) -> Pair:
        # Finite at radius 0, where a galaxy becomes a star: no special case.
        q_squared = self.radius**2 * sheared_frequency(modes, self.ellipticity)
        return place(radial_transform(q_squared, self.index), modes, self.x, self.y)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "*p"]:
        distance = unsheared_distance(x - self.x, y - self.y, self.ellipticity)
        return law_wings(distance, self.radius, self.index)


class Exponential(AbstractComponent):
    """A disc: a Sersic profile of index 1.

    Fields as those of `Sersic`, without `index`.

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
        return _fixed_index(self, 1.0).fourier(modes)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return _fixed_index(self, 1.0).wings(x, y)


class DeVaucouleurs(AbstractComponent):
    """A spheroid: a Sersic profile of index 4.

    Fields as those of `Sersic`, without `index`.

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
        return _fixed_index(self, 4.0).fourier(modes)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return _fixed_index(self, 4.0).wings(x, y)


class BulgeDisc(AbstractComponent):
    """A disc (index 1) and a bulge (index 4) with one centre and one axis.

    - `flux`: flux of the disc and of the bulge in each band, shape `(2, band)`.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `radius`: half-light radius of the disc, in pixels, positive.
    - `radius_ratio`: half-light radius of the bulge in units of the disc's, positive.
    - `ellipticity`: reduced shear `(g1, g2)` of the disc; positive `g1` stretches along x.
    - `shear_ratio`: shear of the bulge in units of the disc's, as in `bulge_shear`; 0 is round.

    **Raises:** `ValueError` if `flux` has not two rows of one number per band.
    """

    flux: Float[Array, "2 band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    radius: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    radius_ratio: Float[Array, ""] = eqx.field(converter=as_float, metadata=positive)
    ellipticity: Float[Array, "2"] = eqx.field(converter=as_float, metadata=unit_disk)
    shear_ratio: Float[Array, ""] = eqx.field(
        default=1.0, converter=as_float, metadata=interval(0.0, 1.4)
    )

    def __check_init__(self):
        check_flux(self.flux, 2)

    def fourier(self, modes: Modes) -> Pair:
        def part(radius: Array, index: Array, shear: Array) -> Array:
            return radial_transform(radius**2 * sheared_frequency(modes, shear), index)

        return place(jax.vmap(part)(*self._parts()), modes, self.x, self.y)

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "2 *p"]:
        def part(radius: Array, index: Array, shear: Array) -> Array:
            distance = unsheared_distance(x - self.x, y - self.y, shear)
            return law_wings(distance, radius, index)

        return jax.vmap(part)(*self._parts())

    def _parts(self) -> tuple[Array, Array, Array]:
        """Radius, index and shear of disc and bulge."""
        radius = jnp.stack([self.radius, self.radius * self.radius_ratio])
        bulge = bulge_shear(self.ellipticity, self.shear_ratio)
        shear = jnp.stack([self.ellipticity, bulge])
        return radius, jnp.array([1.0, 4.0], dtype=radius.dtype), shear


def law_wings(
    distance_squared: Float[Array, "*p"], radius: Float[Array, ""], index: Float[Array, ""]
) -> Float[Array, "*p"]:
    """Surface brightness of a Sersic profile of unit flux, per square pixel."""
    # A radius of zero is a star, which has no wings.
    safe = jnp.maximum(radius, 1e-3)
    return surface_brightness(distance_squared / safe**2, index) / safe**2


def _fixed_index(component: Exponential | DeVaucouleurs, index: float) -> Sersic:
    return Sersic(
        component.flux,
        component.x,
        component.y,
        component.radius,
        jnp.asarray(index, dtype=component.radius.dtype),
        component.ellipticity,
    )
