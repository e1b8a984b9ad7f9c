"""Fluxes and sky that fit best at held shapes: one exact linear solution a band."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import Unknowns, unknowns_of
from diffdeblend.fourier import EXACT, Pair, multiply, shift, to_image
from diffdeblend.scene import Scene, profiles


def solved_fluxes(scene: Scene, problem: Problem) -> Unknowns:
    """The unknowns of `scene` with the fluxes and the sky of least chi2; pure.

    Held fluxes and sky, as `problem.free` says, stay what they are; parts that look alike share
    what they cannot divide.
    """
    unknowns = unknowns_of(scene)
    grid = problem.grid
    values = profiles(scene, grid.modes)
    through = multiply(problem.psf, shift(grid.modes, scene.dx, scene.dy))
    sky = None if scene.background is None else scene.background.basis(grid)
    start = jnp.concatenate([unknowns.flux.T, unknowns.sky], axis=1)
    free = jnp.concatenate([problem.free.flux.T, problem.free.sky], axis=1)

    def one_band(band: tuple[Pair, Array, Array, Array, Array]) -> Array:
        psf, data, weight, fixed, on = band
        images = to_image(multiply(psf, values), grid)
        if sky is not None:
            images = jnp.concatenate([images, sky])
        images = images.reshape(-1, weight.size)
        left = data.reshape(-1) - jnp.matmul((1 - on) * fixed, images, precision=EXACT)
        images = images * on[:, None]
        weighted = images * weight.reshape(-1)
        matrix = jnp.matmul(weighted, images.T, precision=EXACT)
        right = jnp.matmul(weighted, left, precision=EXACT)
        diagonal = jnp.diagonal(matrix)
        scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
        scaled = matrix * scale * scale[:, None]
        ridge = jnp.where(diagonal > 0, 100 * jnp.finfo(scaled.dtype).eps, 1)
        lower = jnp.linalg.cholesky(scaled + jnp.diag(ridge))
        solved = scale * jax.scipy.linalg.cho_solve((lower, True), scale * right)
        return jnp.where(on > 0, solved, fixed)

    # One band at a time bounds the memory.
    linear = jax.lax.map(one_band, (through, problem.data, problem.weight, start, free))
    slots = unknowns.flux.shape[0]
    return eqx.tree_at(
        lambda u: (u.flux, u.sky), unknowns, (linear[:, :slots].T, linear[:, slots:])
    )
