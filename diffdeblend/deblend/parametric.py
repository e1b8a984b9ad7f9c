"""A learned prior of parametric sources beside a model: whether they go together. Host side."""

from typing import Any

from diffdeblend.components import Kind
from diffdeblend.priors.features import KINDS
from diffdeblend.priors.parametric_prior import ParametricPrior


def check_family(family: str, model: str, kind: Kind, tried: tuple[str, ...] = ()) -> None:
    """Whether a prior says anything of the sources of a model.

    - `family`: of the prior. `kind`: that all sources of `model` have, unless it is `"auto"`, which
        tries the families `tried`.

    **Raises:** `ValueError` if it does not.
    """
    speaks = family in tried if model == "auto" else KINDS[family] == kind
    if not speaks:
        raise ValueError(
            f"`prior` is of the family {family!r}, of which `model` {model!r} makes no source."
        )


def refuse_of_decoders(**given: Any) -> None:
    """**Raises:** `ValueError` for an argument that a parametric prior has no use for."""
    for name, value in given.items():
        if value:
            raise ValueError(f"`{name}` is for a prior that decodes galaxies; got {value!r}.")


def mixture_settings(prior: Any, temperature: float) -> dict[str, Any]:
    """A prior of parametric sources, for a summary; nothing without one."""
    if not isinstance(prior, ParametricPrior):
        return {}
    return {
        "prior": None if prior.training is None else prior.training.population,
        "prior_family": prior.family,
        "prior_features": list(prior.names),
        "temperature": temperature,
    }
