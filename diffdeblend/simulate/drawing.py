"""What a renderer is asked for and what it gives back."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.simulate.sources import Sources

if TYPE_CHECKING:  # its import takes half a second
    import galsim

    from diffdeblend.simulate.real_galaxies import RealGalaxies


class Drawn(NamedTuple):
    """Noiseless images in electrons, float32.

    - `images`: of the blends, `(blend, band, y, x)`.
    - `isolated`: of each source alone, `(source, band, y, x)`, or None if not wanted.
    """

    images: Float[np.ndarray, "blend band y x"]
    isolated: Float[np.ndarray, "source band y x"] | None


@dataclass(frozen=True, eq=False)
class Drawing:
    """Blends to be drawn, without noise.

    - `psfs`: the PSF of each band, as GalSim objects without the pixel, one tuple for each PSF;
        `psf_index`: which of them each blend is seen through, shape `(blend,)`.
    - `pixel_scale`: in arcseconds; `shape`: pixels of a stamp, (ny, nx).
    - `isolated`: whether the image of each source alone is wanted, too.
    - `galaxies`: where real galaxies come from, if there are any among the sources.
    - `into`: arrays that a renderer may draw into and give back, whatever is in them: large new
        ones cost as much time as what is drawn. None: it makes its own.
    """

    sources: Sources
    psfs: "tuple[tuple[galsim.GSObject, ...], ...]"
    psf_index: Int[np.ndarray, "blend"]
    pixel_scale: float
    shape: tuple[int, int]
    isolated: bool = True
    galaxies: "RealGalaxies | None" = None
    into: Drawn | None = None

    @property
    def n_blends(self) -> int:
        """Number of blends."""
        return len(self.psf_index)

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return self.sources.flux.shape[1]


class Renderer(Protocol):
    """Anything that draws: `FourierRenderer`, `GalSimRenderer`, or your own."""

    def __call__(self, drawing: Drawing) -> Drawn: ...


def place_for(drawing: Drawing) -> Drawn:
    """Arrays for what is to be drawn; with whatever happens to be in them."""
    if drawing.into is not None:
        return drawing.into
    shape = drawing.n_bands, *drawing.shape
    isolated = np.empty((len(drawing.sources.blend), *shape), np.float32)
    return Drawn(
        np.empty((drawing.n_blends, *shape), np.float32), isolated if drawing.isolated else None
    )


def add_up(
    isolated: Float[np.ndarray, "source band y x"],
    images: Float[np.ndarray, "blend band y x"],
    drawing: Drawing,
) -> None:
    """Blends from the images of their sources, added in their order."""
    first = np.searchsorted(drawing.sources.blend, np.arange(drawing.n_blends + 1))
    for k, (start, stop) in enumerate(pairwise(first)):
        images[k] = isolated[start] if stop > start else 0
        for image in isolated[start + 1 : stop]:
            images[k] += image
