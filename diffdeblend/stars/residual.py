r"""What the stars show beyond a profile: a few smooth functions, as far as noise allows.

The PSF is the profile plus $\sum_j c_j(x, y)\, \phi_j$, with $\phi_j$ the products of
Gauss-Hermite functions of total order 2 to `ORDER` whose width follows the seeing (Refregier 2003,
MNRAS 338, 35). They are evaluated at the stars' own pixels, so nothing is resampled. The
coefficients of one order and one degree over the image share a Gaussian prior with a width found by
evidence: where the stars show nothing it goes to zero, and the PSF stays the profile.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffdeblend.polynomials import n_terms
from diffdeblend.stars.backbone import Backbone, drawn
from diffdeblend.stars.equations import (
    LOCAL,
    assembled,
    eliminate,
    group_of_terms,
    learned_variance,
    noise_of,
    normal_equations,
    settled,
    solve_with_prior,
)
from diffdeblend.stars.stamps import StarStack
from diffdeblend.widths import FWHM_PER_SIGMA

ORDER = 6
DEGREE = 2
_STEPS, _EVIDENCE = 3, 8
_SHAPES = 4
# Width of the prior to begin with, as a fraction of the norm of the PSF.
_START = 0.03


class Corrected(NamedTuple):
    """A backbone that was fitted along, with the coefficients of the functions `(function, term)`.

    - `sigma`: width of the functions, in pixels.
    """

    backbone: Backbone
    coefficients: Float[np.ndarray, "function term"]
    sigma: float


def orders() -> list[tuple[int, int]]:
    """(i, j) of each function: Hermite order along x and y, without flux and place."""
    return [(n - j, j) for n in range(2, ORDER + 1) for j in range(n + 1)]


def hermite_functions(
    offset: Float[np.ndarray, "n w"], sigma: float
) -> Float[np.ndarray, "order n w"]:
    """Orthonormal Gauss-Hermite functions of order 0 to `ORDER` at offsets in pixels."""
    u = offset / sigma
    values = [np.exp(-0.5 * u**2) / np.sqrt(np.sqrt(np.pi) * sigma)]
    values.append(np.sqrt(2.0) * u * values[0])
    for n in range(1, ORDER):
        values.append(u * np.sqrt(2 / (n + 1)) * values[-1] - np.sqrt(n / (n + 1)) * values[-2])
    return np.stack(values)


def along_axes(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], sigma: float, size: int
) -> tuple[Float[np.ndarray, "order n size"], Float[np.ndarray, "order n size"]]:
    """The functions of x and of y on stamps, centred (x, y) away from the middle pixel."""
    offset = np.arange(size) - (size - 1) / 2
    along_x, along_y = (hermite_functions(offset - place[:, None], sigma) for place in (x, y))
    return along_x.astype(np.float32), along_y.astype(np.float32)


def residual_images(
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    sigma: float,
    size: int,
    amounts: Float[np.ndarray, "function n"],
) -> Float[np.ndarray, "n size size"]:
    """The sum of all functions, so much of each at each place."""
    along_x, along_y = along_axes(x, y, sigma, size)
    square = np.zeros((len(x), ORDER + 1, ORDER + 1), np.float32)
    for amount, (i, j) in zip(amounts, orders(), strict=True):
        square[:, j, i] = amount
    return along_y.transpose(1, 2, 0) @ square @ along_x.transpose(1, 0, 2)


def fit_residual(
    stack: StarStack,
    terms: Float[np.ndarray, "term n"],
    backbone: Backbone,
    model_error: float,
) -> Corrected:
    """Gauss-Newton steps on functions, fields and stars together, from a fitted backbone.

    Arguments as those of `fit_backbone`; the fields keep the priors that were learned there.
    """
    few = terms[: n_terms(DEGREE)]
    functions = orders()
    sigma = max(float(backbone.fields[0, 0]), 1.5) / FWHM_PER_SIGMA
    # Groups: one for each order and each degree over the image.
    order = np.array([i + j for i, j in functions]) - 2
    group = (order[:, None] * (DEGREE + 1) + group_of_terms(DEGREE)[: len(few)][None, :]).ravel()
    centre = np.zeros_like(backbone.fields)
    centre[:, 0] = backbone.fields[:, 0]
    norm = 1 / (2 * np.sqrt(np.pi) * sigma)
    first = (_START * norm) ** 2 / len(functions)
    prior = np.full(group.size, first)
    found = np.zeros((len(functions), len(few)))
    fit = backbone
    n, size = stack.data.shape[:2]
    design = np.empty((n, LOCAL + _SHAPES + len(functions), size * size), np.float32)
    added = design[:, LOCAL + _SHAPES :]
    i, j = np.array(functions).T
    for _ in range(_STEPS):
        residual, light = drawn(fit, stack, terms, design)
        along_x, along_y = along_axes(fit.x, fit.y, sigma, size)
        np.multiply(
            along_y[j].transpose(1, 0, 2)[..., None],
            along_x[i].transpose(1, 0, 2)[..., None, :],
            out=added.reshape(n, len(functions), size, size),
        )
        amounts = (found @ few).T.astype(np.float32)
        more = (amounts[:, None] @ added)[:, 0]
        design[:, 0] += more
        more = fit.flux.astype(np.float32)[:, None, None] * more.reshape(stack.data.shape)
        residual, light = residual - more, light + more
        noise = noise_of(stack, light, residual, model_error, robust=True)
        reduced = eliminate(*normal_equations(design, noise.weight, residual, fit.flux))
        change, found_change, prior = _solved(
            reduced.schur, reduced.vector, terms, few, fit, centre, found, prior, group, first
        )
        shared = np.concatenate([change @ terms, found_change @ few])
        fit = fit.with_own(reduced, shared)._replace(
            fields=fit.fields + np.clip(change, -0.5, 0.5),
            chi2=noise.chi2,
            weight=noise.star_weight,
        )
        found = found + found_change
    return Corrected(fit, found, sigma)


def _solved(
    schur: np.ndarray,
    vector: np.ndarray,
    terms: np.ndarray,
    few: np.ndarray,
    fit: Backbone,
    centre: np.ndarray,
    found: np.ndarray,
    prior: np.ndarray,
    group: np.ndarray,
    first: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of the fields and of the functions, and the functions' priors by evidence."""
    shapes = assembled(schur[:, :_SHAPES, :_SHAPES], terms, terms)
    across = assembled(schur[:, :_SHAPES, _SHAPES:], terms, few)
    matrix = assembled(schur[:, _SHAPES:, _SHAPES:], few, few)
    right = (vector[:, _SHAPES:].T @ few.T).ravel()
    # The fields' priors are known: they are eliminated once, and not in every round.
    root = np.sqrt(fit.prior.ravel())
    own = shapes * root[:, None] * root + np.eye(root.size)
    pull = (centre - fit.fields).ravel()
    right_own = (vector[:, :_SHAPES].T @ terms.T).ravel() * root
    right_own = right_own + np.where(root > 0, pull / np.where(root > 0, root, 1), 0)
    solved = np.linalg.solve(own, np.column_stack([root[:, None] * across, right_own]))
    matrix = matrix - across.T @ (root[:, None] * solved[:, :-1])
    right = right - across.T @ (root * solved[:, -1])
    away = -found.ravel()
    for _ in range(_EVIDENCE):
        step, spread = solve_with_prior(matrix, right, prior, away)
        learned = learned_variance((found.ravel() + step) ** 2, spread, prior, group)
        learned = np.clip(learned, 1e-6 * first, 100 * first)
        known = settled(learned, prior, 1e-4 * first)
        prior = learned
        if known:
            break
    step, _ = solve_with_prior(matrix, right, prior, away)
    change = root * (solved[:, -1] - solved[:, :-1] @ step)
    return change.reshape(fit.fields.shape), step.reshape(found.shape), prior
