"""How a point, a hit and a moved point look in a proper difference."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.subtract.filters import mean_over_modes, proper_filters, shift_plane

# A plane on which nothing that a stamp holds wraps around onto its middle.
PLANE = 96


class Pair(NamedTuple):
    """What of two images says how light of either looks in their difference.

    - `psf_new`, `psf_reference`: images of the PSFs, `(h, w)`, odd, of unit sum.
    - `sigma_new`, `sigma_reference`: noise of a pixel of empty sky.
    - `beta`: flux in the new image over that in the reference.
    - `dx`, `dy`: position in the new image minus position in the reference, in pixels.
    """

    psf_new: Any
    psf_reference: Any
    sigma_new: Any
    sigma_reference: Any
    beta: Any
    dx: Any
    dy: Any


class Templates(NamedTuple):
    """Templates in D, each on a half plane of `(96, 96)` pixels and of unit norm.

    - `point`: a point, `P_D`. `hit_new`, `hit_reference`: light on one pixel of the new image or of
        the reference, the latter negative.
    - `moved_x`, `moved_y`: a point that moved a little, the derivatives of `P_D`.
    - `norm`: of F_D P_D, thus the significance in D of a point of unit flux.
    - `overlap`: of the derivatives with each other.
    """

    point: Array
    hit_new: Array
    hit_reference: Array
    moved_x: Array
    moved_y: Array
    norm: Float[Array, ""]
    overlap: Float[Array, ""]


def templates(pair: Pair) -> Templates:
    """The templates of one place. Pure.

    ??? cite
        Hits: Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27, appendix; motion: Springer et al. (2024),
        AJ 167, 281 (Translient).
    """
    shape = (PLANE, PLANE)
    filters = proper_filters(
        pair.psf_new,
        pair.psf_reference,
        pair.sigma_new,
        pair.sigma_reference,
        pair.beta,
        shape,
    )
    # The pixels of the reference were moved onto those of the new image, by a fraction of one.
    fraction_x, fraction_y = (d - jnp.round(d) for d in (pair.dx, pair.dy))
    hit_reference = -filters.reference * shift_plane(fraction_x, fraction_y, shape)
    ky = jnp.asarray(2 * np.pi * np.fft.fftfreq(PLANE), pair.beta.dtype)[:, None]
    kx = jnp.asarray(2 * np.pi * np.fft.rfftfreq(PLANE), pair.beta.dtype)
    # Nyquist has no derivative that is real.
    kx, ky = (jnp.where(jnp.abs(k) > 3.14, 0, k) for k in (kx, ky))
    parts = [
        _unit(plane)
        for plane in (
            filters.psf,
            filters.new,
            hit_reference,
            -1j * kx * filters.psf,
            -1j * ky * filters.psf,
        )
    ]
    overlap = product(parts[3][0], parts[4][0])
    planes = [plane for plane, _ in parts]
    return Templates._make([*planes, filters.flux_scale * parts[0][1], overlap])


def _unit(plane: Array) -> tuple[Array, Array]:
    """A template of unit norm, and the norm."""
    norm = jnp.sqrt(product(plane, plane))
    return plane / norm, norm


def product(a: Array, b: Array) -> Array:
    """Sum over pixels of the product of two real images, by their half planes."""
    return mean_over_modes(a.real * b.real + a.imag * b.imag, (PLANE, PLANE))
