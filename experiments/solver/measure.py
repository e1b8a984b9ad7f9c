"""How many evaluations does a batched fit need, how many fits finish, what is wasted on the way?

    python experiments/solver/measure.py FAMILY.npz

FAMILY.npz is a set of experiments/blends, recipe family: kinds are told and starts are off by 0.3
pixels. Writes `table.md`.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffdeblend import FirstOrder, LevenbergMarquardt, PixelPSF, keep_programs
from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.batch.prepare import Preparation, quality_for
from diffdeblend.batch.program import Setup, fit_in_turn
from diffdeblend.batch.queue import fit_in_queue
from diffdeblend.batch.task import Bucket, Task, pack_tasks
from diffdeblend.components import Kind

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blends"))
from make import Blends, first, load  # noqa: E402

_KINDS = {"star": Kind.POINT, "sersic": Kind.SERSIC, "bulge_disc": Kind.BULGE_DISC}


@dataclass(frozen=True)
class Settings:
    """What is run.

    - `adam`: rates and steps of the first-order fits; `adam_blends`: of so many blends.
    - `queue`: tasks and lanes of the queue; `vmapped`: tasks at once.
    """

    size: int = 64
    position_error: float = 0.3
    adam: tuple[tuple[float, int], ...] = ((0.1, 400), (0.03, 400))
    adam_blends: int = 64
    queue: tuple[int, int] = (64, 16)
    vmapped: int = 16


def tasks_of(blends: Blends, settings: Settings) -> list[Task]:
    """The task of each blend, with true kinds."""
    psf = PixelPSF(blends.psf)
    edges = np.concatenate([[0], np.cumsum(blends.n_src)])
    kind = np.array([int(_KINDS[name]) for name in blends.truth["type"]])
    prepare = Preparation(0.0, 0, True, 1.5, (settings.size,), settings.position_error)
    return [
        prepare.task(
            blend_of_arrays(
                blends.images[n], blends.variance[n], psf, blends.start[n, : blends.n_src[n]]
            ),
            kind[edges[n] : edges[n + 1]],
        )
        for n in range(len(blends.images))
    ]


def in_turn(tasks: list[Task], bucket: Bucket, method: Any, setup: Setup) -> Any:
    """Fits of tasks of one bucket, one after the other, on the host."""
    packed, psfs = pack_tasks(tasks, bucket, len(tasks))
    return jax.device_get(fit_in_turn(packed, psfs, jnp.asarray(len(tasks)), method, setup))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a warm call returns, and its core seconds."""
    run()
    used = time.process_time()
    made = jax.block_until_ready(run())
    return made, time.process_time() - used


def steps_to(history: np.ndarray, best: np.ndarray, within: float) -> np.ndarray:
    """Evaluations until the objective is that near to the best; infinite if it never is."""
    near = history <= best[:, None] + within
    return np.where(near.any(axis=1), near.argmax(axis=1) + 1, np.inf)


def convergence(tasks: list[Task], settings: Settings) -> list[str]:
    """Rows 3 of the table: steps of several methods on the same blends."""
    setup = Setup(quality_for([tasks[0].blend.psf]), "none")
    groups: dict[Bucket, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.bucket, []).append(task)
    methods = {
        "by modes, then by pixels (default)": LevenbergMarquardt(tolerance=1e-3),
        "by pixels from the start": LevenbergMarquardt(tolerance=1e-3, exact=True),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for bucket, group in groups.items():
        for name, method in methods.items():
            fit = in_turn(group, bucket, method, setup)
            found[name].append(_filled(np.asarray(fit.history, float)))
    histories = {name: np.concatenate(parts) for name, parts in found.items()}
    best = np.min([np.nanmin(h, axis=1) for h in histories.values()], axis=0)
    rows = []
    for name, history in histories.items():
        rows.append(_convergence_row(name, history, best))
    few = [(b, g[: settings.adam_blends]) for b, g in groups.items()]
    order = np.concatenate([np.arange(len(g)) for g in groups.values()])
    picked = order < settings.adam_blends
    for rate, steps in settings.adam:
        method = FirstOrder(optax.adam(rate), max_steps=steps)
        parts = [
            _filled(np.asarray(in_turn(group, bucket, method, setup).history, float))
            for bucket, group in few
        ]
        name = f"Adam, rate {rate:g}, {steps} steps ({int(picked.sum())} blends)"
        rows.append(_convergence_row(name, np.concatenate(parts), best[picked]))
    return rows


def _filled(history: np.ndarray) -> np.ndarray:
    """The best so far, also after the end of a fit."""
    return np.minimum.accumulate(np.where(np.isnan(history), np.inf, history), axis=1)


def _convergence_row(name: str, history: np.ndarray, best: np.ndarray) -> str:
    cells = []
    for within in (5.0, 1.0, 0.1):
        steps = steps_to(history, best, within)
        reached = 100 * np.mean(np.isfinite(steps))
        cells.append(f"{reached:.1f} %")
        if within == 1.0:
            middle = np.median(steps)
    return f"| {name} | {middle:.0f} | {' | '.join(cells)} |"


def finished(blends: Blends, settings: Settings) -> str:
    """How many blends converge after escalation, and what they look like that do not."""
    tasks = tasks_of(blends, settings)
    found = fit_batch(
        [task.blend for task in tasks],
        kinds=[task.guess.kind for task in tasks],
        background="none",
        model_error=0,
        position_error=settings.position_error,
        sizes=(settings.size,),
    )
    done = 100 * found.converged.mean()
    flagged = np.array([(found.flags[found.rows(n)] != 0).all() for n in range(found.n_blends)])
    left = ~found.converged
    return (
        f"{done:.2f} % of {found.n_blends} blends converge; of the others "
        f"{int((left & flagged).sum())} of {int(left.sum())} are flagged. Steps: median "
        f"{np.median(found.steps):.0f}, mean {found.steps.mean():.1f}, "
        f"90 % {np.quantile(found.steps, 0.9):.0f}."
    )


def lanes(tasks: list[Task], settings: Settings) -> list[str]:
    """One after the other against side by side on a CPU, and how idle a queue's lanes are."""
    bucket = Counter(task.bucket for task in tasks).most_common(1)[0][0]
    same = [task for task in tasks if task.bucket == bucket]
    quality = quality_for([tasks[0].blend.psf])
    setup = Setup(quality, "none")
    method = LevenbergMarquardt()
    few = same[: settings.vmapped]
    _, turn = timed(lambda: in_turn(few, bucket, method, setup))
    side = replace(setup, together=True)
    _, vmapped = timed(lambda: in_turn(few, bucket, method, side))
    n, width = settings.queue
    many = same[:n]
    packed, psfs = pack_tasks(many, bucket, len(many))
    count = jnp.asarray(len(many))
    rows = []
    for every in (2, 4):
        fit, turns = fit_in_queue(packed, psfs, count, method, setup, width, every)
        useful = int(np.asarray(fit.steps).sum())
        lock = int(np.sum([np.max(c) for c in _chunks(np.asarray(fit.steps), width)]) * width)
        rows.append(
            f"| queue of {width} lanes, {len(many)} tasks, refilled every {every} steps | "
            f"{int(turns) / useful:.2f} times the useful evaluations (in step, without refilling: "
            f"{lock / useful:.2f}) |"
        )
    one, four = (_core_time(same[:32], Bucket(bucket.size, *b), method, setup) for b in _PADDING)
    return [
        f"| vmap over one after the other, {len(few)} blends, core time | {vmapped / turn:.1f} |",
        *rows,
        f"| bucket {_PADDING[1]} over {_PADDING[0]} (sources, slots) for the same blends of two "
        f"sources | {four / one:.2f} |",
    ]


# Sources and slots.
_PADDING = ((2, 4), (4, 8))


def _core_time(tasks: list[Task], bucket: Bucket, method: Any, setup: Setup) -> float:
    fits = [t for t in tasks if len(t.guess.kind) <= 2]
    return timed(lambda: in_turn(fits, bucket, method, setup))[1] if fits else np.nan


def _chunks(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def second_process(path: Path, n: int) -> str:
    """Seconds from the start of a process to the results, with an empty and with a filled cache."""
    import tempfile

    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            began = time.perf_counter()
            command = [sys.executable, __file__, str(path), "--only-fit", folder, "--first", str(n)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
    return (
        f"| process to results of {n} blends, empty and filled cache, s | "
        f"{seconds[0]:.1f}, {seconds[1]:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", type=Path, help="a set of experiments/blends, recipe family")
    parser.add_argument("--first", type=int, default=512, help="so many blends")
    parser.add_argument("--only-fit", metavar="CACHE", help="fit and end, programs kept there")
    given = parser.parse_args()
    if not given.blends.is_file():
        parser.error(f"there is no {given.blends}; experiments/blends/make.py makes it")
    if given.only_fit:
        keep_programs(given.only_fit)
    settings = Settings()
    blends = first(load(given.blends), given.first)
    if given.only_fit:
        finished(blends, settings)
        return
    tasks = tasks_of(blends, settings)
    said = finished(blends, settings)
    text = "\n".join(
        [
            "| method | evaluations to within 1 of the best, median | within 5 | 1 | 0.1 |",
            "| --- | ---: | ---: | ---: | ---: |",
            *convergence(tasks, settings),
            "",
            said,
            "",
            "| | |",
            "| --- | ---: |",
            *lanes(tasks, settings),
            second_process(given.blends, 64),
            "",
            f"{len(tasks)} blends; {jax.devices()[0].device_kind}, "
            f"{len(os.sched_getaffinity(0))} cores; jax {jax.__version__}.",
        ]
    )
    (HERE / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
