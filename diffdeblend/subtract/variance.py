"""The noise of the score: of the pixels, of the registration, of flux ratio and PSF."""

import equinox as eqx
from jaxtyping import Array, Float

from diffdeblend.parameters import as_float
from diffdeblend.subtract.filters import ProperFilters, centred_stamp


class SystematicNoise(eqx.Module):
    """What is known of a pair of images only up to an error; zero means known exactly.

    - `x`, `y`: registration, standard deviation in pixels.
    - `flux_ratio`: standard deviation of beta in units of beta.
    - `psf`: standard deviation of the width of a PSF in units of the width.
    """

    x: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    y: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    flux_ratio: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    psf: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)


def squared_stamps(
    filters: ProperFilters, shape: tuple[int, int], size: int
) -> tuple[Float[Array, "size size"], Float[Array, "size size"]]:
    r"""Stamps of $k_n^2$ and $k_r^2$, squared pixel by pixel (eqs. 26 and 27 of ZOGY).

    `filters` on a small plane of `shape`; `size` is odd, and as large as the filters reach.
    """
    new = centred_stamp(filters.score_new, shape, size)
    reference = centred_stamp(filters.score_reference, shape, size)
    return new**2, reference**2


def systematic_variance(
    score_new: Float[Array, "Y X"],
    score_reference: Float[Array, "Y X"],
    noise: SystematicNoise,
    width: Float[Array, ""] | float,
) -> Float[Array, "y x"]:
    r"""Variance of the score from errors that follow the light; two pixels smaller on each axis.

    - `score_new`, `score_reference`: $S_N = k_n * N$ and $S_R = k_r * R$, one pixel more on each
        side than the result.
    - `width`: standard deviation of the PSF along an axis, in pixels.

    A shift by d changes a score by -d times its gradient; a width larger by the share e, that of a
    Gaussian, by e width² times its Laplacian; a flux ratio larger by the share f, by f S_R.

    ??? cite
        Registration: ZOGY, eqs. 30 to 33.
    """
    total = noise.flux_ratio**2 * score_reference[1:-1, 1:-1] ** 2
    for score in (score_new, score_reference):
        middle = score[1:-1, 1:-1]
        left, right = score[1:-1, :-2], score[1:-1, 2:]
        below, above = score[:-2, 1:-1], score[2:, 1:-1]
        slope = (0.5 * noise.x * (right - left)) ** 2 + (0.5 * noise.y * (above - below)) ** 2
        bend = noise.psf * width**2 * (left + right + below + above - 4 * middle)
        total = total + slope + bend**2
    return total
