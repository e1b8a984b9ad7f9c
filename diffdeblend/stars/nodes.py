"""From fields of a profile to a basis of images."""

import numpy as np
from jaxtyping import Float

from diffdeblend.polynomials import chebyshev_design, n_terms
from diffdeblend.psf import PSFBasis, psf_basis_from_images
from diffdeblend.stars.backbone import Backbone, shape_at
from diffdeblend.stars.profiles import MOFFAT, Profile, profile_images
from diffdeblend.stars.residual import DEGREE, residual_images

_NODES = 7
_DEGREE = 4
_CENTRINGS = 2


def basis_of_fields(
    fields: Float[np.ndarray, "shape term"],
    coefficients: Float[np.ndarray, "function term"] | None,
    sigma: float,
    shape: tuple[int, int],
    size: int,
    degree: int,
    *,
    profile: Profile = MOFFAT,
    n_basis: int | None = None,
    inf_loss: float | None = None,
) -> PSFBasis:
    """The PSF of fitted fields as a `PSFBasis`, by its images at seven by seven places. Host side.

    The images are centred on their centroid under a Gaussian weight of the PSF's size, so that a
    skewed PSF is where a windowed centroid puts it.

    - `fields`, `coefficients`, `sigma`, `profile`: of `fit_backbone` and `fit_residual`; without
        `coefficients` the profile alone.
    - `shape`: of the image, (ny, nx). `size`: of the stamps, odd. `degree`: of `fields`.
    """
    constant = not fields[:, 1:].any() and (coefficients is None or not coefficients[:, 1:].any())
    # Chebyshev nodes, stretched to the border.
    count = 1 if constant else _NODES
    node = np.cos(np.pi * (np.arange(count) + 0.5) / count)[::-1]
    node = node / (node[-1] if count > 1 else 1)
    u, v = (g.ravel() for g in np.meshgrid(node, node))
    x, y = (u + 1) / 2 * (shape[1] - 1), (v + 1) / 2 * (shape[0] - 1)
    terms = chebyshev_design(x, y, shape, degree).T
    return psf_basis_from_images(
        _images(fields, coefficients, sigma, terms, size, profile),
        x,
        y,
        shape,
        n_basis=1 if constant else n_basis,
        inf_loss=None if constant else inf_loss,
        degree=0 if constant else _DEGREE,
    )


def images_of_fields(
    fit: Backbone,
    coefficients: Float[np.ndarray, "function term"] | None,
    sigma: float,
    terms: Float[np.ndarray, "term n"],
    size: int,
) -> Float[np.ndarray, "n size size"]:
    """The fitted PSF at each star's place in its pixels."""
    image = profile_images(fit.x, fit.y, shape_at(fit.fields, terms), size, fit.profile)
    if coefficients is None:
        return image
    amounts = coefficients @ terms[: coefficients.shape[1]]
    return image + residual_images(fit.x, fit.y, sigma, size, amounts)


def _images(
    fields: np.ndarray,
    coefficients: np.ndarray | None,
    sigma: float,
    terms: np.ndarray,
    size: int,
    profile: Profile,
) -> Float[np.ndarray, "n size size"]:
    shape = shape_at(fields, terms)
    x = y = np.zeros(terms.shape[1])
    if coefficients is None:
        return profile_images(x, y, shape, size, profile)
    amounts = coefficients @ terms[: n_terms(DEGREE)][: coefficients.shape[1]]

    def at(x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
        more = residual_images(x, y, sigma, side, amounts)
        return profile_images(x, y, shape, side, profile) + more

    # What is beyond four widths has no weight.
    side = min(size, 2 * int(np.ceil(4 * sigma)) + 1)
    offset = np.arange(side) - (side - 1) / 2
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    for _ in range(_CENTRINGS):
        image = at(x, y, side) * weight[:, None] * weight
        total = image.sum((1, 2))
        by_x, by_y = (image * offset).sum((1, 2)), (image * offset[:, None]).sum((1, 2))
        x, y = x - 2 * by_x / total, y - 2 * by_y / total
    return at(x, y, size)
