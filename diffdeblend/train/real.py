"""Galaxies as Hubble saw them, freed of its PSF, turned and stretched, in the frame of a prior."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from scipy.ndimage import map_coordinates, spline_filter

from diffdeblend.components.decoded import Frame
from diffdeblend.fourier import Pair, multiply, shift, to_image
from diffdeblend.grid import Grid
from diffdeblend.simulate.catalog import Catalog
from diffdeblend.simulate.keys import stream
from diffdeblend.train.galaxies import Galaxies, check_number
from diffdeblend.train.populations import pixel_scale_of
from diffdeblend.train.render import frame_grid
from diffdeblend.train.rows import all_before_any, check_variation, checked_rows

if TYPE_CHECKING:
    import galsim

# Galaxies in one call.
_CALL = 64
# Light within the stamp lies within an eighth of the period that its transform is sampled for,
# where a cubic spline through the samples is good to 1e-4 of it.
_PERIOD = 4.0


def draw_real(
    catalog: Catalog,
    n: int,
    frame: Frame,
    seed: int,
    *,
    rows: Int[ArrayLike, "row"] | None = None,
    dilation: float = 0.2,
    shear: float = 0.3,
    jitter: float = 0.1,
) -> Galaxies:
    """Draws real galaxies, each about equally often, none twice alike.

    - `catalog`: of real images, as of `read_cosmos(..., kind="real", taper=(5, 10))`. A taper
        farther in cuts wings, as moments are those of the core; without one, the noise around some
        faint galaxies has as much light as they have.
    - `rows`: of the catalogue to draw from, by default all real ones: hold others back for tests.
    - `dilation`: sizes are multiplied by up to 1 + `dilation`, or divided by it, log-uniform.
    - `shear`: greatest reduced shear, in a random direction, its modulus uniform. Turns and
        reflections are random.
    - `jitter`: scatter of the centre about the middle pixel, in pixels.

    Hubble's noise makes some pixels negative, which are set to 0. Of made-up galaxies with the
    noise and the stamps of real ones this is the least wrong of what was tried: 6 % too much of the
    light within 3 pixels of 0.2 arcsec, as Hubble's stamps cut the wings off. It is 8 % with the
    nearest positive image of the same light, and 10 % with a taper from 3 to 6 radii.

    `origin` is the row; features are `row`, `dilation`, and `negative`, the light in negative
    pixels that was there.

    **Raises:** `ValueError` for a row that is no real image, a frame without a pixel scale, or a
    shear of 1 and more.
    """
    check_number(n)
    scale = pixel_scale_of(frame)
    check_variation(dilation, shear, jitter)
    chosen, real = _rows(catalog, rows), catalog.real
    assert real is not None
    rng = stream(seed, "real")
    # Sorted, so that each is transformed once.
    own = np.sort(all_before_any(n, len(chosen), rng))
    turn, sheared = rng.uniform(0, 2 * np.pi, n), rng.uniform(0, shear, n)
    direction, flipped = rng.uniform(0, 2 * np.pi, n), rng.random(n) < 0.5
    size = np.exp(rng.uniform(-1, 1, n) * np.log1p(dilation))
    x, y = rng.normal(0, jitter, (2, n))
    matrices = _matrices(turn, sheared, direction, flipped, size)
    grid = frame_grid(frame)
    modes = _Modes.of(grid, frame, scale)
    images = np.empty((n, frame.size, frame.size))
    current, spectrum = -1, None
    for start in range(0, n, _CALL):
        block = range(start, min(n, start + _CALL))
        re, im = (np.zeros((_CALL, modes.total), np.float32) for _ in range(2))
        for k in block:
            if own[k] != current:
                current = own[k]
                galaxy = real.galaxy(int(chosen[current]))
                spectrum = _Spectrum.of(galaxy, modes, frame.size * scale)
            assert spectrum is not None
            re[k - start, modes.kept], im[k - start, modes.kept] = spectrum.at(matrices[k], modes)
        at = [np.zeros(_CALL, np.float32) for _ in range(2)]
        for values, given in zip(at, (x, y), strict=True):
            values[: len(block)] = given[block.start : block.stop]
        drawn = _draw((re, im), *at, np.float32(frame.psf_sigma), grid)
        images[block.start : block.stop] = np.asarray(drawn)[: len(block)]
    inside = images.sum(axis=(1, 2))
    positive = np.maximum(images, 0)
    drawn_rows = chosen[own]
    return Galaxies(
        (positive / positive.sum(axis=(1, 2), keepdims=True)).astype(np.float32),
        1 - inside,
        frame,
        f"{len(chosen)} real galaxies",
        {
            "row": drawn_rows.astype(float),
            "dilation": size,
            "negative": -np.minimum(images, 0).sum(axis=(1, 2)),
        },
        drawn_rows,
    )


class _Modes:
    """The modes of a grid that the frame's Gaussian leaves anything of, in radians an arcsecond."""

    def __init__(self, kx: np.ndarray, ky: np.ndarray, kept: np.ndarray):
        self.kx, self.ky, self.kept, self.total = kx, ky, kept, len(kept)

    @classmethod
    def of(cls, grid: Grid, frame: Frame, scale: float) -> "_Modes":
        kx = np.tile(grid.axis_x, 2 * grid.modes_y + 1)
        ky = np.repeat(grid.axis_y, grid.modes_x + 1)
        kept = np.hypot(kx, ky) * frame.psf_sigma <= np.sqrt(-2 * np.log(1e-5))
        return cls(kx[kept] / scale, ky[kept] / scale, kept)


class _Spectrum:
    """The transform of a galaxy, as splines through samples of its real and imaginary part."""

    def __init__(self, re: np.ndarray, im: np.ndarray, step: float):
        self.re, self.im, self.step = re, im, step

    @classmethod
    def of(cls, galaxy: "galsim.GSObject", modes: _Modes, side: float) -> "_Spectrum":
        step = 2 * np.pi / (_PERIOD * side)
        # Room for the largest stretch that is drawn, and for the ends of the splines.
        half = int(np.ceil(1.8 * np.hypot(modes.kx, modes.ky).max() / step)) + 4
        drawn: Any = galaxy.drawKImage(nx=2 * half + 1, ny=2 * half + 1, scale=step)
        values = drawn.array / drawn.array[half, half].real
        return cls(spline_filter(values.real), spline_filter(values.imag), step)

    def at(self, matrix: np.ndarray, modes: _Modes) -> tuple[np.ndarray, np.ndarray]:
        """Of the galaxy whose places x became `matrix` x: F(A^T k)."""
        kx = matrix[0, 0] * modes.kx + matrix[1, 0] * modes.ky
        ky = matrix[0, 1] * modes.kx + matrix[1, 1] * modes.ky
        half = self.re.shape[0] // 2
        place = np.stack([ky / self.step + half, kx / self.step + half])
        re, im = (
            map_coordinates(part, place, prefilter=False, mode="nearest")
            for part in (self.re, self.im)
        )
        return re, im


@partial(jax.jit, static_argnames="grid")
def _draw(
    spectrum: Pair, x: Array, y: Array, psf_sigma: Array, grid: Grid
) -> Float[Array, "galaxy size size"]:
    modes, middle = grid.modes, (grid.nx - 1) / 2
    seen = jnp.exp(-0.5 * psf_sigma**2 * (modes.kx**2 + modes.ky**2))
    re, im = multiply(spectrum, shift(modes, x + middle, y + middle))
    return to_image((re * seen, im * seen), grid)


def _rows(catalog: Catalog, rows: Int[ArrayLike, "row"] | None) -> Int[np.ndarray, "row"]:
    if catalog.real is None or not catalog.is_real.any():
        raise ValueError("`catalog` has no real images; `draw_catalog` draws shapes.")
    if rows is None:
        return np.flatnonzero(catalog.is_real)
    chosen = checked_rows(rows, len(catalog))
    if not catalog.is_real[chosen].all():
        raise ValueError(f"`rows` must be of real images; {chosen[~catalog.is_real[chosen]]} not.")
    return chosen


def _matrices(
    turn: np.ndarray,
    sheared: np.ndarray,
    direction: np.ndarray,
    flipped: np.ndarray,
    size: np.ndarray,
) -> Float[np.ndarray, "galaxy 2 2"]:
    """Where places go: reflected, turned, sheared with their area kept, dilated."""
    g1, g2 = sheared * np.cos(direction), sheared * np.sin(direction)
    norm = size / np.sqrt(1 - g1**2 - g2**2)
    stretch = norm * np.array([[1 + g1, g2], [g2, 1 - g1]])
    cos, sin = np.cos(turn), np.sin(turn)
    side = np.where(flipped, -1.0, 1.0)
    rotation = np.array([[cos, -sin * side], [sin, cos * side]])
    return np.einsum("ijn,jkn->nik", stretch, rotation)
