"""Sources of many sizes drawn into one large image, each on a stamp as wide as its light."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.components import Sersic, Stack
from diffdeblend.components.sersic import law_wings
from diffdeblend.fourier import Pair
from diffdeblend.grid import Grid, Quality, make_grid
from diffdeblend.psf import AbstractPSF, PixelPSF, PSFBasis
from diffdeblend.psf.abstract import transfer
from diffdeblend.psf.as_images import psf_images
from diffdeblend.scene import Scene, sum_slots

# Sides of stamps, and how many sources one call draws.
_SIDES = (48, 128, 384)
_TOGETHER = 16
# All modes up to Nyquist; periods wide enough that nothing of the profiles comes back.
_QUALITY = Quality(padding=1.6, cut=1.0, corrections=True)
# Sersic indices that the closed form holds for.
_INDEX = (0.5, 6.2)


class Profiles(NamedTuple):
    """Sources as sums of up to so many Sersic profiles about one centre; a point has radius 0.

    - `x`, `y`: centres in pixels, `(source,)`. `flux`: `(source, band)`.
    - `index`, `radius` (pixels), `g1`, `g2`, `share`: `(source, part)`, as in `Parts`.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    index: np.ndarray
    radius: np.ndarray
    g1: np.ndarray
    g2: np.ndarray
    share: np.ndarray


class Drawn(NamedTuple):
    """The noiseless image, `(band, y, x)`, and the power of each source, `(source, band)`.

    The power is the sum of the squares of its pixels: the square of the S/N of the best filter in
    noise of unit variance.
    """

    image: np.ndarray
    power: np.ndarray


def draw_profiles(
    profiles: Profiles,
    psf: AbstractPSF,
    shape: tuple[int, int],
    faintest: Float[np.ndarray, "band"],
) -> Drawn:
    """The image of all sources through the PSF at each place. Host side; jitted a stamp size.

    - `psf`: the same all over the image, or a `PSFBasis`.
    - `shape`: pixels of the image, (ny, nx). What falls outside of it is lost.
    - `faintest`: surface brightness a pixel in each band that may be left out beyond a stamp.

    **Raises:** `ValueError` for a Sersic index that the closed form does not hold for.
    """
    lit = (profiles.share != 0) & (profiles.radius > 0)
    wrong = lit & ((profiles.index < _INDEX[0]) | (profiles.index > _INDEX[1]))
    if wrong.any():
        raise ValueError(
            f"`index` must be between {_INDEX[0]} and {_INDEX[1]}; got "
            f"{profiles.index[wrong].min():g} to {profiles.index[wrong].max():g}."
        )
    image = np.zeros((psf.n_bands, *shape))
    power = np.zeros(profiles.flux.shape)
    side = _sides(profiles, psf, faintest)
    for one in np.unique(side):
        rows = np.flatnonzero(side == one)
        grid = make_grid((int(one), int(one)), _QUALITY)
        through = None if isinstance(psf, PSFBasis) else _transfer(psf, grid, _QUALITY)
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            _add(image, power, _stamps(profiles, some, psf, through, grid), profiles, some)
    return Drawn(image, power)


def _stamps(
    profiles: Profiles,
    rows: Int[np.ndarray, "some"],
    psf: AbstractPSF,
    through: Pair | None,
    grid: Grid,
) -> Float[np.ndarray, "some band y x"]:
    """Each source on its stamp, its pixel in the middle of it."""
    # Repeats of the last one fill up: the same program for any number.
    full = np.resize(rows, _TOGETHER)
    full[len(rows) :] = rows[-1]
    x, y = profiles.x[full], profiles.y[full]
    middle = grid.ny // 2
    near = Profiles(
        x - np.floor(x + 0.5) + middle,
        y - np.floor(y + 0.5) + middle,
        *(values[full] for values in profiles[2:]),
    )
    near = near._replace(index=np.clip(near.index, *_INDEX))
    near = Profiles(*(np.asarray(value, jnp.result_type(float)) for value in near))
    count = np.int32(len(rows))
    if through is None:
        assert isinstance(psf, PSFBasis)
        drawn = _draw(near, psf.images_at(x, y), count, grid)
    else:
        drawn = _draw(near, through, count, grid)
    return np.asarray(drawn)[: len(rows)]


@partial(jax.jit, static_argnames="grid")
def _draw(
    profiles: Profiles, seen: Pair | Array, count: Int[Array, ""], grid: Grid
) -> Float[Array, "some band y x"]:
    """The first `count`, one by one; `seen` is a transfer function, or a PSF image for each."""

    def part(own: Profiles, flux: Array) -> Sersic:
        shear = jnp.stack([own.g1, own.g2])
        return Sersic(flux * own.share, own.x, own.y, own.radius, own.index, shear)

    def put(k: Array, images: Array) -> Array:
        own = jax.tree.map(lambda values: values[k], profiles)
        n_parts = own.share.shape[0]
        spread = own._replace(x=jnp.full(n_parts, own.x), y=jnp.full(n_parts, own.y), flux=None)
        members = jax.vmap(part, in_axes=(0, None))(spread, own.flux)
        scene = Scene([Stack(members, jnp.ones(n_parts, bool), jnp.arange(n_parts))])
        through = seen if isinstance(seen, tuple) else transfer(PixelPSF(seen[k]), grid, _QUALITY)
        return images.at[k].set(sum_slots(scene, through, grid, _QUALITY))

    empty = jnp.zeros((_TOGETHER, profiles.flux.shape[1], grid.ny, grid.nx), profiles.flux.dtype)
    return jax.lax.fori_loop(0, count, put, empty)


_transfer = eqx.filter_jit(transfer)


def _add(
    image: np.ndarray,
    power: np.ndarray,
    stamps: np.ndarray,
    profiles: Profiles,
    rows: np.ndarray,
) -> None:
    """Stamps into the image where they overlap it."""
    side, (ny, nx) = stamps.shape[-1], image.shape[1:]
    power[rows] = np.sum(stamps.astype(float) ** 2, axis=(2, 3))
    x0 = np.floor(profiles.x[rows] + 0.5).astype(int) - side // 2
    y0 = np.floor(profiles.y[rows] + 0.5).astype(int) - side // 2
    for stamp, x, y in zip(stamps, x0, y0, strict=True):
        left, right, low, high = max(x, 0), min(x + side, nx), max(y, 0), min(y + side, ny)
        if left < right and low < high:
            image[:, low:high, left:right] += stamp[:, low - y : high - y, left - x : right - x]


def _sides(profiles: Profiles, psf: AbstractPSF, faintest: np.ndarray) -> Int[np.ndarray, "source"]:
    """The smallest stamp beyond which each source is fainter than asked for."""
    halo = _halo(psf)
    wanted = np.full(len(profiles.x), _SIDES[-1])
    for side in _SIDES[-2::-1]:
        reach = side // 2 - 1
        point = halo[:, reach] if reach < halo.shape[1] else np.zeros(len(halo))
        # Along the major axis, where the light goes farthest; what the PSF adds there is small.
        stretch = (1 + np.hypot(profiles.g1, profiles.g2)) / np.sqrt(
            1 - profiles.g1**2 - profiles.g2**2
        )
        law = law_wings(
            jnp.asarray((reach / stretch) ** 2),
            jnp.asarray(profiles.radius),
            jnp.asarray(np.clip(profiles.index, *_INDEX)),
        )
        law = np.where(profiles.radius > 0, np.asarray(law), 0)
        brightness = np.abs(profiles.flux) * (point + np.sum(profiles.share * law, axis=1)[:, None])
        wanted[(brightness < faintest).all(axis=1)] = side
    return wanted


def _halo(psf: AbstractPSF) -> Float[np.ndarray, "band r"]:
    """The largest value of the PSF at each distance or beyond."""
    image = psf_images(psf.middle if isinstance(psf, PSFBasis) else psf, _SIDES[-1] + 1)
    side = image.shape[-1]
    y, x = (np.arange(n) - n // 2 for n in image.shape[-2:])
    distance = np.maximum(np.abs(y)[:, None], np.abs(x)).reshape(-1)
    rings = np.zeros((len(image), side // 2 + 1))
    for own, one in zip(rings, image, strict=True):
        np.maximum.at(own, np.minimum(distance, side // 2), np.abs(one).reshape(-1))
    return np.maximum.accumulate(rings[:, ::-1], axis=1)[:, ::-1]
