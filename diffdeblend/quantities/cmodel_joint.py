"""The fit of both profiles of a galaxy at once: two ellipses, their amplitudes eliminated.

Fitted alone, a spheroid is drawn out by the light of the disc around it, and the sum of both is too
bright. Together they share the light; what data cannot tell is said by a prior on how they lie.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT
from diffdeblend.quantities.cmodel_amplitudes import Amplitudes, Sums, two_amplitudes
from diffdeblend.quantities.cmodel_fit import Coarse, coarse_rows
from diffdeblend.quantities.cmodel_images import profile_image, profile_images
from diffdeblend.quantities.cmodel_minimise import Normal, Shape, minimise, solve
from diffdeblend.quantities.cmodel_problem import (
    Problem,
    Settings,
    at_bound,
    prior_curvature,
    prior_value,
)
from diffdeblend.quantities.cmodel_profiles import Profile

Profiles = tuple[Profile, Profile]
# Rows of images: disc, its derivatives, spheroid, its derivatives, spheroid less disc.
_DERIVATIVES = np.array([1, 2, 3, 5, 6, 7])


def pair_prior(settings: Settings, problem: Problem, numbers: Float[Array, "6"]) -> Array:
    """Minus the logarithm of the prior of two shapes, but for a constant."""
    disc, bulge = numbers[:3], numbers[3:]
    pair = settings.pair
    apart = bulge - disc
    alone = prior_value(settings.prior, problem, disc) + prior_value(settings.prior, problem, bulge)
    ratio = (apart[0] - np.log(pair.ratio)) / pair.ratio_sigma
    lie = apart[1:] / pair.shear_sigma
    return alone + 0.5 * (ratio**2 + lie @ lie)


def _pair_curvature(settings: Settings, problem: Problem, numbers: Array) -> Float[Array, "6 6"]:
    alone = [prior_curvature(settings.prior, problem, v) for v in (numbers[:3], numbers[3:])]
    pair = settings.pair
    link = np.diag([pair.ratio_sigma**-2, pair.shear_sigma**-2, pair.shear_sigma**-2])
    both = jnp.asarray(np.block([[link, -link], [-link, link]]), numbers.dtype)
    return jnp.diag(jnp.concatenate(alone)) + both


class _Tangent(NamedTuple):
    """How a model moves with its six numbers where the amplitudes follow.

    - `move`: rows of images that each number moves, `(6, 9)`.
    - `matrix`: the Gauss-Newton matrix, without the prior.
    """

    move: Float[Array, "6 9"]
    matrix: Float[Array, "6 6"]


def _tangent(gram: Float[Array, "9 9"], made: Amplitudes) -> _Tangent:
    rows = np.arange(6)
    move = jnp.zeros((6, 9), gram.dtype).at[rows, _DERIVATIVES].set(_own(made))
    # Less what the amplitudes can make of it.
    shared = (move @ gram[:, ::8]) @ made.basis.T
    move = move.at[:, ::8].add(-shared @ made.basis)
    return _Tangent(move, move @ gram @ move.T)


def _normal(
    rows: Float[Array, "9 n"],
    weight: Float[Array, "n"],
    weighed: Float[Array, "n"],
    problem: Problem,
    settings: Settings,
    numbers: Float[Array, "6"],
) -> Normal:
    """Objective, gradient and matrix of two shapes.

    - `rows`: images of both profiles; `weight`: of each pixel; `weighed`: data with weights.
    """
    weighted = jax.lax.optimization_barrier(rows * weight)
    gram = jnp.matmul(weighted, rows.T, precision=EXACT)
    made = two_amplitudes(gram[::4, ::4], jnp.matmul(rows[::4], weighed, precision=EXACT))
    flux, of_bulge = made.values
    model = flux * rows[0] + of_bulge * rows[8]
    residual = jax.lax.optimization_barrier(weighed - weight * model)
    left = jnp.matmul(rows[_DERIVATIVES], residual, precision=EXACT)
    # But for the square of the data, which would drown it in float32.
    value = -0.5 * jnp.sum(model * (weighed + residual))
    slope = jax.grad(partial(pair_prior, settings, problem))(numbers)
    return Normal(
        value + pair_prior(settings, problem, numbers),
        slope - _own(made) * left,
        _tangent(gram, made).matrix + _pair_curvature(settings, problem, numbers),
    )


def _own(made: Amplitudes) -> Float[Array, "6"]:
    """The flux that each number shapes."""
    flux, of_bulge = made.values
    return jnp.repeat(jnp.stack([flux - of_bulge, of_bulge]), 3)


def joint_images(
    profiles: Profiles, problem: Problem, numbers: Float[Array, "6"], settings: Settings
) -> Float[Array, "9 y x"]:
    """Of each profile the image and its derivatives, and the second image less the first."""
    disc, bulge = (
        profile_images(profile, problem, own, settings)
        for profile, own in zip(profiles, (numbers[:3], numbers[3:]), strict=True)
    )
    return _nine(disc, bulge)


def _nine(disc: Array, bulge: Array) -> Array:
    return jnp.concatenate([disc, bulge, (bulge[0] - disc[0])[None]])


def _on_pixels(profiles: Profiles, problem: Problem, settings: Settings, numbers: Array) -> Normal:
    rows = joint_images(profiles, problem, numbers, settings).reshape(9, -1)
    weight, data = problem.weight.reshape(-1), problem.data.reshape(-1)
    return _normal(rows, weight, weight * data, problem, settings, numbers)


def _on_modes(
    profiles: Profiles, coarse: Coarse, problem: Problem, settings: Settings, numbers: Array
) -> Normal:
    disc, bulge = (
        coarse_rows(profile, coarse, own)
        for profile, own in zip(profiles, (numbers[:3], numbers[3:]), strict=True)
    )
    rows = jax.lax.optimization_barrier(_nine(disc, bulge))
    return _normal(rows, coarse.power, coarse.cross, problem, settings, numbers)


def _search(
    profiles: Profiles, settings: Settings, problem: Problem, coarse: Coarse, start: Array
) -> Shape:
    near = minimise(
        partial(_on_modes, profiles, coarse, problem, settings),
        *(start, problem, settings, settings.coarse_steps),
    )
    found = minimise(
        partial(_on_pixels, profiles, problem, settings),
        *(near.numbers, problem, settings, settings.fine_steps),
    )
    return found._replace(steps=found.steps + near.steps)


def _objective(
    profiles: Profiles, settings: Settings, numbers: Float[Array, "6"], problem: Problem
) -> Float[Array, ""]:
    """chi2 / 2 with the amplitudes eliminated, and the prior."""
    disc, bulge = (
        profile_image(profile, problem, own, settings)
        for profile, own in zip(profiles, (numbers[:3], numbers[3:]), strict=True)
    )
    rows = jnp.stack([disc, bulge, bulge - disc]).reshape(3, -1)
    weight, data = problem.weight.reshape(-1), problem.data.reshape(-1)
    weighted = rows * weight
    gram = jnp.matmul(weighted, rows.T, precision=EXACT)
    flux, of_bulge = two_amplitudes(gram, jnp.matmul(weighted, data, precision=EXACT)).values
    residual = data - flux * rows[0] - of_bulge * rows[2]
    return 0.5 * jnp.sum(weight * residual**2) + pair_prior(settings, problem, numbers)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def fit_joint(
    profiles: Profiles, settings: Settings, problem: Problem, coarse: Coarse, start: Array
) -> Shape:
    """The two shapes that fit best together, `(6,)`; derivatives as those of `fit_shape`.

    - `start`: shapes to start from, `(6,)`.
    """
    return _search(profiles, settings, problem, coarse, start)


@fit_joint.defjvp
def _fit_joint_jvp(profiles, settings, primals, tangents):
    problem, _, _ = primals
    found = _search(profiles, settings, *primals)
    slope = jax.grad(partial(_objective, profiles, settings))
    _, change = jax.jvp(lambda p: slope(found.numbers, p), (problem,), (tangents[0],))
    curvature = jax.jacfwd(slope)(found.numbers, problem)
    ends = [at_bound(problem, settings.prior, v) for v in (found.numbers[:3], found.numbers[3:])]
    free = jnp.ones_like(change).at[::3].set(jnp.where(jnp.stack(ends), 0, 1))
    curvature = curvature * free[:, None] * free + jnp.diag(1 - free)
    zero: list[Any] = [
        np.zeros(jnp.shape(v), jax.dtypes.float0) for v in (found.steps, found.converged)
    ]
    return found, Shape(-solve(curvature, change * free), *zero)


def joint_response(
    numbers: Float[Array, "6"],
    sums: Sums,
    made: Amplitudes,
    problem: Problem,
    settings: Settings,
) -> Float[Array, "9"]:
    """How much the total flux follows the sums of all images, by way of amplitudes and ellipses.

    First order: noise moves the ellipses as the Gauss-Newton matrix says, and these the flux.
    """
    tangent = _tangent(sums.gram, made)
    prior = settings.prior
    # Of a radius at its bound nothing moves, whatever the brightness.
    ends = jnp.stack([at_bound(problem, prior, v) for v in (numbers[:3], numbers[3:])])
    held = jnp.where(ends, 1e6, 0.0) * (1 + jnp.diagonal(tangent.matrix)[::3])
    extra = jnp.zeros_like(numbers).at[::3].set(held + 1 / prior.resolution**2)
    curvature = tangent.matrix + _pair_curvature(settings, problem, numbers) + jnp.diag(extra)
    filters = jnp.zeros_like(sums.data).at[::8].set(made.filters)
    # What an ellipse's move takes from the flux.
    taken = _own(made) * (sums.gram @ filters)[_DERIVATIVES]
    return filters - solve(curvature, taken) @ tangent.move
