r"""Is a galaxy one of those that a prior was learned from? Latents and residuals tell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float


class Support(NamedTuple):
    """How usual a fitted galaxy is under its prior. Quantiles of a usual one are even in (0, 1).

    - `latent_norm`: squared length of the latent; `latent_quantile`: its place among those of the
        population at this signal to noise.
    - `own_chi2`: mean squared residual over variance in the galaxy's own light;
        `own_quantile`: its place among those of a model that is right.
    - `out_of_domain`: whether either is too large to be believed.
    """

    latent_norm: Float[Array, "*s"]
    latent_quantile: Float[Array, "*s"]
    own_chi2: Float[Array, "*s"]
    own_quantile: Float[Array, "*s"]
    out_of_domain: Bool[Array, "*s"]


def support_check(
    latent: Float[Array, "*s latent"],
    covariance: Float[Array, "*s latent latent"],
    own_chi2: Float[Array, "*s"],
    own_pixels: Float[Array, "*s"],
    *,
    temperature: ArrayLike = 1.0,
    false_alarm: ArrayLike = 0.01,
) -> Support:
    r"""Whether fitted galaxies are in the domain of a prior; pure and jit-compatible.

    Two questions to each. *Is its latent too long?* Of galaxies of the population, latents of the
    highest posterior are not normal: data pull them away from 0 only as far as they know them. To
    first order they scatter with the covariance $A (A + S)$, $A = I - S / T$, of the posterior
    covariance $S$ at the temperature $T$; at $T = 1$ this is $I - S$. The squared length is then
    taken for a gamma variate with mean and variance of the true one. *Is something left in its own
    light?* `own_chi2` of a model that is right is about a chi2 variate over its number of freedoms,
    `own_pixels`.

    A galaxy is out of domain where either answer is one that `false_alarm` of the population would
    give, shared between both questions.

    - `latent`, `covariance`: of each galaxy, marginal over all other numbers of the fit.
    - `own_chi2`, `own_pixels`: from `own_residuals`.
    - `temperature`: of the prior in the fit.
    - `false_alarm`: share of the population's own galaxies that may be called out of domain.

    ??? cite
        Two moments of a sum of squares: Satterthwaite (1946), Biometrics Bulletin 2, 110.
    """
    eye = jnp.eye(latent.shape[-1], dtype=latent.dtype)
    gain = eye - covariance / temperature
    scatter = gain @ (gain + covariance)
    mean = jnp.maximum(jnp.trace(scatter, axis1=-2, axis2=-1), 1e-6)
    variance = 2 * jnp.sum(scatter * jnp.swapaxes(scatter, -2, -1), axis=(-2, -1))
    variance = jnp.maximum(variance, 1e-12)
    norm = jnp.sum(latent**2, axis=-1)
    far = jax.scipy.special.gammaincc(mean**2 / variance, norm * mean / variance)
    freedom = jnp.maximum(own_pixels, 1e-3)
    left = jax.scipy.special.gammaincc(0.5 * freedom, 0.5 * freedom * jnp.maximum(own_chi2, 0))
    left = jnp.where(own_pixels > 0, left, 1.0)
    each = 1 - jnp.sqrt(1 - jnp.asarray(false_alarm, latent.dtype))
    return Support(norm, 1 - far, own_chi2, 1 - left, jnp.minimum(far, left) < each)


def own_residuals(
    images: Float[Array, "source band y x"],
    residual: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    fitted: Float[Array, "source"],
) -> tuple[Float[Array, "source"], Float[Array, "source"]]:
    r"""Squared residuals over variance in each source's own light, and how many pixels that is.

    A pixel counts by the source's signal to noise in it and by its share of all light there. The
    mean is taken over what a right model would leave: of $N$ pixels in which $k$ numbers were
    fitted, about $N - k$.

    - `images`: of each source as the camera sees it.
    - `weight`: inverse variance, 0 where a pixel is not used.
    - `fitted`: how many numbers the data fix of each source.

    Returns the mean, 1 for a model that is right, and its freedoms, `(source,)` each.
    """
    light = jnp.maximum(images, 0)
    share = light / jnp.maximum(jnp.sum(light, axis=0), jnp.finfo(light.dtype).tiny)
    by = jnp.where(weight > 0, light * share * jnp.sqrt(weight), 0)
    axes = (1, 2, 3)
    total, squared = jnp.sum(by, axis=axes), jnp.sum(by**2, axis=axes)
    safe = jnp.where(total > 0, total, 1)
    pixels = jnp.where(total > 0, total**2 / jnp.where(squared > 0, squared, 1), 0)
    mean = jnp.sum(by * weight * residual**2, axis=axes) / safe
    # Few pixels with many numbers tell nothing: at least a tenth of them is taken to be left.
    free = jnp.maximum(pixels - fitted, 0.1 * pixels)
    return mean * pixels / jnp.maximum(free, 1e-6), free
