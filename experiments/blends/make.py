"""What do the experiments of the batched fit take apart? Blends drawn by GalSim, with their truth.

Three populations, one file format, no fits: `family`, where the truth is in the model family,
`catsim`, bulges and discs of a catalogue, and `cosmos`, real galaxies seen by the Hubble telescope.

    python experiments/blends/make.py family --n 512 --seed 1 --out family.npz
    python experiments/blends/make.py catsim --n 300 --catalog catsim.fits --out catsim.npz
    python experiments/blends/make.py cosmos --n 300 --cosmos folder/ --out cosmos.npz

`--check` says how good the file is and draws its truth with this library. A blend depends on
(seed, index) alone: not on the number of workers, nor on how many others there are.
"""

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import galsim
import numpy as np
from astropy.table import Table


@dataclass(frozen=True)
class Survey:
    """Rubin's telescope after ten years, one entry a band.

    - `zero_point`: AB magnitude of one electron a second; `sky`: AB magnitude of a square
        arcsecond; `seconds`: exposure; `wavelength`: in nm.
    - `diameter`: in metres; `obscured`: share of the mirror's area.
    - `pixel_scale`: in arcseconds.
    """

    bands: tuple[str, ...] = ("u", "g", "r", "i", "z", "y")
    zero_point: tuple[float, ...] = (26.44, 28.29, 28.13, 27.81, 27.42, 26.59)
    sky: tuple[float, ...] = (22.99, 22.26, 21.20, 20.48, 19.60, 18.61)
    seconds: tuple[float, ...] = (1680.0, 2400.0, 5520.0, 5520.0, 4800.0, 4800.0)
    wavelength: tuple[float, ...] = (368.1, 486.4, 625.0, 756.5, 870.2, 972.2)
    diameter: float = 8.36
    obscured: float = 0.3926
    pixel_scale: float = 0.2

    def electrons(self, magnitude: np.ndarray) -> np.ndarray:
        """Of AB magnitudes, one a band."""
        return 10 ** (-0.4 * (magnitude - np.array(self.zero_point))) * np.array(self.seconds)

    def sky_electrons(self) -> np.ndarray:
        """Of the sky, in a pixel of each band."""
        return self.electrons(np.array(self.sky)) * self.pixel_scale**2


@dataclass(frozen=True)
class Stamp:
    """What all blends of a set have in common, whatever is in them.

    - `side`, `psf_side`: pixels of a blend and of the PSF's image.
    - `seeing`: FWHM of the Kolmogorov PSF in arcseconds, one a band; each set has its own, off by
        `seeing_scatter` (relative, rms). `diffraction`: by the telescope, on top of it.
    - `n_sources`: the fewest and the most.
    - `spread`: centres lie in a square of so many pixels in the middle, `separation` apart.
    - `start_error`: rms of the start positions along x and along y, in pixels.
    """

    side: int = 60
    psf_side: int = 41
    seeing: tuple[float, ...] = (0.92, 0.87, 0.83, 0.80, 0.78, 0.76)
    seeing_scatter: float = 0.02
    diffraction: bool = False
    n_sources: tuple[int, int] = (2, 4)
    spread: float = 36.0
    separation: float = 1.5
    start_error: float = 0.3
    survey: Survey = Survey()


@dataclass(frozen=True)
class Brightness:
    """How signal to noise in the i band is distributed: log-normal, wider above than below.

    - `median`, and `below`, `above`: rms of its logarithm on either side, `cut` at so many rms.

    It is that of a source alone. With the noise of its neighbours' light, the quantiles at 5, 50
    and 95 % are 9.8, 36 and 734 (`family`, 2000 blends).
    """

    median: float = 36.0
    below: float = 0.82
    above: float = 1.93
    cut: float = 2.5

    def draw(self, rng: np.random.Generator) -> float:
        z = _within(rng, -self.cut, self.cut)
        return self.median * np.exp(z * (self.above if z > 0 else self.below))


@dataclass(frozen=True)
class Source:
    """A source at the origin: what is drawn, and what is said of it in the table.

    - `parts`: profiles of unit flux, in arcseconds; `flux`: of each part and band, in electrons.
        With a bulge it is the last part.
    - `snr`: if given, `flux` is scaled to this signal to noise in the i band.
    - `radius`: half-light, in arcseconds; `row`: in the catalogue it comes from.
    """

    type: str
    parts: tuple[galsim.GSObject, ...]
    flux: np.ndarray
    snr: float | None = None
    radius: float = np.nan
    index: float = np.nan
    radius_ratio: float = np.nan
    g: tuple[float, float] = (np.nan, np.nan)
    bulge_g: tuple[float, float] = (np.nan, np.nan)
    row: int = -1


class Recipe(Protocol):
    """A population: a stamp, and how a source of it is drawn. Settings only: it is pickled."""

    @property
    def stamp(self) -> Stamp: ...

    def source(self, rng: np.random.Generator) -> Source: ...


# The populations.


@dataclass(frozen=True)
class Family:
    """Stars, Sersic galaxies, and bulges with discs of one centre and one shear.

    - `stars`, `sersics`: their shares; the rest has bulge and disc.
    - `index`: range of the Sersic index, log-uniform, on a grid of `index_step`, as GalSim builds
        a table for each.
    - `radius`, `radius_scatter`: half-light radius, median in arcseconds and rms of its logarithm,
        within `radius_range`; the disc's where there is one.
    - `ratio`, `bulge`: ranges of the bulge's radius in units of the disc's and of its share of the
        light in i, uniform.
    - `shear`: rms of either component, cut at `shear_limit`.
    """

    stamp: Stamp = Stamp()
    brightness: Brightness = Brightness()
    stars: float = 0.2
    sersics: float = 0.45
    index: tuple[float, float] = (0.6, 4.0)
    index_step: float = 0.05
    radius: float = 0.5
    radius_scatter: float = 0.4
    radius_range: tuple[float, float] = (0.2, 1.2)
    ratio: tuple[float, float] = (0.15, 0.7)
    bulge: tuple[float, float] = (0.1, 0.8)
    shear: float = 0.25
    shear_limit: float = 0.8

    def source(self, rng: np.random.Generator) -> Source:
        kind, snr, survey = rng.random(), self.brightness.draw(rng), self.stamp.survey
        if kind < self.stars:
            point = galsim.DeltaFunction()
            return Source("star", (point,), spectrum(rng, survey, 2.0, 1.2)[None], snr, radius=0.0)
        low, high = np.log(np.array(self.radius_range) / self.radius) / self.radius_scatter
        radius = self.radius * np.exp(self.radius_scatter * _within(rng, low, high))
        g = self._shear(rng)
        if kind < self.stars + self.sersics:
            index = np.exp(rng.uniform(*np.log(self.index)))
            index = round(round(index / self.index_step) * self.index_step, 10)
            flux = spectrum(rng, survey, 1.4, 0.8)[None]
            return Source(
                "sersic", (profile(index, radius, g),), flux, snr, radius, index=index, g=g
            )
        ratio, bulge = rng.uniform(*self.ratio), rng.uniform(*self.bulge)
        parts = profile(1.0, radius, g), profile(4.0, radius * ratio, g)
        disc_flux = (1 - bulge) * spectrum(rng, survey, 1.0, 0.5)
        flux = np.stack([disc_flux, bulge * spectrum(rng, survey, 2.5, 0.5)])
        return Source("bulge_disc", parts, flux, snr, radius, radius_ratio=ratio, g=g, bulge_g=g)

    def _shear(self, rng: np.random.Generator) -> tuple[float, float]:
        while True:
            g1, g2 = rng.normal(0, self.shear, 2)
            if np.hypot(g1, g2) < self.shear_limit:
                return float(g1), float(g2)


@dataclass(frozen=True)
class Catsim:
    """Exponential discs and de Vaucouleurs bulges of a CatSim table, each turned by some angle.

    - `catalog`: a table with `{band}_ab`, and `fluxnorm_`, semi-axes in arcseconds and position
        angles of bulge and disc.
    - `faintest`: AB magnitude in i.
    """

    catalog: Path
    # As in the blends of the BlendingToolKit: 24", centres within a tenth of it.
    stamp: Stamp = Stamp(
        side=120,
        psf_side=61,
        seeing=(0.90, 0.86, 0.81, 0.79, 0.77, 0.76),
        seeing_scatter=0.0,
        diffraction=True,
        n_sources=(1, 4),
        spread=24.0,
    )
    faintest: float = 26.0

    def source(self, rng: np.random.Generator) -> Source:
        table, survey = catsim_table(self.catalog, self.faintest), self.stamp.survey
        place = rng.integers(len(table))
        line, turn = table[place], rng.uniform(0, 360)
        total = survey.electrons(np.array([line[f"{band}_ab"] for band in survey.bands]))
        light = np.array([line["fluxnorm_disk"], line["fluxnorm_bulge"]], dtype=float)
        shapes = []
        for index, a, b, angle in ((1.0, "a_d", "b_d", "pa_disk"), (4.0, "a_b", "b_b", "pa_bulge")):
            if line[a] > 0 and line[b] > 0:
                beta = (float(line[angle]) + turn) * galsim.degrees
                shear = galsim.Shear(q=min(line[b] / line[a], 1.0), beta=beta)
                shapes.append((index, float(np.sqrt(line[a] * line[b])), (shear.g1, shear.g2)))
            else:
                shapes.append(None)
        there = [k for k in range(2) if shapes[k] is not None and light[k] > 0]
        parts = tuple(profile(*shapes[k]) for k in there)
        flux = light[there, None] / light[there].sum() * total
        said = {"row": int(line["row"]), "radius": shapes[there[0]][1], "g": shapes[there[0]][2]}
        if len(there) == 1:
            return Source("sersic", parts, flux, index=shapes[there[0]][0], **said)
        ratio = shapes[1][1] / shapes[0][1]
        return Source("bulge_disc", parts, flux, radius_ratio=ratio, bulge_g=shapes[1][2], **said)


@dataclass(frozen=True)
class Cosmos:
    """Galaxies as the Hubble telescope saw them in F814W, each with colours of its own.

    One morphology in all bands, turned and mirrored at random. Centre, radius and shear in the
    table are those of adaptive moments of Hubble's image, its PSF included.

    - `cosmos`: a folder with a GalSim catalogue of real galaxies.
    - `taper`: from where to where a galaxy fades out, in units of the moments' radius. Around it is
        Hubble's noise, which in a bright blend would be far above Rubin's, and half of it negative.
    - `bright`: above this signal to noise a source is one of the brightest `bright_share` of the
        catalogue, for the same reason.
    """

    cosmos: Path
    stamp: Stamp = Stamp()
    brightness: Brightness = Brightness()
    taper: tuple[float, float] = (3.0, 6.0)
    bright: float = 100.0
    bright_share: float = 0.25

    def source(self, rng: np.random.Generator) -> Source:
        catalog, by_magnitude = cosmos_catalog(self.cosmos)
        snr = self.brightness.draw(rng)
        share = self.bright_share if snr > self.bright else 1.0
        while True:
            row = int(by_magnitude[rng.integers(np.ceil(share * len(by_magnitude)))])
            image, psf_image = catalog.getGalImage(row), catalog.getPSFImage(row)
            moments, psf_moments = (
                galsim.hsm.FindAdaptiveMom(given, strict=False) for given in (image, psf_image)
            )
            if moments.moments_status == 0 and psf_moments.moments_status == 0:
                break
        pixel = float(catalog.pixel_scale[row])
        galaxy = galsim.Convolve(
            [
                galsim.InterpolatedImage(tapered(image, moments, self.taper), scale=pixel, flux=1),
                galsim.Deconvolve(galsim.InterpolatedImage(psf_image, scale=pixel, flux=1)),
            ]
        )
        # The PSF is not in the middle of its image, but some 0.4 of its pixels off.
        off = moments.moments_centroid - image.true_center
        off = (off - (psf_moments.moments_centroid - psf_image.true_center)) * pixel
        turn, mirror = rng.uniform(0, 2 * np.pi), int(rng.choice([-1, 1]))
        galaxy = galaxy.shift(-off).transform(1, 0, 0, mirror).rotate(turn * galsim.radians)
        g = moments.observed_shape.g1 + 1j * mirror * moments.observed_shape.g2
        g = g * np.exp(2j * turn)
        return Source(
            "real",
            (galaxy,),
            spectrum(rng, self.stamp.survey, 1.4, 0.8)[None],
            snr,
            # Of a Gaussian with these moments.
            radius=moments.moments_sigma * np.sqrt(2 * np.log(2)) * pixel,
            g=(g.real, g.imag),
            row=row,
        )


def tapered(
    image: galsim.Image, moments: galsim.hsm.ShapeData, taper: tuple[float, float]
) -> galsim.Image:
    """The image, faded out smoothly along ellipses of its moments."""
    x, y = image.get_pixel_centers()
    off = np.stack([x - moments.moments_centroid.x, y - moments.moments_centroid.y])
    unshear = np.linalg.inv(moments.observed_shape.getMatrix())
    distance = np.hypot(*np.tensordot(unshear, off, axes=1)) / moments.moments_sigma
    keep = np.clip((taper[1] - distance) / (taper[1] - taper[0]), 0, 1)
    return galsim.Image(image.array * keep**2 * (3 - 2 * keep), xmin=image.xmin, ymin=image.ymin)


def profile(index: float, radius: float, g: tuple[float, float]) -> galsim.GSObject:
    """A galaxy of unit flux, `radius` in arcseconds before the shear, which keeps its area."""
    return galsim.Sersic(index, half_light_radius=radius).shear(g1=g[0], g2=g[1])


def spectrum(rng: np.random.Generator, survey: Survey, slope: float, scatter: float) -> np.ndarray:
    r"""Electrons in each band, one in i, of a power law $f_\nu \propto \lambda^s$.

    $s$ is drawn around `slope`; on top, each band is 0.05 mag off (rms).
    """
    wavelength = np.array(survey.wavelength) / survey.wavelength[survey.bands.index("i")]
    magnitude = -2.5 * rng.normal(slope, scatter) * np.log10(wavelength)
    magnitude = magnitude + rng.normal(0, 0.05, len(survey.bands))
    electrons = survey.electrons(magnitude)
    return electrons / electrons[survey.bands.index("i")]


@cache
def catsim_table(path: Path, faintest: float) -> Table:
    """The galaxies that are bright enough, with their `row` in the file."""
    table = Table.read(path)
    table["row"] = np.arange(len(table))
    light = np.array(table["fluxnorm_disk"]) * np.array(table["a_d"] * table["b_d"] > 0)
    light = light + np.array(table["fluxnorm_bulge"]) * np.array(table["a_b"] * table["b_b"] > 0)
    table = table[(np.array(table["i_ab"]) < faintest) & (light > 0)]
    if not len(table):
        raise ValueError(f"`catalog`: no galaxy of {path.name!r} is brighter than {faintest}.")
    return table


@cache
def cosmos_catalog(folder: Path) -> tuple[galsim.RealGalaxyCatalog, np.ndarray]:
    """The catalogue of a folder, and its rows by magnitude, the brightest first."""
    # Beside it may lie tables of fits and of selections.
    found = [
        path.name
        for path in sorted(folder.glob("real_galaxy_catalog*.fits"))
        if not path.stem.endswith(("_fits", "_selection"))
    ]
    if len(found) != 1:
        raise ValueError(f"`cosmos`: {folder.name!r} needs one real_galaxy_catalog*.fits: {found}.")
    magnitude = np.array(Table.read(folder / found[0])["MAG"])
    return galsim.RealGalaxyCatalog(found[0], dir=str(folder)), np.argsort(magnitude)


# Drawing.


class Seen(NamedTuple):
    """The PSF of one band: a profile, its image of unit sum, and how much light that holds.

    Fluxes are those of a model that uses the image: a source of flux 1 is drawn with 1 / `held`.
    Else every flux would be half a percent off, 4 sigma of a source of signal to noise 800.
    """

    profile: galsim.GSObject
    image: np.ndarray
    held: float


def make_psf(stamp: Stamp, seed: int) -> tuple[Seen, ...]:
    """One a band, the same for all blends of a set."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    scatter = 1 + stamp.seeing_scatter * rng.normal(size=len(stamp.seeing))
    survey, found = stamp.survey, []
    for fwhm, wavelength in zip(stamp.seeing * scatter, survey.wavelength, strict=True):
        psf = galsim.Kolmogorov(fwhm=fwhm)
        if stamp.diffraction:
            obscuration = np.sqrt(survey.obscured)
            airy = galsim.Airy(lam=wavelength, diam=survey.diameter, obscuration=obscuration)
            psf = galsim.Convolve([psf, airy])
        image = _drawn(psf, stamp.psf_side, survey.pixel_scale, (0.0, 0.0))
        found.append(Seen(psf, image / image.sum(), image.sum()))
    return tuple(found)


def draw_source(
    source: Source, x: float, y: float, psf: tuple[Seen, ...], stamp: Stamp
) -> np.ndarray:
    """The noiseless image of a source alone, [band, y, x], in electrons."""
    middle, scale = (stamp.side - 1) / 2, stamp.survey.pixel_scale
    images = []
    for seen, flux in zip(psf, source.flux.T, strict=True):
        parts = [part * f for part, f in zip(source.parts, flux / seen.held, strict=True)]
        light = galsim.Convolve([galsim.Add(parts), seen.profile])
        images.append(_drawn(light, stamp.side, scale, (x - middle, y - middle)))
    return np.stack(images)


def draw_blend(recipe: Recipe, psf: tuple[Seen, ...], seed: int, index: int):
    """One blend: image, variance, start positions, and its rows of the table."""
    # Not default_rng([seed, index]): a list is padded with zeros, [1] and [1, 0] are one seed.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index)))
    stamp, survey = recipe.stamp, recipe.stamp.survey
    sky = survey.sky_electrons()[:, None, None]
    i_band = survey.bands.index("i")
    n = int(rng.integers(stamp.n_sources[0], stamp.n_sources[1] + 1))
    centres = _positions(rng, n, stamp)
    sources, alone = [], []
    for x, y in centres:
        source = recipe.source(rng)
        image = draw_source(source, x, y, psf, stamp)
        if source.snr is not None:
            factor = _to_snr(image[i_band], sky[i_band], source.snr)
            source, image = dataclasses.replace(source, flux=source.flux * factor), image * factor
        sources.append(source)
        alone.append(image)
    alone = np.stack(alone)
    total = alone.sum(axis=0)
    # A real galaxy comes with Hubble's noise, which may be below zero.
    variance = sky + np.maximum(total, 0)
    image = total + np.sqrt(variance) * rng.normal(size=total.shape)
    start = np.full((stamp.n_sources[1], 2), np.nan)
    start[:n] = centres + stamp.start_error * rng.normal(size=(n, 2))

    square = (alone**2).sum(axis=(2, 3))
    per_band = {
        "flux": np.stack([source.flux.sum(axis=0) for source in sources]),
        "bulge_flux": np.stack(
            [s.flux[-1] if s.type == "bulge_disc" else 0 * s.flux[-1] for s in sources]
        ),
        "stampflux": alone.sum(axis=(2, 3)),
        "snr": np.sqrt((alone**2 / variance).sum(axis=(2, 3))),
        "blendedness": 1 - square / (alone * total).sum(axis=(2, 3)),
    }
    rows = np.zeros(n, dtype=truth_dtype(survey.bands))
    for k, source in enumerate(sources):
        row, x_y = rows[k], centres[k]
        row["blend"], row["k"], row["type"], row["row"] = index, k, source.type, source.row
        row["x"], row["y"] = x_y
        row["radius"] = source.radius / survey.pixel_scale
        row["index"], row["radius_ratio"] = source.index, source.radius_ratio
        (row["g1"], row["g2"]), (row["bulge_g1"], row["bulge_g2"]) = source.g, source.bulge_g
        for name, values in per_band.items():
            for band, value in zip(survey.bands, values[k], strict=True):
                row[f"{name}_{band}"] = value
    return image.astype(np.float32), variance.astype(np.float32), start, rows


# The file.


@dataclass(frozen=True)
class Blends:
    """A set of blends, as in the file: one key a field.

    - `images`, `variance`: shape `(blend, band, ny, nx)`, electrons, the sky taken off.
    - `psf`: shape `(band, h, w)`, pixel included, of unit sum; `pixel_scale`: in arcseconds.
    - `sky`: variance where there is no source, in each band.
    - `n_src`: number of sources; `start`: shape `(blend, most, 2)`, x and y, NaN beyond `n_src`.
    - `truth`: a record a source, see `truth_dtype`, in the order of `start`.
    - `settings`: what made the set, as JSON.
    """

    images: np.ndarray
    variance: np.ndarray
    psf: np.ndarray
    bands: np.ndarray
    pixel_scale: float
    sky: np.ndarray
    n_src: np.ndarray
    start: np.ndarray
    truth: np.ndarray
    settings: str

    def save(self, path: Path) -> None:
        # Noise does not compress.
        np.savez(path, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


def truth_dtype(bands: tuple[str, ...]) -> np.dtype:
    """What is known of a source; NaN where it means nothing.

    - `blend`, `k`: which blend, which of its sources; `row`: in the catalogue, or -1.
    - `type`: star, sersic, bulge_disc or real.
    - `x`, `y`: centre in pixels, the first pixel is centred on `(0, 0)`.
    - `radius`: half-light, pixels, before the shear; the disc's of a bulge_disc. `radius_ratio`:
        the bulge's in units of it. `index`: Sersic's. `g1`, `g2`: reduced shear; `bulge_g1`,
        `bulge_g2`: the bulge's.
    - for each band `flux` (total), `bulge_flux` (of it), `stampflux` (of it inside the stamp),
        `snr` (sqrt of the sum of light^2 / variance), `blendedness` (1 - sum own^2 / own total).
    """
    fixed = [("blend", "i4"), ("k", "i4"), ("row", "i4"), ("type", "U10")]
    shape = ("x", "y", "radius", "index", "radius_ratio", "g1", "g2", "bulge_g1", "bulge_g2")
    per_band = ("flux", "bulge_flux", "stampflux", "snr", "blendedness")
    names = [*shape, *(f"{name}_{band}" for name in per_band for band in bands)]
    return np.dtype([*fixed, *((name, "f8") for name in names)])


def simulate(recipe: Recipe | str, n: int, seed: int = 1, workers: int = 1, **paths) -> Blends:
    """A set of `n` blends.

    - `recipe`: one of the three, or its name with its path: `catalog` of catsim, `cosmos`.
    - `workers`: processes; they are spawned, so that a script needs `if __name__ == "__main__"`.

    **Raises:** `ValueError` for another name, or a catalogue without galaxies; `TypeError` if a
    path is missing.
    """
    if isinstance(recipe, str):
        recipe = make_recipe(recipe, **paths)
    stamp, psf = recipe.stamp, make_psf(recipe.stamp, seed)
    count, most, side = len(stamp.survey.bands), stamp.n_sources[1], stamp.side
    images = np.empty((n, count, side, side), dtype=np.float32)
    variance, start, rows = np.empty_like(images), np.empty((n, most, 2)), []
    for k, made in enumerate(_spread_out(partial(draw_blend, recipe, psf, seed), n, workers)):
        images[k], variance[k], start[k], found = made
        rows.append(found)
    return Blends(
        images=images,
        variance=variance,
        psf=np.stack([seen.image for seen in psf]).astype(np.float32),
        bands=np.array(stamp.survey.bands),
        pixel_scale=stamp.survey.pixel_scale,
        sky=stamp.survey.sky_electrons(),
        n_src=np.array([len(found) for found in rows]),
        start=start,
        truth=np.concatenate(rows),
        settings=_settings(recipe, n, seed),
    )


def load(path: Path | str) -> Blends:
    """A set from its file."""
    with np.load(path, allow_pickle=False) as archive:
        found = {f.name: archive[f.name] for f in dataclasses.fields(Blends)}
    found |= {key: found[key].item() for key in ("pixel_scale", "settings")}
    return Blends(**found)


def first(blends: Blends, n: int) -> Blends:
    """The first blends of a set."""
    return Blends(
        images=blends.images[:n],
        variance=blends.variance[:n],
        psf=blends.psf,
        bands=blends.bands,
        pixel_scale=blends.pixel_scale,
        sky=blends.sky,
        n_src=blends.n_src[:n],
        start=blends.start[:n],
        truth=blends.truth[blends.truth["blend"] < n],
        settings=blends.settings,
    )


def cached(
    path: Path | str, recipe: Recipe | str, n: int, seed: int = 1, workers: int = 1, **paths
) -> Blends:
    """The set of the file, if it is there with these settings; else it is made and written."""
    path = Path(path)
    if isinstance(recipe, str):
        recipe = make_recipe(recipe, **paths)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            same = str(archive["settings"]) == _settings(recipe, n, seed)
        if same:
            return load(path)
    blends = simulate(recipe, n, seed, workers)
    blends.save(path)
    return blends


def make_recipe(name: str, **paths) -> Recipe:
    """A recipe by its name, at its usual settings, with its path if it needs one."""
    recipes = {"family": Family, "catsim": Catsim, "cosmos": Cosmos}
    if name not in recipes:
        raise ValueError(f"`recipe` must be one of {sorted(recipes)}; got {name!r}.")
    return recipes[name](**{key: Path(path) for key, path in paths.items()})


# Is it right?


def check(blends: Blends, n: int = 50) -> Iterator[str]:
    """What is to be known of a set before it is used; the first `n` blends are drawn again.

    Drawn by this library from the table and the PSF's image. The difference from GalSim's image
    adds some chi2 to that of the noise, here by source; with the sign of g2 wrong, a lot.
    """
    sky = blends.sky[None, :, None, None]
    noiseless = blends.variance - sky
    chi2 = ((blends.images - noiseless) ** 2 / blends.variance).mean()
    spread = np.sqrt(2 / blends.images.size)
    yield f"{len(blends.images)} blends, {len(blends.truth)} sources of {_counts(blends.truth)}"
    yield f"reduced chi2 of the noise {chi2:.5f}, expected 1 +- {spread:.5f}"
    galaxies = blends.truth[blends.truth["type"] != "star"]
    for name, rows in (
        ("snr_i", blends.truth),
        ("blendedness_i", blends.truth),
        ("radius", galaxies),
    ):
        low, middle, high = np.percentile(rows[name], (5, 50, 95))
        yield f"{name} at 5, 50, 95 %: {low:.3g}, {middle:.3g}, {high:.3g}"
    off = blends.start[np.isfinite(blends.start[..., 0])]
    off = off - np.stack([blends.truth["x"], blends.truth["y"]], axis=-1)
    yield f"start positions off by {off.std():.3f} pixels rms"
    if (blends.truth["type"] == "real").any():
        return
    few = blends.truth[blends.truth["blend"] < n]
    for name, sign in (("by this library", 1), ("with the sign of g2 wrong", -1)):
        model = _rendered(few, blends, len(noiseless[:n]), sign)
        added = (model - noiseless[:n]) ** 2 / blends.variance[:n]
        per_source = added.sum(axis=(1, 2, 3)) / blends.n_src[:n]
        median, high, most = np.percentile(per_source, (50, 95, 100))
        yield (
            f"chi2 added {name}, by source: median {median:.2g}, 95 % {high:.2g}, most {most:.2g}"
        )


def _rendered(rows: np.ndarray, blends: Blends, n: int, sign: int) -> np.ndarray:
    # Here, not above: workers have no use for JAX.
    import jax

    from diffdeblend import BulgeDisc, PixelPSF, PointSource, Scene, Sersic, render
    from diffdeblend.grid import STANDARD

    draw = jax.jit(render, static_argnames=("shape", "quality"))
    psf, shape = PixelPSF(blends.psf), blends.images.shape[2:]
    model = np.zeros((n, *blends.images.shape[1:]))
    for row in rows:
        flux, bulge = (
            np.array([row[f"{name}_{band}"] for band in blends.bands])
            for name in ("flux", "bulge_flux")
        )
        x, y, radius = row["x"], row["y"], row["radius"]
        g, bulge_g = (row["g1"], sign * row["g2"]), (row["bulge_g1"], sign * row["bulge_g2"])
        if row["type"] == "star":
            members = [PointSource(flux, x, y)]
        elif row["type"] == "sersic":
            members = [Sersic(flux, x, y, radius, row["index"], g)]
        elif g == bulge_g:
            both = np.stack([flux - bulge, bulge])
            members = [BulgeDisc(both, x, y, radius, row["radius_ratio"], g)]
        else:
            members = [
                Sersic(flux - bulge, x, y, radius, 1.0, g),
                Sersic(bulge, x, y, radius * row["radius_ratio"], 4.0, bulge_g),
            ]
        # One by one: a scene of another make-up would compile again.
        for member in members:
            image = draw(Scene([member]), psf, shape, quality=STANDARD)
            model[row["blend"]] += np.asarray(image)
    return model


# Small helpers.


def _drawn(
    light: galsim.GSObject, side: int, scale: float, offset: tuple[float, float]
) -> np.ndarray:
    """With the pixel's response. `offset` in pixels from the middle of the stamp."""
    image = light.drawImage(nx=side, ny=side, scale=scale, offset=offset, dtype=float)
    return image.array


def _within(rng: np.random.Generator, low: float, high: float) -> float:
    """A normal number, drawn again until it lies between the two."""
    while True:
        z = rng.normal()
        if low < z < high:
            return z


def _positions(rng: np.random.Generator, n: int, stamp: Stamp) -> np.ndarray:
    middle = (stamp.side - 1) / 2
    while True:
        found = middle + stamp.spread * rng.uniform(-0.5, 0.5, (n, 2))
        apart = np.linalg.norm(found[:, None] - found[None], axis=-1)
        if (apart[np.triu_indices(n, 1)] >= stamp.separation).all():
            return found


def _to_snr(image: np.ndarray, sky: np.ndarray, snr: float) -> float:
    """The factor that brings a source alone to `snr`."""
    factor = 1.0
    # Signal to noise grows as the flux, or its root where the source outshines the sky: each step
    # at least halves the error of the logarithm.
    for _ in range(40):
        light = factor * image
        factor *= snr / np.sqrt((light**2 / (sky + np.maximum(light, 0))).sum())
    return factor


def _spread_out(draw, n: int, workers: int) -> Iterator:
    if workers == 1:
        yield from map(draw, range(n))
        return
    # Not forked: a process that has started JAX has threads.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(draw, range(n), chunksize=8)


def _settings(recipe: Recipe, n: int, seed: int) -> str:
    said = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    said |= {"recipe": type(recipe).__name__.lower(), "n": n, "seed": seed}
    # Of a path the name: where a file lies is no part of what is in it.
    return json.dumps(said, default=lambda path: path.name, sort_keys=True)


def _counts(truth: np.ndarray) -> str:
    names, counts = np.unique(truth["type"], return_counts=True)
    return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=("family", "catsim", "cosmos"))
    parser.add_argument("--n", type=int, default=512, help="number of blends")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--catalog", help="table of CatSim galaxies, for catsim")
    parser.add_argument("--cosmos", help="folder with real galaxies, for cosmos")
    parser.add_argument("--out", required=True, help="the .npz to write, or to read if it is there")
    parser.add_argument("--check", action="store_true", help="say how good the set is")
    given = parser.parse_args()
    needed = {"catsim": ("catalog",), "cosmos": ("cosmos",)}.get(given.recipe, ())
    for name in needed:
        if getattr(given, name) is None:
            parser.error(f"{given.recipe} needs --{name}")
    paths = {name: getattr(given, name) for name in needed}
    began = time.perf_counter()
    blends = cached(given.out, given.recipe, given.n, given.seed, given.workers, **paths)
    print(f"{given.out}: {len(blends.images)} blends, {time.perf_counter() - began:.1f} s")
    if given.check:
        for line in check(blends):
            print(line)


if __name__ == "__main__":
    main()
