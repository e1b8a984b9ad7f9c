"""Fields of stars and galaxies in several bands, as a coadd shows them, with their truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import QTable, Table
from jaxtyping import ArrayLike, Float

from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.psf import AbstractPSF, MoffatPSF, PSFBasis, psf_basis_from_images
from diffdeblend.psf.as_images import psf_images
from diffdeblend.simulate.catalog import WAVELENGTHS, Catalog
from diffdeblend.simulate.field_drawing import Profiles, draw_profiles
from diffdeblend.simulate.keys import DEFAULT_SEED, stream
from diffdeblend.simulate.noise import draw_noise
from diffdeblend.simulate.synthetic import star_catalog, synthetic_catalog

# Images are in nJy: AB magnitude of one of them.
_ZERO_POINT = 31.4
# Light beyond a source's stamp, in standard deviations of the noise a pixel.
_LEFT_OUT = 0.005
# Places of an image where a PSF that varies is drawn, an axis.
_NODES = 5
_TRIALS = 200
# Side on which the noise of a star is summed.
_STAMP = 65
# Columns of shapes: up to two Sersic parts a source.
_SHAPES = ("index", "radius", "g1", "g2", "share")


@dataclass(frozen=True, eq=False)
class Field:
    """A field and what it was made of.

    - `exposure`: fluxes in nJy, the true PSF and the variance that the noise has.
    - `truth`: a row a source, see `make_field`.
    - `noiseless`: the light of the sources, `(band, y, x)`.
    - `sky`: what was added besides, `(band, y, x)`.
    """

    exposure: Exposure
    truth: QTable
    noiseless: Float[np.ndarray, "band y x"]
    sky: Float[np.ndarray, "band y x"]


def make_field(
    shape: tuple[int, int] = (512, 512),
    bands: Sequence[str] = "gri",
    *,
    n_stars: int = 40,
    n_galaxies: int = 120,
    star_magnitudes: tuple[float, float] = (18.5, 25.5),
    galaxy_magnitudes: tuple[float, float] = (19.0, 26.0),
    locus_scatter: float = 0.0,
    separation: float = 0.0,
    border: float = 0.0,
    seed: int = DEFAULT_SEED,
    psf: AbstractPSF | None = None,
    fwhm: ArrayLike = 0.7,
    beta: float = 3.0,
    pixel_scale: float = 0.2,
    depth: ArrayLike = 26.0,
    sky: ArrayLike = 0.0,
    noise: str = "gaussian",
    sky_brightness: ArrayLike = 21.0,
    noise_correlation: ArrayLike | None = None,
    wcs: bool = True,
) -> Field:
    """Stars on one locus of colours and galaxies with spectra, at random places. Same for a seed.

    - `shape`: pixels, (ny, nx). `bands`: names of `simulate.catalog.WAVELENGTHS`, as "grizy".
    - `n_stars`, `n_galaxies`: how many. Stars are black bodies (`star_catalog`), `locus_scatter`
        magnitudes (rms) off their locus; galaxies are discs with bulges (`synthetic_catalog`).
    - `star_magnitudes`, `galaxy_magnitudes`: brightest and faintest, AB in i.
    - `separation`: smallest distance between two sources, in pixels, where there is room.
    - `border`: pixels at the edges without a source's centre.
    - the rest: see `draw_field`, which says what comes back. Other sources of one's own make:
        `field_sources` of catalogues, or a table, given to `draw_field`.

    **Raises:** `ValueError` for settings out of range, an unknown band, or no room for so many
    sources at this `separation`.
    """
    names = tuple(bands)
    unknown = [band for band in names if band not in WAVELENGTHS]
    if unknown or not names:
        raise ValueError(
            f"`bands` must be names among {', '.join(WAVELENGTHS)}; got {list(bands)}."
        )
    for name, n in (("n_stars", n_stars), ("n_galaxies", n_galaxies)):
        if int(n) != n or n < 0:
            raise ValueError(f"`{name}` must be a number of sources, at least 0; got {n}.")
    stars = galaxies = None
    if n_stars:
        low, high = star_magnitudes
        rng = stream(seed, "field", "stars")
        stars = star_catalog(n_stars, rng, brightest=low, faintest=high, scatter=locus_scatter)
    if n_galaxies:
        low, high = galaxy_magnitudes
        rng = stream(seed, "field", "galaxies")
        galaxies = synthetic_catalog(n_galaxies, rng, brightest=low, faintest=high)
    rng = stream(seed, "field", "places")
    x, y = _places(n_stars + n_galaxies, shape, border, separation, rng)
    given = [catalog for catalog in (stars, galaxies) if catalog is not None]
    sources = field_sources(given, x, y, names, pixel_scale)
    return draw_field(
        sources,
        shape,
        names,
        psf=psf,
        fwhm=fwhm,
        beta=beta,
        pixel_scale=pixel_scale,
        depth=depth,
        sky=sky,
        noise=noise,
        sky_brightness=sky_brightness,
        noise_correlation=noise_correlation,
        wcs=wcs,
        seed=seed,
    )


def field_sources(
    catalogs: Sequence[Catalog],
    x: ArrayLike,
    y: ArrayLike,
    bands: Sequence[str],
    pixel_scale: float,
) -> Table:
    """Rows of catalogues, one catalogue after the other, at these places, for `draw_field`.

    - `x`, `y`: in pixels, one for each row of all catalogues.
    - `pixel_scale`: arcseconds, in which catalogues give their sizes.

    **Raises:** `ValueError` for another number of places, or a band that a catalogue lacks.
    """
    x, y = (np.asarray(axis, float).reshape(-1) for axis in (x, y))
    n = sum(len(catalog.table) for catalog in catalogs)
    if len(x) != n or len(y) != n:
        raise ValueError(f"`x` and `y` need {n} places, one a row; got {len(x)} and {len(y)}.")
    table = Table({"x": x, "y": y, "is_star": np.zeros(n, bool)})
    magnitude = np.zeros((n, len(bands)))
    shapes = {name: np.zeros((n, 2)) for name in _SHAPES}
    first = 0
    for catalog in catalogs:
        rows = slice(first, first + len(catalog.table))
        lacking = [band for band in bands if f"{band}_ab" not in catalog.table.colnames]
        if lacking:
            raise ValueError(f"`bands`: a catalogue has no column for {lacking}.")
        for k, band in enumerate(bands):
            magnitude[rows, k] = np.asarray(catalog.table[f"{band}_ab"], float)
        for name in _SHAPES:
            values = getattr(catalog.parts, name)
            shapes[name][rows, : values.shape[1]] = values[:, :2]
        first = rows.stop
    shapes["radius"] /= pixel_scale
    table["is_star"] = ((shapes["radius"] == 0) | (shapes["share"] == 0)).all(axis=1)
    for k, band in enumerate(bands):
        table[f"flux_{band}"] = 10 ** (-0.4 * (magnitude[:, k] - _ZERO_POINT))
    for name, values in shapes.items():
        table[name] = values
    return table


def draw_field(
    sources: Table | Mapping[str, Any],
    shape: tuple[int, int],
    bands: Sequence[str],
    *,
    psf: AbstractPSF | None = None,
    fwhm: ArrayLike = 0.7,
    beta: float = 3.0,
    pixel_scale: float = 0.2,
    depth: ArrayLike = 26.0,
    sky: ArrayLike = 0.0,
    noise: str = "gaussian",
    sky_brightness: ArrayLike = 21.0,
    noise_correlation: ArrayLike | None = None,
    wcs: bool = True,
    seed: int = DEFAULT_SEED,
) -> Field:
    r"""The image of these sources with noise, in nJy (zero point 31.4).

    - `sources`: columns `x`, `y` (pixels) and `flux_<band>` (nJy); for galaxies Sersic `index`,
        `radius` (half-light, pixels, before shear; 0 for a star), `g1`, `g2` (reduced shear) and
        `share` (of the flux), each `(n,)` or `(n, part)`. Without them all are stars.
    - `psf`: of all bands; a `PSFBasis` varies. Default a Moffat profile of `beta`, of `fwhm`
        arcseconds, a number or one a band, the same all over the image; see `moffat_basis`.
    - `depth`: AB magnitude of a star with S/N 5 by the best filter in the middle, a number or one
        a band: it sets the noise.
    - `sky`: nJy a pixel that is left in the image: a number, one a band, or `(y, x)`.
    - `noise`: `"gaussian"`, of the sky alone; `"poisson"`, of the sources too, whose variance is
        that of a sky of `sky_brightness` (AB magnitudes per square arcsecond) with them on top; or
        `"none"`, with the variance of `"gaussian"`.
    - `noise_correlation`: as in `Exposure`.
    - `wcs`: whether the exposure has one.

    The truth has the columns given and `id` from 1, `mag_<band>`, and `snr_<band>`, the S/N of the
    best filter for a source alone in the noise of the sky.

    **Raises:** `ValueError` for settings out of range or columns that are not there.
    """
    names = tuple(bands)
    truth = _checked(sources, names)
    if noise not in ("gaussian", "poisson", "none"):
        raise ValueError(f"`noise` must be 'gaussian', 'poisson' or 'none'; got {noise!r}.")
    if psf is None:
        width = _of_bands("fwhm", fwhm, names) / pixel_scale
        psf = MoffatPSF(width, np.full(len(names), float(beta)))
    if psf.n_bands != len(names):
        raise ValueError(f"`psf` needs {len(names)} bands, {names}; got {psf.n_bands}.")
    limit = 10 ** (-0.4 * (_of_bands("depth", depth, names) - _ZERO_POINT))
    sigma = limit / 5 * np.sqrt(np.sum(psf_images(psf, _STAMP) ** 2, axis=(1, 2)))
    profiles = Profiles(
        truth["x"].astype(float),
        truth["y"].astype(float),
        np.stack([truth[f"flux_{band}"].astype(float) for band in names], axis=1),
        **{name: truth[name] for name in _SHAPES},
    )
    light, power = draw_profiles(profiles, psf, shape, _LEFT_OUT * sigma)
    variance = np.broadcast_to(sigma[:, None, None] ** 2, light.shape).astype(np.float32)
    if noise == "poisson":
        level = 10 ** (-0.4 * (_of_bands("sky_brightness", sky_brightness, names) - _ZERO_POINT))
        variance = variance * (1 + np.maximum(light, 0) / (level * pixel_scale**2)[:, None, None])
    added = np.asarray(sky, float)
    added = np.broadcast_to(added[:, None, None] if added.ndim == 1 else added, light.shape)
    image = light + added
    correlation = None
    if noise_correlation is not None:
        stamp = np.asarray(noise_correlation, float)
        correlation = np.broadcast_to(stamp, (len(names), *stamp.shape[-2:]))
    if noise != "none":
        # Gaussian: of the many counts of a coadd. Unit noise first, whatever the unit of the image.
        many = np.full(light.shape, 1e6, np.float32)
        unit = draw_noise(many, stream(seed, "field", "noise"), correlation) / 1e3
        image = image + unit * np.sqrt(variance)
    for k, band in enumerate(names):
        truth[f"mag_{band}"] = _ZERO_POINT - 2.5 * np.log10(np.maximum(profiles.flux[:, k], 1e-30))
        truth[f"snr_{band}"] = np.sqrt(power[:, k]) / sigma[k]
    exposure = make_exposure(
        image.astype(np.float32),
        variance.astype(np.float32),
        psf,
        bands=names,
        unit="nJy",
        wcs=_wcs(shape, pixel_scale) if wcs else None,
        pixel_scale=pixel_scale,
        noise_correlation=correlation,
    )
    return Field(exposure, QTable(truth), light.astype(np.float32), np.array(added, np.float32))


def moffat_basis(
    shape: tuple[int, int],
    fwhm: ArrayLike | Callable[[np.ndarray, np.ndarray], ArrayLike] = 0.7,
    beta: float = 3.0,
    *,
    n_bands: int = 1,
    pixel_scale: float = 0.2,
    size: int = 41,
) -> PSFBasis:
    """A Moffat PSF whose width varies over the image, cut to stamps.

    - `shape`: pixels of the image, (ny, nx). `size`: side of the stamps, odd.
    - `fwhm`: arcseconds: a number, one a band, or a function of u and v, which run over -1..1 along
        x and y, that returns `(n,)` or `(n, band)` at places `(n,)`.

    **Raises:** `ValueError` for widths that are not positive, or an even `size`.
    """
    if size < 3 or size % 2 == 0:
        raise ValueError(f"`size` must be odd, so that a stamp has a middle pixel; got {size}.")
    places = np.linspace(-1, 1, _NODES)
    u, v = (axis.ravel() for axis in np.meshgrid(places, places))
    width = np.asarray(fwhm(u, v) if callable(fwhm) else fwhm, float)
    width = width[:, None] if callable(fwhm) and width.ndim == 1 else width
    width = np.broadcast_to(width, (len(u), n_bands)) / pixel_scale
    # All nodes as bands of one PSF. On a wider stamp, so that little of the wings comes back.
    psf = MoffatPSF(width.reshape(-1), np.full(width.size, float(beta)))
    cut = slice(size // 2 + 1, size // 2 + 1 + size)
    stamps = psf_images(psf, 2 * size + 1)[:, cut, cut].reshape(len(u), n_bands, size, size)
    x, y = (u + 1) / 2 * (shape[1] - 1), (v + 1) / 2 * (shape[0] - 1)
    return psf_basis_from_images(stamps, x, y, shape)


def _checked(sources: Table | Mapping[str, Any], bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns of `draw_field`, shapes as `(n, part)`."""
    given = {name: np.asarray(sources[name]) for name in sources.keys()}  # noqa: SIM118
    needed = ["x", "y", *(f"flux_{band}" for band in bands)]
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise ValueError(f"`sources` needs the columns {needed}; it lacks {lacking}.")
    n = len(given["x"])
    wrong = [name for name in needed if given[name].shape != (n,)]
    if wrong or not all(np.isfinite(np.asarray(given[name], float)).all() for name in needed):
        raise ValueError(f"`sources`: {needed} must be finite numbers, one a row.")
    defaults = {"index": 1.0, "radius": 0.0, "g1": 0.0, "g2": 0.0, "share": 1.0}
    shapes = {name: np.asarray(given.get(name, np.full(n, one))) for name, one in defaults.items()}
    shapes = {name: v[:, None] if v.ndim == 1 else v for name, v in shapes.items()}
    parts = {v.shape for v in shapes.values() if v.shape[1:] != (1,)} or {(n, 1)}
    if len(parts) > 1 or any(len(v) != n for v in shapes.values()):
        raise ValueError(f"`sources`: {', '.join(_SHAPES)} must be of one shape, (n, part).")
    part = parts.pop()
    table = {"id": np.arange(1, n + 1)} | given
    for name, values in shapes.items():
        table[name] = np.array(np.broadcast_to(values, part), float)
    # A profile without light or size may say anything about its shape.
    size = np.hypot(table["g1"], table["g2"])
    if not (np.isfinite(size).all() and (size < 1).all() and (table["radius"] >= 0).all()):
        raise ValueError("`sources`: `radius` must be at least 0, and `g1`, `g2` below 1 in norm.")
    table["index"][(table["radius"] == 0) | (table["share"] == 0)] = 0.5
    if "is_star" not in given:
        lit = (table["share"] != 0) & (table["radius"] > 0)
        table["is_star"] = ~lit.any(axis=1)
    return table


def _places(
    n: int, shape: tuple[int, int], border: float, separation: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random places, none closer than `separation` to another."""
    if len(shape) != 2 or min(shape) < 1 or not 0 <= 2 * border < min(shape):
        raise ValueError(
            "`shape` must be (ny, nx) of at least one pixel, and `border` less than half of it; "
            f"got {shape} and {border}."
        )
    low, high = border - 0.5, np.array([shape[1], shape[0]]) - 0.5 - border
    places = rng.uniform(low, high, (n, 2))
    if separation > 0 and n > 1:
        for k in range(1, n):
            for _ in range(_TRIALS):
                if np.sum((places[:k] - places[k]) ** 2, axis=1).min() >= separation**2:
                    break
                places[k] = rng.uniform(low, high)
            else:
                raise ValueError(
                    f"`separation` of {separation} pixels leaves no room for {n} sources in "
                    f"{shape[0]} x {shape[1]} pixels; {k} were placed."
                )
    return places[:, 0], places[:, 1]


def _of_bands(name: str, value: ArrayLike, bands: tuple[str, ...]) -> Float[np.ndarray, "band"]:
    numbers = np.asarray(value, float)
    if numbers.shape not in ((), (len(bands),)) or not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` must be one finite number, or one for each band of {bands}.")
    return np.broadcast_to(numbers, (len(bands),)).copy()


def _wcs(shape: tuple[int, int], pixel_scale: float):
    """North up, east left, about a place near the equator."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.2]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-pixel_scale / 3600, pixel_scale / 3600]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.set()
    return wcs
