"""What a renderer is asked for and what it gives back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.simulate.sources import Sources

if TYPE_CHECKING:  # its import takes half a second
    import galsim

    from diffdeblend.simulate.real_galaxies import RealGalaxies


@dataclass(frozen=True, eq=False)
class Drawing:
    """Blends to be drawn, without noise.

    - `psfs`: the PSF of each band, as GalSim objects without the pixel, one tuple for each PSF;
        `psf_index`: which of them each blend is seen through, shape `(blend,)`.
    - `pixel_scale`: in arcseconds; `shape`: pixels of a stamp, (ny, nx).
    - `isolated`: whether the image of each source alone is wanted, too.
    - `galaxies`: where real galaxies come from, if there are any among the sources.
    """

    sources: Sources
    psfs: "tuple[tuple[galsim.GSObject, ...], ...]"
    psf_index: Int[np.ndarray, "blend"]
    pixel_scale: float
    shape: tuple[int, int]
    isolated: bool = True
    galaxies: "RealGalaxies | None" = None

    @property
    def n_blends(self) -> int:
        """Number of blends."""
        return len(self.psf_index)

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return self.sources.flux.shape[1]


class Drawn(NamedTuple):
    """Noiseless images in electrons, float32.

    - `images`: of the blends, `(blend, band, y, x)`.
    - `isolated`: of each source alone, `(source, band, y, x)`, or None if not wanted.
    """

    images: Float[np.ndarray, "blend band y x"]
    isolated: Float[np.ndarray, "source band y x"] | None


class Renderer(Protocol):
    """Anything that draws: `FourierRenderer`, `GalSimRenderer`, or your own."""

    def __call__(self, drawing: Drawing) -> Drawn: ...


def summed(isolated: Float[np.ndarray, "source band y x"], drawing: Drawing) -> Drawn:
    """Blends from the images of their sources, added in their order."""
    ny, nx = drawing.shape
    images = np.zeros((drawing.n_blends, drawing.n_bands, ny, nx), dtype=np.float32)
    for image, blend in zip(isolated, drawing.sources.blend, strict=True):
        images[blend] += image
    return Drawn(images, isolated)
