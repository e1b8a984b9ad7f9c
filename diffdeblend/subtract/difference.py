"""What is left of one image when another is subtracted from it."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.exposure import Exposure
from diffdeblend.psf import PixelPSF

if TYPE_CHECKING:
    from diffdeblend.subtract.fit import SubtractionFit


class Difference(eqx.Module):
    r"""The proper difference of two exposures, on the pixels of the new one.

    - `exposure`: the image D, white noise of unit variance where there is only sky; variance 1;
        `psf` is that of D; mask, names and WCS are those of the new exposure.
    - `S`: score, the matched filter of D, in units of 1 / flux of the reference.
    - `S_corr`: significance of a point at each pixel, with source noise and registration noise.
    - `flux`, `flux_err`: of a point at each pixel, in the reference's unit of flux: S / F_S.
    - `bad`: where nothing can be said: most of the light of a point would fall on masked pixels.
    - `beta`, `dx`, `dy`, `gamma`: flux of a star, its position and the background in the new
        exposure relative to the reference; each shape `(band,)`, at the middle of the image where
        it varies.
    - `F_D`, `F_S`: normalisations of D and of S, shape `(band,)`.
    - `fit`: what the registration and the flux ratio were taken from; None if they were given.

    All maps have shape `(band, y, x)`.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27: D is eq. 13, S eq. 12, S_corr eq. 25, the flux
        eqs. 41 to 43.
    """

    exposure: Exposure
    S: Float[Array, "band y x"]
    S_corr: Float[Array, "band y x"]
    flux: Float[Array, "band y x"]
    flux_err: Float[Array, "band y x"]
    bad: Bool[Array, "band y x"]
    beta: Float[Array, "band"]
    dx: Float[Array, "band"]
    dy: Float[Array, "band"]
    gamma: Float[Array, "band"]
    F_D: Float[Array, "band"]
    F_S: Float[Array, "band"]
    fit: "SubtractionFit | None" = None

    @property
    def D(self) -> Float[Array, "band y x"]:
        """The proper difference image."""
        return self.exposure.image

    @property
    def P_D(self) -> Float[Array, "band h w"]:
        """PSF of D at the middle of the image, unit sum, its centre on the middle pixel."""
        psf = self.exposure.psf
        if not isinstance(psf, PixelPSF):
            ny, nx = self.exposure.shape
            psf = psf.at(jnp.asarray((nx - 1) / 2), jnp.asarray((ny - 1) / 2))
        assert isinstance(psf, PixelPSF)
        return psf.image

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.exposure.shape
