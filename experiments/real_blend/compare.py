"""How well and how fast is a real blend taken apart, by us and by scarlet2?

    python experiments/real_blend/compare.py --scarlet2-python /path/to/other/venv/bin/python

Each code runs in a process of its own, with nothing compiled before. All see the same pixels with
the same variances, and all are judged here by one formula from the model images they give back.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path

# Workers run in environments of others: what they lack is imported where it is needed.
import numpy as np

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1].parent / "shared" / "data" / "hsc_cosmos_35.npz"
BEGIN, END = "<!-- written by compare.py -->", "<!-- end -->"

Model = np.ndarray
# From images and variances, [band, y, x], to the model image and what is said of it.
Fitter = Callable[[np.ndarray, np.ndarray], tuple[Model, dict]]


@dataclass(frozen=True)
class Settings:
    """What a run depends on, besides the data.

    - `model`, `background`: arguments of `deblend`.
    - `steps`, `tolerance`, `star`: of scarlet2, from the first-steps guide of its version 0.5.1,
        where source 0 is known to be a star.
    - `folds`: in how many parts the pixels are dealt out; each part in turn is hidden from a fit.
    - `probes`: how many times noise is added to measure the effective number of parameters, and
        `push`: its size in sigma.
    """

    model: str = "auto"
    background: str = "constant"
    steps: int = 1000
    tolerance: float = 1e-4
    star: int = 0
    folds: int = 10
    probes: int = 4
    push: float = 0.3


def diffdeblend_fitter(path: Path, settings: Settings) -> Fitter:
    """This library: `deblend` at the positions of the file."""
    import equinox as eqx
    import jax.numpy as jnp

    from diffdeblend.deblend import deblend
    from diffdeblend.io import read, read_npz_positions

    exposure, positions = read(path), read_npz_positions(path)

    def fit(images: np.ndarray, variance: np.ndarray) -> tuple[Model, dict]:
        given = eqx.tree_at(
            lambda e: (e.image, e.variance), exposure, (jnp.asarray(images), jnp.asarray(variance))
        )
        found = deblend(given, positions, model=settings.model, background=settings.background)
        said = {key: found.summary[key] for key in ("n_effective_parameters", "seconds")}
        said["models"] = list(found.sources.model)
        return found.models.sum(axis=0) + found.background, said

    return fit


def scarlet2_fitter(path: Path, settings: Settings) -> Fitter:
    """scarlet2 as its own first-steps guide has it: boxes and shapes from Gaussian moments."""
    import jax.numpy as jnp
    import scarlet2 as sc2
    from numpyro.distributions import constraints

    file = np.load(path)
    channels = [str(f) for f in file["filters"]]
    centers = jnp.array([(s["y"], s["x"]) for s in file["catalog"]])
    spectrum_step = partial(sc2.relative_step, factor=0.05)
    shape_step = partial(sc2.relative_step, factor=1e-3)

    def start(obs, i, center):
        if i == settings.star:
            return sc2.PointSource(center, sc2.init.pixel_spectrum(obs, center, correct_psf=True))
        try:
            spectrum, shape = sc2.init.from_gaussian_moments(obs, center)
        except ValueError:
            spectrum = sc2.init.pixel_spectrum(obs, center)
            shape = sc2.init.compact_morphology()
        return sc2.Source(center, spectrum, shape)

    def fit(images: np.ndarray, variance: np.ndarray) -> tuple[Model, dict]:
        weights = np.where(np.isfinite(variance), 1 / variance, 0)
        obs = sc2.Observation(images, weights=weights, psf=file["psfs"], channels=channels)
        frame = sc2.Frame.from_observations(obs)
        obs.match(frame)
        with sc2.Scene(frame) as scene:
            for i, center in enumerate(centers):
                start(obs, i, center)
        with sc2.Parameters(scene):
            for i, source in enumerate(scene.sources):
                sc2.Parameter(
                    source.spectrum,
                    name=f"spectrum:{i}",
                    constraint=constraints.positive,
                    stepsize=spectrum_step,
                )
                if i == settings.star:
                    sc2.Parameter(source.center, name=f"center:{i}", stepsize=0.1)
                else:
                    sc2.Parameter(
                        source.morphology,
                        name=f"morph:{i}",
                        constraint=constraints.unit_interval,
                        stepsize=shape_step,
                    )
        initial = float(obs.goodness_of_fit(scene()))
        found = scene.fit(
            obs, max_iter=settings.steps, e_rel=settings.tolerance, progress_bar=False
        )
        free = sum(int(np.size(value)) for value in scene.get().values())
        said = {"initial_chi2": initial, "n_free": free}
        return np.asarray(obs.render(found())), said

    return fit


FITTERS = {"diffdeblend": diffdeblend_fitter, "scarlet2": scarlet2_fitter}


def work(name: str, path: Path, output: Path, began: float, settings: Settings) -> None:
    """One code, alone in its process: models and times to an archive."""
    with np.load(path) as file:
        images, variance = (file[key].astype(np.float32) for key in ("images", "variance"))
    fit = FITTERS[name](path, settings)
    model, said = fit(images, variance)
    cold, processor = time.time() - began, time.process_time()
    warm = []
    for _ in range(3):
        start = time.perf_counter()
        fit(images, variance)
        warm.append(time.perf_counter() - start)
    # Kilobytes on Linux, bytes on macOS.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    parts = deal(images.shape, settings)
    hidden = np.zeros_like(images)
    for part in range(settings.folds):
        unseen = parts == part
        hidden[unseen] = fit(images, np.where(unseen, np.float32(np.inf), variance))[0][unseen]
    pushes = [push(images.shape, settings, seed) for seed in range(settings.probes)]
    pushed = [fit((images + p * np.sqrt(variance)).astype(np.float32), variance)[0] for p in pushes]
    said |= {
        "cold": cold,
        "processor": processor,
        "warm": float(np.median(warm)),
        "memory": memory,
        "versions": {p: import_module(p).__version__ for p in (name, "jax", "equinox")},
    }
    np.savez(output, model=model, hidden=hidden, pushed=pushed, said=np.array(json.dumps(said)))


def deal(shape: tuple[int, ...], settings: Settings) -> np.ndarray:
    """The part that each pixel of each band is in, at random, and all parts of one size."""
    order = np.random.default_rng(0).permutation(int(np.prod(shape)))
    return (order % settings.folds).reshape(shape)


def push(shape: tuple[int, ...], settings: Settings, seed: int) -> np.ndarray:
    """Noise to add to an image, in sigma."""
    return settings.push * np.random.default_rng([1, seed]).standard_normal(shape)


def run(name: str, python: str, path: Path) -> dict:
    """What a code does, from a process of its own; the key `absent` says why there is nothing."""
    try:
        found = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True)
    except OSError as error:
        return {"name": name, "absent": str(error)}
    if found.returncode:
        return {"name": name, "absent": found.stderr.strip().splitlines()[-1]}
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.npz"
        began = time.time()
        arguments = ["--worker", name, "--data", path, "--output", output, "--began", repr(began)]
        command = [python, str(Path(__file__).resolve()), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
        with np.load(output) as file:
            result = {key: file[key] for key in ("model", "hidden", "pushed")}
            return {"name": name, **result, **json.loads(str(file["said"]))}


def judge(result: dict, path: Path, settings: Settings) -> dict:
    """Figures of merit, by the same formula for all."""
    with np.load(path) as file:
        images, variance = (file[key].astype(float) for key in ("images", "variance"))
    used = np.isfinite(images) & np.isfinite(variance) & (variance > 0)

    def chi2(model: Model, where: np.ndarray) -> float:
        return float(np.mean((images - model)[where] ** 2 / variance[where]))

    bands = [used & (np.arange(len(images)) == b)[:, None, None] for b in range(len(images))]
    # How far the model follows noise that is added to the data: the generalised degrees of freedom
    # of Ye (1998), JASA 93, 120. Needs no knowledge of the model.
    followed = [
        np.sum(
            p[used] * (model - result["model"])[used] / np.sqrt(variance[used]) / settings.push**2
        )
        for p, model in (
            (push(images.shape, settings, seed), model)
            for seed, model in enumerate(result["pushed"])
        )
    ]
    return {
        **result,
        "chi2": chi2(result["model"], used),
        "by_band": [chi2(result["model"], band) for band in bands],
        "held_out": chi2(result["hidden"], used),
        "freedom": (np.mean(followed), np.std(followed, ddof=1) / np.sqrt(len(followed))),
    }


def table(results: list[dict], bands: list[str]) -> str:
    """The results as a Markdown table."""
    head = [
        "code",
        "chi2 / pixel",
        *bands,
        "held out",
        "effective parameters",
        "cold, s (CPU)",
        "warm, s",
        "peak memory, MB",
    ]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for r in results:
        if "absent" in r:
            lines.append([f"{r['name']}: not run ({r['absent']})"] + [""] * (len(head) - 1))
            continue
        mean, error = r["freedom"]
        lines.append(
            [
                f"{r['name']} {r['versions'][r['name']]}",
                f"{r['chi2']:.3f}",
                *(f"{c:.3f}" for c in r["by_band"]),
                f"{r['held_out']:.3f}",
                f"{mean:.0f} ± {error:.0f}",
                f"{r['cold']:.1f} ({r['processor']:.1f})",
                f"{r['warm']:.2f}",
                f"{r['memory']:.0f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def circumstances(results: list[dict], path: Path, load: float) -> str:
    """Where and when, in a line, and what the codes say of themselves."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((r.split(":", 1)[1].strip() for r in rows if r.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"{date.today()}, `{path.name}`, {cores} CPU cores ({cpu}), load {load:.1f} at the start, "
        f"Python {platform.python_version()}."
    ]
    for r in results:
        if "absent" in r:
            continue
        packages = ", ".join(f"{k} {v}" for k, v in r["versions"].items())
        line = f"- {packages}."
        if "models" in r:
            line += (
                f" {r['n_effective_parameters']:.0f} effective parameters by its own count (the "
                f"parametric fit only); sources: {', '.join(r['models'])}."
            )
        if "n_free" in r:
            line += (
                f" {r['n_free']} free numbers; chi2 / pixel {r['initial_chi2']:.0f} at its start."
            )
        lines.append(line)
    return "\n".join(lines)


def draw(results: list[dict], path: Path, output: Path) -> None:
    """Data, models and what they leave."""
    from matplotlib.figure import Figure

    from diffdeblend.painter import Painter, residual_significance

    with np.load(path) as file:
        images, variance = (file[key].astype(float) for key in ("images", "variance"))
        bands = [str(f) for f in file["filters"]]
    good = np.isfinite(images) & np.isfinite(variance) & (variance > 0)
    shown = [r for r in results if "absent" not in r]
    # One scale of colours for all, set by the first model.
    paint = Painter(bands, variance, good, shown[0]["model"][None])
    page = Figure(figsize=(2.9 * (1 + len(shown)), 6.8), layout="constrained")
    axes = page.subplots(2, 1 + len(shown))
    axes[0, 0].imshow(paint(images, good), origin="lower")
    axes[0, 0].set_title(f"data ({paint.legend})")
    for column, r in enumerate(shown, start=1):
        axes[0, column].imshow(paint(r["model"]), origin="lower")
        axes[0, column].set_title(r["name"])
        left = residual_significance(images - r["model"], variance, good)
        picture = axes[1, column].imshow(left, origin="lower", cmap="RdBu_r", vmin=-5, vmax=5)
        axes[1, column].set_title(f"residual, chi2 / pixel {r['chi2']:.3f}")
        page.colorbar(picture, ax=axes[1, column], label="sigma, all bands", location="bottom")
    for axis in axes.flat:
        axis.set_axis_off()
    page.savefig(output, dpi=110)


def write(text: str, readme: Path) -> None:
    """Put a text between the markers of the README."""
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the blend, an .npz file")
    parser.add_argument("--scarlet2-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--dry", action="store_true", help="print, but write nothing")
    parser.add_argument("--only", choices=list(FITTERS), help="run one code, and write nothing")
    for name in ("--worker", "--output", "--began"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    settings = Settings()
    if chosen.worker:
        work(chosen.worker, chosen.data, Path(chosen.output), float(chosen.began), settings)
        return
    if not chosen.data.is_file():
        parser.error(f"there is no {chosen.data}; give the file with --data")
    load = os.getloadavg()[0]
    pythons = {"diffdeblend": sys.executable, "scarlet2": chosen.scarlet2_python}
    results = []
    for name in [chosen.only] if chosen.only else pythons:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = run(name, pythons[name], chosen.data)
        results.append(result if "absent" in result else judge(result, chosen.data, settings))
    with np.load(chosen.data) as file:
        bands = [str(f) for f in file["filters"]]
    text = f"{table(results, bands)}\n\n{circumstances(results, chosen.data, load)}"
    print(text)
    if not (chosen.dry or chosen.only):
        write(text, HERE / "README.md")
        draw(results, chosen.data, HERE / "figure.png")


if __name__ == "__main__":
    main()
