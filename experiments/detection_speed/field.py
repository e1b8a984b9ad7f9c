"""A crowded field with its truth: 40,000 stars and galaxies on 4096 x 4096 pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

# Three round Gaussians for an exponential disc: weights, and widths in half-light radii.
_WEIGHTS = np.array([0.25, 0.5, 0.25])
_WIDTHS = np.array([0.35, 0.8, 1.5])


@dataclass(frozen=True)
class Field:
    """What is drawn.

    - `size`: pixels along x and y; `n_sources`: 30 % of them galaxies.
    - `fwhm`, `beta`: of the PSF, a Moffat profile, in pixels.
    - `faintest`, `brightest`: total counts; numbers fall as n(> f) ~ 1 / f.
    - `read_noise`: in counts, beside that of the photons; the gain is 1.
    """

    size: int = 4096
    n_sources: int = 40_000
    seed: int = 7
    fwhm: float = 3.0
    beta: float = 3.5
    faintest: float = 1500.0
    brightest: float = 3e5
    read_noise: float = 5.0


def draw_field(field: Field = Field()) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image, float32, and its truth: `x`, `y`, `flux` and the `sky` without noise."""
    rng = np.random.default_rng(field.seed)
    n, size = field.n_sources, field.size
    share = rng.random(n)
    flux = 1 / (1 / field.faintest + (1 / field.brightest - 1 / field.faintest) * share)
    x, y = rng.uniform(0, size, n), rng.uniform(0, size, n)
    galaxy = rng.random(n) < 0.3
    radius = np.clip(rng.lognormal(np.log(2.5), 0.4, n), 0.8, 10)
    ratio, angle = rng.uniform(0.3, 1, n), rng.uniform(0, np.pi, n)
    image = np.zeros((size, size))
    for k in range(n):
        if galaxy[k]:
            reach = int(6 * (1.5 * radius[k] + field.fwhm / 2.3548)) + 4
        else:
            reach = 14 if flux[k] < 2e4 else 30
        x0, y0 = int(x[k]), int(y[k])
        columns = np.arange(max(0, x0 - reach), min(size, x0 + reach + 1))
        rows = np.arange(max(0, y0 - reach), min(size, y0 + reach + 1))
        dx, dy = columns - x[k], (rows - y[k])[:, None]
        if galaxy[k]:
            light = _disc(dx, dy, radius[k], ratio[k], angle[k], field.fwhm / 2.3548)
        else:
            light = _star(dx, dy, field.fwhm, field.beta)
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += flux[k] * light
    v, u = np.mgrid[:size, :size] / size
    sky = 1000 + 40 * u + 25 * v + 15 * np.sin(2 * np.pi * u) * np.cos(2 * np.pi * v)
    return _noisy(image + sky, field.read_noise, rng), {"x": x, "y": y, "flux": flux, "sky": sky}


def _star(dx: np.ndarray, dy: np.ndarray, fwhm: float, beta: float) -> np.ndarray:
    """A Moffat profile of unit flux."""
    squared = (fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))) ** 2
    return (beta - 1) / (np.pi * squared) * (1 + (dx**2 + dy**2) / squared) ** -beta


def _disc(
    dx: np.ndarray, dy: np.ndarray, radius: float, ratio: float, angle: float, sigma: float
) -> np.ndarray:
    """An inclined disc through a Gaussian PSF, of unit flux."""
    cos, sin = np.cos(angle), np.sin(angle)
    total = np.zeros(np.broadcast_shapes(dx.shape, dy.shape))
    for weight, width in zip(_WEIGHTS, _WIDTHS * radius, strict=True):
        long, short = width**2, (width * ratio) ** 2
        xx = long * cos**2 + short * sin**2 + sigma**2
        yy = long * sin**2 + short * cos**2 + sigma**2
        xy = (long - short) * cos * sin
        area = xx * yy - xy**2
        power = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / area
        total += weight * np.exp(-0.5 * power) / (2 * np.pi * np.sqrt(area))
    return total


def _noisy(expected: np.ndarray, read_noise: float, rng: Generator) -> np.ndarray:
    return (rng.poisson(expected) + rng.normal(0, read_noise, expected.shape)).astype(np.float32)
