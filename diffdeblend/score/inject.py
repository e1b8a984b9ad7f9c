"""Sources of a catalogue drawn into a real image, as its own camera would have seen them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from jaxtyping import Array, Float

from diffdeblend.components import Sersic, Stack
from diffdeblend.exposure import Exposure
from diffdeblend.grid import STANDARD, Quality
from diffdeblend.header import Header, Numbers
from diffdeblend.positions import check_finite
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene, render
from diffdeblend.score.measured import add_column, catalog_of
from diffdeblend.score.measurers.images import pixels_of
from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.noise import draw_noise
from diffdeblend.simulate.sampling import Placed
from diffdeblend.simulate.sources import Sources, lay_out
from diffdeblend.sky import pixel_positions

NOISES = ("galaxy", "none")
# Sersic indices of which the closed form holds, and the longest semi-major axis in windows.
_INDEX, _LARGEST = (0.5, 6.2), 0.25
# Sources are drawn on windows of a larger image, of so many pixels along each axis.
_WINDOW = 256
# As far as an exposure lets the power of its noise fall below zero.
_DIP = 0.2
# Profiles that are drawn at once, at least: another number is compiled for.
_PARTS = 4


@dataclass(frozen=True, eq=False)
class Injected:
    """An exposure with sources that were not there.

    - `exposure`: as it was, with light added in all bands, and its variance where it has noise.
        Pixels that reach the header's saturation are put on the plane `"SAT"`.
    - `light`: what was added but for its noise, in the unit of the image.
    - `truth`: a row a source: `source` (0, 1, ...), `row` of the catalogue, `is_star`, `x` and `y`
        (pixels), `ra` and `dec` (offsets from the middle in arcsec, where the sky is known),
        `radius` (half-light, arcsec), `used` (whether its central pixel is in use in all bands),
        `flux_{band}`, `magnitude_{band}`, and `snr_{band}`: the best a filter of its true shape
        could reach, were noise independent, neighbours known and only pixels in use.
    """

    exposure: Exposure
    light: Float[np.ndarray, "band y x"]
    truth: Table


class CameraBand(NamedTuple):
    """A band, as catalogues ask for it."""

    name: str


@dataclass(frozen=True)
class Camera:
    """An exposure in the place of a survey: what magnitudes and arcseconds are in its pixels.

    - `name`: catalogues have their magnitudes in columns of this name, `{name}_{band}`, or in
        `{band}_ab`.
    - `band_names`, `zero_points`: AB magnitude of one unit of the image.
    - `pixel_scale`: arcsec.
    """

    name: str
    band_names: tuple[str, ...]
    zero_points: tuple[float, ...]
    pixel_scale: float

    @property
    def bands(self) -> tuple[CameraBand, ...]:
        """The bands by name."""
        return tuple(map(CameraBand, self.band_names))

    def electrons(
        self, magnitude: Float[np.ndarray, "*n band"], floor: bool = False
    ) -> Float[np.ndarray, "*n band"]:
        """Flux in the unit of the image, which need not be electrons."""
        flux = 10 ** (-0.4 * (np.asarray(magnitude, float) - np.array(self.zero_points)))
        return np.floor(flux) if floor else flux


def camera_of(header: Header, name: str = "") -> Camera:
    """The camera of an exposure.

    **Raises:** `ValueError` where the header lacks zero points, or the size of a pixel.
    """
    if header.zero_points is None:
        raise ValueError(
            "`exposure` has no zero points, so that magnitudes mean nothing in it; give "
            "`make_exposure` or `read` the `zero_points`."
        )
    if header.pixel_scale is None:
        raise ValueError(
            "`exposure` has neither a WCS nor a `pixel_scale`, so that arcseconds mean nothing in "
            "it; give one to `make_exposure`."
        )
    return Camera(name, header.bands, header.zero_points, header.pixel_scale)


def place_pixels(exposure: Exposure, row: Numbers, x: Numbers, y: Numbers, **others: Any) -> Placed:
    """Sources at positions in pixels of an exposure, as `Placed` has them.

    - `row`: of the catalogue. `others`: fields of `Placed`, such as `dim` or `turn`.

    **Raises:** `ValueError` where the size of a pixel is not known, and as `Placed.of`.
    """
    scale = exposure.header.pixel_scale
    if scale is None:
        raise ValueError("`exposure` has neither a WCS nor a `pixel_scale`; give it one.")
    ny, nx = exposure.shape
    x, y = (np.atleast_1d(np.asarray(v, float)) for v in (x, y))
    return Placed.of(row, (x - (nx - 1) / 2) * scale, (y - (ny - 1) / 2) * scale, **others)


def place_sky(exposure: Exposure, row: Numbers, ra: Numbers, dec: Numbers, **others: Any) -> Placed:
    """Sources at right ascensions and declinations (ICRS, degrees), by the WCS of an exposure.

    **Raises:** `ValueError` without a WCS, for what it cannot show, and as `Placed.of`.
    """
    x, y = pixel_positions(exposure.header, np.atleast_1d(ra), np.atleast_1d(dec))
    check_finite(np.stack([x, y], axis=1))
    return place_pixels(exposure, row, x, y, **others)


def photon_gain(exposure: Exposure) -> Float[np.ndarray, "band"]:
    """Electrons per unit of flux, from how the variance rises with the light of the image.

    The slope of a line through all pixels in use, which needs some bright sources and a variance
    that knows of their photons. A coadd has another gain in each band, and no header tells.

    **Raises:** `ValueError` for a band whose variance does not rise.
    """
    seen = pixels_of(exposure)
    gains = []
    for k, band in enumerate(seen.bands):
        used = np.ones(seen.image[k].shape, bool) if seen.bad is None else ~seen.bad[k]
        light, noise = (v[k][used].astype(float) for v in (seen.image, seen.variance))
        # Deviations from the means: sums of squares of the values themselves would cancel.
        light = light - light.mean()
        rise, power = float(light @ (noise - noise.mean())), float(light @ light)
        if not rise > 1e-9 * power * np.median(noise) / max(np.ptp(light), 1e-30):
            raise ValueError(
                f"the variance of `exposure` does not rise with its light in band {band!r}, so "
                "that it says nothing of photons; give the `gain`."
            )
        gains.append(power / rise)
    return np.array(gains)


def inject(
    exposure: Exposure,
    catalog: Catalog,
    placed: Placed,
    *,
    noise: str = "galaxy",
    gain: Numbers | None = None,
    rng: np.random.Generator | None = None,
    survey: str = "",
    quality: Quality = STANDARD,
) -> Injected:
    """Add sources to an exposure: through its own PSF, at its pixels, with its zero points.

    Flux is that of the catalogue's magnitudes; of the light beyond the PSF's stamp, which has unit
    sum, nothing is known. Directions are those of the pixels: `g1` stretches along x.

    - `catalog`: with magnitudes `{survey}_{band}` or `{band}_ab` for the bands of the exposure.
    - `placed`: which rows, and where, in arcseconds from the middle of the image; see
        `place_pixels` and `place_sky`.
    - `noise`: `"galaxy"`: the injected light has the noise of its photons, drawn and added to the
        variance, and correlated as the exposure says; `"none"`: neither.
    - `gain`: electrons per unit of flux, one number or one a band; None: that of the header. See
        `photon_gain`.
    - `rng`: for the noise.

    **Raises:** `ValueError` for an exposure without zero points or size of a pixel, rows or
    magnitudes that the catalogue lacks, real galaxies, a Sersic index outside 0.5 to 6.2, a centre
    outside the image, or noise without a gain or `rng`.
    """
    if noise not in NOISES:
        raise ValueError(f"`noise` must be one of {', '.join(NOISES)}; got {noise!r}.")
    camera: Any = camera_of(exposure.header, survey)
    magnitudes = catalog.magnitudes(camera)
    sources = lay_out(catalog, [placed], camera, exposure.shape, magnitudes=magnitudes)
    _check(sources, exposure.shape)
    electrons = None
    if noise == "galaxy":
        if rng is None:
            raise ValueError("`rng` is missing; noise needs a numpy Generator to be drawn from.")
        electrons = _gains(gain, exposure)
    seen = pixels_of(exposure)
    ny, nx = exposure.shape
    light = np.zeros((exposure.n_bands, ny, nx))
    squares = np.zeros(sources.flux.shape)
    for k in range(len(sources.row)):
        image, where = _draw_one(sources, k, exposure.psf, exposure.shape, quality)
        light[(slice(None), *where)] += image
        weight = 1 / seen.variance[(slice(None), *where)]
        if seen.bad is not None:
            weight = np.where(seen.bad[(slice(None), *where)], 0, weight)
        squares[k] = (weight * image.astype(float) ** 2).sum(axis=(1, 2))
    truth = _truth(exposure, catalog, sources, magnitudes[sources.row] + placed.dim[:, None])
    for k, band in enumerate(exposure.bands):
        about = "Signal-to-noise ratio of a filter of the true shape"
        add_column(truth, f"snr_{band}", np.sqrt(squares[:, k]), about)
    return Injected(_with_light(exposure, light, electrons, rng), light, truth)


def _with_light(
    exposure: Exposure,
    light: np.ndarray,
    gain: np.ndarray | None,
    rng: np.random.Generator | None,
) -> Exposure:
    """The exposure with light, and its noise if there is a gain."""
    image, variance = np.asarray(exposure.image), np.asarray(exposure.variance)
    added = light
    if gain is not None:
        assert rng is not None
        # Interpolation of the PSF makes light a trifle negative in places.
        rate = np.maximum(light * gain[:, None, None], 0)
        correlation = None
        if exposure.noise_correlation is not None:
            stamp = np.asarray(exposure.noise_correlation, float)
            middle = stamp[:, stamp.shape[1] // 2, stamp.shape[2] // 2]
            correlation = stamp / middle[:, None, None]
        added = light + draw_noise(rate, rng, correlation, dip=_DIP) / gain[:, None, None]
        # What says that a pixel is not used goes on saying so.
        more = np.where(variance > 0, rate / gain[:, None, None] ** 2, 0)
        variance = (variance + more).astype(variance.dtype)
    image = (image + added).astype(image.dtype)
    lit = Exposure(
        jnp.asarray(image),
        jnp.asarray(variance),
        exposure.mask,
        exposure.psf,
        exposure.header,
        exposure.noise_correlation,
    )
    saturation = exposure.header.saturation
    if saturation is not None:
        full = (image >= saturation) & (light != 0)
        if full.any():
            return lit.with_mask("SAT", full)
    return lit


def _gains(gain: Numbers | None, exposure: Exposure) -> np.ndarray:
    """Electrons per unit of flux in each band."""
    given = exposure.header.gain if gain is None else gain
    if given is None:
        raise ValueError(
            "`gain` is missing, and the exposure has none: give electrons per unit of flux, as "
            "`photon_gain(exposure)` measures them, or `noise='none'`."
        )
    values = np.asarray(given, float)
    if values.shape not in ((), (exposure.n_bands,)) or not (
        np.isfinite(values).all() and (values > 0).all()
    ):
        raise ValueError(
            f"`gain` needs one positive number, or one for each of the bands {exposure.bands}; "
            f"got {given}."
        )
    return np.full(exposure.n_bands, values)


def _check(sources: Sources, shape: tuple[int, int]) -> None:
    """**Raises:** `ValueError` for what cannot be drawn."""
    if sources.real.any():
        raise ValueError(
            f"`placed` asks for real galaxies, rows {sources.row[sources.real][:5].tolist()}; only "
            "sums of Sersic profiles and points can be injected."
        )
    ny, nx = shape
    out = (np.abs(sources.x - (nx - 1) / 2) > nx / 2) | (np.abs(sources.y - (ny - 1) / 2) > ny / 2)
    if out.any():
        k = int(np.argmax(out))
        raise ValueError(
            f"`placed` has a centre outside the image of {ny} x {nx} pixels: x = "
            f"{sources.x[k]:.2f}, y = {sources.y[k]:.2f} pixels."
        )
    galaxy = sources.radius > 0
    wrong = galaxy & ((sources.index < _INDEX[0]) | (sources.index > _INDEX[1]))
    if wrong.any():
        raise ValueError(
            f"`catalog` has Sersic indices outside {_INDEX[0]} to {_INDEX[1]}, which cannot be "
            f"injected: {np.unique(sources.index[wrong])[:5].tolist()}."
        )


def _draw_one(
    sources: Sources, number: int, psf: AbstractPSF, shape: tuple[int, int], quality: Quality
) -> tuple[Float[np.ndarray, "band y x"], tuple[slice, slice]]:
    """The light of one source, and the pixels of the image that it is of."""
    rows = slice(int(sources.first[number]), int(sources.first[number + 1]))
    radius = sources.radius[rows]
    shear = np.hypot(sources.g1[rows], sources.g2[rows])
    semi_major = radius * np.sqrt((1 + shear) / np.maximum(1 - shear, 1e-6))
    needed = float(semi_major.max(initial=0)) / _LARGEST
    # Of a few sizes, as each is compiled for; larger than the image where the source asks for it.
    side = 1 << int(np.ceil(np.log2(max(needed, 1))))
    centre = float(sources.y[number]), float(sources.x[number])
    windows, pixels = [], []
    for n, c in zip(shape, centre, strict=True):
        width = min(n, _WINDOW)
        width = max(width, side) if needed > width else width
        low, high = sorted((0, n - width))
        start = int(np.clip(round(c) - width // 2, low, high))
        windows.append((start, width))
        pixels.append(slice(max(start, 0), min(start + width, n)))
    (y0, height), (x0, width) = windows
    count = rows.stop - rows.start
    size = max(_PARTS, 1 << max(count - 1, 0).bit_length())

    def padded(values: np.ndarray) -> Array:
        # Dark points fill up.
        more = [(0, size - count)] + [(0, 0)] * (values.ndim - 1)
        return jnp.asarray(np.pad(values, more), jnp.result_type(float))

    image = _draw(
        padded(sources.share[rows, None] * sources.flux[number]),
        padded(np.full(count, centre[1] - x0)),
        padded(np.full(count, centre[0] - y0)),
        padded(radius),
        # The wings of a Gaussian of radius 0 are nothing.
        padded(np.where(radius == 0, 0.5, sources.index[rows])),
        padded(np.stack([sources.g1[rows], sources.g2[rows]], axis=1)),
        psf,
        (height, width),
        quality,
    )
    cut = (slice(p.start - s, p.stop - s) for p, s in zip(pixels, (y0, x0), strict=True))
    return np.asarray(image)[(slice(None), *cut)], (pixels[0], pixels[1])


@eqx.filter_jit
def _draw(
    flux: Float[Array, "part band"],
    x: Float[Array, "part"],
    y: Float[Array, "part"],
    radius: Float[Array, "part"],
    index: Float[Array, "part"],
    ellipticity: Float[Array, "part 2"],
    psf: AbstractPSF,
    shape: tuple[int, int],
    quality: Quality,
) -> Float[Array, "band y x"]:
    # Padding has index 0, which no profile has.
    index = jnp.maximum(index, _INDEX[0])
    members = jax.vmap(Sersic)(flux, x, y, radius, index, ellipticity)
    stack = Stack(members, jnp.ones(len(x), bool), jnp.arange(len(x), dtype=jnp.int32))
    return render(Scene([stack]), psf, shape, quality=quality)


def _truth(
    exposure: Exposure,
    catalog: Catalog,
    sources: Sources,
    magnitudes: Float[np.ndarray, "source band"],
) -> Table:
    """What was injected, but for its signal."""
    rows, table = sources.row, catalog.table
    places = np.stack([sources.x, sources.y], axis=1)
    made: Any = Table()
    made["source"], made["row"] = np.arange(len(rows)), rows
    made["is_star"] = np.asarray(table["is_star"])[rows]
    where: Any = catalog_of(places, exposure.header, exposure.shape)
    for name in where.colnames:
        made[name] = where[name]
    add_column(made, "radius", np.asarray(table["size"], float)[rows], "Half-light, arcsec")
    bad = pixels_of(exposure).bad
    y, x = (np.clip(np.round(v).astype(int), 0, n - 1) for v, n in _pairs(sources, exposure.shape))
    used = np.ones(len(rows), bool) if bad is None else ~bad[:, y, x].any(axis=0)
    add_column(made, "used", used, "Whether the central pixel is in use in all bands")
    for k, band in enumerate(exposure.bands):
        add_column(made, f"flux_{band}", sources.flux[:, k], "Total flux, unit of the image")
        add_column(made, f"magnitude_{band}", magnitudes[:, k], "AB magnitude")
    return made


def _pairs(sources: Sources, shape: tuple[int, int]) -> Sequence[tuple[np.ndarray, int]]:
    return (sources.y, shape[0]), (sources.x, shape[1])
