"""How many sources a second are measured, by each measurement, and by the catalogue of labels?

    python experiments/measurement/speed.py [--photutils PATH/TO/python ...]

10,000 sources of a 4096 x 4096 image, all on stamps in one batched program; then the catalogue of
labelled sources beside photutils, on the same image and label map. Each in a process of its own.
The table goes to `table.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "detection_speed"))

from field import Field, draw_field  # noqa: E402  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    - `field`: the image; `repeats`: later calls, the fastest of which is `warm`.
    """

    field: Field = dataclass_field(default_factory=lambda: Field(n_sources=10_000))
    repeats: int = 3


SETTINGS = Settings()
# What each measurement needs before it.
NEEDS = ("psf_shape", "centroid", "shape")


def measure(name: str, path: str) -> None:
    """Seconds of one measurement and of what it needs, or of `all` or `cut`. Prints JSON."""
    from diffdeblend.exposure import make_exposure
    from diffdeblend.quantities import STANDARD, measure_sources

    with np.load(path) as file:
        data, error, places = file["data"], file["error"], file["places"]
    square = ((np.mgrid[:25, :25] - 12) ** 2).sum(axis=0)
    scale = (SETTINGS.field.fwhm / (2 * np.sqrt(2 ** (1 / SETTINGS.field.beta) - 1))) ** 2
    exposure = make_exposure(data, error**2, psf=(1 + square / scale) ** -SETTINGS.field.beta)
    chosen = {k: v for k, v in STANDARD.items() if k == name or k in NEEDS or name == "all"}
    if name in NEEDS:
        chosen = {k: STANDARD[k] for k in NEEDS[: NEEDS.index(name) + 1]}
    wall, cpu = [], []
    for _ in range(1 + SETTINGS.repeats):
        begun, busy = time.perf_counter(), time.process_time()
        measure_sources(exposure, places, measurements=chosen)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - busy)
    warm = int(np.argmin(wall[1:])) + 1
    row = {"cold": wall[0], "cold_cpu": cpu[0], "warm": wall[warm], "warm_cpu": cpu[warm]}
    print(json.dumps({"version": name, "sources": len(places), **row}))


def run(*command: str) -> dict:
    """What a process printed."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def draw(path: Path) -> None:
    """The field without its sky, the places of its sources, and its labels."""
    from diffdeblend.background import estimate_background
    from diffdeblend.segment import deblend_sources, detect_sources, make_2dgaussian_kernel, smooth

    image, truth = draw_field(SETTINGS.field)
    sky = estimate_background(image, 64)
    error = np.asarray(sky.background_rms)
    data = image - np.asarray(sky.background)
    smoothed = smooth(data, make_2dgaussian_kernel(3.0, 5))
    labels = detect_sources(smoothed, 1.5 * error, 10)
    labels = deblend_sources(smoothed, labels, 10, n_levels=32, contrast=0.001)
    places = np.floor(np.stack([truth["x"], truth["y"]], axis=1) + 0.5)
    np.savez(path, data=data, error=error, labels=np.asarray(labels.data), places=places)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photutils", action="append", default=[], help="another Python")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    from diffdeblend.quantities import STANDARD

    rows = ["| measurement | sources | first, s (CPU) | warm, s (CPU) | sources / s warm |"]
    rows.append("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.npz"
        draw(path)
        me = str(Path(__file__).resolve())
        done = [
            run(sys.executable, me, "--measure", name, str(path)) for name in (*STANDARD, "all")
        ]
        side = str(HERE / "catalog_side.py")
        peers = [(sys.executable, "ours"), (sys.executable, "photutils")]
        peers += [(python, "photutils") for python in arguments.photutils]
        catalogs = [
            run(python, side, who, str(path), "4" if who == "ours" else "2")
            for python, who in peers
        ]
    for row in (*done, *catalogs):
        name = row["version"] + (" catalogue" if row in catalogs else "")
        first = f"{row['cold']:.2f} ({row['cold_cpu']:.2f})"
        warm = f"{row['warm']:.2f} ({row['warm_cpu']:.2f})"
        rate = row["sources"] / row["warm"]
        rows.append(f"| {name} | {row['sources']} | {first} | {warm} | {rate:,.0f} |")
    rows.append("")
    for other in catalogs[1:]:
        ratio, cpu = (other[key] / catalogs[0][key] for key in ("warm", "warm_cpu"))
        rows.append(f"Our catalogue is {ratio:.1f} times as fast as {other['version']}")
        rows[-1] += f" ({cpu:.1f} by CPU seconds)."
    table = "\n".join(rows) + "\n"
    (HERE / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
