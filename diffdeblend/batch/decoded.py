"""Fit blends with galaxies of a learned prior: the batch's own program and its steps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.decoded_results import FoundDecoded, found_of
from diffdeblend.batch.driver import run_tasks
from diffdeblend.batch.program import Setup, in_turn, start_of
from diffdeblend.batch.task import Guess, Packed, Task
from diffdeblend.components import Decoder, Kind
from diffdeblend.deblend.attempt import Attempt, attempt_of, one_of
from diffdeblend.deblend.decoded_steps import Job, check_prior, decode_all
from diffdeblend.deblend.mixed import MixedFit, MixedSettings, fit_mixed
from diffdeblend.fit.fit import Method
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt
from diffdeblend.priors.decoder_prior import DecoderPrior
from diffdeblend.psf import AbstractPSF

# Heights and widths of stamps, and numbers of sources, that programs are compiled for: a decoded
# galaxy costs more to pad than a parametric one.
SIZES = (48, 64, 96, 128, 192, 256)
_SOURCES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
# Of so many PSFs the width is looked at.
_MANY_PSFS = 64


def fit_decoded(
    tasks: Sequence[Task],
    prior: DecoderPrior,
    method: Method,
    setup: Setup,
    *,
    temperature: float = 1.0,
    fallback: bool = True,
    robust: bool = False,
    false_alarm: float = 0.01,
    restarts: int = 1,
    images: bool = False,
    memory: float = 1e9,
    report: Callable[[int, int], None] | None = None,
) -> FoundDecoded:
    """Fit tasks with decoded galaxies. Host side; arguments as those of `fit_batch`."""
    tasks = [replace(task, rungs=task.rungs or _SOURCES, double=True) for task in tasks]
    finished = needed = 0

    def run(jobs: Sequence[Job]) -> list[Attempt]:
        nonlocal finished, needed
        needed += len(jobs)
        made: list[Attempt | None] = [None] * len(jobs)
        for mixed in (False, True):
            which = [j for j, job in enumerate(jobs) if mixed == bool((~job.decoded).any())]
            own = [_task(tasks[jobs[j].number], jobs[j]) for j in which]
            settings = MixedSettings(setup.quality, mixed, images, setup.covariance)

            def program(
                packed: Packed,
                psfs: AbstractPSF,
                count: Array,
                numbers: list[int],
                which: list[int] = which,
                settings: MixedSettings = settings,
            ) -> MixedFit:
                latent, decoded = _packed([jobs[which[i]] for i in numbers], packed, prior)
                return _in_turn(
                    packed,
                    psfs,
                    count,
                    latent,
                    decoded,
                    prior.decoder,
                    np.float32(temperature),
                    np.float32(false_alarm),
                    method,
                    setup,
                    settings,
                )

            def ended(numbers: list[int], found: MixedFit, which: list[int] = which) -> None:
                nonlocal finished
                for place, i in enumerate(numbers):
                    job = jobs[which[i]]
                    one = one_of(found, place)
                    keep = setup.covariance
                    made[which[i]] = attempt_of(one, job.decoded, job.kind, keep=keep)
                finished += len(numbers)
                if report is not None:
                    report(finished, needed)

            run_tasks(own, program, memory=memory, ended=ended, with_numbers=True)
        return [one for one in made if one is not None]

    counts = [len(task.guess.kind) for task in tasks]
    found = decode_all(counts, run, fallback=fallback, robust=robust, restarts=restarts)
    # What two models differ by is there already.
    return found_of(found, tasks, prior.n_latent, widen=not robust)


@eqx.filter_jit
def _in_turn(
    packed: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    latent: Any,
    decoded: Any,
    decoder: Decoder,
    temperature: Any,
    false_alarm: Any,
    method: Method,
    setup: Setup,
    settings: MixedSettings,
) -> MixedFit:
    def one(task: Packed, psf: AbstractPSF, latent: Array, decoded: Array) -> MixedFit:
        start, prior = start_of(task, setup)
        how = method
        if isinstance(how, LevenbergMarquardt):
            how = replace(how, fast_steps=jnp.where(task.exact, 0, how.fast_steps))
        return fit_mixed(
            start,
            prior,
            latent,
            decoded,
            decoder,
            task.data,
            task.weight,
            psf,
            how,
            settings,
            temperature=temperature,
            false_alarm=false_alarm,
            noise=task.noise,
        )

    return in_turn(one, packed, psfs, count, latent, decoded, together=setup.together)


def _task(task: Task, job: Job) -> Task:
    """The task of a job: from the first guess, or from a fit before it."""
    guess = replace(task.guess, kind=np.where(job.decoded, int(Kind.SERSIC), job.kind))
    if job.start is None:
        return replace(task, guess=guess)
    columns = job.start.columns

    def known(name: str, instead: Any, low: float, high: float) -> np.ndarray:
        value = columns[name]
        return np.clip(np.where(np.isfinite(value), value, instead), low, high)

    flux = np.stack([columns["flux"] - columns["bulge_flux"], columns["bulge_flux"]], axis=1)
    guess = Guess(
        kind=guess.kind,
        x=columns["x"],
        y=columns["y"],
        radius=known("radius", guess.radius, 0.2, 0.5 * max(task.blend.shape)),
        index=known("index", guess.index, 0.6, 6.0),
        radius_ratio=known("radius_ratio", 0.4, 0.05, 10.0),
        shear_ratio=known("shear_ratio", 0.7, 0.05, 1.35),
        ellipticity=known("ellipticity", 0.0, -0.6, 0.6),
        home_x=guess.home_x,
        home_y=guess.home_y,
        home_radius=guess.home_radius,
        flux=np.nan_to_num(flux),
        sky=np.nan_to_num(job.start.sky),
    )
    return replace(task, guess=guess, exact=job.exact)


def _packed(
    jobs: Sequence[Job], packed: Packed, prior: DecoderPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Latents to start from and what is decoded, padded as the tasks are."""
    capacity, size = packed.kind.shape
    latent = np.zeros((capacity, size, prior.n_latent), packed.data.dtype)
    decoded = np.ones((capacity, size), bool)
    for i, job in enumerate(jobs):
        n = len(job.decoded)
        decoded[i, :n] = job.decoded
        if job.start is not None:
            latent[i, :n] = np.nan_to_num(job.start.columns["latent"])
    return latent, decoded


def check_data(
    blends: Sequence[Blend], prior: DecoderPrior, temperature: float, false_alarm: float
) -> None:
    """**Raises:** `ValueError` for settings out of range, or a PSF narrower than the frame."""
    check_prior(prior, temperature, false_alarm)
    seen = list({id(blend.psf): blend.psf for blend in blends}.values())
    for psf in seen[:: max(1, len(seen) // _MANY_PSFS)]:
        prior.check(psf=psf)
