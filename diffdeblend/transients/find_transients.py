"""From two images of a piece of sky to what changed on it, in one call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from astropy.table import QTable

from diffdeblend.exposure import Exposure
from diffdeblend.psf import AbstractPSF
from diffdeblend.stars.exposure_psf import StarMethod
from diffdeblend.subtract.difference import Difference
from diffdeblend.subtract.fit import SubtractionFit, background_left, fit_subtraction
from diffdeblend.subtract.fit_steps import Registration
from diffdeblend.subtract.inputs import band_pair, check_pair
from diffdeblend.subtract.subtract import Varying, subtract
from diffdeblend.transients.candidates import find_candidates
from diffdeblend.transients.epoch import Epoch, make_epoch

# What one may say of the PSF of an image.
PSFChoice = StarMethod | AbstractPSF | np.ndarray | None
_PREPARATION = ("mask", "variance", "gain", "read_noise", "saturation", "box_size", "cosmic_rays")


@dataclass(frozen=True, eq=False, repr=False)
class Transients:
    """What changed between two images.

    - `difference`: the proper difference, its significance, flux and errors.
    - `candidates`: a row for each peak of the significance, with its flux and a verdict, the
        strongest first; see `find_candidates`.
    - `new`, `reference`: the images as they were compared, and what their PSFs were taken from.
    """

    difference: Difference
    candidates: QTable
    new: Epoch
    reference: Epoch

    @property
    def transients(self) -> QTable:
        """The candidates that a point explains best."""
        found: Any = self.candidates[np.asarray(self.candidates["verdict"]) == "transient"]
        return found

    def __repr__(self) -> str:
        beta = np.array2string(np.asarray(self.difference.beta), precision=4)
        return (
            f"<Transients {self.difference.shape}: {len(self.transients)} of "
            f"{len(self.candidates)} candidates, beta {beta}>"
        )


def find_transients(
    new: Any,
    reference: Any,
    *,
    psf: PSFChoice | tuple[PSFChoice, PSFChoice] = None,
    align: str | None = None,
    beta: Literal["fit"] | float = "fit",
    shift: Literal["fit"] | tuple[float, float] = "fit",
    background: Literal["fit"] | float = "fit",
    shift_degree: int = 3,
    registration_noise: Literal["fit"] | float = "fit",
    varying: Varying = "auto",
    tile: int = 256,
    threshold: float = 5.0,
    new_settings: Mapping[str, Any] | None = None,
    reference_settings: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
    **settings: Any,
) -> Transients:
    """What is on one image of a piece of sky and not on another, and how sure that is. Host side.

    Each image loses its sky, is given the noise of every pixel, masks and the PSF of its stars;
    flux ratio, registration and background between the two are measured; the proper difference is
    made, and its peaks are judged.

    - `new`, `reference`: each a path of a FITS file, an HDU, an array or an `Exposure`; on the same
        pixels but for shifts of a pixel or two, or else give `align`.
    - `psf`: of both, or a pair, the new one's first: how it is taken from the stars (`StarMethod`),
        or a PSF, or its image in each band. Default: that of an `Exposure` that is given, else
        `StarMethod()`.
    - `align`: "stars", "wcs" or "astroalign" brings the reference onto the pixels of the new image.
    - `beta`, `shift`, `background`: "fit" to measure them, or what they are: the flux of a star in
        the new image over that in the reference, the position in the new one minus that in the
        reference (dx, dy), the background of the new one less beta times that of the reference.
    - `shift_degree`, `registration_noise`, `varying`, `tile`: as in `subtract`.
    - `threshold`: least |S_corr| of a candidate.
    - `new_settings`, `reference_settings`, and any others: settings of `prepare` for one of the
        images, and for both: `mask`, `variance`, `gain`, `read_noise`, `saturation`, `box_size`,
        `cosmic_rays`.
    - `report`: called with the name of each stage as it begins.

    **Raises:** `ValueError` that names the argument, for images that cannot be read, differ in
    shape, have no stars to take a PSF from, or a setting that is not accepted.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27.
    """
    for group in (settings, new_settings or {}, reference_settings or {}):
        if unknown := set(group) - set(_PREPARATION):
            raise ValueError(
                f"no setting {sorted(unknown)}; those of `prepare` are {_PREPARATION}."
            )
    psf_new, psf_reference = psf if isinstance(psf, tuple) else (psf, psf)
    say = report or _nobody
    say("new")
    first = make_epoch(new, psf=psf_new, **{**settings, **(new_settings or {})})
    say("reference")
    onto = first.exposure if align is not None else None
    own = {**settings, **(reference_settings or {})}
    second = make_epoch(reference, psf=psf_reference, onto=onto, align=align, **own)
    check_pair(first.exposure, second.exposure)
    say("subtract")
    fit, numbers = registered(
        first.exposure,
        second.exposure,
        beta=beta,
        shift=shift,
        background=background,
        shift_degree=shift_degree,
    )
    difference = subtract(
        first.exposure,
        second.exposure,
        fit=fit,
        registration_noise=registration_noise,
        varying=varying,
        tile=tile,
        **numbers,
    )
    say("judge")
    candidates = find_candidates(difference, first.exposure, second.exposure, threshold=threshold)
    return Transients(difference, candidates, first, second)


def registered(
    new: Exposure,
    reference: Exposure,
    *,
    beta: Any = "fit",
    shift: Any = "fit",
    background: Any = "fit",
    shift_degree: int = 3,
) -> tuple[SubtractionFit | bool | None, dict[str, Any]]:
    """`fit` and the numbers of `subtract`, where some of them are measured and others are given.

    Arguments and errors as in `find_transients`.
    """
    for name, value in (("beta", beta), ("shift", shift), ("background", background)):
        if isinstance(value, str) and value != "fit":
            raise ValueError(f'`{name}` must be "fit" or what it is; got {value!r}.')
    asked = [isinstance(value, str) for value in (beta, shift, background)]
    if all(asked):
        return True, {"shift_degree": shift_degree}
    dx, dy = (0.0, 0.0) if asked[1] else _pair(shift)
    if not any(asked):
        return None, {"beta": beta, "dx": dx, "dy": dy, "gamma": background}
    if not asked[0]:
        _check_ratio(beta)
    pairs = [band_pair(new, reference, band) for band in range(new.n_bands)]
    degree = shift_degree if asked[1] else 0
    fit = fit_subtraction(new, reference, shift_degree=degree, fit_gamma=False, pairs=pairs)
    if not asked[0]:
        fit = eqx.tree_at(lambda f: f.beta, fit, jnp.full_like(fit.beta, beta))
    if not asked[1]:
        moved = [jnp.full_like(fit.shift_x, value) for value in (dx, dy)]
        fit = eqx.tree_at(lambda f: (f.shift_x, f.shift_y), fit, tuple(moved))
    level = [background] * new.n_bands
    if asked[2]:
        # Of what is taken for true, not of what the fit alone would have it.
        states = [
            Registration(
                beta=fit.beta[band],
                x=fit.shift_x[band],
                y=fit.shift_y[band],
                scatter_beta=fit.residual_beta[band],
                scatter_position=fit.residual[band],
            )
            for band in range(new.n_bands)
        ]
        level = [background_left(pair, state) for pair, state in zip(pairs, states, strict=True)]
    return eqx.tree_at(lambda f: f.gamma, fit, jnp.asarray(level, fit.gamma.dtype)), {}


def _pair(shift: Any) -> tuple[float, float]:
    try:
        dx, dy = (float(value) for value in shift)
    except (TypeError, ValueError) as error:
        raise ValueError(f'`shift` must be "fit" or two numbers; got {shift!r}.') from error
    return dx, dy


def _check_ratio(beta: Any) -> None:
    if not (isinstance(beta, Real) and 0 < float(beta) < np.inf):
        raise ValueError(f'`beta` must be "fit" or a positive number; got {beta!r}.')


def _nobody(_: str) -> None:
    """Nobody listens."""
