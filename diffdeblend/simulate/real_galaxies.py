"""Galaxies as the Hubble telescope saw them: from files of GalSim's form, opened when needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Shaped

if TYPE_CHECKING:
    import galsim


@dataclass(frozen=True, eq=False)
class RealGalaxies:
    """How to get the image of each row, free of Hubble's PSF. Paths and numbers: it is pickled.

    - `files`: catalogues of GalSim's form, full paths. Those who draw open them, once a process.
    - `file`: which of them, for each row.
    - `index`: where in it; -1 where the row is no real image.
    - `centred`: put the centroid at the origin. Hubble's stamps are off by up to a few of its
        pixels, its PSFs by half a pixel, and the true position would be off by as much.
    - `taper`: from where to where a galaxy fades out, along ellipses of its adaptive moments and in
        units of their radius. Around it is Hubble's noise, which in a bright source may be well
        above that of a deep survey. None: it is kept, as GalSim does.
    """

    files: tuple[str, ...]
    file: Int[np.ndarray, "row"]
    index: Int[np.ndarray, "row"]
    centred: bool = True
    taper: tuple[float, float] | None = None

    def __post_init__(self):
        if self.file.shape != self.index.shape or self.index.ndim != 1:
            raise ValueError(
                f"`file` and `index` need one number a row; got {self.file.shape} and "
                f"{self.index.shape}."
            )
        if self.taper is not None and not 0 < self.taper[0] < self.taper[1]:
            raise ValueError(f"`taper` must be two rising positive radii; got {self.taper}.")

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Shaped[ArrayLike, "row"]) -> "RealGalaxies":
        """Of some rows, by number or by mask."""
        rows = np.asarray(rows)
        return replace(self, file=self.file[rows], index=self.index[rows])

    def galaxy(self, row: int, gsparams: Any = None) -> "galsim.GSObject":
        """One of unit flux, lengths in arcseconds, x to the right.

        With neither `centred` nor `taper` it is that of `galsim.COSMOSCatalog.makeGalaxy` without
        padding by noise. It must be convolved with a PSF wider than Hubble's. Its light, its noise
        included, sums to 1 over the stamp.

        **Raises:** `ValueError` for a row that is no real image, or whose light sums to nothing.
        """
        import galsim

        if self.index[row] < 0:
            raise ValueError(f"`row` must be that of a real image; {row} has a parametric shape.")
        catalog, index = _opened(self.files[self.file[row]]), int(self.index[row])
        image, psf = catalog.getGalImage(index), catalog.getPSFImage(index)
        noise, pixel_scale, variance = catalog.getNoiseProperties(index)
        moments = self._moments(image) if self.centred or self.taper else None
        if self.taper is not None and moments is not None:
            image = _tapered(image, moments, self.taper)
        if not image.array.sum() > 0:
            raise ValueError(f"`row`: the light of galaxy {index} sums to nothing; leave it out.")
        # Its random numbers are for noise, of which there is none: always the same.
        galaxy: Any = galsim.RealGalaxy(
            (image, psf, noise, pixel_scale, variance),  # type: ignore[arg-type]
            noise_pad_size=0,
            rng=galsim.BaseDeviate(1),
            gsparams=gsparams,
        ).withFlux(1.0)
        if not self.centred or moments is None:
            return galaxy
        off = moments.moments_centroid - image.true_center
        psf_moments = self._moments(psf)
        if psf_moments is not None:
            off = off - (psf_moments.moments_centroid - psf.true_center)
        return galaxy.shift(-off * float(pixel_scale))

    @staticmethod
    def _moments(image: "galsim.Image") -> Any:
        """Adaptive moments, or None where they do not converge: some galaxies are too ragged."""
        import galsim

        found = galsim.hsm.FindAdaptiveMom(image, strict=False)
        return found if found.moments_status == 0 else None


def join_real(given: Sequence[tuple[RealGalaxies | None, int]]) -> RealGalaxies | None:
    """One of several, each with its number of rows; None where there are none.

    **Raises:** `ValueError` if they are not centred and tapered alike.
    """
    there = [real for real, _ in given if real is not None]
    if not there:
        return None
    if any((r.centred, r.taper) != (there[0].centred, there[0].taper) for r in there):
        raise ValueError("`catalogs` of real galaxies need the same `centred` and `taper`.")
    files = tuple(dict.fromkeys(name for real in there for name in real.files))
    file, index = [], []
    for real, n in given:
        if real is None:
            file.append(np.zeros(n, int))
            index.append(np.full(n, -1))
        else:
            place = np.array([files.index(name) for name in real.files])
            file.append(place[real.file])
            index.append(real.index)
    return replace(there[0], files=files, file=np.concatenate(file), index=np.concatenate(index))


def _tapered(image: "galsim.Image", moments: Any, taper: tuple[float, float]) -> "galsim.Image":
    import galsim

    x, y = image.get_pixel_centers()
    off: Float[np.ndarray, "2 y x"] = np.stack(
        [x - moments.moments_centroid.x, y - moments.moments_centroid.y]
    )
    unshear = np.linalg.inv(moments.observed_shape.getMatrix())
    distance = np.hypot(*np.tensordot(unshear, off, axes=1)) / moments.moments_sigma
    keep = np.clip((taper[1] - distance) / (taper[1] - taper[0]), 0, 1)
    return galsim.Image(
        image.array * keep**2 * (3 - 2 * keep), xmin=image.xmin, ymin=image.ymin, wcs=image.wcs
    )


# A catalogue keeps its files open: not one for each galaxy.
@lru_cache(maxsize=8)
def _opened(path: str) -> "galsim.RealGalaxyCatalog":
    import galsim

    return galsim.RealGalaxyCatalog(path)
