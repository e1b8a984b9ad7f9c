"""Levenberg-Marquardt with the fluxes and the sky eliminated: the default method."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.fit.normal_matrix import (
    Normal,
    factor,
    fixed_terms,
    from_vectors,
    hold,
    linear_vector,
    normal_by_modes,
    normal_by_pixels,
    prior_curvature,
    solve_band,
    solve_shape,
)
from diffdeblend.fit.objective import Problem, objective
from diffdeblend.fit.unknowns import Unknowns, unknowns_of
from diffdeblend.parameters import as_float, per_parameter
from diffdeblend.scene import Scene


class LevenbergMarquardt(eqx.Module):
    r"""Second-order steps with an exact gradient.

    The gradient and the objective are exact in every pixel; the matrix is made in Fourier space as
    if noise were stationary, so that it costs no transform. Fluxes, sky and band shifts are
    eliminated from each step (variable projection in Kaufman's form).

    - `max_steps`: most evaluations of objective, gradient and matrix.
    - `tolerance`: stop when a step lowered chi2/2 by less than this, and the next is predicted to
        by less than four times this. Absolute: 0.05 is what moving one parameter by a third of its
        standard deviation costs.
    - `exact`: make the matrix with the weight of every pixel; slower, for difficult blends.

    ??? cite
        Marquardt (1963); Nielsen (1999), IMM-REP-1999-05; Kaufman (1975), BIT 15, 49.
    """

    max_steps: int = eqx.field(static=True, default=60)
    # An array: another tolerance compiles nothing.
    tolerance: Float[Array, ""] = eqx.field(converter=as_float, default=0.05)
    exact: bool = eqx.field(static=True, default=False)


class _State(NamedTuple):
    """The best point so far, with what is known there, and the point to try next."""

    unknowns: Unknowns
    value: Float[Array, ""]
    gradient: Unknowns
    normal: Normal
    trial: Unknowns
    predicted: Float[Array, ""]
    damping: Float[Array, ""]
    step: Int[Array, ""]
    done: Bool[Array, ""]
    history: Float[Array, "step"]


class Solution(NamedTuple):
    """Where a method ended.

    - `history`: the objective after each step, NaN after the last.
    """

    unknowns: Unknowns
    value: Float[Array, ""]
    history: Float[Array, "step"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


def levenberg_marquardt(method: LevenbergMarquardt, start: Scene, problem: Problem) -> Solution:
    """Minimise the objective from `start`. Pure, one program for each padded shape."""
    fixed = fixed_terms(start, problem)
    free_shape = problem.free.flat_shape
    free_linear = linear_vector(problem.free)
    longest = jnp.concatenate(
        [jnp.tile(per_parameter(stack.member(0), "step"), stack.size) for stack in start.sources]
    ).astype(free_shape.dtype)

    def evaluate(unknowns: Unknowns) -> tuple[Array, Unknowns, Normal]:
        value, gradient = jax.value_and_grad(objective)(unknowns, start, problem)
        if method.exact:
            normal = normal_by_pixels(unknowns, start, problem)
        else:
            normal = normal_by_modes(unknowns, start, problem, fixed)
        curvature = jnp.diag(prior_curvature(unknowns, start, problem))
        normal = Normal(normal.band, normal.cross, normal.shape + curvature)
        return value, gradient, hold(normal, problem.free)

    def propose(
        unknowns: Unknowns, gradient: Unknowns, normal: Normal, damping: Array
    ) -> tuple[Unknowns, Array]:
        factors = factor(normal, damping)
        linear = free_linear * linear_vector(gradient)
        shape = free_shape * gradient.flat_shape
        left = shape - jnp.einsum("blt,bl->t", factors.response, linear)
        move = jnp.clip(-solve_shape(factors, left), -longest, longest)
        # Exact response of the linear unknowns to the (perhaps shortened) move of the shapes.
        change = -solve_band(factors, linear) - jnp.einsum("blt,t->bl", factors.response, move)
        quadratic = (
            jnp.einsum("bl,blm,bm->", change, normal.band, change)
            + 2 * jnp.einsum("bl,blt,t->", change, normal.cross, move)
            + move @ normal.shape @ move
        )
        predicted = -jnp.sum(linear * change) - shape @ move - 0.5 * quadratic
        return _moved(unknowns, change, move), predicted

    def advance(state: _State) -> _State:
        value, gradient, normal = evaluate(state.trial)
        gain = state.value - value
        # Sums of float32 are good to some 1e-6 of the objective.
        noise = 1e-6 * jnp.abs(value)
        better = jnp.isfinite(value) & (gain >= -noise)
        small = jnp.isfinite(state.predicted) & (state.predicted < 4 * method.tolerance)
        settled = jnp.isfinite(value) & small & (jnp.abs(gain) < method.tolerance + noise)
        # Nielsen's rule: what was predicted against what came says how far to trust the matrix.
        predicted = jnp.maximum(state.predicted, noise + method.tolerance)
        ratio = jnp.where(state.step > 0, jnp.clip(gain / predicted, 0, 1), 0.5)
        change = jnp.maximum(0.2, 1 - (2 * ratio - 1) ** 3)
        damping = jnp.where(better, jnp.maximum(change * state.damping, 1e-3), 4 * state.damping)
        unknowns, best, gradient, normal = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (state.trial, value, gradient, normal),
            (state.unknowns, state.value, state.gradient, state.normal),
        )
        trial, predicted = propose(unknowns, gradient, normal, damping)
        return _State(
            unknowns,
            best,
            gradient,
            normal,
            trial,
            predicted,
            damping,
            state.step + 1,
            # With strong damping every step is small, which proves nothing.
            settled & (state.damping <= 1),
            state.history.at[state.step].set(best),
        )

    unknowns = unknowns_of(start)
    dtype = start.dx.dtype
    unknown = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(evaluate, unknowns)
    )
    first = _State(
        unknowns=unknowns,
        value=jnp.asarray(jnp.inf, dtype),
        gradient=unknown[1],
        normal=unknown[2],
        # The first evaluation is that of the start: one copy of the program, in the loop.
        trial=unknowns,
        predicted=jnp.asarray(jnp.inf, dtype),
        damping=jnp.asarray(0.05, dtype),
        step=jnp.asarray(0),
        done=jnp.asarray(False),
        history=jnp.full(method.max_steps, jnp.nan, dtype=dtype),
    )
    last = jax.lax.while_loop(
        lambda s: ~s.done & (s.step < method.max_steps) & (s.damping < 1e8), advance, first
    )
    return Solution(last.unknowns, last.value, last.history, last.step, last.done)


def _moved(unknowns: Unknowns, change: Array, move: Array) -> Unknowns:
    still = jax.tree.map(jnp.zeros_like, unknowns)
    return jax.tree.map(jnp.add, unknowns, from_vectors(change, move, still))
