"""Light through a Gaussian of given shape."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.quantities.moments import gaussian_weight
from diffdeblend.quantities.shape import shape_or_psf
from diffdeblend.quantities.stamp import SourceStamp

Scalar = Float[Array, ""]


class GaussianFlux(NamedTuple):
    """Scalars, in the unit of the image; NaN where the shape is none."""

    flux: Scalar
    flux_err: Scalar


def gaussian_flux(
    image: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    x: Scalar,
    y: Scalar,
    xx: Scalar,
    yy: Scalar,
    xy: Scalar,
) -> GaussianFlux:
    r"""$f = 2 \sum w I$ with $w$ the Gaussian of unit height, its centre and shape held.

    That is the flux of a source of just this shape. Its error, $2 \sqrt{\sum w^2 v}$, is for a
    shape that comes from elsewhere; for the source's own see `moments.adaptive_moments`. Linear in
    the image.
    """
    det = xx * yy - xy**2
    known = (det > 0) & (xx > 0) & jnp.isfinite(x) & jnp.isfinite(y)
    one = jnp.ones_like(xx)
    place = tuple(
        jnp.where(known, value, default)
        for value, default in ((x, 0 * one), (y, 0 * one), (xx, one), (xy, 0 * one), (yy, one))
    )
    weight = gaussian_weight(image.shape, place)
    flux, square = 2 * jnp.sum(weight * image), jnp.sum(weight**2 * variance)
    some = known & (square > 0)
    error = 2 * jnp.sqrt(jnp.where(some, square, 1.0))
    return GaussianFlux(jnp.where(known, flux, jnp.nan), jnp.where(some, error, jnp.nan))


def measure_gaussian_flux(
    stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
) -> dict[str, Array]:
    """`gaussian_flux` through the source's own shape, or through that of the PSF at its centroid.

    With its own shape the flux and its error are those of the shape: with what the noise does to
    it, 1.4 times that of a held one. `flag`: the shape failed.
    """
    xx, yy, xy, failed = shape_or_psf(found)
    own, centroid = found["shape"], found["centroid"]
    # The flux through its own shape is at hand; the sum is for where that failed.
    made = gaussian_flux(stamp.image, stamp.variance, centroid["x"], centroid["y"], xx, yy, xy)
    return {
        "flux": jnp.where(failed, made.flux, own["flux"]),
        "flux_err": jnp.where(failed, made.flux_err, own["flux_err"]),
        "flag": failed,
    }
