"""What a catalogue and a summary tell of sources that were fitted under a learned prior."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from diffdeblend.batch.decoded_results import FoundDecoded
from diffdeblend.deblend.catalog import SUPPORT_MEANINGS, Flag
from diffdeblend.priors import DecoderPrior


def support_of(found: Any, rows: Int[np.ndarray, "row"]) -> dict[str, np.ndarray]:
    """How usual sources are under a prior, for `Sources`; nothing where there was none.

    - `rows`: of what was found, in the order of the catalogue.
    """
    if not isinstance(found, FoundDecoded):
        return {}
    return {name: getattr(found, name)[rows] for name in SUPPORT_MEANINGS}


def prior_settings(prior: Any, temperature: float, fallback: bool, robust: bool) -> dict[str, Any]:
    """A prior and how it was used, for a summary; nothing without one that decodes."""
    if not isinstance(prior, DecoderPrior):
        return {}
    return {
        "prior": prior.training.population,
        "temperature": temperature,
        "fallback": fallback,
        "robust": robust,
    }


def decoded_counts(model: Sequence[str], flags: Int[np.ndarray, "source"]) -> dict[str, Any]:
    """How many sources are decoded, were out of the prior's domain, or became something else.

    - `model`: its name for each source; `flags`: bits of `Flag`.
    """
    other = [str(name) for name in model if name != "decoded"]
    names, counts = np.unique(np.array(other, dtype=str), return_counts=True)
    return {
        "n_decoded": len(model) - len(other),
        "n_out_of_domain": int(np.sum((np.asarray(flags) & int(Flag.OUT_OF_DOMAIN)) != 0)),
        "n_replaced": len(other),
        "replaced_by": {str(name): int(n) for name, n in zip(names, counts, strict=True)},
    }
