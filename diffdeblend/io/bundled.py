"""The learned prior that comes with the package."""

from pathlib import Path
from typing import Any

from diffdeblend.io.priors import load_prior

_NAME = "tiny_prior.eqx"
# The word that stands for it.
TINY = "tiny"


def bundled_prior_file() -> Path:
    """Where the prior is that comes with the package, in a checkout or in an installed one.

    **Raises:** `ValueError` if it is in neither place.
    """
    package = Path(__file__).parents[1]
    for place in (package, package.parent / "data"):
        if (place / _NAME).is_file():
            return place / _NAME
    raise ValueError(
        f"the prior `tiny` was not installed ({_NAME}); train one with `diffdeblend train-prior`."
    )


def bundled_prior() -> Any:
    """The `DecoderPrior` that comes with the package: of made-up galaxies, for 0.2" pixels.

    `data/README.md` tells of what it was learnt from.

    **Raises:** `ValueError` if it was not installed.
    """
    return load_prior(bundled_prior_file())


def named_prior_file(word: str) -> Path:
    """A prior's file by its path; for `tiny` that of the one that comes with the package.

    **Raises:** `ValueError` if it was not installed.
    """
    return bundled_prior_file() if word == TINY and not Path(TINY).exists() else Path(word)
