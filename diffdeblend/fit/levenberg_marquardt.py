"""Levenberg-Marquardt with the fluxes and the sky eliminated: the default method."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from diffdeblend.fit.arrow import (
    Normal,
    factor,
    from_vectors,
    hold,
    linear_vector,
    solve_band,
    solve_shape,
)
from diffdeblend.fit.by_columns import is_by_columns
from diffdeblend.fit.evaluate import Evaluation, evaluate, unevaluated
from diffdeblend.fit.normal_matrix import Fixed, fixed_terms, with_curvature
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import Unknowns, unknowns_of
from diffdeblend.parameters import as_float, per_parameter
from diffdeblend.scene import Scene


def _as_int(value: ArrayLike) -> Int[Array, ""]:
    return jnp.asarray(value, dtype=jnp.int32)


class LevenbergMarquardt(eqx.Module):
    r"""Second-order steps with an exact gradient.

    The gradient and the objective are exact in every pixel; the matrix is made in Fourier space as
    if noise were stationary, so that it costs no transform. Fluxes, sky and band shifts are
    eliminated from each step (variable projection in Kaufman's form).

    - `max_steps`: most evaluations of objective, gradient and matrix.
    - `tolerance`: stop when a step lowered chi2/2 by less than this, and the next is predicted to
        by less than four times this. Absolute: 0.05 is what moving one parameter by a third of its
        standard deviation costs.
    - `fast_steps`: after so many steps the matrix is made with the weight of every pixel, which is
        slower and ends where the other one crawls. Another value compiles nothing.
    - `escalates`: whether to do so at all; without it there is less to compile.
    - `exact`: make it so from the beginning, and compile nothing else. Scenes of learned galaxies
        with `AnySource` always do: their columns are drawn once for gradient and matrix.
    - `limit`: as `max_steps`, where that is larger; another value compiles nothing.

    ??? cite
        Marquardt (1963); Nielsen (1999), IMM-REP-1999-05; Kaufman (1975), BIT 15, 49.
    """

    max_steps: int = eqx.field(static=True, default=50)
    # An array: another tolerance compiles nothing.
    tolerance: Float[Array, ""] = eqx.field(converter=as_float, default=0.05)
    fast_steps: Int[Array, ""] = eqx.field(converter=_as_int, default=25)
    escalates: bool = eqx.field(static=True, default=True)
    exact: bool = eqx.field(static=True, default=False)
    limit: Int[Array, ""] = eqx.field(converter=_as_int, default=10**6)


# What a fit does next: a step, the exact matrix at its end, nothing.
_STEPPING, _MEASURING, _ENDED = 0, 1, 2


class State(NamedTuple):
    """The best point so far, with what is known there, and the point to try next."""

    unknowns: Unknowns
    known: Evaluation
    trial: Unknowns
    predicted: Float[Array, ""]
    damping: Float[Array, ""]
    step: Int[Array, ""]
    phase: Int[Array, ""]
    converged: Bool[Array, ""]
    history: Float[Array, "step"]


class Solution(NamedTuple):
    """Where a method ended.

    - `history`: the objective after each step, NaN after the last.
    - `normal`: the exact matrix of the data at the end, where it was asked for; `chi2`: of each
        band there.
    """

    unknowns: Unknowns
    value: Float[Array, ""]
    history: Float[Array, "step"]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]
    normal: Normal | None = None
    chi2: Float[Array, "band"] | None = None


def levenberg_marquardt(
    method: LevenbergMarquardt, start: Scene, problem: Problem, *, with_normal: bool = False
) -> Solution:
    """Minimise the objective from `start`. Pure, one program for each padded shape.

    - `with_normal`: make the exact matrix at the end, of which errors are made. It is another
        turn of the same loop, so that its program is compiled once.
    """
    walk = Walk(method, start, problem, fixed_terms(start, problem), with_normal)
    return walk.solution(
        jax.lax.while_loop(goes_on, lambda state: walk.advance(state), walk.first())
    )


def goes_on(state: State) -> Bool[Array, ""]:
    """Whether there is something left to do."""
    return state.phase < _ENDED


class Walk(eqx.Module):
    """One fit in steps, for drivers that keep many under way. Pure.

    - `fixed`: `fixed_terms(start, problem)`.
    - `with_normal`: as in `levenberg_marquardt`.
    """

    method: LevenbergMarquardt
    start: Scene
    problem: Problem
    fixed: Fixed
    with_normal: bool = eqx.field(static=True, default=False)

    def first(self) -> State:
        """The state before the first step."""
        unknowns = unknowns_of(self.start)
        dtype = self.start.dx.dtype
        return State(
            unknowns=unknowns,
            known=unevaluated(unknowns, self.start, self.problem),
            # The first evaluation is that of the start: one copy of the program, in the loop.
            trial=unknowns,
            predicted=jnp.asarray(jnp.inf, dtype),
            damping=jnp.asarray(0.05, dtype),
            step=jnp.asarray(0),
            phase=jnp.asarray(_STEPPING),
            converged=jnp.asarray(False),
            history=jnp.full(self.method.max_steps + 1, jnp.nan, dtype=dtype),
        )

    def solution(self, state: State) -> Solution:
        """Where a state is."""
        return Solution(
            state.unknowns,
            state.known.value,
            state.history[:-1],
            state.step,
            state.converged,
            state.known.normal if self.with_normal else None,
            state.known.chi2,
        )

    def advance(self, state: State) -> State:
        """The state after another evaluation."""
        method = self.method
        exact = self._is_exact(state)
        new = self._evaluate(state.trial, exact)
        measuring = state.phase == _MEASURING
        gain = state.known.value - new.value
        # Sums are good to some bits: in float32 to 1e-6 of the objective.
        noise = 8 * jnp.finfo(new.value.dtype).eps * jnp.abs(new.value)
        better = (jnp.isfinite(new.value) & (gain >= -noise)) | measuring
        enough = method.tolerance + noise
        small = jnp.isfinite(state.predicted) & (state.predicted < 4 * enough)
        settled = jnp.isfinite(new.value) & small & (jnp.abs(gain) < enough)
        # With strong damping every step is small, which proves nothing.
        settled &= state.damping <= 1
        # Nielsen's rule: what was predicted against what came says how far to trust the matrix.
        foretold = jnp.maximum(state.predicted, enough)
        ratio = jnp.where(state.step > 0, jnp.clip(gain / foretold, 0, 1), 0.5)
        change = jnp.maximum(0.2, 1 - (2 * ratio - 1) ** 3)
        damping = jnp.where(better, jnp.maximum(change * state.damping, 1e-3), 4 * state.damping)
        unknowns, known = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (state.trial, new),
            (state.unknowns, state.known),
        )
        trial, predicted = self._propose(unknowns, known, damping)
        step = state.step + jnp.where(measuring, 0, 1)
        ends = settled | (step >= jnp.minimum(method.max_steps, method.limit)) | ~(damping < 1e8)
        # Steps by pixels leave the exact matrix behind.
        last = jnp.where(exact, _ENDED, _MEASURING) if self.with_normal else _ENDED
        phase = jnp.where(ends, last, _STEPPING)
        # Another matrix at the same point: at the end, and where pixels take over.
        again = ends | (step == method.fast_steps) if self._escalates else ends
        trial = jax.tree.map(lambda a, b: jnp.where(again, a, b), unknowns, trial)
        return State(
            unknowns,
            known,
            trial,
            jnp.where(again, jnp.inf, predicted),
            damping,
            step,
            jnp.where(measuring, _ENDED, phase),
            state.converged | settled,
            state.history.at[state.step].set(known.value),
        )

    def _evaluate(self, unknowns: Unknowns, exact: bool | Array) -> Evaluation:
        return evaluate(unknowns, self.start, self.problem, self.fixed, exact)

    @property
    def _escalates(self) -> bool:
        return self.method.escalates and not self._always_exact

    @property
    def _always_exact(self) -> bool:
        return self.method.exact or is_by_columns(self.start, self.problem)

    def _is_exact(self, state: State) -> bool | Array:
        if self._always_exact or not (self._escalates or self.with_normal):
            return self._always_exact
        late = state.step >= self.method.fast_steps if self._escalates else jnp.asarray(False)
        return late | (state.phase == _MEASURING)

    def _propose(
        self, unknowns: Unknowns, known: Evaluation, damping: Array
    ) -> tuple[Unknowns, Array]:
        """The next point to try, and by how much the objective should fall."""
        free = self.problem.free
        free_shape, free_linear = free.flat_shape, linear_vector(free)
        longest = jnp.concatenate(
            [
                jnp.tile(per_parameter(stack.member(0), "step"), stack.size)
                for stack in self.start.sources
            ]
        ).astype(free_shape.dtype)
        normal = hold(with_curvature(known.normal, known.curvature), free)
        gradient = known.gradient
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


def _moved(unknowns: Unknowns, change: Array, move: Array) -> Unknowns:
    still = jax.tree.map(jnp.zeros_like, unknowns)
    return jax.tree.map(jnp.add, unknowns, from_vectors(change, move, still))
