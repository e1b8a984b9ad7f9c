"""Where a source is: the peak of its image, smoothed with a Gaussian of the PSF's width."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffdeblend.quantities.reach import leaves_image
from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.sums import power_sums, steps_along

Scalar = Float[Array, ""]
_STEPS = 7
# No step is longer than this share of the width: from farther away Newton's may lead off.
_LONGEST = 0.7
_SETTLED = 1e-2
# How far from the peak a centroid may be, in pixels.
MOST_SHIFT = 1.0
# Half the width of the box, in widths of the Gaussian, that must be on the image.
_REACH = 2.0


class Centroid(NamedTuple):
    """Scalars.

    - `x`, `y`, `x_err`, `y_err`, `xy_cov`: in pixels of the stamp; the covariance in square pixels.
    - `peak`: whether it is a maximum. `settled`: whether the search came to an end.
    """

    x: Scalar
    y: Scalar
    x_err: Scalar
    y_err: Scalar
    xy_cov: Scalar
    peak: Bool[Array, ""]
    settled: Bool[Array, ""]


def centroid(
    image: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    x: Scalar,
    y: Scalar,
    sigma: Scalar | float,
) -> Centroid:
    r"""The place where $\sum I \exp(-r^2 / 2 \sigma^2)$ is largest, sought from (x, y).

    For a star and the width of the PSF that is its place with the least error there is, but for the
    wings of the PSF. The error is that of the linear response to the noise of the pixels. May be
    differentiated by `image`, as a root is.

    - `image`, `variance`: 0 where nothing is known.
    - `x`, `y`: to start from, in pixels, near the peak.
    - `sigma`: standard deviation of the Gaussian in pixels.

    ??? cite
        Stone (1989), AJ 97, 1227, on Gaussian weights; the covariance is the sandwich of
        M-estimators, Huber (1967).
    """
    x, y, sigma = (jnp.asarray(v, image.dtype) for v in (x, y, sigma))
    start = jax.lax.stop_gradient((image, x, y, sigma))
    fine = jnp.isfinite(x) & jnp.isfinite(y) & (sigma > 0)
    sigma = jnp.where(fine, sigma, 1.0)
    held, at_x, at_y, width = start
    at_x, at_y = jnp.where(fine, at_x, 0.0), jnp.where(fine, at_y, 0.0)
    width = jnp.where(fine, width, 1.0)

    def step(state, _):
        x, y, _ = state
        dx, dy, _, _ = _newton(held, x, y, width)
        length = jnp.sqrt(dx**2 + dy**2 + jnp.finfo(dx.dtype).tiny)
        shorter = jnp.minimum(1.0, _LONGEST * width / length)
        return (x + shorter * dx, y + shorter * dy, length), None

    (at_x, at_y, last), _ = jax.lax.scan(
        step, (at_x, at_y, jnp.full_like(width, jnp.inf)), None, length=_STEPS
    )
    # The step that carries the gradient; its matrix is that of the covariance, too.
    dx, dy, curve, peak = _newton(image, at_x, at_y, sigma, held=True)
    noise = power_sums(variance * _gaussian(variance.shape, at_x, at_y, width) ** 2, at_x, at_y, 2)
    spread = jnp.stack([noise[0, 2], noise[1, 1], noise[2, 0]]) / width**4
    inverse = _inverse(curve)
    # Sandwich: inverse x spread x inverse, all symmetric 2 x 2.
    xx, xy, yy = inverse
    sxx, sxy, syy = spread
    var_x = xx * xx * sxx + 2 * xx * xy * sxy + xy * xy * syy
    var_y = xy * xy * sxx + 2 * xy * yy * sxy + yy * yy * syy
    cov = xx * xy * sxx + (xx * yy + xy * xy) * sxy + xy * yy * syy
    peak &= fine
    settled = (last < _SETTLED * width) & fine
    known = peak & settled
    return Centroid(
        x=jnp.where(known, at_x + dx, jnp.nan),
        y=jnp.where(known, at_y + dy, jnp.nan),
        x_err=jnp.where(known, jnp.sqrt(jnp.where(known, var_x, 1.0)), jnp.nan),
        y_err=jnp.where(known, jnp.sqrt(jnp.where(known, var_y, 1.0)), jnp.nan),
        xy_cov=jnp.where(known, cov, jnp.nan),
        peak=peak,
        settled=settled,
    )


def _gaussian(shape: tuple[int, ...], x: Scalar, y: Scalar, sigma: Scalar) -> Array:
    along_x = jnp.exp(-0.5 * (steps_along(shape[1], x) / sigma) ** 2)
    along_y = jnp.exp(-0.5 * (steps_along(shape[0], y) / sigma) ** 2)
    return along_y[:, None] * along_x


def _newton(image: Array, x: Scalar, y: Scalar, sigma: Scalar, held: bool = False):
    """Newton's step to the maximum, the matrix of second derivatives, and whether it is one."""
    weight = _gaussian(image.shape, x, y, sigma)
    if held:
        weight = jax.lax.stop_gradient(weight)
    m = power_sums(image * weight, x, y, 2)
    slope_x, slope_y = m[0, 1] / sigma**2, m[1, 0] / sigma**2
    xx = m[0, 2] / sigma**4 - m[0, 0] / sigma**2
    yy = m[2, 0] / sigma**4 - m[0, 0] / sigma**2
    xy = m[1, 1] / sigma**4
    det = xx * yy - xy * xy
    # Negative definite; where not, uphill by the width of the Gaussian and no more.
    peak = (xx < 0) & (det > 0)
    if held:
        xx, xy, yy, det = jax.lax.stop_gradient((xx, xy, yy, det))
    safe = jnp.where(peak, det, 1.0)
    size = jnp.sqrt(slope_x**2 + slope_y**2 + jnp.finfo(safe.dtype).tiny)
    dx = jnp.where(peak, -(yy * slope_x - xy * slope_y) / safe, 0.5 * sigma * slope_x / size)
    dy = jnp.where(peak, -(xx * slope_y - xy * slope_x) / safe, 0.5 * sigma * slope_y / size)
    return dx, dy, (xx, xy, yy, safe), peak


def _inverse(curve: tuple) -> tuple[Scalar, Scalar, Scalar]:
    xx, xy, yy, det = curve
    return yy / det, -xy / det, xx / det


def measure_centroid(
    stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
) -> dict[str, Array]:
    """`centroid` from the peak, with the width of the PSF.

    Where it fails, or ends farther than a pixel from the peak or off the footprint, `x` and `y` are
    those of the peak. Flags: `flag_edge`, its surroundings leave the image;
    `flag_not_at_maximum`; `flag_reset_to_peak`; `flag`, any of the last two.
    """
    made = centroid(stamp.image, stamp.variance, stamp.x, stamp.y, found["psf_shape"]["radius"])
    away = (made.x - stamp.x) ** 2 + (made.y - stamp.y) ** 2
    column, row = jnp.floor(made.x + 0.5), jnp.floor(made.y + 0.5)
    on_x = np.arange(stamp.image.shape[1]) == column
    on_y = np.arange(stamp.image.shape[0]) == row
    on_footprint = jnp.any(stamp.footprint & on_y[:, None] & on_x)
    # NaN is not near.
    near = (away <= MOST_SHIFT**2) & on_footprint
    reach = _REACH * found["psf_shape"]["radius"]
    x, y = jnp.where(near, made.x, stamp.x), jnp.where(near, made.y, stamp.y)
    return {
        "x": x,
        "y": y,
        "x_err": jnp.where(near, made.x_err, jnp.nan),
        "y_err": jnp.where(near, made.y_err, jnp.nan),
        "xy_cov": jnp.where(near, made.xy_cov, jnp.nan),
        "flag": ~near,
        "flag_edge": leaves_image(stamp, stamp.x, stamp.y, reach, reach),
        "flag_not_at_maximum": ~made.peak,
        "flag_reset_to_peak": ~near,
    }


def hold_centroid(stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """The place that is given, as it is: for forced photometry, in place of `measure_centroid`.

    `flag`: it is not known.
    """
    return {"x": stamp.x, "y": stamp.y, "flag": ~(jnp.isfinite(stamp.x) & jnp.isfinite(stamp.y))}
