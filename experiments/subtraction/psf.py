"""How well PSFs come out of stars: simulated pairs, fields of equal stars, and the real pair.

python experiments/subtraction/psf.py [--pairs DIR ... | --tools DIR] [--real DIR]

DIR of --pairs has `sim_B.npz`, that of --tools `make_subtraction_pairs.py`, and that of --real the
two aligned exposures of ESO 085-030. Prints every figure beside its threshold, a line a method, and
writes `psf.md`.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import galsim
import numpy as np

from diffdeblend.prepare import prepare
from diffdeblend.stars import StarPSF, determine_psf, validate_psf

HERE = Path(__file__).parent
METHODS = ("moffat+residual", "moffat", "mixture", "gaussian", "kl")
# Levels and read noises of the pairs' images.
IMAGES = {"ref": (300.0, 5.0), "new": (900.0, 8.0)}
REAL = ("aligned_eso085-030-004.fit", "aligned_eso085-030-005.fit")
SIDE, COUNT, NOISE = 2048, 100, 10.0


def timed(*image: Any, method: str) -> tuple[StarPSF, float]:
    """A PSF and the CPU seconds it took."""
    begin = time.process_time()
    found = determine_psf(*image, method=method)
    return found, time.process_time() - begin


def against(images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of size and ellipticity, and the largest as a fraction of the peak, of each."""
    side = min(images.shape[-1], truth.shape[-1])
    both = []
    for stack in (images.astype(float), truth.astype(float)):
        edge = (stack.shape[-1] - side) // 2
        cut = stack[:, edge : edge + side, edge : edge + side]
        both.append(cut / cut.sum((1, 2), keepdims=True))
    moments = [[galsim.hsm.FindAdaptiveMom(galsim.Image(i)) for i in stack] for stack in both]
    size, e1, e2 = (
        np.array([[of(m) for m in row] for row in moments])
        for of in (
            lambda m: m.moments_sigma,
            lambda m: m.observed_shape.e1,
            lambda m: m.observed_shape.e2,
        )
    )
    ellipticity = np.hypot(e1[0] - e1[1], e2[0] - e2[1])
    largest = np.abs(both[0] - both[1]).max((1, 2)) / both[1].max((1, 2))
    return np.abs(size[0] / size[1] - 1), ellipticity, largest


def pair_rows(folder: Path) -> Iterator[str]:
    """All nodes of the truth of both images."""
    pair = np.load(folder / "sim_B.npz")
    x, y = (g.ravel() for g in np.meshgrid(pair["psf_grid_xy"], pair["psf_grid_xy"]))
    for which, (sky, read_noise) in IMAGES.items():
        image = pair[which].astype(np.float32) - np.float32(sky)
        variance = (np.maximum(pair[which], 0) + read_noise**2).astype(np.float32)
        truth = pair[f"psf_{which}_grid"]
        truth = truth.reshape(-1, *truth.shape[-2:])
        for method in METHODS:
            found, seconds = timed(image, variance, pair["mask_" + which], method=method)
            drawn = np.asarray(found.psf.images_at(x, y))[:, 0]
            size, ellipticity, largest = (values.max() for values in against(drawn, truth))
            yield (
                f"| {folder.name} {which} | {method} | {size:.4f} | {ellipticity:.4f} | "
                f"{largest:.4f} | {found.psf.n_basis} | {seconds:.3f} |"
            )


def star_profile(x: float, y: float) -> Any:
    """Size by 5 % over the image, shear by 0.02."""
    u, v = x / SIDE - 0.5, y / SIDE - 0.5
    return galsim.Moffat(beta=3, fwhm=3 * (1 + 0.05 * u)).shear(g1=0.02 * u, g2=0.02 * v)


def star_rows(draws: range) -> Iterator[str]:
    """Stars of signal over noise 200, against the PSF without noise at those kept out."""
    half = 30
    for draw in draws:
        rng = np.random.default_rng(draw)
        field = galsim.ImageD(galsim.BoundsI(0, SIDE - 1, 0, SIDE - 1))
        middle = star_profile(SIDE / 2, SIDE / 2).drawImage(nx=41, ny=41, scale=1).array
        flux = 200 * NOISE / np.sqrt((middle.astype(float) ** 2).sum())
        for x, y in rng.uniform(40, SIDE - 40, (COUNT, 2)):
            column, row = round(x), round(y)
            box = galsim.BoundsI(column - half, column + half, row - half, row + half)
            star = (star_profile(x, y) * flux).drawImage(
                bounds=box, scale=1, offset=(x - column, y - row), dtype=float
            )
            field[box & field.bounds] += star[box & field.bounds]
        image = (field.array + rng.normal(0, NOISE, field.array.shape)).astype(np.float32)
        variance = np.full(image.shape, NOISE**2, np.float32)
        for method in METHODS[:2]:
            found, seconds = timed(image, variance, method=method)
            x, y = (np.asarray(found.reserved[name], float) for name in "xy")
            drawn = np.asarray(found.psf.images_at(x, y))[:, 0]
            n = drawn.shape[-1]
            truth = [
                star_profile(*place).drawImage(nx=n, ny=n, scale=1, dtype=float).array
                for place in zip(x, y, strict=True)
            ]
            size, ellipticity, _ = (np.median(v) for v in against(drawn, np.array(truth)))
            report = validate_psf(image, variance, None, found, size=25)
            yield (
                f"| {draw} | {method} | {2 * size:.4f} | {ellipticity:.4f} | {report.chi2:.3f} | "
                f"{seconds:.3f} |"
            )


def real_rows(folder: Path) -> Iterator[str]:
    """Stars kept out, and of those the bright."""
    for name in REAL:
        made = prepare(folder / name, psf=None).exposure
        image = (np.asarray(made.image[0]), np.asarray(made.variance[0]), ~np.asarray(made.good[0]))
        for method in METHODS:
            timed(*image, method=method)
            found, seconds = timed(*image, method=method)
            report = validate_psf(*image, found)
            bright = np.asarray(report.table["snr"]) > 100
            excess = np.median(np.asarray(report.table["excess"])[bright])
            yield (
                f"| {name} | {method} | {excess:.4f} | {report.excess:.4f} | {report.chi2:.3f} | "
                f"{found.fwhm:.3f} | {seconds:.3f} |"
            )


def main() -> None:
    """Print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, nargs="+", default=[], help="folders of sim_B.npz")
    parser.add_argument("--tools", type=Path, help="folder with the maker of pairs")
    parser.add_argument("--real", type=Path, help="folder with the real pair")
    chosen = parser.parse_args()
    lines: list[str] = []

    def tell(title: str, columns: str, rows: Iterator[str]) -> None:
        rule = "|" + " --- |" * (columns.count("|") - 1)
        for line in ("", title, "", columns, rule):
            lines.append(line)
            print(line)
        for line in rows:
            lines.append(line)
            print(line, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folders = list(chosen.pairs)
        if not folders and chosen.tools is not None:
            sys.path.insert(0, str(chosen.tools))
            importlib.import_module("make_subtraction_pairs").make("B", scratch, 0)
            folders = [Path(scratch)]
        for folder in folders:
            tell(
                "Simulated pair: worst of 64 places",
                "| image | method | size <= 0.007 | e <= 0.01 | peak <= 0.015 | images | CPU s |",
                pair_rows(folder),
            )
    tell(
        "Stars of S/N 200: medians at those kept out",
        "| draw | method | T < 0.005 | e < 0.003 | chi2 0.9..1.15 | CPU s |",
        star_rows(range(21, 24)),
    )
    if chosen.real is not None:
        tell(
            "Real pair: stars kept out",
            "| image | method | excess, S/N > 100 <= 0.12 | excess | chi2 | FWHM | CPU s |",
            real_rows(chosen.real),
        )
    (HERE / "psf.md").write_text("\n".join(lines).strip() + "\n")


if __name__ == "__main__":
    main()
