"""From fields of a profile to a basis of images."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.polynomials import chebyshev_design, n_terms
from diffdeblend.psf import PSFBasis, psf_basis_from_images
from diffdeblend.stars.backbone import shape_at
from diffdeblend.stars.moffat import moffat_images
from diffdeblend.stars.residual import DEGREE, residual_functions

_NODES = 7
_DEGREE = 4


def basis_of_fields(
    fields: Float[Array, "shape term"],
    coefficients: Float[Array, "function term"] | None,
    sigma: float | Float[Array, ""],
    shape: tuple[int, int],
    size: int,
    degree: int,
    *,
    n_basis: int | None = None,
    inf_loss: float | None = None,
) -> PSFBasis:
    """The PSF of fitted fields as a `PSFBasis`, by its images at seven by seven places. Host side.

    The images are centred on their centroid under a Gaussian weight of the PSF's size, so that a
    skewed PSF is where a windowed centroid puts it.

    - `fields`, `coefficients`, `sigma`: of `fit_backbone` and `fit_residual`; without
        `coefficients` the profile alone.
    - `shape`: of the image, (ny, nx). `size`: of the stamps, odd. `degree`: of `fields`.
    """
    # Chebyshev nodes, stretched to the border.
    node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)[::-1]
    node = node / node[-1]
    u, v = (g.ravel() for g in np.meshgrid(node, node))
    x, y = (u + 1) / 2 * (shape[1] - 1), (v + 1) / 2 * (shape[0] - 1)
    terms = jnp.asarray(chebyshev_design(x, y, shape, degree).T, fields.dtype)
    if coefficients is None:
        images = _profiles(fields, terms, size)
    else:
        images = _images(fields, coefficients, jnp.asarray(sigma), terms, size)
    constant = bool(np.all(np.asarray(fields)[:, 1:] == 0)) and (
        coefficients is None or bool(np.all(np.asarray(coefficients)[:, 1:] == 0))
    )
    return psf_basis_from_images(
        np.asarray(images),
        x,
        y,
        shape,
        n_basis=1 if constant else n_basis,
        inf_loss=None if constant else inf_loss,
        degree=0 if constant else _DEGREE,
    )


def _profiles(fields: Array, terms: Array, size: int) -> Array:
    zero = jnp.zeros(terms.shape[1], terms.dtype)
    return _jit_profiles(fields, terms, zero, size)


_jit_profiles = jax.jit(
    lambda fields, terms, zero, size: moffat_images(zero, zero, shape_at(fields, terms), size),
    static_argnums=3,
)


def _stamps(
    fields: Array, coefficients: Array, sigma: Array, terms: Array, size: int
) -> Float[Array, "n size size"]:
    local = jnp.matmul(coefficients, terms[: n_terms(DEGREE)], precision="highest")
    shape = shape_at(fields, terms)
    zero = jnp.zeros(terms.shape[1], terms.dtype)

    sigma = sigma.astype(terms.dtype)

    def drawn(x: Array, y: Array) -> Array:
        more = jnp.einsum("fn,nfyx->nyx", local, residual_functions(x, y, sigma, size))
        return moffat_images(x, y, shape, size) + more

    offset = jnp.arange(size) - (size - 1) / 2
    weight = jnp.exp(-0.5 * (offset / sigma) ** 2)

    # A loop: it is compiled once.
    def centre(_: int, place: tuple[Array, Array]) -> tuple[Array, Array]:
        x, y = place
        image = drawn(x, y) * weight[:, None] * weight[None, :]
        total = image.sum((1, 2))
        by_x, by_y = jnp.sum(image * offset, (1, 2)), jnp.sum(image * offset[:, None], (1, 2))
        return x - 2 * by_x / total, y - 2 * by_y / total

    x, y = jax.lax.fori_loop(0, 2, centre, (zero, zero))
    return drawn(x, y)


_images = jax.jit(_stamps, static_argnums=4)
