"""Centroid, size and shape of a decoded galaxy, with the frame's PSF taken off."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components import Decoder

# Points of the growth curve.
_RINGS = 48


class Morphology(NamedTuple):
    """What is told of the light of a decoded galaxy, lengths in pixels.

    - `centroid`: (x, y) of its light, from the middle of the stamp.
    - `radius`: half-light radius; `ellipticity`: reduced shear (g1, g2).
    """

    centroid: Float[Array, "2"]
    radius: Float[Array, ""]
    ellipticity: Float[Array, "2"]


def morphology_of(decoder: Decoder, latent: Float[Array, "latent"]) -> Morphology:
    """Centroid, half-light radius and shear of a decoded galaxy; pure and differentiable.

    The radius, in pixels, is the geometric mean of the half axes of the ellipse that holds half of
    the light, as that of a Sersic galaxy before its shear. The shear comes from second moments of
    the whole stamp. Of both the frame's PSF is taken off in quadrature.

    ??? cite
        Reduced shear from moments: Bartelmann & Schneider (2001), Phys. Rep. 340, 291, eq. 4.4.
    """
    frame = decoder.frame
    image = decoder(latent)
    along = jnp.arange(frame.size, dtype=image.dtype) - frame.size // 2
    y, x = along[:, None], along[None, :]
    mean_x, mean_y = jnp.sum(image * x), jnp.sum(image * y)
    dx, dy = x - mean_x, y - mean_y
    xx, yy, xy = jnp.sum(image * dx**2), jnp.sum(image * dy**2), jnp.sum(image * dx * dy)
    floor = 0.01 * frame.psf_sigma**2
    own_xx = jnp.maximum(xx - frame.psf_sigma**2, floor)
    own_yy = jnp.maximum(yy - frame.psf_sigma**2, floor)
    squared = jnp.maximum(own_xx * own_yy - xy**2, (0.01 * (own_xx + own_yy)) ** 2)
    total = own_xx + own_yy + 2 * jnp.sqrt(squared)
    shear = jnp.stack([own_xx - own_yy, 2 * xy]) / total
    # Ellipses of the same area as circles of their radius, of the image as it is in the frame.
    area = jnp.sqrt(jnp.maximum(xx * yy - xy**2, floor**2))
    distance = jnp.sqrt((yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / area + 1e-12)
    # Light on a ring grows as its radius: none near the centre is a pixel wide.
    radii = jnp.asarray(np.linspace(0, frame.size / 2, _RINGS) + 0.5, image.dtype)
    inside = jnp.clip(radii[:, None, None] - distance + 0.5, 0, 1)
    growth = jnp.sum(inside * image, axis=(1, 2))
    half = jnp.interp(0.5, growth, radii)
    # Of a Gaussian, half of the light is within 1.1774 standard deviations.
    own = jnp.maximum(half**2 - 2 * np.log(2) * frame.psf_sigma**2, floor)
    return Morphology(jnp.stack([mean_x, mean_y]), jnp.sqrt(own), shear)
