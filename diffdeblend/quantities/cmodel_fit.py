r"""The fit of one galaxy profile to one stamp: ellipse and flux, centre held.

The flux is eliminated, three numbers are left. First the fit is made in Fourier space, where no
image is drawn: there the profile is real, and all that is known of data and PSF are two real
numbers a mode. Then pixels have the last word, with masks and edges as they are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT, multiply_conjugate, to_modes
from diffdeblend.quantities.cmodel_images import profile_image, profile_images, with_slopes
from diffdeblend.quantities.cmodel_minimise import Normal, Shape, minimise, solve3
from diffdeblend.quantities.cmodel_problem import (
    Problem,
    Settings,
    at_bound,
    prior_curvature,
    prior_value,
    problem_grid,
)
from diffdeblend.quantities.cmodel_profiles import Profile


def _on_pixels(profile: Profile, problem: Problem, settings: Settings, numbers: Array) -> Normal:
    """Objective, gradient and matrix with every pixel as it is."""
    rows = profile_images(profile, problem, numbers, settings).reshape(4, -1)
    weight, data = problem.weight.reshape(-1), problem.data.reshape(-1)
    weighted = jax.lax.optimization_barrier(rows * weight)
    gram = jnp.matmul(weighted, rows.T, precision=EXACT)
    mass = jnp.maximum(gram[0, 0], jnp.finfo(data.dtype).tiny)
    flux = jnp.dot(weighted[0], data, precision=EXACT) / mass
    residual = jax.lax.optimization_barrier(data - flux * rows[0])
    left = jnp.matmul(weighted[1:], residual, precision=EXACT)
    value = 0.5 * jnp.sum(weight * residual * residual)
    matrix = gram[1:, 1:] - gram[1:, 0, None] * gram[0, 1:] / mass
    return Normal(value, -flux * left, flux**2 * matrix)


class Coarse(NamedTuple):
    """What Fourier space keeps of data and PSF: two real numbers a mode.

    - `cross`: data times PSF; `power`: PSF squared; both with the weight of the mode.
    - `monomials`: kx kx, ky ky, kx ky.
    """

    cross: Float[Array, "k"]
    power: Float[Array, "k"]
    monomials: Float[Array, "k 3"]


def coarse_problem(problem: Problem, settings: Settings) -> Coarse:
    """The problem as if the stamp were complete and all weights one."""
    grid = problem_grid(problem, settings)
    data = to_modes(problem.data, grid)
    used = problem.weight > 0
    level = jnp.sum(problem.weight) / jnp.maximum(jnp.sum(used), 1)
    weight = grid.mode_weight * level
    re, im = problem.transfer
    cross = weight * multiply_conjugate(problem.transfer, data)[0]
    kx, ky = grid.modes.kx, grid.modes.ky
    monomials = jnp.stack([kx * kx, ky * ky, kx * ky], axis=1)
    made = Coarse(cross, weight * (re * re + im * im), monomials)
    # The way there is not followed by derivatives.
    return jax.lax.stop_gradient(jax.lax.optimization_barrier(made))


def coarse_rows(
    profile: Profile, coarse: Coarse, numbers: Float[Array, "3"]
) -> Float[Array, "4 k"]:
    """The transform of a profile and its derivatives by the numbers of the shape."""
    form, slopes = with_slopes(numbers, 1)
    squares = coarse.monomials
    q_squared = form[0] * squares[:, 0] + form[1] * squares[:, 1] + form[2] * squares[:, 2]
    # Materialised: each is read several times, and would be computed as often.
    value, slope = jax.lax.optimization_barrier(profile.transform(q_squared))
    by = [
        slope * (slopes[0, t] * squares[:, 0] + slopes[1, t] * squares[:, 1])
        + slope * (slopes[2, t] * squares[:, 2])
        for t in range(3)
    ]
    return jnp.stack(jax.lax.optimization_barrier([value, *by]))


def _on_modes(profile: Profile, coarse: Coarse, quartics: Array, numbers: Array) -> Normal:
    """As `_on_pixels`, as if the stamp were complete and all weights one."""
    form, slopes = with_slopes(numbers, 1)
    monomials = coarse.monomials
    q_squared = form[0] * monomials[:, 0] + form[1] * monomials[:, 1] + form[2] * monomials[:, 2]
    # Materialised: each is read several times, and would be computed as often.
    value, slope = jax.lax.optimization_barrier(profile.transform(q_squared))
    seen = coarse.power * value
    mass = jnp.maximum(jnp.sum(seen * value), jnp.finfo(value.dtype).tiny)
    light = jnp.sum(coarse.cross * value)
    flux = light / mass
    mixed = slopes.T @ jnp.matmul(seen * slope, monomials, precision=EXACT)
    square = jnp.matmul(coarse.power * slope * slope, quartics, precision=EXACT)
    residual = (coarse.cross - flux * seen) * slope
    left = slopes.T @ jnp.matmul(residual, monomials, precision=EXACT)
    matrix = slopes.T @ square.reshape(3, 3) @ slopes - mixed[:, None] * mixed / mass
    return Normal(-0.5 * light * flux, -flux * left, flux**2 * matrix)


def with_prior(
    evaluate: Callable[[Array], Normal], problem: Problem, settings: Settings
) -> Callable[[Array], Normal]:
    """The same with what is thought of one shape beforehand."""
    prior = settings.prior

    def whole(numbers: Array) -> Normal:
        value, gradient, matrix = evaluate(numbers)
        slope = jax.grad(partial(prior_value, prior, problem))(numbers)
        curvature = prior_curvature(prior, problem, numbers)
        return Normal(
            value + prior_value(prior, problem, numbers),
            gradient + slope,
            matrix + jnp.diag(curvature),
        )

    return whole


def _scan(
    evaluate: Callable[[Array], Normal], shear: Array, problem: Problem, settings: Settings
) -> Array:
    """The best of a few radii."""
    radii = jnp.log(jnp.asarray([0.2, 0.6, 1.2, 2.4, 5.0], shear.dtype) * problem.psf_sigma)
    trials = jnp.concatenate([radii[:, None], jnp.broadcast_to(shear, (radii.size, 2))], axis=1)

    def value(numbers: Array) -> Array:
        return evaluate(numbers).value + prior_value(settings.prior, problem, numbers)

    return trials[jnp.argmin(jax.vmap(value)(trials))]


def _search(
    profile: Profile, settings: Settings, problem: Problem, coarse: Coarse, shear: Array
) -> Shape:
    squares = coarse.monomials
    quartics = (squares[:, :, None] * squares[:, None]).reshape(-1, 9)
    quartics = jax.lax.optimization_barrier(quartics)
    on_modes = partial(_on_modes, profile, coarse, quartics)
    start = _scan(on_modes, shear, problem, settings)
    near = minimise(
        with_prior(on_modes, problem, settings), start, problem, settings, settings.coarse_steps
    )
    if not settings.fine_steps:
        return near
    on_pixels = partial(_on_pixels, profile, problem, settings)
    found = minimise(
        with_prior(on_pixels, problem, settings),
        *(near.numbers, problem, settings, settings.fine_steps),
    )
    return found._replace(steps=found.steps + near.steps)


def _objective(
    profile: Profile, settings: Settings, numbers: Array, problem: Problem
) -> Float[Array, ""]:
    """chi2 / 2 with the flux eliminated, and the prior."""
    model = profile_image(profile, problem, numbers, settings)
    weighted = problem.weight * model
    flux = jnp.sum(weighted * problem.data) / jnp.sum(weighted * model)
    residual = problem.data - flux * model
    prior = prior_value(settings.prior, problem, numbers)
    return 0.5 * jnp.sum(problem.weight * residual**2) + prior


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def fit_shape(
    profile: Profile,
    settings: Settings,
    problem: Problem,
    coarse: Coarse,
    shear: Float[Array, "2"],
) -> Shape:
    """The shape that fits best.

    Its derivatives are those of the minimum, by the theorem of implicit functions, with the exact
    second derivatives: the way there is not followed. A radius at its bound has none.

    - `coarse`: as of `coarse_problem`; `shear`: conformal shear to start from.
    """
    return _search(profile, settings, problem, coarse, shear)


@fit_shape.defjvp
def _fit_shape_jvp(profile, settings, primals, tangents):
    problem, _, _ = primals
    found = _search(profile, settings, *primals)
    slope = jax.grad(partial(_objective, profile, settings))
    _, change = jax.jvp(lambda p: slope(found.numbers, p), (problem,), (tangents[0],))
    curvature = jax.jacfwd(slope)(found.numbers, problem)
    free = jnp.stack([~at_bound(problem, settings.prior, found.numbers), True, True])
    free = free.astype(change.dtype)
    curvature = curvature * free[:, None] * free + jnp.diag(1 - free)
    move = -solve3(curvature, change * free)
    zero: list[Any] = [
        np.zeros(jnp.shape(v), jax.dtypes.float0) for v in (found.steps, found.converged)
    ]
    return found, Shape(move, *zero)
