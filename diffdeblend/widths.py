"""How wide a point is: FWHM, standard deviation, and the Gaussian with as much noise under it."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def equivalent_sigma(stamps: Float[Array, "*n h w"]) -> Float[Array, "*n"]:
    """Standard deviation along an axis of the Gaussian with a PSF's noise-equivalent area; pure."""
    return jnp.sum(stamps, axis=(-2, -1)) / jnp.sqrt(4 * jnp.pi * jnp.sum(stamps**2, axis=(-2, -1)))


def equivalent_fwhm(images: Any) -> Float[np.ndarray, "*n"]:
    """FWHM in pixels of the Gaussian with the noise-equivalent area of PSF images; host side.

    - `images`: shape `(..., h, w)`, of any sum.

    ??? cite
        King (1983), PASP 95, 163: area (sum P)^2 / sum P^2.
    """
    values = np.asarray(images, float)
    area = values.sum(axis=(-2, -1)) ** 2 / (values**2).sum(axis=(-2, -1))
    return FWHM_PER_SIGMA * np.sqrt(area / (4 * np.pi))
