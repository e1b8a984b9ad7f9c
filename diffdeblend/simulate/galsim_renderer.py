"""Blends drawn by GalSim: the reference."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend.simulate.drawing import Drawing, Drawn, summed

if TYPE_CHECKING:
    import galsim

# Errors of 1e-6 of the peak, ten times slower than GalSim's own settings.
TIGHT = {
    "folding_threshold": 5e-4,
    "minimum_fft_size": 2048,
    "maximum_fft_size": 32768,
    "maxk_threshold": 1e-6,
    "kvalue_accuracy": 1e-7,
    "integration_relerr": 1e-7,
    "integration_abserr": 1e-9,
}
# A process takes two seconds to start, in which one draws some 1500 images.
_WORTH_A_PROCESS = 1500


@dataclass(frozen=True)
class GalSimRenderer:
    """Draws source by source and band by band.

    - `workers`: processes; less are started where the work is not worth it. They are spawned, so
        that a script needs `if __name__ == "__main__"`. The images do not depend on their number.
    - `settings`: of `galsim.GSParams`; `TIGHT` makes it the reference for the other renderer.
    """

    workers: int = 1
    settings: dict[str, Any] | None = None

    def __call__(self, drawing: Drawing) -> Drawn:
        """Draw.

        **Raises:** `ValueError` for a source that GalSim cannot draw, with its reason.
        """
        n = len(drawing.sources.blend)
        ny, nx = drawing.shape
        isolated = np.empty((n, drawing.n_bands, ny, nx), dtype=np.float32)
        for k, image in enumerate(self._each(drawing, n)):
            isolated[k] = image
        drawn = summed(isolated, drawing)
        return drawn if drawing.isolated else Drawn(drawn.images, None)

    def _each(self, drawing: Drawing, n: int) -> Iterator[np.ndarray]:
        workers = min(self.workers, n * drawing.n_bands // _WORTH_A_PROCESS)
        if workers < 2:
            for k in range(n):
                yield draw_source(drawing, k, self.settings)
            return
        blocks = np.array_split(np.arange(n), min(n, 4 * workers))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [pool.submit(_block, drawing, block, self.settings) for block in blocks]
            for future in futures:
                yield from future.result()


def _block(
    drawing: Drawing, numbers: np.ndarray, settings: dict[str, Any] | None
) -> Float[np.ndarray, "source band y x"]:
    return np.stack([draw_source(drawing, int(k), settings) for k in numbers])


def draw_source(
    drawing: Drawing, k: int, settings: dict[str, Any] | None = None
) -> Float[np.ndarray, "band y x"]:
    """The image of one source alone in each band, in electrons."""
    import galsim

    sources, scale = drawing.sources, drawing.pixel_scale
    ny, nx = drawing.shape
    offset = (sources.x[k] - (nx - 1) / 2, sources.y[k] - (ny - 1) / 2)
    params = galsim.GSParams(**settings) if settings else None
    try:
        profile = source_profile(drawing, k)
        images = []
        psfs = drawing.psfs[drawing.psf_index[sources.blend[k]]]
        for psf, flux in zip(psfs, sources.flux[k], strict=True):
            image = galsim.ImageD(nx, ny)
            seen: Any = galsim.Convolve([profile.withFlux(flux), psf], gsparams=params)
            seen.drawImage(image=image, scale=scale, offset=offset)
            images.append(image.array)
    except galsim.GalSimError as error:
        raise ValueError(f"Source {k}, row {sources.row[k]}: {error}") from error
    return np.stack(images).astype(np.float32)


def source_profile(drawing: Drawing, k: int) -> "galsim.GSObject":
    """Source `k` as a GalSim object of unit flux, in arcseconds, turned and sheared as placed."""
    import galsim

    sources, scale = drawing.sources, drawing.pixel_scale
    if sources.real[k]:
        assert drawing.galaxies is not None
        profile = drawing.galaxies.galaxy(int(sources.row[k]))
        turned: Any = profile.rotate(sources.turn[k] * galsim.radians)
        return turned.shear(g1=sources.shear1[k], g2=sources.shear2[k])
    parts = []
    for p in range(sources.first[k], sources.first[k + 1]):
        if sources.radius[p] == 0:
            part = galsim.DeltaFunction()
        else:
            part = _sersic(float(sources.index[p]), float(sources.radius[p]) * scale)
            part = part.shear(g1=sources.g1[p], g2=sources.g2[p])
        parts.append(part * float(sources.share[p]))
    return galsim.Sum(parts)


def _sersic(index: float, radius: float) -> "galsim.GSObject":
    """The closed forms where there are some: GalSim's tables are 3e-5 of the peak off at 0.5."""
    import galsim

    if index == 0.5:
        return galsim.Gaussian(half_light_radius=radius)
    if index == 1.0:
        return galsim.Exponential(half_light_radius=radius)
    if index == 4.0:
        return galsim.DeVaucouleurs(half_light_radius=radius)
    return galsim.Sersic(index, half_light_radius=radius)
