"""The length of the border of each source. Host side."""

import numpy as np
from jaxtyping import Float

from diffdeblend.measure.pixels import SegmentPixels

# How long a border pixel is, by the sum of 1, 2 for each border pixel beside it and 10 for each
# at its corners.
_LENGTHS = np.zeros(50)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1
_LENGTHS[[21, 33]] = np.sqrt(2)
_LENGTHS[[13, 23]] = (1 + np.sqrt(2)) / 2


def perimeter(used: SegmentPixels) -> Float[np.ndarray, "source"]:
    """Length in pixels of the line through the middles of the border pixels; NaN without pixels.

    A border pixel has one beside it that is not of the source: so holes have borders too.

    ??? cite
        Benkrid, Crookes & Benkrid (2000), Design and FPGA implementation of a perimeter estimator.
    """
    n_stamps, ny, nx = used.shape
    # A frame of nothing around each stamp: no pixel has to ask whether it has a neighbour.
    owner = np.zeros((n_stamps, ny + 2, nx + 2), np.int32)
    stamp = used.index // (ny * nx) if ny * nx else used.index
    place = (stamp * (ny + 2) + used.y + 1) * (nx + 2) + used.x + 1
    own = (used.source + 1).astype(np.int32)
    owner.reshape(-1)[place] = own
    flat = owner.reshape(-1)
    beside = (-1, 1, -(nx + 2), nx + 2)
    corners = (-(nx + 3), -(nx + 1), nx + 1, nx + 3)
    inner = np.ones(len(place), bool)
    for step in beside:
        inner &= flat[place + step] == own
    # Only border pixels may count as neighbours from here on.
    flat[place[inner]] = 0
    place, own, source = place[~inner], own[~inner], used.source[~inner]
    code = np.ones(len(place), np.int64)
    for weight, steps in ((2, beside), (10, corners)):
        for step in steps:
            code += weight * (flat[place + step] == own)
    length = np.bincount(source, _LENGTHS[code], minlength=used.n_sources)
    return np.where(used.count > 0, length, np.nan)
