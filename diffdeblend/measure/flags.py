"""What may be wrong with a measured source, in bits."""

from typing import Any

import numpy as np

# Numbers and names are those of photutils 3.1.
FLAGS = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "masked_pixels",
            "non_finite_data",
            "non_finite_error",
            "all_masked",
            "edge_touch",
            "deblended",
            "deblend_non_positive_min",
            "deblend_too_many_markers",
            "undefined_shape",
            "singular_covariance",
            "kron_undefined",
            "kron_minimum_radius",
            "kron_no_overlap",
            "kron_partial_overlap",
            "kron_masked_pixels",
            "kron_non_finite_data",
            "kron_non_finite_error",
            "kron_neighbor_pixels",
            "kron_uncorrected_pixels",
            "local_bkg_too_few_pixels",
        )
    )
}


def decode_flags(flags: Any, *, return_bit_values: bool = False) -> list:
    """Names of the bits that are set: a list for one number, a list of lists for several.

    - `flags`: numbers of the column `flags`.
    - `return_bit_values`: the bits in place of their names.

    **Raises:** `ValueError` for what is not an integer of at least 0, or has an unknown bit.
    """
    values = np.asarray(flags)
    known = sum(FLAGS.values())
    if values.dtype.kind not in "iu" or (values < 0).any() or (values & ~known).any():
        raise ValueError(f"`flags` must be integers from 0 to {known}; got {flags!r}.")
    if values.ndim:
        return [decode_flags(value, return_bit_values=return_bit_values) for value in values]
    return [bit if return_bit_values else name for name, bit in FLAGS.items() if int(values) & bit]
