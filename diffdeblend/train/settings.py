"""How a prior is to be learnt, and by what words two trainings are told apart."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from diffdeblend.components import Frame


@dataclass(frozen=True)
class DecoderSettings:
    """Settings of `train_decoder`.

    - `n_latent`: number of latents.
    - `widths`: hidden widths of the decoder, from latents to pixels; the encoder has them in turn.
    - `photons`: how many photons a galaxy without noise is taken for.
    - `steps`, `batch`: number of steps, and of galaxies in each.
    - `rate`: highest learning rate of Adam; it rises over `warmup` steps and falls as a cosine.
    - `held_out`: share of the galaxies that only the validation loss sees, 2000 at most.
    - `chunk`: steps between two reports, of one compiled program.
    - `flow`: coupling layers of a flow on the latents, learnt afterwards; 0 for none.
    - `flow_steps`: steps of that.

    **Raises:** `ValueError` for numbers that make no sense.
    """

    n_latent: int = 16
    widths: tuple[int, ...] = (256, 256)
    photons: float = 3000.0
    steps: int = 12_000
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 300
    held_out: float = 0.1
    chunk: int = 500
    flow: int = 0
    flow_steps: int = 2000

    def __post_init__(self):
        check_whole(self, "n_latent", "steps", "batch", "chunk", "flow_steps")
        check_whole(self, "warmup", "flow", least=0)
        check_widths(self.widths)
        check_positive(self, "photons", "rate")
        check_held_out(self.held_out)


def check_whole(settings: Any, *names: str, least: int = 1) -> None:
    """**Raises:** `ValueError` for settings that are no integers from `least` up."""
    for name in names:
        _whole(name, getattr(settings, name), least)


def check_widths(widths: Any) -> None:
    """**Raises:** `ValueError` if these are no widths of layers."""
    if not isinstance(widths, tuple) or not widths:
        raise ValueError(f"`widths` must be a tuple of at least one width; got {widths}.")
    for width in widths:
        _whole("widths", width, 1)


def check_positive(settings: Any, *names: str) -> None:
    """**Raises:** `ValueError` for settings that are not positive and finite."""
    for name in names:
        if not 0 < getattr(settings, name) < float("inf"):
            raise ValueError(f"`{name}` must be positive; got {getattr(settings, name)}.")


def check_held_out(share: float) -> None:
    """**Raises:** `ValueError` if it is no share of the galaxies."""
    if not 0 < share < 1:
        raise ValueError(f"`held_out` must be between 0 and 1; got {share}.")


def canonical(settings: Any, frame: Frame, seed: int, data: str) -> str:
    """All that decides what a training gives, as JSON of one form.

    - `data`: sha256 of what is learnt from.
    """
    parts = {"settings": asdict(settings), "frame": asdict(frame), "seed": seed, "data": data}
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be a whole number from {least} up; got {value!r}.")
