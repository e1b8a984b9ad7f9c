"""How the stamps of a survey are fitted: all that decides the values, and its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from diffdeblend.deblend.deblend import MODELS
from diffdeblend.grid import Quality


@dataclass(frozen=True)
class FitSettings:
    """All that decides what a fit of a stamp finds, as for `fit_batch`.

    - `background`, `position_error`, `model_error`, `free_form`: as there.
    - `model`: None for `"auto"`, or for what a prior says.
    - `prior`: path of a file of `train-prior`, or `"tiny"`; None without.
    - `temperature`, `fallback`, `robust`: with a prior, as there.
    - `covariance`: whether rows hold the covariance of the fluxes.

    **Raises:** `ValueError` for an unknown word or a number out of its range.
    """

    model: str | None = None
    background: str = "constant"
    position_error: float = 0.5
    model_error: float = 0.02
    free_form: bool = False
    prior: str | None = None
    temperature: float = 1.0
    fallback: bool = True
    robust: bool = False
    covariance: bool = True

    def __post_init__(self):
        models = [name for name in MODELS if name != "multi_gaussian"]
        if self.model is not None and self.model not in models:
            raise ValueError(f"`model` must be one of {', '.join(models)}; got {self.model!r}.")
        if self.background not in ("none", "constant", "linear"):
            raise ValueError(
                f"`background` must be none, constant or linear; got {self.background!r}."
            )
        for name in ("position_error", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)}.")
        if not 0 <= self.model_error < 1:
            raise ValueError(
                f"`model_error` must be at least 0 and below 1; got {self.model_error}."
            )

    def hash(self, prior: bytes | None = None) -> str:
        """SHA-256 of the settings, and of the prior's file where there is one."""
        text = json.dumps(asdict(replace(self, prior=None)), sort_keys=True)
        digest = hashlib.sha256(text.encode())
        if prior is not None:
            digest.update(prior)
        return digest.hexdigest()


@dataclass(frozen=True)
class Programs:
    """What compiled programs are made for: found once for a store, the same in all its fits.

    - `quality`: how finely scenes are drawn. `fine`: as in `fit_batch`.
    - `sizes`: of stamps; `sources`: numbers of these; both None with a prior that decodes.
    """

    quality: Quality
    fine: bool
    sizes: tuple[int, ...] | None
    sources: tuple[int, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Programs":
        """From a manifest."""
        sizes, sources = (
            None if values[name] is None else tuple(values[name]) for name in ("sizes", "sources")
        )
        return cls(Quality(**values["quality"]), bool(values["fine"]), sizes, sources)
