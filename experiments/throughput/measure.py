"""How does the time of a batched fit grow with stamp, sources and batch, and where does it go?

    python experiments/throughput/measure.py

Blends are drawn by our own renderer: Sersic galaxies through a Gaussian PSF of 3.8 pixels in six
bands. Everything is measured warm, in one process, and written to `table.md` and `figure.png`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from diffdeblend import GaussianPSF, Scene, Sersic, render
from diffdeblend.batch import Blend, blend_of_arrays, fit_batch
from diffdeblend.batch.prepare import quality_for
from diffdeblend.batch.program import Setup, start_of
from diffdeblend.batch.task import Bucket, Task, first_guess, pack_tasks
from diffdeblend.fit.ellipses import chi2_of_ellipses
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.normal_matrix import fixed_terms
from diffdeblend.fit.objective import make_problem, model_image
from diffdeblend.fit.unknowns import free_numbers, scene_of, unknowns_of

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """The grid of cases: (stamp, sources), blends in each; batches at 64 pixels and 4 sources."""

    cases: tuple[tuple[int, int], ...] = (
        (32, 1),
        (32, 4),
        (64, 1),
        (64, 4),
        (64, 8),
        (64, 12),
        (128, 4),
    )
    n: int = 64
    batches: tuple[int, ...] = (1, 8, 64, 512, 4096)
    fwhm: float = 3.8
    n_bands: int = 6
    seed: int = 1


def blends_of(size: int, sources: int, n: int, settings: Settings) -> list[Blend]:
    """Blends in the middle of their stamps."""
    rng = np.random.default_rng([settings.seed, size, sources])
    psf = GaussianPSF(np.full(settings.n_bands, settings.fwhm))
    draw = jax.jit(render, static_argnums=2)
    made = []
    for _ in range(n):
        places = _places(rng, size, sources)
        scene = Scene(
            [
                Sersic(
                    flux=rng.lognormal(np.log(2000), 0.7) * rng.uniform(0.7, 1.3, settings.n_bands),
                    x=x,
                    y=y,
                    radius=rng.lognormal(np.log(2.2), 0.3),
                    index=rng.uniform(0.8, 3),
                    ellipticity=rng.normal(0, 0.2, 2),
                )
                for x, y in places
            ]
        )
        image = np.asarray(draw(scene, psf, (size, size)))
        noisy = image + rng.normal(size=image.shape) * 10
        made.append(
            blend_of_arrays(
                noisy.astype(np.float32), 100.0, psf, places + rng.normal(0, 0.2, places.shape)
            )
        )
    return made


def _places(rng: np.random.Generator, size: int, sources: int) -> np.ndarray:
    """Random positions in the middle of a stamp, at least 2 pixels apart."""
    while True:
        places = size / 2 + rng.uniform(-0.25, 0.25, (sources, 2)) * min(size, 48)
        apart = np.linalg.norm(places[:, None] - places, axis=2) + 10 * np.eye(sources)
        if apart.min() > 2:
            return places


def timed_batch(blends: list[Blend], size: int) -> tuple[float, float, float]:
    """Wall and core seconds of a warm call, and steps a blend."""

    def run() -> Any:
        return fit_batch(
            blends,
            model="sersic",
            background="none",
            model_error=0,
            trim=False,
            sizes=(size,),
            fine=True,
        )

    run()
    start, used = time.perf_counter(), time.process_time()
    found = run()
    return time.perf_counter() - start, time.process_time() - used, float(found.steps.mean())


def pieces(size: int, sources: int, settings: Settings) -> dict[str, float]:
    """Milliseconds of the parts of a step, of one blend on one thread."""
    blend = blends_of(size, sources, 1, settings)[0]
    n = len(blend.positions)
    radius = np.full(n, 2.2)
    guess = first_guess(
        blend.positions, radius, radius, np.ones(n, int), 1.5, (settings.n_bands, 0)
    )
    task = Task(blend, np.ones(settings.n_bands), guess, (size,))
    packed, psfs = pack_tasks([task], Bucket(size, n, n), 1)
    one, psf = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), (packed, psfs))
    setup = Setup(quality_for([blend.psf]), "none")

    @jax.jit
    def made():
        start, prior = start_of(one, setup)
        free = free_numbers(start, None)
        problem = make_problem(one.data, one.weight, psf, free, prior, setup.quality)
        unknowns = unknowns_of(start)
        lit = unknowns.flux.at[:].set(1000.0)
        return (
            start,
            problem,
            unknowns.__class__(
                unknowns.shape, unknowns.image, lit, unknowns.sky, unknowns.dx, unknowns.dy
            ),
        )

    start, problem, unknowns = made()
    fixed = jax.jit(fixed_terms)(start, problem)
    arguments = (unknowns, start, problem)
    return {
        "render": _milliseconds(lambda u, s, p: model_image(scene_of(u, s), p), *arguments),
        "chi2 and gradient": _milliseconds(
            lambda u, s, p: chi2_of_ellipses(u, s, p)[:2], *arguments
        ),
        "with matrix by modes": _milliseconds(
            lambda u, s, p, f: evaluate(u, s, p, f, False), *arguments, fixed
        ),
        "with exact matrix": _milliseconds(
            lambda u, s, p, f: evaluate(u, s, p, f, True), *arguments, fixed
        ),
    }


def _milliseconds(function: Callable[..., Any], *arguments: Any, repeats: int = 60) -> float:
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def main() -> None:
    """Measure, print, write."""
    settings = Settings()
    lines = ["| stamp | sources | ms a blend | core-ms | objects/s a core | steps |"]
    lines += ["|---:|---:|---:|---:|---:|---:|"]
    law = []
    for size, sources in settings.cases:
        wall, core, steps = timed_batch(blends_of(size, sources, settings.n, settings), size)
        law.append((size, sources, 1e3 * core / settings.n))
        lines.append(
            f"| {size} | {sources} | {1e3 * wall / settings.n:.2f} | {1e3 * core / settings.n:.2f} "
            f"| {sources * settings.n / core:.0f} | {steps:.1f} |"
        )
        print(lines[-1], flush=True)
    lines += ["", "| batch | ms a blend |", "|---:|---:|"]
    each = blends_of(64, 4, max(settings.batches), settings)
    by_batch = []
    for batch in settings.batches:
        wall, _, _ = timed_batch(each[:batch], 64)
        by_batch.append(1e3 * wall / batch)
        lines.append(f"| {batch} | {by_batch[-1]:.2f} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "| part of a step, ms; 4 sources | 64 px | 128 px |",
        "|---|---:|---:|",
    ]
    small, large = pieces(64, 4, settings), pieces(128, 4, settings)
    lines += [f"| {name} | {small[name]:.3f} | {large[name]:.3f} |" for name in small]
    size, sources, core = (np.array(column, float) for column in zip(*law, strict=True))
    design = np.stack([np.ones_like(size), size**2, sources * size**2], axis=1)
    # Relative errors count: the smallest case matters as much as the largest.
    terms = np.linalg.lstsq(design / core[:, None], np.ones_like(core), rcond=None)[0]
    lines += [
        "",
        f"Fitted law, core-ms a blend: {terms[0]:.2f} + (size / 32)^2 "
        f"({1024 * terms[1]:.2f} + {1024 * terms[2]:.2f} sources).",
        "",
    ]
    print("\n".join(lines))
    (HERE / "table.md").write_text("\n".join(lines))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for count in sorted({s for _, s in settings.cases}):
        chosen = [(a, c) for a, s, c in law if s == count]
        left.plot(*zip(*chosen, strict=True), "o-", label=f"{count} sources")
    left.set(xlabel="stamp, pixels", ylabel="core-ms a blend", xscale="log", yscale="log")
    left.legend()
    right.plot(settings.batches, by_batch, "o-")
    right.set(xlabel="blends in a batch", ylabel="ms a blend", xscale="log", yscale="log")
    figure.savefig(HERE / "figure.png", dpi=110)


if __name__ == "__main__":
    main()
