"""PSFs as images, in and out of files."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from diffdeblend.grid import product_modes
from diffdeblend.psf import AbstractPSF, KolmogorovPSF, PixelPSF, PSFBasis, SampledPSF

# An analytic PSF is written on the smallest of these that holds all but 1e-3 of its light.
_SIZES = (25, 41, 61, 101, 161)
_PERIOD = 201
_MARGIN = (_PERIOD - _SIZES[-1]) // 2


def psf_images(psf: AbstractPSF) -> Float[np.ndarray, "band h w"]:
    """The PSF at the exposure's pixels, on an odd stamp, of unit sum.

    Exact for a `PixelPSF`, and for a `SampledPSF`, of which these are the samples at the pixels;
    the wings of another PSF are cut where they hold 1e-3 of the light. Of a `PSFBasis` it is the
    one in the middle of the image: `write_psf_basis` keeps all of it.
    """
    if isinstance(psf, PSFBasis):
        psf = psf.middle
    if isinstance(psf, PixelPSF):
        return np.asarray(psf.image)
    if isinstance(psf, SampledPSF):
        pixels = np.asarray(psf.pixel_image)
        return pixels / pixels.sum(axis=(1, 2), keepdims=True)
    # At a third of a pixel, so that what lies beyond the Nyquist frequency folds as in a camera.
    samples = 3 * _PERIOD
    axes = [
        jnp.asarray(3 * 2 * np.pi * frequencies, dtype=jnp.result_type(float))
        for frequencies in (np.fft.rfftfreq(samples), np.fft.fftfreq(samples))
    ]
    shape = (psf.n_bands, axes[1].size, axes[0].size)
    parts = psf.fourier(product_modes(axes[0], axes[1]))
    re, im = (np.asarray(part, dtype=float).reshape(shape) for part in parts)
    image = np.fft.irfft2(re + 1j * im, s=(samples, samples))
    image = np.fft.fftshift(image[:, ::3, ::3], axes=(1, 2))
    image = image[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    inner = image
    for size in _SIZES:
        edge = (_SIZES[-1] - size) // 2
        inner = image[:, edge : edge + size, edge : edge + size]
        if (inner.sum(axis=(1, 2)) * 9 > 0.999).all():
            break
    return inner / inner.sum(axis=(1, 2), keepdims=True)


def placeholder_psf(n_bands: int) -> AbstractPSF:
    """A PSF as wide as a pixel, for an exposure of which nobody asks how a point is seen."""
    return KolmogorovPSF(jnp.ones(n_bands))


def stacked_stamps(stamps: Sequence[np.ndarray]) -> Real[np.ndarray, "band h w"]:
    """Stamps of odd sizes as one array, padded with zeros around to the largest.

    **Raises:** `ValueError` for different sizes of which one is even: it has no middle pixel.
    """
    if len({stamp.shape for stamp in stamps}) == 1:
        return np.stack(stamps)
    height, width = (max(stamp.shape[axis] for stamp in stamps) for axis in (0, 1))
    padded = np.zeros((len(stamps), height, width))
    for place, stamp in zip(padded, stamps, strict=True):
        if stamp.shape[0] % 2 == 0 or stamp.shape[1] % 2 == 0:
            raise ValueError(f"`psf` needs odd height and width; got {stamp.shape}.")
        top, left = (height - stamp.shape[0]) // 2, (width - stamp.shape[1]) // 2
        place[top : top + stamp.shape[0], left : left + stamp.shape[1]] = stamp
    return padded
