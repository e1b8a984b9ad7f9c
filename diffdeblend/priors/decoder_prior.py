"""Galaxies as normal numbers that a network turns into images."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from diffdeblend.components import Decoded, Decoder, Frame
from diffdeblend.grid import product_modes
from diffdeblend.psf import AbstractPSF, PixelPSF


@dataclass(frozen=True)
class Training:
    """Where a prior comes from.

    - `population`: what it learnt from, in words.
    - `settings`: all that decides the result, as JSON; `settings_hash`: its sha256.
    - `seed`: of the training.
    - `n_galaxies`: how many there were, those held out included.
    - `loss`, `validation_loss`: at the end, in nats a galaxy; None if not known.
    - `versions`: names and versions of the packages that were used.
    """

    population: str
    settings: str = "{}"
    settings_hash: str = ""
    seed: int = 0
    n_galaxies: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    versions: tuple[tuple[str, str], ...] = ()


class DecoderPrior(eqx.Module):
    """A learned prior on the shapes of galaxies: normal latents, and a decoder of images.

    `fit(Scene([prior.source(flux, x, y), ...]), exposure)` is the fit under it: latents are normal
    there by default.

    - `decoder`: from latents to images.
    - `training`: where it comes from.
    """

    decoder: Decoder
    training: Training = eqx.field(static=True, default=Training("unknown"))

    @property
    def frame(self) -> Frame:
        """Size, pixel scale and PSF of what is decoded."""
        return self.decoder.frame

    @property
    def n_latent(self) -> int:
        """Number of latents of a galaxy."""
        return self.decoder.n_latent

    def log_prob(
        self, latent: Float[Array, "*n z"], temperature: ArrayLike = 1.0
    ) -> Float[Array, "*n"]:
        """Logarithm of the density of latents, normalised; pure.

        - `temperature`: variance of the latents. At 1 it is the prior; above, a weaker one.
        """
        latent = jnp.asarray(latent)
        variance = jnp.asarray(temperature, latent.dtype)
        scale = jnp.log(2 * jnp.pi * variance)
        return -0.5 * jnp.sum(latent**2 / variance + scale, axis=-1)

    def sample(
        self, key: PRNGKeyArray, n: int, temperature: ArrayLike = 1.0
    ) -> Float[Array, "n z"]:
        """Latents of `n` galaxies, drawn from the prior; pure, jit with `n` static."""
        drawn = jax.random.normal(key, (n, self.n_latent), self.decoder.mean.dtype)
        return jnp.sqrt(jnp.asarray(temperature, drawn.dtype)) * drawn

    def decode(self, latent: Float[Array, "*n z"]) -> Float[Array, "*n h w"]:
        """Images of unit sum, positive, in the frame; pure."""
        latent = jnp.asarray(latent)
        images = jax.vmap(self.decoder)(latent.reshape(-1, latent.shape[-1]))
        return images.reshape(*latent.shape[:-1], *images.shape[1:])

    def source(
        self, flux: ArrayLike, x: ArrayLike, y: ArrayLike, latent: ArrayLike | None = None
    ) -> Decoded:
        """A galaxy of this prior, for a scene.

        - `flux`: in each band, `(band,)`; `x`, `y`: its place in pixels.
        - `latent`: `(z,)`; by default the middle of the prior.
        """
        if latent is None:
            latent = jnp.zeros(self.n_latent, self.decoder.mean.dtype)
        return Decoded(flux, x, y, latent, self.decoder)

    def check(
        self,
        pixel_scale: float | None = None,
        psf: AbstractPSF | Float[ArrayLike, "*band h w"] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> None:
        """Whether the prior can be used for such data; host side.

        - `pixel_scale`: in arcsec; must be the frame's to 1 %.
        - `psf`: with the pixel's response; must be no narrower than the frame's Gaussian.
        - `shape`: of images to be compared with decoded ones.

        **Raises:** `ValueError` if it cannot, or if its own weights are not finite.
        """
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.decoder)):
            raise ValueError("`prior` has weights that are not finite; load or train it again.")
        frame = self.frame
        if pixel_scale is not None and frame.pixel_scale is not None:
            ratio = pixel_scale / frame.pixel_scale
            if not abs(ratio - 1) <= 0.01:
                raise ValueError(
                    f"`pixel_scale` is {pixel_scale} arcsec, and the prior was trained for "
                    f"{frame.pixel_scale}; train one for this scale, or resample the image."
                )
        if shape is not None and tuple(shape) != (frame.size, frame.size):
            raise ValueError(
                f"`shape` is {tuple(shape)}, and the prior has images of {frame.size} by "
                f"{frame.size} pixels."
            )
        if psf is not None:
            _check_width(psf, frame)


def _check_width(psf: AbstractPSF | Any, frame: Frame) -> None:
    if not isinstance(psf, AbstractPSF):
        images = np.asarray(psf)
        psf = PixelPSF(images if images.ndim == 3 else images[None])
    along = np.linspace(0, np.pi, 33)
    gaussian = np.exp(-0.5 * (frame.psf_sigma * along) ** 2)
    seen = np.asarray(_seen_along_axes(psf, jnp.asarray(along)))
    # A measured PSF has noise; where the Gaussian itself has faded, only that can be above it.
    beyond = float(np.max(seen - 1.05 * gaussian))
    if not beyond <= 0.03:
        raise ValueError(
            f"`psf` is narrower than the frame of the prior, a Gaussian of {frame.psf_sigma} "
            "pixels; train a prior of a narrower frame."
        )


@eqx.filter_jit
def _seen_along_axes(
    psf: AbstractPSF, along: Float[Array, "mode"]
) -> Float[Array, "axis band mode"]:
    """Modulus of a PSF's transform along both axes."""
    zero = jnp.zeros(1, along.dtype)
    both = (
        jnp.hypot(*psf.fourier(product_modes(*axes))) for axes in ((along, zero), (zero, along))
    )
    return jnp.stack([one.reshape(-1, along.size) for one in both])
