"""Blends drawn by the profiles, the transforms and the corrections that the fit renders with."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.components import Sersic
from diffdeblend.cores import available_cores
from diffdeblend.fourier import EXACT, Pair, multiply, shift, to_image
from diffdeblend.grid import STANDARD, Grid, Quality, make_grid
from diffdeblend.psf import SampledPSF
from diffdeblend.psf.abstract import transfer
from diffdeblend.simulate.drawing import Drawing, Drawn, add_up, place_for
from diffdeblend.simulate.galsim_renderer import TIGHT, draw_source, source_profile
from diffdeblend.simulate.telescope import sampled_psf
from diffdeblend.wings import spread_wings, wrapped_wings

if TYPE_CHECKING:
    import galsim

# Light of a star beyond the highest mode, as a share of its peak, that may be left out.
_LEFT_OUT = 7e-6
# Highest modes in units of Nyquist: few, so that few programs are compiled.
_CUTS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
# Images that are drawn in one call.
_GROUPS = 16
# What the closed form and its corrections hold for: Sersic indices, and semi-major axes in stamps.
_INDEX, _LARGEST = (0.5, 6.2), 0.25


@dataclass(frozen=True)
class FourierRenderer:
    """Draws in JAX, on all cores; a second call of any number of blends compiles nothing.

    Each image is drawn as if it were alone: the same bits whatever else is drawn with it. Sources
    beyond the domain of the closed forms (Sersic index outside 0.5 to 6.2, semi-major axis above a
    quarter of the stamp) are drawn by GalSim at tight settings. Real galaxies are transformed by
    GalSim once, whatever the number of bands.

    - `quality`: how finely; by default `STANDARD` with all modes that the PSFs pass.
    """

    quality: Quality | None = None

    def __call__(self, drawing: Drawing) -> Drawn:
        """Draw.

        **Raises:** `ValueError` for a source that GalSim cannot draw, with its reason.
        """
        sources = drawing.sources
        optics = [
            _optics(psf, self.quality, drawing.pixel_scale, drawing.shape) for psf in drawing.psfs
        ]
        psf_index = np.asarray(drawing.psf_index)
        by_galsim = ~sources.real & _beyond(drawing)
        others = self._others(drawing, by_galsim, optics)
        images, isolated = place = place_for(drawing)
        if isolated is not None:
            numbers = np.arange(len(sources.blend))
            own = psf_index[sources.blend]
            self._parametric(drawing, numbers, own, ~by_galsim, optics, isolated)
            for k, image in others:
                isolated[k] = image
            add_up(isolated, images, drawing)
            return place
        self._parametric(drawing, sources.blend, psf_index, ~by_galsim, optics, images)
        for k, image in others:
            images[sources.blend[k]] += image
        return place

    def _parametric(
        self,
        drawing: Drawing,
        group: Int[np.ndarray, "source"],
        psf: Int[np.ndarray, "group"],
        chosen: Bool[np.ndarray, "source"],
        optics: "list[_Optics]",
        images: Float[np.ndarray, "group band y x"],
    ) -> None:
        """The sum of the chosen sources of each group, in order of their sources, into `images`."""
        sources = drawing.sources
        owner = sources.owner
        kept = chosen[owner] & (sources.flux[owner] * sources.share[:, None] != 0).any(axis=1)
        first = np.searchsorted(group[owner][kept], np.arange(len(psf) + 1))
        run = partial(_call, _parts(drawing, kept), first, psf, optics, images)
        _side_by_side(run, list(_chunks(first, psf)))

    def _others(
        self,
        drawing: Drawing,
        by_galsim: Bool[np.ndarray, "source"],
        optics: "list[_Optics]",
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Sources that are not sums of Sersic profiles within the domain, one by one."""
        for k in np.flatnonzero(by_galsim):
            yield int(k), draw_source(drawing, int(k), TIGHT)
        sources = drawing.sources
        for k in np.flatnonzero(sources.real):
            seen = optics[drawing.psf_index[sources.blend[k]]]
            image = _draw_spectrum(
                _spectrum(source_profile(drawing, int(k)), drawing.pixel_scale, seen.grid),
                *(jnp.asarray(v[k], jnp.float32) for v in (sources.x, sources.y, sources.flux)),
                seen.through,
                seen.grid,
            )
            yield int(k), np.asarray(image)


class _Optics(NamedTuple):
    """A PSF on the modes that it needs, `(band, k)`."""

    through: Pair
    grid: Grid
    corrections: bool


def _optics(
    psf: "tuple[galsim.GSObject, ...]",
    quality: Quality | None,
    pixel_scale: float,
    shape: tuple[int, int],
) -> _Optics:
    quality = quality_of(psf, pixel_scale) if quality is None else quality
    grid = make_grid(shape, quality)
    return _Optics(_transfer(psf, pixel_scale, grid, quality), grid, quality.corrections)


def quality_of(
    psf: "Sequence[galsim.GSObject]", pixel_scale: float, base: Quality = STANDARD
) -> Quality:
    """`base` with the highest mode that is needed for the PSFs of all bands.

    Power beyond the Nyquist frequency of the pixels folds back as in a real camera, if it is drawn.
    """
    lost = np.max([_left_out(band, pixel_scale) for band in psf], axis=0)
    enough = [cut for cut, share in zip(_CUTS, lost, strict=True) if share < _LEFT_OUT]
    return replace(base, cut=max(base.cut, enough[0] if enough else _CUTS[-1]))


@lru_cache(maxsize=256)
def _left_out(psf: "galsim.GSObject", pixel_scale: float) -> tuple[float, ...]:
    """For each cut the light of a star beyond it, as a share of its peak at worst."""
    import galsim

    highest = _CUTS[-1] * np.pi / pixel_scale
    # Two dimensions: an image of a PSF has no symmetry.
    points = 513
    step = 2 * highest / (points - 1)
    seen = galsim.Convolution([psf, galsim.Pixel(pixel_scale)], gsparams=galsim.GSParams(**TIGHT))
    power = np.abs(seen.drawKImage(nx=points, ny=points, scale=step).array)
    k = np.abs(np.arange(points) - points // 2) * step * pixel_scale / np.pi
    largest = np.maximum(k[:, None], k)
    return tuple(float(power[largest > cut].sum() / power.sum()) for cut in _CUTS)


def _beyond(drawing: Drawing) -> Bool[np.ndarray, "source"]:
    """Which sources have a part that the closed forms do not hold for."""
    sources = drawing.sources
    shear = np.hypot(sources.g1, sources.g2)
    semi_major = sources.radius * np.sqrt((1 + shear) / np.maximum(1 - shear, 1e-6))
    outside = (sources.index < _INDEX[0]) | (sources.index > _INDEX[1])
    outside |= semi_major > _LARGEST * min(drawing.shape)
    outside &= sources.radius > 0
    return np.bincount(sources.owner[outside], minlength=len(sources.blend)) > 0


class _Parts(NamedTuple):
    """Sersic profiles, one an entry, with their fluxes; a point has radius 0."""

    flux: Array | np.ndarray
    x: Array | np.ndarray
    y: Array | np.ndarray
    radius: Array | np.ndarray
    index: Array | np.ndarray
    ellipticity: Array | np.ndarray


def _parts(drawing: Drawing, kept: Bool[np.ndarray, "part"]) -> _Parts:
    """The parts that are drawn."""
    sources = drawing.sources
    owner, radius = sources.owner[kept], sources.radius[kept]
    parts = _Parts(
        flux=sources.flux[owner] * sources.share[kept, None],
        x=sources.x[owner],
        y=sources.y[owner],
        radius=radius,
        # The wings of a Gaussian of radius 0 are nothing, those of other profiles next to nothing.
        index=np.where(radius == 0, 0.5, sources.index[kept]),
        ellipticity=np.stack([sources.g1[kept], sources.g2[kept]], axis=1),
    )
    return _Parts(*(np.asarray(values, dtype=jnp.result_type(float)) for values in parts))


class _Chunk(NamedTuple):
    """Groups that are drawn in one call: of one PSF, each with up to `slots` parts."""

    numbers: Int[np.ndarray, "group"]
    slots: int


def _chunks(first: Int[np.ndarray, "group+1"], psf: Int[np.ndarray, "group"]) -> Iterator[_Chunk]:
    """All groups. A group's number of slots depends on it alone, and so do its bits."""
    counts = np.diff(first)
    slots = np.array([1 << max(int(n) - 1, 1).bit_length() for n in counts], dtype=int)
    for kind in np.unique(slots):
        for which in np.unique(psf):
            numbers = np.flatnonzero((slots == kind) & (psf == which))
            for start in range(0, len(numbers), _GROUPS):
                yield _Chunk(numbers[start : start + _GROUPS], int(kind))


def _call(
    parts: _Parts,
    first: Int[np.ndarray, "group+1"],
    psf: Int[np.ndarray, "group"],
    optics: list[_Optics],
    images: Float[np.ndarray, "group band y x"],
    chunk: _Chunk,
) -> None:
    numbers = chunk.numbers
    place = first[numbers, None] + np.arange(chunk.slots)
    dark = place >= first[numbers + 1, None]
    padding = [(0, _GROUPS - len(numbers)), (0, 0)]

    def slots(values: np.ndarray) -> np.ndarray:
        taken = np.zeros((*place.shape, *values.shape[1:]), values.dtype)
        taken[~dark] = values[place[~dark]]
        return np.pad(taken, padding + [(0, 0)] * (taken.ndim - 2))

    seen = optics[psf[numbers[0]]]
    given = _Parts(*(slots(np.asarray(values)) for values in parts))
    drawn = _draw(given, np.int32(len(numbers)), seen.through, seen.grid, seen.corrections)
    images[numbers] = np.asarray(drawn)[: len(numbers)]


@partial(jax.jit, static_argnames=("grid", "corrections"))
def _draw(
    parts: _Parts, count: Int[Array, ""], through: Pair, grid: Grid, corrections: bool
) -> Float[Array, "group band y x"]:
    """The first `count` groups, `(group, slot)`, one after the other; the others dark."""
    n_bands, dtype = through[0].shape[0], parts.flux.dtype

    def profile(*part: Any) -> Pair:
        return Sersic(*part).fourier(grid.modes)

    def far(*part: Any) -> Array:
        own = Sersic(*part)
        return wrapped_wings(lambda x, y: own.wings(x, y)[None], grid, dtype)[0]

    def one(own: _Parts) -> Array:
        # Materialised: it would be computed anew for every band. All slots in one go: a loop over
        # them takes two and a half times as long on two cores.
        re, im = jax.lax.optimization_barrier(jax.vmap(profile)(*own))
        flux = own.flux.T
        seen = multiply(
            (jnp.matmul(flux, re, precision=EXACT), jnp.matmul(flux, im, precision=EXACT)), through
        )
        image = to_image(seen, grid)
        if not corrections:
            return image
        wings = jnp.einsum("bs,sji->bji", flux, jax.vmap(far)(*own), precision=EXACT)
        return image - spread_wings(wings, grid)

    if jax.default_backend() != "cpu":
        # All at once.
        lit = jnp.arange(_GROUPS) < count
        return jnp.where(lit[:, None, None, None], jax.vmap(one)(parts), 0)

    def put(k: Array, images: Array) -> Array:
        return images.at[k].set(one(jax.tree.map(lambda values: values[k], parts)))

    images = jnp.zeros((_GROUPS, n_bands, grid.ny, grid.nx), dtype)
    return jax.lax.fori_loop(0, count, put, images)


def _side_by_side(run: Callable[[_Chunk], None], chunks: list[_Chunk]) -> None:
    """All chunks on all cores."""
    if not chunks:
        return
    double = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]

    def in_thread(chunk: _Chunk) -> None:
        # A switch that was set for the caller's thread alone would not reach this one.
        with jax.enable_x64(double):
            run(chunk)

    # The first compiles, if need be, while the others would wait for it.
    run(chunks[0])
    with ThreadPoolExecutor(available_cores()) as pool:
        # As a list, so that errors are raised.
        list(pool.map(in_thread, chunks[1:]))


@lru_cache(maxsize=64)
def _transfer(
    bands: "tuple[galsim.GSObject, ...]", pixel_scale: float, grid: Grid, quality: Quality
) -> Pair:
    """Cut to the box of one period: its wings do not come back on the other side of the stamp."""
    side = min(grid.period_y, grid.period_x)
    psf = sampled_psf(bands, pixel_scale, side, max(1, int(np.ceil(quality.cut))))
    return _to_modes(psf, grid, quality)


@partial(jax.jit, static_argnames=("grid", "quality"))
def _to_modes(psf: SampledPSF, grid: Grid, quality: Quality) -> Pair:
    return transfer(psf, grid, quality)


def _spectrum(profile: "galsim.GSObject", pixel_scale: float, grid: Grid) -> Pair:
    """The transform of a profile on the modes of a grid, by GalSim."""
    step = 2 * np.pi / (grid.period_x * pixel_scale)
    # GalSim has one step for both axes: squeezed along y, the profile has the other one.
    squeezed: Any = profile.transform(1, 0, 0, grid.period_x / grid.period_y)
    image = squeezed.drawKImage(nx=2 * grid.modes_x + 1, ny=2 * grid.modes_y + 1, scale=step).array
    image = image / image[grid.modes_y, grid.modes_x].real
    rows = np.round(grid.axis_y * grid.period_y / (2 * np.pi)).astype(int) + grid.modes_y
    values = image[rows][:, grid.modes_x :].reshape(-1)
    dtype = jnp.result_type(float)
    return jnp.asarray(values.real, dtype), jnp.asarray(values.imag, dtype)


@partial(jax.jit, static_argnames="grid")
def _draw_spectrum(
    spectrum: Pair, x: Array, y: Array, flux: Array, through: Pair, grid: Grid
) -> Float[Array, "band y x"]:
    moved = multiply(spectrum, shift(grid.modes, x, y))
    re, im = multiply((moved[0][None], moved[1][None]), through)
    return to_image((flux[:, None] * re, flux[:, None] * im), grid)
