"""How wrong are fluxes of real galaxies, which no model of the family is, and do errors say so?

    python experiments/model_error/measure.py COSMOS.npz [--peer PEER.npz]

COSMOS.npz is a set of experiments/blends, recipe cosmos. Several fractions of the local light are
tried as the error of the model (`model_error` of `fit_batch`); choose on one seed, score on
another. PEER.npz is what experiments/speed/peers.py found for the first blends of the same file.
Writes `table.md`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np

from diffdeblend import PixelPSF
from diffdeblend.batch import Found, blend_of_arrays, fit_batch

HERE = Path(__file__).resolve().parent
for folder in ("blends", "calibration", "speed"):
    sys.path.insert(0, str(HERE.parent / folder))
from make import Blends, first, load  # noqa: E402
from pulls import of_bands, summary  # noqa: E402
from score import score  # noqa: E402

FRACTIONS = (0.0, 0.01, 0.02, 0.04)
SNR = (10.0, 100.0, np.inf)


def fitted(blends: Blends, model: str, model_error: float) -> Found:
    """Fits from the start positions of the file, which are off by 0.3 pixels."""
    psf = PixelPSF(blends.psf)
    return fit_batch(
        [
            blend_of_arrays(
                blends.images[n], blends.variance[n], psf, blends.start[n, : blends.n_src[n]]
            )
            for n in range(len(blends.images))
        ],
        model=model,
        background="none",
        model_error=model_error,
        position_error=0.3,
        sizes=(64,),
    )


def accuracy(name: str, truth: np.ndarray, flux: np.ndarray, bands: list[str]) -> str:
    """A row of figures of merit."""
    s = score(truth, flux, bands)
    return (
        f"| {name} | {s['n']} | {s['median']:.3f} | {s['p90']:.2f} | {s['median_blended']:.3f} | "
        f"{100 * s['lost']:.1f} % | {s['median_colour']:.3f} |"
    )


def calibration(name: str, found: Found, blends: Blends, floor: float = 0.0) -> list[str]:
    """Rows of pulls of fluxes by true signal-to-noise ratio, all bands together.

    - `floor`: fraction of the flux that is added to its error in quadrature.
    """
    error = np.hypot(found.flux_err, floor * found.flux)
    pulls = (found.flux - of_bands(blends, "flux")) / error
    snr = of_bands(blends, "snr")
    rows = []
    for low, high in zip((0.0, *SNR[:-1]), SNR, strict=True):
        s = summary(pulls[(snr >= low) & (snr < high)], 5.0)
        said = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        rows.append(
            f"| {name} | {said} | {s.n} | {s.median:+.2f} | {s.spread:.2f} | {s.within_68:.1f} | "
            f"{s.within_95:.1f} | {s.beyond_5:.1f} |"
        )
    return rows


def best_floor(found: Found, blends: Blends) -> float:
    """The floor with which 68 % of fluxes above SNR 10 lie within their error."""
    above = of_bands(blends, "snr") > SNR[0]
    away = np.abs(found.flux - of_bands(blends, "flux"))[above]
    floors = np.arange(0, 0.2, 0.001)
    shares = [
        np.mean(away < np.hypot(found.flux_err, floor * found.flux)[above]) for floor in floors
    ]
    return float(floors[np.argmin(np.abs(np.array(shares) - 0.683))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blends", type=Path, help="a set of experiments/blends, recipe cosmos")
    parser.add_argument("--first", type=int, help="so many blends only")
    parser.add_argument("--peer", type=Path, help="results of a peer on its first blends")
    parser.add_argument("--floor", type=float, help="of errors; the best one on these blends")
    given = parser.parse_args()
    for path in (given.blends, given.peer):
        if path is not None and not path.is_file():
            parser.error(f"there is no {path}")
    blends = load(given.blends)
    if given.first is not None:
        blends = first(blends, given.first)
    bands = [str(band) for band in blends.bands]
    merits, pulls, found = [], [], {}
    for model in ("auto", "sersic"):
        for fraction in FRACTIONS:
            name = f"{model}, model error {100 * fraction:g} %"
            found[name] = fitted(blends, model, fraction)
            merits.append(accuracy(name, blends.truth, found[name].flux, bands))
            pulls += calibration(name, found[name], blends)
    usual = "auto, model error 2 %"
    best = best_floor(found[usual], blends)
    floor = best if given.floor is None else given.floor
    pulls += calibration(f"{usual}, floor {100 * floor:.1f} %", found[usual], blends, floor)
    if given.peer is not None:
        with np.load(given.peer) as file:
            fluxes, n, said = file["fluxes"], int(file["blend"].max()) + 1, str(file["said"])
        rows = blends.truth["blend"] < n
        merits.append(f"| *the first {n} blends alone* | | | | | | |")
        merits.append(accuracy(json.loads(said)["peer"], blends.truth[rows], fluxes, bands))
        for name, one in found.items():
            if name.endswith(" 2 %"):
                merits.append(accuracy(name, blends.truth[rows], one.flux[rows], bands))
    text = "\n".join(
        [
            "| fit | galaxies | median flux error, r | 90 % | blended | off by > 90 % | g-r |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *merits,
            "",
            "| pulls | SNR | n | median | robust std | 68 % | 95 % | beyond 5, % |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *pulls,
            "",
            f"Floor that fits these blends: {100 * best:.1f} % of the flux.",
            f"{len(blends.images)} blends; jax {jax.__version__}.",
        ]
    )
    (HERE / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
