"""How far a network is from the galaxies it learns from: bounds on minus their log-likelihood."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffdeblend.components import Decoder
from diffdeblend.parameters import as_float
from diffdeblend.train.network import Encoder


class AbstractLoss(eqx.Module):
    """What is asked of a decoder, one galaxy at a time.

    To learn from another kind of data: subclass, write `features` and `misfit`.
    """

    @abstractmethod
    def features(self, galaxy: tuple[Array, ...]) -> Float[Array, "n"]:
        """What the encoder sees of one galaxy."""

    @abstractmethod
    def misfit(self, image: Float[Array, "h w"], galaxy: tuple[Array, ...]) -> Float[Array, ""]:
        """Minus the log-likelihood of one galaxy for a decoded image, up to a constant."""


class CleanLoss(AbstractLoss):
    r"""For images without noise: as if each were a heap of `photons` photons.

    $N \sum_i p_i \ln(p_i / q_i)$ with $p$ the galaxy and $q$ the decoded image, of unit sum each.
    More photons ask for finer shapes, which cost more latents' worth of information.

    - `mean`: mean log image, which the encoder sees galaxies beside.
    """

    photons: Float[Array, ""] = eqx.field(converter=as_float)
    mean: Float[Array, "h w"]

    def features(self, galaxy: tuple[Array, ...]) -> Float[Array, "n"]:
        # Roots: photons have the same noise there everywhere. Of unit order for any size.
        (image,) = galaxy
        excess = jnp.sqrt(image) - jnp.exp(0.5 * self.mean)
        return (jnp.sqrt(1.0 * image.size) * excess).reshape(-1)

    def misfit(self, image: Float[Array, "h w"], galaxy: tuple[Array, ...]) -> Float[Array, ""]:
        (truth,) = galaxy
        tiny = jnp.finfo(truth.dtype).tiny
        ratio = jnp.log(jnp.maximum(truth, tiny)) - jnp.log(jnp.maximum(image, tiny))
        return self.photons * jnp.sum(jnp.where(truth > 0, truth * ratio, 0))


class NoisyLoss(AbstractLoss):
    r"""For stamps as a survey has them, each with its own noise and PSF: the observed pixels'.

    The decoded image goes through what lies between the Gaussian of the frame and the stamp's PSF;
    its flux is eliminated in closed form, and half of the remaining $\chi^2$ is the misfit. So the
    noise does not become part of the prior, nor does the PSF.

    A galaxy is `(data, weight, psf)`: `(h, w)`, inverse variances, 0 where masked, and the PSF's
    image `(k, k)`, k odd, with the pixel's response, of unit sum.

    - `mean`: mean log image, whose flux tells the encoder how bright the stamp is.
    - `psf_sigma`: of the frame's Gaussian, in pixels.
    """

    mean: Float[Array, "h w"]
    psf_sigma: Float[Array, ""] = eqx.field(converter=as_float)

    def features(self, galaxy: tuple[Array, ...]) -> Float[Array, "n"]:
        data, weight, psf = galaxy
        model = seen_through(jnp.exp(self.mean), psf, self.psf_sigma)
        flux, information = best_flux(model, data, weight)
        # Whitened pixels span four decades; asinh keeps the faint ones and tames the bright.
        whitened = jnp.arcsinh(data * jnp.sqrt(weight))
        significance = jnp.arcsinh(flux * jnp.sqrt(information))
        width = jnp.sqrt(1 / (4 * jnp.pi * jnp.sum(psf**2)))
        return jnp.concatenate([0.3 * whitened.reshape(-1), jnp.stack([significance, width])])

    def misfit(self, image: Float[Array, "h w"], galaxy: tuple[Array, ...]) -> Float[Array, ""]:
        data, weight, psf = galaxy
        model = seen_through(image, psf, self.psf_sigma)
        flux, _ = best_flux(model, data, weight)
        return 0.5 * jnp.sum(weight * (data - flux * model) ** 2)


def best_flux(
    model: Float[Array, "h w"], data: Float[Array, "h w"], weight: Float[Array, "h w"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The flux that fits best, and its inverse variance; 0 where nothing is seen."""
    information = jnp.sum(weight * model**2)
    seen = information > 0
    flux = jnp.sum(weight * data * model) / jnp.where(seen, information, 1)
    return jnp.where(seen, flux, 0), information


def seen_through(
    image: Float[Array, "h w"], psf: Float[Array, "k k"], psf_sigma: Float[Array, ""]
) -> Float[Array, "h w"]:
    """An image of the frame as a PSF shows it; light that leaves the stamp does not come back.

    What the PSF has beyond the frame's Gaussian at some frequency is its own noise: the ratio of
    the two stays at 1 there.
    """
    height, width = image.shape
    half = psf.shape[0] // 2
    # Twice the stamp holds all that can reach it; even numbers of small factors make FFTs fast.
    rows, columns = (_fast(n + max(n, psf.shape[0])) for n in (height, width))
    ky = 2 * jnp.pi * jnp.fft.fftfreq(rows).astype(image.dtype)[:, None]
    kx = 2 * jnp.pi * jnp.fft.rfftfreq(columns).astype(image.dtype)[None, :]
    gaussian = jnp.exp(-0.5 * psf_sigma**2 * (kx**2 + ky**2))
    framed = jnp.pad(psf, ((0, rows - psf.shape[0]), (0, columns - psf.shape[1])))
    seen = jnp.fft.rfft2(jnp.roll(framed, (-half, -half), axis=(0, 1)))
    size = jnp.abs(seen)
    ratio = seen / jnp.maximum(gaussian, jnp.maximum(size, jnp.finfo(image.dtype).tiny))
    padded = jnp.pad(image, ((0, rows - height), (0, columns - width)))
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(padded) * ratio, (rows, columns))
    return blurred[:height, :width]


def negative_elbo(
    encoder: Encoder,
    decoder: Decoder,
    loss: AbstractLoss,
    galaxy: tuple[Array, ...],
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Misfit of one draw from the encoder, and $\mathrm{KL}(q(z)\,|\,N(0, I))$, both in nats.

    Their sum bounds minus the log-likelihood of the galaxy from above, on average over keys.

    ??? cite
        Kingma & Welling (2014), arXiv:1312.6114, eqs. 7 and 10.
    """
    centre, log_sigma = encoder(loss.features(galaxy))
    latent = centre + jnp.exp(log_sigma) * jax.random.normal(key, centre.shape, centre.dtype)
    information = 0.5 * jnp.sum(centre**2 + jnp.exp(2 * log_sigma) - 1 - 2 * log_sigma)
    return loss.misfit(decoder(latent), galaxy), information


def _fast(n: int) -> int:
    """The next number up of factors 2, 3 and 5, even."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and n % 2 == 0:
            return n
        n += 1
