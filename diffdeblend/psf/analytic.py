"""PSFs with a closed form: Gaussian, Gaussian mixture, Moffat, Kolmogorov."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes
from diffdeblend.parameters import as_float, interval, positive
from diffdeblend.psf.abstract import AbstractPSF, pixel_response
from diffdeblend.widths import FWHM_PER_SIGMA

# FWHM of the Kolmogorov PSF in units of lambda / r0, and the exponent of its transfer function:
# Fried (1966), J. Opt. Soc. Am. 56, 1372; 6.8839 = 2 (24/5 Gamma(6/5))^(5/6).
_FWHM_KOLMOGOROV = 0.9758634299
_EXPONENT_KOLMOGOROV = 6.8838771822938116 / 2
_MOFFAT_NODES = 54


class GaussianPSF(AbstractPSF):
    """A round Gaussian, seen through square pixels.

    - `fwhm`: full width at half maximum in each band, in pixels, before the pixel's response.

    **Raises:** `ValueError` if `fwhm` is not one positive number per band.
    """

    fwhm: Float[Array, "band"] = eqx.field(converter=as_float, metadata=positive)

    def __check_init__(self):
        _check_fwhm(self.fwhm)

    @property
    def n_bands(self) -> int:
        return self.fwhm.shape[0]

    def fourier(self, modes: Modes) -> Pair:
        sigma = self.fwhm / FWHM_PER_SIGMA
        return _real(jnp.exp(-0.5 * sigma[:, None] ** 2 * _squared(modes)), modes)


class GaussianMixturePSF(AbstractPSF):
    """A sum of round Gaussians, seen through square pixels.

    - `sigma`: standard deviations, shape `(band, gaussian)`, in pixels.
    - `weight`: shares of the light, same shape; brought to unit sum in each band.

    **Raises:** `ValueError` if the two differ in shape, for a `sigma` that is not positive, or
    weights whose sum is not a positive number.
    """

    sigma: Float[Array, "band gaussian"] = eqx.field(converter=as_float, metadata=positive)
    weight: Float[Array, "band gaussian"] = eqx.field(converter=as_float)

    def __check_init__(self):
        if self.sigma.ndim != 2 or self.sigma.shape != self.weight.shape:
            raise ValueError(
                "`sigma` and `weight` need one shape (band, gaussian); "
                f"got {self.sigma.shape} and {self.weight.shape}."
            )
        _check("sigma", "must be positive", self.sigma, lambda sigma: sigma > 0)
        total = self.weight.sum(axis=1)
        _check("weight", "needs a positive sum in every band", total, lambda total: total > 0)

    @property
    def n_bands(self) -> int:
        return self.sigma.shape[0]

    def fourier(self, modes: Modes) -> Pair:
        weight = self.weight / self.weight.sum(axis=1, keepdims=True)
        terms = jnp.exp(-0.5 * self.sigma[..., None] ** 2 * _squared(modes))
        return _real(jnp.sum(weight[..., None] * terms, axis=1), modes)


class MoffatPSF(AbstractPSF):
    r"""A Moffat profile, $(1 + r^2 / a^2)^{-\beta}$, seen through square pixels.

    - `fwhm`: full width at half maximum in each band, in pixels, before the pixel's response.
    - `beta`: steepness of the wings in each band, between 1.2 and 20.

    **Raises:** `ValueError` if the two are not one number each per band, in their domains.

    ??? cite
        Moffat (1969), A&A 3, 455. In Fourier space as a mixture of Gaussians:
        $(1 + s)^{-\beta} = \int t^{\beta-1} e^{-t(1+s)} dt / \Gamma(\beta)$.
    """

    fwhm: Float[Array, "band"] = eqx.field(converter=as_float, metadata=positive)
    beta: Float[Array, "band"] = eqx.field(converter=as_float, metadata=interval(1.2, 20.0))

    def __check_init__(self):
        _check_fwhm(self.fwhm)
        if self.fwhm.shape != self.beta.shape:
            raise ValueError(
                "`fwhm` and `beta` need one number per band each; "
                f"got {self.fwhm.shape} and {self.beta.shape}."
            )
        # 1.2 may be a little less in float32.
        _check(
            "beta",
            "must be between 1.2 and 20",
            self.beta,
            lambda beta: (beta > 1.199) & (beta < 20.01),
        )

    @property
    def n_bands(self) -> int:
        return self.fwhm.shape[0]

    def fourier(self, modes: Modes) -> Pair:
        scale_squared = self.fwhm**2 / (4 * (2 ** (1 / self.beta) - 1))
        # Trapezoid in ln t, between the points where the integrand has died: 54 nodes are good to
        # 1e-7 of the light for every beta. Below exp(-18) Gaussians are wider than any stamp.
        power = self.beta - 1
        first = jnp.maximum(-18.0, (gammaln(power + 1) - 18.5) / power)
        last = jnp.log(power + 6 * jnp.sqrt(power) + 20)
        step = (last - first) / (_MOFFAT_NODES - 1)
        log_t = first[:, None] + step[:, None] * jnp.arange(_MOFFAT_NODES, dtype=step.dtype)
        log_weight = power[:, None] * log_t - jnp.exp(log_t) - gammaln(power)[:, None]
        weight = step[:, None] * jnp.exp(log_weight)
        k_squared = _squared(modes)
        # What they hold is seen at k = 0 alone.
        rest = 1 - weight.sum(axis=1)
        total = rest[:, None] * (k_squared == 0)
        width = scale_squared[:, None] * jnp.exp(-log_t) / 4

        # One after the other: all nodes of all modes at once would take 100 MB.
        def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
            weight, width = node
            return total + weight[:, None] * jnp.exp(-width[:, None] * k_squared), None

        total, _ = jax.lax.scan(add, total, (weight.T, width.T))
        return _real(total, modes)


class KolmogorovPSF(AbstractPSF):
    r"""Long exposure through turbulence, $\exp(-3.44\,(\lambda k / 2 \pi r_0)^{5/3})$.

    - `fwhm`: full width at half maximum in each band, in pixels, before the pixel's response.

    **Raises:** `ValueError` if `fwhm` is not one positive number per band.

    ??? cite
        Fried (1966), J. Opt. Soc. Am. 56, 1372.
    """

    fwhm: Float[Array, "band"] = eqx.field(converter=as_float, metadata=positive)

    def __check_init__(self):
        _check_fwhm(self.fwhm)

    @property
    def n_bands(self) -> int:
        return self.fwhm.shape[0]

    def fourier(self, modes: Modes) -> Pair:
        scale = self.fwhm / (_FWHM_KOLMOGOROV * 2 * np.pi)
        k = jnp.sqrt(_squared(modes))
        exponent = _EXPONENT_KOLMOGOROV * (scale[:, None] * k) ** (5 / 3)
        return _real(jnp.exp(-exponent), modes)


def _squared(modes: Modes) -> Array:
    return modes.kx**2 + modes.ky**2


def _real(values: Array, modes: Modes) -> Pair:
    values = values * pixel_response(modes)
    return values, jnp.zeros_like(values)


def _check_fwhm(fwhm: Array) -> None:
    if fwhm.ndim != 1:
        raise ValueError(f"`fwhm` needs one number per band, shape (band,); got {fwhm.shape}.")
    _check("fwhm", "must be positive", fwhm, lambda fwhm: fwhm > 0)


def _check(
    name: str, wanted: str, value: Array, is_right: Callable[[np.ndarray], np.ndarray]
) -> None:
    """**Raises:** `ValueError` for wrong values, where they are known: not under jit."""
    if isinstance(value, Tracer):
        return
    known = np.asarray(value)
    if not (np.isfinite(known) & is_right(known)).all():
        raise ValueError(f"`{name}` of a PSF {wanted}; got {known.tolist()}.")
