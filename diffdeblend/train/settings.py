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
        for name in ("n_latent", "steps", "batch", "chunk", "flow_steps"):
            _whole(name, getattr(self, name), 1)
        for name in ("warmup", "flow"):
            _whole(name, getattr(self, name), 0)
        if not isinstance(self.widths, tuple) or not self.widths:
            raise ValueError(f"`widths` must be a tuple of at least one width; got {self.widths}.")
        for width in self.widths:
            _whole("widths", width, 1)
        for name in ("photons", "rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)}.")
        if not 0 < self.held_out < 1:
            raise ValueError(f"`held_out` must be between 0 and 1; got {self.held_out}.")


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
