"""Simulated blends as stamps, with their truth."""

import numpy as np

from diffdeblend.simulate.blends import Blends
from diffdeblend.stamps.stamps import Stamps, StampsHeader, nested

# Numbers of the sources of one blend end before those of the next.
_ROOM = 1_000_000
# Of the truth: what only has a meaning within the set of blends.
_LEFT_OUT = ("blend", "source", "ra", "dec")


def stamps_of_blends(blends: Blends, first: int = 0) -> tuple[Stamps, StampsHeader]:
    """Blends of one survey as stamps, in electrons, with all columns of their truth.

    Ids are the numbers of the blends, `source_id` 1000000 times that plus the number of the source,
    from 1. Positions are the true ones; a source whose centre is outside of the stamp comes after
    the others, with its truth and without a position. The stamps have no place on the sky.

    - `first`: number of the first blend.
    """
    n = blends.n_blends
    blend = np.asarray(blends.truth["blend"])
    outside = np.asarray(blends.truth["outside"], bool)
    order = np.lexsort((outside, blend))
    place = np.arange(len(order)) - blends.first[blend[order]]
    most = max(1, int(blends.n_sources.max(initial=0)))

    def wide(values: np.ndarray, fill: float) -> np.ndarray:
        found = np.full((n, most), fill, values.dtype)
        found[blend[order], place] = values[order]
        return found

    truth = {}
    for name in blends.truth.colnames:
        values = np.asarray(blends.truth[name])
        if name not in _LEFT_OUT and values.dtype.kind in "biuf":
            single = values.dtype.kind == "f" and values.dtype.itemsize < 8
            truth[name] = wide(values.astype(np.float32 if single else float), np.nan)
    position = [
        wide(np.where(outside, np.nan, np.asarray(blends.truth[axis], float)), np.nan)
        for axis in "xy"
    ]
    number = (first + blend) * _ROOM + np.arange(len(blend)) - blends.first[blend] + 1
    if blends.noise in ("none", "background"):
        variance = np.broadcast_to(blends.sky.astype(np.float32), (n, len(blends.bands))).copy()
    else:
        variance = blends.variance
    stamps = Stamps(
        first=first,
        id=first + np.arange(n),
        image=blends.images,
        variance=variance,
        position=np.stack(position, axis=-1),
        source_id=wide(np.where(outside, 0, number), 0),
        psf=np.asarray(blends.psf_images, np.float32),
        psf_index=np.asarray(blends.psf_index, np.int64),
        psf_key=np.arange(len(blends.psf_images)),
        truth=truth,
    )
    header = StampsHeader(
        bands=blends.bands,
        shape=blends.shape,
        n_stamps=n,
        most_sources=most,
        pixel_scale=float(blends.survey.pixel_scale),
        zero_points=tuple(map(float, blends.survey.zero_points)),
        unit="electron",
        noise_correlation=nested(blends.noise_correlation),
    )
    return stamps, header
