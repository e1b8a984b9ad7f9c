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
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.fourier import EXACT, multiply_conjugate, to_modes
from diffdeblend.quantities.cmodel_images import profile_image, profile_images, with_slopes
from diffdeblend.quantities.cmodel_problem import (
    Problem,
    Settings,
    at_bound,
    prior_curvature,
    prior_value,
    problem_grid,
    radius_bounds,
)
from diffdeblend.quantities.cmodel_profiles import Profile

# What is left to gain in chi2 / 2 where a fit that runs out of steps counts as converged.
_CLOSE = 0.05


class Normal(NamedTuple):
    """The objective, its gradient and its Gauss-Newton matrix in the three numbers of a shape."""

    value: Float[Array, ""]
    gradient: Float[Array, "3"]
    matrix: Float[Array, "3 3"]


class Shape(NamedTuple):
    """The three numbers of `cmodel_images`, and how the fit went."""

    numbers: Float[Array, "3"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


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


class _Spectrum(NamedTuple):
    """What Fourier space keeps of data and PSF: data times PSF and PSF squared, a mode."""

    cross: Float[Array, "k"]
    power: Float[Array, "k"]


def _spectrum(problem: Problem, settings: Settings) -> _Spectrum:
    grid = problem_grid(problem, settings)
    data = to_modes(problem.data, grid)
    used = problem.weight > 0
    level = jnp.sum(problem.weight) / jnp.maximum(jnp.sum(used), 1)
    weight = grid.mode_weight * level
    re, im = problem.transfer
    spectrum = _Spectrum(
        weight * multiply_conjugate(problem.transfer, data)[0], weight * (re * re + im * im)
    )
    return jax.lax.optimization_barrier(spectrum)


def _on_modes(
    profile: Profile, spectrum: _Spectrum, monomials: Array, quartics: Array, numbers: Array
) -> Normal:
    """As `_on_pixels`, as if the stamp were complete and all weights one."""
    form, slopes = with_slopes(numbers, 1)
    q_squared = form[0] * monomials[:, 0] + form[1] * monomials[:, 1] + form[2] * monomials[:, 2]
    # Materialised: each is read several times, and would be computed as often.
    value, slope = jax.lax.optimization_barrier(profile.transform(q_squared))
    seen = spectrum.power * value
    mass = jnp.maximum(jnp.sum(seen * value), jnp.finfo(value.dtype).tiny)
    light = jnp.sum(spectrum.cross * value)
    flux = light / mass
    mixed = slopes.T @ jnp.matmul(seen * slope, monomials, precision=EXACT)
    square = jnp.matmul(spectrum.power * slope * slope, quartics, precision=EXACT)
    residual = (spectrum.cross - flux * seen) * slope
    left = slopes.T @ jnp.matmul(residual, monomials, precision=EXACT)
    matrix = slopes.T @ square.reshape(3, 3) @ slopes - mixed[:, None] * mixed / mass
    return Normal(-0.5 * light * flux, -flux * left, flux**2 * matrix)


def solve3(matrix: Array, vector: Array) -> Array:
    """The solution of three equations, symmetric: by hand, as LAPACK takes one by one."""
    (a, b, c), (d, e), f = matrix[0], matrix[1, 1:], matrix[2, 2]
    aa, bb, cc = d * f - e * e, c * e - b * f, b * e - c * d
    dd, ee, ff = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * aa + b * bb + c * cc
    x, y, z = vector
    solution = jnp.stack(
        [aa * x + bb * y + cc * z, bb * x + dd * y + ee * z, cc * x + ee * y + ff * z]
    )
    return solution / jnp.where(determinant > 0, determinant, jnp.inf)


class _State(NamedTuple):
    numbers: Array
    known: Normal
    trial: Array
    damping: Array
    step: Array
    done: Array
    converged: Bool[Array, ""]


def _minimise(
    evaluate: Callable[[Array], Normal],
    start: Float[Array, "3"],
    problem: Problem,
    settings: Settings,
    max_steps: int,
) -> Shape:
    """Damped Gauss-Newton steps of the three numbers."""
    prior, dtype = settings.prior, start.dtype
    low, high = radius_bounds(problem, prior)

    def inside(numbers: Array) -> Array:
        length = jnp.sqrt(numbers[1] ** 2 + numbers[2] ** 2 + 1e-12)
        # Ellipses up to 12 to 1.
        shrink = jnp.minimum(1, 2.5 / length)
        return jnp.stack(
            [jnp.clip(numbers[0], low, high), numbers[1] * shrink, numbers[2] * shrink]
        )

    def whole(numbers: Array) -> Normal:
        value, gradient, matrix = evaluate(numbers)
        slope = jax.grad(partial(prior_value, prior, problem))(numbers)
        curvature = prior_curvature(prior, problem, numbers)
        return Normal(
            value + prior_value(prior, problem, numbers),
            gradient + slope,
            matrix + jnp.diag(curvature),
        )

    def advance(state: _State) -> _State:
        new = whole(state.trial)
        # Sums are good to some bits: near a point each step changes less than that.
        noise = 32 * jnp.finfo(dtype).eps * jnp.abs(new.value)
        better = jnp.isfinite(new.value) & (new.value <= state.known.value + noise)
        numbers, known = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (state.trial, new), (state.numbers, state.known)
        )
        damping = jnp.where(better, jnp.maximum(0.2 * state.damping, 1e-4), 8 * state.damping)
        # Against a bound, the radius stays where it is.
        stuck = ((numbers[0] <= low) & (known.gradient[0] >= 0)) | (
            (numbers[0] >= high) & (known.gradient[0] <= 0)
        )
        free = jnp.stack([jnp.where(stuck, 0, 1), 1, 1]).astype(dtype)
        matrix = known.matrix * free[:, None] * free + jnp.diag(1 - free)
        # A source without light has no curvature of its own.
        diagonal = jnp.diagonal(known.matrix)
        damped = matrix + jnp.diag(damping * diagonal + 1e-3)
        move = -solve3(damped, known.gradient * free)
        longest = jnp.asarray([1.5, 0.6, 0.6], dtype)
        trial = inside(numbers + jnp.clip(move, -longest, longest))
        move = trial - numbers
        predicted = -known.gradient @ move - 0.5 * move @ matrix @ move
        # With strong damping every step is small, which proves nothing, but late it is enough.
        settled = (predicted < settings.tolerance) & ((damping < 1) | (state.step > 7))
        step = state.step + 1
        done = settled | (step >= max_steps) | ~(damping < 1e6)
        # So small a step needs no proof.
        numbers = jnp.where(settled, trial, numbers)
        # A third of a standard deviation from the end is no failure.
        near = settled | (predicted < _CLOSE)
        return _State(numbers, known, trial, damping, step, done, near)

    infinite = Normal(jnp.asarray(jnp.inf, dtype), jnp.zeros(3, dtype), jnp.zeros((3, 3), dtype))
    no = jnp.asarray(False)
    start = inside(start)
    # Seed of every loop variable from the start, so that under vmap all carry the same axis.
    first = _State(
        start, infinite, start, jnp.asarray(0.01, dtype), jnp.asarray(0, jnp.int32), no, no
    )
    last = jax.lax.while_loop(lambda state: ~state.done, advance, first)
    return Shape(last.numbers, last.step, last.converged)


def _scan(
    evaluate: Callable[[Array], Normal], shear: Array, problem: Problem, settings: Settings
) -> Array:
    """The best of a few radii."""
    radii = jnp.log(jnp.asarray([0.2, 0.6, 1.2, 2.4, 5.0], shear.dtype) * problem.psf_sigma)
    trials = jnp.concatenate([radii[:, None], jnp.broadcast_to(shear, (radii.size, 2))], axis=1)

    def value(numbers: Array) -> Array:
        return evaluate(numbers).value + prior_value(settings.prior, problem, numbers)

    return trials[jnp.argmin(jax.vmap(value)(trials))]


def _search(profile: Profile, settings: Settings, problem: Problem, shear: Array) -> Shape:
    grid = problem_grid(problem, settings)
    kx, ky = grid.modes.kx, grid.modes.ky
    monomials = jnp.stack([kx * kx, ky * ky, kx * ky], axis=1)
    quartics = (monomials[:, :, None] * monomials[:, None]).reshape(-1, 9)
    monomials, quartics = jax.lax.optimization_barrier((monomials, quartics))
    spectrum = _spectrum(problem, settings)
    coarse = partial(_on_modes, profile, spectrum, monomials, quartics)
    start = _scan(coarse, shear, problem, settings)
    near = _minimise(coarse, start, problem, settings, settings.coarse_steps)
    found = _minimise(
        partial(_on_pixels, profile, problem, settings),
        near.numbers,
        problem,
        settings,
        settings.fine_steps,
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
    profile: Profile, settings: Settings, problem: Problem, shear: Float[Array, "2"]
) -> Shape:
    """The shape that fits best.

    Its derivatives are those of the minimum, by the theorem of implicit functions, with the exact
    second derivatives: the way there is not followed. A radius at its bound has none.

    - `shear`: conformal shear to start from.
    """
    return _search(profile, settings, problem, shear)


@fit_shape.defjvp
def _fit_shape_jvp(profile, settings, primals, tangents):
    problem, _ = primals
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
