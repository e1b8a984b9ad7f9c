"""How well the data fix every number: the inverse of the Gauss-Newton matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fit.arrow import (
    Factors,
    Normal,
    factor,
    from_vectors,
    hold,
    linear_vector,
    solve_shape,
)
from diffdeblend.fit.correlated import sandwich, with_scatter
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.normal_matrix import as_matrix, fixed_terms, prior_terms, with_curvature
from diffdeblend.fit.objective import Problem
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.parameters import domains, unpack
from diffdeblend.scene import Scene


class Covariance(eqx.Module):
    """Covariance of all numbers of a fit, in the form of an arrow: nothing is held while another
    is judged.

    Shapes are in their mapped variables, source by source as in `Unknowns.flat_shape`; the unknowns
    of a band are its fluxes slot by slot, sky coefficients, dx and dy.

    - `shape`: covariance of the shapes, `(shape, shape)`.
    - `alone`: covariance of the unknowns of each band at held shapes, `(band, linear, linear)`.
    - `response`: minus their change for a unit change of each shape, `(band, linear, shape)`.
    - `free`: 1 for free numbers; a held one has no variance.
    - `n_effective`: number of parameters that the data fix; a prior takes its part away.
    """

    shape: Float[Array, "shape shape"]
    alone: Float[Array, "band linear linear"]
    response: Float[Array, "band linear shape"]
    free: Unknowns
    n_effective: Float[Array, ""]

    def band(self, first: int, second: int | None = None) -> Float[Array, "linear linear"]:
        """Covariance of the unknowns of a band, or between those of two bands."""
        second = first if second is None else second
        shared = self.response[first] @ self.shape @ self.response[second].T
        return shared + self.alone[first] if first == second else shared

    def dense(self) -> Float[Array, "all all"]:
        """The whole matrix: the unknowns of each band in turn, then the shapes."""
        n_bands, n_linear, n_shape = self.response.shape
        flat = self.response.reshape(n_bands * n_linear, n_shape)
        linear = flat @ self.shape @ flat.T
        for b in range(n_bands):
            block = slice(b * n_linear, (b + 1) * n_linear)
            linear = linear.at[block, block].add(self.alone[b])
        cross = -flat @ self.shape
        return jnp.block([[linear, cross], [cross.T, self.shape]])


def covariance(
    unknowns: Unknowns, template: Scene, problem: Problem, data: Normal | None = None
) -> Covariance:
    """The marginal covariance with the weight of every pixel, and with the correlation of the noise
    where the problem knows it; jit-compatible.

    - `data`: the matrix of the data, where it is known; else it is made by pixels.
    """
    middle = None
    if problem.noise is not None:
        data, middle = with_scatter(unknowns, template, problem)
    elif data is None:
        fixed = fixed_terms(template, problem)
        data = evaluate(unknowns, template, problem, fixed, True).normal
    curvature = as_matrix(prior_terms(unknowns, template, problem)[2])
    normal = hold(with_curvature(data, curvature), problem.free)
    factors: Factors = factor(normal, jnp.zeros((), dtype=data.shape.dtype))
    free_linear, free_shape = linear_vector(problem.free), problem.free.flat_shape
    shape = solve_shape(factors, jnp.diag(free_shape))
    shape = 0.5 * (shape + shape.T) * free_shape * free_shape[:, None]
    # One after the other: see `stacks`.
    inverse = jax.lax.map(_inverse, factors.lower)
    scale = factors.scale * free_linear * _does_something(data)
    alone = inverse * scale[:, :, None] * scale[:, None, :]
    fixed = jnp.sum(scale > 0) + jnp.sum(free_shape * (jnp.diagonal(data.shape) > 0))
    by_prior = jnp.sum(curvature * shape, axis=1)
    n_effective = fixed - jnp.sum(by_prior * (jnp.diagonal(data.shape) > 0))
    response = factors.response
    if middle is not None:
        # The prior scatters as its curvature says, as one more datum would.
        middle = Normal(
            middle.band * free_linear[:, :, None] * free_linear[:, None, :],
            middle.cross * free_linear[:, :, None] * free_shape,
            (middle.shape + curvature) * free_shape * free_shape[:, None],
        )
        shape, alone, response = sandwich(factors, shape, middle)
    return Covariance(shape, alone, response, problem.free, n_effective)


def errors(found: Covariance, unknowns: Unknowns, template: Scene) -> Scene:
    """One standard deviation of every number of a scene, in the number's place.

    Flags and other numbers that are not fitted are kept, but for what stacks share.
    Jit-compatible.
    """
    shared = jnp.einsum("blt,tu,blu->bl", found.response, found.shape, found.response)
    variance = shared + jnp.diagonal(found.alone, axis1=1, axis2=2)
    sigma = jnp.sqrt(jnp.maximum(variance, 0))
    placed = from_vectors(sigma, jnp.zeros_like(unknowns.flat_shape), unknowns)
    stacks, start, slot = [], 0, 0
    for stack, vector in zip(template.sources, unknowns.shape, strict=True):
        size, parameters = vector.shape
        blocks = jnp.stack(
            [
                found.shape[
                    start + s * parameters : start + (s + 1) * parameters,
                    start + s * parameters : start + (s + 1) * parameters,
                ]
                for s in range(size)
            ]
        )
        start += size * parameters

        def physical(member: eqx.Module, mapped: Array, block: Array) -> eqx.Module:
            names = list(domains(member))

            def values(v: Array) -> Array:
                changed = unpack(member, v)
                return jnp.concatenate([getattr(changed, n).reshape(-1) for n in names])

            by_mapped = jax.jacfwd(values)(mapped)
            sigmas = jnp.sqrt(
                jnp.maximum(jnp.einsum("ij,jk,ik->i", by_mapped, block, by_mapped), 0)
            )
            out, at = member, 0
            for name in names:
                value = getattr(member, name)
                piece = sigmas[at : at + value.size].reshape(value.shape)
                at += value.size
                out = eqx.tree_at(lambda m, n=name: getattr(m, n), out, piece)
            return out

        members = jax.vmap(physical)(stack.members, vector, blocks)
        slots = stack.n_slots
        stack = eqx.tree_at(lambda s: s.members, stack, members)
        stacks.append(stack.with_flux(placed.flux[slot : slot + slots]))
        slot += slots
    background = template.background
    if background is not None:
        background = background.with_coefficients(placed.sky)
    return Scene(stacks, background, placed.dx, placed.dy).without_shared()


def total_flux_errors(found: Covariance, scene: Scene) -> Float[Array, "source band"]:
    """One standard deviation of each source's total flux, stack by stack; 0 for padding."""
    adds = jax.scipy.linalg.block_diag(*[stack.membership for stack in scene.sources])
    slots = adds.shape[1]
    by_shape = jnp.einsum("sl,blt->bst", adds, found.response[:, :slots])
    shared = jnp.einsum("bst,tu,bsu->sb", by_shape, found.shape, by_shape)
    alone = jnp.einsum("sl,blm,sm->sb", adds, found.alone[:, :slots, :slots], adds)
    return jnp.sqrt(jnp.maximum(shared + alone, 0))


def _inverse(lower: Array) -> Array:
    half = jax.scipy.linalg.solve_triangular(
        lower, jnp.eye(lower.shape[0], dtype=lower.dtype), lower=True
    )
    return half.T @ half


def _does_something(data: Normal) -> Array:
    return (jnp.diagonal(data.band, axis1=1, axis2=2) > 0).astype(data.band.dtype)
