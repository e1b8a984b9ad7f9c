"""The PSF at many places of an image."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.detect.peaks import psf_images
from diffdeblend.psf import AbstractPSF, PSFBasis

# Side of the stamp of an analytic PSF.
_SIZE = 65
# Places taken together: one compiled program for any number.
_TOGETHER = 256
_FWHM_PER_SIGMA = 2.354820045030949


def psf_stamps(
    psf: AbstractPSF, band: int, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "n h w"]:
    """The PSF of one band at positions in pixels, each of unit sum. Host side."""
    n = len(x)
    if type(psf).at is AbstractPSF.at:
        one = psf_images(psf, _SIZE)[band].astype(np.float32)
        return np.broadcast_to(one / one.sum(), (n, *one.shape))
    found = []
    for start in range(0, n, _TOGETHER):
        some = slice(start, start + _TOGETHER)
        if isinstance(psf, PSFBasis):
            fill = (0, _TOGETHER - len(x[some]))
            at = [np.pad(np.asarray(v[some], np.float32), fill) for v in (x, y)]
            found.append(np.asarray(psf.images_at(*at))[: len(x[some]), band])
        else:
            at = zip(x[some], y[some], strict=True)
            found += [
                psf_images(psf.at(*map(jnp.float32, place)), _SIZE)[None, band] for place in at
            ]
    if not found:
        return psf_stamps(psf.at(jnp.float32(0), jnp.float32(0)), band, x, y)
    stamps = np.concatenate(found).astype(np.float32)
    return stamps / stamps.sum(axis=(1, 2), keepdims=True)


def width(stamps: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n"]:
    """Full width in pixels of the Gaussian with the noise-equivalent area of each PSF.

    Wings and noise far out do not count, as they do in moments.
    """
    area = 1 / np.sum(stamps.astype(float) ** 2, axis=(1, 2))
    return _FWHM_PER_SIGMA * np.sqrt(area / (4 * np.pi))
