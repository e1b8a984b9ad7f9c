"""Random numbers by name: the same seed and names give the same numbers on any machine."""

import zlib

import numpy as np

# Of everything here that takes a seed; sets of blends keep the seed they were made with.
DEFAULT_SEED = 0


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for each seed and list of names.

    Blend k draws from `stream(seed, "sampling", k)`, so that it depends neither on how many others
    there are, nor on who draws them, nor on the order.

    **Raises:** `ValueError` for a seed or a number that is negative or no integer.
    """
    for value in (seed, *(name for name in names if not isinstance(name, str))):
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise ValueError(f"`seed` must be an integer of at least 0; got {value!r}.")
    # Not Python's hash, which differs from process to process.
    words = (zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names)
    # The length too: numpy pads lists with zeros, so that [1] and [1, 0] would be one.
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(len(names), *words)))
