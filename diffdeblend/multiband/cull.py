"""Which peaks of crowded footprints are worth a source."""

import numpy as np
from jaxtyping import Bool

from diffdeblend.footprints import FootprintSet


def cull_peaks(
    footprints: FootprintSet,
    *,
    enough_bands: int = 2,
    rank_sufficient: int = 20,
    rank_considered: int = 30,
    rank_fraction: float = 0.7,
) -> FootprintSet:
    """Without the faint peaks of footprints of many that only one band saw; see `worth_keeping`."""
    kept = worth_keeping(
        footprints,
        enough_bands=enough_bands,
        rank_sufficient=rank_sufficient,
        rank_considered=rank_considered,
        rank_fraction=rank_fraction,
    )
    return footprints.with_peaks(footprints.peaks[kept], footprints.peak_owner[kept])


def worth_keeping(
    footprints: FootprintSet,
    *,
    enough_bands: int = 2,
    rank_sufficient: int = 20,
    rank_considered: int = 30,
    rank_fraction: float = 0.7,
) -> Bool[np.ndarray, "peak"]:
    """Which peaks stay, in the order of `footprints.peaks`.

    Those of a footprint are ranked from 0 as they stand, the strongest first. One stays if

    - its rank is below `rank_sufficient`, or
    - at least `enough_bands` bands saw it, or
    - its rank is below `rank_considered`, and below `rank_fraction` of the number of peaks there.

    **Raises:** `ValueError` if a limit is negative.
    """
    limits = {
        "enough_bands": enough_bands,
        "rank_sufficient": rank_sufficient,
        "rank_considered": rank_considered,
        "rank_fraction": rank_fraction,
    }
    for name, limit in limits.items():
        if not limit >= 0:
            raise ValueError(f"`{name}` must be at least 0; got {limit!r}.")
    owner = footprints.peak_owner
    rank = np.arange(len(owner)) - footprints.peak_ends[owner]
    family = footprints.n_peaks[owner]
    seen = sum(footprints.peaks.bands.values(), np.zeros(len(owner), np.int64))
    considered = (rank < rank_considered) & (rank < rank_fraction * family)
    return (rank < rank_sufficient) | (seen >= enough_bands) | considered
