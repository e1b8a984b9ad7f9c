"""How well and how fast do other codes measure the fluxes of simulated blends?

    /path/to/other/venv/bin/python experiments/speed/peers.py BLENDS.npz --peer scarlet2 --out A.npz

Run by the Python of the peer, which needs nothing of ours. All are given the true positions.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

# Peers live in environments of their own: what only they have is imported where it is needed.
import numpy as np
from score import flux_error as error_of
from score import judged, median_interval, score


@dataclass(frozen=True)
class Settings:
    """What a run depends on, besides the data.

    - `scale`: the images are multiplied by this before the fit, and the fluxes divided by it after;
        1e-4 brings electrons to numbers like those of HSC, for which the peers choose their steps.
        They are not unit invariant: in electrons, the error of scarlet_lite is 7 times as large.
    - `scarlet2_steps`, `scarlet2_tolerance`: from the first-steps guide of scarlet2 0.5.1.
    - `scarlet2_floor`: least flux in a band at its start, from the same guide of a later version.
    - `lite_steps`, `lite_tolerance`: of scarlet_lite's adaprox, a fast setting and a good one.
    - `lite_model_sigma`, `lite_largest`: width of its model PSF, and the first size of its largest
        source, in pixels, from its getting-started guide.
    """

    scale: float = 1e-4
    scarlet2_steps: int = 1000
    scarlet2_tolerance: float = 1e-4
    scarlet2_floor: float = 1e-6
    lite_steps: tuple[int, int] = (100, 300)
    lite_tolerance: tuple[float, float] = (1e-4, 1e-6)
    lite_model_sigma: float = 0.8
    lite_largest: int = 51


@dataclass(frozen=True)
class Blend:
    """One blend as a peer is given it.

    - `images`, `variance`: `(band, y, x)`, in scaled units; `psf`: `(band, y, x)`, sums to 1.
    - `bands`: their names.
    - `centers`: `(source, 2)`, y before x, as both peers have it; first pixel at `(0, 0)`.
    """

    images: np.ndarray
    variance: np.ndarray
    psf: np.ndarray
    bands: list[str]
    centers: np.ndarray


# From a blend to the fluxes, (source, band), in scaled units.
Fitter = Callable[[Blend], np.ndarray]
# Seconds spent so far in compilation.
Clock = Callable[[], float]


def scarlet2(settings: Settings) -> tuple[Fitter, Clock, list[str]]:
    """scarlet2 as its own first-steps guide has it, all sources galaxies: see real_blend."""
    # A cache from another day would hide what compilation costs.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    import jax.numpy as jnp
    import scarlet2 as sc2
    from jax import monitoring
    from numpyro.distributions import constraints

    # Its checks only print, take time, and raise where the box of a source exceeds the image.
    sc2.set_validation(False)
    spectrum_step = partial(sc2.relative_step, factor=0.05)
    shape_step = partial(sc2.relative_step, factor=1e-3)
    compiled = 0.0

    def listen(event: str, seconds: float, **_) -> None:
        nonlocal compiled
        # Of XLA alone. Tracing is reported too, but a trace within a trace is counted twice.
        if event == "/jax/core/compile/backend_compile_duration":
            compiled += seconds

    monitoring.register_event_duration_secs_listener(listen)

    def fit(blend: Blend) -> np.ndarray:
        obs = sc2.Observation(
            blend.images, weights=1 / blend.variance, psf=blend.psf, channels=blend.bands
        )
        frame = sc2.Frame.from_observations(obs)
        obs.match(frame)
        with sc2.Scene(frame) as scene:
            for center in jnp.asarray(blend.centers):
                try:
                    spectrum, shape = sc2.init.from_gaussian_moments(obs, center)
                except ValueError:
                    spectrum = sc2.init.pixel_spectrum(obs, center)
                    shape = sc2.init.compact_morphology()
                # A measured spectrum may be negative in a faint band, and the fit is then NaN.
                sc2.Source(center, jnp.maximum(spectrum, settings.scarlet2_floor), shape)
        with sc2.Parameters(scene):
            for i, source in enumerate(scene.sources):
                sc2.Parameter(
                    source.spectrum,
                    name=f"spectrum:{i}",
                    constraint=constraints.positive,
                    stepsize=spectrum_step,
                )
                sc2.Parameter(
                    source.morphology,
                    name=f"morph:{i}",
                    constraint=constraints.unit_interval,
                    stepsize=shape_step,
                )
        found = scene.fit(
            obs,
            max_iter=settings.scarlet2_steps,
            e_rel=settings.scarlet2_tolerance,
            progress_bar=False,
        )
        return np.array([sc2.measure.flux(source) for source in found.sources])

    return fit, lambda: compiled, ["scarlet2", "jax", "jaxlib", "equinox", "optax", "numpyro"]


def scarlet_lite(settings: Settings, level: int) -> tuple[Fitter, Clock, list[str]]:
    """scarlet_lite: its getting-started guide, with the optimiser that converges, adaprox."""
    import lsst.scarlet.lite as scl

    # In its guide: done once, for all blends.
    monotonicity = scl.operators.Monotonicity((settings.lite_largest,) * 2)
    model_psf = scl.utils.integrated_circular_gaussian(sigma=settings.lite_model_sigma)

    def fit(blend: Blend) -> np.ndarray:
        observation = scl.Observation(
            blend.images,
            blend.variance,
            1 / blend.variance,
            blend.psf,
            model_psf[None],
            bands=tuple(blend.bands),
        )
        # Sources sit on pixels: it rounds the positions.
        start = scl.initialization.FactorizedInitialization(
            observation, [tuple(c) for c in blend.centers], monotonicity=monotonicity
        )
        scene = scl.Blend(start.sources, observation).fit_spectra()
        scene.parameterize(scl.component.default_adaprox_parameterization)
        scene.fit(settings.lite_steps[level], e_rel=settings.lite_tolerance[level])
        nothing = np.zeros(len(blend.bands))
        return np.array(
            [
                s.get_model().data.sum(axis=(1, 2)) if s.n_components else nothing
                for s in scene.sources
            ]
        )

    return fit, lambda: 0.0, ["lsst-scarlet-lite", "scipy"]


PEERS = {
    "scarlet2": scarlet2,
    "scarlet_lite_100": partial(scarlet_lite, level=0),
    "scarlet_lite_300": partial(scarlet_lite, level=1),
}


def read(path: Path, settings: Settings, first: int | None) -> tuple[list[Blend], np.ndarray]:
    """The blends, or the first few, and the truth, one row per source, sorted as they are."""
    with np.load(path) as file:
        truth = np.sort(file["truth"], order=["blend", "k"])
        n = len(file["images"]) if first is None else min(first, len(file["images"]))
        images, variance = (file[key][:n] for key in ("images", "variance"))
        psf, bands = file["psf"].astype(np.float32), [str(b) for b in file["bands"]]
    truth = truth[truth["blend"] < n]
    scale = np.float32(settings.scale)
    blends = []
    for i in range(n):
        rows = truth[truth["blend"] == i]
        centers = np.stack([rows["y"], rows["x"]], axis=1)
        blends.append(Blend(images[i] * scale, variance[i] * scale**2, psf, bands, centers))
    return blends, truth


def run(fit: Fitter, compiled: Clock, blends: list[Blend]) -> tuple[list[np.ndarray], np.ndarray]:
    """All blends once: fluxes, and per blend the seconds by the wall, by the CPU and compiling."""
    fluxes, seconds = [], []
    for number, blend in enumerate(blends):
        before = time.perf_counter(), time.process_time(), compiled()
        fluxes.append(fit(blend))
        after = time.perf_counter(), time.process_time(), compiled()
        seconds.append(np.subtract(after, before))
        print(f"{number + 1}/{len(blends)}: {seconds[-1][0]:.2f} s", file=sys.stderr, flush=True)
    return fluxes, np.array(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", type=Path, help="simulated blends with their truth, an .npz file")
    parser.add_argument("--peer", choices=list(PEERS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as .npz")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N blends")
    chosen = parser.parse_args()
    if not chosen.blends.is_file():
        parser.error(f"there is no {chosen.blends}")
    if chosen.first is not None and chosen.first < 1:
        parser.error(f"--first needs 1 or more; got {chosen.first}")
    settings = Settings()
    load, start = os.getloadavg()[0], time.perf_counter()
    try:
        fit, compiled, packages = PEERS[chosen.peer](settings)
    except ImportError as error:
        print(f"{chosen.peer}: not run, it is not in {sys.executable} ({error})")
        return
    prepared = time.perf_counter() - start
    blends, truth = read(chosen.blends, settings, chosen.first)
    # Not one blend twice, but all twice: what an operation of some shape needs is then compiled,
    # as far as the peer lets it be kept.
    with redirect_stdout(sys.stderr):  # scarlet2 talks.
        fluxes, cold = run(fit, compiled, blends)
        _, warm = run(fit, compiled, blends)
    fluxes = np.concatenate(fluxes) / settings.scale
    bands = blends[0].bands
    error = np.abs(error_of(truth, fluxes, bands))
    rows = judged(truth)
    said = {
        "peer": chosen.peer,
        "settings": asdict(settings),
        "versions": {name: version(name) for name in [*packages, "numpy"]},
        "python": platform.python_version(),
        "date": str(date.today()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": load,
        "seconds_prepared": prepared,
        "seconds_total": float(cold[:, 0].sum()),
        "seconds_total_warm": float(warm[:, 0].sum()),
        "score": score(truth, fluxes, bands),
        "median_interval": median_interval(error[rows], truth["blend"][rows]),
    }
    np.savez(
        chosen.out,
        fluxes=fluxes,
        blend=truth["blend"],
        k=truth["k"],
        bands=np.array(bands),
        **{
            f"{name}{when}": seconds[:, column]
            for when, seconds in (("", cold), ("_warm", warm))
            for column, name in enumerate(("seconds", "seconds_cpu", "seconds_compile"))
        },
        said=np.array(json.dumps(said)),
    )
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
