"""What `--prior` and the options with it mean, and what is told of sources fitted under one."""

import argparse
from collections.abc import Mapping
from typing import Any

from diffdeblend.exposure import Exposure
from diffdeblend.io.bundled import named_prior_file
from diffdeblend.io.priors import load_prior
from diffdeblend.priors import DecoderPrior, ParametricPrior


def prior_of(chosen: argparse.Namespace) -> DecoderPrior | ParametricPrior | None:
    """The prior that the command line means; None without `--prior`.

    **Raises:** `ValueError` for a file that is none, one of another kind, a model beside one that
    decodes, or options that need another prior.
    """
    check_options(chosen)
    if chosen.prior is None:
        return None
    prior = load_prior(named_prior_file(chosen.prior))
    if isinstance(prior, ParametricPrior):
        for option in ("--no-fallback", "--robust"):
            if getattr(chosen, option[2:].replace("-", "_")):
                raise ValueError(f"{option} needs a --prior that decodes; got {chosen.prior!r}.")
        return prior
    if not isinstance(prior, DecoderPrior):
        raise ValueError(
            "--prior needs one that draws galaxies, or knows their shapes; "
            f"{chosen.prior!r} is a {type(prior).__name__}."
        )
    if chosen.model is not None:
        raise ValueError(
            f"--model and --prior both say how sources look; got {chosen.model} and {chosen.prior}."
        )
    return prior


def check_options(chosen: argparse.Namespace) -> None:
    """Whether the options beside `--prior` go with it, as far as that is known without its file.

    **Raises:** `ValueError` in the words of the command line.
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
    elif not 0 < chosen.temperature < float("inf"):
        raise ValueError(f"--temperature must be positive; got {chosen.temperature}.")


def check_light(prior: Any, exposure: Exposure) -> None:
    """Whether an exposure has what a prior of parametric sources asks for.

    **Raises:** `ValueError` in the words of the command line.
    """
    if not isinstance(prior, ParametricPrior):
        return
    header = exposure.header
    if header.pixel_scale is None:
        raise ValueError("--prior has sizes in arcseconds, and the input has no pixel scale.")
    if prior.n_shapes == len(prior.names):
        return
    if header.zero_points is None:
        raise ValueError("--prior has magnitudes: the input needs --zero-points.")
    missing = [band for band in prior.bands if band not in header.bands]
    if missing:
        raise ValueError(
            f"--prior has magnitudes in {', '.join(prior.bands)}; the input has the bands "
            f"{', '.join(header.bands)} (see --bands)."
        )


def shapes_of(chosen: argparse.Namespace, prior: Any) -> dict[str, Any]:
    """The arguments of `deblend` and `deblend_image` that say how sources look."""
    if prior is None:
        return {"model": chosen.model or "auto"}
    if isinstance(prior, ParametricPrior):
        model = {"model": chosen.model or "auto"}
        return {**model, "prior": prior, "temperature": chosen.temperature}
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
