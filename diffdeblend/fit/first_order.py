"""Any Optax transformation on the same objective, with every number in units of its own error."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.fit.arrow import Normal, from_vectors, hold
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.levenberg_marquardt import Solution
from diffdeblend.fit.linear import solved_fluxes
from diffdeblend.fit.normal_matrix import fixed_terms, with_curvature
from diffdeblend.fit.objective import Problem, objective
from diffdeblend.fit.unknowns import Unknowns, scene_of, unknowns_of
from diffdeblend.scene import Scene


class FirstOrder(eqx.Module):
    """Steps along the gradient, made by an Optax transformation.

    Every number is measured in units of its own error at the start, so that a learning rate means
    the same for fluxes in electrons and radii in pixels, and results do not depend on the unit of
    the data.

    - `optimizer`: any `optax.GradientTransformation`. Build it once: a new one compiles again.
    - `max_steps`: most steps.
    - `tolerance`: stop when the best chi2/2 has not fallen by this much in `patience` steps.
    """

    optimizer: optax.GradientTransformationExtraArgs = eqx.field(static=True)
    max_steps: int = eqx.field(static=True, default=1000)
    tolerance: float = eqx.field(static=True, default=0.05)
    patience: int = eqx.field(static=True, default=50)

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        max_steps: int = 1000,
        tolerance: float = 0.05,
        patience: int = 50,
    ):
        self.optimizer = optax.with_extra_args_support(optimizer)
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.patience = patience


class _State(NamedTuple):
    scaled: Unknowns
    optimizer: optax.OptState
    best: Unknowns
    best_value: Float[Array, ""]
    since: Int[Array, ""]
    step: Int[Array, ""]
    history: Float[Array, "step"]
    stuck: Bool[Array, ""]


def first_order(method: FirstOrder, start: Scene, problem: Problem) -> Solution:
    """Minimise the objective from `start`. Pure, one program for each padded shape."""
    origin = solved_fluxes(start, problem)
    unit = _units(origin, start, problem)

    def value_of(scaled: Unknowns) -> Array:
        unknowns = jax.tree.map(lambda o, u, s: o + u * s, origin, unit, scaled)
        return objective(_constrained(unknowns, start), start, problem)

    def advance(state: _State) -> _State:
        value, gradient = jax.value_and_grad(value_of)(state.scaled)
        update, optimizer = method.optimizer.update(
            gradient,
            state.optimizer,
            state.scaled,  # type: ignore[arg-type]  # any pytree will do
            value=value,
            grad=gradient,
            value_fn=value_of,
        )
        scaled: Unknowns = jax.tree.map(jnp.add, state.scaled, update)
        better = value < state.best_value - method.tolerance
        lowest = value < state.best_value
        best = jax.tree.map(lambda a, b: jnp.where(lowest, a, b), state.scaled, state.best)
        since = jnp.where(better, 0, state.since + 1)
        return _State(
            scaled,
            optimizer,
            best,
            jnp.where(lowest, value, state.best_value),
            since,
            state.step + 1,
            state.history.at[state.step].set(value),
            ~jnp.isfinite(value),
        )

    zero = jax.tree.map(jnp.zeros_like, origin)
    value = value_of(zero)
    history = jnp.full(method.max_steps, jnp.nan, dtype=value.dtype)
    first = _State(
        zero,
        method.optimizer.init(zero),
        zero,
        value,
        jnp.asarray(0),
        jnp.asarray(0),
        history,
        jnp.asarray(False),
    )

    def going(state: _State) -> Array:
        return (state.step < method.max_steps) & (state.since < method.patience) & ~state.stuck

    last = jax.lax.while_loop(going, advance, first)
    unknowns = jax.tree.map(lambda o, u, s: o + u * s, origin, unit, last.best)
    return Solution(
        _constrained(unknowns, start),
        last.best_value,
        last.history,
        last.step,
        last.since >= method.patience,
    )


def _normal(unknowns: Unknowns, start: Scene, problem: Problem) -> Normal:
    known = evaluate(unknowns, start, problem, fixed_terms(start, problem), False)
    return hold(with_curvature(known.normal, known.curvature), problem.free)


def _units(unknowns: Unknowns, start: Scene, problem: Problem) -> Unknowns:
    """What each number is measured in: its error with all others held; 0 for held numbers."""
    normal = _normal(unknowns, start, problem)
    linear = 1 / jnp.sqrt(jnp.diagonal(normal.band, axis1=1, axis2=2))
    shape = 1 / jnp.sqrt(jnp.diagonal(normal.shape))
    ones = jax.tree.map(jnp.ones_like, unknowns)
    return jax.tree.map(jnp.multiply, from_vectors(linear, shape, ones), problem.free)


def _constrained(unknowns: Unknowns, start: Scene) -> Unknowns:
    """The unknowns with the constraints of free pixels met."""
    if all(image.size == 0 for image in unknowns.image):
        return unknowns
    scene = scene_of(unknowns, start)
    stacks = [
        eqx.tree_at(lambda s: s.members, stack, jax.vmap(lambda m: m.constrained())(stack.members))
        for stack in scene.sources
    ]
    met = unknowns_of(Scene(stacks, scene.background, scene.dx, scene.dy))
    return eqx.tree_at(lambda u: u.image, unknowns, met.image)
