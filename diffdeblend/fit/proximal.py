"""Free pixels by proximal gradient steps: positive, constrained, pulled to where they start."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.components import Pixels, Stack
from diffdeblend.fit.levenberg_marquardt import Solution
from diffdeblend.fit.linear import solved_fluxes
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import scene_of, unknowns_of
from diffdeblend.fourier import EXACT, Pair, multiply, shift, to_image
from diffdeblend.scene import Scene, profiles, slot_flux


class ProximalGradient(eqx.Module):
    r"""Accelerated proximal gradient steps (FISTA with restart) on the weights of free pixels.

    A weight is what it was at the start times 1 + z, the same z in all parts of a source, so that
    its colours stay where they were; z is not below -1 and costs $z^2 / 2 \\tau^2$. Fluxes of all
    sources and the sky are solved in alternation, and other shapes are held.

    - `max_steps`: most steps on the weights.
    - `rounds`: how often fluxes and sky are solved in between.
    - `freedom`: $\\tau$, the standard deviation of the relative change of one pixel.
    - `tolerance`: converged when the last round lowered the objective by less than this.

    ??? cite
        Beck & Teboulle (2009), SIAM J. Imaging Sci. 2, 183; O'Donoghue & Candes (2015).
    """

    max_steps: int = eqx.field(static=True, default=60)
    rounds: int = eqx.field(static=True, default=4)
    freedom: float = eqx.field(static=True, default=0.5)
    tolerance: float = eqx.field(static=True, default=0.5)


class _Walk(NamedTuple):
    change: Float[Array, "source h w"]
    ahead: Float[Array, "source h w"]
    pace: Float[Array, ""]
    value: Float[Array, ""]


def proximal_gradient(method: ProximalGradient, start: Scene, problem: Problem) -> Solution:
    """Minimise from `start`; its one stack of `Pixels` is varied. Pure.

    **Raises:** `ValueError` if the scene has not exactly one stack of `Pixels`.
    """
    places = [i for i, s in enumerate(start.sources) if isinstance(s.members, Pixels)]
    if len(places) != 1:
        raise ValueError(
            f"`ProximalGradient` needs a scene with one stack of `Pixels`; got {len(places)}."
        )
    place = places[0]
    steps = max(1, method.max_steps // method.rounds)
    free = problem.free.image[place].max(axis=1)[:, None, None]
    reference = _normalised(_pixels(start.sources[place]))
    change = jnp.zeros((start.sources[place].size, *reference.shape[-2:]), dtype=reference.dtype)

    def one_round(carry: tuple[Scene, Array], _: None) -> tuple[tuple[Scene, Array], Array]:
        scene, change = carry
        scene = scene_of(solved_fluxes(scene, problem), scene)
        change, value = _walk(scene, place, reference, change, free, steps, method, problem)
        return (_with_change(scene, place, reference, change), change), value

    (scene, change), history = jax.lax.scan(one_round, (start, change), None, length=method.rounds)
    unknowns = solved_fluxes(scene, problem)
    fall = history[-2] - history[-1] if method.rounds > 1 else jnp.asarray(jnp.inf)
    return Solution(
        unknowns_of(scene_of(unknowns, scene)),
        history[-1],
        history,
        jnp.asarray(steps * method.rounds),
        jnp.abs(fall) < method.tolerance,
    )


def _walk(
    scene: Scene,
    place: int,
    reference: Array,
    change: Array,
    free: Array,
    steps: int,
    method: ProximalGradient,
    problem: Problem,
) -> tuple[Array, Array]:
    """Steps on z at held fluxes; returns z and the objective there."""
    grid = problem.grid
    stack = scene.sources[place]
    members = _pixels(stack)
    through = multiply(problem.psf, shift(grid.modes, scene.dx, scene.dy))
    # Sum of the weights now in use: fluxes refer to profiles of unit sum.
    total = jnp.sum(_scaled(reference, change), axis=(-2, -1), keepdims=True)
    share = reference / jnp.where(total > 0, total, 1)
    fixed = _without(scene, place)
    base = problem.data - _image(fixed, through, problem)
    flux = stack.flux.reshape(stack.size, stack.parts, -1)

    def light(z: Array) -> Array:
        """Image of the free pixels' share that z multiplies; linear."""
        weights = share * z.reshape(z.shape[0], *[1] * (share.ndim - 3), *z.shape[1:])

        def one(member: Pixels, values: Array) -> Pair:
            return member.linear_fourier(values, grid.modes)

        re, im = jax.vmap(one)(members, weights)
        shape = (stack.size, stack.parts, re.shape[-1])
        active = stack.active.astype(re.dtype)[:, None, None]
        summed = tuple(
            jnp.einsum("spb,spk->bk", flux * active, part.reshape(shape), precision=EXACT)
            for part in (re, im)
        )
        return to_image(multiply((summed[0], summed[1]), through), grid)

    plain = light(jnp.ones_like(change))

    def smooth(z: Array) -> Array:
        return 0.5 * jnp.sum(problem.weight * (base - plain - light(z)) ** 2) + 0.5 * jnp.sum(
            (z / method.freedom) ** 2
        )

    def proximal(z: Array) -> Array:
        z = jnp.maximum(z, -1) * free
        weights = _scaled(reference, z)
        changed = eqx.tree_at(lambda m: m.morphology, members, weights)
        met = jax.vmap(lambda m: m.constrained())(changed).morphology
        if members.monotonic or members.symmetric:
            # The parts share one z: take the first.
            first = met.reshape(met.shape[0], -1, *met.shape[-2:])[:, 0]
            whole = reference.reshape(first.shape[0], -1, *first.shape[-2:])[:, 0]
            z = jnp.where(whole > 0, first / jnp.where(whole > 0, whole, 1) - 1, z) * free
        return z

    # Each pixel in units of its own error: else the core of a bright star sets the pace of all.
    by_part = share.reshape(stack.size, stack.parts, *change.shape[1:])
    seen = jnp.einsum("spb,spyx->bsyx", flux, by_part)
    sharp = members.spread(grid.modes)
    passed = (sharp * through[0]) ** 2 + (sharp * through[1]) ** 2
    power_of_psf = jnp.sum(grid.mode_weight * passed, axis=1)
    used = jnp.maximum(jnp.sum(problem.weight > 0, axis=(1, 2)), 1)
    depth = power_of_psf * jnp.sum(problem.weight, axis=(1, 2)) / used
    curvature = jnp.einsum("b,bsyx->syx", depth, seen**2) + 1 / method.freedom**2
    unit = free / jnp.sqrt(curvature)
    gradient = jax.grad(smooth)
    flat = gradient(jnp.zeros_like(change))

    def power(_: int, vector: Array) -> Array:
        pushed = unit * (gradient(unit * vector) - flat)
        return pushed / jnp.maximum(jnp.linalg.norm(pushed), 1e-30)

    probe = jax.lax.fori_loop(0, 8, power, free * jnp.ones_like(change) / change.size**0.5)
    # The power method approaches from below; 1.2 covers what is left.
    largest = jnp.linalg.norm(unit * (gradient(unit * probe) - flat))
    length = unit**2 / (1.2 * jnp.maximum(largest, 1))

    def step(_: int, walk: _Walk) -> _Walk:
        new = proximal(walk.ahead - length * gradient(walk.ahead))
        value = smooth(new)
        uphill = value > walk.value
        pace = jnp.where(uphill, 1.0, 0.5 * (1 + jnp.sqrt(1 + 4 * walk.pace**2)))
        push = jnp.where(uphill, 0.0, (walk.pace - 1) / pace)
        new = jnp.where(uphill, walk.change, new)
        return _Walk(
            new, new + push * (new - walk.change), pace, jnp.where(uphill, walk.value, value)
        )

    first = _Walk(change, change, jnp.ones((), dtype=change.dtype), smooth(change))
    last = jax.lax.fori_loop(0, steps, step, first)
    return last.change, last.value


def _pixels(stack: Stack) -> Pixels:
    assert isinstance(stack.members, Pixels)
    return stack.members


def _normalised(members: Pixels) -> Array:
    total = jnp.sum(members.morphology, axis=(-2, -1), keepdims=True)
    return members.morphology / jnp.where(total > 0, total, 1)


def _scaled(reference: Array, change: Array) -> Array:
    shape = (change.shape[0], *[1] * (reference.ndim - 3), *change.shape[1:])
    return reference * (1 + change.reshape(shape))


def _with_change(scene: Scene, place: int, reference: Array, change: Array) -> Scene:
    """The scene with changed weights and fluxes that follow their sum."""
    stack = scene.sources[place]
    weights = _scaled(reference, change)
    pixels = _pixels(stack)
    before = jnp.sum(pixels.morphology, axis=(-2, -1))
    # Fluxes refer to unit sum: a part whose weights grew has more flux.
    growth = jnp.sum(weights, axis=(-2, -1)) / jnp.where(before > 0, before, 1)
    flux = stack.members.flux * growth[..., None]
    members = eqx.tree_at(lambda m: (m.morphology, m.flux), stack.members, (weights, flux))
    stacks = list(scene.sources)
    stacks[place] = Stack(members, stack.active, stack.rank)
    return Scene(stacks, scene.background, scene.dx, scene.dy)


def _without(scene: Scene, place: int) -> Scene:
    """The scene with the free pixels dark."""
    stack = scene.sources[place]
    dark = stack.with_flux(jnp.zeros_like(stack.flux))
    stacks = list(scene.sources)
    stacks[place] = dark
    return Scene(stacks, scene.background, scene.dx, scene.dy)


def _image(scene: Scene, through: Pair, problem: Problem) -> Array:
    re, im = profiles(scene, problem.grid.modes)
    flux = slot_flux(scene)
    summed = tuple(jnp.matmul(flux.T, part, precision=EXACT) for part in (re, im))
    image = to_image(multiply((summed[0], summed[1]), through), problem.grid)
    if scene.background is not None:
        image = image + scene.background(problem.grid)
    return image
