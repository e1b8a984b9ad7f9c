"""Objective, gradient and Gauss-Newton matrix at one point of a fit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.fit.arrow import Normal, linear_vector
from diffdeblend.fit.by_columns import chi2_of_columns, is_by_columns
from diffdeblend.fit.columns import Columns, columns_by_autodiff, columns_of_ellipses
from diffdeblend.fit.ellipses import Ellipses, chi2_of_ellipses, is_ellipses
from diffdeblend.fit.normal_matrix import (
    Fixed,
    low_grid,
    matrix_grid,
    normal_by_modes,
    normal_by_pixels,
    prior_terms,
)
from diffdeblend.fit.objective import Problem, chi2_by_band
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.grid import Grid
from diffdeblend.scene import Scene


class Evaluation(NamedTuple):
    """What is known at one point.

    - `value`, `gradient`: of the objective, exact; `chi2`: of each band.
    - `normal`: matrix of the data alone; `curvature`: that of the prior.
    """

    value: Float[Array, ""]
    chi2: Float[Array, "band"]
    gradient: Unknowns
    normal: Normal
    curvature: Float[Array, "*shape shape"]


def evaluate(
    unknowns: Unknowns,
    template: Scene,
    problem: Problem,
    fixed: Fixed,
    exact: bool | Bool[Array, ""],
) -> Evaluation:
    """Objective, gradient and matrix; by pixels where `exact`, else by modes.

    A scene that `is_by_columns` has its matrix by pixels always.
    """
    prior, prior_slope, curvature = prior_terms(unknowns, template, problem)
    drawn = known = None
    if is_by_columns(template, problem):
        known = columns_by_autodiff(unknowns, template, problem.grid.modes)
        chi2, gradient = chi2_of_columns(unknowns, template, problem, known)
    elif is_ellipses(template, problem):
        chi2, gradient, drawn = chi2_of_ellipses(unknowns, template, problem)
    else:

        def half(u: Unknowns) -> tuple[Array, Array]:
            chi2 = chi2_by_band(u, template, problem)
            return 0.5 * jnp.sum(chi2), chi2

        (_, chi2), gradient = jax.value_and_grad(half, has_aux=True)(unknowns)

    def by_pixels() -> Normal:
        wanted = matrix_grid(problem)
        if known is not None:
            low = known if wanted == problem.grid else known.low(problem.grid, wanted)
            return normal_by_pixels(unknowns, template, problem, low)
        columns = _columns(unknowns, template, drawn, problem.grid, wanted)
        return normal_by_pixels(unknowns, template, problem, columns)

    def by_modes() -> Normal:
        columns = _columns(unknowns, template, drawn, problem.grid, low_grid(problem))
        return normal_by_modes(unknowns, template, problem, fixed, columns)

    if known is not None:
        normal = by_pixels()
    elif isinstance(exact, bool):
        normal = by_pixels() if exact else by_modes()
    else:
        normal = jax.lax.cond(exact, by_pixels, by_modes)
    total = jax.tree.map(jnp.add, gradient, prior_slope)
    return Evaluation(0.5 * jnp.sum(chi2) + prior, chi2, total, normal, curvature)


def unevaluated(unknowns: Unknowns, template: Scene, problem: Problem) -> Evaluation:
    """What is known before the first `evaluate`, in the same shapes: that any point is better."""
    # Not all of `evaluate`: to trace it for its shapes takes as long as to use it.
    linear, shape, curvature = jax.eval_shape(
        lambda u: (linear_vector(u), u.flat_shape, prior_terms(u, template, problem)[2]), unknowns
    )
    (n_bands, n_linear), n_shape, dtype = linear.shape, shape.size, linear.dtype
    return Evaluation(
        jnp.asarray(jnp.inf, dtype),
        jnp.zeros(n_bands, dtype),
        jax.tree.map(jnp.zeros_like, unknowns),
        Normal(
            jnp.zeros((n_bands, n_linear, n_linear), dtype),
            jnp.zeros((n_bands, n_linear, n_shape), dtype),
            jnp.zeros((n_shape, n_shape), dtype),
        ),
        jnp.zeros(curvature.shape, curvature.dtype),
    )


def exact_columns(unknowns: Unknowns, template: Scene, problem: Problem) -> Columns:
    """The columns of the exact matrix, drawn anew."""
    drawn = None
    if is_ellipses(template, problem):
        drawn = chi2_of_ellipses(unknowns, template, problem)[2]
    return _columns(unknowns, template, drawn, problem.grid, matrix_grid(problem))


def _columns(
    unknowns: Unknowns, template: Scene, drawn: Ellipses | None, grid: Grid, wanted: Grid
) -> Columns:
    if drawn is None:
        return columns_by_autodiff(unknowns, template, wanted.modes)
    if wanted != grid:
        drawn = drawn.low(grid, wanted)
    return columns_of_ellipses(drawn, wanted.modes, unknowns.flat_shape.size)
