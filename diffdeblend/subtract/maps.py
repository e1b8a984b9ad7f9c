"""What a subtraction of one band starts from, and what it gives."""

import equinox as eqx
from jaxtyping import Array, Bool, Float

from diffdeblend.subtract.variance import SystematicNoise


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
