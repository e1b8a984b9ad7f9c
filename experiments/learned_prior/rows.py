"""What does a learned prior add, where does it fail, and are its errors honest?

    python experiments/learned_prior/rows.py PRIOR [--cosmos FOLDER] [--only WORD]

PRIOR is what `decoder.py` wrote. `table.md` has a line for each figure, with the bar beside it.
Blends are of seeds from 101 on, which nothing was chosen on.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from baselines import compared, pixels
from blends import Blends, draw_blends, sets
from components import Estimate, fit_components
from decoder import FREE, by_decoder, errors_in_frame, latents
from model_baselines import positive_mixtures, profiles
from pixel_baselines import SCARLET_LIKE, SYMMETRIC
from score import (
    Interval,
    coverage,
    image_error,
    median_error,
    relative,
    robust_pull,
    separability,
    wins,
)

from diffdeblend import PointSource
from diffdeblend.priors import DecoderPrior

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """Sizes of the sets; the seeds follow one another from `seed` on."""

    seed: int = 101
    n: int = 200
    size: int = 33
    n_psf: int = 100


class Line(NamedTuple):
    """A figure, the bar that it should pass, and whether it does; None where there is no bar."""

    what: str
    figure: str
    bar: str = ""
    met: bool | None = None

    def text(self) -> str:
        verdict = {True: "yes", False: "no", None: ""}[self.met]
        return f"| {self.what} | {self.figure} | {self.bar} | {verdict} |"


class Bench:
    """The sets and what is made of them, each once, when it is asked for."""

    def __init__(self, prior: DecoderPrior, cosmos: Path | None, settings: Settings):
        self.prior, self.cosmos, self.settings = prior, cosmos, settings
        self.chosen = sets(cosmos, seed=settings.seed, n=settings.n, size=settings.size)
        self.drawn: dict[str, Blends] = {}
        self.made: dict[tuple[str, str], Estimate] = {}

    def blends(self, name: str) -> Blends:
        """A set by its name."""
        if name not in self.drawn:
            self.drawn[name] = draw_blends(self.chosen[name], self.cosmos)
        return self.drawn[name]

    def by(self, name: str, way: str) -> Estimate:
        """What a way makes of a set."""
        if (name, way) not in self.made:
            self.made[name, way] = self.ways[way](self.blends(name))
        return self.made[name, way]

    @cached_property
    def ways(self) -> dict[str, Callable[[Blends], Estimate]]:
        return {
            "decoder": lambda b: by_decoder(b, self.prior),
            "decoder, no prior": lambda b: by_decoder(b, self.prior, FREE),
            "symmetry": lambda b: pixels(b, SYMMETRIC),
            "scarlet-like": lambda b: pixels(b, SCARLET_LIKE),
            "Gaussians": positive_mixtures,
            "auto": lambda b: profiles(b, "auto"),
        }

    def error(self, name: str, way: str) -> np.ndarray:
        """Relative errors of fluxes in the first band, `(blend, source)`."""
        return relative(self.by(name, way).flux[..., 0], self.blends(name).flux[..., 0])


def tables(bench: Bench) -> list[str]:
    """All ways on all sets."""
    lines = []
    for name in bench.chosen:
        lines += [f"Set {name}, {bench.chosen[name].n} blends, seed {bench.chosen[name].seed}:", ""]
        lines += [
            "| way | median abs(dF/F) | mean | 90 % | median dF/F | faint one | relMSE | mean |"
        ]
        lines += ["|---" * 8 + "|"]
        blends = bench.blends(name)
        lines += [row(way, bench.by(name, way), blends) for way in bench.ways]
        lines.append("")
    return lines


def limits(found: Interval | None) -> str:
    """In percent, with the limits between which it lies nine times out of ten."""
    if found is None:
        return "-"
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def in_domain(bench: Bench) -> list[Line]:
    """Galaxies such as the prior has learnt."""
    found = median_error(bench.error("A", "decoder"))
    lines = [Line("A: median abs(dF/F)", f"{found:.4f}", "0.048", found <= 0.048)]
    for way, least, least_image in (
        *(("scarlet-like", 0.2, 0.3), ("symmetry", 0.6, None)),
        *(("Gaussians", None, None), ("auto", None, None)),
    ):
        flux, image = compared(bench.by("A", "decoder"), bench.by("A", way), bench.blends("A"))
        met = None if least is None else flux.value >= least and flux.low > 0
        bar = "" if least is None else f"{100 * least:.0f} %"
        lines.append(Line(f"A: flux error below that of {way}", limits(flux), bar, met))
        met = None if least_image is None or image is None else image.value >= least_image
        bar = "" if least_image is None else f"{100 * least_image:.0f} %"
        lines.append(Line(f"A: relMSE below that of {way}", limits(image), bar, met))
    share = wins(*(np.abs(bench.error("A", way)) for way in ("decoder", "scarlet-like")))
    lines.append(Line("A: sources nearer the truth than scarlet-like", f"{100 * share:.0f} %"))
    return lines


def on_and_off(bench: Bench) -> list[Line]:
    """The same network with the prior and without."""
    blends = bench.blends("A")
    on, off = bench.by("A", "decoder"), bench.by("A", "decoder, no prior")
    flux, image = compared(on, off, blends)
    assert image is not None
    mean = [np.mean(image_error(one.images, blends.truth)) for one in (on, off)]
    return [
        Line("A: relMSE, prior on against off", limits(image), "25 %", image.value >= 0.25),
        Line("A: flux error, on against off", limits(flux), "8 %", flux.value >= 0.08),
        Line(
            "A: mean relMSE, on and off",
            f"{mean[0]:.4f}, {mean[1]:.4f}",
            "halved",
            bool(mean[0] <= 0.5 * mean[1]),
        ),
    ]


def by_brightness(bench: Bench) -> list[Line]:
    """Faint and bright blends, near and far ones."""
    blends, lines = bench.blends("A"), []
    snr, apart = blends.snr, blends.apart
    for what, chosen, bar in (
        ("S/N below 80", snr < 80, 0.06),
        ("S/N above 150", snr > 150, 0.032),
        ("nearer than 5 pixels", apart < 5, None),
        ("5 to 7 pixels", (apart >= 5) & (apart < 7), None),
        ("farther than 7 pixels", apart >= 7, None),
    ):
        parts = [
            median_error(bench.error("A", way)[chosen])
            for way in ("decoder", "scarlet-like", "Gaussians", "auto")
        ]
        text = f"{parts[0]:.4f} ({', '.join(f'{p:.4f}' for p in parts[1:])})"
        lines.append(
            Line(
                f"A: {what} (scarlet-like, Gaussians, auto)",
                text,
                "" if bar is None else f"{bar}",
                None if bar is None else parts[0] <= bar,
            )
        )
    return lines


def bias(bench: Bench) -> list[Line]:
    """Fluxes too high or too low, and the sum of both."""
    lines = []
    for name, bar, bar_sum in (
        ("A", 0.01, 0.012),
        ("S", None, None),
        ("C", None, None),
        ("T", None, None),
    ):
        if name not in bench.chosen:
            continue
        blends, found = bench.blends(name), bench.by(name, "decoder")
        middle = float(np.median(bench.error(name, "decoder")))
        lines.append(
            Line(
                f"{name}: median dF/F",
                f"{middle:+.4f}",
                "" if bar is None else f"{bar}",
                None if bar is None else abs(middle) <= bar,
            )
        )
        both = relative(*(v[..., 0].sum(axis=1) for v in (found.flux, blends.flux)))
        both = median_error(both[blends.snr > 100])
        lines.append(
            Line(
                f"{name}: flux of both, S/N above 100",
                f"{both:.4f}",
                "" if bar_sum is None else f"{bar_sum}",
                None if bar_sum is None else both <= bar_sum,
            )
        )
    return lines


def shifted(bench: Bench) -> list[Line]:
    """Galaxies of other kinds."""
    lines = []
    for name in ("S", "C", "T"):
        if name not in bench.chosen:
            continue
        ways = ("decoder", "scarlet-like", "Gaussians", "auto")
        errors = {way: median_error(bench.error(name, way)) for way in ways}
        ours, theirs = errors["decoder"], errors["scarlet-like"]
        text = f"{ours:.4f} ({', '.join(f'{errors[way]:.4f}' for way in ways[1:])})"
        what = f"{name}: median abs(dF/F) (scarlet-like, Gaussians, auto)"
        if name == "S":
            lines.append(Line(what, text, "1.05 x scarlet-like", ours <= 1.05 * theirs))
        else:
            met = ours <= 0.07 and ours <= 0.8 * theirs
            lines.append(Line(what, text, "0.07, 0.8 x scarlet-like", met))
        for way in ways[1:]:
            flux, image = compared(
                bench.by(name, "decoder"), bench.by(name, way), bench.blends(name)
            )
            text = f"{limits(flux)}; {limits(image)}"
            lines.append(Line(f"{name}: flux error, relMSE below those of {way}", text))
    return lines


def chi2(bench: Bench, name: str) -> np.ndarray:
    """Of each blend, a pixel."""
    fits = bench.by(name, "decoder").fits
    assert fits is not None
    return np.asarray(fits.chi2).sum(axis=1) / np.asarray(fits.n_pixels).sum(axis=1)


def far_latent(bench: Bench, name: str) -> np.ndarray:
    """Largest squared length of a latent, of each blend."""
    return np.sum(latents(bench.by(name, "decoder")) ** 2, axis=-1).max(axis=1)


def detection(bench: Bench) -> list[Line]:
    """Are galaxies of other kinds seen to be such?"""
    lines = []
    for name in ("C", "T", "S"):
        if name not in bench.chosen:
            continue
        for what, statistic in (("largest |z|^2", far_latent), ("chi2", chi2)):
            area = separability(statistic(bench, "A"), statistic(bench, name))
            judged = name == "C" and statistic is far_latent
            lines.append(
                Line(
                    f"{name} against A, {what}: area under the ROC curve",
                    f"{area:.2f}",
                    "0.80" if judged else "",
                    area >= 0.8 if judged else None,
                )
            )
    return lines


def calibration(bench: Bench) -> list[Line]:
    """Errors of fluxes in the frame from the Gauss-Newton matrix at the most probable point."""
    lines = []
    for name in bench.chosen:
        for way in ("decoder", "Gaussians", "auto"):
            found, true = bench.by(name, way), bench.blends(name).flux
            sigma = errors_in_frame(found)
            inside = coverage(found.flux, sigma, true)
            _, width = robust_pull(found.flux, sigma, true)
            judged = (name, way) == ("A", "decoder")
            met = 0.58 <= inside[0.68] <= 0.78 and 0.83 <= inside[0.95] <= 0.98
            text = ", ".join(f"{100 * v:.1f}" for v in inside.values()) + f"; {width:.2f}"
            lines.append(
                Line(
                    f"{name}, {way}: coverage of 50, 68, 95, 99.7 %; width of pulls",
                    text,
                    "68: 58-78, 95: 83-98" if judged else "",
                    met if judged else None,
                )
            )
    return lines


def other_psfs(bench: Bench) -> list[Line]:
    """PSFs that the prior has not seen, and wrong ones."""
    lines = []
    base = replace(bench.chosen["A"], n=bench.settings.n_psf, seed=bench.settings.seed + 10)
    cases = {
        "as trained": base,
        "sigma 1.2": replace(base, psf_sigma=(1.2,)),
        "sigma 2.4": replace(base, psf_sigma=(2.4,)),
        "5 % too narrow": replace(base, told=0.95),
        "5 % too wide": replace(base, told=1.05),
        "Moffat": replace(base, beta=3.0),
    }
    usual = 0.0
    for what, chosen in cases.items():
        bench.chosen[what] = chosen
        ways = ("decoder", "Gaussians", "auto")
        if chosen.beta is None:
            ways = ("decoder", "scarlet-like", *ways[1:])
        errors = {way: median_error(bench.error(what, way)) for way in ways}
        ours = errors["decoder"]
        usual = ours if what == "as trained" else usual
        text = ", ".join(f"{way} {error:.4f}" for way, error in errors.items())
        if "sigma" in what:
            met = ours <= 1.15 * errors["scarlet-like"]
            lines.append(Line(f"PSF {what}: {text}", f"{ours:.4f}", "1.15 x scarlet-like", met))
        elif "%" in what:
            lines.append(Line(f"PSF {what}: {text}", f"{ours:.4f}", "+25 %", ours <= 1.25 * usual))
        else:
            lines.append(Line(f"PSF {what}: {text}", f"{ours:.4f}"))
        del bench.chosen[what]
    return lines


def isolated(bench: Bench) -> list[Line]:
    """Single stars and galaxies: is a star known, and is its flux right?"""
    lines = []
    better = {}
    for what, population in (("star", "star"), ("galaxy", "A")):
        chosen = replace(
            bench.chosen["A"], population=population, n=60, n_sources=1,
            seed=bench.settings.seed + 20,
        )  # fmt: skip
        blends = draw_blends(chosen)
        galaxy = by_decoder(blends, bench.prior)
        point = fit_components(blends, _point)
        assert galaxy.fits is not None
        assert point.fits is not None
        better[what] = np.asarray(point.fits.chi2 - galaxy.fits.chi2).sum(axis=1)
        error = median_error(relative(galaxy.flux, blends.flux))
        star = what == "star"
        noise = np.median(1 / blends.source_snr)
        lines.append(
            Line(
                f"isolated {what}: flux error (1 / S/N is {noise:.4f})",
                f"{error:.4f}",
                "0.01" if star else "",
                error <= 0.01 if star else None,
            )
        )
        if star:
            error = median_error(relative(point.flux, blends.flux))
            lines.append(Line("isolated star, by a point", f"{error:.4f}"))
    area = separability(better["star"], better["galaxy"])
    lines.append(Line("stars against galaxies by chi2: area under the ROC curve", f"{area:.3f}"))
    preferred = np.mean(better["star"] < bench.prior.n_latent)
    lines.append(
        Line(
            "stars that a point fits within 16 of chi2",
            f"{100 * preferred:.0f} %",
            "most",
            bool(preferred > 0.5),
        )
    )
    return lines


def _point(x: float, y: float, radius: float) -> PointSource:
    return PointSource(np.zeros(1, np.float32), x, y)


def colours(bench: Bench) -> list[Line]:
    """Three bands together against each alone."""
    chosen = replace(
        bench.chosen["A"], n=60, psf_sigma=(1.7, 1.6, 1.5), seed=bench.settings.seed + 30
    )
    blends = draw_blends(chosen)
    true = blends.flux
    alone = np.stack(
        [
            by_decoder(one_band(blends, band), bench.prior).flux[..., 0]
            for band in range(true.shape[-1])
        ],
        axis=-1,
    )
    together = by_decoder(blends, bench.prior).flux

    def wrong(flux: np.ndarray) -> float:
        """Median error of a colour, magnitudes; the truth is that of the frame."""
        off = 2.5 * np.log10(np.maximum(flux / true, 1e-3))
        return float(np.median(np.abs(np.diff(off, axis=-1))))

    ours, theirs = wrong(together), wrong(alone)
    text = f"{ours:.4f}, {theirs:.4f}"
    return [Line("colour error, three bands together and each alone", text, "0.7 x",
                 ours <= 0.7 * theirs)]  # fmt: skip


def one_band(blends: Blends, band: int) -> Blends:
    """The same blends in one band alone."""
    part = slice(band, band + 1)
    return blends._replace(
        image=blends.image[:, part],
        truth=blends.truth[:, :, part],
        total=blends.total[..., part],
        psf=blends.psf[part],
        settings=replace(blends.settings, psf_sigma=blends.settings.psf_sigma[part]),
    )


PARTS: dict[str, Callable[[Bench], list[Line]]] = {
    "in domain": in_domain,
    "prior on and off": on_and_off,
    "brightness": by_brightness,
    "bias": bias,
    "shift": shifted,
    "detection": detection,
    "calibration": calibration,
    "psf": other_psfs,
    "isolated": isolated,
    "colours": colours,
}


def main() -> None:
    from diffdeblend.io import load_prior

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", type=Path)
    parser.add_argument("--cosmos", type=Path)
    parser.add_argument("--only", choices=(*PARTS, "tables"))
    parser.add_argument("--n", type=int, default=Settings.n)
    given = parser.parse_args()
    prior = load_prior(given.prior)
    assert isinstance(prior, DecoderPrior)
    bench = Bench(prior, given.cosmos, Settings(n=given.n))
    lines = []
    if given.only in (None, "tables"):
        lines += tables(bench)
        print("\n".join(lines), flush=True)
    lines += ["| what | figure | bar | met |", "|---|---|---|---|"]
    for name, part in PARTS.items():
        if given.only in (None, name):
            new = [line.text() for line in part(bench)]
            print("\n".join(new), flush=True)
            lines += new
    if given.cosmos is None:
        lines += ["", "Real galaxies (set C) were not there."]
    if given.only is None:
        (HERE / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
