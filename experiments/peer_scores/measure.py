r"""Whose deblended galaxies are nearest to the truth, on the blends of the BlendingToolKit paper?

Ours, by models and by segments alone, SEP and scarlet2 on the same 200 blends: up to 10 galaxies of
CatSim with 18 < i < 27 in stamps of 24 arcseconds, centres within 3 arcseconds of the middle, Rubin
after ten years, noise of the sky. Once they are told the true centres, and once they find them.

    python experiments/peer_scores/measure.py --catalog catsim.fits \
        --scarlet2 one/bin/python --lite another/bin/python

writes `table.md`, `binned.md` and `figure.png` beside this file. What is finished is kept in
`--work` and not measured again. The peers live in environments of their own, which need this
project's dependencies too; those that are not given are left out.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from diffdeblend.score import (
    Scores,
    binned,
    join_scores,
    ksb_ellipticity,
    load_measure,
    measure_blends,
    read_scores,
    score,
    write_scores,
)
from diffdeblend.simulate import Blends, Uniform, get_survey, read_catsim, simulate

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


@dataclass(frozen=True, eq=False)
class Run:
    """A measure as `load_measure` knows it, with its settings.

    - `positions`: `"truth"` or `"detect"`.
    - `peer`: the environment that it needs, or none.
    """

    name: str
    word: str
    positions: str
    settings: dict[str, Any] = field(default_factory=dict)
    peer: str = ""


SETTINGS = Settings()
RUNS = (
    # True centres: they are right to a tenth of a pixel.
    Run("diffdeblend", "diffdeblend", "truth", {"position_error": 0.1}),
    Run("scarlet2", "scarlet2", "truth", peer="scarlet2"),
    Run("scarlet_lite", f"{HERE / 'lite.py'}:scarlet_lite", "truth", peer="lite"),
    Run("diffdeblend", "diffdeblend", "detect"),
    Run("segments", "segments", "detect"),
    Run("sep", "sep", "detect"),
)
# Of the figures a galaxy, by what makes it hard.
BINS = {"snr": (0, 10, 20, 50, 100, 1e9), "blendedness": (0, 0.05, 0.2, 0.5, 0.8, 1.01)}


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


def measure(run: Run, catalog: Path, work: Path, settings: Settings) -> Scores:
    """Scores of one measure on the whole set. Parts that are in `work` are taken from there."""
    work.mkdir(parents=True, exist_ok=True)
    # Ours takes many at a time; one of the peers is so slow that little should be lost.
    size = settings.n if run.word == "diffdeblend" else settings.chunk
    parts = []
    for start in range(0, settings.n, size):
        stop = min(settings.n, start + size)
        path = work / f"{run.name}-{run.positions}-seed{settings.seed}-{start}-{stop}.npz"
        if not path.exists():
            blends = blends_of(catalog, settings, start, stop)
            asked = load_measure(run.word, **run.settings)
            found = measure_blends(blends, asked, positions=run.positions)
            for number, error in found.errors[asked.name].items():
                print(f"{run.name}, blend {start + number}: {error}", file=sys.stderr)
            one = score(
                blends,
                found.measured[asked.name],
                band=settings.band,
                target_measures={"ellipticity": ksb_ellipticity},
                btk=True,
                draws=0,
            )
            one.settings["seconds"] = found.seconds[asked.name]
            write_scores({run.name: one}, path)
            print(f"{path.name}: {one.settings['seconds']:.1f} s", file=sys.stderr, flush=True)
        parts.append(next(iter(read_scores(path).values())))
    return join_scores(parts)


# The tables and the figure.


def lines(scores: Scores, seconds: float, settings: Settings) -> list[str]:
    """Cells of a row: all galaxies, with intervals of 68 %."""
    cells = []
    for metric, form, scale in (
        ("recall", "{:.3f}", 1),
        ("precision", "{:.3f}", 1),
        (f"flux_bias_{settings.band}", "{:+.2f}", 100),
        (f"flux_scatter_{settings.band}", "{:.1f}", 100),
        (f"flux_abs_error_{settings.band}", "{:.1f}", 100),
        ("colour_scatter_g_r", "{:.3f}", 1),
        ("rmse", "{:.1f}", 1),
        ("psnr", "{:.1f}", 1),
        ("psnr_btk", "{:.1f}", 1),
        ("ssim", "{:.4f}", 1),
        ("ssim_btk", "{:.4f}", 1),
        ("ellipticity0_bias", "{:+.4f}", 1),
        ("ellipticity0_scatter", "{:.3f}", 1),
        (f"coverage1_{settings.band}", "{:.3f}", 1),
        (f"pull_scatter_{settings.band}", "{:.2f}", 1),
    ):
        cells.append(cell(scores, metric, form, scale))
    return [*cells, slope(scores), f"{1000 * seconds / settings.n:.0f}"]


def slope(scores: Scores, snr: float = 20.0) -> str:
    """How the error of KSB's |e| goes with the true |e|, of the judged above a signal to noise.

    Theil and Sen's slope, with half of its interval of 95 %.
    """
    table = scores.per_source
    true = np.asarray(table["ellipticity2_true"])
    error = np.asarray(table["ellipticity2"]) - true
    used = np.asarray(table["judged"]) & (np.asarray(table["snr"]) > snr)
    # What KSB gives beyond 1 is no ellipticity.
    used &= np.isfinite(error) & (np.abs(true) < 1) & (np.abs(error) < 1)
    found = theilslopes(error[used], true[used])
    return f"{found.slope:+.2f} ± {(found.high_slope - found.low_slope) / 2:.2f}"


def cell(scores: Scores, metric: str, form: str, scale: float) -> str:
    """A figure with half of its interval, or a dash."""
    names = np.asarray(scores.summary["metric"]).tolist()
    if metric not in names:
        return "-"
    row = scores.summary[names.index(metric)]
    value, low, high = (float(row[name]) * scale for name in ("value", "low", "high"))
    if not np.isfinite(value):
        return "-"
    return f"{form.format(value)} ± {form.format((high - low) / 2).lstrip('+')}"


HEAD = (
    *("recall", "precision", "flux bias %", "scatter %", "abs. error % (lost count)"),
    *("g-r scatter", "RMSE e-", "PSNR", "PSNR, own maxima", "SSIM", "SSIM, own maxima"),
    *("KSB g1 bias", "KSB g1 scatter", "within 1 sigma", "pull width"),
    *("slope of KSB's |e|, SNR > 20", "ms a blend"),
)


def table_of(found: Mapping[Run, Scores], settings: Settings) -> str:
    """All measures, all galaxies and the brighter ones; figures down, measures across."""
    text = []
    for title, limit in (("All galaxies", 0.0), (f"SNR in r above {settings.snr:g}", settings.snr)):
        columns = []
        for run, scores in found.items():
            seconds = scores.settings["seconds"]
            bright = np.asarray(scores.per_source["snr"]) > limit
            chosen = scores.judging(bright) if limit else scores
            columns.append([f"{run.name}, {run.positions}", *lines(chosen, seconds, settings)])
        n = int(np.sum(np.asarray(next(iter(found.values())).per_source["snr"]) > limit))
        text += [f"{title} ({n}):", ""]
        text.append("| | " + " | ".join(column[0] for column in columns) + " |")
        text.append("| --- |" + " ---: |" * len(columns))
        for k, name in enumerate(HEAD):
            text.append(f"| {name} | " + " | ".join(column[k + 1] for column in columns) + " |")
        text.append("")
    return "\n".join(text)


def bins_of(found: Mapping[Run, Scores], settings: Settings) -> str:
    """Medians in bins of signal to noise and of blendedness."""
    band = settings.band
    columns = [f"flux_error_{band}", "rmse", "psnr_btk", "ssim_btk"]
    text = []
    for by, edges in BINS.items():
        text.append(f"| {by} | n | measure | recall | flux bias % | flux scatter % | RMSE e- | ")
        text[-1] += "PSNR, own maxima | SSIM, own maxima |"
        text.append("| ---: | ---: | --- |" + " ---: |" * 6)
        tables = {run: binned(scores, by, edges, columns) for run, scores in found.items()}
        for k in range(len(edges) - 1):
            for run, table in tables.items():
                row = table[k]
                high = "" if row["high"] > 1e6 else f"{row['high']:g}"
                text.append(
                    f"| {row['low']:g}-{high} | {row['n']} | {run.name}, {run.positions} | "
                    f"{row['recall']:.3f} | {100 * row[columns[0]]:+.2f} | "
                    f"{100 * row[columns[0] + '_scatter']:.1f} | {row['rmse']:.1f} | "
                    f"{row['psnr_btk']:.1f} | {row['ssim_btk']:.4f} |"
                )
        text.append("")
    return "\n".join(text)


def draw(found: Mapping[Run, Scores], settings: Settings, path: Path) -> None:
    """Flux error, residual and recall against signal to noise and blendedness."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    error = f"flux_error_{settings.band}"
    figure, axes = plt.subplots(3, 2, figsize=(9, 8), sharex="col", layout="constrained")
    for column, by in enumerate(BINS):
        edges = np.geomspace(3, 1000, 9) if by == "snr" else np.linspace(0, 1, 8)
        for number, (run, scores) in enumerate(found.items()):
            table = binned(scores, by, edges, [error, "rmse"])
            look = {"color": f"C{number}", "marker": "o", "ms": 3}
            look["ls"] = "-" if run.positions == "truth" else "--"
            x = np.asarray(table["middle"])
            axes[0, column].plot(x, 100 * np.asarray(table[error]), **look)
            axes[1, column].plot(x, 100 * np.asarray(table[f"{error}_scatter"]), **look)
            label = f"{run.name}, {run.positions}"
            axes[2, column].plot(x, np.asarray(table["recall"]), label=label, **look)
        axes[0, column].axhline(0, color="0.7", lw=0.8, zorder=0)
        axes[0, column].set(ylim=(-20, 30))
        axes[1, column].set(yscale="log")
        axes[2, column].set(xlabel=f"{by} in {settings.band}")
        if by == "snr":
            axes[2, column].set(xscale="log")
    for row, label in enumerate(("flux bias, %", "flux scatter, %", "recall")):
        axes[row, 0].set_ylabel(label)
    axes[2, 1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalog", type=Path, required=True, help="the CatSim sample, FITS")
    parser.add_argument("--work", type=Path, default=Path("peer_scores"), help="for parts")
    parser.add_argument("--seed", type=int, default=SETTINGS.seed)
    parser.add_argument("--n", type=int, default=SETTINGS.n)
    parser.add_argument("--scarlet2", type=Path, help="a Python that has scarlet2")
    parser.add_argument("--lite", type=Path, help="a Python that has scarlet_lite")
    parser.add_argument("--only", type=int, help="one run by its number, into --work, no tables")
    chosen = parser.parse_args()
    settings = replace(SETTINGS, seed=chosen.seed, n=chosen.n)
    if not chosen.catalog.is_file():
        parser.error(f"--catalog: there is no file {chosen.catalog}")
    if chosen.only is not None:
        measure(RUNS[chosen.only], chosen.catalog, chosen.work, settings)
        return
    found = {}
    for number, run in enumerate(RUNS):
        if run.peer:
            python = getattr(chosen, run.peer)
            if python is None:
                print(f"{run.name} is left out: no --{run.peer}.", file=sys.stderr)
                continue
            same = ["--catalog", chosen.catalog, "--work", chosen.work]
            same += ["--seed", settings.seed, "--n", settings.n, "--only", number]
            subprocess.run([str(v) for v in (python, __file__, *same)], check=True)
        found[number] = measure(run, chosen.catalog, chosen.work, settings)
    named = {RUNS[number]: scores for number, scores in found.items()}
    (HERE / "table.md").write_text(table_of(named, settings) + "\n")
    (HERE / "binned.md").write_text(bins_of(named, settings))
    draw(named, settings, HERE / "figure.png")
    print(table_of(named, settings))


if __name__ == "__main__":
    main()
