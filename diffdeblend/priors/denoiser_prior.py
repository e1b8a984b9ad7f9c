"""A prior for free pixels that is no density but a denoiser: it enters a fit by proximal steps."""

from collections.abc import Callable
from itertools import pairwise
from typing import NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.components import Frame, Pixels
from diffdeblend.priors.decoder_prior import Training


class LogTransform(eqx.Module):
    r"""The scale that noise is added on: $u = \ln(1 + p / p_0) / s$.

    Logarithmic over the decades between core and wings; what is far below the floor is no galaxy.

    - `floor`: $p_0$, of an image of unit sum.
    - `scale`: $s$, which makes u of order 1.
    """

    floor: float = eqx.field(static=True, default=3e-5)
    scale: float = eqx.field(static=True, default=3.0)

    def __check_init__(self):
        for name in ("floor", "scale"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)}.")

    def forward(self, image: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """u of an image that is nowhere negative, of unit sum."""
        return jnp.log1p(image / self.floor) / self.scale

    def inverse(self, value: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The image of u; nowhere negative."""
        # The largest possible value is that of one pixel with all light.
        most = np.log1p(1 / self.floor) / self.scale
        return self.floor * jnp.expm1(self.scale * jnp.clip(value, 0, most))


class Denoiser(eqx.Module):
    r"""A network D(u, sigma) that gives the mean of galaxies u, given u with noise of sigma.

    The best linear filter of the training galaxies, exact at any sigma, plus what a network of
    dense layers makes of the rest:
    $D = m + \sum_k \frac{\lambda_k}{\lambda_k + \sigma^2} e_k e_k^T (u - m) + c\,f(u, \sigma)$.

    - `mean`: m, `(size, size)`; `basis`, `variance`: principal components e, `(k, size^2)`, and
        their variances, `(k,)`.
    - `layers`: of f, from pixels to pixels, SiLU between; `condition`: from features of ln(sigma)
        to the first hidden width.

    ??? cite
        Factor c and scale of the input: Karras et al. (2022), arXiv:2206.00364, table 1.
    """

    mean: Float[Array, "size size"]
    basis: Float[Array, "k pixel"]
    variance: Float[Array, "k"]
    layers: tuple[eqx.nn.Linear, ...]
    condition: eqx.nn.Linear

    def __check_init__(self):
        n = self.mean.size
        widths = [(layer.in_features, layer.out_features) for layer in self.layers]
        joined = bool(widths) and widths[0][0] == widths[-1][1] == n
        joined = joined and all(a[1] == b[0] for a, b in pairwise(widths))
        if not joined or self.condition.out_features != widths[0][1]:
            raise ValueError(f"`layers` must lead from {n} pixels to as many; got {widths}.")
        if self.basis.shape != (self.variance.size, n):
            raise ValueError(
                f"`basis` needs shape {(self.variance.size, n)}; got {self.basis.shape}."
            )

    def __call__(
        self, value: Float[Array, "size size"], sigma: Float[ArrayLike, ""]
    ) -> Float[Array, "size size"]:
        sigma = jnp.asarray(sigma, value.dtype)
        away = (value - self.mean).reshape(-1)
        passed = self.variance / (self.variance + sigma**2)
        linear = (passed * (self.basis @ away)) @ self.basis
        # Mean variance of a pixel: what is added to the noise in all.
        signal = jnp.sum(self.variance) / away.size
        total = jnp.sqrt(signal + sigma**2)
        hidden = self.layers[0](away / total) + self.condition(noise_features(sigma))
        for layer in self.layers[1:]:
            hidden = layer(jax.nn.silu(hidden))
        rest = sigma * jnp.sqrt(signal) / total * hidden
        return self.mean + (linear + rest).reshape(self.mean.shape)


def noise_features(sigma: Float[Array, ""]) -> Float[Array, "6"]:
    """What a network is told about the level of noise: smooth functions of its logarithm."""
    level = jnp.log(sigma)
    return jnp.stack([jnp.ones_like(level), level, *(f(n * level) for n in (1, 2) for f in _WAVES)])


_WAVES = (jnp.cos, jnp.sin)


class ScoreDenoiser(eqx.Module):
    r"""A denoiser out of a score network of your own: $D = u + \sigma^2 s(u, \sigma)$.

    - `score`: from u, `(size, size)`, and sigma to the gradient of the log-density of galaxies with
        noise of that sigma. Load its weights by your own code. A network of variance-preserving
        diffusion at time t sees a u that is scaled down; wrap it as
        `lambda u, sigma: scale(t) * network(scale(t) * u, t)` with the t of that sigma.

    ??? cite
        Tweedie's formula: Efron (2011), JASA 106, 1602, eq. 1.5.
    """

    score: Callable[[Array, Array], Array]

    def __call__(
        self, value: Float[Array, "size size"], sigma: Float[ArrayLike, ""]
    ) -> Float[Array, "size size"]:
        sigma = jnp.asarray(sigma, value.dtype)
        return value + sigma**2 * self.score(value, sigma)


class DenoiserPrior(eqx.Module):
    """What a denoiser knows of galaxies, for free pixels: `PlugAndPlay(prior)` fits with it.

    It sees one galaxy at a time, of unit sum on the frame's stamp, through the frame's Gaussian
    PSF: so it is free of the PSF of the data. It has no log-probability, and a fit that adds its
    slope to that of the data does worse than one by turns, so there is only `prox`. What needs a
    probability (sampling, `LevenbergMarquardt`) refuses it; a `DecoderPrior` has one.

    To plug in a network of your own, give it as `denoiser`, any module or function of `(u, sigma)`
    such as `ScoreDenoiser(network)`; the pixels and PSF that it was trained with as `frame`; and
    the map from images of unit sum to its u as `transform`: `LogTransform` or a module with
    `forward` and `inverse`. A network of images of other norms is scaled in these two. If the data
    have other pixels, resample them or train again: a denoiser cannot be rescaled.

    - `denoiser`: gives u without noise; `(size, size)` in and out.
    - `frame`: size of the stamp, PSF and scale of its pixels.
    - `transform`: to u and back.
    - `mean`: a typical galaxy, where a fit may start, `(size, size)`, of unit sum.
    - `training`: where it comes from.

    **Raises:** `ValueError` if `mean` has not the size of the frame.
    """

    denoiser: Callable[[Array, Array], Array]
    frame: Frame = eqx.field(static=True)
    mean: Float[Array, "size size"]
    transform: LogTransform = eqx.field(default_factory=LogTransform)
    training: Training = eqx.field(static=True, default=Training("unknown"))

    def __check_init__(self):
        shape = (self.frame.size, self.frame.size)
        if self.mean.shape != shape:
            raise ValueError(f"`mean` needs shape {shape} as the frame; got {self.mean.shape}.")

    def __call__(self, scene: object) -> NoReturn:
        """Refuse to be taken for a density.

        **Raises:** `TypeError` always.
        """
        raise TypeError(
            "`prior` is a `DenoiserPrior`, which has no log-probability to sample or to add to an "
            "objective. Fit free pixels with `method=PlugAndPlay(prior)`, or take a `DecoderPrior`."
        )

    def denoise(
        self, value: Float[Array, "size size"], sigma: Float[ArrayLike, ""]
    ) -> Float[Array, "size size"]:
        """u without its noise of `sigma`."""
        return self.denoiser(value, jnp.asarray(sigma, value.dtype))

    def prox(
        self, image: Float[Array, "size size"], sigma: Float[ArrayLike, ""]
    ) -> Float[Array, "size size"]:
        """The image that the denoiser makes of one: nowhere negative, of unit sum.

        - `image`: in the frame, not negative; its sum does not matter.
        - `sigma`: noise of u, as the denoiser was trained with.
        """
        found = self.transform.inverse(self.denoise(self.transform.forward(unit(image)), sigma))
        return unit(found)

    def check(self, pixel_scale: float) -> None:
        """Whether the prior can be used for pixels of so many arcseconds; host side.

        **Raises:** `ValueError` if they are not the frame's to 1 %.
        """
        own = self.frame.pixel_scale
        if own is not None and not abs(pixel_scale / own - 1) <= 0.01:
            raise ValueError(
                f"`pixel_scale` is {pixel_scale} arcsec, and the prior was trained for {own}; "
                "train one for this scale, or resample the image."
            )

    def source(
        self,
        flux: Float[ArrayLike, "band"],
        x: Float[ArrayLike, ""],
        y: Float[ArrayLike, ""],
        *,
        blur: float = 0.0,
    ) -> Pixels:
        """Free pixels to begin a fit with: the typical galaxy at a place."""
        return Pixels(flux, x, y, self.mean, blur=blur, monotonic=False)


def unit(image: Float[Array, "size size"]) -> Float[Array, "size size"]:
    """An image of unit sum; a dark one stays dark."""
    total = jnp.sum(image)
    return image / jnp.where(total > 0, total, 1)
