"""One epoch made ready: without sky, with noise and flaws, in place, with its stars' PSF."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np

from diffdeblend.exposure import Exposure
from diffdeblend.prepare import Preparation, prepare
from diffdeblend.prepare.align import align as align_exposure
from diffdeblend.psf import AbstractPSF
from diffdeblend.stars.determine import StarPSF
from diffdeblend.stars.exposure_psf import StarMethod, exposure_psf, filled_up

ALIGNMENTS = ("stars", "wcs", "astroalign")


@dataclass(frozen=True, eq=False, repr=False)
class Epoch:
    """An exposure that is ready, and what became known on the way.

    - `exposure`: without sky, with variance, masks and PSF.
    - `record`: what `prepare` did and found, one a band.
    - `stars`: what the PSF was taken from, one a band; None if it was given.
    """

    exposure: Exposure
    record: tuple[Preparation, ...]
    stars: tuple[StarPSF, ...] | None

    def __repr__(self) -> str:
        stars = "given" if self.stars is None else f"of {[len(s.used) for s in self.stars]} stars"
        return f"<Epoch {self.exposure.shape}, PSF {stars}: {', '.join(map(str, self.record))}>"


def make_epoch(
    source: Any,
    *,
    psf: StarMethod | AbstractPSF | np.ndarray | None = None,
    onto: Exposure | None = None,
    align: str | None = None,
    **preparation: Any,
) -> Epoch:
    """From a raw image to an exposure with the PSF of its stars. Host side.

    - `source`: as in `diffdeblend.prepare.prepare`.
    - `psf`: how it is taken from the stars; or a PSF, or its image in each band. Default: that of
        an `Exposure` that is given, else `StarMethod()`.
    - `onto`, `align`: the exposure onto whose pixels this one is brought, and how: "stars", "wcs"
        or "astroalign", see `diffdeblend.prepare.align`; None if it is there already.
    - `preparation`: settings of `prepare`.

    **Raises:** `ValueError` as `prepare`, `align` and `determine_psf`; that names what to do if
    the image has too few stars.
    """
    if align is not None and align not in ALIGNMENTS:
        raise ValueError(f"`align` must be one of {ALIGNMENTS} or None; got {align!r}.")
    how = psf
    if psf is None and not isinstance(source, Exposure):
        how = StarMethod()
    given = None if isinstance(how, StarMethod) else how
    made = prepare(source, psf=given, **preparation)
    exposure = made.exposure
    if align is not None and onto is not None:
        exposure = align_exposure(exposure, onto, method=align, fwhm=made.record[0].fwhm)
    if not isinstance(how, StarMethod):
        return Epoch(exposure, made.record, None)
    try:
        found, stars = exposure_psf(exposure, how)
    except ValueError as error:
        raise ValueError(f"no PSF could be taken from the stars of the image: {error}") from error
    exposure = eqx.tree_at(lambda e: e.psf, exposure, filled_up(found))
    return Epoch(exposure, made.record, stars)
