"""How likely each pixel holds a point source: the matched filter with the PSF of each place."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.detect.peaks import psf_images
from diffdeblend.exposure import Exposure
from diffdeblend.polynomials import chebyshev_design, field_maps
from diffdeblend.psf import AbstractPSF, PixelPSF, PSFBasis, constant_basis
from diffdeblend.psf.varying import correlate_varying, filter_known, light_map, padded_size

_WIDEST = 41
# Share of the power of the squared PSF that may be left out.
_LOST = 1e-8


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
    psf = as_basis(exposure.psf, exposure.shape)
    return _score_image(exposure.data, exposure.weight, psf, squared_parts(psf))


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
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: PSFBasis,
    parts: tuple[Array, Array],
) -> ScoreImage:
    signal = correlate_varying(data * weight, psf)
    information = squared_correlation(weight, psf, parts)
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
    weight: Float[Array, "band y x"], psf: PSFBasis, parts: tuple[Array, Array]
) -> Float[Array, "band y x"]:
    """Sum at each pixel of the weight times the square of the PSF centred there.

    - `parts`: of `squared_parts`.
    """

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        kernel, field = part[0][:, ::-1, ::-1], field_maps(part[1], psf.shape, 2 * psf.degree)
        return total + field * filter_known(known, kernel, size, psf.shape), None

    size = padded_size(psf.shape, psf.images.shape[2:])
    known = jnp.fft.rfft2(weight, size)
    return jax.lax.scan(add, jnp.zeros_like(weight), parts)[0] / light_map(psf) ** 2


def squared_parts(
    psf: PSFBasis,
) -> tuple[Float[Array, "part band h w"], Float[Array, "part band term"]]:
    r"""The square of a PSF as few images with fields. Host side.

    $(\sum_k a_k p_k)^2$ is a polynomial of twice the degree, thus known from its values at a few
    places; of 78 products of 12 images, 8 components of these values hold all but 1e-4.
    """
    degree = 2 * psf.degree
    n = degree + 1
    places = (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2
    ny, nx = psf.shape
    x, y = (v.ravel() for v in np.meshgrid(places * (nx - 1), places * (ny - 1)))
    design = chebyshev_design(x, y, psf.shape, degree)
    fields = np.einsum(
        "bkt,nt->bkn",
        np.asarray(psf.coefficients, float),
        chebyshev_design(x, y, psf.shape, psf.degree),
    )
    images = np.asarray(psf.images, float)
    squares = np.einsum("bkn,bkhw->bnhw", fields, images, optimize=True) ** 2
    flat = squares.reshape(psf.n_bands, n * n, -1)
    # The few places have fewer products than the image pixels.
    power, vectors = np.linalg.eigh(flat @ flat.swapaxes(1, 2))
    power, vectors = np.maximum(power[:, ::-1], 0), vectors[:, :, ::-1]
    left = 1 - np.cumsum(power, axis=1) / power.sum(axis=1, keepdims=True)
    kept = min(n * n, _step_up(1 + int(np.max(np.argmax(left <= _LOST, axis=1)))))
    vectors = vectors[:, :, :kept]
    kernels = (vectors.swapaxes(1, 2) @ flat).reshape(psf.n_bands, kept, *images.shape[2:])
    coefficients = np.stack([np.linalg.lstsq(design, one, rcond=None)[0].T for one in vectors])
    dtype = psf.images.dtype
    return (
        jnp.asarray(kernels.swapaxes(0, 1), dtype),
        jnp.asarray(coefficients.swapaxes(0, 1), dtype),
    )


def _step_up(n: int) -> int:
    """The next of 1, 4, 8, ...: few sizes, thus few programs."""
    return 1 if n == 1 else -(-n // 4) * 4
