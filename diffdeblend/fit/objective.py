"""What a fit minimises: half of chi2 minus the log-prior, exact in every pixel."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.prior import Prior
from diffdeblend.fit.unknowns import Unknowns, scene_of
from diffdeblend.fourier import Pair, multiply, shift
from diffdeblend.grid import Grid, Quality, make_grid
from diffdeblend.psf.abstract import AbstractPSF, transfer
from diffdeblend.scene import Scene, sum_slots


class Problem(eqx.Module):
    """Data and settings of one fit. All but the grid are arrays: other values compile nothing.

    - `data`, `weight`: pixel values and inverse variances, 0 where a pixel is not used.
    - `psf`: transfer function of the PSF on the modes of the grid.
    - `free`: 1 for each number that is free, 0 for each that is held.
    - `prior`: a function of the scene, or None.
    - `noise`: autocovariance of the noise in units of the variance, `(band, h, w)`, which enters
        the errors alone; None where pixels are independent.
    """

    data: Float[Array, "band y x"]
    weight: Float[Array, "band y x"]
    psf: Pair
    free: Unknowns
    prior: Prior | None
    grid: Grid = eqx.field(static=True)
    quality: Quality = eqx.field(static=True)
    noise: Float[Array, "band h w"] | None = None


def make_problem(
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    free: Unknowns,
    prior: Prior | None,
    quality: Quality,
    noise: Float[Array, "band h w"] | None = None,
) -> Problem:
    """The problem of fitting these pixels; jit-compatible."""
    grid = make_grid((data.shape[1], data.shape[2]), quality)
    return Problem(data, weight, transfer(psf, grid, quality), free, prior, grid, quality, noise)


def model_image(scene: Scene, problem: Problem) -> Float[Array, "band y x"]:
    """Sources and sky on the pixels of the problem."""
    grid = problem.grid
    through = multiply(problem.psf, shift(grid.modes, scene.dx, scene.dy))
    image = sum_slots(scene, through, grid, problem.quality)
    if scene.background is not None:
        image = image + scene.background(grid)
    return image


def chi2_by_band(unknowns: Unknowns, template: Scene, problem: Problem) -> Float[Array, "band"]:
    """Sum over the used pixels of each band of squared residual over variance."""
    difference = problem.data - model_image(scene_of(unknowns, template), problem)
    return jnp.sum(problem.weight * difference**2, axis=(1, 2))


def objective(unknowns: Unknowns, template: Scene, problem: Problem) -> Float[Array, ""]:
    """Half of chi2 minus the log-prior."""
    value = 0.5 * jnp.sum(chi2_by_band(unknowns, template, problem))
    if problem.prior is not None:
        value = value - problem.prior(scene_of(unknowns, template))
    return value
