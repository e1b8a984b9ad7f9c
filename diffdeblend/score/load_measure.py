"""Measures by the words of a command line."""

import importlib
from collections.abc import Callable
from typing import Any

from diffdeblend.own_code import load_own
from diffdeblend.score.measured import Measure

# Where the function of each word is; imported when it is asked for.
MEASURES = {
    "diffdeblend": ("ours", "fit_blends"),
    "sep": ("sep", "sep"),
    "sep_multiband": ("sep", "sep_multiband"),
    "photutils": ("photutils", "photutils"),
    "peaks": ("peaks", "peaks"),
    "segments": ("segments", "segments"),
    "scarlet2": ("scarlet2", "scarlet2"),
}


def load_measure(word: str, **settings: Any) -> Measure:
    """The measure that a word means.

    - `word`: one of `MEASURES`, or `file.py:function` for a function of your own, with the path of
        its file.
    - `settings`: of the function, by name.

    **Raises:** `ValueError` for an unknown word, a file or a function that is not there, or a file
    that fails.
    """
    function = load_function(word)
    name = word if word in MEASURES else ""
    return Measure(function, name=name, settings=settings, origin=word)


def load_function(word: str) -> Callable[..., Any]:
    """The function that a word means; see `load_measure`.

    **Raises:** as `load_measure`.
    """
    if word in MEASURES:
        module, name = MEASURES[word]
        return getattr(importlib.import_module(f"diffdeblend.score.measurers.{module}"), name)
    if ".py:" not in word:
        raise ValueError(
            f"a measure must be one of {', '.join(MEASURES)}, or file.py:function; got {word!r}."
        )
    return load_own(word, "the measure")
