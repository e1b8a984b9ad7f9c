"""Blends drawn by GalSim: the reference."""

import importlib
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend.cores import available_cores
from diffdeblend.simulate.drawing import Drawing, Drawn, add_up, place_for

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
# Seconds of work for one process below which none is started: it takes some three to import what it
# needs, and there must be something left to do then.
_WORTH = 5.0
# Seconds of work that are known before that is decided, and sent to another process at once.
_TRIAL, _CHUNK = 0.3, 0.5


@dataclass(frozen=True)
class GalSimRenderer:
    """Draws source by source and band by band.

    - `workers`: processes, this one included. Others are started where what is left to do takes
        longer than their start, and cores are free. They are spawned, so that a script needs
        `if __name__ == "__main__"`. The images do not depend on their number.
    - `settings`: of `galsim.GSParams`; `TIGHT` makes it the reference for the other renderer.
    """

    workers: int = 1
    settings: dict[str, Any] | None = None

    @property
    def at_once(self) -> int:
        """How many times as much it should be given in a call: each one may start processes."""
        return max(1, self.workers)

    def __call__(self, drawing: Drawing) -> Drawn:
        """Draw.

        **Raises:** `ValueError` for a source that GalSim cannot draw, with its reason.
        """
        images, isolated = place = place_for(drawing)
        if isolated is None:
            shape = len(drawing.sources.blend), *images.shape[1:]
            isolated = np.empty(shape, dtype=np.float32)
        self._draw(drawing, isolated)
        add_up(isolated, images, drawing)
        return place

    def _draw(self, drawing: Drawing, isolated: Float[np.ndarray, "source band y x"]) -> None:
        """This process works from the beginning; where it pays, others work from the end.

        So their start costs nothing, and how long it takes need not be known before.
        """
        # Its import is not to be counted as work.
        importlib.import_module("galsim")
        n, low, begun = len(isolated), 0, time.perf_counter()
        while low < n and (low < 1 or time.perf_counter() - begun < _TRIAL):
            isolated[low] = draw_source(drawing, low, self.settings)
            low += 1
        each = (time.perf_counter() - begun) / max(low, 1)
        others = min(self.workers, available_cores()) - 1
        if others > 0 and (n - low) * each > _WORTH:
            try:
                self._with_others(drawing, isolated, low, others, max(1, int(_CHUNK / each)))
                return
            except BrokenProcessPool:
                # Killed for memory, or started by a script that others cannot import.
                pass
        for k in range(low, n):
            isolated[k] = draw_source(drawing, k, self.settings)

    def _with_others(
        self,
        drawing: Drawing,
        isolated: Float[np.ndarray, "source band y x"],
        low: int,
        others: int,
        size: int,
    ) -> None:
        high, waiting = len(isolated), {}
        # Without the arrays of all images, which would go with every block.
        sent = replace(drawing, into=None)
        # Spawned: a fork of a process whose threads hold locks may hang.
        pool = ProcessPoolExecutor(others, multiprocessing.get_context("spawn"))
        try:
            while low < high or waiting:
                # When less than a chunk for each is left, this process ends it alone.
                while len(waiting) < 2 * others and high - low > size * (others + 1):
                    high -= size
                    block = range(high, high + size)
                    waiting[pool.submit(_block, sent, block, self.settings)] = block
                if low < high:
                    isolated[low] = draw_source(drawing, low, self.settings)
                    low += 1
                    ready = [future for future in waiting if future.done()]
                else:
                    ready = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in ready:
                    block = waiting.pop(future)
                    isolated[block.start : block.stop] = future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _block(
    drawing: Drawing, numbers: range, settings: dict[str, Any] | None
) -> Float[np.ndarray, "source band y x"]:
    return np.stack([draw_source(drawing, k, settings) for k in numbers])


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
