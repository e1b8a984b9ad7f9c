r"""The fit of one galaxy profile to one stamp: ellipse and flux, centre held.

The flux is eliminated, three numbers are left. First the fit is made in Fourier space, where no
image is drawn: there the profile is real, and all that is known of data and PSF are two real
numbers a mode. Then pixels have the last word, with masks and edges as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.fourier import (
    EXACT,
    Pair,
    multiply,
    multiply_conjugate,
    sampled_modes,
    shift,
    to_image,
    to_modes,
)
from diffdeblend.grid import Grid, Quality, make_grid
from diffdeblend.quantities.cmodel_profiles import Profile
from diffdeblend.wings import spread_wings, wrapped_wings


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
    smallest: float = 0.005
    largest: float = 1.0
    resolution: float = 1.0


@dataclass(frozen=True)
class Settings:
    """How a profile is fitted.

    - `quality`: how finely models are drawn.
    - `coarse_steps`, `fine_steps`: most steps in Fourier space and on pixels.
    - `tolerance`: stop after a step that should lower chi2 / 2 by less than this.
    """

    prior: ShapePrior = ShapePrior()
    quality: Quality = Quality(padding=1.35, cut=0.85, corrections=True)
    coarse_steps: int = 20
    fine_steps: int = 12
    tolerance: float = 1e-3


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


class Normal(NamedTuple):
    """The objective, its gradient and its Gauss-Newton matrix in the three numbers of a shape."""

    value: Float[Array, ""]
    gradient: Float[Array, "3"]
    matrix: Float[Array, "3 3"]


class Shape(NamedTuple):
    """ln of the half-light radius (of the circle of the same area), and the conformal shear."""

    numbers: Float[Array, "3"]
    steps: Int[Array, ""]
    converged: Array


def make_problem(
    image: Float[Array, "y x"],
    weight: Float[Array, "y x"],
    psf: Float[Array, "k l"],
    x: Float[Array, ""],
    y: Float[Array, ""],
    settings: Settings,
) -> Problem:
    """What does not change with the shape."""
    grid = make_grid(image.shape, settings.quality)
    sigma = jnp.sqrt(jnp.sum(psf) ** 2 / jnp.sum(psf * psf) / (4 * np.pi))
    psf = _within(psf, grid)
    rows, columns = (
        jnp.arange(n, dtype=psf.dtype) - (n - 1) // 2 for n in psf.shape
    )
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


def _squeeze(numbers: Array, sign: int) -> Array:
    """Q for `sign` 1 and its inverse for -1, as (xx, yy, xy)."""
    size = jnp.exp(2 * sign * numbers[0])
    one, two = numbers[1], numbers[2]
    squared = one * one + two * two
    # Series where the root has no derivative.
    tiny = squared < 1e-6
    length = jnp.sqrt(jnp.where(tiny, 1.0, squared))
    even = jnp.where(tiny, 1 + squared / 2, jnp.cosh(length))
    odd = sign * jnp.where(tiny, 1 + squared / 6, jnp.sinh(length) / length)
    return jnp.stack([size * (even + odd * one), size * (even - odd * one), size * odd * two])


def shape_matrix(numbers: Float[Array, "3"]) -> Float[Array, "3"]:
    """Q as (xx, yy, xy), square pixels: the ellipse that holds half of the light."""
    return _squeeze(numbers, 1)


def shape_numbers(form: Float[Array, "3"]) -> Float[Array, "3"]:
    """ln(radius) and conformal shear of an ellipse (xx, yy, xy): `shape_matrix` the other way."""
    tiny = jnp.finfo(form.dtype).tiny
    area = jnp.sqrt(jnp.maximum(form[0] * form[1] - form[2] ** 2, tiny))
    one, two = 0.5 * (form[0] - form[1]) / area, form[2] / area
    squared = one * one + two * two
    small = squared < 1e-6
    length = jnp.sqrt(jnp.where(small, 1.0, squared))
    ratio = jnp.where(small, 1 - squared / 6, jnp.arcsinh(length) / length)
    return jnp.stack([0.5 * jnp.log(area), one * ratio, two * ratio])


def _with_slopes(numbers: Array, sign: int) -> tuple[Array, Array]:
    """`_squeeze` and its Jacobian, rows the entries; xy counts twice, as in a quadratic form."""
    twice = jnp.asarray([1, 1, 2], numbers.dtype)
    value = _squeeze(numbers, sign) * twice
    return value, jax.jacfwd(lambda n: _squeeze(n, sign) * twice)(numbers)


def profile_image(
    profile: Profile, problem: Problem, numbers: Float[Array, "3"], settings: Settings
) -> Float[Array, "y x"]:
    """The seen profile of unit flux."""
    grid = make_grid(problem.data.shape, settings.quality)
    modes = grid.modes
    xx, yy, xy = shape_matrix(numbers)
    value, _ = profile.transform(
        xx * modes.kx * modes.kx + yy * modes.ky * modes.ky + 2 * xy * modes.kx * modes.ky
    )
    re, im = problem.transfer
    image = to_image((re * value, im * value), grid)
    if not settings.quality.corrections:
        return image

    def wings(x: Array, y: Array) -> Array:
        return _wings(profile, problem, numbers, x, y)[:1]

    return image - spread_wings(wrapped_wings(wings, grid, image.dtype), grid)[0]


def profile_images(
    profile: Profile, problem: Problem, numbers: Float[Array, "3"], settings: Settings
) -> Float[Array, "4 y x"]:
    """The seen profile of unit flux, and its derivatives by the numbers of the shape."""
    grid = make_grid(problem.data.shape, settings.quality)
    modes = grid.modes
    form, slopes = _with_slopes(numbers, 1)
    kxx, kyy, kxy = modes.kx * modes.kx, modes.ky * modes.ky, modes.kx * modes.ky
    # Materialised: each is read several times, and would be computed as often.
    value, slope = jax.lax.optimization_barrier(
        profile.transform(form[0] * kxx + form[1] * kyy + form[2] * kxy)
    )
    real = [value] + [
        slope * (slopes[0, t] * kxx + slopes[1, t] * kyy + slopes[2, t] * kxy) for t in range(3)
    ]
    re, im = (
        jnp.stack(jax.lax.optimization_barrier([part * r for r in real]))
        for part in problem.transfer
    )
    images = to_image(jax.lax.optimization_barrier((re, im)), grid)
    if not settings.quality.corrections:
        return images
    wings = partial(_wings, profile, problem, numbers)
    return images - spread_wings(wrapped_wings(wings, grid, images.dtype), grid)


def _wings(profile: Profile, problem: Problem, numbers: Array, x: Array, y: Array) -> Array:
    """Surface brightness far from the centre and its derivatives, `(4, p)`."""
    form, slopes = _with_slopes(numbers, -1)
    x, y = x - problem.x, y - problem.y
    xx, yy, xy = x * x, y * y, x * y
    value, slope = jax.lax.optimization_barrier(
        profile.brightness(form[0] * xx + form[1] * yy + form[2] * xy)
    )
    area = jnp.exp(-2 * numbers[0])
    by = [slope * (slopes[0, t] * xx + slopes[1, t] * yy + slopes[2, t] * xy) for t in range(3)]
    by[0] = by[0] - 2 * value
    return area * jnp.stack(jax.lax.optimization_barrier([value, *by]))


def _prior(prior: ShapePrior, problem: Problem, numbers: Array) -> Array:
    excess = jnp.maximum(numbers[0] - jnp.log(prior.large * problem.psf_sigma), 0) / prior.beyond
    return 0.5 * excess**2 + 0.5 * (numbers[1] ** 2 + numbers[2] ** 2) / prior.elongation**2


def prior_curvature(prior: ShapePrior, problem: Problem, numbers: Array) -> Float[Array, "3"]:
    """Second derivatives of the prior: it is a sum over the numbers."""
    large = numbers[0] > jnp.log(prior.large * problem.psf_sigma)
    flat = jnp.full_like(numbers[0], 1 / prior.elongation**2)
    return jnp.stack([jnp.where(large, 1 / prior.beyond**2, 0), flat, flat])


def _bounds(problem: Problem, prior: ShapePrior) -> tuple[Array, Array]:
    """Of ln(radius)."""
    half = 0.5 * max(problem.data.shape)
    return jnp.log(prior.smallest * problem.psf_sigma), jnp.asarray(np.log(prior.largest * half))


def at_bound(problem: Problem, prior: ShapePrior, numbers: Array) -> Array:
    """Whether the radius is as small or as large as it may be."""
    low, high = _bounds(problem, prior)
    return (numbers[0] <= low + 1e-4) | (numbers[0] >= high - 1e-4)


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
    grid = make_grid(problem.data.shape, settings.quality)
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
    form, slopes = _with_slopes(numbers, 1)
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
    converged: Array


def _minimise(
    evaluate: Callable[[Array], Normal],
    start: Float[Array, "3"],
    problem: Problem,
    settings: Settings,
    max_steps: int,
) -> Shape:
    """Damped Gauss-Newton steps of the three numbers."""
    prior, dtype = settings.prior, start.dtype
    low, high = _bounds(problem, prior)

    def inside(numbers: Array) -> Array:
        length = jnp.sqrt(numbers[1] ** 2 + numbers[2] ** 2 + 1e-12)
        # Ellipses up to 12 to 1.
        shrink = jnp.minimum(1, 2.5 / length)
        return jnp.stack(
            [jnp.clip(numbers[0], low, high), numbers[1] * shrink, numbers[2] * shrink]
        )

    def whole(numbers: Array) -> Normal:
        value, gradient, matrix = evaluate(numbers)
        slope = jax.grad(partial(_prior, prior, problem))(numbers)
        curvature = prior_curvature(prior, problem, numbers)
        return Normal(
            value + _prior(prior, problem, numbers), gradient + slope, matrix + jnp.diag(curvature)
        )

    def advance(state: _State) -> _State:
        new = whole(state.trial)
        noise = 8 * jnp.finfo(dtype).eps * jnp.abs(new.value)
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
        longest = jnp.asarray([1.0, 0.6, 0.6], dtype)
        trial = inside(numbers + jnp.clip(move, -longest, longest))
        move = trial - numbers
        predicted = -known.gradient @ move - 0.5 * move @ matrix @ move
        settled = (predicted < settings.tolerance) & (damping < 1)
        step = state.step + 1
        done = settled | (step >= max_steps) | ~(damping < 1e6)
        # So small a step needs no proof.
        numbers = jnp.where(settled, trial, numbers)
        return _State(numbers, known, trial, damping, step, done, settled)

    infinite = Normal(
        jnp.asarray(jnp.inf, dtype), jnp.zeros(3, dtype), jnp.zeros((3, 3), dtype)
    )
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
    trials = jnp.concatenate(
        [radii[:, None], jnp.broadcast_to(shear, (radii.size, 2))], axis=1
    )

    def value(numbers: Array) -> Array:
        return evaluate(numbers).value + _prior(settings.prior, problem, numbers)

    return trials[jnp.argmin(jax.vmap(value)(trials))]


def _search(profile: Profile, settings: Settings, problem: Problem, shear: Array) -> Shape:
    grid = make_grid(problem.data.shape, settings.quality)
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
    prior = _prior(settings.prior, problem, numbers)
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
    zero = [np.zeros(jnp.shape(v), jax.dtypes.float0) for v in (found.steps, found.converged)]
    return found, Shape(move, *zero)
