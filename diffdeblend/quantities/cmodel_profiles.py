r"""The round profiles of galaxy models: their transforms and brightness, with slopes.

All have unit flux and unit half-light radius. Ellipses enter through $q^2 = k^T Q k$ and
$\rho^2 = x^T Q^{-1} x$ only, so that a profile is a function of one number.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.radial import value_and_slopes

Sloped = tuple[Float[Array, "*n"], Float[Array, "*n"]]

# Half of an exponential disc's light lies within so many scale lengths.
_B_EXPONENTIAL = 1.6783469900166605
_B_DE_VAUCOULEURS = 7.669249442500805


@dataclass(frozen=True)
class Exponential:
    """A disc, to infinity."""

    def transform(self, q_squared: Float[Array, "*n"]) -> Sloped:
        """Hankel transform at squared frequency, and its slope."""
        inverse = 1 / (1 + q_squared * (1 / _B_EXPONENTIAL**2))
        value = inverse * jnp.sqrt(inverse)
        return value, (-1.5 / _B_EXPONENTIAL**2) * value * inverse

    def brightness(self, r_squared: Float[Array, "*n"]) -> Sloped:
        """Light per area at squared radius, not 0, and its slope."""
        return _sersic_brightness(r_squared, 1, _B_EXPONENTIAL)


@dataclass(frozen=True)
class DeVaucouleurs:
    """A spheroid, to infinity: 5.7 % of its light lies beyond eight half-light radii."""

    def transform(self, q_squared: Float[Array, "*n"]) -> Sloped:
        """Hankel transform at squared frequency, and its slope."""
        value, slope, _ = value_and_slopes(q_squared, jnp.asarray(4, q_squared.dtype))
        return value, slope

    def brightness(self, r_squared: Float[Array, "*n"]) -> Sloped:
        """Light per area at squared radius, not 0, and its slope."""
        return _sersic_brightness(r_squared, 4, _B_DE_VAUCOULEURS)


@dataclass(frozen=True)
class Mixture:
    """A sum of Gaussians.

    - `weights`: the share of each in the light; `variances`: along one axis.
    """

    weights: tuple[float, ...]
    variances: tuple[float, ...]

    def transform(self, q_squared: Float[Array, "*n"]) -> Sloped:
        """Hankel transform at squared frequency, and its slope."""
        value, slope = jnp.zeros_like(q_squared), jnp.zeros_like(q_squared)
        for weight, variance in zip(self.weights, self.variances, strict=True):
            term = weight * jnp.exp((-0.5 * variance) * q_squared)
            value, slope = value + term, slope - (0.5 * variance) * term
        return value, slope

    def brightness(self, r_squared: Float[Array, "*n"]) -> Sloped:
        """Light per area at squared radius, and its slope."""
        value, slope = jnp.zeros_like(r_squared), jnp.zeros_like(r_squared)
        for weight, variance in zip(self.weights, self.variances, strict=True):
            term = weight / (2 * math.pi * variance) * jnp.exp((-0.5 / variance) * r_squared)
            value, slope = value + term, slope - (0.5 / variance) * term
        return value, slope


Profile = Exponential | DeVaucouleurs | Mixture


def _sersic_brightness(r_squared: Float[Array, "*n"], index: int, b: float) -> Sloped:
    peak = b ** (2 * index) / (2 * math.pi * index * math.gamma(2 * index))
    # Not at the centre, where the slope is infinite: wings alone are asked for.
    safe = jnp.maximum(r_squared, 1e-3)
    root = jnp.exp((0.5 / index) * jnp.log(safe))
    value = peak * jnp.exp(-b * root)
    return value, (-0.5 * b / index) * value * root / safe
