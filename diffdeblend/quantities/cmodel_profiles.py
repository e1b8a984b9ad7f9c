r"""The round profiles of galaxy models: their transforms and brightness, with slopes.

All have unit flux and unit half-light radius. Ellipses enter through $q^2 = k^T Q k$ and
$\rho^2 = x^T Q^{-1} x$ only, so that a profile is a function of one number.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Sloped = tuple[Float[Array, "*n"], Float[Array, "*n"]]

# Half of an exponential disc's light lies within so many scale lengths.
_B_EXPONENTIAL = 1.6783469900166605
_B_DE_VAUCOULEURS = 7.669249442500805
# `radial.coefficients(4)`: as numbers of the program, they are not made anew in every mode.
_KAPPA, _TAPER = 327.1980161314511, 0.0030866151133405366
_SERIES = (
    *(1.7545542348371992, -1.3460927808734455, 1.3521022613487166, -1.3532114041210077),
    *(0.8909529048178382, -0.4182807242333752, 0.1772556594351302, -0.09196719988025111),
    *(0.05262812753228584, -0.023944583584522672, 0.006739109799104795, -0.00045254517170973166),
    *(-0.0003275490219210681, -9.938195487578082e-05, 0.00027547389735020243),
    *(-0.00019719088488789714, 8.657741443358751e-05, -2.5398395345335834e-05),
    *(4.664079156865943e-06, -2.550398733240506e-07),
)
# In powers of 2 u - 1, as Horner's rule is one loop where Clenshaw's becomes several, five times
# slower; float32 loses 1.5e-6 by it. And the slope of u times it by u.
_POWERS = np.polynomial.chebyshev.cheb2poly(_SERIES)
_BY_U = np.polynomial.polynomial.polyder(np.polynomial.polynomial.polymul(_POWERS, [0.5, 0.5])) * 2


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
        inverse = 1 / (1 + _KAPPA * q_squared)
        u = jnp.sqrt(jnp.sqrt(jnp.sqrt(inverse)))
        t, taper = 2 * u - 1, 1 + _TAPER * q_squared
        # Each ends in a division: XLA takes one as too dear to repeat wherever the value is read.
        value = u * _polynomial(t, _POWERS) / taper
        slope = (0.125 * _KAPPA) * inverse * u * _polynomial(t, _BY_U) + _TAPER * value
        return value, -slope / taper

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
EXPONENTIAL, DE_VAUCOULEURS = Exponential(), DeVaucouleurs()

# The same that end, as in SDSS: between 3 and 4, and between 7 and 8 half-light radii (those of the
# profiles without end). The flux is that within the end: 0.991 and 0.943 of the whole. The light
# within any circle is right to 0.7 %. Fitted anew by `experiments/measurement/cmodel_mixtures.py`
# to the profiles of Hogg & Lang (2013), PASP 125, 719.
LUX = Mixture(
    (0.000244492, 0.00260306, 0.0174666, 0.092818, 0.357934, 0.528934),
    (0.00148571, 0.00920809, 0.0377574, 0.131888, 0.437401, 1.44523),
)
LUV = Mixture(
    (0.00281667, 0.0134521, 0.0357506, 0.0756017, 0.136123, 0.208416, 0.263841, 0.263999),
    (0.000272742, 0.00122378, 0.004993, 0.0195358, 0.0760045, 0.305521, 1.3519, 8.10628),
)


def _polynomial(t: Float[Array, "*n"], powers: np.ndarray) -> Float[Array, "*n"]:
    total = jnp.full_like(t, powers[-1])
    for c in powers[-2::-1]:
        total = total * t + float(c)
    return total


def _sersic_brightness(r_squared: Float[Array, "*n"], index: int, b: float) -> Sloped:
    peak = b ** (2 * index) / (2 * math.pi * index * math.gamma(2 * index))
    # Not at the centre, where the slope is infinite: wings alone are asked for.
    safe = jnp.maximum(r_squared, 1e-3)
    root = jnp.exp((0.5 / index) * jnp.log(safe))
    value = peak * jnp.exp(-b * root)
    return value, (-0.5 * b / index) * value * root / safe
