"""What a subtraction of one band starts from, and what it gives."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.subtract.variance import SystematicNoise

# Of the noise of empty sky: below it, the variance of the score is an artefact of a transform.
_LEAST_VARIANCE = 0.05
# What is lost can be made up for only so far.
_MOST_LOST = 0.95


class ImagePair(eqx.Module):
    """Two images of one band that are ready to subtract: no sky, no holes.

    - `new`, `reference`: shape `(y, x)`; missing pixels are filled, and the background of the new
        one is that of the reference times beta.
    - `variance_new`, `variance_reference`: of each pixel, sky and sources, shape `(y, x)`.
    - `missing_new`, `missing_reference`: pixels that were filled, shape `(y, x)`; both None if
        there are none, which saves three transforms.
    - `sigma_new`, `sigma_reference`: standard deviation of the noise of empty sky.
    - `beta`: flux of a star in the new image over that in the reference.
    - `dx`, `dy`: position of a star in the new image minus that in the reference, in pixels, the
        same everywhere; 0 if the reference lies on the new image's pixels already.
    - `noise`: what beta, positions and PSFs are uncertain by.
    """

    new: Float[Array, "y x"]
    reference: Float[Array, "y x"]
    variance_new: Float[Array, "y x"]
    variance_reference: Float[Array, "y x"]
    missing_new: Bool[Array, "y x"] | None
    missing_reference: Bool[Array, "y x"] | None
    sigma_new: Float[Array, ""]
    sigma_reference: Float[Array, ""]
    beta: Float[Array, ""]
    dx: Float[Array, ""]
    dy: Float[Array, ""]
    noise: SystematicNoise


class Maps(eqx.Module):
    """The results of one band, as `Difference` describes them; each map of shape `(y, x)`.

    - `lost`: share of what is known of a point here that missing pixels took away, 0 to 1.
    - `psf`: of D in the middle of the image, unit sum, odd sides.
    - `F_D`, `F_S`: normalisations, at the middle of the image where they vary.
    """

    D: Float[Array, "y x"]
    S: Float[Array, "y x"]
    S_corr: Float[Array, "y x"]
    flux: Float[Array, "y x"]
    flux_err: Float[Array, "y x"]
    lost: Float[Array, "y x"]
    psf: Float[Array, "h w"]
    F_D: Float[Array, ""]
    F_S: Float[Array, ""]


def closed_maps(
    D: Float[Array, "y x"],
    S: Float[Array, "y x"],
    *,
    information: Float[Array, "*place"],
    variance: Float[Array, "y x"],
    systematic: Float[Array, "y x"],
    lost: Float[Array, "y x"],
    psf: Float[Array, "h w"],
    F_D: Float[Array, ""],
    F_S: Float[Array, ""],
) -> Maps:
    """Significance, flux and its error, from the score and what its variance is made of.

    - `information`: of a point, where no pixel is missing: one number, or shape `(y, x)`.
    - `variance`, `systematic`: of the score, from the noise of pixels and from errors of the fit.
    """
    left = 1 - jnp.minimum(lost, _MOST_LOST)
    least = _LEAST_VARIANCE * information
    deviation = jnp.sqrt(left * jnp.maximum(variance, least) + systematic)
    known = information * left
    return Maps(D, S, S / deviation, S / known, deviation / known, lost, psf, F_D, F_S)
