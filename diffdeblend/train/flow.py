"""A flow learnt on latents that an encoder has found, by maximum likelihood."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from diffdeblend.priors.flow import CouplingFlow, make_flow
from diffdeblend.train.learn import random_batch
from diffdeblend.train.loss import AbstractLoss
from diffdeblend.train.network import Encoder
from diffdeblend.train.settings import DecoderSettings

_WIDTH = 64


def fit_flow(
    loss: AbstractLoss,
    galaxies: tuple[Array, ...],
    encoder: Encoder,
    settings: DecoderSettings,
    key: PRNGKeyArray,
) -> CouplingFlow:
    """The flow under which draws from the encoder, of all galaxies, are likeliest."""
    first, key = jax.random.split(key)
    flow = make_flow(settings.n_latent, settings.flow, _WIDTH, first)
    return _fit(flow, loss, galaxies, encoder, settings, key)


@eqx.filter_jit
def _fit(
    flow: CouplingFlow,
    loss: AbstractLoss,
    galaxies: tuple[Array, ...],
    encoder: Encoder,
    settings: DecoderSettings,
    key: PRNGKeyArray,
) -> CouplingFlow:
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, settings.flow_steps))

    def draw(galaxy: tuple[Array, ...], key: PRNGKeyArray) -> Array:
        centre, log_sigma = encoder(loss.features(galaxy))
        return centre + jnp.exp(log_sigma) * jax.random.normal(key, centre.shape, centre.dtype)

    def one_step(state: tuple[Any, Any], step: Array) -> tuple[Any, None]:
        flow, moments = state
        choose, draws = jax.random.split(jax.random.fold_in(key, step))
        batch = random_batch(galaxies, settings.batch, choose)
        latents = jax.vmap(draw)(batch, jax.random.split(draws, settings.batch))
        slope = jax.grad(lambda one: -jnp.mean(jax.vmap(one.log_density)(latents)))(flow)
        change, moments = adam.update(slope, moments, flow)
        return (optax.apply_updates(flow, change), moments), None

    learnt: Any = flow
    start = (learnt, adam.init(learnt))
    (learnt, _), _ = jax.lax.scan(one_step, start, jnp.arange(settings.flow_steps))
    return learnt
