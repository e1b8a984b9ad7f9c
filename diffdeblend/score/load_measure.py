"""Measures by the words of a command line."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffdeblend.score.measured import Measure

# Where the function of each word is; imported when it is asked for.
MEASURES = {
    "diffdeblend": ("ours", "fit_blends"),
    "sep": ("sep", "sep"),
    "sep_multiband": ("sep", "sep_multiband"),
    "photutils": ("photutils", "photutils"),
    "peaks": ("peaks", "peaks"),
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
    path, colon, name = word.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(
            f"a measure must be one of {', '.join(MEASURES)}, or file.py:function; got {word!r}."
        )
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"the file of the measure {word!r} is not there: {file.absolute()}.")
    own = f"measure_in_{file.stem}"
    spec = importlib.util.spec_from_file_location(own, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module there.
    before = sys.modules.get(own)
    sys.modules[own] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(
            f"the file of the measure {word!r} failed with {type(error).__name__}: {error}."
        ) from error
    finally:
        if before is not None:
            sys.modules[own] = before
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(f"{file} has no function {name!r}; it has {', '.join(defined) or 'none'}.")
    return function
