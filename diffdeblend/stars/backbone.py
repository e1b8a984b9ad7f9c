"""A Moffat profile whose shape varies smoothly over the image, fitted to all stars at once."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.polynomials import n_terms, term_powers
from diffdeblend.stars.moffat import Shape, moffat_templates
from diffdeblend.stars.stamps import StarStack

# Steps with a model error that lets faint stars count before the shape is known; then the fit.
_ROUGH, _FINE = 4, 5
_ROUGH_ERROR = 0.1
_LOCAL = 4
# Rounds of the evidence in each step.
_EVIDENCE = 10
_EXACT = jax.lax.Precision.HIGHEST


class Backbone(NamedTuple):
    """What the fit found.

    - `fields`: coefficients of FWHM, g1, g2 and t, `(4, term)`.
    - `x`, `y`, `flux`, `sky`: of each star; `chi2`: per good pixel of each star, with the model
        error, before outliers are weighted down; `weight`: of each star in the fit.
    - `covariance`: of `fields` as one vector. `prior`: variance of the prior of each, as learned.
    """

    fields: Float[Array, "shape term"]
    x: Float[Array, "n"]
    y: Float[Array, "n"]
    flux: Float[Array, "n"]
    sky: Float[Array, "n"]
    chi2: Float[Array, "n"]
    weight: Float[Array, "n"]
    covariance: Float[Array, "k k"]
    prior: Float[Array, "shape term"]


def shape_at(fields: Float[Array, "shape term"], terms: Float[Array, "term n"]) -> Shape:
    """The shape at places where the Chebyshev terms are known."""
    values = jnp.matmul(fields, terms, precision=_EXACT)
    return Shape(*values).within_range()


def group_of_terms(degree: int) -> np.ndarray:
    """The total degree of each term."""
    return np.array([i + j for i, j in term_powers(degree)])


@partial(jax.jit, static_argnames=("degree",))
def fit_backbone(
    stack: StarStack,
    terms: Float[Array, "term n"],
    start: Float[Array, "shape"],
    scale: Float[Array, "shape degree"],
    model_error: float | Float[Array, ""],
    *,
    degree: int,
) -> Backbone:
    r"""Robust Gauss-Newton steps on fields and stars together.

    Each star's flux, place and local sky are eliminated from the normal equations (Schur
    complement), so a step costs one small matrix. Fields of degree 1 and above are drawn to zero by
    a Gaussian prior for each degree, whose width is found by evidence (MacKay 1992, Neural Comput.
    4, 415): stars that do not need them do not get them.

    - `terms`: Chebyshev terms at the stars, `(term, n)`.
    - `start`: FWHM, g1, g2 and t to begin with.
    - `scale`: width of the prior of each kind of field by degree, to begin with; 0 holds a degree
        at zero, or at `start` for degree 0, around which that prior is.
    - `model_error`: a fraction of the light of each pixel, added to its noise: no bright star alone
        decides.
    """
    n_fields, count = 4, n_terms(degree)
    group = group_of_terms(degree)
    n_pixels = stack.good.sum((1, 2))
    dtype = terms.dtype
    fields = jnp.zeros((n_fields, count), dtype).at[:, 0].set(start)
    centre = fields
    variance = (scale**2)[:, group]
    state = (
        fields,
        stack.x,
        stack.y,
        stack.flux,
        jnp.zeros_like(stack.flux),
        variance,
        jnp.zeros_like(stack.flux),
        jnp.ones_like(stack.flux),
        jnp.zeros((n_fields * count,) * 2, dtype),
    )

    def step(number: Array, state: tuple) -> tuple:
        fields, x, y, flux, sky, variance, chi2, star_weight, _ = state
        fine = number >= _ROUGH
        templates = moffat_templates(x, y, shape_at(fields, terms), stack.data.shape[1])
        f = flux[:, None, None]
        light = f * templates.value
        residual = stack.data - light - sky[:, None, None]
        error = jnp.where(fine, model_error, _ROUGH_ERROR)
        noise = pixel_variance(stack, light, error)
        square = residual**2 / noise
        chi2 = jnp.sum(jnp.where(stack.good, square, 0), (1, 2)) / jnp.maximum(n_pixels, 1)
        star_weight = jnp.where(fine, weight_of_stars(square, stack.good), 1)
        weight = stack.good / noise * jnp.where(fine, outlier_weight(square), 1)
        weight = weight * star_weight[:, None, None]
        local, shape = _blocks(templates, f)
        gram, vector = normal_equations(
            jax.lax.optimization_barrier((*local, *shape)), weight, residual
        )
        inverse, schur, reduced = eliminate(gram, vector)
        matrix = jnp.einsum("nab,tn,sn->atbs", schur, terms, terms, precision=_EXACT)
        right = jnp.einsum("na,tn->at", reduced, terms, precision=_EXACT)
        matrix, right = matrix.reshape((n_fields * count,) * 2), right.ravel()
        pull = (centre - fields).ravel()

        # The mean of a field keeps its own, wide prior.
        def learn(_: int, variance: Array) -> Array:
            change, covariance = solve_with_prior(matrix, right, variance.ravel(), pull)
            now = (change - pull).reshape(fields.shape)
            spread = jnp.diagonal(covariance).reshape(fields.shape)
            learned = learned_variance(now**2, spread, variance, group)
            return jnp.where(group == 0, variance, learned)

        rounds = jnp.where(fine, _EVIDENCE, 0)
        variance = jax.lax.fori_loop(0, rounds, learn, variance)
        change, covariance = solve_with_prior(matrix, right, variance.ravel(), pull)
        change = change.reshape(fields.shape)
        shape_change = jnp.matmul(change, terms, precision=_EXACT)
        left = vector[:, :_LOCAL] - jnp.einsum(
            "nab,bn->na", gram[:, :_LOCAL, _LOCAL:], shape_change, precision=_EXACT
        )
        own = jnp.einsum("nab,nb->na", inverse, left, precision=_EXACT)
        # A first step too long, from a rough start, is cut.
        fields = fields + jnp.clip(change, -0.5 * start[0], 0.5 * start[0])
        flux = jnp.maximum(flux + own[:, 0], 0.05 * flux)
        x = x + jnp.clip(own[:, 1], -0.5, 0.5)
        y = y + jnp.clip(own[:, 2], -0.5, 0.5)
        sky = sky + own[:, 3]
        return fields, x, y, flux, sky, variance, chi2, star_weight, covariance

    state = jax.lax.fori_loop(0, _ROUGH + _FINE, step, state)
    fields, x, y, flux, sky, variance, chi2, star_weight, covariance = state
    return Backbone(fields, x, y, flux, sky, chi2, star_weight, covariance, variance)


def pixel_variance(stack: StarStack, light: Array, model_error: float | Array) -> Array:
    """Sky, photons of the model, and the model's own error."""
    light = jnp.maximum(light, 0)
    return stack.sky_variance + stack.gain_inverse * light + (model_error * light) ** 2


def outlier_weight(square: Array) -> Array:
    """Of a pixel whose squared residual is so many times its variance (Geman-McClure)."""
    return 1 / (1 + square / 36) ** 2


def weight_of_stars(square: Array, good: Array) -> Array:
    """Near 1 for stars as good as most, near 0 for those that fit far worse; 0 without pixels."""
    count = good.sum((1, 2))
    mean = jnp.sum(jnp.where(good, jnp.minimum(square, 100.0), 0), (1, 2)) / jnp.maximum(count, 1)
    middle = jnp.nanmedian(jnp.where(count > 0, mean, jnp.nan))
    return jnp.where(count > 0, 1 / (1 + (mean / (3 * jnp.maximum(middle, 0.5))) ** 4), 0)


def _blocks(templates: tuple, f: Array) -> tuple[tuple, tuple]:
    value, x, y, fwhm, g1, g2, t = templates
    return (value, f * x, f * y, jnp.ones_like(value)), (f * fwhm, f * g1, f * g2, f * t)


def normal_equations(
    templates: tuple[Array, ...], weight: Array, residual: Array
) -> tuple[Float[Array, "n k k"], Float[Array, "n k"]]:
    """Products of all templates of each star with each other and with the residual."""
    n = weight.shape[0]
    flat = jnp.stack(templates, 1).reshape(n, len(templates), -1)
    weighted = flat * weight.reshape(n, 1, -1)
    gram = jnp.matmul(weighted, flat.swapaxes(1, 2), precision=_EXACT)
    return gram, jnp.matmul(weighted, residual.reshape(n, -1, 1), precision=_EXACT)[..., 0]


def eliminate(gram: Array, vector: Array) -> tuple[Array, Array, Array]:
    """Inverse of the stars' own block, and what is left for the shared unknowns."""
    own = gram[:, :_LOCAL, :_LOCAL]
    # Brought to a unit diagonal; a star without pixels has none.
    root = jnp.sqrt(jnp.diagonal(own, axis1=1, axis2=2))
    safe = jnp.where(root > 0, root, 1)
    scaled = own / (safe[:, :, None] * safe[:, None, :]) + 1e-5 * jnp.eye(_LOCAL, dtype=own.dtype)
    scaled = scaled + jnp.where(root > 0, 0, 1)[:, :, None] * jnp.eye(_LOCAL, dtype=own.dtype)
    inverse = jnp.linalg.inv(scaled) / (safe[:, :, None] * safe[:, None, :])
    across = gram[:, :_LOCAL, _LOCAL:]
    part = jnp.matmul(inverse, across, precision=_EXACT)
    schur = gram[:, _LOCAL:, _LOCAL:] - jnp.matmul(across.swapaxes(1, 2), part, precision=_EXACT)
    own_vector = vector[:, :_LOCAL, None]
    reduced = (
        vector[:, _LOCAL:] - jnp.matmul(part.swapaxes(1, 2), own_vector, precision=_EXACT)[..., 0]
    )
    return inverse, schur, reduced


def solve_with_prior(
    matrix: Array, right: Array, variance: Array, pull: Array
) -> tuple[Array, Array]:
    """The step and the covariance, with a Gaussian prior `pull` away; a variance of 0 holds."""
    root = jnp.sqrt(variance)
    # In units of the prior's width, in which even held unknowns are harmless.
    scaled = matrix * root[:, None] * root[None, :] + jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    right = right * root + jnp.where(root > 0, pull / jnp.where(root > 0, root, 1), 0)
    inverse = jnp.linalg.inv(scaled)
    step = jnp.matmul(inverse, right, precision=_EXACT) * root
    return step, inverse * root[:, None] * root[None, :]


def learned_variance(square: Array, spread: Array, variance: Array, group: np.ndarray) -> Array:
    """Width of the prior of each group of unknowns by evidence; 0 stays 0.

    The squares of a group over how many of them the data tell; `spread` is their posterior
    variance.
    """
    same = jnp.asarray(group[:, None] == group[None, :], square.dtype)
    told = jnp.where(variance > 0, 1 - spread / jnp.where(variance > 0, variance, 1), 0)
    power, told = jnp.matmul(jnp.stack([square, told]), same, precision=_EXACT)
    return jnp.where(variance > 0, jnp.clip(power / jnp.maximum(told, 1e-3), 1e-10, 1e3), 0)
