"""How fast are images and stamps turned into catalogues, beside photutils and SEP?

    python experiments/detection_speed/measure.py [--photutils PATH/TO/python]

Each case runs in a process of its own, one after the other: its first call, then the fastest of the
others. `--photutils` is the Python of an environment with another photutils (3.1 needs Python
3.12). The table goes to `table.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from field import Field, draw_field

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is measured.

    - `field`: the large image; `stamps`: of `stamp` pixels, cut from its corner.
    - `blends`: stamps of `blend` pixels with one to three Gaussians each, for DENCLUE.
    - `repeats`: calls on the field and on the stamps.
    """

    field: Field = field(default_factory=Field)
    stamps: int = 256
    stamp: int = 64
    blends: int = 256
    blend: int = 32
    repeats: tuple[int, int] = (4, 8)
    seed: int = 1


SETTINGS = Settings()


def inputs(folder: Path) -> dict[str, Path]:
    """Files of the three kinds of images."""
    image, _ = draw_field(SETTINGS.field)
    side, n = SETTINGS.stamp, round(SETTINGS.stamps**0.5)
    tiles = image[: n * side, : n * side].reshape(n, side, n, side).swapaxes(1, 2)
    stamps = np.ascontiguousarray(tiles.reshape(-1, side, side))
    made = {"field": image, "stamps": stamps, "blends": blends()}
    files = {name: folder / f"{name}.npy" for name in made}
    for name, array in made.items():
        np.save(files[name], array)
    return files


def blends() -> np.ndarray:
    """Blends of one to three round Gaussians on noise of one."""
    rng, side = np.random.default_rng(SETTINGS.seed), SETTINGS.blend
    y, x = np.mgrid[:side, :side].astype(float)
    images = rng.normal(size=(SETTINGS.blends, side, side))
    for image in images:
        for _ in range(rng.integers(1, 4)):
            x0, y0 = rng.uniform(9, side - 10, 2)
            width, peak = rng.uniform(1.5, 3), rng.uniform(10, 100)
            image += peak * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / width**2)
    return images.astype(np.float32)


def run(command: list[str]) -> dict[str, Any]:
    """What a process printed, and its seconds as a whole."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photutils", metavar="PYTHON", help="with another photutils")
    chosen = parser.parse_args()
    pythons = {"photutils": [sys.executable, *([chosen.photutils] if chosen.photutils else [])]}
    rows, stages = [], []
    with tempfile.TemporaryDirectory() as name:
        files = inputs(Path(name))
        for kind, repeats in zip(("field", "stamps"), SETTINGS.repeats, strict=True):
            ours = run(
                [sys.executable, str(HERE / "our_side.py"), kind, str(files[kind]), str(repeats)]
            )
            cases = [("diffdeblend", ours)]
            for python in pythons["photutils"]:
                found = run(
                    [python, str(HERE / "peer_side.py"), "photutils", str(files[kind]), "3"]
                )
                cases.append((f"photutils {found['version']}", found))
            case = ["sep", str(files[kind]), "5"]
            found = run([sys.executable, str(HERE / "peer_side.py"), *case])
            cases.append((f"SEP {found['version']}", found))
            for title, case in cases:
                rows.append((kind, title, case, case["warm"] / ours["warm"]))
                if kind == "field":
                    stages.append((title, case["stages"]))
        for kind, title in (("denclue", "grid ascent"), ("climb", "exact climb")):
            ours = run([sys.executable, str(HERE / "our_side.py"), kind, str(files["blends"]), "8"])
            rows.append(("blends", f"diffdeblend, {title}", ours, None))
    (HERE / "table.md").write_text(table(rows, stages))
    print((HERE / "table.md").read_text())


def table(rows: list[tuple], stages: list[tuple]) -> str:
    """Markdown: a row a case, and the stages of the field."""
    size, n = SETTINGS.field.size, SETTINGS.stamps
    kinds = {
        "field": f"{size} x {size} pixels",
        "stamps": f"{n} stamps of {SETTINGS.stamp} x {SETTINGS.stamp}",
        "blends": f"DENCLUE, {SETTINGS.blends} stamps of {SETTINGS.blend} x {SETTINGS.blend}",
    }
    lines = [
        "| images | by | sources | seconds, warm | first call | over ours | peak MB, first call |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, title, case, ratio in rows:
        lines.append(
            f"| {kinds[kind]} | {title} | {case['sources']} | {case['warm']:.3f} "
            f"| {case['cold']:.2f} | {'' if ratio is None else f'{ratio:.1f}'} "
            f"| {case['peak']:.0f} |"
        )
    names = list(dict.fromkeys(name for _, parts in stages for name in parts))
    lines += ["", f"Seconds by stage, {kinds['field']}, warm:", ""]
    lines.append("| | " + " | ".join(names) + " |")
    lines.append("| --- |" + " ---: |" * len(names))
    for title, parts in stages:
        cells = [f"{parts[name]:.3f}" if name in parts else "" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    settings = json.dumps(asdict(SETTINGS))
    return "\n".join([*lines, "", f"Settings: `{settings}`.", ""])


if __name__ == "__main__":
    main()
