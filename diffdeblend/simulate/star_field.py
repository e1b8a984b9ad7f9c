"""Fields of stars with a known PSF, the same or not all over the image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from astropy.table import Table
from jaxtyping import ArrayLike, Float
from scipy.special import erf

from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.psf import PSFBasis, psf_basis_from_images
from diffdeblend.psf.varying import draw_points
from diffdeblend.simulate.keys import DEFAULT_SEED, stream
from diffdeblend.simulate.noise import draw_noise
from diffdeblend.widths import FWHM_PER_SIGMA

# A number, or a function of the place, u and v from -1 to 1 along x and y.
Varying = float | Callable[[np.ndarray, np.ndarray], ArrayLike]

_NODES, _FINE, _FEWEST = 9, 5, 16
_draw = jax.jit(draw_points, static_argnames="shape")


@dataclass(frozen=True, eq=False)
class StarField:
    """An image of stars, and what it was made of.

    - `exposure`: without the sky, with the variance that the noise has and the true PSF.
    - `truth`: a row a star: `x`, `y` in pixels, `flux`, `snr`, that of the best filter on the sky.
    - `sky`: what was taken off, `(y, x)`. `noiseless`: the light of the stars, `(y, x)`.
    """

    exposure: Exposure
    truth: Table
    sky: Float[np.ndarray, "y x"]
    noiseless: Float[np.ndarray, "y x"]

    @property
    def raw(self) -> Float[np.ndarray, "y x"]:
        """The image as a camera gives it, with its sky."""
        return np.asarray(self.exposure.image[0]) + self.sky.astype(np.float32)


def star_field(
    shape: tuple[int, int] = (512, 512),
    n: int = 80,
    *,
    psf: PSFBasis | None = None,
    snr: tuple[float, float] = (20.0, 1000.0),
    sky: ArrayLike = 100.0,
    noise: str = "poisson",
    border: float = 10.0,
    seed: int = DEFAULT_SEED,
) -> StarField:
    """Stars at random places, their S/N evenly spread in its logarithm. The same for a seed.

    - `shape`: pixels, (ny, nx). `n`: stars.
    - `psf`: default `elliptical_psf(shape)`.
    - `snr`: smallest and largest, of a star on the sky alone.
    - `sky`: electrons a pixel: a number, or `(ny, nx)`.
    - `noise`: `"poisson"`, of stars and sky, or `"gaussian"`, of the sky alone.
    - `border`: pixels at the edges without a star.

    **Raises:** `ValueError` for settings out of range, or a `psf` for another shape.
    """
    psf = elliptical_psf(shape) if psf is None else psf
    if psf.shape != tuple(shape) or psf.n_bands != 1:
        raise ValueError(
            f"`psf` must be of one band, for an image of {tuple(shape)} pixels; got "
            f"{psf.n_bands} and {psf.shape}."
        )
    if n < 0 or not 0 < snr[0] <= snr[1] or not 0 <= 2 * border < min(shape) - 1:
        raise ValueError(
            "`n` must be at least 0, `snr` two positive numbers in order, and `border` less than "
            f"half of the image; got {n}, {snr} and {border}."
        )
    level = np.broadcast_to(np.asarray(sky, float), shape)
    if not (level > 0).all():
        raise ValueError(f"`sky` must be positive in every pixel; the smallest is {level.min()}.")
    if noise not in ("poisson", "gaussian"):
        raise ValueError(f"`noise` must be 'poisson' or 'gaussian'; got {noise!r}.")
    rng = stream(seed, "star field")
    x = rng.uniform(border, shape[1] - 1 - border, n)
    y = rng.uniform(border, shape[0] - 1 - border, n)
    wanted = np.exp(rng.uniform(np.log(snr[0]), np.log(snr[1]), n))
    # One program for many numbers of stars: those beyond n have no light.
    full = max(_FEWEST, 1 << max(n - 1, 0).bit_length())
    padded_x, padded_y = (np.pad(axis, (0, full - n)) for axis in (x, y))
    # The best filter's S/N of unit flux: root of the sum of the squared PSF over the variance.
    stamps = np.asarray(psf.images_at(padded_x, padded_y), float)[:n, 0]
    near = level[np.rint(y).astype(int), np.rint(x).astype(int)]
    flux = wanted * np.sqrt(near / np.sum(stamps**2, axis=(1, 2)))
    padded = np.pad(flux, (0, full - n))
    light = np.asarray(_draw(psf, padded_x, padded_y, padded, shape=tuple(shape)), float)
    variance = level + (np.maximum(light[0], 0) if noise == "poisson" else 0)
    if noise == "poisson":
        drawn = draw_noise(variance[None].astype(np.float32), rng)[0]
    else:
        drawn = rng.standard_normal(shape) * np.sqrt(level)
    exposure = make_exposure((light[0] + drawn).astype(np.float32), variance, psf, gain=1.0)
    truth = Table({"x": x, "y": y, "flux": flux, "snr": wanted})
    return StarField(exposure, truth, level.copy(), light[0])


def elliptical_psf(
    shape: tuple[int, int],
    fwhm_x: Varying = 3.5,
    fwhm_y: Varying = 3.5,
    angle: Varying = 0.0,
    *,
    size: int | None = None,
) -> PSFBasis:
    """An elliptical Gaussian seen through square pixels, turned, and varying where asked.

    - `shape`: pixels of the image, (ny, nx).
    - `fwhm_x`, `fwhm_y`: full widths along its axes, in pixels, before the pixel's response.
    - `angle`: from the x axis of the image to that of the ellipse, counter-clockwise, in degrees.
        Each of the three is a number, or a function of u and v, which run over -1..1 along x and y.
    - `size`: side of the stamps, odd; default 5 of the largest width.

    **Raises:** `ValueError` for widths that are not positive, or an even `size`.
    """
    places = np.linspace(-1, 1, _NODES)
    u, v = (axis.ravel() for axis in np.meshgrid(places, places))
    values: list[Any] = [
        np.broadcast_to(np.asarray(one(u, v) if callable(one) else one, float), u.shape)
        for one in (fwhm_x, fwhm_y, angle)
    ]
    widths = np.stack(values[:2])
    if not (np.isfinite(widths).all() and (widths > 0).all() and np.isfinite(values[2]).all()):
        raise ValueError("`fwhm_x`, `fwhm_y` and `angle` must be finite, the widths positive.")
    side = int(np.ceil(5 * widths.max())) | 1 if size is None else size
    if side < 1 or side % 2 == 0:
        raise ValueError(f"`size` must be odd, so that a stamp has a middle pixel; got {size}.")
    constant = not any(callable(one) for one in (fwhm_x, fwhm_y, angle))
    if constant:
        u, v = u[:1], v[:1]
    stamps = [
        elliptical_stamp(a, b, turn, side)
        for a, b, turn in zip(*(value[: len(u)] for value in values), strict=True)
    ]
    x, y = (u + 1) / 2 * (shape[1] - 1), (v + 1) / 2 * (shape[0] - 1)
    return psf_basis_from_images(np.stack(stamps), x, y, shape)


def elliptical_stamp(
    fwhm_x: float, fwhm_y: float, angle: float, size: int
) -> Float[np.ndarray, "size size"]:
    """One such PSF: exact along y within a pixel, five points along x."""
    a, b = fwhm_x / FWHM_PER_SIGMA, fwhm_y / FWHM_PER_SIGMA
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    xx = (a * cosine) ** 2 + (b * sine) ** 2
    yy = (a * sine) ** 2 + (b * cosine) ** 2
    xy = (a**2 - b**2) * sine * cosine
    middle = np.arange(size) - size // 2
    nodes, weights = np.polynomial.legendre.leggauss(_FINE)
    x = middle[:, None] + nodes / 2
    # Given x, y is a Gaussian around (xy / xx) x with what variance is left.
    spread = np.sqrt(2 * (yy - xy**2 / xx))
    low = middle[:, None, None] - 0.5 - xy / xx * x
    strip = 0.5 * (erf((low + 1) / spread) - erf(low / spread))
    density = np.exp(-0.5 * x**2 / xx) / np.sqrt(2 * np.pi * xx)
    return np.sum(strip * density * weights / 2, axis=2)
