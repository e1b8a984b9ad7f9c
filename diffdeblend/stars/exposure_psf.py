"""The PSF of an exposure in all of its bands, by the name of a method."""

from dataclasses import dataclass

import numpy as np

from diffdeblend.exposure import Exposure
from diffdeblend.polynomials import n_terms
from diffdeblend.psf import PSFBasis
from diffdeblend.stars.determine import Method, StarPSF, determine_psf

# Of each method, what `determine_psf` calls it.
_FITS: dict[str, Method] = {
    "moffat": "moffat+residual",
    "gaussian": "gaussian",
    "mixture": "mixture",
    "basis": "kl",
}
METHODS = tuple(_FITS)


@dataclass(frozen=True, kw_only=True)
class StarMethod:
    """How a PSF is taken from stars.

    - `method`: "moffat": a Moffat profile whose shape varies smoothly, with what it misses added as
        far as the stars demand it; "gaussian": an elliptical Gaussian instead; "mixture": two of
        one shape; "basis": principal components of the star images, as ProperImage has them.
    - `inf_loss`: share of power that the images of the basis may lack; default 1e-6, or 0.25 for
        "basis", whose images are those of the stars with their noise. Larger keeps fewer images.
    - `n_basis`: images to keep, in place of `inf_loss`.
    - `smooth`: of the images of "basis", sigma in pixels; 0 for none.
    - `refine`: fit the basis anew, pixel by pixel, to all stars at once; takes seconds.
    - `degree`: of the fields over the image, 0 to 3; 0 is the same PSF everywhere.
    - `reserve`: share of the stars that is kept out to judge the PSF by, drawn by `seed`.
    - `min_snr`: of a star. `size`: of the images, odd; default about ten times the FWHM.

    **Raises:** `ValueError` for another method, or `smooth` with one that has nothing to smooth.
    """

    method: str = "moffat"
    inf_loss: float | None = None
    n_basis: int | None = None
    smooth: float = 0.0
    refine: bool = False
    degree: int = 3
    reserve: float = 0.0
    seed: int = 0
    min_snr: float = 30.0
    size: int | None = None

    def __post_init__(self):
        if self.method not in _FITS:
            raise ValueError(f"`method` must be one of {METHODS}; got {self.method!r}.")
        if self.smooth and self.method != "basis":
            raise ValueError(
                f'`smooth` is for the method "basis"; {self.method!r} is smooth already.'
            )
        if self.inf_loss is not None and self.n_basis is not None:
            raise ValueError("`inf_loss` and `n_basis` say the same thing; give one of them.")
        if self.inf_loss is not None and not 0 <= self.inf_loss < 1:
            raise ValueError(f"`inf_loss` must be at least 0 and below 1; got {self.inf_loss}.")


def exposure_psf(
    exposure: Exposure, method: StarMethod = StarMethod()
) -> tuple[PSFBasis, tuple[StarPSF, ...]]:
    """The PSF of an exposure from its own stars, and what was found in each band. Host side.

    - `exposure`: without its sky, as `diffdeblend.prepare.prepare` makes it.

    **Raises:** `ValueError` for too few stars, or as `determine_psf`.
    """
    found = tuple(_band_psf(exposure, band, method) for band in range(exposure.n_bands))
    return joined_bases([star.psf for star in found]), found


def filled_up(psf: PSFBasis, multiple: int = 8) -> PSFBasis:
    """The same PSF with images of zeros behind its own, up to a multiple of a number.

    What is compiled for it then serves others of a similar number of images.
    """
    missing = -psf.n_basis % multiple
    if not missing:
        return psf
    images = np.pad(np.asarray(psf.images), ((0, 0), (0, missing), (0, 0), (0, 0)))
    coefficients = np.pad(np.asarray(psf.coefficients), ((0, 0), (0, missing), (0, 0)))
    return PSFBasis(images, coefficients, psf.shape, psf.degree)


def joined_bases(bases: "list[PSFBasis] | tuple[PSFBasis, ...]") -> PSFBasis:
    """Bases of one band each as one of all bands; the smaller ones are filled up with zeros.

    **Raises:** `ValueError` for bases of images of different shapes, or none.
    """
    if not bases or len({psf.shape for psf in bases}) != 1:
        raise ValueError(f"`bases` need one shape; got {[psf.shape for psf in bases]}.")
    if len(bases) == 1:
        return bases[0]
    n_basis = max(psf.n_basis for psf in bases)
    degree = max(psf.degree for psf in bases)
    height, width = (max(psf.images.shape[axis] for psf in bases) for axis in (2, 3))
    images, coefficients = [], []
    for psf in bases:
        missing = n_basis - psf.n_basis
        around = [(n - m) // 2 for n, m in zip((height, width), psf.images.shape[2:], strict=True)]
        pads = ((0, 0), (0, missing), *((n, n) for n in around))
        images.append(np.pad(np.asarray(psf.images), pads))
        # Terms come in the order of their degree, so that those of a higher one are behind.
        more = n_terms(degree) - n_terms(psf.degree)
        coefficients.append(np.pad(np.asarray(psf.coefficients), ((0, 0), (0, missing), (0, more))))
    return PSFBasis(np.concatenate(images), np.concatenate(coefficients), bases[0].shape, degree)


def _band_psf(exposure: Exposure, band: int, how: StarMethod) -> StarPSF:
    pixels = np.asarray(exposure.image[band], np.float32)
    variance = np.asarray(exposure.variance[band], np.float32)
    masked = ~np.asarray(exposure.good[band])
    return determine_psf(
        pixels,
        variance,
        masked,
        method=_FITS[how.method],
        n_basis=how.n_basis,
        inf_loss=how.inf_loss,
        smooth=how.smooth,
        refine=how.refine,
        degree=how.degree,
        reserve=how.reserve,
        seed=how.seed,
        min_snr=how.min_snr,
        size=how.size,
    )
