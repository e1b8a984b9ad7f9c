"""A PSF given as an image in every band."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.fourier import Pair, sampled_modes
from diffdeblend.grid import Grid, Modes
from diffdeblend.parameters import as_float
from diffdeblend.psf.abstract import AbstractPSF


class PixelPSF(AbstractPSF):
    """A PSF sampled at the exposure's pixels; it includes the pixel's response.

    - `image`: one image a band, shape `(band, h, w)`, `h` and `w` odd, the centre of the PSF at
        the centre of the middle pixel. Brought to unit sum in each band.

    **Raises:** `ValueError` for another number of axes, an even size, or a sum that is not a
    positive number.
    """

    image: Float[Array, "band h w"] = eqx.field(converter=as_float)

    def __init__(self, image):
        image, total = checked_image(image, "pixel")
        self.image = image / total

    @property
    def n_bands(self) -> int:
        return self.image.shape[0]

    def fourier(self, modes: Modes) -> Pair:
        return image_modes(self.image, modes)

    def ends_within(self, grid: Grid) -> bool:
        return self.image.shape[1] <= grid.period_y and self.image.shape[2] <= grid.period_x


def checked_image(image: ArrayLike, what: str) -> tuple[Array, Array]:
    """The image of a PSF as floats, and its sum in each band, `(band, 1, 1)`.

    - `what`: it is made of, for the message: pixels or samples.

    **Raises:** `ValueError` for another number of axes, an even size, or a sum that is not a
    positive number.
    """
    image = as_float(image)
    if image.ndim != 3:
        raise ValueError(f"`image` of a PSF needs shape (band, h, w); got {image.shape}.")
    if image.shape[1] % 2 == 0 or image.shape[2] % 2 == 0:
        raise ValueError(
            f"`image` of a PSF needs odd height and width, so that it has a middle {what}; "
            f"got {image.shape[1]} x {image.shape[2]}."
        )
    total = image.sum(axis=(1, 2), keepdims=True)
    if not isinstance(total, Tracer):
        sums = np.asarray(total).reshape(-1)
        if not (np.isfinite(sums) & (sums > 0)).all():
            raise ValueError(
                "`image` of a PSF must be finite with a positive sum in every band; "
                f"got sums {sums.tolist()}."
            )
    return image, total


def image_modes(image: Float[Array, "band h w"], modes: Modes, oversampling: int = 1) -> Pair:
    """Transfer function of an image with so many samples a pixel, `(band, k)`."""
    height, width = image.shape[1:]
    x = (jnp.arange(width, dtype=image.dtype) - (width - 1) // 2) / oversampling
    y = (jnp.arange(height, dtype=image.dtype) - (height - 1) // 2) / oversampling
    re, im = sampled_modes(image / oversampling**2, modes, x, y)
    # The sum repeats itself beyond Nyquist, where the PSF between the samples has no power:
    # without this, `fine()` draws a star at half a pixel wrong by as much as its peak.
    nyquist = oversampling * np.pi * (1 + 1e-6)
    within = (jnp.abs(modes.kx) < nyquist) & (jnp.abs(modes.ky) < nyquist)
    return jnp.where(within, re, 0), jnp.where(within, im, 0)
