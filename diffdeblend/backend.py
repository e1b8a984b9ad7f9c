"""Where work on stamps is done: by numpy on the host, or by JAX on its device."""

from typing import Literal

import jax

Backend = Literal["auto", "jax", "host"]


def on_host(backend: str) -> bool:
    """Whether the host does it; "auto" is so where JAX has no other device than the CPU.

    **Raises:** `ValueError` for another word.
    """
    if backend not in ("auto", "jax", "host"):
        raise ValueError(f'`backend` must be "auto", "jax" or "host"; got {backend!r}.')
    return backend == "host" or (backend == "auto" and jax.default_backend() == "cpu")
