"""Peaks of crowded footprints once the light that they share is taken away. Host side."""

import numpy as np
from jaxtyping import Float

from diffdeblend.detect.footprint_peaks import FoundPeaks, peaks_of_labels
from diffdeblend.detect.thresholds import Above, connected_above


def redetected_peaks(
    found: Above,
    peaks: FoundPeaks,
    values: Float[np.ndarray, "y x"],
    threshold: Float[np.ndarray, "y x"],
    region: tuple[slice, slice],
    *,
    most_simple: int = 1,
    min_pixels: int = 1,
    include_multiplier: float = 1.0,
) -> FoundPeaks:
    """New peaks for the labels that have several, found in another image.

    Its peaks above the threshold that lie on the label take the place of the old ones; where there
    is none, the brightest of the old ones stays. The pixels of the labels stay what they are.

    - `values`: as a rule the smoothed image without a background of small cells. `threshold`: of
        it, likewise or one number `(1, 1)`.
    - `most_simple`: labels with so many peaks keep them.
    """
    count = np.bincount(peaks.label, minlength=len(found.areas) + 1)
    crowded = count > most_simple
    crowded[0] = False
    if not crowded.any():
        return peaks
    inside = crowded[found.labels]
    again = connected_above(
        np.where(inside, values, np.asarray(np.nan, values.dtype)),
        threshold,
        min_pixels=min_pixels,
        include_multiplier=include_multiplier,
    )
    new = peaks_of_labels(values, again.labels, region)
    of_new = found.labels[new.y, new.x]
    replaced = np.zeros(len(crowded), bool)
    replaced[of_new] = True
    first = np.concatenate([[True], peaks.label[1:] != peaks.label[:-1]])[: len(peaks.label)]
    stays = ~crowded[peaks.label] | (first & ~replaced[peaks.label])
    label, y, x, value = (
        np.concatenate([old[stays], other])
        for old, other in zip(peaks, (of_new, *new[1:]), strict=True)
    )
    order = np.lexsort((y, x, -value, label))
    return FoundPeaks(label[order], y[order], x[order], value[order])
