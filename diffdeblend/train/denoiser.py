"""A denoiser of galaxies: learnt by taking off noise that was put on."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffdeblend.priors.denoiser_prior import (
    Denoiser,
    DenoiserPrior,
    LogTransform,
    noise_features,
)
from diffdeblend.train.augment import all_turns
from diffdeblend.train.chunks import Progress, adam, record_of, train_in_chunks
from diffdeblend.train.learn import random_batch
from diffdeblend.train.learning_set import CleanGalaxies
from diffdeblend.train.settings import (
    canonical,
    check_held_out,
    check_positive,
    check_whole,
    check_widths,
)


@dataclass(frozen=True)
class DenoiserSettings:
    """Settings of `train_denoiser`.

    - `widths`: hidden widths of the network.
    - `components`: principal components of the linear filter, at most.
    - `floor`: light of a pixel, in units of the galaxy's, below which it is as good as none.
    - `least_noise`, `most_noise`: range of the noise of u, log-uniform.
    - `steps`, `batch`: number of steps, and of galaxies in each.
    - `rate`: highest learning rate of Adam; it rises over 300 steps and falls as a cosine.
    - `held_out`: share of the galaxies that only the validation loss sees.
    - `chunk`: steps between two reports, of one compiled program.

    **Raises:** `ValueError` for numbers that make no sense.
    """

    widths: tuple[int, ...] = (256, 256)
    components: int = 256
    floor: float = 3e-5
    least_noise: float = 0.05
    most_noise: float = 1.0
    steps: int = 8000
    batch: int = 128
    rate: float = 1e-3
    held_out: float = 0.1
    chunk: int = 500

    def __post_init__(self):
        check_whole(self, "components", "steps", "batch", "chunk")
        check_widths(self.widths)
        check_positive(self, "floor", "least_noise", "most_noise", "rate")
        check_held_out(self.held_out)
        if self.least_noise >= self.most_noise:
            raise ValueError(
                f"`least_noise` must be below `most_noise`, {self.most_noise}; "
                f"got {self.least_noise}."
            )


@dataclass(frozen=True)
class TrainedDenoiser:
    """A prior and how it was learnt; curves have one value for each report.

    - `prior`: the result.
    - `step`: number of steps made.
    - `loss`, `validation_loss`: mean square of what is left of the noise, in units of what the
        network may at most take off; of the last steps' galaxies, and of those held out.
    """

    prior: DenoiserPrior
    step: Int[np.ndarray, "report"]
    loss: Float[np.ndarray, "report"]
    validation_loss: Float[np.ndarray, "report"]


class _State(eqx.Module):
    denoiser: Denoiser
    moments: Any
    step: Int[Array, ""]


def train_denoiser(
    galaxies: CleanGalaxies,
    settings: DenoiserSettings | None = None,
    *,
    seed: int = 0,
    report: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> TrainedDenoiser:
    """Learn to take noise off galaxies, in all eight turns and flips.

    - `galaxies`: `Galaxies` without noise; the prior is of their frame. A fit holds the places of
        free pixels: let the galaxies be off centre by as much as these places are uncertain.
    - `settings`: `DenoiserSettings()` by default.
    - `seed`: of first weights, held-out galaxies and all draws.
    - `report`: called every `settings.chunk` steps.
    - `checkpoint`: a file that says where the training stands, written at each report. If it is
        there, the training goes on from it, and ends with the same weights as one undisturbed.

    **Raises:** `ValueError` if the checkpoint is of another training or damaged, or the loss
    diverges.

    ??? cite
        Vincent (2011), Neural Computation 23, 1661. Losses of all levels of noise weigh alike:
        Karras et al. (2022), arXiv:2206.00364, table 1.
    """
    settings = DenoiserSettings() if settings is None else settings
    text = canonical(settings, galaxies.frame, seed, galaxies.sha256)
    known, unseen = galaxies.split(settings.held_out, seed)
    transform = LogTransform(settings.floor)
    values, held_out = (
        transform.forward(jnp.asarray(part.images, jnp.float32)) for part in (known, unseen)
    )
    weights_key, steps_key, validation_key = jax.random.split(jax.random.key(seed), 3)
    denoiser = _make(np.asarray(values, float), settings, weights_key)
    state = _State(denoiser, _adam(settings).init(_trained(denoiser)), jnp.zeros((), jnp.int32))

    def advance(state: _State, n_steps: int) -> tuple[_State, np.ndarray, np.ndarray]:
        state, loss = _learn((values, steps_key), state, settings, n_steps)
        unseen = _validate(held_out, validation_key, state.denoiser, settings)
        return state, np.atleast_1d(loss), np.atleast_1d(unseen)

    state, curves = train_in_chunks(
        state, advance, settings, 1, text, checkpoint=checkpoint, report=report
    )
    training = record_of(galaxies, len(values) + len(held_out), text, seed, curves)
    typical = transform.inverse(state.denoiser.mean)
    prior = DenoiserPrior(
        state.denoiser, galaxies.frame, typical / jnp.sum(typical), transform, training
    )
    return TrainedDenoiser(prior, curves[:, 0].astype(int), curves[:, 1], curves[:, 2])


def _make(
    values: Float[np.ndarray, "n size size"], settings: DenoiserSettings, key: PRNGKeyArray
) -> Denoiser:
    """The linear filter of these galaxies in all turns and flips; the network adds nothing yet."""
    size = values.shape[1]
    mean = all_turns(values.mean(axis=0)).mean(axis=0)
    away = (values - mean).reshape(len(values), -1)
    places = all_turns(np.arange(size**2).reshape(size, size)).reshape(8, -1)
    one = away.T @ away / len(values)
    covariance = np.mean([one[np.ix_(place, place)] for place in places], axis=0)
    variance, basis = np.linalg.eigh(covariance)
    kept = slice(None, -1 - min(settings.components, size**2), -1)
    widths = (size**2, *settings.widths, size**2)
    condition_key, *keys = jax.random.split(key, len(widths))
    layers = [
        eqx.nn.Linear(a, b, dtype=jnp.float32, key=one)
        for a, b, one in zip(widths[:-1], widths[1:], keys, strict=True)
    ]
    layers[-1] = jax.tree.map(jnp.zeros_like, layers[-1])
    n_features = noise_features(jnp.ones(())).size
    return Denoiser(
        jnp.asarray(mean, jnp.float32),
        jnp.asarray(basis.T[kept], jnp.float32),
        jnp.asarray(np.maximum(variance[kept], 0), jnp.float32),
        tuple(layers),
        eqx.nn.Linear(n_features, widths[1], dtype=jnp.float32, key=condition_key),
    )


def _adam(settings: DenoiserSettings) -> optax.GradientTransformation:
    return adam(settings, 300, 10.0)


@eqx.filter_jit(donate="all-except-first")
def _learn(
    fixed: tuple[Array, PRNGKeyArray], state: _State, settings: DenoiserSettings, n_steps: int
) -> tuple[_State, Float[Array, ""]]:
    """Some steps, and the mean loss over them. A step draws the same whenever it is made."""
    values, key = fixed
    adam = _adam(settings)

    def one_step(state: _State, _: None) -> tuple[_State, Array]:
        choose, noise = jax.random.split(jax.random.fold_in(key, state.step))
        (batch,) = random_batch((values,), settings.batch, choose)
        trained = _trained(state.denoiser)

        def cost(trained: Any) -> Array:
            return _loss(_with(state.denoiser, trained), batch, noise, settings)

        loss, slope = jax.value_and_grad(cost)(trained)
        change, moments = adam.update(slope, state.moments, trained)
        denoiser = _with(state.denoiser, optax.apply_updates(trained, change))
        return _State(denoiser, moments, state.step + 1), loss

    state, losses = jax.lax.scan(one_step, state, length=n_steps)
    return state, jnp.mean(losses)


@eqx.filter_jit
def _validate(
    values: Float[Array, "n size size"],
    key: PRNGKeyArray,
    denoiser: Denoiser,
    settings: DenoiserSettings,
) -> Float[Array, ""]:
    return _loss(denoiser, values, key, settings)


def _loss(
    denoiser: Denoiser,
    values: Float[Array, "n size size"],
    key: PRNGKeyArray,
    settings: DenoiserSettings,
) -> Float[Array, ""]:
    """Mean square error in units of the network's scale, which makes all levels of noise alike."""
    level, draw = jax.random.split(key)
    low, high = np.log(settings.least_noise), np.log(settings.most_noise)
    sigma = jnp.exp(jax.random.uniform(level, (len(values),), values.dtype, low, high))
    noise = jax.random.normal(draw, values.shape, values.dtype)
    found = jax.vmap(denoiser)(values + sigma[:, None, None] * noise, sigma)
    signal = jnp.sum(denoiser.variance) / denoiser.mean.size
    unit = sigma**2 * signal / (signal + sigma**2)
    return jnp.mean(jnp.mean((found - values) ** 2, axis=(1, 2)) / unit)


def _trained(denoiser: Denoiser) -> Any:
    """What Adam moves: not the linear filter."""
    return denoiser.layers, denoiser.condition


def _with(denoiser: Denoiser, trained: Any) -> Denoiser:
    return eqx.tree_at(lambda one: (one.layers, one.condition), denoiser, trained)
