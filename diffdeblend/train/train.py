"""A decoder prior from galaxies: the same seed gives the same weights."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.priors import DecoderPrior
from diffdeblend.train.chunks import Progress, record_of, train_in_chunks
from diffdeblend.train.flow import fit_flow
from diffdeblend.train.learn import State, learn, start, validate
from diffdeblend.train.learning_set import CleanGalaxies, ObservedGalaxies, learning_set
from diffdeblend.train.network import make_decoder, make_encoder
from diffdeblend.train.settings import DecoderSettings, canonical


@dataclass(frozen=True)
class TrainedDecoder:
    """A prior and how it was learnt; all curves have one value for each report.

    - `prior`: the result.
    - `step`: number of steps made.
    - `misfit`, `information`: their sum is the loss of the training galaxies, in nats a galaxy.
    - `validation_misfit`, `validation_information`: of galaxies held out.
    """

    prior: DecoderPrior
    step: Int[np.ndarray, "report"]
    misfit: Float[np.ndarray, "report"]
    information: Float[np.ndarray, "report"]
    validation_misfit: Float[np.ndarray, "report"]
    validation_information: Float[np.ndarray, "report"]

    @property
    def loss(self) -> Float[np.ndarray, "report"]:
        """Bound on minus the log-likelihood of the training galaxies, up to a constant."""
        return self.misfit + self.information

    @property
    def validation_loss(self) -> Float[np.ndarray, "report"]:
        """Bound on minus the log-likelihood of the galaxies held out, up to a constant."""
        return self.validation_misfit + self.validation_information


def train_decoder(
    galaxies: CleanGalaxies | ObservedGalaxies,
    settings: DecoderSettings | None = None,
    *,
    seed: int = 0,
    report: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> TrainedDecoder:
    """Learn what galaxies look like: a variational autoencoder, of which the decoder is kept.

    - `galaxies`: `Galaxies` without noise, or `NoisyStamps` of a survey; the prior is of their
        frame.
    - `settings`: `DecoderSettings()` by default.
    - `seed`: of first weights, held-out galaxies and all draws.
    - `report`: called every `settings.chunk` steps.
    - `checkpoint`: a file that says where the training stands, written at each report. If it is
        there, the training goes on from it, and ends with the same weights as one undisturbed.

    **Raises:** `ValueError` if `galaxies` are of another kind or too few, the checkpoint is of
    another training or damaged, or the loss diverges.

    ??? cite
        Kingma & Welling (2014), arXiv:1312.6114. Decoders as priors of deblending: Biswas et al.
        (2025), A&A 694, A110 (MADNESS).
    """
    settings = DecoderSettings() if settings is None else settings
    data = learning_set(galaxies, settings.photons, settings.held_out, seed)
    text = canonical(settings, galaxies.frame, seed, galaxies.sha256)
    first, steps_key, validation_key, flow_key = jax.random.split(jax.random.key(seed), 4)
    encoder_key, decoder_key = jax.random.split(first)
    example = tuple(array[0] for array in data.learnt_from)
    n_features = eqx.filter_eval_shape(data.loss.features, example).shape[0]
    state = start(
        make_encoder(n_features, settings.widths[::-1], settings.n_latent, encoder_key),
        make_decoder(data.mean, settings.widths, settings.n_latent, galaxies.frame, decoder_key),
        settings,
    )
    for_learning = (data.loss, data.learnt_from, steps_key)
    for_validation = (data.loss, data.held_out, validation_key)

    def advance(state: State, n_steps: int) -> tuple[State, np.ndarray, np.ndarray]:
        state, parts = learn(for_learning, state, settings, n_steps)
        unseen = validate(for_validation, state.encoder, state.decoder)
        return state, np.asarray(parts), np.asarray(unseen)

    state, curves = train_in_chunks(
        state, advance, settings, 2, text, checkpoint=checkpoint, report=report
    )
    decoder = state.decoder
    if settings.flow:
        warp = fit_flow(data.loss, data.learnt_from, state.encoder, settings, flow_key)
        decoder = eqx.tree_at(lambda d: d.warp, decoder, warp, is_leaf=lambda leaf: leaf is None)
    n_galaxies = len(data.learnt_from[0]) + len(data.held_out[0])
    training = record_of(galaxies, n_galaxies, text, seed, curves)
    return TrainedDecoder(DecoderPrior(decoder, training), curves[:, 0].astype(int), *curves.T[1:])
