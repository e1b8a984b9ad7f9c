"""Steps of Adam, many in one compiled program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffdeblend.components import Decoder
from diffdeblend.train.augment import augment
from diffdeblend.train.chunks import adam
from diffdeblend.train.loss import AbstractLoss, negative_elbo
from diffdeblend.train.network import Encoder
from diffdeblend.train.settings import DecoderSettings


class State(eqx.Module):
    """Where a training stands: all that the next step needs."""

    encoder: Encoder
    decoder: Decoder
    moments: Any
    step: Int[Array, ""]


def start(encoder: Encoder, decoder: Decoder, settings: DecoderSettings) -> State:
    """The state before the first step."""
    moments = optimiser(settings).init(_trained(encoder, decoder))
    return State(encoder, decoder, moments, jnp.zeros((), jnp.int32))


def optimiser(settings: DecoderSettings) -> optax.GradientTransformation:
    """That of the settings."""
    return adam(settings, settings.warmup, 500.0)


@eqx.filter_jit
def learn(
    fixed: tuple[AbstractLoss, tuple[Array, ...], PRNGKeyArray],
    state: State,
    settings: DecoderSettings,
    n_steps: int,
) -> tuple[State, Float[Array, "2"]]:
    """Some steps, and the means of misfit and information over them.

    - `fixed`: the loss, the galaxies as arrays with a first axis of galaxies (or of 1, if all share
        one), and the key of the training. The same step draws the same numbers whenever it is made.
    """
    loss, galaxies, key = fixed
    adam = optimiser(settings)

    def one_step(state: State, _: None) -> tuple[State, Array]:
        choose, draw = jax.random.split(jax.random.fold_in(key, state.step))
        batch = random_batch(galaxies, settings.batch, choose)
        keys = jax.random.split(draw, settings.batch)
        trained = _trained(state.encoder, state.decoder)

        def cost(trained: Any) -> tuple[Array, Array]:
            encoder, decoder = _with(trained, state.decoder)
            misfit, information = jax.vmap(
                lambda galaxy, one: negative_elbo(encoder, decoder, loss, galaxy, one)
            )(batch, keys)
            parts = jnp.stack([jnp.mean(misfit), jnp.mean(information)])
            return jnp.sum(parts), parts

        slope, parts = jax.grad(cost, has_aux=True)(trained)
        change, moments = adam.update(slope, state.moments, trained)
        encoder, decoder = _with(optax.apply_updates(trained, change), state.decoder)
        return State(encoder, decoder, moments, state.step + 1), parts

    state, parts = jax.lax.scan(one_step, state, length=n_steps)
    return state, jnp.mean(parts, axis=0)


@eqx.filter_jit
def validate(
    fixed: tuple[AbstractLoss, tuple[Array, ...], PRNGKeyArray],
    encoder: Encoder,
    decoder: Decoder,
) -> Float[Array, "2"]:
    """Mean misfit and information of galaxies, with the same draws at every call."""
    loss, galaxies, key = fixed
    n = number(galaxies)
    galaxies = tuple(_pick(array, jnp.arange(n)) for array in galaxies)

    def one(given: tuple[tuple[Array, ...], PRNGKeyArray]) -> Array:
        galaxy, key = given
        return jnp.stack(negative_elbo(encoder, decoder, loss, galaxy, key))

    # In batches: all at once might not fit into memory.
    parts = jax.lax.map(one, (galaxies, jax.random.split(key, n)), batch_size=128)
    return jnp.mean(parts, axis=0)


def number(galaxies: tuple[Array, ...]) -> int:
    """How many galaxies there are."""
    return max(array.shape[0] for array in galaxies)


def random_batch(galaxies: tuple[Array, ...], n: int, key: PRNGKeyArray) -> tuple[Array, ...]:
    """Some galaxies, each turned or flipped in a way of its own; its PSF with it."""
    choose, turn = jax.random.split(key)
    chosen = jax.random.randint(choose, (n,), 0, number(galaxies))
    return augment(turn, tuple(_pick(array, chosen) for array in galaxies))


def _trained(encoder: Encoder, decoder: Decoder) -> Any:
    """What Adam moves: all but the mean image."""
    return encoder, decoder.layers


def _with(trained: Any, decoder: Decoder) -> tuple[Encoder, Decoder]:
    encoder, layers = trained
    return encoder, eqx.tree_at(lambda one: one.layers, decoder, layers)


def _pick(array: Float[Array, "..."], chosen: Int[Array, "b"]) -> Float[Array, "..."]:
    return array[jnp.zeros_like(chosen) if array.shape[0] == 1 else chosen]
