"""Normal equations of stars that share what varies over the image, and smooth priors on it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import get_lapack_funcs

from diffdeblend.polynomials import term_powers
from diffdeblend.stars.stamps import StarStack

# Of each star alone: flux, x, y and sky.
LOCAL = 4


class Noise(NamedTuple):
    """What counts how much.

    - `weight`: of each pixel, its inverse variance lowered for outliers.
    - `star_weight`: of each star. `chi2`: per good pixel of each star, before outliers count less.
    """

    weight: Float[np.ndarray, "n size size"]
    star_weight: Float[np.ndarray, "n"]
    chi2: Float[np.ndarray, "n"]


def group_of_terms(degree: int) -> Int[np.ndarray, "term"]:
    """The total degree of each Chebyshev term."""
    return np.array([i + j for i, j in term_powers(degree)])


def noise_of(
    stack: StarStack, light: np.ndarray, residual: np.ndarray, error: float, robust: bool
) -> Noise:
    """Sky, photons of the model and the model's own error; outliers count less if `robust`.

    - `light`: of the model. `error`: of it, as a fraction of the light of each pixel.
    """
    light = np.maximum(light, 0)
    variance = stack.sky_variance + stack.gain_inverse * light
    variance += (np.float32(error) * light) ** 2
    weight = stack.good / variance
    square = residual**2 * weight
    count = np.maximum(stack.good.sum((1, 2)), 1)
    chi2 = square.sum((1, 2)) / count
    if not robust:
        return Noise(weight, np.ones(len(chi2)), chi2)
    # Near 1 for stars as good as most, near 0 for those that fit far worse.
    mean = np.minimum(square, 100).sum((1, 2)) / count
    known = stack.good.any((1, 2))
    middle = max(float(np.median(mean[known])), 0.5) if known.any() else 1.0
    star = np.where(known, 1 / (1 + (mean / (3 * middle)) ** 4), 0)
    # Geman and McClure's, of pixels.
    weight /= (1 + square / 36) ** 2
    weight *= star.astype(np.float32)[:, None, None]
    return Noise(weight, star, chi2)


def normal_equations(
    design: Float[np.ndarray, "n k pixel"],
    weight: np.ndarray,
    residual: np.ndarray,
    flux: Float[np.ndarray, "n"],
) -> tuple[Float[np.ndarray, "n k k"], Float[np.ndarray, "n k"]]:
    """Products of all templates of each star with each other and with the residual.

    - `design`: of unit flux: by flux, x, y, sky, and what the stars share.
    """
    n, k = design.shape[:2]
    heavy = design * weight.reshape(n, 1, -1)
    gram = (heavy @ design.swapaxes(1, 2)).astype(float)
    vector = (heavy @ residual.reshape(n, -1, 1))[..., 0].astype(float)
    # All but the flux and the sky change the image by as much as there is light.
    scale = np.repeat(np.asarray(flux, float)[:, None], k, axis=1)
    scale[:, (0, 3)] = 1
    return gram * scale[:, :, None] * scale[:, None, :], vector * scale


class Reduced(NamedTuple):
    """What is left for the shared unknowns when the stars' own are eliminated."""

    inverse: Float[np.ndarray, "n 4 4"]
    across: Float[np.ndarray, "n 4 k"]
    own: Float[np.ndarray, "n 4"]
    schur: Float[np.ndarray, "n k k"]
    vector: Float[np.ndarray, "n k"]

    def own_change(self, shared: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "n 4"]:
        """The stars' own steps, once those of the shared unknowns at the stars are known."""
        left = self.own - np.einsum("nak,kn->na", self.across, shared)
        return np.einsum("nab,nb->na", self.inverse, left)


def eliminate(gram: np.ndarray, vector: np.ndarray) -> Reduced:
    """Schur complement of every star's own block."""
    own = gram[:, :LOCAL, :LOCAL]
    # Brought to a unit diagonal; a star without pixels has none.
    root = np.sqrt(np.maximum(np.diagonal(own, axis1=1, axis2=2), 0))
    safe = np.where(root > 0, root, 1)
    outer = safe[:, :, None] * safe[:, None, :]
    eye = np.eye(LOCAL)
    scaled = own / outer + (1e-7 + np.where(root > 0, 0, 1))[:, :, None] * eye
    inverse = np.linalg.inv(scaled) / outer
    across = gram[:, :LOCAL, LOCAL:]
    part = inverse @ across
    schur = gram[:, LOCAL:, LOCAL:] - across.swapaxes(1, 2) @ part
    left = vector[:, LOCAL:] - np.einsum("nak,na->nk", part, vector[:, :LOCAL])
    return Reduced(inverse, across, vector[:, :LOCAL], schur, left)


def assembled(
    schur: Float[np.ndarray, "n a b"],
    one: Float[np.ndarray, "s n"],
    two: Float[np.ndarray, "t n"],
) -> Float[np.ndarray, "as bt"]:
    """The stars' matrices as one of the coefficients of fields, by the terms at the stars."""
    n, a, b = schur.shape
    both = (one[:, None] * two[None]).reshape(-1, n)
    matrix = (schur.reshape(n, -1).T @ both.T).reshape(a, b, len(one), len(two))
    return matrix.transpose(0, 2, 1, 3).reshape(a * len(one), b * len(two))


def solve_with_prior(
    matrix: np.ndarray, right: np.ndarray, variance: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step and its variances, with a Gaussian prior `pull` away; a variance of 0 holds."""
    root = np.sqrt(variance)
    # In units of the prior's width, in which even held unknowns are harmless.
    scaled = matrix * root[:, None] * root[None, :]
    scaled.flat[:: len(scaled) + 1] += 1
    right = right * root + np.where(root > 0, pull / np.where(root > 0, root, 1), 0)
    factored, inverted = get_lapack_funcs(("potrf", "trtri"), (scaled,))
    # `clean`: zeros above the diagonal, which the inverse leaves there.
    inverse = inverted(factored(scaled, lower=1, clean=1)[0], lower=1)[0]
    step = inverse.T @ (inverse @ right)
    return step * root, (inverse**2).sum(0) * variance


def settled(new: np.ndarray, old: np.ndarray, least: float) -> bool:
    """Whether no width changes by more than 3 %, or `least`."""
    return bool(np.all(np.abs(new - old) <= least + 0.03 * old))


def learned_variance(
    square: np.ndarray, spread: np.ndarray, variance: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Width of the prior of each group of unknowns by evidence; 0 stays 0.

    The squares of a group over how many of them the data tell (MacKay 1992, Neural Comput. 4, 415);
    `spread` is their posterior variance. Groups are along the last axis.
    """
    told = np.where(variance > 0, 1 - spread / np.where(variance > 0, variance, 1), 0)
    same = (group[:, None] == group[None, :]).astype(float)
    return np.where(variance > 0, (square @ same) / np.maximum(told @ same, 1e-3), 0)
