"""How likely each pixel holds a point source: the matched filter with the PSF of each place."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.polynomials import field_maps
from diffdeblend.psf import AbstractPSF, PixelPSF, PSFBasis, constant_basis
from diffdeblend.psf.varying import correlate_varying, filter_known, light_map, padded_size

_WIDEST = 41


class ScoreImage(eqx.Module):
    """The best fitting point source at each pixel, alone there on a sky of zero.

    All of shape `(band, y, x)`.

    - `score`: flux over its error; of unit variance where there is only noise. 0 where no pixel
        under the PSF is in use.
    - `flux`: in the unit of the exposure; 0 where it is not known.
    - `flux_err`: its standard deviation; infinite where it is not known.
    """

    score: Float[Array, "band y x"]
    flux: Float[Array, "band y x"]
    flux_err: Float[Array, "band y x"]


def score_image(exposure: Exposure) -> ScoreImage:
    r"""Matched filter with a PSF that may vary over the image.

    $S = \sum_y P_x(y - x)\, I(y) / V(y) \big/ \sqrt{\sum_y P_x(y - x)^2 / V(y)}$ at pixel x, with
    the PSF of that place. Pixels not in use, and those outside of the image, weigh nothing.

    - `exposure`: sky subtracted, with the variance of each pixel. Any PSF: one that is not given
        as pixels is taken at the centres of those of a stamp of 41 pixels.

    ??? cite
        Zackay & Ofek (2017), ApJ 836, 187, eq. 17, for a PSF that varies.
    """
    # Arrays alone: each exposure has its own header, which would compile anew.
    return _score_image(exposure.data, exposure.weight, as_basis(exposure.psf, exposure.shape))


def as_basis(psf: AbstractPSF, shape: tuple[int, int]) -> PSFBasis:
    """A PSF as a basis for an image of `shape` (ny, nx); one image where it does not vary.

    **Raises:** `ValueError` for a basis made for an image of another shape.
    """
    if isinstance(psf, PSFBasis):
        if psf.shape != shape:
            raise ValueError(f"`psf` is for an image of {psf.shape} pixels; this one has {shape}.")
        return psf
    if isinstance(psf, PixelPSF):
        return constant_basis(psf, shape)
    return constant_basis(PixelPSF(psf_images(psf, min(_WIDEST, min(shape) | 1))), shape)


@jax.jit
def _score_image(
    data: Float[Array, "band y x"], weight: Float[Array, "band y x"], psf: PSFBasis
) -> ScoreImage:
    signal = correlate_varying(data * weight, psf)
    information = squared_correlation(weight, psf)
    # Sums by Fourier transform leave rounding errors where there is no weight at all.
    floor = 1e-5 * jnp.max(information, axis=(1, 2), keepdims=True)
    known = information > floor
    safe = jnp.where(known, information, 1)
    return ScoreImage(
        score=jnp.where(known, signal / jnp.sqrt(safe), 0),
        flux=jnp.where(known, signal / safe, 0),
        flux_err=jnp.where(known, 1 / jnp.sqrt(safe), jnp.inf),
    )


def squared_correlation(
    weight: Float[Array, "band y x"], psf: PSFBasis
) -> Float[Array, "band y x"]:
    """Sum at each pixel of the weight times the square of the PSF centred there.

    The square has a product of two images for each pair of them.
    """
    first, second = np.triu_indices(psf.n_basis)
    twice = jnp.asarray(np.where(first == second, 1.0, 2.0), weight.dtype)

    def add(total: Array, part: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, None]:
        one, other, coefficients_one, coefficients_other, times = part
        field_one = field_maps(coefficients_one, psf.shape, psf.degree)
        field_other = field_maps(coefficients_other, psf.shape, psf.degree)
        kernel = times * (one * other)[:, ::-1, ::-1]
        return total + field_one * field_other * filter_known(known, kernel, size, psf.shape), None

    size = padded_size(psf.shape, psf.images.shape[2:])
    known = jnp.fft.rfft2(weight, size)
    images, coefficients = (part.swapaxes(0, 1) for part in (psf.images, psf.coefficients))
    parts = images[first], images[second], coefficients[first], coefficients[second], twice
    return jax.lax.scan(add, jnp.zeros_like(weight), parts)[0] / light_map(psf) ** 2
