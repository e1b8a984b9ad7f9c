"""Principal components of the stars whose places and skies a profile was fitted for."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import shift

from diffdeblend.stars.backbone import Backbone, shape_at
from diffdeblend.stars.kl import KarhunenLoeve, kl_psf
from diffdeblend.stars.profiles import profile_images
from diffdeblend.stars.stamps import StarStack

# The spline needs neighbours.
_MARGIN = 4
# Of the flux of a star, in its stamp.
_LEAST_SHARE = 0.3


def component_psf(
    stack: StarStack,
    fit: Backbone,
    terms: Float[np.ndarray, "term n"],
    shape: tuple[int, int],
    *,
    inf_loss: float | None,
    n_basis: int | None,
    degree: int,
    smooth: float,
) -> KarhunenLoeve:
    """`kl_psf` of stars brought to the middle of their stamps by a cubic spline. Host side.

    Pixels that are masked or have a neighbour's light are those of the profile.

    - `stack`: as large as the images are to be, and `_MARGIN` more.
    """
    size = stack.data.shape[1]
    flux, sky = fit.flux[:, None, None], fit.sky[:, None, None]
    model = flux * profile_images(fit.x, fit.y, shape_at(fit.fields, terms), size, fit.profile)
    light = np.where(stack.good, stack.data - sky, model)
    # Where the sky is not level the whole stamp may hold much less, or more, than the star.
    total = light.sum((1, 2))
    own = (total > _LEAST_SHARE * fit.flux) & (total < fit.flux / _LEAST_SHARE)
    use = stack.good.any((1, 2)) & (fit.weight > 0.1) & (fit.flux > 0) & own
    if not use.any():
        raise ValueError("no star of `image` is good enough for principal components.")
    light = light[use] / flux[use]
    half = _MARGIN // 2
    stamps = [
        shift(image, (-y, -x), order=3, mode="nearest")[half:-half, half:-half]
        for image, x, y in zip(light, fit.x[use], fit.y[use], strict=True)
    ]
    count = int(use.sum())
    return kl_psf(
        np.array(stamps),
        (stack.x0 + fit.x)[use],
        (stack.y0 + fit.y)[use],
        shape,
        inf_loss=inf_loss,
        n_basis=None if n_basis is None else min(n_basis, count),
        degree=degree,
        smooth=smooth,
    )
