"""Pairs of galaxies with their truth, drawn by GalSim at the observed PSF, never by our renderer.

Populations: `A` bulge, disc and knots; `S` single Sersic profiles of index 1.5 to 3.5, larger; `C`
real galaxies of COSMOS, from a catalogue of GalSim's form; `star` points.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Fluxes in three bands of a red and a blue source, in units of the middle band's.
RED, BLUE = (0.45, 1.0, 1.5), (1.3, 1.0, 0.75)


@dataclass(frozen=True)
class Settings:
    """What is drawn. Noise has a variance of 1 in every pixel and band.

    - `size`: pixels of a stamp; `pixel_scale`: arcseconds.
    - `psf_sigma`: of a Gaussian PSF in each band, pixels; `beta`: of a Moffat of the same FWHM.
    - `told`: width of the PSF that is told to a fit, in units of the true one.
    - `apart`, `ratio`, `snr`: ranges of separation in pixels, of the ratio of fluxes, and of the
        signal-to-noise ratio of both together (log-uniform).
    - `n_sources`: 2, or 1 for isolated sources.
    - `half`: of the rows of a catalogue, 0 the even ones, 1 the odd ones, None all: training and
        scoring take different halves.
    - `taper`: of real galaxies, see `RealGalaxies`.
    """

    population: str = "A"
    seed: int = 101
    n: int = 200
    size: int = 33
    pixel_scale: float = 0.2
    psf_sigma: tuple[float, ...] = (1.6,)
    beta: float | None = None
    told: float = 1.0
    apart: tuple[float, float] = (3.5, 10.0)
    ratio: tuple[float, float] = (1.0, 5.0)
    snr: tuple[float, float] = (30.0, 300.0)
    n_sources: int = 2
    half: int | None = None
    taper: tuple[float, float] | None = None


class Blends(NamedTuple):
    """Stamps and their truth.

    - `image`: `(blend, band, y, x)`; `truth`: of each source alone, without noise, `(blend, source,
        band, y, x)`.
    - `x`, `y`: true centres, pixels, `(blend, source)`.
    - `total`: flux of each source, also beyond the stamp, `(blend, source, band)`.
    - `psf`: what a fit is told, `(band, 25, 25)`.
    """

    image: np.ndarray
    truth: np.ndarray
    x: np.ndarray
    y: np.ndarray
    total: np.ndarray
    psf: np.ndarray
    settings: Settings

    @property
    def flux(self) -> np.ndarray:
        """True flux in the frame, `(blend, source, band)`."""
        return self.truth.sum(axis=(-2, -1))

    @property
    def peaks(self) -> np.ndarray:
        """The pixels nearest to the centres as (x, y), `(blend, source, 2)`."""
        return np.floor(np.stack([self.x, self.y], axis=-1) + 0.5).astype(int)

    def places(self, centre: bool) -> np.ndarray:
        """What a fit is told: the true centres, or the nearest pixels; `(blend, source, 2)`."""
        true = np.stack([self.x, self.y], axis=-1)
        return true if centre else self.peaks.astype(float)

    @property
    def apart(self) -> np.ndarray:
        """Pixels between two centres, `(blend,)`."""
        return np.hypot(np.ptp(self.x, axis=1), np.ptp(self.y, axis=1))

    @property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratio of all sources and bands together, `(blend,)`."""
        return np.sqrt(np.sum(self.truth.sum(axis=1) ** 2, axis=(1, 2, 3)))

    @property
    def source_snr(self) -> np.ndarray:
        """Of each source as if it were alone, `(blend, source)`."""
        return np.sqrt(np.sum(self.truth**2, axis=(2, 3, 4)))


def sets(cosmos: Path | None, **changes: Any) -> dict[str, Settings]:
    """The sets of the table; without a catalogue of COSMOS galaxies the last two are left out.

    Set `C` has real galaxies with all that is in their stamps, Hubble's noise included; in `T` they
    fade out at 5 to 10 radii of their adaptive moments. Both of the even rows.
    """
    base = replace(Settings(), **changes)
    found = {"A": base, "S": replace(base, population="S", n=base.n // 2, seed=base.seed + 1)}
    if cosmos is not None:
        real = replace(base, population="C", n=base.n // 2, seed=base.seed + 2, half=0)
        found |= {"C": real, "T": replace(real, taper=(5.0, 10.0))}
    return found


def draw_blends(settings: Settings, cosmos: Path | None = None) -> Blends:
    """All blends of some settings.

    - `cosmos`: folder or file of the catalogue that population `C` needs.

    **Raises:** `ValueError` for an unknown population, or no catalogue where one is needed.
    """
    rng = np.random.default_rng(settings.seed)
    n, m, size, bands = settings.n, settings.n_sources, settings.size, len(settings.psf_sigma)
    galaxies = Galaxies(settings, cosmos)
    psfs = [_psf(settings, sigma) for sigma in settings.psf_sigma]
    truth = np.zeros((n, m, bands, size, size))
    x, y, total = np.zeros((n, m)), np.zeros((n, m)), np.ones((n, m, bands))
    for k in range(n):
        apart, angle = rng.uniform(*settings.apart), rng.uniform(0, 2 * np.pi)
        middle = size // 2 + rng.uniform(-0.5, 0.5, 2)
        ratio = rng.uniform(*settings.ratio)
        for i, side in enumerate((-0.5, 0.5) if m == 2 else (0.0,)):
            x[k, i] = middle[0] + side * apart * np.cos(angle)
            y[k, i] = middle[1] + side * apart * np.sin(angle)
            galaxy = galaxies.draw(rng)
            total[k, i] = (ratio if i == 0 else 1) * _spectrum(i, bands)
            for band, psf in enumerate(psfs):
                seen = _seen(galaxy, psf, x[k, i], y[k, i], settings)
                truth[k, i, band] = total[k, i, band] * seen
        snr = np.exp(rng.uniform(*np.log(settings.snr)))
        scale = snr / np.sqrt(np.sum(truth[k].sum(axis=0) ** 2))
        truth[k] *= scale
        total[k] *= scale
    noise = rng.standard_normal((n, bands, size, size))
    told = [_stamp(_psf(settings, settings.told * s), settings) for s in settings.psf_sigma]
    image = (truth.sum(axis=1) + noise).astype(np.float32)
    return Blends(image, truth, x, y, total, np.stack(told), settings)


class Galaxies:
    """Draws galaxies of unit flux of a population."""

    def __init__(self, settings: Settings, cosmos: Path | None):
        self.population = settings.population
        ways = {"A": bulge_disc_knots, "S": sersic, "star": _point}
        if self.population == "C":
            if cosmos is None:
                raise ValueError("`cosmos` must be given for population C.")
            from diffdeblend.simulate import read_cosmos

            catalog = read_cosmos(cosmos, kind="real", exclusion="none", taper=settings.taper)
            assert catalog.real is not None
            rows = np.arange(len(catalog.real))
            self.rows = rows if settings.half is None else rows[settings.half :: 2]
            self.real = catalog.real
        elif self.population in ways:
            self.way = ways[self.population]
        else:
            raise ValueError(f"`population` must be A, S, C or star; got {self.population!r}.")

    def draw(self, rng: np.random.Generator) -> Any:
        """A galaxy, lengths in arcseconds."""
        import galsim

        if self.population != "C":
            return self.way(rng)
        one = self.real.galaxy(int(rng.choice(self.rows)))
        # Another orientation: the same two galaxies are not the same blend.
        return one.rotate(rng.uniform(0, 360) * galsim.degrees)


def bulge_disc_knots(rng: np.random.Generator) -> Any:
    """The recipe of `experiments/allocation`, in the same order of random numbers."""
    import galsim

    size = 0.45 * np.exp(0.4 * rng.standard_normal())
    bulge, knots = rng.uniform(0, 0.6), rng.uniform(0, 0.3)
    generator = galsim.BaseDeviate(int(rng.integers(1 << 31)))
    disc = galsim.Exponential(half_light_radius=size)
    parts = bulge * galsim.DeVaucouleurs(half_light_radius=0.6 * size)
    parts += (1 - bulge) * (1 - knots) * disc
    parts += (1 - bulge) * knots * galsim.RandomKnots(15, profile=disc, rng=generator)
    return parts.shear(_shear(rng, 0.25))


def sersic(rng: np.random.Generator) -> Any:
    """A single profile, a third larger."""
    import galsim

    size = 0.6 * np.exp(0.4 * rng.standard_normal())
    # GalSim makes a table for each index.
    index = np.round(rng.uniform(1.5, 3.5), 1)
    return galsim.Sersic(index, half_light_radius=size).shear(_shear(rng, 0.25))


def _point(rng: np.random.Generator) -> Any:
    import galsim

    return galsim.DeltaFunction()


def _shear(rng: np.random.Generator, least: float) -> Any:
    import galsim

    return galsim.Shear(q=rng.uniform(least, 1), beta=rng.uniform(0, np.pi) * galsim.radians)


def _spectrum(source: int, bands: int) -> np.ndarray:
    return np.asarray((RED, BLUE)[source][:bands]) if bands > 1 else np.ones(1)


def _psf(settings: Settings, sigma: float) -> Any:
    import galsim

    gaussian = galsim.Gaussian(sigma=sigma * settings.pixel_scale)
    if settings.beta is None:
        return gaussian
    return galsim.Moffat(beta=settings.beta, fwhm=gaussian.fwhm)


def _stamp(psf: Any, settings: Settings) -> np.ndarray:
    drawn = psf.drawImage(
        nx=25, ny=25, scale=settings.pixel_scale, method="no_pixel", dtype=float
    ).array
    return drawn / drawn.sum()


def _seen(galaxy: Any, psf: Any, x: float, y: float, settings: Settings) -> np.ndarray:
    """One galaxy of unit flux on a stamp; the PSF is that of the pixels already."""
    import galsim

    n = settings.size
    drawn = galsim.Convolve(galaxy, psf).drawImage(
        *(None, n, n),
        scale=settings.pixel_scale,
        method="no_pixel",
        offset=(x - (n - 1) / 2, y - (n - 1) / 2),
        dtype=float,
    )
    return drawn.array
