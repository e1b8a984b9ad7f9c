"""PSFs of any kind as small images, in the middle or at many places."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from diffdeblend.grid import product_modes
from diffdeblend.parameters import as_float
from diffdeblend.polynomials import chebyshev_design
from diffdeblend.psf.abstract import AbstractPSF
from diffdeblend.psf.as_images import psf_images
from diffdeblend.psf.basis import PSFBasis
from diffdeblend.psf.pixels import PixelPSF
from diffdeblend.psf.sampled import SampledPSF

# A PSF that is a formula is drawn on so many pixels.
_DRAWN = 41


def varies(psf: AbstractPSF) -> bool:
    """Whether the PSF is another one at another place."""
    return type(psf).at is not AbstractPSF.at and not (
        isinstance(psf, PSFBasis) and psf.n_basis == 1
    )


def psf_stamp(psf: AbstractPSF, shape: tuple[int, int]) -> Float[Array, "band h w"]:
    """The PSF in the middle of an image of `shape`: unit sum, odd sides.

    May be traced, and differentiated by what the PSF consists of, unless that is samples.
    """
    if isinstance(psf, PixelPSF):
        return psf.image
    if isinstance(psf, PSFBasis) and not isinstance(psf.coefficients, Tracer):
        x, y = (np.array([(n - 1) / 2]) for n in (shape[1], shape[0]))
        stamps = [basis_stamps(psf, band, x, y)[0] for band in range(psf.n_bands)]
        return jnp.asarray(np.stack(stamps), psf.images.dtype)
    middle = psf.at(jnp.asarray((shape[1] - 1) / 2), jnp.asarray((shape[0] - 1) / 2))
    if isinstance(middle, PixelPSF):
        return middle.image
    if isinstance(middle, SampledPSF):
        drawn = jnp.asarray(psf_images(middle, _DRAWN))
    else:
        # As `psf_images` does, but so that it can be traced, and derived by a width.
        kx = as_float(2 * np.pi * np.fft.fftfreq(_DRAWN))
        plane = jax.lax.complex(*middle.fourier(product_modes(kx, kx)))
        images = jnp.real(jnp.fft.ifft2(plane.reshape(-1, _DRAWN, _DRAWN)))
        drawn = jnp.fft.fftshift(images, axes=(1, 2))
    return drawn / drawn.sum(axis=(1, 2), keepdims=True)


def psf_stamps(
    psf: AbstractPSF, band: int, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "place h w"]:
    """The PSF of one band at places of an image, in pixels: unit sum, odd sides. Host side.

    One that is the same everywhere takes the memory of one image.
    """
    if isinstance(psf, PSFBasis):
        return basis_stamps(psf, band, x, y)
    if isinstance(psf, PixelPSF) or not varies(psf):
        one = psf_images(psf, _DRAWN)[band]
        return np.broadcast_to(one / one.sum(), (len(x), *one.shape))
    at = zip(np.asarray(x, float), np.asarray(y, float), strict=True)
    stamps = np.stack(
        [psf_images(psf.at(jnp.asarray(u), jnp.asarray(v)), _DRAWN)[band] for u, v in at]
    )
    return stamps / stamps.sum(axis=(1, 2), keepdims=True)


def one_or_each(
    psf: AbstractPSF, band: int, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "*place h w"]:
    """As `psf_stamps`; one image, `(h, w)`, where it is the same everywhere. Host side."""
    if varies(psf):
        return psf_stamps(psf, band, x, y)
    return psf_stamps(psf, band, np.zeros(1), np.zeros(1))[0]


def basis_stamps(
    psf: PSFBasis, band: int, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "*place h w"]:
    """`images_at` of one band, on the host: a program for each number of places takes a second."""
    images = np.asarray(psf.images[band])
    weights = basis_weights(psf, band, x, y).astype(images.dtype)
    return np.tensordot(weights, images, axes=1)


def basis_weights(
    psf: PSFBasis, band: int, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "*place basis"]:
    """`weights` of one band, on the host, in double precision."""
    middle = (psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2
    u, v = (
        np.where(np.isnan(at), m, at).astype(float)
        for at, m in zip(map(np.asarray, (x, y)), middle, strict=True)
    )
    terms = chebyshev_design(u.ravel(), v.ravel(), psf.shape, psf.degree)
    fields = terms @ np.asarray(psf.coefficients[band], float).T
    light = fields @ np.asarray(psf.images[band]).sum(axis=(1, 2), dtype=float)
    return (fields / light[:, None]).reshape(*u.shape, -1)
