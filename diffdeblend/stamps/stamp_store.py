"""What every store of stamps can do, whatever its files are."""

from pathlib import Path
from typing import Protocol

import numpy as np

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

    def psf_at(self, place: int) -> tuple[int, np.ndarray]:
        """The key and the image, `(band, h, w)`, of the PSF of one stamp."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of what tells this store from another, wherever it lies."""
        ...


def check_run(start: int, stop: int, n_stamps: int) -> None:
    """That stamps from `start` up to `stop` are in a store of so many.

    **Raises:** `ValueError` if not.
    """
    if not 0 <= start <= stop <= n_stamps:
        raise ValueError(
            f"`start` and `stop` must be in order between 0 and {n_stamps}; got {start} and {stop}."
        )
