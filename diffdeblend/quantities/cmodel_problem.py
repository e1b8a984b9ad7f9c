"""What the fit of a galaxy profile is given: the stamp, the PSF, and what is thought beforehand."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import Pair, multiply, sampled_modes, shift
from diffdeblend.grid import Grid, Quality, make_grid

# Copies of the light that come back around are taken away: see `wings`.
CMODEL_QUALITY = Quality(padding=1.35, cut=0.85, corrections=True)


@dataclass(frozen=True)
class ShapePrior:
    """What is thought of a galaxy's shape before its pixels are seen.

    - `elongation`: standard deviation of either component of the conformal shear, whose length is
        ln(a / b).
    - `large`: half-light radius, in units of the PSF's sigma, up to which all sizes are as likely.
    - `beyond`: standard deviation of ln(radius) beyond it.
    - `smallest`, `largest`: bounds of the radius, in units of the PSF's sigma and of half the
        stamp.
    - `resolution`: standard deviation of ln(radius) as it enters the error of the flux: a source
        far smaller than the PSF has no more error of its size than this.
    """

    elongation: float = 0.7
    large: float = 4.0
    beyond: float = 0.7
    smallest: float = 0.01
    largest: float = 1.0
    resolution: float = 1.0


STANDARD_PRIOR = ShapePrior()


@dataclass(frozen=True)
class PairPrior:
    """What is thought of how disc and spheroid of one galaxy lie, before its pixels are seen.

    - `ratio`, `ratio_sigma`: half-light radius of the spheroid in units of the disc's, and the
        standard deviation of its logarithm.
    - `shear_sigma`: standard deviation of either component of the difference of their shears.
    """

    ratio: float = 0.7
    ratio_sigma: float = 0.5
    shear_sigma: float = 0.4


STANDARD_PAIR = PairPrior()


@dataclass(frozen=True)
class Settings:
    """How a profile is fitted.

    - `prior`, `pair`: of one shape, and of two in one galaxy.
    - `quality`: how finely models are drawn.
    - `coarse_steps`, `fine_steps`: most steps in Fourier space and on pixels.
    - `tolerance`: stop after a step that should lower chi2 / 2 by less than this.
    """

    prior: ShapePrior = STANDARD_PRIOR
    pair: PairPrior = STANDARD_PAIR
    quality: Quality = CMODEL_QUALITY
    coarse_steps: int = 20
    fine_steps: int = 16
    tolerance: float = 1e-3


STANDARD_SETTINGS = Settings()


class Problem(NamedTuple):
    """What a fit is given, of one stamp.

    - `data`, `weight`: `(y, x)`; the weight is 0 where a pixel is not used.
    - `transfer`: the PSF, moved to the source, `(k,)` each.
    - `x`, `y`: the centre.
    - `psf_sigma`: of a Gaussian as sharp as the PSF, in pixels.
    """

    data: Float[Array, "y x"]
    weight: Float[Array, "y x"]
    transfer: Pair
    x: Float[Array, ""]
    y: Float[Array, ""]
    psf_sigma: Float[Array, ""]


def make_problem(
    image: Float[Array, "y x"],
    weight: Float[Array, "y x"],
    psf: Float[Array, "k l"],
    x: Float[Array, ""],
    y: Float[Array, ""],
    settings: Settings,
) -> Problem:
    """What does not change with the shape."""
    grid = make_grid((image.shape[0], image.shape[1]), settings.quality)
    sigma = jnp.sqrt(jnp.sum(psf) ** 2 / jnp.sum(psf * psf) / (4 * np.pi))
    psf = _within(psf, grid)
    rows, columns = (jnp.arange(n, dtype=psf.dtype) - (n - 1) // 2 for n in psf.shape)
    modes = grid.modes
    transfer = multiply(sampled_modes(psf, modes, columns, rows), shift(modes, x, y))
    transfer = jax.lax.optimization_barrier(transfer)
    data = jnp.where(weight > 0, image, 0)
    return Problem(data, weight, transfer, x, y, sigma)


def _within(psf: Array, grid: Grid) -> Array:
    """The part of a PSF's image that one period holds: farther light would come back in."""
    drop = [
        max(0, (n - period + 1) // 2)
        for n, period in zip(psf.shape, (grid.period_y, grid.period_x), strict=True)
    ]
    return psf[drop[0] : psf.shape[0] - drop[0], drop[1] : psf.shape[1] - drop[1]]


def problem_grid(problem: Problem, settings: Settings) -> Grid:
    """The pixels of the stamp and the modes that models are drawn with."""
    return make_grid((problem.data.shape[0], problem.data.shape[1]), settings.quality)


def prior_value(prior: ShapePrior, problem: Problem, numbers: Float[Array, "3"]) -> Array:
    """Minus the logarithm of the prior, but for a constant."""
    excess = jnp.maximum(numbers[0] - jnp.log(prior.large * problem.psf_sigma), 0) / prior.beyond
    return 0.5 * excess**2 + 0.5 * (numbers[1] ** 2 + numbers[2] ** 2) / prior.elongation**2


def prior_curvature(prior: ShapePrior, problem: Problem, numbers: Array) -> Float[Array, "3"]:
    """Second derivatives of the prior: it is a sum over the numbers."""
    large = numbers[0] > jnp.log(prior.large * problem.psf_sigma)
    flat = jnp.full_like(numbers[0], 1 / prior.elongation**2)
    return jnp.stack([jnp.where(large, 1 / prior.beyond**2, 0), flat, flat])


def radius_bounds(problem: Problem, prior: ShapePrior) -> tuple[Array, Array]:
    """Of ln(radius)."""
    half = 0.5 * max(problem.data.shape)
    return jnp.log(prior.smallest * problem.psf_sigma), jnp.asarray(np.log(prior.largest * half))


def at_bound(problem: Problem, prior: ShapePrior, numbers: Array) -> Array:
    """Whether the radius is as small or as large as it may be."""
    low, high = radius_bounds(problem, prior)
    return (numbers[0] <= low + 1e-4) | (numbers[0] >= high - 1e-4)
