"""Fit any number of blends: ragged in, ragged out, a few compiled programs in between."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.choose import choose_kinds
from diffdeblend.batch.decoded import SIZES as DECODED_SIZES
from diffdeblend.batch.decoded import check_data, fit_decoded
from diffdeblend.batch.driver import run_tasks
from diffdeblend.batch.free_form import CAUTIOUS, FreeForm
from diffdeblend.batch.halve import LARGE, halved, worth_halving
from diffdeblend.batch.prepare import Preparation, quality_for
from diffdeblend.batch.program import Setup, fit_in_turn
from diffdeblend.batch.queue import fit_in_queue
from diffdeblend.batch.refine import refine_found
from diffdeblend.batch.results import Found, empty, set_flags
from diffdeblend.batch.task import Guess, Packed, Task
from diffdeblend.components import Kind
from diffdeblend.deblend.choose import n_parameters
from diffdeblend.deblend.deblend import MODELS
from diffdeblend.deblend.decoded_steps import refuse_with_prior
from diffdeblend.deblend.parametric import check_family, refuse_of_decoders
from diffdeblend.fit import FirstOrder, Fit, LevenbergMarquardt
from diffdeblend.fit.fit import Method
from diffdeblend.grid import Quality
from diffdeblend.priors.decoder_prior import DecoderPrior
from diffdeblend.priors.parametric_prior import ParametricPrior
from diffdeblend.priors.scene_prior import PixelPrior
from diffdeblend.psf import AbstractPSF

# Steps of a fit after which kinds are chosen.
_FIRST_STEPS = 25
# From so many blends on it pays to compile for more shapes.
MANY = 256
# Fits side by side on an accelerator.
_LANES = 1024
_BACKGROUND_TERMS = {"none": 0, "constant": 1, "linear": 3}


def fit_batch(
    blends: Iterable[Blend],
    *,
    model: str | None = None,
    kinds: Sequence[Int[np.ndarray, "source"]] | None = None,
    prior: DecoderPrior | PixelPrior | None = None,
    temperature: float = 1.0,
    fallback: bool = True,
    robust: bool = False,
    false_alarm: float = 0.01,
    background: str = "constant",
    model_error: float = 0.02,
    position_error: float = 0.5,
    trim: bool = True,
    method: Method | optax.GradientTransformation | None = None,
    restarts: int = 2,
    covariance: bool = False,
    free_form: FreeForm | bool = False,
    images: bool = False,
    memory: float = 1e9,
    sizes: Sequence[int] | None = None,
    fine: bool | None = None,
    sources: Sequence[int] | None = None,
    quality: Quality | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Found:
    """Fit many blends with parametric models, and refine them with free pixels where asked to.

    Each blend is fitted as if it were alone: what is found does not depend on the others, and on
    their number by rounding alone (see `fine`). Programs
    are compiled for a few sizes of stamp and numbers of sources; a second call compiles nothing.

    - `blends`: from `make_blend`, `blend_of_arrays` or `cut_blends`; all with the same bands.
    - `model`: of all sources, one of `MODELS` but for `"multi_gaussian"`. With `"auto"`, the
        default, each source becomes the one of point, Sersic and bulge + disc of least BIC. With
        `"free_form"` all are fitted as Sersic galaxies, and the bright ones then refined with free
        pixels.
    - `kinds`: the `Kind` of each source of each blend, where it is known; instead of `model`.
    - `prior`: a learned prior; instead of `model`. Sources are then galaxies as its decoder draws
        them, and what is found is a `FoundDecoded`: see `temperature`, `fallback` and `robust`. Or
        `ParametricPrior.on(...)`, beside a `model`: what sizes and profiles go together, for its
        family of sources; kinds are chosen without it.
    - `temperature`: variance of the latents under the prior: 1 is what errors need, a larger one
        trusts the prior less.
    - `fallback`: give a source that is out of the prior's domain, or as compact as a star, to the
        one of point, Sersic and bulge + disc of greatest evidence, where that is greater than the
        decoder's, and fit the blend again. The flags say which are out of domain; errors of these
        allow for 7 % of their flux, whatever model they have, but for stars.
    - `robust`: fit each blend with Sersic galaxies, too; fluxes are then means over both fits, and
        errors hold what these differ by. The catalogue's models stay those of the first.
    - `false_alarm`: share of the prior's own galaxies that may be flagged as out of its domain.
    - `background`: `"constant"` or `"linear"` in each band, fitted with the sources, or `"none"`.
    - `model_error`: how far models are from real galaxies, as a fraction of the local light, added
        to the noise in quadrature. 0 for simulations from the same models.
    - `position_error`: standard deviation of the positions given, in pixels and along each axis.
    - `trim`: cut stamps down to where the sources are seen; the cost follows the area.
    - `method`: `LevenbergMarquardt()` by default; or any other method of `fit`, or any Optax
        transformation.
    - `restarts`: how many other starts a blend gets that does not converge.
    - `covariance`: keep the covariance of all numbers of each blend.
    - `free_form`: whether to refine with free pixels the sources whose residuals ask for it; or
        how, as a `FreeForm`; `CAUTIOUS` takes all bright sources. Fluxes and chi2 of their blends
        are then those of the free pixels, errors and shapes those of the model before.
    - `images`: with free pixels, keep the images of all sources; they take memory.
    - `memory`: bytes that stamps and results under way may take.
    - `sizes`: heights and widths of stamps, in pixels, that programs are compiled for: a stamp is
        padded to the next one. More of them fit faster and compile longer. By default 64, 128
        and 256; with a decoder, more.
    - `fine`: compile programs for more numbers of sources, too: a third faster, and half as long
        again to compile. None: where there are at least 256 blends.
    - `sources`: numbers of sources, increasing, that programs are compiled for, whatever `fine`
        says: a blend is padded to the next one, or to a multiple of the last.
    - `quality`: how finely scenes are drawn; by default as finely as the PSFs ask for.
    - `report`: called with the number of finished fits and of those known to be needed.

    **Raises:** `ValueError` for an unknown model or background, bands that differ, kinds that do
    not fit the sources, or a prior that does not fit the data or what else is asked for.
    """
    if isinstance(prior, ParametricPrior):
        light = "" if prior.n_shapes == len(prior.names) else ", zero_points=..., bands=..."
        raise ValueError(
            "`prior` must know how wide pixels are: give `prior=prior.on(exposure)`, or "
            f"`prior=prior.on(pixel_scale=...{light})`."
        )
    learned = None
    if isinstance(prior, PixelPrior):
        refuse_of_decoders(robust=robust)
        if temperature != 1:
            raise ValueError(
                "`temperature` of a parametric prior: give `prior.on(..., temperature=...)`; got "
                f"{temperature}."
            )
        learned, prior = prior, None
    if prior is not None:
        refuse_with_prior(
            model=None if model == "auto" else model, kinds=kinds, free_form=free_form or None
        )
    model = "auto" if model is None else model
    if model not in MODELS or model == "multi_gaussian":
        allowed = [name for name in MODELS if name != "multi_gaussian"]
        raise ValueError(f"`model` must be one of {', '.join(allowed)}; got {model!r}.")
    if background not in _BACKGROUND_TERMS:
        raise ValueError(f"`background` must be none, constant or linear; got {background!r}.")
    if not 0 <= model_error < 1:
        raise ValueError(f"`model_error` must be at least 0 and below 1; got {model_error}.")
    if sources is not None and (not sources or list(sources) != sorted({*map(int, sources)} - {0})):
        raise ValueError(f"`sources` must be increasing integers from 1; got {sources!r}.")
    chosen = MODELS[model]
    if learned is not None and kinds is None:
        check_family(learned.family, model, chosen.kind, ("sersic", "bulge_disc"))
    if sizes is None:
        sizes = DECODED_SIZES if prior is not None else (64, 128, 256)
    prepare = Preparation(
        model_error,
        _BACKGROUND_TERMS[background],
        trim,
        1.5 if chosen.index is None else chosen.index,
        tuple(sizes),
        position_error,
        Kind.BULGE_DISC if model == "auto" and kinds is None and prior is None else None,
    )
    given = list(blends)
    if prior is not None:
        check_data(given, prior, temperature, false_alarm)
    if kinds is not None and len(kinds) != len(given):
        raise ValueError(f"`kinds` needs one entry a blend, {len(given)}; got {len(kinds)}.")
    tasks = []
    for number, blend in enumerate(given):
        kind = np.full(blend.n_sources, int(chosen.kind))
        if kinds is not None:
            kind = _checked_kinds(kinds[number], blend, number)
        tasks.append(prepare.task(blend, kind))
    bands = {task.blend.n_bands for task in tasks}
    if len(bands) > 1:
        raise ValueError(f"`blends` need one number of bands; got {sorted(bands)}.")
    n_bands = bands.pop() if bands else 0
    if learned is not None and max(learned.columns, default=-1) >= n_bands > 0:
        raise ValueError(f"`prior` is placed in more bands than the {n_bands} of the blends.")
    held = () if chosen.index is None or kinds is not None else ("index",)
    if quality is None:
        quality = quality_for([task.blend.psf for task in tasks])
    together = jax.default_backend() != "cpu"
    setup = Setup(quality, background, held, covariance, together)
    rungs = None if sources is None else tuple(sources)
    if prior is not None:
        return fit_decoded(
            [replace(task, rungs=rungs) for task in tasks],
            prior,
            _method(method),
            setup,
            temperature=temperature,
            fallback=fallback,
            robust=robust,
            false_alarm=false_alarm,
            restarts=restarts,
            images=images,
            memory=memory,
            report=report,
        )
    chooses = model == "auto" and kinds is None
    steep = [n for n, task in enumerate(tasks) if worth_halving(task)]
    if fine is None:
        fine = len(tasks) >= MANY
    many = len({id(task.blend.psf) for task in tasks}) > 2
    for n, task in enumerate(tasks):
        double = chooses and (task.bucket.size > LARGE or not fine)
        tasks[n] = replace(task, fine=fine, double=double, rungs=rungs, many_psfs=many)
    found = empty(tasks, n_bands, _BACKGROUND_TERMS[background])
    run = _Run(found, tasks, _method(method), setup, memory, report, learned)
    # With the wrong kind a fit may crawl: no more than a start for the choice is needed.
    short = isinstance(run.method, LevenbergMarquardt) and chooses
    first = replace(run.method, limit=jnp.asarray(_FIRST_STEPS)) if short else run.method
    run.fit(range(len(tasks)), accept=_any, method=first, halve=set(steep))
    better = choose_kinds(found, tasks, setup, memory) if chooses else {}
    # What is known so far of these is but a start.
    again = {n: better.pop(n) if n in better else found.guess(n, tasks[n]) for n in steep}
    run.fit(again, guesses=again, accept=_any, exact=True)
    if chooses:
        run.fit(better, guesses=better, accept=_least_bic)
        left = np.flatnonzero(~found.converged & (found.n_pixels.sum(axis=1) > 0)).tolist()
        run.fit(
            left, guesses={n: found.guess(n, tasks[n]) for n in left}, accept=_converged_or_lower
        )
    run.restart(restarts)
    if free_form or model == "free_form":
        how = CAUTIOUS if model == "free_form" else FreeForm()
        how = free_form if isinstance(free_form, FreeForm) else how
        refine_found(found, tasks, given, how, setup, memory, images)
    set_flags(found, tasks)
    return found


class _Run:
    """Fits under way: all of them end in `found`."""

    def __init__(
        self,
        found: Found,
        tasks: list[Task],
        method: Method,
        setup: Setup,
        memory: float,
        report: Callable[[int, int], None] | None,
        learned: PixelPrior | None,
    ):
        self.learned = learned
        self.found, self.tasks, self.method, self.setup = found, tasks, method, setup
        self.memory, self.report = memory, report
        self.finished = self.needed = 0

    def fit(
        self,
        numbers: Iterable[int],
        *,
        accept: Callable[[Found, Found, int, int], bool],
        guesses: dict[int, Guess] | None = None,
        method: Method | None = None,
        halve: Container[int] = (),
        exact: bool = False,
    ) -> None:
        """Fit some of the blends, from other starts where given; keep what `accept` likes.

        - `halve`: which ones to fit in pixels twice as wide.
        - `exact`: make the matrix by pixels from the first step, for starts near the end.
        """
        which = list(numbers)
        tasks = [
            self.tasks[n]
            if guesses is None
            else replace(self.tasks[n], guess=guesses[n], exact=exact)
            for n in which
        ]
        wide = [place for place, n in enumerate(which) if n in halve]
        for place, coarse in zip(wide, halved([tasks[p] for p in wide]), strict=True):
            tasks[place] = coarse
        self.needed += len(which)

        def ended(places: list[int], fit: Fit) -> None:
            own = [tasks[p] for p in places]
            if accept is _any:
                self._keep([which[p] for p in places], own, fit)
            else:
                trial = empty(own, self.found.bands, self.found.sky.shape[2])
                trial.put(range(len(own)), own, fit)
                kept = [i for i, p in enumerate(places) if accept(trial, self.found, i, which[p])]
                if kept:
                    part = jax.tree.map(lambda leaf: leaf[np.array(kept)], fit)
                    self._keep([which[places[i]] for i in kept], [own[i] for i in kept], part)
            self.finished += len(places)
            if self.report is not None:
                self.report(self.finished, self.needed)

        program = partial(_call, method or self.method, self.setup, self.learned)
        run_tasks(tasks, program, memory=self.memory, ended=ended)

    def _keep(self, numbers: list[int], tasks: list[Task], fit: Fit) -> None:
        self.found.put(numbers, tasks, fit)
        if self.setup.covariance:
            for place, number in enumerate(numbers):
                self.found.covariance[number] = jax.tree.map(
                    lambda leaf, p=place: leaf[p], fit.covariance
                )

    def restart(self, times: int) -> None:
        """Other starts for what did not converge: rounder and smaller, then larger."""
        for turn in range(times):
            left = np.flatnonzero(~self.found.converged & (self.found.n_pixels.sum(axis=1) > 0))
            guesses = {}
            for number in left:
                guess = self.tasks[int(number)].guess
                factor = (0.6, 1.6)[turn % 2]
                guesses[int(number)] = replace(guess, radius=guess.radius * factor)
            if guesses:
                self.fit(guesses, guesses=guesses, accept=_converged_or_lower)


def _call(
    method: Method,
    setup: Setup,
    learned: PixelPrior | None,
    packed: Packed,
    psfs: AbstractPSF,
    count: Any,
) -> Fit:
    if setup.together and isinstance(method, LevenbergMarquardt):
        lanes = min(packed.data.shape[0], _LANES)
        return fit_in_queue(packed, psfs, count, method, setup, lanes, learned=learned)[0]
    return fit_in_turn(packed, psfs, count, method, setup, learned)


def _any(*_: Any) -> bool:
    return True


def _converged_or_lower(trial: Found, found: Found, i: int, n: int) -> bool:
    lower = trial.value[i] < found.value[n] - 1 or not np.isfinite(found.value[n])
    near = trial.value[i] < found.value[n] + 1
    return bool(trial.finite[i] and (lower or (trial.converged[i] and near)))


def _least_bic(trial: Found, found: Found, i: int, n: int) -> bool:
    def criterion(of: Found, number: int) -> float:
        kinds = of.kind[of.rows(number)]
        stars, bulges = (kinds == Kind.POINT).sum(), (kinds == Kind.BULGE_DISC).sum()
        extra = [
            n_parameters(kind, of.bands) - n_parameters(Kind.SERSIC, of.bands)
            for kind in (Kind.POINT, Kind.BULGE_DISC)
        ]
        pixels = max(of.n_pixels[number].sum(), 2)
        return 2 * of.value[number] + 2 * extra[0] * stars + np.log(pixels) * extra[1] * bulges

    return bool(trial.finite[i] and criterion(trial, i) < criterion(found, n))


def _method(method: Method | optax.GradientTransformation | None) -> Method:
    if method is None:
        return LevenbergMarquardt()
    return method if isinstance(method, Method) else FirstOrder(method)


def _checked_kinds(kind: Any, blend: Blend, number: int) -> Int[np.ndarray, "source"]:
    array = np.asarray(kind)
    allowed = (Kind.POINT, Kind.SERSIC, Kind.BULGE_DISC)
    if array.shape != (blend.n_sources,) or not np.isin(array, allowed).all():
        raise ValueError(
            f"`kinds` of blend {number} needs {blend.n_sources} of point (0), Sersic (1) and "
            f"bulge + disc (2); got {array.tolist()}."
        )
    return array.astype(int)
