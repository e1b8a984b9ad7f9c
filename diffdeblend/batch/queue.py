"""The compiled part of a batch on accelerators: a fixed number of lanes, filled up as they end."""

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffdeblend.batch.program import Setup, start_of, with_learned
from diffdeblend.batch.task import Packed
from diffdeblend.fit.fit import Fit, assess
from diffdeblend.fit.levenberg_marquardt import (
    LevenbergMarquardt,
    Solution,
    State,
    Walk,
    goes_on,
)
from diffdeblend.fit.normal_matrix import Fixed, fixed_terms
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import free_numbers
from diffdeblend.fourier import Pair
from diffdeblend.grid import make_grid
from diffdeblend.priors.scene_prior import PixelPrior
from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.abstract import transfer
from diffdeblend.scene import Scene


class _Lanes(NamedTuple):
    """Fits under way, side by side.

    - `task`: of each lane; the number of tasks for a lane that has none.
    - `state`, `fixed`: of each fit.
    - `next`: the first task that no lane has had.
    - `found`: solutions of all tasks so far.
    - `turns`: evaluations of all lanes together, idle ones included.
    """

    task: Int[Array, "lane"]
    state: State
    fixed: Fixed
    next: Int[Array, ""]
    found: Solution
    turns: Int[Array, ""]


@eqx.filter_jit
def fit_in_queue(
    tasks: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    method: LevenbergMarquardt,
    setup: Setup,
    lanes: int,
    every: int = 2,
    learned: PixelPrior | None = None,
) -> tuple[Fit, Int[Array, ""]]:
    """The first `count` tasks, `lanes` at a time; results with a leading axis.

    All lanes take a step together. Every `every` steps those that have ended are given the next
    tasks: the number of lanes never changes, and a blend that takes long holds up nobody.

    Steps are by modes; what does not end in them is not converged. Errors come from the exact
    matrix, made at the end for `lanes` tasks at a time.

    Returns the fits and the number of evaluations made, idle lanes included.
    """
    tasks = jax.tree.map(jnp.asarray, tasks)
    n = tasks.data.shape[0]
    size = tasks.data.shape[-1]
    limit = jnp.minimum(method.limit, method.fast_steps)
    method = replace(method, limit=limit, escalates=False)
    grid = make_grid((size, size), setup.quality)
    transfers = jax.lax.map(lambda psf: transfer(psf, grid, setup.quality), psfs)

    def walk_of(number: Array, fixed: Fixed | None) -> Walk:
        task: Packed = jax.tree.map(lambda leaf: leaf[jnp.minimum(number, n - 1)], tasks)
        start, problem = _problem(task, transfers, setup, learned)
        return Walk(method, start, problem, fixed_terms(start, problem) if fixed is None else fixed)

    def begin(number: Array) -> tuple[State, Fixed]:
        walk = walk_of(number, None)
        return walk.first(), walk.fixed

    def advance(number: Array, state: State, fixed: Fixed) -> State:
        walk = walk_of(number, fixed)
        moved = walk.advance(state)
        active = goes_on(state) & (number < count)
        return jax.tree.map(lambda new, old: jnp.where(active, new, old), moved, state)

    def turn(now: _Lanes) -> _Lanes:
        state = now.state
        for _ in range(every):
            state = jax.vmap(advance)(now.task, state, now.fixed)
        over = ~goes_on(state) & (now.task < count)
        place = jnp.where(over, now.task, n)
        solutions = jax.vmap(lambda number, s, f: walk_of(number, f).solution(s))(
            now.task, state, now.fixed
        )
        found = jax.tree.map(
            lambda all_, new: all_.at[place].set(new, mode="drop"), now.found, solutions
        )
        idle = over | (now.task >= count)
        task = jnp.where(idle, now.next + jnp.cumsum(idle) - 1, now.task)
        fresh_state, fresh_fixed = jax.vmap(begin)(task)

        def refilled(new: Array, old: Array) -> Array:
            return jnp.where(idle.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        state, fixed = jax.tree.map(refilled, (fresh_state, fresh_fixed), (state, now.fixed))
        return _Lanes(
            task, state, fixed, now.next + jnp.sum(idle), found, now.turns + every * lanes
        )

    task = jnp.arange(lanes)
    state, fixed = jax.vmap(begin)(task)
    one = jax.eval_shape(
        lambda t, s, f: walk_of(t, f).solution(s),
        *jax.tree.map(lambda leaf: leaf[0], (task, state, fixed)),
    )
    empty = jax.tree.map(lambda leaf: jnp.zeros((n, *leaf.shape), leaf.dtype), one)
    last = jax.lax.while_loop(
        lambda now: jnp.any(now.task < count),
        turn,
        _Lanes(task, state, fixed, jnp.asarray(lanes), empty, jnp.asarray(0)),
    )

    def finish(numbered: tuple[Array, Solution]) -> Fit:
        number, solution = numbered
        walk = walk_of(number, None)
        found = assess(solution, walk.start, walk.problem)
        if not setup.covariance:
            found = eqx.tree_at(lambda f: f.covariance, found, None)
        return found

    fits = jax.lax.map(finish, (jnp.arange(n), last.found), batch_size=min(lanes, n))
    return fits, last.turns


def _problem(
    task: Packed, transfers: Pair, setup: Setup, learned: PixelPrior | None
) -> tuple[Scene, Problem]:
    start, weak = start_of(task, setup)
    prior = with_learned(weak, task, learned)
    size = task.data.shape[-1]
    grid = make_grid((size, size), setup.quality)
    psf: Any = jax.tree.map(lambda leaf: leaf[task.psf], transfers)
    free = free_numbers(start, None)
    return start, Problem(task.data, task.weight, psf, free, prior, grid, setup.quality, task.noise)
