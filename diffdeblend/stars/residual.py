r"""What the stars show beyond a Moffat profile: a few smooth functions, as far as noise allows.

The PSF is the profile plus $\sum_j c_j(x, y)\, \phi_j$, with $\phi_j$ the products of
Gauss-Hermite functions of total order 2 to `ORDER` whose width follows the seeing (Refregier 2003,
MNRAS 338, 35). They are evaluated at the stars' own pixels, so nothing is resampled. The
coefficients of one order and one degree over the image share a Gaussian prior with a width found by
evidence: where the stars show nothing it goes to zero, and the PSF stays the profile.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.polynomials import n_terms
from diffdeblend.stars.backbone import (
    Backbone,
    eliminate,
    group_of_terms,
    normal_equations,
    outlier_weight,
    pixel_variance,
    shape_at,
    solve_with_prior,
    weight_of_stars,
)
from diffdeblend.stars.moffat import moffat_templates
from diffdeblend.stars.stamps import StarStack

ORDER = 6
DEGREE = 2
_STEPS, _EVIDENCE = 3, 8
_LOCAL = 4
_EXACT = jax.lax.Precision.HIGHEST
# Width of the prior to begin with, as a fraction of the norm of the PSF.
_START = 0.03


class Corrected(NamedTuple):
    """A backbone that was fitted along, with the coefficients of the functions `(function, term)`.

    - `power`: what the functions add to the norm of the PSF, as a fraction of it, by order.
    """

    backbone: Backbone
    coefficients: Float[Array, "function term"]
    sigma: Float[Array, ""]
    power: Float[Array, "order"]


def orders() -> list[tuple[int, int]]:
    """(i, j) of each function: Hermite order along x and y, without flux and place."""
    return [(n - j, j) for n in range(2, ORDER + 1) for j in range(n + 1)]


def hermite_functions(
    offset: Float[Array, "n w"], sigma: float | Float[Array, ""]
) -> list[Float[Array, "n w"]]:
    """Orthonormal Gauss-Hermite functions of order 0 to `ORDER` at offsets in pixels."""
    u = offset / sigma
    values = [jnp.exp(-0.5 * u**2) / jnp.sqrt(jnp.sqrt(jnp.pi) * sigma)]
    values.append(jnp.sqrt(2.0) * u * values[0])
    for n in range(1, ORDER):
        values.append(u * jnp.sqrt(2 / (n + 1)) * values[-1] - np.sqrt(n / (n + 1)) * values[-2])
    return values


def residual_functions(
    x: Float[Array, "n"], y: Float[Array, "n"], sigma: float | Float[Array, ""], size: int
) -> Float[Array, "n function size size"]:
    """All functions on stamps, centred (x, y) away from the middle pixel."""
    offset = jnp.arange(size) - (size - 1) / 2
    along_x = hermite_functions(offset - x[:, None], sigma)
    along_y = hermite_functions(offset - y[:, None], sigma)
    left = jnp.stack([along_y[j] for _, j in orders()], axis=1)
    right = jnp.stack([along_x[i] for i, _ in orders()], axis=1)
    return left[..., :, None] * right[..., None, :]


@partial(jax.jit, static_argnames=("degree",))
def fit_residual(
    stack: StarStack,
    terms: Float[Array, "term n"],
    backbone: Backbone,
    model_error: float | Float[Array, ""],
    *,
    degree: int,
) -> Corrected:
    """Gauss-Newton steps on functions, fields and stars together, from a fitted backbone.

    Arguments as those of `fit_backbone`; the fields keep the priors that were learned there.
    """
    dtype = terms.dtype
    n_shape, count = 4, n_terms(degree)
    flat_terms = terms[: n_terms(DEGREE)]
    functions = orders()
    size = stack.data.shape[1]
    sigma = jnp.clip(backbone.fields[0, 0], 1.5, None) / 2.355
    # Groups: one for each order and each degree over the image.
    order = np.array([i + j for i, j in functions]) - 2
    of_place = group_of_terms(min(DEGREE, degree))
    group = (order[:, None] * (DEGREE + 1) + of_place[None, :]).ravel()
    same = jnp.asarray(group[:, None] == group[None, :], dtype)
    centre = jnp.zeros_like(backbone.fields).at[:, 0].set(backbone.fields[:, 0])
    norm = 1 / (2 * np.sqrt(np.pi) * sigma)
    first = jnp.full(group.size, 1.0, dtype) * (_START * norm) ** 2 / len(functions)
    n_fields = n_shape * count
    start = (
        backbone.fields,
        jnp.zeros((len(functions), flat_terms.shape[0]), dtype),
        backbone.x,
        backbone.y,
        backbone.flux,
        backbone.sky,
        first,
        backbone.chi2,
        backbone.weight,
        backbone.covariance,
    )

    def step(_: int, state: tuple) -> tuple:
        fields, found, x, y, flux, sky, prior, _, _, _ = state
        m = moffat_templates(x, y, shape_at(fields, terms), size)
        basis = residual_functions(x, y, sigma, size)
        local_found = jnp.matmul(found, flat_terms, precision=_EXACT)
        value = m.value + jnp.einsum("fn,nfyx->nyx", local_found, basis, precision=_EXACT)
        f = flux[:, None, None]
        light = f * value
        residual = stack.data - light - sky[:, None, None]
        noise = pixel_variance(stack, light, model_error)
        square = residual**2 / noise
        star_weight = weight_of_stars(square, stack.good)
        chi2 = jnp.sum(jnp.where(stack.good, square, 0), (1, 2)) / jnp.maximum(
            stack.good.sum((1, 2)), 1
        )
        weight = stack.good / noise * outlier_weight(square) * star_weight[:, None, None]
        blocks = (value, f * m.x, f * m.y, jnp.ones_like(value), f * m.fwhm, f * m.g1, f * m.g2)
        added = (f * basis[:, k] for k in range(len(functions)))
        every = jax.lax.optimization_barrier((*blocks, f * m.t, *added))
        gram, vector = normal_equations(every, weight, residual)
        inverse, schur, reduced = eliminate(gram, vector)
        matrix, right = _assemble(schur, reduced, terms, flat_terms, n_shape)
        pull = jnp.concatenate([(centre - fields).ravel(), -found.ravel()])

        # The widths of the priors, on the quadratic form as it is here (MacKay 1992).
        def learn(_: int, prior: Array) -> Array:
            both = jnp.concatenate([backbone.prior.ravel(), prior])
            change, covariance = solve_with_prior(matrix, right, both, pull)
            new = found.ravel() + change[n_fields:]
            spread = jnp.diagonal(covariance)[n_fields:]
            known = jnp.matmul(same, 1 - spread / prior, precision=_EXACT)
            power = jnp.matmul(same, new**2, precision=_EXACT)
            return jnp.clip(power / jnp.maximum(known, 1e-3), 1e-6 * first, 100 * first)

        prior = jax.lax.fori_loop(0, _EVIDENCE, learn, prior)
        both = jnp.concatenate([backbone.prior.ravel(), prior])
        change, covariance = solve_with_prior(matrix, right, both, pull)
        shape_change = change[:n_fields].reshape(n_shape, count)
        found_change = change[n_fields:].reshape(found.shape)
        shared = jnp.concatenate(
            [
                jnp.matmul(shape_change, terms, precision=_EXACT),
                jnp.matmul(found_change, flat_terms, precision=_EXACT),
            ]
        )
        left = vector[:, :_LOCAL] - jnp.einsum(
            "nab,bn->na", gram[:, :_LOCAL, _LOCAL:], shared, precision=_EXACT
        )
        own = jnp.einsum("nab,nb->na", inverse, left, precision=_EXACT)
        return (
            fields + jnp.clip(shape_change, -0.5, 0.5),
            found + found_change,
            x + jnp.clip(own[:, 1], -0.5, 0.5),
            y + jnp.clip(own[:, 2], -0.5, 0.5),
            jnp.maximum(flux + own[:, 0], 0.05 * flux),
            sky + own[:, 3],
            prior,
            chi2,
            star_weight,
            covariance[:n_fields, :n_fields],
        )

    end = jax.lax.fori_loop(0, _STEPS, step, start)
    fields, found, x, y, flux, sky, _, chi2, star_weight, covariance = end
    by_order = jnp.stack([jnp.sum(found[order == k] ** 2) for k in range(ORDER - 1)])
    return Corrected(
        Backbone(fields, x, y, flux, sky, chi2, star_weight, covariance, backbone.prior),
        found,
        sigma,
        jnp.sqrt(by_order) / norm,
    )


def _assemble(
    schur: Array, reduced: Array, terms: Array, flat_terms: Array, n_shape: int
) -> tuple[Array, Array]:
    """Normal equations of all coefficients: those of the fields first, then of the functions."""

    def block(part: Array, one: Array, two: Array) -> Array:
        made = jnp.einsum("nab,tn,sn->atbs", part, one, two, precision=_EXACT)
        return made.reshape(part.shape[1] * one.shape[0], part.shape[2] * two.shape[0])

    across = block(schur[:, :n_shape, n_shape:], terms, flat_terms)
    matrix = jnp.block(
        [
            [block(schur[:, :n_shape, :n_shape], terms, terms), across],
            [across.T, block(schur[:, n_shape:, n_shape:], flat_terms, flat_terms)],
        ]
    )
    right = jnp.concatenate(
        [
            jnp.einsum("na,tn->at", reduced[:, :n_shape], terms, precision=_EXACT).ravel(),
            jnp.einsum("na,tn->at", reduced[:, n_shape:], flat_terms, precision=_EXACT).ravel(),
        ]
    )
    return matrix, right
