"""A profile whose shape varies smoothly over the image, fitted to all stars at once. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffdeblend.polynomials import n_terms
from diffdeblend.stars.equations import (
    LOCAL,
    Reduced,
    assembled,
    eliminate,
    group_of_terms,
    learned_variance,
    noise_of,
    normal_equations,
    settled,
    solve_with_prior,
)
from diffdeblend.stars.profiles import MOFFAT, N_TEMPLATES, Profile, Shape, profile_templates
from diffdeblend.stars.stamps import StarStack

# Most steps with a model error that lets faint stars count before the shape is known; then the fit.
_ROUGH, _FINE = 6, 8
_ROUGH_ERROR = 0.1
# Steps end when no star's shape changes by more than this: the fine ones, and the rough.
_SMALL, _ROUGH_SMALL = 0.01, 0.1
# Rounds of the evidence in each step.
_EVIDENCE = 10


class Backbone(NamedTuple):
    """What the fit found.

    - `fields`: coefficients of FWHM, g1, g2 and t, `(4, term)`; `profile`: of which they are.
    - `x`, `y`, `flux`, `sky`: of each star; `chi2`: per good pixel of each star, with the model
        error, before outliers are weighted down; `weight`: of each star in the fit.
    - `prior`: variance of the prior of each coefficient, as learned.
    """

    fields: Float[np.ndarray, "shape term"]
    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]
    flux: Float[np.ndarray, "n"]
    sky: Float[np.ndarray, "n"]
    chi2: Float[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]
    prior: Float[np.ndarray, "shape term"]
    profile: Profile

    def with_own(self, reduced: Reduced, shared: Float[np.ndarray, "k n"]) -> "Backbone":
        """The stars' own unknowns a step further."""
        own = reduced.own_change(shared)
        return self._replace(
            flux=np.maximum(self.flux + own[:, 0], 0.05 * self.flux),
            x=self.x + np.clip(own[:, 1], -0.5, 0.5),
            y=self.y + np.clip(own[:, 2], -0.5, 0.5),
            sky=self.sky + own[:, 3],
        )


def shape_at(fields: Float[np.ndarray, "shape term"], terms: Float[np.ndarray, "term n"]) -> Shape:
    """The shape at places where the Chebyshev terms are known."""
    return Shape(*(fields @ terms)).within_range()


def fit_backbone(
    stack: StarStack,
    terms: Float[np.ndarray, "term n"],
    start: Float[np.ndarray, "shape"],
    scale: Float[np.ndarray, "shape degree"],
    model_error: float,
    *,
    degree: int,
    profile: Profile = MOFFAT,
    begin: Backbone | None = None,
) -> Backbone:
    r"""Robust Gauss-Newton steps on fields and stars together, until they are small.

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
    - `begin`: a fit of nearly the same stars, to go on from.
    """
    group = group_of_terms(degree)
    fields = np.zeros((4, n_terms(degree)))
    fields[:, 0] = start
    flat = np.zeros(len(stack.x))
    prior = np.asarray(scale)[:, group] ** 2
    fit = Backbone(fields, stack.x, stack.y, stack.flux, flat, flat, flat, prior, profile)
    # A step of each kind of field that is small.
    unit = np.array([start[0], 1.0, 1.0, 1.0])[:, None]
    fine = begin is not None
    if begin is not None:
        fit = begin._replace(prior=prior)
    taken = 0
    while taken < (_FINE if fine else _ROUGH):
        taken += 1
        fit, change = _step(fit, fields, stack, terms, model_error, group, fine)
        largest = np.max(np.abs(change / unit)) if change.size else 0.0
        if not fine and (largest < _ROUGH_SMALL or taken == _ROUGH):
            fine, taken = True, 0
        elif fine and largest < _SMALL:
            break
    return fit


def _step(
    fit: Backbone,
    centre: np.ndarray,
    stack: StarStack,
    terms: np.ndarray,
    model_error: float,
    group: np.ndarray,
    fine: bool,
) -> tuple[Backbone, np.ndarray]:
    """The fit after a step, and by how much the shapes at the stars changed."""
    n, size = stack.data.shape[:2]
    design = np.empty((n, N_TEMPLATES + 1, size * size), np.float32)
    residual, light = drawn(fit, stack, terms, design)
    noise = noise_of(stack, light, residual, model_error if fine else _ROUGH_ERROR, fine)
    reduced = eliminate(*normal_equations(design, noise.weight, residual, fit.flux))
    matrix = assembled(reduced.schur, terms, terms)
    right = (reduced.vector.T @ terms.T).ravel()
    pull = (centre - fit.fields).ravel()
    variance = fit.prior
    for _ in range(_EVIDENCE if fine else 0):
        change, spread = solve_with_prior(matrix, right, variance.ravel(), pull)
        now = (change - pull).reshape(variance.shape)
        learned = learned_variance(now**2, spread.reshape(variance.shape), variance, group)
        # The mean of a field keeps its own, wide prior.
        held = (group == 0) | (variance == 0)
        learned = np.where(held, variance, np.clip(learned, 1e-10, 1e3))
        known = settled(learned, variance, 1e-9)
        variance = learned
        if known:
            break
    change, _ = solve_with_prior(matrix, right, variance.ravel(), pull)
    change = change.reshape(fit.fields.shape)
    # A first step too long, from a rough start, is cut.
    most = 0.5 * centre[0, 0]
    at_stars = change @ terms
    moved = fit.with_own(reduced, at_stars)._replace(
        fields=fit.fields + np.clip(change, -most, most),
        prior=variance,
        chi2=noise.chi2,
        weight=noise.star_weight,
    )
    return moved, at_stars


def drawn(
    fit: Backbone, stack: StarStack, terms: np.ndarray, design: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residual and light of the profile; its templates go into `design`, the own first."""
    n, size = stack.data.shape[:2]
    found = profile_templates(fit.x, fit.y, shape_at(fit.fields, terms), size, fit.profile)
    found = found.reshape(N_TEMPLATES, n, -1)
    design[:, 3] = 1
    for column, template in zip((0, 1, 2, *range(LOCAL, LOCAL + 4)), found, strict=True):
        design[:, column] = template
    light = fit.flux.astype(np.float32)[:, None, None] * found[0].reshape(stack.data.shape)
    return stack.data - light - fit.sky.astype(np.float32)[:, None, None], light
