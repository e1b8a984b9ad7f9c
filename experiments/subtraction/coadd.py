"""How near the proper coadd comes to the best signal-to-noise.

python experiments/subtraction/coadd.py --tools DIR [--draws 0 7] [--folder DIR]

Six epochs with known PSFs, skies and transparencies. With the true ones, and with all of it
estimated from the pixels. Prints the figures beside their thresholds and writes `coadd.md`.
"""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from diffdeblend import make_exposure
from diffdeblend.coadd import coadd
from diffdeblend.prepare import prepare

HERE = Path(__file__).parent
_FAR = 15


def estimated(epochs: Any) -> list[Any]:
    """The epochs with sky, noise and PSF from their own pixels."""
    noise = float(epochs["readnoise"])
    return [prepare(image, gain=1.0, read_noise=noise).exposure for image in epochs["images"]]


def true(epochs: Any) -> list[Any]:
    """The epochs with what is true."""
    return [
        make_exposure(image - sky, np.maximum(image, sky) + float(epochs["readnoise"]) ** 2, psf)
        for image, sky, psf in zip(epochs["images"], epochs["B"], epochs["psfs"], strict=True)
    ]


def efficiency(epochs: Any, used: list[Any], found: Any) -> float:
    """S/N of a unit source in the detection image that was made, over the best one.

    By the filters that were used on the PSFs and noises that are true.
    """
    n = used[0].shape[0]
    middle = (n - 1) / 2

    def plane(stamp: Any) -> np.ndarray:
        stamp = np.asarray(stamp, float)
        whole = np.zeros((n, n))
        whole[: stamp.shape[0], : stamp.shape[1]] = stamp
        half = stamp.shape[0] // 2
        return np.fft.fft2(np.roll(whole, (-half, -half), (0, 1)))

    signal, noise = 0.0, 0.0
    for k, exposure in enumerate(used):
        psf = plane(np.asarray(exposure.psf.at(middle, middle).image)[0])
        weight = float(found.scale[k, 0]) / float(found.sigma[k, 0]) ** 2
        truth = plane(epochs["psfs"][k] / epochs["psfs"][k].sum()) * epochs["F"][k]
        signal += weight * np.sum((np.conj(psf) * truth).real) / n**2
        variance = epochs["B"][k] + float(epochs["readnoise"]) ** 2
        noise += weight**2 * variance * np.sum(np.abs(psf) ** 2) / n**2
    return signal / np.sqrt(noise) / float(epochs["snr_per_unit_flux_proper"])


def figures(epochs: Any, used: list[Any]) -> dict[str, float]:
    """Scatter and correlation of R, away from stars, and the efficiency."""
    found = coadd(used)
    begin = time.process_time()
    found = coadd(used)
    image = np.asarray(found.exposure.image, float)[0]
    seconds = time.process_time() - begin
    y, x = np.indices(image.shape)
    places = np.stack([x.ravel(), y.ravel()], 1)
    far = KDTree(epochs["stars"][:, :2]).query(places)[0].reshape(image.shape) > _FAR
    values = image - image[far].mean()
    variance = np.mean(values[far] ** 2)
    pairs = {
        "x": (values[:, 1:] * values[:, :-1])[far[:, 1:] & far[:, :-1]],
        "y": (values[1:] * values[:-1])[far[1:] & far[:-1]],
    }
    return {
        "R std (1 +- 0.01)": np.sqrt(variance),
        "correlation along x (<= 0.01)": pairs["x"].mean() / variance,
        "correlation along y (<= 0.01)": pairs["y"].mean() / variance,
        "efficiency (>= 0.985)": efficiency(epochs, used, found),
        "largest error of F": np.max(np.abs(np.asarray(found.scale)[:, 0] / epochs["F"] - 1)),
        "CPU seconds, warm": seconds,
    }


def main() -> None:
    """Coadd, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True, help="folder with the maker")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 7])
    parser.add_argument("--folder", type=Path, help="where simulated epochs are kept")
    chosen = parser.parse_args()
    sys.path.insert(0, str(chosen.tools))
    maker = importlib.import_module("make_subtraction_pairs")
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for draw in chosen.draws:
            path = (chosen.folder or Path(scratch)) / str(draw) / "sim_E.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                maker.epochs(str(path.parent), draw)
            epochs = np.load(path)
            columns[f"{draw}, all true"] = figures(epochs, true(epochs))
            columns[f"{draw}, all estimated"] = figures(epochs, estimated(epochs))
    lines = ["| draw | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for name in next(iter(columns.values())):
        cells = " | ".join(f"{column[name]:.4g}" for column in columns.values())
        lines.append(f"| {name} | {cells} |")
    print("\n".join(lines))
    (HERE / "coadd.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
