"""How near are the blends that we draw to those that GalSim draws at tight settings?

    python experiments/simulation/accuracy.py --work WORK [--catsim FILE] [--cosmos FOLDER]
        [--btk PATH/TO/python]

Every source is drawn alone, without noise. Errors are the largest of all pixels over the peak of
the image, and the relative error of the light in the stamp. References take a third of a second an
image and are kept in WORK. What is not given is left out. The table goes to `accuracy.md`.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from diffdeblend.grid import STANDARD, Quality, fine
from diffdeblend.simulate.catalog import Catalog, Parts
from diffdeblend.simulate.catsim import read_catsim
from diffdeblend.simulate.cosmos import read_cosmos
from diffdeblend.simulate.drawing import Drawing, Renderer
from diffdeblend.simulate.fourier_renderer import FourierRenderer, _beyond, quality_of
from diffdeblend.simulate.galsim_renderer import TIGHT, GalSimRenderer
from diffdeblend.simulate.keys import stream
from diffdeblend.simulate.sampling import Placed
from diffdeblend.simulate.sources import lay_out
from diffdeblend.simulate.survey import Survey, get_survey, survey_names
from diffdeblend.simulate.telescope import draw_psfs, space_psf

HERE = Path(__file__).resolve().parent
_FLUX = 1e6


@dataclass(frozen=True)
class Settings:
    """What is drawn.

    - `indices`, `each`: of the grid's Sersic profiles, and galaxies of each; `radius`: half-light,
        arcseconds, uniform in its logarithm; `ratio`: of the axes; `spread`: centres lie in a
        square of twice this side.
    - `seeing`: FWHM of the grid's PSF before diffraction.
    - `stamp`: of the grid and the catalogues, arcseconds; `pixels`: of the surveys' stamps.
    - `in_surveys`: index and half-light radius in pixels of what is drawn for each survey; 0 is a
        star.
    - `real`: number of real galaxies.
    - `tighter`: settings of the reference that judges the reference; `judged`: how many of the
        worst it draws.
    """

    indices: tuple[float, ...] = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
    each: int = 16
    radius: tuple[float, float] = (0.1, 3.0)
    ratio: tuple[float, float] = (0.2, 1.0)
    spread: float = 3.0
    seeing: float = 0.7
    stamp: float = 24.0
    pixels: int = 120
    in_surveys: tuple[tuple[float, float], ...] = (
        (1.0, 0.0),
        (0.5, 3.0),
        (1.0, 2.0),
        (1.0, 7.0),
        (2.5, 4.0),
        (4.0, 1.5),
    )
    real: int = 20
    seed: int = 1
    tighter: tuple[tuple[str, float], ...] = tuple(
        (TIGHT | {"minimum_fft_size": 8192, "folding_threshold": 1e-4}).items()
    )
    judged: int = 6


SETTINGS = Settings()


def main() -> None:
    """Draw, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--catsim", type=Path)
    parser.add_argument("--cosmos", type=Path)
    parser.add_argument("--btk", help="python of an environment with the BlendingToolKit")
    parser.add_argument("--workers", type=int, default=1, help="processes of the references")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    lines = []
    for line in rows(given):
        print(line, flush=True)
        lines.append(line)
    (HERE / "accuracy.md").write_text("\n".join(lines) + "\n")


def rows(given: argparse.Namespace) -> Iterator[str]:
    """The lines of the tables."""
    references = References(given.work, given.workers)
    yield from grid_rows(references)
    yield ""
    yield from survey_rows(references)
    yield ""
    yield (
        "| catalogue | images | against | median | p95 | worst pixel / peak | bar "
        "| light: median | worst |"
    )
    yield "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    yield from catalogue_rows(given, references)


class References:
    """Images by GalSim, kept in a folder."""

    def __init__(self, folder: Path, workers: int):
        self.folder, self.workers = folder, workers

    def __call__(self, drawing: Drawing, settings: dict[str, Any] | None = TIGHT) -> np.ndarray:
        """Of each source alone, `(source, band, y, x)`."""
        s = drawing.sources
        own = (s.x, s.y, s.flux, s.row, s.index, s.radius, s.g1, s.g2, s.share, s.turn)
        text = repr((drawing.psfs, drawing.pixel_scale, drawing.shape, settings, drawing.galaxies))
        key = hashlib.sha256(text.encode() + b"".join(v.tobytes() for v in own)).hexdigest()[:16]
        path = self.folder / f"{key}.npy"
        if not path.exists():
            drawn = GalSimRenderer(self.workers, settings)(drawing)
            np.save(path, drawn.isolated)
        return np.load(path)


def sheared_catalog(
    index: np.ndarray, radius: np.ndarray, g1: np.ndarray, g2: np.ndarray, bands: Sequence[str]
) -> Catalog:
    """One source of a single part a row; radius 0 is a star."""
    n = len(index)
    galaxy = radius > 0
    parts = Parts(*(np.asarray(v)[:, None] for v in (index, radius, g1, g2, np.ones(n))))
    table = Table({"row": np.arange(n), "magnitude": np.zeros(n), "size": radius})
    table["is_star"] = ~galaxy
    for band in bands:
        table[f"{band}_ab"] = np.full(n, 22.0)
    return Catalog(table, parts)


def alone(
    catalog: Catalog, placed: Placed, survey: Survey, stamp: float, **options: Any
) -> Drawing:
    """Every source in a stamp of its own."""
    side = int(stamp / survey.pixel_scale + 1e-6)
    each = [Placed(*(v[k : k + 1] for v in placed)) for k in range(placed.n_sources)]
    sources = lay_out(catalog, each, survey, (side, side), **options)
    return Drawing(
        sources,
        (draw_psfs(survey),),
        np.zeros(len(each), int),
        survey.pixel_scale,
        (side, side),
        True,
        catalog.real,
    )


def ours(drawing: Drawing, quality: Quality | None = None) -> np.ndarray:
    """Of each source alone."""
    renderer: Renderer = FourierRenderer(quality)
    drawn = renderer(drawing).isolated
    assert drawn is not None
    return drawn


def errors(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest error over the peak, and relative error of the light, of each image with light."""
    found, true = (v.reshape(-1, *v.shape[-2:]).astype(float) for v in (found, true))
    lit = np.abs(true).max(axis=(1, 2)) > 0
    found, true = found[lit], true[lit]
    pixel = np.abs(found - true).max(axis=(1, 2)) / np.abs(true).max(axis=(1, 2))
    return pixel, np.abs(found.sum(axis=(1, 2)) / true.sum(axis=(1, 2)) - 1)


def grid_drawing() -> tuple[Drawing, np.ndarray]:
    """The Sersic galaxies in r, and their indices."""
    import galsim

    rng = stream(SETTINGS.seed, "grid")
    index = np.repeat(SETTINGS.indices, SETTINGS.each)
    n = len(index)
    radius = np.exp(rng.uniform(*np.log(SETTINGS.radius), n))
    ratio, angle = rng.uniform(*SETTINGS.ratio, n), rng.uniform(0, np.pi, n)
    shear = (1 - ratio) / (1 + ratio)
    survey = get_survey("LSST").with_bands("r")
    band = survey.bands[0]
    width = band.wavelength * 1e-9 / survey.mirror_diameter * 206264.80624709636
    psf = galsim.Convolve(
        [
            galsim.Kolmogorov(fwhm=SETTINGS.seeing),
            galsim.Airy(lam_over_diam=width, obscuration=np.sqrt(survey.obscuration)),
        ]
    )
    survey = replace(survey, psf=psf)
    catalog = sheared_catalog(
        index, radius, shear * np.cos(2 * angle), shear * np.sin(2 * angle), "r"
    )
    places = rng.uniform(-SETTINGS.spread, SETTINGS.spread, (2, n))
    return alone(catalog, Placed.of(np.arange(n), *places), survey, SETTINGS.stamp), index


def grid_rows(references: References) -> Iterator[str]:
    """Ours by quality, then by index, and the reference against a tighter one."""
    drawing, index = grid_drawing()
    true = references(drawing)
    by_galsim = _beyond(drawing)
    within = ~by_galsim
    automatic = quality_of(drawing.psfs[0], drawing.pixel_scale)
    yield (
        f"{len(index)} Sersic galaxies; {by_galsim.sum()} are wider than a quarter of the stamp "
        f"and drawn by GalSim itself, in either case, and not counted below. "
        f"The automatic highest mode is {automatic.cut:g} of Nyquist."
    )
    yield ""
    yield (
        "| renderer | median | p95 | worst pixel / peak | bars: p95, worst "
        "| light: median | p95 | worst, n <= 4 | worst |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    drawn: dict[str, np.ndarray] = {}
    cases: tuple[tuple[str, Callable[[], np.ndarray], str], ...] = (
        ("ours, standard", lambda: ours(drawing, STANDARD), "3e-5, 2e-4"),
        ("ours, automatic", lambda: ours(drawing), "3e-5, 2e-4"),
        ("ours, fine", lambda: ours(drawing, fine()), "-, 1.5e-5"),
        ("GalSim, its own settings", lambda: references(drawing, None), ""),
    )
    for name, draw, bar in cases:
        drawn[name] = draw()
        pixel, light = errors(drawn[name][within], true[within])
        common = index[within] <= 4
        yield (
            f"| {name} | {number(np.median(pixel))} | {number(np.quantile(pixel, 0.95))} "
            f"| {number(pixel.max())} | {bar} | {number(np.median(light))} "
            f"| {number(np.quantile(light, 0.95))} | {number(light[common].max())} "
            f"| {number(light.max())} |"
        )
    yield ""
    yield "| index | standard: worst pixel | light | fine: worst pixel | light |"
    yield "|---:|---:|---:|---:|---:|"
    for n in SETTINGS.indices:
        those = within & (index == n)
        cells = []
        for name in ("ours, standard", "ours, fine"):
            cells += [number(v.max()) for v in errors(drawn[name][those], true[those])]
        yield f"| {n:g} | {' | '.join(cells)} |"
    yield ""
    yield from judge_rows(drawing, index, within, drawn["ours, fine"], true, references)


def judge_rows(
    drawing: Drawing,
    index: np.ndarray,
    within: np.ndarray,
    found: np.ndarray,
    true: np.ndarray,
    references: References,
) -> Iterator[str]:
    """The worst of all again, with a reference whose transforms are four times as wide."""
    yield (
        "The galaxies with the largest errors at fine settings, against a reference with transforms"
        " of 8192 in place of 2048:"
    )
    yield ""
    yield (
        "| index | radius, arcsec | pixel: ours - reference | ours - tighter | reference - tighter "
        "| light: ours - reference | ours - tighter | reference - tighter |"
    )
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    pixel, light = errors(found, true)
    chosen = []
    for error in (pixel, light):
        order = np.argsort(np.where(within, -error, 0), kind="stable")
        chosen += order[: SETTINGS.judged // 2].tolist()
    for k in dict.fromkeys(chosen):
        one = _one(drawing, k)
        tighter = references(one, dict(SETTINGS.tighter))[0]
        pairs = ((found[k], true[k]), (found[k], tighter), (true[k], tighter))
        pixels, lights = zip(*(errors(*pair) for pair in pairs), strict=True)
        radius = drawing.sources.radius[k] * drawing.pixel_scale
        cells = [number(v[0]) for v in (*pixels, *lights)]
        yield f"| {index[k]:g} | {radius:.2f} | {' | '.join(cells)} |"


def _one(drawing: Drawing, k: int) -> Drawing:
    from diffdeblend.simulate.simulate import part_of

    return replace(
        drawing, sources=part_of(drawing.sources, k, k + 1), psf_index=drawing.psf_index[:1]
    )


def survey_rows(references: References) -> Iterator[str]:
    """All surveys with their own PSFs, and the wide ones of space with the right width."""
    yield (
        "| survey | bands | highest mode / Nyquist | worst pixel / peak (1e-5) "
        "| at Nyquist | light, worst |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    index, radius = np.array(SETTINGS.in_surveys).T
    n = len(index)
    for name in survey_names():
        survey = get_survey(name)
        kinds = {name: survey}
        if survey.mirror_diameter < 3 and name.startswith(("Euclid", "Roman", "COSMOS")):
            kinds[f"{name}, space_psf"] = replace(survey, psf=space_psf)
        for title, kind in kinds.items():
            rng = stream(SETTINGS.seed, "survey", name)
            shear = np.where(radius > 0, 0.3, 0) * np.exp(2j * rng.uniform(0, np.pi, n))
            scale = kind.pixel_scale
            catalog = sheared_catalog(
                index, radius * scale, shear.real, shear.imag, kind.band_names
            )
            places = rng.uniform(-10, 10, (2, n)) * scale
            drawing = alone(
                catalog, Placed.of(np.arange(n), *places), kind, SETTINGS.pixels * scale
            )
            true = references(drawing)
            pixel, light = errors(ours(drawing), true)
            plain, _ = errors(ours(drawing, STANDARD), true)
            cut = quality_of(drawing.psfs[0], scale).cut
            yield (
                f"| {title} | {len(kind.bands)} | {cut:g} | {number(pixel.max())} "
                f"| {number(plain.max())} | {number(light.max())} |"
            )


def catalogue_rows(given: argparse.Namespace, references: References) -> Iterator[str]:
    """CatSim against GalSim and the BlendingToolKit, real galaxies against GalSim."""
    lsst = get_survey("LSST")
    if given.catsim is None:
        yield "| CatSim: left out, no file given | | | | | | | | |"
    else:
        catalog = read_catsim(given.catsim)
        n = len(catalog.table)
        rng = stream(SETTINGS.seed, "catsim")
        placed = Placed.of(np.arange(n), *rng.uniform(-SETTINGS.spread, SETTINGS.spread, (2, n)))
        drawing = alone(catalog, placed, lsst, SETTINGS.stamp)
        true = references(drawing)
        yield catalogue_row("CatSim, 6 bands", "GalSim, tight", ours(drawing), true, "1e-5")
        usual = references(drawing, None)
        yield catalogue_row("GalSim's own settings", "GalSim, tight", usual, true, "")
        if given.btk is None:
            yield "| BlendingToolKit: left out, no `--btk` | | | | | | | | |"
        else:
            # Whole electrons, as it counts them.
            floored = alone(catalog, placed, lsst, SETTINGS.stamp, floor=True)
            theirs = by_btk(given, catalog, placed)
            found = ours(floored)
            yield catalogue_row("CatSim, 6 bands", "BlendingToolKit", found, theirs, "2e-4")
            judge = references(floored)
            yield catalogue_row("BlendingToolKit", "GalSim, tight", theirs, judge, "")
    if given.cosmos is None:
        yield "| COSMOS: left out, no folder given | | | | | | | | |"
        return
    catalog = read_cosmos(given.cosmos, kind="real", exclusion="none")
    n = min(SETTINGS.real, len(catalog.table))
    catalog = catalog.select(np.arange(n))
    rng = stream(SETTINGS.seed, "cosmos")
    places = rng.uniform(-SETTINGS.spread, SETTINGS.spread, (2, n))
    placed = Placed.of(
        np.arange(n),
        *places,
        turn=rng.uniform(0, 2 * np.pi, n),
        g1=rng.normal(0, 0.05, n),
        g2=rng.normal(0, 0.05, n),
    )
    for bands in ("r", "ugrizy"):
        drawing = alone(catalog, placed, lsst.with_bands(bands), SETTINGS.stamp)
        # Tight settings ask for transforms of pixelated galaxies that GalSim cannot do.
        true = references(drawing, None)
        title = f"{n} real galaxies, turned and sheared, {bands}"
        yield catalogue_row(title, "GalSim", ours(drawing), true, "5e-5")


def catalogue_row(name: str, against: str, found: np.ndarray, true: np.ndarray, bar: str) -> str:
    pixel, light = errors(found, true)
    cells = [np.median(pixel), np.quantile(pixel, 0.95), pixel.max()]
    cells = [number(v) for v in cells] + [bar] + [number(np.median(light)), number(light.max())]
    return f"| {name} | {len(pixel)} | {against} | {' | '.join(cells)} |"


def by_btk(given: argparse.Namespace, catalog: Catalog, placed: Placed) -> np.ndarray:
    """The same galaxies by the BlendingToolKit in its own environment."""
    places, images = given.work / "btk_places.npz", given.work / "btk_images.npy"
    rows = np.asarray(catalog.table["row"])[placed.row]
    np.savez(places, row=rows, x=placed.x, y=placed.y)
    script = str(HERE / "btk_side.py")
    arguments = [given.btk, script, "draw", given.catsim, places, images]
    subprocess.run([str(a) for a in arguments], check=True, stdout=sys.stderr)
    return np.load(images)


def number(value: float) -> str:
    return f"{value:.1e}"


if __name__ == "__main__":
    main()
