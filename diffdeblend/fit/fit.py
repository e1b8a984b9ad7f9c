"""Fit a scene to an exposure: one call, any method, the same result."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.fit.first_order import FirstOrder, first_order
from diffdeblend.fit.levenberg_marquardt import (
    LevenbergMarquardt,
    Solution,
    levenberg_marquardt,
)
from diffdeblend.fit.objective import Problem, chi2_by_band, make_problem
from diffdeblend.fit.plug_and_play import PlugAndPlay, plug_and_play
from diffdeblend.fit.prior import Prior, shape_prior
from diffdeblend.fit.proximal import ProximalGradient, proximal_gradient
from diffdeblend.fit.uncertainty import Covariance, covariance, errors, total_flux_errors
from diffdeblend.fit.unknowns import Unknowns, free_numbers, scene_of
from diffdeblend.grid import FIT, Quality
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene

Method = LevenbergMarquardt | FirstOrder | ProximalGradient | PlugAndPlay


class Fit(eqx.Module):
    """What a fit found.

    - `scene`: the fitted scene.
    - `errors`: a scene with one standard deviation of each number in the number's place.
    - `flux_error`: one standard deviation of each source's total flux, `(source, band)`, stack by
        stack with padding.
    - `covariance`: of all numbers, marginal over all others, the sky included.
    - `chi2`: sum over used pixels of squared residual over variance, in each band.
    - `n_pixels`: used pixels in each band.
    - `history`: objective (chi2/2 minus log-prior) after each step, NaN after the last.
    - `steps`, `converged`: how many steps, and whether the method's own criterion was met.
    - `finite`: whether every number and error is finite.
    """

    scene: Scene
    errors: Scene
    flux_error: Float[Array, "source band"]
    covariance: Covariance
    chi2: Float[Array, "band"]
    n_pixels: Int[Array, "band"]
    history: Float[Array, "step"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]
    finite: Bool[Array, ""]

    @property
    def reduced_chi2(self) -> Float[Array, ""]:
        """chi2 over the number of used pixels of all bands."""
        return jnp.sum(self.chi2) / jnp.maximum(jnp.sum(self.n_pixels), 1)


class _Default:
    """Stands for the default prior, which is made around the start."""


DEFAULT = _Default()


def fit(
    scene: Scene,
    exposure: Exposure,
    *,
    method: Method | optax.GradientTransformation | None = None,
    prior: Prior | _Default | None = DEFAULT,
    free: Callable[[Scene], Any] | Unknowns | None = None,
    quality: Quality = FIT,
) -> Fit:
    """Fit a scene to an exposure, from the scene's values as start.

    - `method`: `LevenbergMarquardt()` (the default), `FirstOrder(optimizer)` or a bare Optax
        transformation, `ProximalGradient()` for free pixels, `PlugAndPlay(prior)` for these with
        a denoiser.
    - `prior`: a function from a scene to a log-probability, None for none; by default the weak
        `ShapePrior` around the start.
    - `free`: picks the fields to vary, as in `free=lambda s: (s.sources[0].members.flux, s.dx)`;
        by default all but the shifts of the bands. Or 0 and 1 for every number, as
        `diffdeblend.fit.unknowns.free_numbers` gives them.
    - `quality`: how finely the scene is drawn in the fit.

    Compiles once for each padded shape and method. Errors come from the Gauss-Newton matrix with
    the weight of every pixel; where the exposure tells how its noise is correlated, they are those
    of the same estimate under that noise.

    **Raises:** `ValueError` if bands disagree or `free` picks no field.
    """
    if scene.n_bands != exposure.n_bands:
        raise ValueError(f"`scene` has {scene.n_bands} bands, the exposure {exposure.n_bands}.")
    if method is None:
        method = LevenbergMarquardt()
    elif not isinstance(method, Method):
        method = FirstOrder(method)
    actual = shape_prior(scene) if isinstance(prior, _Default) else prior
    return fit_pixels(
        scene,
        exposure.data,
        exposure.weight,
        exposure.psf,
        free if isinstance(free, Unknowns) else free_numbers(scene, free),
        actual,
        method,
        quality,
        exposure.noise_correlation,
    )


@eqx.filter_jit
def fit_pixels(
    scene: Scene,
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    free: Unknowns,
    prior: Prior | None,
    method: Method,
    quality: Quality,
    noise: Float[Array, "band h w"] | None = None,
) -> Fit:
    """The compiled part of `fit`: from pixels and a start to a result with errors."""
    problem = make_problem(data, weight, psf, free, prior, quality, noise)
    return assess(solve(scene, problem, method), scene, problem)


def solve(scene: Scene, problem: Problem, method: Method) -> Solution:
    """Run one method; pure."""
    if isinstance(method, LevenbergMarquardt):
        return levenberg_marquardt(method, scene, problem, with_normal=True)
    if isinstance(method, ProximalGradient):
        return proximal_gradient(method, scene, problem)
    if isinstance(method, PlugAndPlay):
        return plug_and_play(method, scene, problem)
    return first_order(method, scene, problem)


def assess(solution: Solution, template: Scene, problem: Problem) -> Fit:
    """Covariance, errors and chi2 of a solution; pure."""
    scene = scene_of(solution.unknowns, template)
    found = covariance(solution.unknowns, template, problem, solution.normal)
    sigma = errors(found, solution.unknowns, scene)
    flux_error = total_flux_errors(found, scene)
    chi2 = solution.chi2
    if chi2 is None:
        chi2 = chi2_by_band(solution.unknowns, template, problem)
    numbers = [*jax.tree.leaves(eqx.filter(scene, eqx.is_inexact_array)), flux_error]
    return Fit(
        scene=scene,
        errors=sigma,
        flux_error=flux_error,
        covariance=found,
        chi2=chi2,
        n_pixels=jnp.sum(problem.weight > 0, axis=(1, 2)),
        history=solution.history,
        steps=solution.steps,
        converged=solution.converged,
        finite=jnp.all(jnp.stack([jnp.all(jnp.isfinite(n)) for n in numbers])),
    )
