"""What `--prior` and the options with it mean, and what is told of sources fitted under one."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffdeblend.io.bundled import bundled_prior
from diffdeblend.io.priors import load_prior
from diffdeblend.priors import DecoderPrior

# The word that stands for the prior that comes with the package.
TINY = "tiny"


def prior_of(chosen: argparse.Namespace) -> DecoderPrior | None:
    """The prior that the command line means; None without `--prior`.

    **Raises:** `ValueError` for a file that is none, one of another kind, a model beside it, or
    options that need a prior.
    """
    if chosen.prior is None:
        given = {
            "--temperature": chosen.temperature != 1,
            "--no-fallback": chosen.no_fallback,
            "--robust": chosen.robust,
        }
        wrong = [option for option, there in given.items() if there]
        if wrong:
            raise ValueError(f"{wrong[0]} needs --prior.")
        return None
    if chosen.model is not None:
        raise ValueError(
            f"--model and --prior both say how sources look; got {chosen.model} and {chosen.prior}."
        )
    if not 0 < chosen.temperature < float("inf"):
        raise ValueError(f"--temperature must be positive; got {chosen.temperature}.")
    if chosen.prior == TINY and not Path(TINY).exists():
        return bundled_prior()
    prior = load_prior(chosen.prior)
    if not isinstance(prior, DecoderPrior):
        raise ValueError(
            f"--prior needs one that draws galaxies; {chosen.prior!r} is a {type(prior).__name__}."
        )
    return prior


def shapes_of(chosen: argparse.Namespace, prior: DecoderPrior | None) -> dict[str, Any]:
    """The arguments of `deblend` and `deblend_image` that say how sources look."""
    if prior is None:
        return {"model": chosen.model or "auto"}
    return {
        "prior": prior,
        "temperature": chosen.temperature,
        "fallback": not chosen.no_fallback,
        "robust": chosen.robust,
    }


def prior_lines(summary: Mapping[str, Any]) -> list[str]:
    """How many sources are decoded, for a terminal; nothing where there was no prior."""
    if "n_decoded" not in summary:
        return []
    replaced = ", ".join(f"{n} {name}" for name, n in summary["replaced_by"].items())
    line = f"{summary['n_decoded']} decoded, {summary['n_out_of_domain']} out of the prior's domain"
    return [f"{line}; {summary['n_replaced']} replaced" + (f" ({replaced})" if replaced else "")]
