"""How fast are forty simulated survey blends fitted, how accurately, and beside which peers?

    python experiments/speed/compare.py BLENDS.npz --peer scarlet2=RESULT.npz --peer ...

BLENDS.npz holds images, variance, psf, bands and truth, as `peers.py` describes it; RESULT.npz is
what `peers.py` wrote for a peer in its own environment. Ours runs in processes of its own: from
their start, with nothing compiled; again with a filled cache; then warm, several times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from score import flux_error, judged, ratio_interval, score

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """Of our fit: true positions are given, the sky is subtracted, truth is a sum of models."""

    background: str = "none"
    model_error: float = 0.0
    position_error: float = 0.1
    repeats: int = 3
    models: tuple[str, ...] = ("auto", "sersic")


def fit_all(blends: Path, model: str, cache: str, times: int, began: float) -> dict:
    """Runs in a process of its own: all blends, `times` times over."""
    if cache:
        from diffdeblend import keep_programs

        keep_programs(cache)
    import resource

    from diffdeblend.batch import blend_of_arrays, fit_batch
    from diffdeblend.psf import PixelPSF

    settings = Settings()
    with np.load(blends) as file:
        images, variance, truth = file["images"], file["variance"], file["truth"]
        psf = PixelPSF(file["psf"].astype(np.float32))
    rows = [np.flatnonzero(truth["blend"] == number) for number in range(len(images))]
    places = [np.stack([truth["x"][r], truth["y"][r]], axis=1) for r in rows]
    seconds, cpu, memory, found = [], [], [], None
    for _ in range(times):
        start, used = time.perf_counter(), time.process_time()
        made = [
            blend_of_arrays(image, noise, psf, xy)
            for image, noise, xy in zip(images, variance, places, strict=True)
        ]
        found = fit_batch(
            made,
            model=model,
            background=settings.background,
            model_error=settings.model_error,
            position_error=settings.position_error,
        )
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        memory.append(_resident())
        if len(seconds) == 1:
            since = time.time() - began
    assert found is not None
    flux = np.full((len(truth), found.bands), np.nan)
    flux[np.concatenate(rows)] = found.flux
    return {
        "flux": flux.tolist(),
        "seconds": seconds,
        "cpu": cpu,
        "since_start": since,
        "resident": memory,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "converged": float(found.converged.mean()),
        "steps": float(found.steps.mean()),
    }


def _resident() -> float:
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(blends: Path, model: str, cache: str, times: int) -> dict:
    """`fit_all` in a new process."""
    asked = json.dumps([str(blends), model, cache, times, time.time()])
    # XLA warns at length of every program that it takes from its cache.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = subprocess.run(
        [sys.executable, __file__, "--worker", asked],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Run ours, read the peers', print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", type=Path, nargs="?")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=RESULT.npz")
    parser.add_argument("--long", type=int, default=0, help="repeats for the growth of memory")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        path, model, cache, times, began = json.loads(chosen.worker)
        print(json.dumps(fit_all(Path(path), model, cache, times, began)))
        return
    if chosen.blends is None:
        parser.error("give the file of blends")
    settings = Settings()
    with np.load(chosen.blends) as file:
        truth, bands = file["truth"], [str(b) for b in file["bands"]]
        n_blends = len(file["images"])
    lines = [
        "| code | s a blend, warm | s a blend, all included | median | p90 | p90 no bright "
        "| blended | lost | g-r |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    fluxes: dict[str, np.ndarray] = {}
    notes = []
    for model in settings.models:
        with tempfile.TemporaryDirectory() as cache:
            cold = run(chosen.blends, model, cache, 1)
            filled = run(chosen.blends, model, cache, 1)
            warm = run(chosen.blends, model, cache, 1 + settings.repeats)
        name = f"diffdeblend, {model}"
        fluxes[name] = np.array(warm["flux"])
        best = min(warm["seconds"][1:]) / n_blends
        lines.append(_row(name, best, cold["seconds"][0] / n_blends, truth, fluxes[name], bands))
        core = min(warm["cpu"][1:]) / n_blends
        notes.append(
            f"{name}: {1e3 * best:.1f} ms a blend warm ({1e3 * core:.1f} core-ms), "
            f"{cold['since_start']:.1f} s from process start to all {n_blends} results, "
            f"{filled['since_start']:.1f} s with a filled cache; "
            f"{warm['converged']:.3f} converged, {warm['steps']:.1f} steps a blend."
        )
    for peer in chosen.peer:
        name, path = peer.split("=", 1)
        with np.load(path) as file:
            fluxes[name] = np.full((len(truth), len(bands)), np.nan)
            fluxes[name][np.lexsort((truth["k"], truth["blend"]))] = file["fluxes"]
            # CPU seconds where the wall clock was disturbed by other work.
            warm_s, all_s = (
                float(np.mean(np.minimum(file[f"seconds{k}"], file[f"seconds_cpu{k}"])))
                for k in ("_warm", "")
            )
        lines.append(_row(name, warm_s, all_s, truth, fluxes[name], bands))
    ours = f"diffdeblend, {settings.models[0]}"
    for name, flux in fluxes.items():
        if name != ours:
            first, second = (
                np.abs(flux_error(truth, f, bands))[judged(truth)] for f in (fluxes[ours], flux)
            )
            low, high = ratio_interval(first, second, truth["blend"][judged(truth)])
            middle = np.median(first) / np.median(second)
            notes.append(
                f"Median error, {ours} over {name}: {middle:.2f} [{low:.2f}, {high:.2f}] (90 %)."
            )
    if chosen.long:
        grown = run(chosen.blends, settings.models[0], "", chosen.long)["resident"]
        early = grown[max(0, -(-100 // n_blends) - 1)]
        notes.append(
            f"Resident memory: {early:.0f} MB after {100} blends, {grown[-1]:.0f} MB after "
            f"{chosen.long * n_blends}: ratio {grown[-1] / early:.2f}."
        )
    count = int(judged(truth).sum())
    notes.insert(0, f"{n_blends} blends, {count} galaxies above SNR 10 in r; {settings}.")
    text = "\n".join([*lines, "", *[f"- {note}" for note in notes], ""])
    print(text)
    (HERE / "table.md").write_text(text)


def _row(
    name: str, warm: float, everything: float, truth: np.ndarray, flux: np.ndarray, bands: list
) -> str:
    said = score(truth, flux, bands)
    return (
        f"| {name} | {warm:.4f} | {everything:.3f} | {said['median']:.4f} | {said['p90']:.3f} "
        f"| {said['p90_no_bright']:.3f} | {said['median_blended']:.3f} | {said['lost']:.3f} "
        f"| {said['median_colour']:.4f} |"
    )


if __name__ == "__main__":
    main()
