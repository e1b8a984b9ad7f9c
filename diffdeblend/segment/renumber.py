"""New numbers of labels, and what was said of the old ones."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int


def is_sparse(max_label: int, n_pixels: int) -> bool:
    """Whether a table of all labels up to the largest would be much larger than the image."""
    return max_label > 4 * n_pixels


class Renumbering:
    """From the labels of an image to new ones; labels that are not in it become 0.

    - `labels`: sorted, positive; `numbers`: the new one of each, 0 if it is removed.
    - `n_pixels`: of the image.
    """

    def __init__(
        self, labels: Int[np.ndarray, "label"], numbers: Int[np.ndarray, "label"], n_pixels: int
    ):
        self.labels, self.numbers = labels, numbers.astype(np.int32)
        self.table = None
        max_label = int(labels[-1]) if labels.size else 0
        if not is_sparse(max_label, n_pixels):
            self.table = np.zeros(max_label + 2, np.int32)
            self.table[labels] = self.numbers

    def __call__(self, values: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        if self.table is not None:
            return self.table[np.minimum(values, len(self.table) - 1)]
        if not len(self.labels):
            return np.zeros_like(values)
        place = np.minimum(np.searchsorted(self.labels, values), len(self.labels) - 1)
        return np.where(self.labels[place] == values, self.numbers[place], np.int32(0))

    def families(
        self, families: Mapping[int, Int[np.ndarray, "child"]]
    ) -> dict[int, Int[np.ndarray, "child"]]:
        """Parts of split labels by new numbers, each once; parents without any are left out."""
        found = {}
        for parent, children in families.items():
            new = self(children)
            _, first = np.unique(new, return_index=True)
            new = new[np.sort(first)]
            if (new > 0).any():
                found[parent] = new[new > 0]
        return found

    def flags(self, flags: Mapping[int, int]) -> dict[int, int]:
        """Bits by new numbers; labels that are one now have the bits of all."""
        found: dict[int, int] = {}
        labels = self(np.array(list(flags), dtype=np.int32)).tolist() if flags else []
        for new, bits in zip(labels, flags.values(), strict=True):
            if new > 0:
                found[new] = found.get(new, 0) | bits
        return found
