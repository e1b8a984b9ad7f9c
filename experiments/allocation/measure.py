"""How well is the light of two blended galaxies shared out, by symmetry and by fitted models?

    python experiments/allocation/measure.py

Blends of galaxies with bulge, disc and knots, drawn by GalSim, of seeds that no setting was chosen
on. `table.md` has the error of the flux of each galaxy by each way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffdeblend.allocate import ModelImage, allocate_models, deblend_footprints
from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.batch.draw import draw_sources
from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import Footprint, Peaks, SourceRecords, SpanSet
from diffdeblend.psf import PixelPSF

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is drawn: stamps of `size` pixels of 0.2 arcsec, a PSF of `psf_sigma` pixels."""

    seed: int = 101
    n_blends: int = 200
    size: int = 33
    psf_sigma: float = 1.6
    pixel: float = 0.2


SETTINGS = Settings()


class Blends(NamedTuple):
    """Two galaxies a stamp: `truth` has each alone, `(blend, 2, y, x)`; noise of variance 1."""

    image: np.ndarray
    truth: np.ndarray
    x: np.ndarray
    y: np.ndarray
    psf: np.ndarray


def draw_blends(settings: Settings) -> Blends:
    """Separations of 3.5 to 10 pixels, ratios of flux of 1 to 5, signal-to-noise of 30 to 300."""
    import galsim

    rng = np.random.default_rng(settings.seed)
    n, size = settings.n_blends, settings.size
    psf = galsim.Gaussian(sigma=settings.psf_sigma * settings.pixel)
    seen = psf.drawImage(nx=25, ny=25, scale=settings.pixel, method="no_pixel", dtype=float).array
    truth, x, y = np.zeros((n, 2, size, size)), np.zeros((n, 2)), np.zeros((n, 2))
    for k in range(n):
        apart, angle = rng.uniform(3.5, 10), rng.uniform(0, 2 * np.pi)
        middle = size // 2 + rng.uniform(-0.5, 0.5, 2)
        ratio = rng.uniform(1, 5)
        for m, side in enumerate((-0.5, 0.5)):
            x[k, m] = middle[0] + side * apart * np.cos(angle)
            y[k, m] = middle[1] + side * apart * np.sin(angle)
            truth[k, m] = _galaxy(rng, psf, x[k, m], y[k, m], settings) * (ratio if m == 0 else 1)
        truth[k] *= np.exp(rng.uniform(np.log(30), np.log(300))) / np.sqrt(
            np.sum(truth[k].sum(axis=0) ** 2)
        )
    noise = rng.standard_normal((n, size, size))
    return Blends((truth.sum(axis=1) + noise).astype(np.float32), truth, x, y, seen / seen.sum())


def _galaxy(rng, psf, x: float, y: float, settings: Settings) -> np.ndarray:
    import galsim

    size = 0.45 * np.exp(0.4 * rng.standard_normal())
    bulge, knots = rng.uniform(0, 0.6), rng.uniform(0, 0.3)
    generator = galsim.BaseDeviate(int(rng.integers(1 << 31)))
    disc = galsim.Exponential(half_light_radius=size)
    parts = bulge * galsim.DeVaucouleurs(half_light_radius=0.6 * size)
    parts += (1 - bulge) * (1 - knots) * disc
    parts += (1 - bulge) * knots * galsim.RandomKnots(15, profile=disc, rng=generator)
    shape = galsim.Shear(q=rng.uniform(0.25, 1), beta=rng.uniform(0, np.pi) * galsim.radians)
    seen = galsim.Convolve(parts.shear(shape), psf)
    n = settings.size
    drawn = seen.drawImage(
        *(None, n, n),
        scale=settings.pixel,
        method="no_pixel",
        offset=(x - (n - 1) / 2, y - (n - 1) / 2),
        dtype=float,
    )
    return drawn.array


def whole(blends: Blends, k: int) -> SourceRecords:
    """A stamp as one parent with two peaks on the pixels nearest to the truth."""
    ny, nx = blends.image[k].shape
    x, y = (np.floor(v[k] + 0.5).astype(np.int32) for v in (blends.x, blends.y))
    peaks = Peaks(x, y, blends.image[k][y, x].astype(float))
    return SourceRecords.from_footprints([Footprint(SpanSet.from_box((0, nx, 0, ny)), peaks)])


def by_symmetry(blends: Blends, **settings) -> np.ndarray:
    """Fluxes of the children, `(blend, 2)`: all stamps side by side as one field."""
    n, ny, nx = blends.image.shape
    field = blends.image.reshape(n * ny, nx)
    exposure = make_exposure(field, 1.0, PixelPSF(blends.psf[None]))
    footprints = []
    for k in range(n):
        one = whole(blends, k).footprints[0]
        footprints.append(one.shifted(0, k * ny))
    found = deblend_footprints(exposure, SourceRecords.from_footprints(footprints), **settings)
    light = [float(one.image.sum()) for one in found.footprints[n:]]
    return np.array(light).reshape(n, 2)


def fitted(blends: Blends, model: str = "auto"):
    """What `fit_batch` finds, and the image of each galaxy, `(blend, 2, y, x)`."""
    psf = PixelPSF(blends.psf[None])
    stamps = [
        blend_of_arrays(image, 1.0, psf, np.stack([x, y], 1))
        for image, x, y in zip(blends.image, np.round(blends.x), np.round(blends.y), strict=True)
    ]
    found = fit_batch(stamps, model=model, background="none")
    names = ("x", "y", "radius", "index", "radius_ratio", "shear_ratio", "ellipticity", "flux")
    values = {name: getattr(found, name) for name in (*names, "bulge_flux", "kind")}
    n, ny, nx = blends.image.shape
    seen = draw_sources(values, blends.psf[None, None], np.zeros(2 * n, int), (ny, nx))
    return found, seen[:, 0].reshape(n, 2, ny, nx)


def by_models(blends: Blends, models: np.ndarray) -> np.ndarray:
    """Fluxes of the light shared out in proportion to models, `(blend, 2)`."""
    out = np.zeros((len(models), 2))
    for k, pair in enumerate(models):
        exposure = make_exposure(blends.image[k], 1.0, PixelPSF(blends.psf[None]))
        given = [
            ModelImage(one, 0, 0, x, y)
            for one, x, y in zip(pair, blends.x[k], blends.y[k], strict=True)
        ]
        found = allocate_models(exposure, whole(blends, k), given)
        out[k] = [float(one.image.sum()) for one in found.footprints[1:]]
    return out


def row(name: str, flux: np.ndarray, blends: Blends) -> str:
    """A line of the table."""
    true = blends.truth.sum(axis=(2, 3))
    error = flux / true - 1
    faint = np.take_along_axis(error, np.argmin(true, axis=1)[:, None], axis=1)
    size = np.abs(error)
    numbers = [np.median(size), size.mean(), np.quantile(size, 0.9), np.median(error)]
    numbers.append(np.median(np.abs(faint)))
    return f"| {name} | " + " | ".join(f"{v:.3f}" for v in numbers) + " |"


def ways(blends: Blends) -> dict[str, Callable[[], np.ndarray]]:
    """Fluxes by each way."""
    _, models = fitted(blends)
    return {
        "symmetric templates": lambda: by_symmetry(blends),
        "the same, no points": lambda: by_symmetry(blends, psf_chi2=None),
        "the same, stray light left out": lambda: by_symmetry(
            blends, psf_chi2=None, stray_flux="trim"
        ),
        "the same, neither monotone nor smoothed": lambda: by_symmetry(
            blends, psf_chi2=None, stray_flux="trim", monotonic=False, smooth=False
        ),
        "fitted models": lambda: models.sum(axis=(2, 3)),
        "allocation by fitted models": lambda: by_models(blends, models),
        "allocation by the true images": lambda: by_models(blends, blends.truth),
    }


def main() -> None:
    blends = draw_blends(SETTINGS)
    head = "| way | median abs(dF/F) | mean | 90 % | median dF/F | faint one |"
    lines = [head, "|---|---|---|---|---|---|"]
    lines += [row(name, way(), blends) for name, way in ways(blends).items()]
    (HERE / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
