"""From ragged blends to arrays of a few static shapes. Host side, numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.batch.blend import Blend
from diffdeblend.components import Kind
from diffdeblend.deblend.start import BULGE_SHEAR
from diffdeblend.psf import AbstractPSF

# Numbers of sources that programs are compiled for.
SOURCES = (2, 4, 8, 12, 16, 24, 32, 48, 64)
# Tasks for each of which a PSF takes little memory.
_FEW = 32


def padded_to(value: int, ladder: Sequence[int]) -> int:
    """The least rung that is not below a value; multiples of the last one beyond."""
    for rung in ladder:
        if value <= rung:
            return rung
    return ladder[-1] * -(-value // ladder[-1])


@dataclass(frozen=True, eq=False)
class Guess:
    """Where a fit of some sources starts; one number a source, shapes two.

    - `home_x`, `home_y`, `home_radius`: where the prior expects them.
    - `flux`: of the disc (or the whole) and of the bulge, 0 where it is not known.
    - `sky`: coefficients of the background.
    """

    kind: Int[np.ndarray, "source"]
    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    radius: Float[np.ndarray, "source"]
    index: Float[np.ndarray, "source"]
    radius_ratio: Float[np.ndarray, "source"]
    shear_ratio: Float[np.ndarray, "source"]
    ellipticity: Float[np.ndarray, "source 2"]
    home_x: Float[np.ndarray, "source"]
    home_y: Float[np.ndarray, "source"]
    home_radius: Float[np.ndarray, "source"]
    flux: Float[np.ndarray, "source 2 band"]
    sky: Float[np.ndarray, "band term"]

    def shifted(self, x: float, y: float) -> "Guess":
        """The same on a stamp whose first pixel is at (x, y)."""
        return replace(
            self,
            x=self.x - x,
            y=self.y - y,
            home_x=self.home_x - x,
            home_y=self.home_y - y,
        )


def first_guess(
    positions: Float[np.ndarray, "source 2"],
    radius: Float[np.ndarray, "source"],
    home_radius: Float[np.ndarray, "source"],
    kind: Int[np.ndarray, "source"],
    index: float,
    sky: tuple[int, int],
) -> Guess:
    """Round sources at positions (x, y), with half-light radii to start from and to expect.

    - `sky`: number of bands, and of coefficients that a sky has in each.
    """
    n = len(positions)
    x, y = positions[:, 0].astype(float), positions[:, 1].astype(float)
    return Guess(
        kind=kind,
        x=x,
        y=y,
        radius=radius,
        index=np.full(n, index),
        radius_ratio=np.full(n, 0.4),
        shear_ratio=np.full(n, BULGE_SHEAR),
        ellipticity=np.zeros((n, 2)),
        home_x=x,
        home_y=y,
        home_radius=home_radius,
        flux=np.zeros((n, 2, sky[0])),
        sky=np.zeros(sky),
    )


class Bucket(NamedTuple):
    """What one program is compiled for."""

    size: int
    sources: int
    slots: int


@dataclass(frozen=True, eq=False)
class Task:
    """One fit to be made.

    - `blend`: pixels in units in which the noise is about 1; `unit`: of each band.
    - `sizes`: heights and widths of stamps that programs are compiled for.
    - `position_error`: standard deviation of the positions given, in pixels.
    - `fine`: whether to pad as little as can be: faster, and more programs to compile.
    - `rungs`: numbers of sources that programs are compiled for, where they are not the usual ones.
    - `double`: whether there is room for a bulge in every source, needed or not.
    - `many_psfs`: whether the tasks that it is fitted with have more than two PSFs between them.
    - `scale`: width of the pixels, in those of the stamp that the caller gave.
    - `exact`: whether the matrix is made by pixels from the first step.
    - `tolerance`: in units of the method's.
    """

    blend: Blend
    unit: Float[np.ndarray, "band"]
    guess: Guess
    sizes: tuple[int, ...]
    position_error: float = 0.5
    fine: bool = True
    rungs: tuple[int, ...] | None = None
    double: bool = False
    many_psfs: bool = False
    scale: int = 1
    exact: bool = False
    tolerance: float = 1.0

    @property
    def bucket(self) -> Bucket:
        """The least bucket that holds the task.

        It depends on the task alone, so that no result depends on which others there are; on how
        many there are, by `fine`, which only pads differently.
        """
        n = len(self.guess.kind)
        rungs = self.rungs or (SOURCES if self.fine else SOURCES[1:])
        alone = n == 1 and len(self.sizes) == 1 and self.rungs is None
        sources = 1 if alone else padded_to(n, rungs)
        # One source has always two: the program of all trials of its kind.
        double = self.double or sources == 1 or (self.guess.kind == Kind.BULGE_DISC).any()
        slots = 2 * sources if double else sources
        return Bucket(padded_to(max(self.blend.shape), self.sizes), sources, slots)


class Packed(NamedTuple):
    """Tasks of one bucket side by side, every array with a leading axis of the tasks.

    Numpy arrays on the host, JAX arrays in a program; there also one task, without that axis.

    - `data`, `weight`: `(n, band, y, x)`. `psf`: the place of the PSF in their stack, `(n,)`.
    - `kind`, `active`: `(n, source)`.
    - `slot_owner`, `slot_part`: as in `AnyStack`, `(n, slot)`.
    - `start`: x, y, radius, index, radius_ratio, shear_ratio, g1 and g2, `(n, source, 8)`.
    - `home`: x, y and radius that the prior expects, `(n, source, 3)`.
    - `position_error`: how closely it expects the positions, in pixels, `(n,)`.
    - `flux`, `sky`: to start from, `(n, source, 2, band)` and `(n, band, term)`.
    - `exact`, `tolerance`: as in `Task`, `(n,)`.
    - `noise`: correlation of the noise, `(n, band, h, w)`, or None, which is another program.
    - `unit`, `scale`: of fluxes and of pixels, as in `Task`, `(n, band)` and `(n,)`.
    """

    data: Any
    weight: Any
    psf: Any
    kind: Any
    active: Any
    slot_owner: Any
    slot_part: Any
    start: Any
    home: Any
    position_error: Any
    flux: Any
    sky: Any
    exact: Any
    tolerance: Any
    noise: Any = None
    unit: Any = None
    scale: Any = None


def pack_tasks(tasks: Sequence[Task], bucket: Bucket, capacity: int) -> tuple[Packed, AbstractPSF]:
    """The tasks side by side, and their different PSFs stacked; tasks of one `form`.

    What is beyond the last task, source or pixel is padding: not active, without weight.
    """
    n_bands, dtype = tasks[0].blend.n_bands, tasks[0].blend.data.dtype
    shape = (capacity, n_bands, bucket.size, bucket.size)
    data, weight = np.zeros(shape, dtype), np.zeros(shape, dtype)
    active = np.zeros((capacity, bucket.sources), bool)
    kind = np.full((capacity, bucket.sources), int(Kind.SERSIC), np.int32)
    owner = np.full((capacity, bucket.slots), bucket.sources, np.int32)
    part = np.zeros((capacity, bucket.slots), np.int32)
    # Valid values everywhere: padding must not make NaN.
    start = np.tile(np.array([0, 0, 1, 1, 0.4, 0.7, 0, 0], dtype), (capacity, bucket.sources, 1))
    home = np.tile(np.array([0, 0, 1], dtype), (capacity, bucket.sources, 1))
    flux = np.zeros((capacity, bucket.sources, 2, n_bands), dtype)
    sky = np.zeros((capacity, *tasks[0].guess.sky.shape), dtype)
    position_error, tolerance = np.ones(capacity, dtype), np.ones(capacity, dtype)
    exact = np.zeros(capacity, bool)
    unit, scale = np.ones((capacity, n_bands), dtype), np.ones(capacity, dtype)
    places: dict[int, int] = {}
    psfs: list[AbstractPSF] = []
    index = np.zeros(capacity, np.int32)
    for i, task in enumerate(tasks):
        blend, guess = task.blend, task.guess
        ny, nx = blend.shape
        data[i, :, :ny, :nx] = blend.data
        weight[i, :, :ny, :nx] = blend.weight
        n = len(guess.kind)
        active[i, :n] = True
        kind[i, :n] = guess.kind
        parts = np.where(guess.kind == Kind.BULGE_DISC, 2, 1)
        lit = int(parts.sum())
        owner[i, :lit] = np.repeat(np.arange(n), parts)
        part[i, :lit] = np.concatenate([np.arange(p) for p in parts])
        places_and_sizes = (guess.x, guess.y, guess.radius, guess.index)
        ratios = (guess.radius_ratio, guess.shear_ratio)
        start[i, :n, :6] = np.stack([*places_and_sizes, *ratios], axis=1)
        start[i, :n, 6:] = guess.ellipticity
        home[i, :n] = np.stack([guess.home_x, guess.home_y, guess.home_radius], axis=1)
        flux[i, :n] = guess.flux
        sky[i] = guess.sky
        position_error[i], tolerance[i] = task.position_error, task.tolerance
        exact[i], unit[i], scale[i] = task.exact, task.unit, task.scale
        if id(blend.psf) not in places:
            places[id(blend.psf)] = len(psfs)
            psfs.append(blend.psf)
        index[i] = places[id(blend.psf)]
    # Few numbers to compile for: two; or as many as tasks, where these are few.
    room = max(2, 1 << (len(psfs) - 1).bit_length())
    if (room > 2 or tasks[0].many_psfs) and capacity <= _FEW:
        room = max(2, capacity)
    filled = [*psfs, *[psfs[0]] * (room - len(psfs))]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(v) for v in leaves]), *filled)
    starts = (owner, part, start, home, position_error, flux, sky)
    stamps = [t.blend.noise_correlation for t in tasks if t.blend.noise_correlation is not None]
    noise = None
    if stamps:
        noise = np.stack([*stamps, *[stamps[0]] * (capacity - len(stamps))]).astype(dtype)
    packed = Packed(
        *(data, weight, index, kind, active), *starts, exact, tolerance, noise, unit, scale
    )
    return packed, stacked


def form(blend: Blend) -> tuple:
    """What two blends must share to be stacked: make of the PSF, size of the noise's stamp."""
    leaves, structure = jax.tree.flatten(blend.psf)
    noise = blend.noise_correlation
    return (
        structure,
        tuple(np.shape(leaf) for leaf in leaves),
        None if noise is None else noise.shape,
    )
