"""A set of blends as plain arrays: what measures take, and what other processes are sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.header import Header
from diffdeblend.psf import PixelPSF


@dataclass(frozen=True, eq=False)
class Stamps:
    """Blends of one survey without their truth. Host side, numpy.

    - `images`, `variance`: `(blend, band, y, x)`; pixels without a positive variance are not used.
    - `psf_images`: of each PSF; `psf_index`: which one each blend is seen through.
    - `header`: of the exposure of any blend.
    """

    images: Float[np.ndarray, "blend band y x"]
    variance: Float[np.ndarray, "blend band y x"]
    psf_images: Float[np.ndarray, "psf band h w"]
    psf_index: Int[np.ndarray, "blend"]
    header: Header

    def __post_init__(self):
        # One object for each PSF, made when it is first asked for.
        object.__setattr__(self, "_psfs", {})

    @property
    def n_blends(self) -> int:
        """Number of blends."""
        return len(self.images)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.header.bands

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.images.shape[2], self.images.shape[3]

    def psf(self, blend: int) -> PixelPSF:
        """The PSF of a blend: one object for all that share it."""
        number, psfs = int(self.psf_index[blend]), self.__dict__["_psfs"]
        if number not in psfs:
            psfs[number] = PixelPSF(self.psf_images[number])
        return psfs[number]

    def exposure(self, blend: int) -> Exposure:
        """One blend. Fifty times faster than `make_exposure`, whose checks it does without."""
        image, variance = self.images[blend], self.variance[blend]
        mask = jnp.zeros(image.shape, jnp.int32)
        return Exposure(
            jnp.asarray(image), jnp.asarray(variance), mask, self.psf(blend), self.header
        )

    def part(self, start: int, stop: int) -> "Stamps":
        """Some of the blends, with the PSFs that they need."""
        psfs, places = np.unique(self.psf_index[start:stop], return_inverse=True)
        return Stamps(
            self.images[start:stop],
            self.variance[start:stop],
            self.psf_images[psfs],
            places.reshape(-1),
            self.header,
        )

    def __reduce__(self):
        return Stamps, (
            self.images,
            self.variance,
            self.psf_images,
            self.psf_index,
            self.header,
        )


def stamps_of(blends: Any) -> Stamps:
    """The arrays of a `Blends`, or of what has its `images`, `variance`, `psf_images`,
    `psf_index`, `bands` and `exposure(i)`."""
    images = np.asarray(blends.images)
    # Without a blend there is nothing that could be somewhere.
    header = blends.exposure(0).header if len(images) else Header(tuple(blends.bands))
    return Stamps(
        images,
        np.asarray(blends.variance),
        np.asarray(blends.psf_images),
        np.asarray(blends.psf_index),
        header,
    )


Positions = Sequence[Float[np.ndarray, "source 2"]]
