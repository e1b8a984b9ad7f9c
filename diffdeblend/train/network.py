"""The networks of a decoder prior while it learns: an encoder, and the decoder's first weights."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from diffdeblend.components import Decoder, Frame
from diffdeblend.train.augment import all_turns


class Encoder(eqx.Module):
    """What latents an image speaks for: a Gaussian, by a plain network.

    Plain layers, no convolutions: at 33 x 33 pixels on a CPU they learn in a tenth of the time.
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __call__(self, features: Float[Array, "n"]) -> tuple[Float[Array, "z"], Float[Array, "z"]]:
        """Centre and logarithm of the standard deviation of the latents."""
        values = features
        for layer in self.layers[:-1]:
            values = jax.nn.silu(layer(values))
        centre, log_sigma = jnp.split(self.layers[-1](values), 2)
        # Bounds no useful width, and no step overflows in the exponential.
        return centre, jnp.clip(log_sigma, -8.0, 4.0)


def make_encoder(
    n_features: int, widths: Sequence[int], n_latent: int, key: PRNGKeyArray
) -> Encoder:
    """An encoder with random weights, whose Gaussians start near the normal one."""
    layers = _layers([n_features, *widths, 2 * n_latent], key)
    return Encoder((*layers[:-1], _scaled(layers[-1], 0.1)))


def make_decoder(
    mean: Float[Array, "h w"], widths: Sequence[int], n_latent: int, frame: Frame, key: PRNGKeyArray
) -> Decoder:
    """A decoder with random weights, which starts close to the mean galaxy.

    - `mean`: logarithm of the mean image.
    """
    layers = _layers([n_latent, *widths, mean.size], key)
    return Decoder((*layers[:-1], _scaled(layers[-1], 0.1)), mean, frame)


def mean_log_image(images: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "h w"]:
    """Logarithm of the mean image, the same under turns and flips; host side."""
    mean = images.mean(axis=0, dtype=np.float64)
    mean = np.mean(all_turns(mean), axis=0)
    # An image that is empty somewhere still needs a finite logarithm there.
    mean = np.maximum(mean, 1e-6 * mean.max())
    return np.log(mean / mean.sum()).astype(np.float32)


def _layers(sizes: Sequence[int], key: PRNGKeyArray) -> list[eqx.nn.Linear]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        _he(eqx.nn.Linear(n_in, n_out, key=one), one)
        for n_in, n_out, one in zip(sizes[:-1], sizes[1:], keys, strict=True)
    ]


def _he(layer: eqx.nn.Linear, key: PRNGKeyArray) -> eqx.nn.Linear:
    """He et al. (2015), eq. 10: the variance of what passes stays what it is."""
    weight = layer.weight
    normal = jax.random.normal(key, weight.shape, jnp.float32) * math.sqrt(2 / weight.shape[1])
    bias = jnp.zeros(weight.shape[0], jnp.float32)
    return eqx.tree_at(lambda one: (one.weight, one.bias), layer, (normal, bias))


def _scaled(layer: eqx.nn.Linear, factor: float) -> eqx.nn.Linear:
    return eqx.tree_at(lambda one: one.weight, layer, factor * layer.weight)
