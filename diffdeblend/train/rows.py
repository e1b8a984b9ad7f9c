"""Which rows of a catalogue are drawn, how often, and how far each is varied."""

import numpy as np
from jaxtyping import ArrayLike, Int


def check_variation(dilation: float, shear: float, jitter: float) -> None:
    """**Raises:** `ValueError` for a shear of 1 and more, or negative numbers."""
    if not (0 <= shear < 0.9 and dilation >= 0 and jitter >= 0):
        raise ValueError(
            "`shear` must be between 0 and 0.9, `dilation` and `jitter` at least 0; got "
            f"{shear}, {dilation} and {jitter}."
        )


def checked_rows(rows: Int[ArrayLike, "row"], n: int) -> Int[np.ndarray, "row"]:
    """The rows that a caller wants, of `n`.

    **Raises:** `ValueError` for none, or one that is not there.
    """
    chosen = np.atleast_1d(np.asarray(rows)).astype(int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"`rows` must be numbers from 0 to {n - 1}; got {rows}.")
    return chosen


def all_before_any(n: int, of: int, rng: np.random.Generator) -> Int[np.ndarray, "draw"]:
    """`n` draws of numbers below `of`, at random; none comes again before all have come."""
    return np.concatenate([rng.permutation(of) for _ in range(-(-n // of))])[:n]
