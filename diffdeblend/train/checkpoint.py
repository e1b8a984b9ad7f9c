"""Where a training stands, in a file: one that was killed goes on as if it had not been."""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffdeblend.files import whole_file

_HEAD = "diffdeblend checkpoint 1"


def save_checkpoint(path: str | os.PathLike, state: Any, settings: str) -> None:
    """Write arrays of any pytree, for a training of these settings; whole or not at all.

    - `settings`: what tells this training from others, as `fingerprint` gives it.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    payload = io.BytesIO()
    np.savez(payload, **{f"leaf_{k}": leaf for k, leaf in enumerate(leaves)})  # type: ignore[arg-type]
    numbers = payload.getvalue()
    head = f"{_HEAD} {settings} {hashlib.sha256(numbers).hexdigest()}\n"
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(head.encode())
        file.write(numbers)


def load_checkpoint(path: str | os.PathLike, like: Any, settings: str) -> Any | None:
    """The state that was saved last, of the structure of `like`; None if there is no file.

    **Raises:** `ValueError` if the file is no checkpoint, damaged, or of another training.
    """
    path = Path(path)
    if not path.exists():
        return None
    with path.open("rb") as file:
        words = file.readline(300).split()
        numbers = file.read()
    if len(words) != 5 or b" ".join(words[:3]) != _HEAD.encode():
        raise ValueError(f"`checkpoint`: {str(path)!r} is no checkpoint of diffdeblend.")
    if words[3] != settings.encode():
        raise ValueError(
            f"`checkpoint`: {str(path)!r} is of a training with other galaxies, settings or seed; "
            "name another file, or remove this one to start anew."
        )
    if hashlib.sha256(numbers).hexdigest().encode() != words[4]:
        raise ValueError(f"`checkpoint`: {str(path)!r} is damaged: its checksum does not fit.")
    leaves, structure = jax.tree.flatten(like)
    try:
        with np.load(io.BytesIO(numbers), allow_pickle=False) as saved:
            values = [saved[f"leaf_{k}"] for k in range(len(saved.files))]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"`checkpoint`: {str(path)!r} holds no arrays: {error}") from error
    wanted = [(leaf.shape, leaf.dtype) for leaf in map(np.asarray, leaves)]
    # Curves grow with the steps: only their first axis may differ.
    fits = len(values) == len(wanted) and all(
        value.dtype == dtype and value.ndim == len(shape) and value.shape[1:] == shape[1:]
        for value, (shape, dtype) in zip(values, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"`checkpoint`: {str(path)!r} has other arrays than this training.")
    return jax.tree.unflatten(structure, [jnp.asarray(value) for value in values])
