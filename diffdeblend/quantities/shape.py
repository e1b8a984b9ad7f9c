"""Size and shape as columns: adaptive moments of the source and of its PSF."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool

from diffdeblend.quantities.moments import Moments, adaptive_moments
from diffdeblend.quantities.stamp import SourceStamp

Found = Mapping[str, Mapping[str, Array]]
# The centre of the light and the centroid are of one source if they are this close, in pixels.
_MOST_SHIFT = 2.0


def measure_psf_shape(stamp: SourceStamp, found: Found) -> dict[str, Array]:
    """Adaptive moments of the PSF: `xx`, `yy`, `xy`, `radius` (the determinant's) and `flag`."""
    psf = stamp.psf
    middle = [jnp.asarray((n - 1) / 2, psf.dtype) for n in psf.shape]
    made = adaptive_moments(psf, jnp.ones_like(psf), middle[1], middle[0])
    det = made.xx * made.yy - made.xy**2
    # A PSF that no Gaussian is like still has a noise-equivalent area, 4 pi sigma^2.
    equivalent = jnp.sum(psf) ** 2 / jnp.sum(psf**2) / (4 * jnp.pi)

    def or_round(value: Array, default: Array) -> Array:
        return jnp.where(made.settled, value, default)

    radius = jnp.where(made.settled, det, 1.0) ** 0.25
    return {
        "xx": or_round(made.xx, equivalent),
        "yy": or_round(made.yy, equivalent),
        "xy": or_round(made.xy, jnp.zeros_like(equivalent)),
        "radius": or_round(radius, jnp.sqrt(equivalent)),
        "flag": ~made.settled,
    }


@dataclass(frozen=True)
class MeasureShape:
    """Adaptive moments of the source, about its own centre of light or about its centroid.

    `x`, `y`, `xx`, `yy`, `xy` with errors `*_err`, covariances `xx_yy_cov`, `xx_xy_cov`,
    `yy_xy_cov`; `radius` of the determinant and `radius_trace`; `flux` and `flux_err` through that
    Gaussian, `fourth`. NaN where the search fails. Flags: `flag_not_settled`; `flag_shift`, the
    centre is farther than two pixels from the centroid; `flag`, either.

    - `recentre`: False holds the centre at the centroid, as `SdssShape` does: where that is wrong
        by a fraction of a pixel, so is the size.
    """

    recentre: bool = True

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        x, y, psf = found["centroid"]["x"], found["centroid"]["y"], found["psf_shape"]
        start = jnp.broadcast_to((psf["xx"] + psf["yy"]) / 2, jnp.shape(x))
        made = adaptive_moments(stamp.image, stamp.variance, x, y, start, self.recentre)
        away = (made.x - x) ** 2 + (made.y - y) ** 2
        shifted = made.settled & (away > _MOST_SHIFT**2)
        columns = _columns(made)
        return {
            **columns,
            "flag": shifted | ~made.settled,
            "flag_not_settled": ~made.settled,
            "flag_shift": shifted,
        }


def _columns(made: Moments) -> dict[str, Array]:
    names = ("x", "y", "xx", "xy", "yy")
    cov = made.covariance
    columns = {name: getattr(made, name) for name in names}
    for k, name in enumerate(names):
        positive = cov[k, k] > 0
        root = jnp.sqrt(jnp.where(positive, cov[k, k], 1.0))
        columns[f"{name}_err"] = jnp.where(positive, root, jnp.nan)
    columns |= {"xx_xy_cov": cov[2, 3], "xx_yy_cov": cov[2, 4], "yy_xy_cov": cov[3, 4]}
    det = made.xx * made.yy - made.xy**2
    columns["radius"] = jnp.where(made.settled, jnp.where(made.settled, det, 1) ** 0.25, jnp.nan)
    half = (made.xx + made.yy) / 2
    columns["radius_trace"] = jnp.where(
        made.settled, jnp.sqrt(jnp.where(made.settled, half, 1)), jnp.nan
    )
    return columns | {"flux": made.flux, "flux_err": made.flux_err, "fourth": made.fourth}


def shape_or_psf(found: Found) -> tuple[Array, Array, Array, Bool[Array, ""]]:
    """`xx`, `yy`, `xy` of the source, or those of the PSF where they failed; and which."""
    failed = found["shape"]["flag"]
    xx, yy, xy = (
        jnp.where(failed, found["psf_shape"][name], found["shape"][name])
        for name in ("xx", "yy", "xy")
    )
    return xx, yy, xy, failed


def axes(xx: Array, yy: Array, xy: Array) -> tuple[Array, Array, Array]:
    """Semi-axes of the standard ellipse, and the angle of the larger from the x axis in radians."""
    half, apart = (xx + yy) / 2, (xx - yy) / 2
    square = apart**2 + xy**2
    round_ = square <= 1e-12 * half**2
    root = jnp.sqrt(jnp.where(round_, 1.0, square)) * ~round_
    angle = 0.5 * jnp.arctan2(jnp.where(round_, 0.0, xy), jnp.where(round_, 1.0, apart))
    least = jnp.maximum(half - root, 1e-6 * half)
    return jnp.sqrt(half + root), jnp.sqrt(least), angle
