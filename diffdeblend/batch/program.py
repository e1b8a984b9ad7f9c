"""The compiled part of a batch: blend after blend by the same single fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffdeblend.background import AbstractBackground, ConstantBackground, PolynomialBackground
from diffdeblend.batch.task import Packed
from diffdeblend.components import AnySource, AnyStack
from diffdeblend.deblend.start import BULGE_SHEAR
from diffdeblend.fit.fit import Fit, Method, assess, solve
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.prior import CostedPrior, ShapePrior, shape_prior
from diffdeblend.fit.unknowns import free_numbers
from diffdeblend.grid import Quality
from diffdeblend.parameters import names_of
from diffdeblend.priors.scene_prior import PixelPrior
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene


@dataclass(frozen=True)
class Setup:
    """What all fits of a batch share and what is compiled in.

    - `background`: `"none"`, `"constant"` or `"linear"`.
    - `held`: names of the shape parameters that are held.
    - `covariance`: whether to return the covariance of all numbers, besides their errors.
    - `together`: all tasks of a chunk at once, for accelerators, and not one after the other.
    """

    quality: Quality
    background: str = "constant"
    held: tuple[str, ...] = ()
    covariance: bool = False
    together: bool = False


def fit_one(
    task: Packed,
    psf: AbstractPSF,
    method: Method,
    setup: Setup,
    learned: PixelPrior | None = None,
) -> Fit:
    """The fit of one blend: arrays without the leading axis of `Packed`. Pure."""
    start, weak = start_of(task, setup)
    prior = with_learned(weak, task, learned)
    if isinstance(method, LevenbergMarquardt):
        method = replace(
            method,
            tolerance=method.tolerance * task.tolerance,
            fast_steps=jnp.where(task.exact, 0, method.fast_steps),
        )
    free = free_numbers(start, None)
    if setup.held:
        names = names_of(start.sources[0].member(0))
        varied = jnp.asarray([name not in setup.held for name in names], free.shape[0].dtype)
        free = eqx.tree_at(lambda f: f.shape, free, (free.shape[0] * varied,))
    problem = make_problem(task.data, task.weight, psf, free, prior, setup.quality, task.noise)
    found = assess(solve(start, problem, method), start, problem)
    if not setup.covariance:
        found = eqx.tree_at(lambda f: f.covariance, found, None)
    return found


def start_of(task: Packed, setup: Setup) -> tuple[Scene, ShapePrior]:
    """The scene that a fit starts from, and its prior."""
    n_bands, dtype = task.data.shape[0], task.data.dtype
    n_sources = task.kind.shape[0]

    def stack(columns: Sequence[Array], ellipticity: Array) -> AnyStack:
        x, y, radius, index, ratio, shear = columns
        flux = jnp.zeros((n_sources, AnySource.parts, n_bands), dtype)
        members = jax.vmap(AnySource)(
            flux.at[:, : task.flux.shape[1]].set(task.flux),
            x,
            y,
            radius,
            index,
            ratio,
            ellipticity,
            task.kind,
            shear,
        )
        rank = jnp.where(task.active, jnp.arange(n_sources), -1).astype(jnp.int32)
        return AnyStack(members, task.active, rank, task.slot_owner, task.slot_part)

    sky = background_of(setup.background, n_bands, dtype)
    if sky is not None:
        sky = sky.with_coefficients(task.sky)
    columns = [task.start[:, i] for i in range(6)]
    start = Scene([stack(columns, task.start[:, 6:])], sky)
    still = jnp.zeros_like(task.start[:, 6:])
    one = jnp.ones_like(task.home[:, 0])
    places = [task.home[:, i] for i in range(3)]
    home = stack([*places, 1.5 * one, 0.4 * one, BULGE_SHEAR * one], still)
    # Homes are those of typical galaxies: the largest are 20 times as wide.
    return start, shape_prior(Scene([home]), task.position_error, radius_wall=3.0)


def with_learned(weak: ShapePrior, task: Packed, learned: PixelPrior | None) -> CostedPrior:
    """The prior of a fit: the weak one, or what was learned where it speaks."""
    if learned is None:
        return weak
    return learned.around(weak, width=task.scale, unit=task.unit)


def background_of(word: str, n_bands: int, dtype: jnp.dtype) -> AbstractBackground | None:
    """A sky of zero."""
    if word == "none":
        return None
    if word == "constant":
        return ConstantBackground(jnp.zeros(n_bands, dtype))
    return PolynomialBackground(jnp.zeros((n_bands, 3), dtype))


@eqx.filter_jit
def fit_in_turn(
    tasks: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    method: Method,
    setup: Setup,
    learned: PixelPrior | None = None,
) -> Fit:
    """The first `count` tasks; what is returned has a leading axis.

    On CPU one after the other: what one blend needs stays in the cache, and each stops when it is
    done. Padding costs nothing.
    """

    def one(task: Packed, psf: AbstractPSF) -> Fit:
        return fit_one(task, psf, method, setup, learned)

    return in_turn(one, tasks, psfs, count, together=setup.together)


def in_turn(
    one: Callable[..., Any],
    tasks: Packed,
    psfs: AbstractPSF,
    count: Int[Array, ""],
    *extras: Any,
    together: bool = False,
) -> Any:
    """`one(task, psf, *extras)` for the first `count` tasks, results with a leading axis."""

    # Traced once, for its shapes and for the loop.
    @partial(jax.jit, inline=True)
    def at(i: Array) -> Any:
        task, own = jax.tree.map(lambda leaf: _entry(leaf, i), (tasks, extras))
        return one(task, jax.tree.map(lambda leaf: _entry(leaf, task.psf), psfs), *own)

    def body(i: Array, found: Any) -> Any:
        return jax.tree.map(
            lambda all_, new: jax.lax.dynamic_update_index_in_dim(all_, new, i, 0), found, at(i)
        )

    n = tasks.data.shape[0]
    tasks, extras = jax.tree.map(jnp.asarray, (tasks, extras))
    if together:
        return jax.vmap(at)(jnp.arange(n))
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((n, *leaf.shape), leaf.dtype), jax.eval_shape(at, jnp.asarray(0))
    )
    return jax.lax.fori_loop(0, count, body, empty)


def _entry(leaf: Array, i: Array) -> Array:
    """`leaf[i]`, in fewer steps to trace."""
    return jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
