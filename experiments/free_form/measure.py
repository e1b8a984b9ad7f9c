"""What do free pixels add to the batched fit, and who stole light?

    python experiments/free_form/measure.py --cosmos COSMOS.npz --btk BTK.npz --hsc HSC.npz

COSMOS.npz is made by `experiments/blends/make.py cosmos --n 300 --seed 2`; BTK.npz is the file of
`experiments/speed`, HSC.npz that of `experiments/real_blend`. What is not given is left out, and
the table says so.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffdeblend import read
from diffdeblend.batch import (
    CAUTIOUS,
    Blend,
    Found,
    FreeForm,
    blend_of_arrays,
    fit_batch,
    make_blend,
)
from diffdeblend.deblend.catalog import Flag
from diffdeblend.io import read_npz_positions
from diffdeblend.psf import PixelPSF

HERE = Path(__file__).resolve().parent
WAYS: dict[str, FreeForm | bool] = {
    "models alone": False,
    "free pixels where residuals ask": True,
    "free pixels for all above SNR 20": CAUTIOUS,
}


@dataclass(frozen=True)
class Settings:
    """Which sources are judged.

    - `snr`: only sources above this signal-to-noise ratio in r.
    - `wrong`, `sigma`: a flux in r is wrong that is off by more than both this fraction and so
        many errors; `good`: one that is off by less than this fraction.
    - `folds`: in how many parts the pixels of the real blend are dealt out; each is hidden once.
    """

    snr: float = 10.0
    wrong: float = 0.2
    sigma: float = 3.0
    good: float = 0.1
    folds: int = 10


def simulated(path: Path, most: int) -> tuple[list[Blend], np.ndarray, list[str]]:
    """Blends of a file, a record of the truth for each source, and the bands."""
    with np.load(path) as file:
        images, variance, truth = file["images"][:most], file["variance"][:most], file["truth"]
        psf = PixelPSF(file["psf"].astype(np.float32))
        bands = [str(b) for b in file["bands"]]
        rows = [np.flatnonzero(truth["blend"] == n) for n in range(len(images))]
        # Where positions to start from are not in the file, the true ones.
        places = [
            file["start"][n][: len(r)]
            if "start" in file
            else np.stack([truth["x"][r], truth["y"][r]], axis=1)
            for n, r in enumerate(rows)
        ]
    blends = [
        blend_of_arrays(image, noise, psf, xy)
        for image, noise, xy in zip(images, variance, places, strict=True)
    ]
    return blends, truth[np.concatenate(rows)], bands


def timed(run: Callable[[], Found]) -> tuple[Found, float]:
    """The result of a second call, and its processor time."""
    run()
    began = time.process_time()
    return run(), time.process_time() - began


def judge(found: Found, truth: np.ndarray, bands: Sequence[str], settings: Settings) -> list[str]:
    """Cells of a row: errors of fluxes, chi2, and whether flags catch what is wrong."""
    r = list(bands).index("r")
    away = found.flux[:, r] - truth["flux_r"]
    relative = np.abs(np.nan_to_num(away, nan=np.inf) / truth["flux_r"])
    judged = truth["snr_r"] > settings.snr
    wrong = judged & (relative > settings.wrong)
    wrong &= ~(np.abs(away) <= settings.sigma * found.flux_err[:, r])
    good = judged & (relative < settings.good)
    flagged = found.flags & Flag.CONTESTED > 0
    error = relative[judged]
    return [
        f"{np.median(error):.4f}",
        f"{np.quantile(error, 0.9):.3f}",
        f"{np.mean(error > settings.wrong):.3f}",
        f"{found.reduced_chi2.mean():.4f}",
        f"{np.mean(found.flags[judged] & Flag.FREE_FORM > 0):.2f}",
        f"{np.sum(wrong & flagged)} of {np.sum(wrong)}",
        f"{np.sum(good & flagged)} of {np.sum(good)}",
    ]


def contest_curve(found: Found, truth: np.ndarray, bands: Sequence[str], settings: Settings) -> str:
    """How many wrong and good fluxes lie above each of some thresholds of `contest`."""
    r = list(bands).index("r")
    away = found.flux[:, r] - truth["flux_r"]
    relative = np.abs(away / truth["flux_r"])
    judged = (truth["snr_r"] > settings.snr) & np.isfinite(found.contest)
    wrong = judged & (relative > settings.wrong)
    wrong &= np.abs(away) > settings.sigma * found.flux_err[:, r]
    good = judged & (relative < settings.good)
    parts = [
        f"{at:g}: {np.mean(found.contest[wrong] > at):.2f}"
        f" / {np.mean(found.contest[good] > at):.3f}"
        for at in (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
    ]
    return f"share of wrong / of good fluxes with `contest` above {'; '.join(parts)}"


def compare(path: Path, most: int, settings: Settings, **options: float | str) -> list[str]:
    """Lines of the table for a simulated set."""
    blends, truth, bands = simulated(path, most)
    head = (
        "| fluxes in r | median error | p90 | off by > 20 % | mean chi2 | refined "
        "| wrong ones flagged | good ones flagged | core-ms a blend |"
    )
    lines = [head, "|---" * 9 + "|"]
    for name, way in WAYS.items():
        found, seconds = timed(lambda way=way: fit_batch(blends, free_form=way, **options))  # type: ignore[arg-type]
        cells = judge(found, truth, bands, settings)
        lines.append(f"| {' | '.join([name, *cells, f'{1e3 * seconds / len(blends):.1f}'])} |")
    lines += ["", f"Of all above SNR 20, {contest_curve(found, truth, bands, settings)}."]
    return [
        *lines,
        "",
        f"{len(blends)} blends, {int((truth['snr_r'] > settings.snr).sum())} judged.",
    ]


def real_blend(path: Path, settings: Settings) -> list[str]:
    """Lines of the table for the real blend."""
    blend = make_blend(read(path), read_npz_positions(path))
    order = np.random.default_rng(0).permutation(blend.data.size)
    parts = (order % settings.folds).reshape(blend.data.shape)
    lines = ["| real blend | chi2 | held out | core-s |", "|---|---|---|---|"]

    def chi2(weight: np.ndarray, way: FreeForm | bool, where: np.ndarray) -> float:
        # A source that nobody refines, for its images alone.
        way = replace(FreeForm(), least_snr=np.inf) if way is False else way
        given = replace(blend, weight=weight)
        found = fit_batch([given], free_form=way, images=True, trim=False)
        model = found.images[0].sum(axis=0) + found.sky[0][:, :1, None]
        return float(np.sum((blend.weight * (blend.data - model) ** 2)[where]))

    used = blend.weight > 0
    for name, way in WAYS.items():
        seconds = timed(lambda way=way: fit_batch([blend], free_form=way))[1]
        seen = chi2(blend.weight, way, used) / used.sum()
        hidden = 0.0
        for part in range(settings.folds):
            unseen = (parts == part) & used
            weight = np.where(unseen, 0, blend.weight).astype(blend.weight.dtype)
            hidden += chi2(weight, way, unseen)
        lines.append(f"| {name} | {seen:.3f} | {hidden / used.sum():.3f} | {seconds:.2f} |")
    return lines


def main() -> None:
    """Measure what is given, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cosmos", "btk", "hsc"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--most", type=int, default=10**6, help="blends of a set, at most")
    given = parser.parse_args()
    settings = Settings()
    ways: dict[str, Callable[[Path], list[str]]] = {
        "cosmos": lambda path: compare(path, given.most, settings, background="none"),
        "btk": lambda path: compare(
            path, given.most, settings, background="none", model_error=0.0, position_error=0.1
        ),
        "hsc": lambda path: real_blend(path, settings),
    }
    text = ["# Measured", "", f"{settings}", ""]
    for name, way in ways.items():
        path = getattr(given, name)
        if path is None or not path.is_file():
            text += [f"## {name}", "", f"Not measured: no file given with --{name}.", ""]
            continue
        text += [f"## {path.name}", "", *way(path), ""]
        print("\n".join(text), flush=True)
        (HERE / "table.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
