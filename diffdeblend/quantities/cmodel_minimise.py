"""Damped Gauss-Newton steps of the ellipses of one profile or of several."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.quantities.cmodel_problem import Problem, Settings, radius_bounds

# What is left to gain in chi2 / 2 where a fit that runs out of steps counts as converged.
_CLOSE = 0.05


class Normal(NamedTuple):
    """The objective, its gradient and its Gauss-Newton matrix in numbers of shapes."""

    value: Float[Array, ""]
    gradient: Float[Array, "n"]
    matrix: Float[Array, "n n"]


class Shape(NamedTuple):
    """The numbers of `cmodel_images`, three a profile, and how the fit went."""

    numbers: Float[Array, "n"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


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


def solve(matrix: Array, vector: Array) -> Array:
    """The solution of a few equations, symmetric and positive definite."""
    if vector.size == 3:
        return solve3(matrix, vector)
    tiny = jnp.finfo(vector.dtype).tiny
    # The vector on its own, in which all this is linear: a derivative has to be transposed.
    for k in range(vector.size):
        column, one = matrix[:, k], jnp.maximum(matrix[k, k], tiny)
        pivot, value = matrix[k] / one, vector[k] / one
        matrix = (matrix - column[:, None] * pivot).at[k].set(pivot)
        vector = (vector - column * value).at[k].set(value)
    return vector


class _State(NamedTuple):
    numbers: Array
    known: Normal
    trial: Array
    damping: Array
    step: Array
    done: Array
    converged: Bool[Array, ""]


def minimise(
    evaluate: Callable[[Array], Normal],
    start: Float[Array, "n"],
    problem: Problem,
    settings: Settings,
    max_steps: int,
) -> Shape:
    """Damped Gauss-Newton steps of the numbers of shapes, from a start.

    - `evaluate`: the objective at some numbers, with its prior.
    """
    n, dtype = start.size // 3, start.dtype
    low, high = radius_bounds(problem, settings.prior)

    def inside(numbers: Array) -> Array:
        radius, one, two = numbers.reshape(n, 3).T
        # Ellipses up to 12 to 1.
        shrink = jnp.minimum(1, 2.5 / jnp.sqrt(one**2 + two**2 + 1e-12))
        held = [jnp.clip(radius, low, high), one * shrink, two * shrink]
        return jnp.stack(held, axis=1).reshape(-1)

    def advance(state: _State) -> _State:
        new = evaluate(state.trial)
        # Sums are good to some bits: near a point each step changes less than that.
        noise = 32 * jnp.finfo(dtype).eps * jnp.abs(new.value)
        better = jnp.isfinite(new.value) & (new.value <= state.known.value + noise)
        numbers, known = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (state.trial, new), (state.numbers, state.known)
        )
        damping = jnp.where(better, jnp.maximum(0.2 * state.damping, 1e-4), 8 * state.damping)
        # Against a bound, the radius stays where it is.
        radius, slope = numbers[::3], known.gradient[::3]
        stuck = ((radius <= low) & (slope >= 0)) | ((radius >= high) & (slope <= 0))
        free = jnp.ones(3 * n, dtype).at[::3].set(jnp.where(stuck, 0, 1))
        matrix = known.matrix * free[:, None] * free + jnp.diag(1 - free)
        # A source without light has no curvature of its own.
        diagonal = jnp.diagonal(known.matrix)
        damped = matrix + jnp.diag(damping * diagonal + 1e-3)
        move = -solve(damped, known.gradient * free)
        longest = jnp.asarray([1.5, 0.6, 0.6] * n, dtype)
        trial = inside(numbers + jnp.clip(move, -longest, longest))
        move = trial - numbers
        predicted = -known.gradient @ move - 0.5 * move @ matrix @ move
        # With strong damping every step is small, which proves nothing, but late it is enough.
        small = predicted < settings.tolerance
        # Near a point, or where an amplitude comes to 0, more is promised than is ever gained.
        small |= better & (state.known.value - new.value < settings.tolerance)
        settled = small & ((damping < 1) | (state.step > 7))
        step = state.step + 1
        done = settled | (step >= max_steps) | ~(damping < 1e6)
        # So small a step needs no proof.
        numbers = jnp.where(settled, trial, numbers)
        # A third of a standard deviation from the end is no failure.
        near = settled | (predicted < _CLOSE)
        return _State(numbers, known, trial, damping, step, done, near)

    infinite = Normal(
        jnp.asarray(jnp.inf, dtype), jnp.zeros_like(start), jnp.zeros((3 * n, 3 * n), dtype)
    )
    no = jnp.asarray(False)
    start = inside(start)
    # Seed of every loop variable from the start, so that under vmap all carry the same axis.
    first = _State(
        start, infinite, start, jnp.asarray(0.01, dtype), jnp.asarray(0, jnp.int32), no, no
    )
    last = jax.lax.while_loop(lambda state: ~state.done, advance, first)
    return Shape(last.numbers, last.step, last.converged)
