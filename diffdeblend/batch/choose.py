"""Star, Sersic galaxy or bulge with disc: chosen for every source of a batch.

A trial is one more small blend: the light that the fit of all sources leaves for one of them,
on a stamp of its own, as one kind. It goes through the same program as any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.driver import run_tasks
from diffdeblend.batch.program import Setup, in_turn, start_of
from diffdeblend.batch.results import Found
from diffdeblend.batch.task import Guess, Packed, Task
from diffdeblend.batch.trim import trimmed
from diffdeblend.components import AnySource, Kind
from diffdeblend.deblend.choose import n_parameters
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt, levenberg_marquardt
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import make_grid
from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.abstract import transfer
from diffdeblend.scene import sum_slots

# Of fainter ones nobody can tell: as galaxies their errors allow for both.
_STAR_SNR = 30.0
# Heights and widths of the stamps of trials, and the radius up to which the smaller one does.
_TRIAL_SIZES, _COMPACT = (32, 64), 2.5
_TRIED = (Kind.POINT, Kind.SERSIC, Kind.BULGE_DISC)


class Trial(NamedTuple):
    """One fitted trial: value of the objective, fitted source, its flux in units of the noise."""

    value: Any
    source: AnySource


def worth_trying(found: Found) -> Bool[np.ndarray, "source kind"]:
    """Which kinds of `_TRIED` can win at all, given fits as any of them.

    More parameters have to buy more than their price in BIC, which a faint source cannot pay: a
    model that is wrong by a seventh of the light costs (snr / 7)^2 in chi2. What is seen to be wide
    is no point.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(found.flux_err > 0, found.flux / found.flux_err, 0)
    snr = np.sqrt(np.nansum(ratio**2, axis=1))
    used = np.maximum(found.n_pixels.sum(axis=1), 2)[found.blend]
    extra = n_parameters(Kind.BULGE_DISC, found.bands) - n_parameters(Kind.SERSIC, found.bands)
    tried = np.zeros((len(found.x), len(_TRIED)), bool)
    tried[:, 0] = np.logical_and(found.radius < 1.5, snr > _STAR_SNR)
    tried[:, 2] = (snr / 7) ** 2 > extra * np.log(used)
    tried &= np.asarray(np.isfinite(found.flux).all(axis=1))[:, None]
    tried[:, 1] = tried.any(axis=1) | (found.kind != Kind.SERSIC)
    tried[np.arange(len(tried)), found.kind] |= tried[:, 1]
    return tried


def choose_kinds(
    found: Found,
    tasks: Sequence[Task],
    setup: Setup,
    memory: float,
    done: Callable[[int], None] = lambda n: None,
) -> dict[int, Guess]:
    """A better start for each blend in which some source is better served by another kind.

    - `found`: fits of the tasks, whatever kinds they were made with.
    """
    tried = worth_trying(found)
    sources = np.flatnonzero(tried.any(axis=1))
    if not len(sources):
        return {}
    guesses = {int(n): found.guess(int(n), tasks[int(n)]) for n in np.unique(found.blend[sources])}
    trials, owners = [], []
    peeled = _peel(found, tasks, guesses, sources, setup, memory)
    for source, blend in zip(sources, peeled, strict=True):
        number = int(found.blend[source])
        place = int(source - found.first[number])
        guess = _alone(guesses[number], place).shifted(*blend.origin)
        blend, guess = _cut_for(blend, guess)
        for column, kind in enumerate(_TRIED):
            if tried[source, column]:
                as_kind = _as_kind(guess, kind)
                trials.append(Task(blend, np.ones(blend.n_bands), as_kind, blend.shape[:1]))
                owners.append((int(source), column))
    values = np.full((len(found.x), len(_TRIED)), np.inf)
    fitted: dict[tuple[int, int], tuple[AnySource, Blend]] = {}

    def ended(numbers: list[int], trial: Trial) -> None:
        flux = trial.source.flux.sum(axis=1)
        # What eats a neighbour's light is no model of a source.
        eats = flux.min(axis=1) < -0.05 * np.abs(flux).max(axis=1)
        for place, number in enumerate(numbers):
            source, column = owners[number]
            pixels = max(int((trials[number].blend.weight > 0).sum()), 2)
            each = 2.0 if column == 0 else np.log(pixels)
            # A star is what a galaxy's shape does not improve; a bulge has to pay its full price.
            free = n_parameters(_TRIED[column], found.bands)
            least = n_parameters(Kind.SERSIC, found.bands)
            price = each * (free - least)
            value = 2 * float(trial.value[place]) + price
            worse = not np.isfinite(value) or (eats[place] and column != 1)
            values[source, column] = np.inf if worse else value
            member = jax.tree.map(lambda leaf, p=place: leaf[p], trial.source)
            fitted[source, column] = (member, trials[number].blend)
        done(len(numbers))

    of_trials = replace(setup, background="none", held=(), covariance=False)
    run_tasks(trials, partial(_call, _try, of_trials), memory=memory, ended=ended)
    best = np.where(np.isfinite(values).any(axis=1), np.argmin(values, axis=1), found.kind)
    changed: dict[int, Guess] = {}
    light = np.abs(np.nan_to_num(found.flux / found.flux_err)).max(axis=1)
    for source in sources[best[sources] != found.kind[sources]]:
        number = int(found.blend[source])
        guess = changed.setdefault(number, guesses[number])
        place = int(source - found.first[number])
        rows = found.rows(number)
        # What a bright source as the wrong kind has left may have spoilt its faint neighbours.
        _start_again(guess, tasks[number].guess, light[rows] < 0.2 * light[source])
        member, blend = fitted[int(source), int(best[source])]
        _take(guess, place, member, blend, _TRIED[int(best[source])])
    return changed


def _peel(
    found: Found,
    tasks: Sequence[Task],
    guesses: dict[int, Guess],
    sources: Int[np.ndarray, "tried"],
    setup: Setup,
    memory: float,
) -> list[Blend]:
    """For each source, a stamp around it with the light that all others leave."""
    jobs: list[Task] = []
    places: list[int] = []
    for source in sources:
        number = int(found.blend[source])
        jobs.append(replace(tasks[number], guess=guesses[number]))
        places.append(int(source - found.first[number]))
    stamps: list[Any] = [None] * len(jobs)

    def program(packed: Packed, psfs: AbstractPSF, count: Array, numbers: list[int]) -> Any:
        which = np.zeros(len(packed.kind), np.int32)
        which[: len(numbers)] = [places[number] for number in numbers]
        return _peel_in_turn(packed, psfs, count, which, setup)

    def ended(numbers: list[int], made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        for place, number in enumerate(numbers):
            data, weight, corner = (part[place] for part in made)
            blend = jobs[number].blend
            stamps[number] = Blend(
                data,
                weight,
                blend.psf,
                np.zeros((1, 2)),
                (int(corner[0]), int(corner[1])),
                np.zeros(1, int),
            )

    run_tasks(jobs, program, memory=memory, ended=ended, with_numbers=True)
    return stamps


@eqx.filter_jit
def _peel_in_turn(
    packed: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    which: Any,
    setup: Setup,
) -> tuple[Array, Array, Array]:
    size = packed.data.shape[-1]
    small = trial_size(size)
    grid = make_grid((size, size), setup.quality)

    def one(task: Packed, psf: AbstractPSF, own: Array) -> tuple:
        scene = start_of(task, setup)[0]
        # All others: the one source itself is dark.
        scene = eqx.tree_at(
            lambda s: s.sources[0].members.flux, scene, replace_fn=lambda f: f.at[own].set(0)
        )
        left = task.data - sum_slots(scene, transfer(psf, grid, setup.quality), grid, setup.quality)
        if scene.background is not None:
            left = left - scene.background(grid)
        left = jnp.where(task.weight > 0, left, 0)
        centre = jnp.round(task.start[own, :2]).astype(jnp.int32)
        corner = jnp.clip(centre - small // 2, 0, size - small)
        place = (0, corner[1], corner[0])
        shape = (left.shape[0], small, small)
        return (
            jax.lax.dynamic_slice(left, place, shape),
            jax.lax.dynamic_slice(task.weight, place, shape),
            corner,
        )

    return in_turn(one, packed, psfs, count, which, together=setup.together)


@eqx.filter_jit
def _try(packed: Packed, psfs: AbstractPSF, count: Int[Array, ""], setup: Setup) -> Trial:
    # Two slots for every kind: one program.
    method = LevenbergMarquardt(max_steps=15, tolerance=0.5, escalates=False)

    def one(task: Packed, psf: AbstractPSF) -> Trial:
        start, prior = start_of(task, setup)
        free = free_numbers(start, None)
        problem = make_problem(task.data, task.weight, psf, free, prior, setup.quality)
        found = levenberg_marquardt(method, start, problem)
        members = scene_of(found.unknowns, start).sources[0].members
        assert isinstance(members, AnySource)
        return Trial(found.value, jax.tree.map(lambda leaf: leaf[0], members))

    return in_turn(one, packed, psfs, count, together=setup.together)


def trial_size(size: int) -> int:
    """Height and width of the stamp of what is peeled out of a blend of a size."""
    return min(size, _TRIAL_SIZES[1])


def _cut_for(blend: Blend, guess: Guess) -> tuple[Blend, Guess]:
    """The stamp of a trial, smaller for a compact source."""
    size, small = blend.shape[0], _TRIAL_SIZES[0]
    if size <= small or guess.radius[0] > _COMPACT:
        return blend, guess
    x0, y0 = (
        int(np.clip(round(float(v[0])) - small // 2, 0, size - small)) for v in (guess.x, guess.y)
    )
    return trimmed(blend, np.array([x0, y0, x0 + small, y0 + small])), guess.shifted(x0, y0)


def _call(program: Any, setup: Setup, packed: Packed, psfs: AbstractPSF, count: Array) -> Any:
    return program(packed, psfs, count, setup)


def _alone(guess: Guess, place: int) -> Guess:
    one = slice(place, place + 1)
    values = {name: getattr(guess, name)[one].copy() for name in guess.__dataclass_fields__}
    return Guess(**values | {"sky": guess.sky})


def _as_kind(guess: Guess, kind: Kind) -> Guess:
    """A start as another kind, with the sizes that a Sersic fit suggests."""
    if (guess.kind == kind).all():
        return guess
    radius = guess.radius
    if kind is Kind.BULGE_DISC:
        # A concentrated galaxy hides its disc: a bulge of n = 4 leaves a larger one.
        radius = radius * np.clip(1 + 0.25 * (guess.index - 1), 0.8, 1.8)
    return replace(
        guess,
        kind=np.full_like(guess.kind, int(kind)),
        flux=np.zeros_like(guess.flux),
        radius=radius,
        radius_ratio=np.full_like(guess.radius_ratio, 0.4),
    )


def _start_again(guess: Guess, first: Guess, which: np.ndarray) -> None:
    """Bring some sources, if they are still Sersic galaxies, back to their first start."""
    which = which & (guess.kind == Kind.SERSIC)
    for name in ("x", "y", "radius", "index", "ellipticity"):
        getattr(guess, name)[which] = getattr(first, name)[which]


def _take(guess: Guess, place: int, member: AnySource, blend: Blend, kind: Kind) -> None:
    """Put a fitted trial into the start of its blend."""
    guess.kind[place] = int(kind)
    guess.x[place] = float(member.x) + blend.origin[0]
    guess.y[place] = float(member.y) + blend.origin[1]
    for name in ("radius", "index", "radius_ratio", "shear_ratio"):
        getattr(guess, name)[place] = float(getattr(member, name))
    guess.ellipticity[place] = np.asarray(member.ellipticity)
    guess.flux[place] = np.asarray(member.flux)[:2]
