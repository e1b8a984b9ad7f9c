"""Objective and gradient of a scene from its columns, where these are known without autodiff.

The gradient is the product of the columns with the residual: of the light of a learned galaxy, all
derivatives are made for the matrix anyway. Of galaxies beside parametric sources one copy of the
drawing is compiled, and none backwards: half of what two matrices and autodiff take.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.columns import Columns, knows_columns
from diffdeblend.fit.normal_matrix import rows_of
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.fourier import EXACT, multiply, multiply_conjugate, shift, to_image, to_modes
from diffdeblend.scene import Scene


def is_by_columns(scene: Scene, problem: Problem) -> bool:
    """Whether `chi2_of_columns` is for this scene at this quality.

    Not for learned galaxies alone: their gradient compiles fast, and a matrix by modes is quicker.
    """
    mixed = not all(stack.members.has_columns for stack in scene.sources)
    return mixed and knows_columns(scene) and not problem.quality.corrections


def chi2_of_columns(
    unknowns: Unknowns, template: Scene, problem: Problem, columns: Columns
) -> tuple[Float[Array, "band"], Unknowns]:
    """chi2 of each band, and the gradient of half their sum.

    - `columns`: on all modes of the problem's grid.
    """
    grid, modes = problem.grid, problem.grid.modes
    n_modes, n_slots = modes.kx.size, columns.n_slots
    lit = _dot(unknowns.flux.T, columns.modes[:n_slots])
    spectrum = (lit[:, :n_modes], lit[:, n_modes:])
    through = multiply(problem.psf, shift(modes, unknowns.dx, unknowns.dy))
    through = jax.lax.optimization_barrier(through)
    image = to_image(multiply(spectrum, through), grid)
    sky = None if template.background is None else template.background.basis(grid)
    if sky is not None:
        image = image + jnp.einsum("bn,nyx->byx", unknowns.sky, sky, precision=EXACT)
    difference = problem.data - image
    weighted = jax.lax.optimization_barrier(problem.weight * difference)
    chi2 = jnp.sum(weighted * difference, axis=(1, 2))

    # What a unit of light in each mode, before the PSF, takes off chi2/2.
    worth = multiply_conjugate(through, to_modes(weighted, grid))
    worth = jax.lax.optimization_barrier((worth[0] * grid.mode_weight, worth[1] * grid.mode_weight))
    by_row = -_dot(jnp.concatenate(worth, axis=1), columns.modes.T)
    by_unknown = jnp.einsum(
        "br,brt->t", by_row[:, n_slots:], rows_of(columns, unknowns), precision=EXACT
    )
    by_sky = jnp.zeros_like(unknowns.sky)
    if sky is not None:
        by_sky = -jnp.einsum("byx,nyx->bn", weighted, sky, precision=EXACT)
    # Moving by d multiplies by exp(-i k d): the derivative at 0 is -i k.
    turned = spectrum[0] * worth[1] - spectrum[1] * worth[0]
    gradient = Unknowns(
        shape=tuple(jnp.zeros_like(part) for part in unknowns.shape),
        image=unknowns.image,
        flux=by_row[:, :n_slots].T,
        sky=by_sky,
        dx=jnp.sum(modes.kx * turned, axis=1),
        dy=jnp.sum(modes.ky * turned, axis=1),
    )
    return chi2, gradient.with_flat_shape(by_unknown[:-2])


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)
