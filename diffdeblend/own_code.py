"""Functions of a user's own, named on a command line as `file.py:function`."""

import importlib.util
import sys
from pathlib import Path
from typing import Any


def load_own(word: str, what: str) -> Any:
    """The object that `file.py:name` means.

    - `what`: what it is for, for error messages, as "the measure".

    **Raises:** `ValueError` for a word of another form, a file or a name that is not there, or a
    file that fails; `ImportError` where the file asks for what is not installed.
    """
    path, colon, name = word.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(f"{what} must be file.py:function; got {word!r}.")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"the file of {what} {word!r} is not there: {file.absolute()}.")
    own = f"own_code_in_{file.stem}"
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
            f"the file of {what} {word!r} failed with {type(error).__name__}: {error}."
        ) from error
    finally:
        if before is not None:
            sys.modules[own] = before
    found = getattr(module, name, None)
    if not callable(found):
        defined = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(f"{file} has no function {name!r}; it has {', '.join(defined) or 'none'}.")
    return found
