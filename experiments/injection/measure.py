"""How many sources injected into a real blend are found, and are their fluxes and errors right?

Question: completeness, flux errors and pulls against magnitude, in the HSC blend in COSMOS.
Answer: see `table.md`, which this file writes with `figure.png`, beside itself.

    python experiments/injection/measure.py hsc_cosmos_35.npz
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend import Exposure, make_exposure
from diffdeblend.io import read_npz_positions
from diffdeblend.score.inject import photon_gain
from diffdeblend.score.injections import InjectionTest, injection_test
from diffdeblend.score.load_measure import load_measure
from diffdeblend.simulate.catalog import concatenate
from diffdeblend.simulate.keys import stream
from diffdeblend.simulate.synthetic import star_catalog, synthetic_catalog

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is injected, where, and how it is measured.

    - `zero_point`: of HSC's coadds, AB magnitude; `pixel_scale`: arcsec.
    - `n`, `sources`, `seed`: images, sources in each, and the seed of their places.
    - `avoid`: distance from the seven known sources, pixels, about the width of the PSF; `edge`:
        from the borders.
    - `max_distance`, `max_flux_error`: of a match.
    - `threshold`: of our detection, in both images; `restarts`: of a fit that does not converge.
    """

    zero_point: float = 27.0
    pixel_scale: float = 0.168
    band: str = "i"
    n: int = 80
    sources: int = 2
    seed: int = 2
    magnitudes: tuple[float, float] = (20.0, 28.0)
    avoid: float = 4.0
    edge: float = 2.0
    max_distance: float = 3.0
    max_flux_error: float = 2.0
    threshold: float = 10.0
    restarts: int = 0
    galaxies: int = 20_000
    stars: int = 2_000
    bins: tuple[float, ...] = (20, 21, 22, 23, 24, 25, 26, 27, 28)


def exposure_of(path: Path, settings: Settings) -> Exposure:
    """The blend with its zero point and the size of its pixels, which the file does not tell."""
    with np.load(path) as file:
        return make_exposure(
            file["images"],
            file["variance"],
            file["psfs"],
            bands=[str(name) for name in file["filters"]],
            zero_points=settings.zero_point,
            pixel_scale=settings.pixel_scale,
        )


def tests_of(path: Path, settings: Settings) -> dict[str, InjectionTest]:
    """Both measures on the same images."""
    exposure = exposure_of(path, settings)
    catalog = concatenate(
        [
            synthetic_catalog(settings.galaxies, stream(settings.seed, "galaxies")),
            star_catalog(settings.stars, stream(settings.seed, "stars")),
        ]
    )
    ours = load_measure(
        "diffdeblend",
        model="sersic",
        background="constant",
        threshold=settings.threshold,
        sharp_threshold=settings.threshold,
        rounds=1,
        restarts=settings.restarts,
        images=False,
    )
    return injection_test(
        exposure,
        catalog,
        [ours, load_measure("sep", band=settings.band, images=False)],
        settings.n,
        seed=settings.seed,
        sources=settings.sources,
        band=settings.band,
        magnitudes=settings.magnitudes,
        gain=photon_gain(exposure),
        known=read_npz_positions(path),
        avoid=settings.avoid,
        edge=settings.edge,
        max_distance=settings.max_distance,
        max_flux_error=settings.max_flux_error,
    )


def table(tests: dict[str, InjectionTest], settings: Settings) -> str:
    """Markdown, a row a bin and measure."""
    band = settings.band
    lines = [
        "| measure | magnitude | n | found | low | high | in the place of another | wrong flux "
        "| there before | median flux error | scatter | median pull | pull width |",
        "| --- | --- |" + " ---: |" * 11,
    ]
    error, pull = f"flux_error_{band}", f"pull_{band}"
    for name, test in tests.items():
        binned: Any = test.binned(settings.bins, columns=[error, pull])
        rows: Any = [dict(zip(binned.colnames, row, strict=True)) for row in binned]
        for row in rows:
            shares = (row["recall"], row["recall_low"], row["recall_high"])
            cells = [
                name,
                f"{row['low']:g} to {row['high']:g}",
                f"{row['n']}",
                *(f"{100 * share:.0f} %" for share in shares),
                *(f"{100 * row[key]:.0f} %" for key in ("replaced", "gross", "before")),
                f"{row[error]:+.3f}",
                f"{row[error + '_scatter']:.3f}",
                f"{row[pull]:+.2f}",
                f"{row[pull + '_scatter']:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |".replace("+nan", "").replace("nan", ""))
    lines.append("")
    for name, test in tests.items():
        images: Any = test.images
        lines.append(
            f"{name}: {test.baseline.n_sources} detections without injection; in an image with it "
            f"{np.mean(images['lost']):.2f} of them have no partner, and "
            f"{np.mean(images['extra']):.2f} new ones are none of the injected; "
            f"{len(test.errors)} images failed; {test.seconds:.0f} s."
        )
    lines.append("")
    lines.append(
        f"{settings.n} images, {settings.sources} sources in each, seed {settings.seed}. Low and "
        "high: 68 % when images are drawn again."
    )
    return "\n".join(lines) + "\n"


def draw(tests: dict[str, InjectionTest], path: Path, settings: Settings) -> None:
    """Completeness, flux error with scatter, and width of pulls against magnitude."""
    import matplotlib.pyplot as plt

    band = settings.band
    error, pull = f"flux_error_{band}", f"pull_{band}"
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), constrained_layout=True)
    for k, (name, test) in enumerate(tests.items()):
        rows: Any = test.binned(settings.bins, columns=[error, pull])
        x = (np.asarray(rows["low"]) + np.asarray(rows["high"])) / 2 + 0.12 * (k - 0.5)
        recall = np.asarray(rows["recall"])
        bars = np.stack([recall - rows["recall_low"], rows["recall_high"] - recall])
        axes[0].errorbar(x, recall, np.maximum(bars, 0), marker="o", ms=4, label=name)
        axes[1].errorbar(x, rows[error], rows[f"{error}_scatter"], fmt="o", ms=4, capsize=2)
        axes[2].plot(x, rows[f"{pull}_scatter"], "o-", ms=4)
    axes[0].set(ylabel="found, bars: 68 %", ylim=(-0.03, 1.03))
    axes[0].legend(frameon=False)
    axes[1].axhline(0, color="k", lw=0.5)
    axes[1].set(ylabel="flux error, median and 16 to 84 %", ylim=(-1, 1.5))
    axes[2].axhline(1, color="k", lw=0.5)
    axes[2].set(ylabel="width of pulls", yscale="log")
    for ax in axes:
        ax.set(xlabel=f"magnitude in {band}, AB")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="hsc_cosmos_35.npz")
    parser.add_argument("--n", type=int, default=Settings.n, help="images")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--programs", type=Path, help="folder of compiled programs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of table.md and figure.png")
    given = parser.parse_args()
    if not given.data.is_file():
        sys.exit(f"there is no file {given.data}; it is named in experiments/real_blend/README.md")
    if given.programs is not None:
        from diffdeblend import keep_programs

        keep_programs(given.programs)
    settings = replace(Settings(), n=given.n, seed=given.seed)
    began = time.perf_counter()
    tests = tests_of(given.data, settings)
    print(f"{time.perf_counter() - began:.0f} s")
    text = table(tests, settings)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "table.md").write_text(text)
    draw(tests, given.out / "figure.png", settings)
    print(text)


if __name__ == "__main__":
    main()
