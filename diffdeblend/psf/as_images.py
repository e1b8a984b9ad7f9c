"""A PSF as pixels on the host."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from diffdeblend.fourier import Pair
from diffdeblend.grid import Modes, product_modes
from diffdeblend.parameters import as_float
from diffdeblend.psf.abstract import AbstractPSF
from diffdeblend.psf.pixels import PixelPSF
from diffdeblend.psf.sampled import SampledPSF


def psf_images(psf: AbstractPSF, size: int) -> Float[np.ndarray, "band y x"]:
    """The PSF on a stamp of odd size, for use on the host."""
    if isinstance(psf, PixelPSF):
        return np.asarray(psf.image, dtype=float)
    if isinstance(psf, SampledPSF):
        return np.asarray(psf.pixel_image, dtype=float)
    kx = as_float(2 * np.pi * np.fft.fftfreq(size))
    re, im = _transfer(psf, product_modes(kx, kx))
    spectrum = (np.asarray(re) + 1j * np.asarray(im)).reshape(-1, size, size)
    return np.fft.fftshift(np.fft.ifft2(spectrum).real, axes=(1, 2))


@eqx.filter_jit
def _transfer(psf: AbstractPSF, modes: Modes) -> Pair:
    """Compiled once: outside of a program its loops would be compiled at every call."""
    return psf.fourier(modes)
