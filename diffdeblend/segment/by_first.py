"""Numbers in the order in which things first come."""

import numpy as np
from jaxtyping import Int


def by_first(keys: Int[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "key"]]:
    """Of each entry the number of its key, from 0 in the order in which keys first come.

    Also the place of the first entry of each number.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), int)
    number[order] = np.arange(len(order))
    return number[inverse], first[order]
