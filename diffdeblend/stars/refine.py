r"""A PSF fitted anew to all pixels of all stars at once, pixel by pixel of its images.

The images of the basis, their fields, and every star's flux, place and sky are the unknowns. The
images and the fields are held to what they were by a Gaussian prior; how tightly is chosen by stars
that are left out of the fit, and if those like none better than the start, the start remains.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.polynomials import chebyshev_design
from diffdeblend.psf import PSFBasis
from diffdeblend.stars.backbone import Backbone
from diffdeblend.stars.equations import noise_of
from diffdeblend.stars.stamps import StarStack

# Widths of the prior on a pixel: fractions of the light there, and of a hundredth of the peak.
_WIDTHS = (0.01, 0.03, 0.1)
_FLOOR = 0.01
# Of the coefficients of fields, as a fraction of the largest of an image.
_FIELDS = 0.1
_HELD_OUT = 0.25
_STEPS, _SOLVES = 2, 30
# Of host or device.
Values = Any
_EXACT = jax.lax.Precision.HIGHEST


class Unknowns(NamedTuple):
    """In units of their priors, or of what a star tells of its own."""

    images: Float[Array, "basis h w"]
    coefficients: Float[Array, "basis term"]
    own: Float[Array, "n 4"]


class _Stars(NamedTuple):
    data: Values
    root_weight: Values
    terms: Values
    own: Values
    own_scale: Values
    lost: Values


def refine_psf(
    psf: PSFBasis,
    stack: StarStack,
    fit: Backbone,
    model_error: float,
    *,
    exact: Float[np.ndarray, "n size size"] | None = None,
    seed: int = 0,
) -> tuple[PSFBasis, float]:
    """The refined PSF and the width of the prior that was chosen, 0 if nothing better was found.

    - `psf`: of one band. `stack`, `fit`: the stars, and what is known of each.
    - `exact`: what `psf` is drawn from, at each star's place in its pixels, of unit flux. Narrow
        PSFs lose by being moved by fractions of a pixel; with it only what is added is moved.
    - `seed`: of the draw of the stars that judge.
    """
    images, coefficients = (np.asarray(a[0], np.float32) for a in (psf.images, psf.coefficients))
    x, y = stack.x0 + fit.x, stack.y0 + fit.y
    terms = chebyshev_design(x, y, psf.shape, psf.degree).T.astype(np.float32)
    own = np.stack([fit.flux, fit.x, fit.y, fit.sky], 1).astype(np.float32)
    known = stack.good.any((1, 2)) & (fit.weight > 0.1)
    moved = np.asarray(_unit_images(images, coefficients, terms, own, stack.data.shape[1]))
    lost = np.zeros_like(moved) if exact is None else exact.astype(np.float32) - moved
    light = own[:, 0, None, None] * (moved + lost)
    residual = stack.data - light - own[:, 3, None, None]
    weight = np.asarray(noise_of(stack, light, residual, model_error, robust=True).weight)
    stars = _Stars(stack.data, np.sqrt(weight), terms, own, _own_scale(own, weight, light), lost)
    mean = np.tensordot((coefficients @ terms[:, known]).mean(1), images, 1)
    room = np.abs(mean) + _FLOOR * mean.max()
    held = np.zeros(len(x), bool)
    index = np.flatnonzero(known)
    held[np.random.default_rng(seed).permutation(index)[: round(_HELD_OUT * len(index))]] = True

    def fitted(width: float, part: np.ndarray, of: tuple) -> tuple[np.ndarray, np.ndarray, Array]:
        used = stars._replace(root_weight=stars.root_weight * part[:, None, None])
        spread = np.abs(of[1]).max(1, keepdims=True) * (_FIELDS if width else 0.0)
        return _fitted(*of, used, (width * room).astype(np.float32), spread)

    def judged(of: tuple) -> np.ndarray:
        """Chi2 of the stars left out, each with the best flux, place and sky."""
        return np.asarray(fitted(0.0, held, of)[2])[held]

    start = (images, coefficients)
    if not held.any() or known.sum() - held.sum() < 2:
        return psf, 0.0
    before = judged(start)
    best, least = 0.0, 0.0
    for width in _WIDTHS:
        change = judged(fitted(width, known & ~held, start)[:2]) - before
        error = change.std() / np.sqrt(len(change))
        # Better by more than chance.
        if change.mean() < -error and change.mean() < least:
            best, least = width, float(change.mean())
    if not best:
        return psf, 0.0
    images, coefficients, _ = fitted(best, known, start)
    try:
        return PSFBasis(images[None], coefficients[None], psf.shape, psf.degree), best
    except ValueError:
        # Fields of many noisy images may cross zero where there is no star.
        return psf, 0.0


def _own_scale(own: np.ndarray, weight: np.ndarray, light: np.ndarray) -> np.ndarray:
    """How far each star's flux, x, y and sky may be by the noise, about."""
    by_x, by_y = np.gradient(light, axis=2), np.gradient(light, axis=1)
    flux = np.where(own[:, 0] > 0, own[:, 0], 1)[:, None, None]
    slopes = (light / flux, by_x, by_y, np.ones_like(light))
    told = np.stack([(weight * slope**2).sum((1, 2)) for slope in slopes], 1)
    return np.where(told > 0, 1 / np.sqrt(np.maximum(told, 1e-20)), 0).astype(np.float32)


def _moves(places: Array, rows: int, size: int) -> Float[Array, "n rows size"]:
    """Matrices that move an axis of `size` samples by the trigonometric interpolation of them."""
    middle = jnp.arange(rows) - (rows - 1) / 2
    u = middle[:, None] - (jnp.arange(size) - (size - 1) / 2) - places[:, None, None]
    # A sum of cosines, whose closed form is 0 / 0 at whole pixels.
    k = jnp.arange(1, size // 2 + 1)
    return (1 + 2 * jnp.cos(2 * jnp.pi / size * u[..., None] * k).sum(-1)) / size


def _unit_images(
    images: Values, coefficients: Values, terms: Values, own: Values, rows: int
) -> Float[Array, "n rows rows"]:
    """The PSF at each star, moved to its place; of about unit sum."""
    fields = jnp.matmul(coefficients, terms, precision=_EXACT)
    light = jnp.matmul(images.sum((1, 2)), fields, precision=_EXACT)
    there = jnp.einsum("kn,kyx->nyx", fields / light, images, precision=_EXACT)
    size = images.shape[-1]
    along_x, along_y = _moves(own[:, 1], rows, size), _moves(own[:, 2], rows, size)
    half = jnp.matmul(along_y, there, precision=_EXACT)
    return jnp.matmul(half, along_x.swapaxes(1, 2), precision=_EXACT)


@partial(jax.jit)
def _fitted(
    images: Values, coefficients: Values, stars: _Stars, room: Values, spread: Values
) -> tuple[Array, Array, Array]:
    """Images, coefficients and chi2 of each star after Gauss-Newton steps, solved by gradients."""

    def values(unknowns: Unknowns) -> tuple[Array, Array, Array]:
        return (
            images + room * unknowns.images,
            coefficients + spread * unknowns.coefficients,
            stars.own + stars.own_scale * unknowns.own,
        )

    def residual(unknowns: Unknowns) -> Array:
        new, fields, own = values(unknowns)
        unit = _unit_images(new, fields, stars.terms, own, stars.data.shape[1]) + stars.lost
        model = own[:, 0, None, None] * unit + own[:, 3, None, None]
        return stars.root_weight * (stars.data - model)

    def step(_: int, unknowns: Unknowns) -> Unknowns:
        left, pushed = jax.linearize(residual, unknowns)
        pulled = jax.linear_transpose(pushed, unknowns)
        # Priors of unit width, and a hint of one on what is a star's own.
        held = Unknowns(unknowns.images, unknowns.coefficients, 1e-4 * unknowns.own)
        (slope,) = pulled(left)
        right = jax.tree.map(lambda a, b: -a - b, slope, held)

        def normal(v: Unknowns) -> Unknowns:
            (back,) = pulled(pushed(v))
            return Unknowns(
                back.images + v.images,
                back.coefficients + v.coefficients,
                back.own + 1e-4 * v.own,
            )

        change = jax.scipy.sparse.linalg.cg(normal, right, maxiter=_SOLVES)[0]
        return jax.tree.map(jnp.add, unknowns, change)

    zero = Unknowns(*(jnp.zeros_like(a) for a in (images, coefficients, stars.own)))
    found = jax.lax.fori_loop(0, _STEPS, step, zero)
    new, fields, _ = values(found)
    return new, fields, (residual(found) ** 2).sum((1, 2))
