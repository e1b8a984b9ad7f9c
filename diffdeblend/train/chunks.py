"""A training chunk by chunk: reports, checkpoints, curves, and the record of it at the end."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Float

from diffdeblend import __version__
from diffdeblend.priors import Training
from diffdeblend.train.checkpoint import load_checkpoint, save_checkpoint
from diffdeblend.train.settings import fingerprint


@dataclass(frozen=True)
class Progress:
    """What a training has to say on its way.

    - `step`, `steps`: how far it is.
    - `loss`, `validation_loss`: of the galaxies of the last steps, and of those held out; of a
        decoder in nats a galaxy, misfit and information together.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float


class Schedule(Protocol):
    """Settings of a training, as far as its chunks and its rates need them.

    - `steps`: number of steps. `chunk`: steps between two reports. `rate`: highest learning rate.
    """

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    @property
    def chunk(self) -> int:
        """Steps between two reports."""
        ...

    @property
    def rate(self) -> float:
        """Highest learning rate."""
        ...


def adam(settings: Schedule, warmup: int, largest: float) -> optax.GradientTransformation:
    """Adam with a rate that rises over `warmup` steps, then falls as a cosine to a hundredth.

    - `largest`: norm that slopes are clipped to: a single odd batch must not throw the weights far.
    """
    rate = optax.warmup_cosine_decay_schedule(
        settings.rate / 100,
        settings.rate,
        min(warmup, settings.steps // 10),
        settings.steps,
        settings.rate / 100,
    )
    return optax.chain(optax.clip_by_global_norm(largest), optax.adam(rate))


def train_in_chunks(
    state: Any,
    advance: Callable[[Any, int], tuple[Any, np.ndarray, np.ndarray]],
    settings: Schedule,
    n_losses: int,
    text: str,
    *,
    checkpoint: str | os.PathLike | None,
    report: Callable[[Progress], None] | None,
) -> tuple[Any, Float[np.ndarray, "report column"]]:
    """Make all steps that are left; returns the last state and the curves.

    Columns of the curves: the step, the parts of the loss, those of the validation loss.

    - `state`: before the first step; has a number `step`.
    - `advance`: makes some steps: state and number of steps to state, parts of the loss, and parts
        of the validation loss, `n_losses` each.
    - `text`: all that decides the result; a checkpoint of another training is refused by it.

    **Raises:** `ValueError` if the checkpoint is of another training or damaged, or the loss
    diverges.
    """
    curves = np.zeros((0, 1 + 2 * n_losses), np.float32)
    if checkpoint is not None:
        saved = load_checkpoint(checkpoint, (state, curves), fingerprint(text))
        state, curves = (state, curves) if saved is None else (saved[0], np.asarray(saved[1]))
    while (done := int(state.step)) < settings.steps:
        # Whole chunks from the start on, so that a resumed training makes the same ones.
        n_steps = min(settings.chunk, settings.steps - done)
        state, parts, unseen = advance(state, n_steps)
        row = np.concatenate([[done + n_steps], parts, unseen])
        if not np.all(np.isfinite(row)):
            raise ValueError(
                f"`settings`: the loss is not finite after {done + n_steps} steps; try a `rate` "
                f"below {settings.rate}."
            )
        curves = np.concatenate([curves, row[None].astype(np.float32)])
        if checkpoint is not None:
            save_checkpoint(checkpoint, (state, curves), fingerprint(text))
        if report is not None:
            report(Progress(done + n_steps, settings.steps, *_losses(row)))
    return state, curves


def record_of(
    galaxies: Any, n_galaxies: int, text: str, seed: int, curves: Float[np.ndarray, "report column"]
) -> Training:
    """What a prior keeps of its training."""
    loss, validation_loss = _losses(curves[-1].astype(float))
    return Training(
        population=galaxies.source,
        settings=text,
        settings_hash=fingerprint(text),
        seed=seed,
        n_galaxies=n_galaxies,
        loss=loss,
        validation_loss=validation_loss,
        versions=_versions(),
    )


def _losses(row: np.ndarray) -> tuple[float, float]:
    """The loss and that of validation, from a row of the curves."""
    parts = row[1:].reshape(2, -1).sum(axis=1)
    return float(parts[0]), float(parts[1])


def _versions() -> tuple[tuple[str, str], ...]:
    used = {"diffdeblend": __version__, "equinox": eqx.__version__, "jax": jax.__version__}
    used |= {"numpy": np.__version__, "optax": optax.__version__}
    return tuple(sorted(used.items()))
