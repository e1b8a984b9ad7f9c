"""Pixel and frequency coordinates of a stamp, and how finely a scene is drawn on it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Quality:
    """How finely a scene is drawn.

    - `padding`: period of the Fourier series in units of the stamp.
    - `cut`: highest mode in units of the pixel grid's Nyquist frequency; above 1, power beyond
        Nyquist is drawn too and folds back as in a real camera.
    - `corrections`: keep the PSF's wings and the wings of extended profiles from wrapping around.
    - `matrix`: highest mode of the exact Gauss-Newton matrix, in units of Nyquist; below `cut`
        where the PSF passes next to nothing beyond. At 0.5 or less its images are drawn at every
        second pixel, with weights averaged over 2 x 2 pixels: exact where these are even.
    """

    padding: float
    cut: float
    corrections: bool
    matrix: float = np.inf


# For fits, several times faster than the other two: 1e-3 of a compact source's light (7e-3 where it
# has wings, at n = 6 and 2 pixels radius), and several percent in the corner of a stamp.
FIT = Quality(padding=1.2, cut=0.78, corrections=False)
# 2e-4 of the peak, if the PSF has little power beyond Nyquist (a Kolmogorov PSF 3.5 pixels wide;
# 3e-4 for a star at 2.9 pixels), and if the source is not near an edge (7e-4 in a corner).
STANDARD = Quality(padding=1.6, cut=1.0, corrections=True)


def fine(alias: float = 2.0) -> Quality:
    """1.5e-5 of the peak, 5e-5 in a corner of the stamp.

    - `alias`: highest frequency that the PSF passes, in units of Nyquist.

    2 does for ground-based surveys; a diffraction-limited PSF at one pixel a resolution element
    (Roman F106, Euclid VIS without charge diffusion) needs 3.
    """
    return Quality(padding=2.1, cut=alias, corrections=True)


class Modes(NamedTuple):
    """Frequencies in radians a pixel: one entry a mode, and the axes whose product they are.

    Profiles are computed on the flat lists: on CPU, XLA turns code with two axes that are then
    joined into scalar code, five times slower.

    - `kx`, `ky`: of each mode, rows of constant `ky` one after the other.
    - `axis_x`, `axis_y`: the values along each axis.
    """

    kx: Float[Array, "k"]
    ky: Float[Array, "k"]
    axis_x: Float[Array, "column"]
    axis_y: Float[Array, "row"]


def product_modes(axis_x: Float[Array, "column"], axis_y: Float[Array, "row"]) -> Modes:
    """All pairs of two lists of frequencies."""
    return Modes(jnp.tile(axis_x, axis_y.size), jnp.repeat(axis_y, axis_x.size), axis_x, axis_y)


@dataclass(frozen=True)
class Grid:
    """The pixels of a stamp and the modes of the Fourier series that is drawn on it.

    A real image needs only half of the plane: kx is never negative. ky is ordered
    0, 1, -1, 2, -2, ... so that the low frequencies are a slice. The period is odd, so that no
    mode sits on the Nyquist frequency.

    - `ny`, `nx`: pixels of the stamp.
    - `period_y`, `period_x`: period of the series, in pixels; odd.
    - `modes_y`, `modes_x`: highest mode on each axis.
    """

    ny: int
    nx: int
    period_y: int
    period_x: int
    modes_y: int
    modes_x: int

    @property
    def modes(self) -> "Modes":
        """The modes of the series."""
        return product_modes(_strong(self.axis_x), _strong(self.axis_y))

    @property
    def axis_x(self) -> Float[np.ndarray, "column"]:
        """Frequencies along x, in double precision on the host."""
        return 2 * np.pi / self.period_x * np.arange(self.modes_x + 1)

    @property
    def axis_y(self) -> Float[np.ndarray, "row"]:
        """Frequencies along y, in double precision on the host."""
        return 2 * np.pi / self.period_y * _alternating(self.modes_y)

    @property
    def x(self) -> Float[Array, "x"]:
        """Pixel centres along x."""
        return _strong(np.arange(self.nx))

    @property
    def y(self) -> Float[Array, "y"]:
        """Pixel centres along y."""
        return _strong(np.arange(self.ny))

    @property
    def row_weight(self) -> Float[Array, "column"]:
        """How often each frequency along x counts in a sum over the whole plane, over the area."""
        twice = np.full(self.modes_x + 1, 2.0)
        twice[0] = 1.0
        return _strong(twice / (self.period_y * self.period_x))

    @property
    def mode_weight(self) -> Float[Array, "k"]:
        """`row_weight` for each mode."""
        return jnp.tile(self.row_weight, 2 * self.modes_y + 1)

    def low(self, share: float) -> "Grid":
        """The same stamp with only the lowest `share` of the modes on each axis."""
        return Grid(
            self.ny,
            self.nx,
            self.period_y,
            self.period_x,
            max(1, round(self.modes_y * share)),
            max(1, round(self.modes_x * share)),
        )


def make_grid(shape: tuple[int, int], quality: Quality) -> Grid:
    """The grid of a stamp of `shape` (ny, nx) at a quality.

    **Raises:** `ValueError` if `shape` is not two positive numbers.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"`shape` must be (ny, nx) of at least one pixel; got {shape}.")
    ny, nx = (int(n) for n in shape)
    periods = [_odd(max(quality.padding * n, n + 6)) for n in (ny, nx)]
    modes = [int(quality.cut * (p - 1) / 2) for p in periods]
    return Grid(ny, nx, periods[0], periods[1], modes[0], modes[1])


def _odd(length: float) -> int:
    return 2 * int(np.ceil((length - 1) / 2)) + 1


def _alternating(highest: int) -> np.ndarray:
    """0, 1, -1, 2, -2, ..., highest, -highest."""
    k = np.arange(1, highest + 1)
    return np.concatenate([[0], np.stack([k, -k], axis=1).reshape(-1)])


def _strong(values: np.ndarray) -> Array:
    return jnp.asarray(values, dtype=jnp.result_type(float))
