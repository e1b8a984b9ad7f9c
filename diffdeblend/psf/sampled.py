"""A PSF given as an image that is sampled finer than the exposure."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import Pair
from diffdeblend.grid import Grid, Modes
from diffdeblend.parameters import as_float
from diffdeblend.psf.abstract import AbstractPSF
from diffdeblend.psf.pixels import checked_image, image_modes


class SampledPSF(AbstractPSF):
    """A PSF sampled several times a pixel; it includes the response of the exposure's pixel.

    What a telescope in space delivers has power beyond the Nyquist frequency of its pixels, which
    an image at the pixels cannot tell: a `PixelPSF` draws a star there wrong unless it is centred
    on a pixel. Samples that are fine enough carry all of it.

    - `image`: one image a band, shape `(band, h, w)`, `h` and `w` odd, the centre of the PSF at
        the centre of the middle sample. The value at a sample is the light that a pixel of the
        exposure, not one of the size of a sample, would receive if it were centred there.
    - `oversampling`: samples a pixel on each axis, an integer of at least 1; static.
    - `normalise`: whether to bring the samples to all the light, `oversampling**2` in sum, in each
        band. False keeps them as they are: a PSF of which the image encloses a share of 0.98
        then draws 0.98 of the flux, and its transfer function at k = 0 is that share.

    **Raises:** `ValueError` for another number of axes, an even size, an `oversampling` that is no
    positive integer, or a sum that is not a positive number.
    """

    image: Float[Array, "band h w"] = eqx.field(converter=as_float)
    oversampling: int = eqx.field(static=True)

    def __init__(self, image, oversampling: int, normalise: bool = True):
        image, total = checked_image(image, "sample")
        if isinstance(oversampling, bool) or not isinstance(oversampling, int | np.integer):
            raise ValueError(f"`oversampling` must be an integer; got {oversampling!r}.")
        if oversampling < 1:
            raise ValueError(f"`oversampling` must be at least 1; got {oversampling}.")
        self.oversampling = int(oversampling)
        self.image = image * (self.oversampling**2 / total) if normalise else image

    @property
    def n_bands(self) -> int:
        return self.image.shape[0]

    @property
    def pixel_image(self) -> Float[Array, "band y x"]:
        """The samples at the centres of the exposure's pixels, when the PSF is centred on one."""
        middle = [(size - 1) // 2 % self.oversampling for size in self.image.shape[1:]]
        return self.image[:, middle[0] :: self.oversampling, middle[1] :: self.oversampling]

    def fourier(self, modes: Modes) -> Pair:
        return image_modes(self.image, modes, self.oversampling)

    def ends_within(self, grid: Grid) -> bool:
        height, width = self.image.shape[1:]
        samples_y, samples_x = (
            self.oversampling * grid.period_y,
            self.oversampling * grid.period_x,
        )
        return height <= samples_y and width <= samples_x
