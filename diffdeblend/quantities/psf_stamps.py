"""The PSF at the places of sources, as stamps. Host side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffdeblend.psf import AbstractPSF, PSFBasis
from diffdeblend.psf.as_images import psf_images

# Of a PSF that is a formula.
_SIZE = 41


@dataclass(frozen=True, eq=False)
class PSFStamps:
    """One band of a PSF as images of unit sum; made by `of`.

    - `same`: the image where it is one for all places, else None.
    - `psf`, `band`: where it is not.
    """

    same: Float[np.ndarray, "k l"] | None
    psf: AbstractPSF
    band: int

    @classmethod
    def of(cls, psf: AbstractPSF, band: int) -> "PSFStamps":
        """Of one band, by its place."""
        # A PSF that does not change has the rule of all PSFs.
        constant = type(psf).at is AbstractPSF.at
        return cls(_unit(psf_images(psf, _SIZE)[band]) if constant else None, psf, band)

    def at(self, place: Float[np.ndarray, "source 2"]) -> Float[np.ndarray, "*source k l"]:
        """Images at positions (x, y); one image where it is one for all."""
        if self.same is not None:
            return self.same
        x, y = place[:, 0], place[:, 1]
        if isinstance(self.psf, PSFBasis):
            dtype = np.asarray(self.psf.coefficients).dtype
            images = self.psf.images_at(x.astype(dtype), y.astype(dtype))
            return np.asarray(images)[:, self.band]
        each = [psf_images(self.psf.at(*where), _SIZE)[self.band] for where in place]
        return np.stack([_unit(image) for image in each])


def _unit(image: np.ndarray) -> np.ndarray:
    return image / image.sum()
