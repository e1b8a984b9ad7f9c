"""Take a blend apart: positions in, a fitted scene with a catalogue out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from astropy.table import QTable
from jaxtyping import Array, ArrayLike, Bool, Float
from scipy.ndimage import gaussian_filter

from diffdeblend.background import (
    AbstractBackground,
    ConstantBackground,
    PolynomialBackground,
)
from diffdeblend.components import AnySource, Kind, Stack
from diffdeblend.deblend.catalog import Sources, make_catalog, versions
from diffdeblend.deblend.choose import choose_kinds, n_parameters, worth_trying
from diffdeblend.deblend.clock import Clock
from diffdeblend.deblend.decoded import fit_exposure, sources_of
from diffdeblend.deblend.decoded_steps import check_prior, refuse_with_prior
from diffdeblend.deblend.measure import measure_sources, signal_to_noise
from diffdeblend.deblend.parametric import check_family, mixture_settings, refuse_of_decoders
from diffdeblend.deblend.refine import (
    DRAWN,
    asks_for_pixels,
    draw,
    own_chi2,
    padded,
    refine,
)
from diffdeblend.deblend.start import start_scene
from diffdeblend.detect import find_peaks
from diffdeblend.detect.peaks import sky_level
from diffdeblend.exposure import Exposure
from diffdeblend.fit import Fit, LevenbergMarquardt, fit
from diffdeblend.fit.prior import CostedPrior, ShapePrior, shape_prior
from diffdeblend.fit.unknowns import Unknowns, free_numbers
from diffdeblend.grid import make_grid
from diffdeblend.positions import check_positions
from diffdeblend.priors.decoder_prior import DecoderPrior
from diffdeblend.priors.parametric_prior import ParametricPrior
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene


@dataclass(frozen=True)
class _Model:
    """How a word of the user starts a source: its kind, and an index that is held."""

    kind: Kind
    index: float | None = None


# Families that "auto" tries.
_TRIED = ("sersic", "bulge_disc", "multi_gaussian")
# "auto" and "free_form" start as Sersic galaxies.
MODELS: dict[str, _Model] = {
    "auto": _Model(Kind.SERSIC),
    "point": _Model(Kind.POINT),
    "gaussian": _Model(Kind.SERSIC, 0.5),
    "exponential": _Model(Kind.SERSIC, 1.0),
    "de_vaucouleurs": _Model(Kind.SERSIC, 4.0),
    "sersic": _Model(Kind.SERSIC),
    "bulge_disc": _Model(Kind.BULGE_DISC),
    "multi_gaussian": _Model(Kind.MULTI_GAUSSIAN),
    "free_form": _Model(Kind.SERSIC),
}


@dataclass(frozen=True)
class Deblended:
    """A blend taken apart. Host side, numpy arrays.

    - `exposure`: what was given.
    - `scene`: sources and sky; `fit`: the parametric fit with its covariance.
    - `sources`: positions, fluxes, shapes and flags of the sources, in the order given.
    - `catalog`: the same as a table with units.
    - `models`: image of each source as the camera sees it, `(source, band, y, x)`.
    - `background`: the sky, `(band, y, x)`.
    - `residual`: data minus all of it, 0 where a pixel is not used.
    - `summary`: settings, figures of merit, seconds by stage.
    """

    exposure: Exposure
    scene: Scene
    fit: Fit
    sources: Sources
    catalog: QTable
    models: Float[np.ndarray, "source band y x"]
    background: Float[np.ndarray, "band y x"]
    residual: Float[np.ndarray, "band y x"]
    summary: dict[str, Any] = field(repr=False)


def deblend(
    exposure: Exposure,
    positions: Float[ArrayLike, "source 2"] | None = None,
    *,
    model: str | None = None,
    background: str = "constant",
    free_form: bool | None = None,
    model_error: float = 0.02,
    prior: DecoderPrior | ParametricPrior | None = None,
    temperature: float = 1.0,
    fallback: bool = True,
    robust: bool = False,
    false_alarm: float = 0.01,
    report: Callable[[str], None] | None = None,
) -> Deblended:
    """Take a blend apart.

    - `positions`: (x, y) of each source in pixels, good to half a pixel; without them, the peaks of
        the matched-filtered image are taken.
    - `model`: of the sources, one of `MODELS`. With `"auto"`, the default, each source becomes the
        one of point, Sersic, bulge + disc and multi-Gaussian that has the least BIC.
    - `background`: `"constant"` or `"linear"` in each band, fitted with the sources, or `"none"`.
    - `free_form`: whether `"auto"` may refine a source with free pixels where its residuals ask
        for it, as it does by default; the catalogue says which.
    - `model_error`: how far parametric models are from real galaxies, as a fraction of the local
        light; added to the noise in quadrature, so that faint sources are not bent to mend what a
        model of a bright neighbour leaves. 0 for simulations from the same models.
    - `prior`: a learned prior. With a `DecoderPrior`, instead of `model`, sources are galaxies as
        its decoder draws them. A `ParametricPrior` goes beside a `model`: it says which sizes and
        profiles go together, for its family of sources; the kinds of `"auto"` are chosen without
        it. It needs the pixel scale, and where it has features of light zero points, too.
        `temperature`: variance of the latents under it; of a mixture, factor on covariances.
    - `fallback`, `robust`, `false_alarm`: what becomes of sources that are no such galaxies, as in
        `fit_batch`.
    - `report`: called with a line of text as each stage begins.

    **Raises:** `ValueError` for an unknown model or background, positions outside of the image, too
    close together or none at all, or a prior of another pixel scale, of a frame wider than the PSF,
    beside a model that has nothing to do with it, or that asks for what the exposure lacks.
    """
    clock = Clock(report)
    placed = None
    if isinstance(prior, ParametricPrior):
        refuse_of_decoders(robust=robust)
        placed = prior.on(exposure, temperature=temperature)
    elif prior is not None:
        refuse_with_prior(model=None if model == "auto" else model, free_form=free_form or None)
        check_prior(prior, temperature, false_alarm)
        prior.check(exposure.header.pixel_scale, exposure.psf)
    model = "auto" if model is None else model
    free_form = free_form is not False
    if model not in MODELS:
        raise ValueError(f"`model` must be one of {', '.join(MODELS)}; got {model!r}.")
    clock.stage("start")
    if positions is None:
        positions = find_peaks(exposure)
        if not len(positions):
            raise ValueError(
                "`positions` was not given, and no peak above 5 sigma was found; give positions."
            )
    start_xy = check_positions(positions, exposure.shape)
    chosen = MODELS[model]
    if placed is not None:
        check_family(placed.family, model, chosen.kind, _TRIED)
    start = start_scene(
        exposure,
        start_xy,
        chosen.kind,
        1.5 if chosen.index is None else chosen.index,
        _background(background, exposure),
    )
    data, weight = exposure.data, exposure.weight
    lenient = with_model_error(exposure, model_error)
    if isinstance(prior, DecoderPrior):
        clock.stage("fit")
        decoded = fit_exposure(
            start,
            lenient,
            prior,
            temperature=temperature,
            fallback=fallback,
            robust=robust,
            false_alarm=false_alarm,
        )
        clock.stage("catalogue")
        models, found = decoded.images, decoded.fit
        assert models is not None
        sky = (
            np.zeros(data.shape)
            if found.scene.background is None
            else np.asarray(found.scene.background(make_grid(exposure.shape, DRAWN)))
        )
        residual = np.where(np.asarray(weight) > 0, np.asarray(data) - sky - models.sum(axis=0), 0)
        chi2, count = own_chi2(models, residual, np.asarray(weight))
        sources = sources_of(decoded, exposure, start_xy, chi2 / np.maximum(count, 1))
        settings = {
            "prior": prior.training.population,
            "temperature": temperature,
            "fallback": fallback,
            "robust": robust,
            "false_alarm": false_alarm,
            "background": background,
            "model_error": model_error,
        }
        return _deblended(
            exposure, found.scene, found, sources, models, sky, residual, settings, clock
        )
    around = shape_prior(start)
    learned = around if placed is None else placed.around(around)
    clock.stage("fit")
    found = fit(
        start,
        lenient,
        prior=learned,
        free=None if chosen.index is None else _no_index,
        # A choice of models needs a rough fit only.
        method=LevenbergMarquardt(tolerance=1.0 if model == "auto" else 0.05),
        quality=DRAWN,
    )
    if model == "auto":
        clock.stage("choose")
        found = _choose(found, lenient, around, learned)
    clock.stage("models")
    models, sky, residual = _images(found.scene, data, weight, exposure.psf)
    names = _names(found.scene, chosen, model)
    chi2, count = own_chi2(models, residual, np.asarray(weight))
    scene, refined = found.scene, np.zeros(len(names), dtype=bool)
    wants = np.ones(len(names), dtype=bool)
    if model == "auto":
        wants = asks_for_pixels(chi2, count, signal_to_noise(models, np.asarray(weight)))
    if (model == "free_form" or (model == "auto" and free_form)) and wants.any():
        clock.stage("refine")
        # Real weights again, for those sources alone: the closer the start, the less is left.
        closer = fit(
            found.scene,
            exposure,
            prior=shape_prior(found.scene),
            free=only(found.scene, wants),
            method=LevenbergMarquardt(tolerance=1.0),
            quality=DRAWN,
        )
        scene = refine(closer.scene, data, weight, exposure.psf, wants)
        models, sky, residual = _images(scene, data, weight, exposure.psf)
        refined = wants
        chi2, count = own_chi2(models, residual, np.asarray(weight))
    clock.stage("catalogue")
    names = ["free_form" if r else n for n, r in zip(names, refined, strict=True)]
    sources = measure_sources(
        found,
        exposure,
        names,
        start_xy,
        models,
        chi2 / np.maximum(count, 1),
        refined,
        _fluxes(scene),
    )
    settings = {
        "model": model,
        "background": background,
        "free_form": free_form,
        "model_error": model_error,
        **mixture_settings(prior, temperature),
    }
    return _deblended(exposure, scene, found, sources, models, sky, residual, settings, clock)


def _deblended(
    exposure: Exposure,
    scene: Scene,
    found: Fit,
    sources: Sources,
    models: np.ndarray,
    sky: np.ndarray,
    residual: np.ndarray,
    settings: dict[str, Any],
    clock: Clock,
) -> Deblended:
    """All of it with catalogue and summary."""
    catalog = make_catalog(sources, exposure.header)
    clock.stage(None)
    weight = np.asarray(exposure.weight)
    total = np.sum(weight * residual**2, axis=(1, 2))
    used = np.sum(weight > 0, axis=(1, 2))
    summary = {
        "settings": settings,
        "versions": versions(),
        "n_sources": len(sources.x),
        "n_converged": int(np.sum(sources.flags & 1 == 0)),
        "n_pixels": int(used.sum()),
        "reduced_chi2": float(total.sum() / used.sum()),
        "reduced_chi2_by_band": {
            b: float(c / n) for b, c, n in zip(exposure.bands, total, used, strict=True)
        },
        "n_effective_parameters": float(found.covariance.n_effective),
        "steps": int(found.steps),
        "seconds": clock.seconds,
    }
    return Deblended(exposure, scene, found, sources, catalog, models, sky, residual, summary)


def _choose(found: Fit, exposure: Exposure, weak: ShapePrior, prior: CostedPrior) -> Fit:
    """The fit with the model of least BIC for each source; never worse than the one given.

    - `weak`: of the choice; `prior`: of the fit after it.
    """
    for _ in range(2):
        stack = found.scene.sources[0]
        before = np.asarray(_any_source(stack).kind)
        kinds, start = choose_kinds(
            found.scene,
            exposure.data,
            exposure.weight,
            exposure.psf,
            weak,
            worth_trying(found),
            DRAWN,
        )
        if (kinds == before)[np.asarray(stack.active)].all():
            break
        again = fit(start, exposure, prior=prior, quality=DRAWN)
        if not _criterion(again, kinds) < _criterion(found, before):
            break
        found = again
    return found


def only(scene: Scene, chosen: Bool[np.ndarray, "source"]) -> Unknowns:
    """All numbers free but the shapes of sources that are not chosen."""
    free = free_numbers(scene, None)
    flags = padded(chosen, scene.sources[0].size).astype(scene.dx.dtype)
    return eqx.tree_at(lambda f: f.shape, free, (free.shape[0] * flags[:, None],))


def _criterion(found: Fit, kinds: np.ndarray) -> float:
    """BIC of a whole fit."""
    active = np.asarray(found.scene.sources[0].active)
    used = int(found.n_pixels.sum())
    count = sum(n_parameters(Kind(int(k)), found.scene.n_bands) for k in kinds[active])
    return float(found.chi2.sum()) + count * np.log(max(used, 2))


def _no_index(scene: Scene) -> list[Array]:
    """All that is free where the index is held."""
    members = _any_source(scene.sources[0])
    free = [members.flux, members.x, members.y, members.radius, members.ellipticity]
    return free if scene.background is None else [*free, scene.background.coefficients]


def with_model_error(exposure: Exposure, fraction: float) -> Exposure:
    """The exposure with a variance that allows for models wrong by a fraction of the light.

    **Raises:** `ValueError` if `fraction` is not between 0 and 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"`model_error` must be at least 0 and below 1; got {fraction}.")
    data = np.asarray(exposure.data, dtype=float)
    weight = np.asarray(exposure.weight)
    level = sky_level(data, weight > 0)[:, None, None]
    # Smoothed over three pixels: the allowance must not follow the noise.
    light = np.stack([gaussian_filter(band, 1.0) for band in data - level])
    allowance = (fraction * np.maximum(light, 0)) ** 2
    variance = exposure.variance + jnp.asarray(allowance, exposure.variance.dtype)
    return eqx.tree_at(lambda e: e.variance, exposure, variance)


def _background(word: str, exposure: Exposure) -> AbstractBackground | None:
    n_bands, dtype = exposure.n_bands, exposure.image.dtype
    if word == "none":
        return None
    if word == "constant":
        return ConstantBackground(jnp.zeros(n_bands, dtype))
    if word == "linear":
        return PolynomialBackground(jnp.zeros((n_bands, 3), dtype))
    raise ValueError(f"`background` must be none, constant or linear; got {word!r}.")


def _images(
    scene: Scene, data: Array, weight: Array, psf: AbstractPSF
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image of each source in the order given, the sky, and the residual."""
    each, sky, left = draw(scene, data, weight, psf)
    found: dict[int, np.ndarray] = {}
    for stack, images in zip(scene.sources, each, strict=True):
        for place in np.flatnonzero(np.asarray(stack.active)):
            found[int(stack.rank[place])] = np.asarray(images[place])
    return np.stack([found[r] for r in sorted(found)]), np.asarray(sky), np.asarray(left)


def _fluxes(scene: Scene) -> np.ndarray:
    """Total flux of each source, `(source, band)`."""
    found: dict[int, np.ndarray] = {}
    for stack in scene.sources:
        total = np.asarray(stack.members.flux, float).reshape(stack.size, -1, scene.n_bands)
        for place in np.flatnonzero(np.asarray(stack.active)):
            found[int(stack.rank[place])] = total[place].sum(axis=0)
    return np.stack([found[r] for r in sorted(found)])


def _names(scene: Scene, chosen: _Model, model: str) -> list[str]:
    """Name of the model of each source."""
    stack = scene.sources[0]
    kinds = np.asarray(_any_source(stack).kind)[np.asarray(stack.active)]
    if chosen.index is not None:
        return [model] * len(kinds)
    return [Kind(int(k)).name.lower() for k in kinds]


def _any_source(stack: Stack) -> AnySource:
    assert isinstance(stack.members, AnySource)
    return stack.members
