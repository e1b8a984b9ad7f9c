"""How a telescope sees a point, by GalSim: PSFs from a survey's numbers, and drawn.

Objects of GalSim are in arcseconds, and do not contain the response of the pixel.
"""

import inspect
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import j0

from diffdeblend.psf import SampledPSF

if TYPE_CHECKING:
    import galsim

    from diffdeblend.simulate.survey import Band, Survey

# What `Survey.psf` may be; GSObject is not named, so that GalSim is not imported before it is used.
PSF = Any
_ARCSEC = 180 * 3600 / np.pi
# GalSim's own settings leave 3e-5 of the peak of a PSF (what wraps around); these leave 5e-7.
_DRAWN = {"maxk_threshold": 1e-6, "kvalue_accuracy": 1e-6, "maximum_fft_size": 16384}
# GalSim's Airy gives NaN at single frequencies, seldom: another threshold has others.
_FOLDING = (1e-3, 0.97e-3, 0.93e-3)
# Of the frequencies that samples must carry: what is beyond is 3e-6 of the peak of a star.
_CARRIED = {"maxk_threshold": 1e-5, "kvalue_accuracy": 1e-5}


def default_psf(survey: "Survey", band: "Band") -> "galsim.GSObject":
    """Seeing of the band's `psf_fwhm`, a Kolmogorov profile, seen through an obscured mirror.

    The same as the WeakLensingDeblending package and BlendingToolKit take. Diffraction comes on
    top: 0.003 to 0.06 arcsec on the ground, but in space, where `psf_fwhm` contains it already,
    the PSF is 18 to 54 % too wide (Euclid VIS: 0.220 for 0.170); `space_psf` is right there.

    **Raises:** `ValueError` if the survey has a mirror and the band no wavelength.
    """
    import galsim

    seeing = galsim.Kolmogorov(fwhm=band.psf_fwhm)
    if survey.mirror_diameter == 0:
        return seeing
    return galsim.Convolution([seeing, _diffraction(survey, band)])


def delivered_psf(survey: "Survey", band: "Band") -> "galsim.GSObject":
    """As `default_psf`, with less seeing, so that the PSF with diffraction is `psf_fwhm` wide.

    **Raises:** as `default_psf`.
    """
    import galsim

    width = _blur(survey, band, galsim.Kolmogorov(fwhm=1.0))
    return _blurred(survey, band, galsim.Kolmogorov(fwhm=width) if width > 0 else None)


def space_psf(survey: "Survey", band: "Band") -> "galsim.GSObject":
    """Diffraction, blurred by a Gaussian (jitter, the detector) until it is `psf_fwhm` wide.

    Where diffraction alone is wider, as in the longest bands of Roman (by up to 2 %; 18 % in its
    F146, where one wavelength stands for an octave), there is no blur.

    **Raises:** as `default_psf`.
    """
    import galsim

    width = _blur(survey, band, galsim.Gaussian(fwhm=1.0))
    return _blurred(survey, band, galsim.Gaussian(fwhm=width) if width > 0 else None)


def draw_psfs(
    survey: "Survey", rng: np.random.Generator | None = None
) -> "tuple[galsim.GSObject, ...]":
    """The PSF of each band, of unit flux; one that varies is drawn from `rng`, band by band.

    **Raises:** `ValueError` if `survey.psf` gives something else than an object of GalSim, if its
    flux is not positive, or if it varies and there is no `rng`.
    """
    each = survey.psf if isinstance(survey.psf, tuple) else (survey.psf,) * len(survey.bands)
    return tuple(
        _one_psf(psf, survey, band, rng) for psf, band in zip(each, survey.bands, strict=True)
    )


def varies(survey: "Survey") -> bool:
    """Whether `draw_psfs` needs random numbers."""
    import galsim

    each = survey.psf if isinstance(survey.psf, tuple) else (survey.psf,) * len(survey.bands)
    return any(
        not isinstance(psf, galsim.GSObject)
        and callable(psf)
        and not isinstance(psf(survey, band), galsim.GSObject)
        for psf, band in zip(each, survey.bands, strict=True)
    )


def needed_oversampling(objects: "Sequence[galsim.GSObject]", pixel_scale: float) -> int:
    """The fewest samples a pixel that carry all frequencies that the PSFs pass, at 1e-5 of them."""
    highest = max(_with_settings(psf, **_CARRIED).maxk for psf in objects)
    # GalSim lets a PSF made of pixels end 0.8 % beyond their Nyquist frequency.
    return max(1, int(np.ceil(highest * pixel_scale / np.pi - 0.01)))


def sampled_psf(
    objects: "Sequence[galsim.GSObject]",
    pixel_scale: float,
    side: int,
    oversampling: int | None = 1,
) -> SampledPSF:
    """PSFs as the renderer takes them, with the response of the pixel, and not normalised.

    What the image leaves out of the wings is missing in what is drawn with it, as it is in an image
    that GalSim draws on a stamp of this size.

    - `objects`: one a band.
    - `pixel_scale`: of the exposure, arcsec.
    - `side`: of the image, an odd number of pixels of the exposure.
    - `oversampling`: samples a pixel; None: `needed_oversampling`.

    **Raises:** `ValueError` for no objects, an even `side` or a wrong `oversampling`.
    """
    if not isinstance(side, int | np.integer) or side < 1 or side % 2 == 0:
        raise ValueError(f"`side` must be an odd number of pixels; got {side!r}.")
    if len(objects) == 0:
        raise ValueError("`objects` needs one object of GalSim for each band; got none.")
    if oversampling is None:
        oversampling = needed_oversampling(objects, pixel_scale)
    if not isinstance(oversampling, int | np.integer) or oversampling < 1:
        raise ValueError(f"`oversampling` must be an integer of at least 1; got {oversampling!r}.")
    # Odd, with a sample in the middle of the middle pixel, and no wider than `side` pixels.
    samples = int(side * oversampling) - (oversampling % 2 == 0)
    images = [_samples(psf, pixel_scale, samples, int(oversampling)) for psf in objects]
    return SampledPSF(
        jnp.asarray(np.stack(images), dtype=jnp.result_type(float)),
        int(oversampling),
        normalise=False,
    )


def pixel_psf(
    objects: "Sequence[galsim.GSObject]", pixel_scale: float, side: int
) -> Float[np.ndarray, "band y x"]:
    """PSFs at the pixels of the exposure, with their response, as a measurement needs them.

    Each sums to the share of the light that is within the image.

    - `side`: of the image, an odd number of pixels.

    **Raises:** as `sampled_psf`.
    """
    if not isinstance(side, int | np.integer) or side < 1 or side % 2 == 0:
        raise ValueError(f"`side` must be an odd number of pixels; got {side!r}.")
    return np.stack([_samples(psf, pixel_scale, int(side), 1) for psf in objects])


def _samples(
    psf: "galsim.GSObject", pixel_scale: float, samples: int, oversampling: int
) -> Float[np.ndarray, "y x"]:
    """Light that a pixel of `pixel_scale` receives around each of the samples, in double."""
    import galsim

    scale = pixel_scale / oversampling
    image = np.array(np.nan)
    for folding in _FOLDING:
        # What wraps around the transform is 2e-4 of the light otherwise, and 1e-5 with this.
        smallest = 512 * oversampling
        settings = {**_DRAWN, "folding_threshold": folding, "minimum_fft_size": smallest}
        pixel = galsim.Pixel(pixel_scale, gsparams=galsim.GSParams(**settings))
        seen = galsim.Convolution([_with_settings(psf, **settings), pixel])
        drawn = seen.drawImage(nx=samples, ny=samples, scale=scale, method="no_pixel", dtype=float)
        # GalSim gives the light on the area of a sample.
        image = drawn.array * oversampling**2
        if np.isfinite(image).all():
            return image
    raise ValueError(f"`objects`: GalSim draws {psf} with values that are not finite.")


def _with_settings(psf: "galsim.GSObject", **settings: Any) -> "galsim.GSObject":
    """The object with other accuracies, whatever was asked of it before.

    GalSim's `withGSParams` takes over the highest frequency of a compound object that was computed
    with the old ones: what it gives depends on whether the object had been drawn.
    """
    return _forgetful(psf).withGSParams(**settings)


def _forgetful(psf: "galsim.GSObject") -> "galsim.GSObject":
    parts = {
        name: [_forgetful(part) for part in value] if isinstance(value, list) else _forgetful(value)
        for name, value in vars(psf).items()
        if name in ("_obj_list", "_orig_obj", "_original")
    }
    if not parts:
        return psf
    made = copy(psf)
    for name in ("_maxk", "_stepk", "_sbp"):
        vars(made).pop(name, None)
    vars(made).update(parts)
    return made


def _diffraction(survey: "Survey", band: "Band") -> "galsim.GSObject":
    import galsim

    if band.wavelength is None:
        raise ValueError(
            f"`wavelength` of band {band.name!r} is not known, and diffraction depends on it. "
            "Give it, or a `mirror_diameter` of 0."
        )
    width = band.wavelength * 1e-9 / survey.mirror_diameter * _ARCSEC
    # GalSim counts obscuration in diameter, surveys in area.
    return galsim.Airy(lam_over_diam=width, obscuration=np.sqrt(survey.obscuration))


def _blurred(survey: "Survey", band: "Band", blur: "galsim.GSObject | None") -> "galsim.GSObject":
    import galsim

    parts = [] if survey.mirror_diameter == 0 else [_diffraction(survey, band)]
    parts += [] if blur is None else [blur]
    return parts[0] if len(parts) == 1 else galsim.Convolution(parts)


def _blur(survey: "Survey", band: "Band", unit: "galsim.GSObject") -> float:
    """FWHM of a blur that makes diffraction `psf_fwhm` wide, 0 if it already is; arcsec.

    - `unit`: the blur with a FWHM of 1 arcsec.
    """
    if survey.mirror_diameter == 0:
        return band.psf_fwhm
    mirror = _diffraction(survey, band)
    highest = min(mirror.maxk, 60 / band.psf_fwhm)
    # Nodes of Gauss and Legendre: the profile at a radius is an integral over k.
    node, weight = np.polynomial.legendre.leggauss(300)
    k = highest * (node + 1) / 2
    passed = np.array([mirror.kValue(value, 0).real for value in k]) * weight * k

    def rest(width: float) -> float:
        """How much brighter than half of the peak the PSF is at half of the wanted width."""
        through = passed * np.array([unit.kValue(width * value, 0).real for value in k])
        return float(through @ j0(k * band.psf_fwhm / 2) / through.sum() - 0.5)

    if rest(0.0) >= 0:
        return 0.0
    width: Any = brentq(rest, 0.0, band.psf_fwhm, xtol=1e-7 * band.psf_fwhm)
    return width


def _one_psf(
    psf: Any, survey: "Survey", band: "Band", rng: np.random.Generator | None
) -> "galsim.GSObject":
    import galsim

    made = psf
    if not isinstance(made, galsim.GSObject) and callable(made):
        made = made(survey, band)
    if not isinstance(made, galsim.GSObject) and callable(made):
        _check_takes_rng(made)
        if rng is None:
            raise ValueError(f"`rng` is needed: `psf` of {survey.name} varies.")
        made = made(rng)
    if not isinstance(made, galsim.GSObject):
        raise ValueError(
            f"`psf` of {survey.name} must give a galsim.GSObject for band {band.name!r}, or a "
            f"function of a numpy Generator that does; got {type(made).__name__}."
        )
    if not (np.isfinite(made.flux) and made.flux > 0):
        raise ValueError(f"`psf` of band {band.name!r} needs a positive flux; got {made.flux}.")
    # A light loss in the PSF would be one of every source; and 1 is 1 only up to rounding.
    return made if abs(made.flux - 1) < 1e-14 else cast("galsim.GSObject", made.withFlux(1.0))


def _check_takes_rng(function: Any) -> None:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise ValueError(
            "`psf` gives a function that varies it; it must take one argument, a numpy Generator, "
            "so that the same seed gives the same PSFs."
        ) from None
