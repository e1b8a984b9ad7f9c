"""What every store of stamps can do, whatever its files are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int

from diffdeblend.stamps.stamps import Stamps, StampsHeader


class StampStore(Protocol):
    """Stamps on a disk, of which no more is in memory than was asked for.

    - `path`: of the store. `header`: what all its stamps share.

    Made by `open_store`, which checks it.
    """

    path: Path
    header: StampsHeader

    def read(self, start: int, stop: int) -> Stamps:
        """The stamps from `start` up to `stop`. Those that cannot be read are said to be so.

        **Raises:** `ValueError` for a run that is not in the store, or ids that cannot be read.
        """
        ...

    def psfs_at(self, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The PSFs of some stamps, each once: keys, and images `(psf, band, h, w)`.

        NaN where an image cannot be read.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 of what tells this store from another, wherever it lies."""
        ...


def check_places(places: Sequence[int], n_stamps: int) -> None:
    """That stamps are in a store of so many.

    **Raises:** `ValueError` if one is not.
    """
    if len(places) and not (min(places) >= 0 and max(places) < n_stamps):
        raise ValueError(f"`places` must be between 0 and {n_stamps - 1}; got {list(places)}.")


def check_run(start: int, stop: int, n_stamps: int) -> None:
    """That stamps from `start` up to `stop` are in a store of so many.

    **Raises:** `ValueError` if not.
    """
    if not 0 <= start <= stop <= n_stamps:
        raise ValueError(
            f"`start` and `stop` must be in order between 0 and {n_stamps}; got {start} and {stop}."
        )


def counted_sources(start: int, stop: int, most: int) -> Int[np.ndarray, "stamp source"]:
    """Numbers for the sources of stamps that have none of their own.

    In the order of the stamps, with room for the most of any; 0 is nobody's.
    """
    return np.arange(start, stop)[:, None] * most + np.arange(most) + 1
