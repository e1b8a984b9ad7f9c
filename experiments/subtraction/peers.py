"""The same pairs by ProperImage, SFFT and HOTPANTS, beside ours, in one run.

python experiments/subtraction/peers.py --tools DIR --real DIR [--draw 0] [--kinds ABC]
    --properimage PATH/TO/python --sfft PATH/TO/python --hotpants PATH/TO/hotpants

A peer that is not given is left out. Folders as in `measure.py`. Prints a table and writes
`peers.md`. What peers call a significance is brought to unit scatter first, where they have one;
SFFT and HOTPANTS have none, and get a matched filter with the PSF of the new image in the middle.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from measure import Settings, real_pair, scored, subtracted
from scipy.ndimage import convolve

from diffdeblend.prepare import prepare

HERE = Path(__file__).parent
COLUMNS = ("false", "near stars", "negative", "found", "variance", "seconds", "CPU seconds")


def robust(values: np.ndarray) -> float:
    """Standard deviation by the median deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def run(command: list[str], folder: Path) -> tuple[str, float, float]:
    """What a command prints, its wall and its CPU seconds."""
    wall, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-500:]}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return done.stdout, time.perf_counter() - wall, cpu


def properimage(python: str, files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Its D and its S_corr at unit scatter."""
    script = str(HERE / "properimage_side.py")
    names = [str(files["reference"]), str(files["new"]), "properimage.npz"]
    out = json.loads(run([python, script, *names], folder)[0].splitlines()[-1])
    found = np.load(folder / "properimage.npz")
    score = found["S_corr"] / robust(found["S_corr"])
    return {"D": found["D"], "sig": score, **out}


def sfft(python: str, files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Its difference."""
    script = str(HERE / "sfft_side.py")
    names = [str(files["flat_reference"]), str(files["flat_new"]), "sfft.npz"]
    out = json.loads(run([python, script, *names], folder)[0].splitlines()[-1])
    return {"D": np.load(folder / "sfft.npz")["D"], **out}


def hotpants(program: str, files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Its difference; the faster of two runs, with reading and writing."""
    limits = ["-tu", "60000", "-iu", "60000", "-tl", "-200", "-il", "-200"]
    command = [program, "-inim", str(files["new"]), "-tmplim", str(files["reference"]), "-outim"]
    command += ["hotpants.fits", *limits, "-tg", files["gain"], "-ig", files["gain"]]
    command += ["-ko", "2", "-bgo", "1", "-n", "t"]
    times = [run(command, folder)[1:] for _ in range(2)]
    wall, cpu = np.min(times, axis=0)
    difference = fits.getdata(folder / "hotpants.fits").astype(float)
    # What it could not subtract it writes as 1e-30.
    return {"D": np.where(difference == 1e-30, 0, difference), "seconds": wall, "cpu_seconds": cpu}


PEERS = {"ProperImage": properimage, "SFFT": sfft, "HOTPANTS": hotpants}
# ProperImage takes minutes for a simulated pair: it has the real one.
SIMULATED = ("SFFT", "HOTPANTS")


def matched(difference: np.ndarray, variance: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Significance of a point, at unit scatter."""
    total = convolve(np.nan_to_num(difference), psf[::-1, ::-1], mode="constant")
    noise = np.sqrt(convolve(variance, psf[::-1, ::-1] ** 2, mode="constant"))
    score = total / np.maximum(noise, 1e-9)
    return score / robust(score)


def written(new: np.ndarray, reference: np.ndarray, gain: float, folder: Path) -> dict[str, Any]:
    """The pair as files, as they are and without their sky."""
    files: dict[str, Any] = {"gain": str(gain)}
    for name, image in (("new", new), ("reference", reference)):
        files[name] = folder / f"{name}.fits"
        fits.writeto(files[name], image.astype(np.float32), overwrite=True)
        flat = np.asarray(prepare(image, psf=None, gain=gain).exposure.image)[0]
        files[f"flat_{name}"] = folder / f"flat_{name}.fits"
        fits.writeto(files[f"flat_{name}"], flat, overwrite=True)
    return files


def simulated(kind: str, chosen: Any, settings: Settings, folder: Path) -> dict[str, list[float]]:
    """Figures of one simulated pair, by who made them."""
    maker = importlib.import_module("make_subtraction_pairs")
    score = importlib.import_module("score_subtraction").score
    path = (chosen.folder or folder) / f"{chosen.draw}" / f"sim_{kind}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        maker.make(kind, str(path.parent), chosen.draw)
    pair = np.load(path)
    rows = {}
    for _ in range(2):
        cpu = time.process_time()
        found, seconds = subtracted(pair, settings)
        cpu = time.process_time() - cpu
    before, _ = scored(score, path, found, settings, folder)
    rows["diffdeblend"] = figures(before, seconds, cpu)
    files = written(pair["new"], pair["ref"], 1.0, folder)
    variance = pair["new"] + 0.64 * pair["ref"] + 8.0**2 + 0.64 * 5.0**2
    for name in SIMULATED:
        if program := getattr(chosen, name.lower()):
            out = PEERS[name](program, files, folder)
            sig = out.get("sig")
            if sig is None:
                sig = matched(out["D"], variance.astype(float), pair["psf_new_c"])
            np.savez(folder / "peer.npz", sig=sig, D=out["D"], grid="new")
            scores = score(path, folder / "peer.npz")
            rows[name] = figures(scores, out["seconds"], out["cpu_seconds"])
    return rows


def figures(scores: dict[str, Any], seconds: float, cpu: float) -> list[float]:
    """The columns of the table."""
    return [
        scores["fp"], scores["fp_near_star"], scores["neg_peaks"], scores["compl_snr>=7"],
        scores["sig_all_var"], seconds, cpu,
    ]  # fmt: skip


def real(chosen: Any, settings: Settings, folder: Path) -> dict[str, list[float]]:
    """Robust scatter of D, share beyond five of these, on the same pixels; the seconds."""
    ours, used = real_pair(chosen.real, settings)
    names = ("R1 D robust", "R1 D > 5", "T3 wall s", "T3 CPU s")
    rows = {"diffdeblend": [ours[name] for name in names]}
    images = [fits.getdata(chosen.real / name).astype(float) for name in settings.real]
    files = written(*images, 1.52, folder)
    for name, peer in PEERS.items():
        if program := getattr(chosen, name.lower()):
            out = peer(program, files, folder)
            inner = out["D"][used]
            scatter = robust(inner)
            beyond = float(np.mean(np.abs(inner - np.median(inner)) > 5 * scatter))
            # Only a proper difference has unit scatter by itself.
            shown = scatter if name == "ProperImage" else np.nan
            rows[name] = [shown, beyond, out["seconds"], out["cpu_seconds"]]
    return rows


def table(title: str, columns: tuple[str, ...], rows: dict[str, list[float]]) -> str:
    """One table in Markdown."""
    lines = [f"| {title} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for name, values in rows.items():
        cells = ["" if np.isnan(value) else f"{value:.3g}" for value in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all that is given, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, help="folder with the maker and the scorer of pairs")
    parser.add_argument("--real", type=Path, help="folder with the real pair")
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--kinds", default="ABC")
    parser.add_argument("--folder", type=Path, help="where simulated pairs are kept")
    for name in PEERS:
        parser.add_argument(f"--{name.lower()}", metavar="PATH")
    chosen = parser.parse_args()
    for name in PEERS:
        if getattr(chosen, name.lower()) is None:
            print(f"{name} is left out: give --{name.lower()}")
    settings, parts = Settings(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.real is not None:
            columns = ("robust scatter of D", "D beyond 5", "seconds", "CPU seconds")
            parts.append(table("real pair", columns, real(chosen, settings, folder)))
        if chosen.tools is not None:
            sys.path.insert(0, str(chosen.tools))
            for kind in chosen.kinds:
                rows = simulated(kind, chosen, settings, folder)
                parts.append(table(f"simulated {kind}, draw {chosen.draw}", COLUMNS, rows))
    text = "\n\n".join(parts)
    print(text)
    if parts:
        (HERE / "peers.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
