"""Free pixels for the sources of a batch whose residuals ask for them. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Array, Float

from diffdeblend.batch.blend import Blend
from diffdeblend.batch.driver import run_tasks
from diffdeblend.batch.free_form import FreeForm, Refined, free_form_in_turn
from diffdeblend.batch.program import Setup
from diffdeblend.batch.results import Found
from diffdeblend.batch.task import Packed, Task
from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Flag
from diffdeblend.psf import AbstractPSF

# Above this a source is flagged. Found on simulations, and scored on others: experiments/free_form.
CONTESTED = 0.002


def refine_found(
    found: Found,
    tasks: Sequence[Task],
    blends: Sequence[Blend],
    method: FreeForm,
    setup: Setup,
    memory: float,
    keep: bool = False,
) -> None:
    """Refine what was found with free pixels, where that is better, and flag it.

    Fluxes and sky of a refined blend, and its chi2 with the weights given, replace those before;
    errors, shapes and all else stay those of the parametric model. What was not fitted is not
    refined.

    - `tasks`: those of the fits; `blends`: as they were given, for their weights.
    - `keep`: keep the image of every source of every blend in `found.images`.
    """
    numbers = np.flatnonzero(found.finite & (found.n_pixels.sum(axis=1) > 0)).tolist()
    jobs = [_job(found, tasks[n], blends[n], n) for n in numbers]

    def program(packed: Packed, psfs: AbstractPSF, count: Array) -> Refined:
        return free_form_in_turn(packed, psfs, count, method, setup, keep)

    def ended(places: list[int], made: Refined) -> None:
        for i, place in enumerate(places):
            number = numbers[place]
            task = tasks[number]
            if keep:
                found.images[number] = _images(made.images[i], found, task, number)
            if made.chosen[i].any() and made.value[i, 1] < made.value[i, 0]:
                _put(found, task, number, made, i)

    # Beside a stamp there are images of all sources: on an accelerator those of all blends at once,
    # on a CPU only those that come back.
    most = max((len(job.guess.kind) for job in jobs), default=0)
    room = memory / (1 + (8 * most if setup.together else most * keep))
    run_tasks(jobs, program, memory=room, ended=ended)


def _job(found: Found, task: Task, blend: Blend, number: int) -> Task:
    """The task from what was found on, with weights that allow for no error of the model."""
    x, y = (task.blend.origin[axis] - blend.origin[axis] for axis in (0, 1))
    ny, nx = task.blend.shape
    weight = blend.weight[:, y : y + ny, x : x + nx]
    unit = task.unit.astype(weight.dtype)[:, None, None]
    stamp = replace(task.blend, weight=weight * unit * unit)
    return replace(task, blend=stamp, guess=found.guess(number, task))


def _put(found: Found, task: Task, number: int, made: Refined, i: int) -> None:
    rows, unit = found.rows(number), task.unit
    n = rows.stop - rows.start
    flux = made.flux[i, :n].astype(float) * unit
    known = np.isfinite(found.flux[rows])
    found.flux[rows] = np.where(known, flux, np.nan)
    bulge = (found.kind[rows] == Kind.BULGE_DISC)[:, None]
    found.bulge_flux[rows] = np.where(bulge, made.bulge[i, :n].astype(float) * unit, 0)
    found.sky[number] = made.sky[i].astype(float) * unit[:, None]
    found.chi2[number], found.n_pixels[number] = made.chi2[i], made.n_pixels[i]
    found.contest[rows] = made.contest[i, :n]
    found.flags[rows] |= np.where(made.chosen[i, :n], int(Flag.FREE_FORM), 0)
    found.flags[rows] |= np.where(found.contest[rows] > CONTESTED, int(Flag.CONTESTED), 0)


def _images(
    images: Float[np.ndarray, "source band y x"], found: Found, task: Task, number: int
) -> Float[np.ndarray, "source band y x"]:
    """Without padding, in the unit of the data."""
    rows = found.rows(number)
    ny, nx = task.blend.shape
    cut = images[: rows.stop - rows.start, :, :ny, :nx]
    return cut * task.unit.astype(cut.dtype)[:, None, None]
