"""What a catalogue and a summary tell of sources that were fitted under a learned prior."""

from typing import Any

import numpy as np
from jaxtyping import Int

from diffdeblend.batch.decoded_results import FoundDecoded
from diffdeblend.deblend.catalog import Flag
from diffdeblend.priors import DecoderPrior

COLUMNS = (
    *("latent_norm", "latent_quantile", "own_chi2", "own_quantile", "decoder_log_odds"),
    *("latent", "latent_err"),
)


def add_decoded_columns(catalog: Any, found: FoundDecoded, rows: Int[np.ndarray, "row"]) -> None:
    """Add to a catalogue what tells whether its sources are in the domain of the prior.

    - `rows`: of what was found, in the order of the catalogue.
    """
    own: Any = found.table()
    for name in COLUMNS:
        catalog[name] = own[name][rows]
        catalog[name].info.description = own[name].info.description


def prior_settings(prior: Any, temperature: float, fallback: bool, robust: bool) -> dict[str, Any]:
    """A prior and how it was used, for a summary; nothing without one."""
    if not isinstance(prior, DecoderPrior):
        return {}
    told = {"population": prior.training.population, "sha256": prior.training.settings_hash}
    return {"prior": {**told, "temperature": temperature, "fallback": fallback, "robust": robust}}


def decoded_counts(found: FoundDecoded) -> dict[str, Any]:
    """How many sources are decoded, were out of the prior's domain, or became something else."""
    names, counts = np.unique(np.array(found.model)[~found.decoded], return_counts=True)
    return {
        "n_decoded": int(found.decoded.sum()),
        "n_out_of_domain": int(np.sum((found.flags & Flag.OUT_OF_DOMAIN) != 0)),
        "n_replaced": int(np.sum(~found.decoded)),
        "replaced_by": {str(name): int(n) for name, n in zip(names, counts, strict=True)},
    }
