"""Light of a point: the PSF as the aperture."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.quantities.psf_on_stamp import psf_on_stamp
from diffdeblend.quantities.reach import leaves_image
from diffdeblend.quantities.stamp import SourceStamp

Scalar = Float[Array, ""]
# Of the PSF's power; with less of it on good pixels the flux is an extrapolation.
_LEAST_SHARE = 0.5


class PSFFlux(NamedTuple):
    """Scalars.

    - `flux`, `flux_err`: in the unit of the image; NaN where no pixel is used.
    - `chi2`, `n_pixels`: of the pixels used, after the point is taken away.
    - `area`: of the PSF in pixels, that of an aperture of the same noise.
    - `share`: of the PSF's power that lies on pixels used.
    """

    flux: Scalar
    flux_err: Scalar
    chi2: Scalar
    n_pixels: Scalar
    area: Scalar
    share: Scalar


def psf_flux(
    image: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    psf: Float[Array, "k l"],
    x: Scalar,
    y: Scalar,
    used: Bool[Array, "h w"] | None = None,
) -> PSFFlux:
    r"""Flux of a point at (x, y): $f = \sum P d / \sum P^2$.

    Without weights, so that the flux of bright stars does not hang on how well the PSF is known;
    its error is $\sqrt{\sum P^2 v} / \sum P^2$. Linear in the image.

    - `variance`: of the pixels.
    - `psf`: of unit sum, odd, centre in the middle pixel.
    - `used`: pixels to use; all with a positive variance if not given.

    ??? cite
        Optimal for the sky's noise: King (1983), PASP 95, 163, eq. 12.
    """
    used = variance > 0 if used is None else used & (variance > 0)
    model = psf_on_stamp(psf, (image.shape[0], image.shape[1]), x, y)
    model = jnp.where(jnp.isfinite(x) & jnp.isfinite(y), model, 0.0)
    whole = jnp.sum(psf**2)
    model = jnp.where(used, model, 0.0)
    power = jnp.sum(model**2)
    some = power > 0
    safe = jnp.where(some, power, 1.0)
    flux = jnp.sum(model * jnp.where(used, image, 0.0)) / safe
    noise = jnp.sum(model**2 * variance)
    error = jnp.sqrt(jnp.where(some, noise, 1.0)) / safe
    on_it = used & (model != 0)
    left = jnp.where(on_it, image - flux * model, 0.0)
    chi2 = jnp.sum(left**2 / jnp.where(on_it, variance, 1.0))
    return PSFFlux(
        flux=jnp.where(some, flux, jnp.nan),
        flux_err=jnp.where(some, error, jnp.nan),
        chi2=chi2,
        n_pixels=jnp.sum(on_it),
        area=jnp.sum(psf) ** 2 / whole,
        share=power / whole,
    )


def measure_psf_flux(
    stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
) -> dict[str, Array]:
    """`psf_flux` at the centroid, on pixels of no excluded plane.

    Flags: `flag_edge`, the PSF's stamp leaves the image; `flag_no_good_pixels`; `flag`, either, or
    less than half of the PSF's power on good pixels, or the centroid failed. A value is given where
    any pixel is.
    """
    x, y = found["centroid"]["x"], found["centroid"]["y"]
    made = psf_flux(stamp.image, stamp.variance, stamp.psf, x, y, stamp.good)
    # The pixels that the PSF's stamp lies on, about that nearest to the source.
    half_y, half_x = (n // 2 for n in stamp.psf.shape)
    edge = leaves_image(stamp, jnp.floor(x + 0.5), jnp.floor(y + 0.5), half_x, half_y)
    none = ~(made.share > 0)
    failed = edge | (made.share < _LEAST_SHARE) | found["centroid"]["flag"]
    return {**made._asdict(), "flag": failed, "flag_edge": edge, "flag_no_good_pixels": none}
