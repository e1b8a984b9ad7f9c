"""The PSF at the places of sources, as stamps. Host side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.stamps import psf_stamps, varies


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
        nowhere = np.zeros(1)
        same = None if varies(psf) else psf_stamps(psf, band, nowhere, nowhere)[0]
        return cls(same, psf, band)

    def at(self, place: Float[np.ndarray, "source 2"]) -> Float[np.ndarray, "*source k l"]:
        """Images at positions (x, y); one image where it is one for all."""
        if self.same is not None:
            return self.same
        return psf_stamps(self.psf, self.band, place[:, 0], place[:, 1])
