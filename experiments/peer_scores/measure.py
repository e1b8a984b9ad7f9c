"""Whose deblended galaxies are nearest to the truth, on the blends of the BlendingToolKit paper?

Ours, SEP and scarlet2 on the same 200 blends: up to 10 galaxies of CatSim with 18 < i < 27 in
stamps of 24 arcseconds, centres within 3 arcseconds of the middle, Rubin after ten years, noise of
the sky. Once they are told the true centres, and once they find them.

    python experiments/peer_scores/measure.py --catalog catsim.fits --scarlet2 other/bin/python

writes `table.md`, `binned.md` and `figure.png` beside this file. What is finished is kept in
`--work` and not measured again. scarlet2 may live in an environment of its own, whose Python needs
this project's dependencies too; without `--scarlet2` it is taken from this one, or left out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.table import vstack

from diffdeblend.score.load_measure import load_measure
from diffdeblend.score.run import measure_blends
from diffdeblend.score.score import Scores, score
from diffdeblend.score.scores_file import read_scores, write_scores
from diffdeblend.score.shapes import ksb_ellipticity
from diffdeblend.score.summary import summarise
from diffdeblend.simulate.blends import Blends
from diffdeblend.simulate.catsim import read_catsim
from diffdeblend.simulate.sampling import Uniform
from diffdeblend.simulate.simulate import simulate
from diffdeblend.simulate.survey import get_survey

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """What is drawn and how it is judged.

    - `seed`: 1 is for choosing settings, 2 for the table.
    - `chunk`: blends that are measured, judged and kept at a time.
    - `snr`: only galaxies above it in r are judged in the table's lower half.
    """

    n: int = 200
    seed: int = 2
    sampling: Uniform = field(
        default_factory=lambda: Uniform(
            most=10, fewest=0, max_shift=3.0, faintest=27.0, brightest=18.0
        )
    )
    noise: str = "background"
    band: str = "r"
    chunk: int = 20
    snr: float = 10.0


SETTINGS = Settings()
# By name: the word of the measure, and whether it can find sources itself.
MEASURES = {"diffdeblend": True, "sep": True, "scarlet2": False}


def blends_of(catalog: Path, settings: Settings, start: int, stop: int) -> Blends:
    """Some blends of the set."""
    return simulate(
        read_catsim(catalog),
        settings.sampling,
        get_survey("LSST"),
        stop - start,
        start=start,
        seed=settings.seed,
        noise=settings.noise,
    )


def measure(
    word: str, positions: str, catalog: Path, work: Path, settings: Settings
) -> tuple[Scores, float]:
    """Scores of one measure on the whole set, and its milliseconds a blend.

    - `positions`: `"truth"` or `"detect"`.

    Parts that are in `work` already are taken from there.
    """
    work.mkdir(parents=True, exist_ok=True)
    # Ours takes many at a time; one of the peers is so slow that little should be lost.
    size = settings.n if word == "diffdeblend" else settings.chunk
    parts, seconds = [], 0.0
    for start in range(0, settings.n, size):
        stop = min(settings.n, start + size)
        name = f"{word}-{positions}-seed{settings.seed}-{start}-{stop}.npz"
        path = work / name
        if not path.exists():
            blends = blends_of(catalog, settings, start, stop)
            began = time.perf_counter()
            found = measure_blends(blends, load_measure(word), positions=positions)
            seconds = time.perf_counter() - began
            for number, error in found.errors[word].items():
                print(f"{word}, blend {start + number}: {error}", file=sys.stderr)
            one = score(
                blends,
                found.measured[word],
                band=settings.band,
                # Told the centres, the n-th row of the catalogue is the n-th source.
                target_measures={"ellipticity": ellipticity},
                btk=True,
                draws=0,
            )
            one.settings["seconds"] = seconds
            write_scores({word: one}, path)
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        parts.append(read_scores(path)[word])
    total = sum(part.settings["seconds"] for part in parts)
    return joined(parts), 1000 * total / settings.n


def ellipticity(image: np.ndarray, psf: np.ndarray, x: float, y: float) -> tuple[float, ...]:
    """Components of the shape without the PSF, as the BlendingToolKit measures it."""
    return ksb_ellipticity(image, psf, x, y)


def joined(parts: Sequence[Scores]) -> Scores:
    """Scores of parts of a set as those of the whole."""
    blends = 0
    sources, found = [], []
    for part in parts:
        for table, into in ((part.per_source, sources), (part.detections, found)):
            table = table.copy()
            table["blend"] = np.asarray(table["blend"]) + blends
            into.append(table)
        blends += part.n_blends
    settings = parts[0].settings | {"n_blends": blends, "draws": 400}
    tables = [vstack(list(t), metadata_conflicts="silent") for t in (sources, found)]
    return Scores(tables[0], tables[1], summarise(*tables, settings), settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalog", type=Path, required=True, help="the CatSim sample, FITS")
    parser.add_argument("--work", type=Path, default=Path("peer_scores"), help="for parts")
    parser.add_argument("--seed", type=int, default=SETTINGS.seed)
    parser.add_argument("--n", type=int, default=SETTINGS.n)
    parser.add_argument("--scarlet2", type=Path, help="a Python that has scarlet2")
    parser.add_argument("--only", help="one measure, into --work, without tables")
    chosen = parser.parse_args()
    settings = replace(SETTINGS, seed=chosen.seed, n=chosen.n)
    if chosen.only:
        measure(chosen.only, "truth", chosen.catalog, chosen.work, settings)
        return


if __name__ == "__main__":
    main()
