"""What a prior makes of what it has not learnt: other galaxies, PSFs, stars, several bands."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from bench import Bench, Line
from blends import Blends, draw_blends
from components import fit_components
from decoder import by_batch, by_decoder, latents
from score import median_error, relative, separability

from diffdeblend import PointSource
from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Flag

SCARLET = ("scarlet-like", "scarlet-like, true centre")


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
    kinds = [name for name in ("C", "T", "S") if name in bench.chosen]
    lines = []
    for name in kinds:
        for what, statistic in STATISTICS.items():
            area = separability(statistic(bench, "A"), statistic(bench, name))
            real = name == "C" and what in ("largest |z|^2", "largest of both quantiles")
            usual = name == "S"
            bar = "0.80" if real else "at most 0.6" if usual else ""
            met = area >= 0.8 if real else area <= 0.6 if usual else None
            lines.append(
                Line(f"{name} against A, {what}: area under the ROC curve", f"{area:.2f}", bar, met)
            )
    for name in ("A", *kinds):
        flagged = (bench.support(name).flags & int(Flag.OUT_OF_DOMAIN)) != 0
        share = flagged.mean(), flagged.reshape(-1, 2).any(axis=1).mean()
        text = f"{100 * share[0]:.1f} %, {100 * share[1]:.1f} %"
        lines.append(Line(f"{name}: sources and blends called out of domain at 1 %", text))
    return lines


def _pairs(bench: Bench, name: str, column: str) -> np.ndarray:
    """The larger one of each blend; a figure that is missing counts as usual."""
    return np.nan_to_num(getattr(bench.support(name), column)).reshape(-1, 2).max(axis=1)


STATISTICS: dict[str, Callable[[Bench, str], np.ndarray]] = {
    "largest |z|^2": far_latent,
    "largest quantile of |z|^2": lambda b, n: _pairs(b, n, "latent_quantile"),
    "largest quantile of own chi2": lambda b, n: _pairs(b, n, "own_quantile"),
    "largest of both quantiles": lambda b, n: np.maximum(
        _pairs(b, n, "latent_quantile"), _pairs(b, n, "own_quantile")
    ),
    "chi2 of the stamp": chi2,
}


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
            ways = (*ways, *SCARLET)
        errors = {way: median_error(bench.error(what, way)) for way in ways}
        ours = errors["decoder"]
        usual = ours if what == "as trained" else usual
        text = ", ".join(f"{way} {error:.4f}" for way, error in errors.items())
        if "sigma" in what:
            # The harder one of both.
            met = ours <= 1.15 * errors["scarlet-like, true centre"]
            bar = "1.15 x scarlet-like with true centres"
            lines.append(Line(f"PSF {what}: {text}", f"{ours:.4f}", bar, met))
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
        both, judged = by_batch(blends, bench.prior, fallback=True)
        points = np.mean(judged.kind == int(Kind.POINT))
        met, bar = (points > 0.5, "most") if star else (points < 0.05, "few")
        what_ = f"isolated {what}: called a point by the fallback"
        lines.append(Line(what_, f"{100 * points:.0f} %", bar, bool(met)))
        error = median_error(relative(both.flux, blends.flux))
        lines.append(
            Line(
                f"isolated {what}: flux error with the fallback",
                f"{error:.4f}",
                "0.01" if star else "",
                error <= 0.01 if star else None,
            )
        )
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
