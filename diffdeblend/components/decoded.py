"""A galaxy as a trained network draws it from a few numbers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.components.abstract import AbstractComponent, check_flux
from diffdeblend.fourier import Pair, multiply, sampled_modes, shift
from diffdeblend.grid import Modes
from diffdeblend.parameters import Real, as_float, real

# Where a latent is normal, three standard deviations in one step are a jump into the unknown.
_LATENT = {"domain": Real(step=1.5, width=1.0, wall=1e3)}


@dataclass(frozen=True)
class Frame:
    """The pixels that a decoder draws on, and the PSF that its galaxies are seen through.

    - `size`: height and width, odd: galaxies are centred on the middle pixel.
    - `psf_sigma`: standard deviation of the Gaussian PSF, in pixels. Narrower than that of any data
        that the decoder is for, and wide enough that samples at the pixels' centres tell all. The
        ratio of the two transfer functions at the Nyquist frequency, that of the data with the
        response of a pixel, says how much is lost: 0.03 costs 5e-4 of the peak, 0.15 costs 2e-3,
        0.5 costs 6e-3.
    - `pixel_scale`: in arcseconds; None where galaxies have no scale.

    **Raises:** `ValueError` for an even size, or numbers that are not positive.
    """

    size: int = 33
    psf_sigma: float = 0.8
    pixel_scale: float | None = 0.2

    def __post_init__(self):
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"`size` must be odd and at least 3; got {self.size}.")
        if not (np.isfinite(self.psf_sigma) and self.psf_sigma > 0):
            raise ValueError(f"`psf_sigma` must be positive, in pixels; got {self.psf_sigma}.")
        scale = self.pixel_scale
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"`pixel_scale` must be positive, in arcsec, or None; got {scale}.")


class Decoder(eqx.Module):
    r"""From a latent to a galaxy of unit flux: $p = \mathrm{softmax}(m + f(z))$.

    Positive and of unit sum by construction, over the ten decades between core and wings.

    - `layers`: of the network $f$, from latent to pixels; SiLU between them.
    - `mean`: $m$, the mean of the logarithm of the training galaxies, `(size, size)`.
    - `frame`: the pixels, and the PSF that the galaxy is seen through.
    - `warp`: a flow that makes latents of normal numbers, or None where these are the latents.

    **Raises:** `ValueError` if layers, mean and frame do not fit together.
    """

    layers: tuple[eqx.nn.Linear, ...]
    mean: Float[Array, "size size"]
    frame: Frame = eqx.field(static=True)
    warp: eqx.Module | None = None

    def __check_init__(self):
        size = self.frame.size
        if self.mean.shape != (size, size):
            raise ValueError(
                f"`mean` needs shape {(size, size)} as the frame; got {self.mean.shape}."
            )
        widths = [(layer.in_features, layer.out_features) for layer in self.layers]
        joined = all(a[1] == b[0] for a, b in pairwise(widths))
        if not widths or not joined or widths[-1][1] != size**2:
            raise ValueError(f"`layers` must lead to {size**2} pixels, each to the next; {widths}.")

    @property
    def n_latent(self) -> int:
        """Numbers that a galaxy is drawn from."""
        return int(self.layers[0].in_features)

    def __call__(self, latent: Float[Array, "latent"]) -> Float[Array, "size size"]:
        """The galaxy, seen through the frame's PSF, at the centres of the frame's pixels."""
        return jax.nn.softmax(self.logits(latent).reshape(-1)).reshape(self.mean.shape)

    def logits(self, latent: Float[Array, "latent"]) -> Float[Array, "size size"]:
        """The logarithm of the galaxy, up to a constant."""
        value = latent if self.warp is None else self.warp(latent)  # type: ignore[operator]
        for layer in self.layers[:-1]:
            value = jax.nn.silu(layer(value))
        return self.mean + self.layers[-1](value).reshape(self.mean.shape)


class Decoded(AbstractComponent):
    """A galaxy of a learned prior: a flux a band, a place, and the numbers that say how it looks.

    - `flux`: flux on the decoder's stamp in each band, shape `(band,)`, in the unit of the
        exposure. All bands share the morphology.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    - `latent`: shape `(latent,)`; normal under the prior.
    - `decoder`: makes a morphology of it; held in a fit, and shared by all galaxies of a stack.

    The pixels of the data must be those of the decoder's frame. The morphology is free of their
    PSF: it is the one in the frame, of which the frame's own PSF is taken off in Fourier space, up
    to the pixels' Nyquist frequency. What is left of the peak of the seen image (GalSim as truth, a
    Moffat PSF, frame of 0.8 pixels): at a FWHM of 3.5 pixels and more 2e-4, at 3 pixels 5e-4, at
    2.4 pixels 2e-3; of a point 1e-3, 2e-3 and 4e-3.

    **Raises:** `ValueError` if `flux` is not one number per band, or `latent` not of the decoder's.
    """

    has_columns: ClassVar[bool] = True

    flux: Float[Array, "band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    latent: Float[Array, "latent"] = eqx.field(converter=as_float, metadata=_LATENT)
    decoder: Decoder | None

    def __check_init__(self):
        check_flux(self.flux)
        wanted = None if self.decoder is None else (self.decoder.n_latent,)
        if wanted is not None and self.latent.shape != wanted:
            raise ValueError(f"`latent` needs shape {wanted}; got {self.latent.shape}.")

    def split(self) -> tuple[Self, Any]:
        own = eqx.tree_at(lambda s: s.decoder, self, None, is_leaf=lambda leaf: leaf is None)
        return own, self.decoder

    def with_shared(self, shared: Any) -> Self:
        return eqx.tree_at(lambda s: s.decoder, self, shared, is_leaf=lambda leaf: leaf is None)

    @property
    def network(self) -> Decoder:
        """The decoder, of a galaxy that is not part of a stack."""
        if self.decoder is None:
            raise ValueError("`decoder` is kept by the stack; take the galaxy by `stack.member`.")
        return self.decoder

    def image(self) -> Float[Array, "size size"]:
        """The galaxy of unit flux in the decoder's frame."""
        return self.network(self.latent)

    def fourier(self, modes: Modes) -> Pair:
        return multiply(self._at_origin(self.image(), modes), shift(modes, self.x, self.y))

    def columns(self, modes: Modes) -> tuple[Pair, Pair]:
        # All of the decoder's derivatives are one product a layer; those by place need none.
        image, push = jax.linearize(self.network, self.latent)
        by_latent = jax.vmap(push)(jnp.eye(self.latent.size, dtype=self.latent.dtype))
        images = jax.lax.optimization_barrier((image[None], by_latent))
        here = shift(modes, self.x, self.y)
        re, im = multiply(self._at_origin(jnp.concatenate(images), modes), here)
        value, slopes = (re[0], im[0]), (re[1:], im[1:])
        # Times -i k.
        by_place = [(k * value[1], -k * value[0]) for k in (modes.kx, modes.ky)]
        rows = jax.lax.optimization_barrier([(a[None], b[None]) for a, b in by_place] + [slopes])
        return value, (
            jnp.concatenate([row[0] for row in rows]),
            jnp.concatenate([row[1] for row in rows]),
        )

    def _at_origin(self, images: Float[Array, "*n size size"], modes: Modes) -> Pair:
        """Transform of images in the frame, the frame's PSF taken off."""
        frame = self.network.frame
        along = np.arange(frame.size, dtype=float) - frame.size // 2
        re, im = sampled_modes(images, modes, along, along)
        # Beyond Nyquist the samples repeat themselves, and know nothing.
        known = (jnp.abs(modes.kx) <= np.pi) & (jnp.abs(modes.ky) <= np.pi)
        squared = jnp.where(known, modes.kx**2 + modes.ky**2, 0)
        sharpen = jnp.where(known, jnp.exp(0.5 * frame.psf_sigma**2 * squared), 0)
        return sharpen * re, sharpen * im
