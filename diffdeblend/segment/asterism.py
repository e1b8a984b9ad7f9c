"""From an image to sources as ASTErIsM does it: sky, dense pixels, attractors."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy.table import Table

from diffdeblend.background import SkewnessBackground, skewness_background
from diffdeblend.segment.dbscan import DBSCANSegments, dbscan_segments
from diffdeblend.segment.denclue_deblend import DenclueResult, denclue_deblend
from diffdeblend.segment.labels import LabelImage

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class AsterismResult:
    """What each of the three steps gave.

    - `background`: with block side and count, skewness before and after, and the pixels used;
        `None` if a threshold was given.
    - `threshold`: in the unit of the image. `segments`: the clusters, and the `K` used.
    - `deblended`: sources, and the scales of the clusters.
    """

    background: SkewnessBackground | None
    threshold: float
    segments: DBSCANSegments
    deblended: DenclueResult

    @property
    def labels(self) -> LabelImage:
        """The final sources."""
        return self.deblended.labels

    def table(self) -> Table:
        """One row a source: label, `parent_id`, centroid, attractor, scales, fluxes."""
        return self.deblended.table()


def asterism(
    data: Any,
    *,
    mask: Any = None,
    threshold: float | None = None,
    background: Mapping[str, Any] = _NOTHING,
    segmentation: Mapping[str, Any] = _NOTHING,
    deblending: Mapping[str, Any] = _NOTHING,
) -> AsterismResult:
    """Sources of an image by skewness, DBSCAN and DENCLUE. Host side.

    For sparse stamps. An image without clusters gives an empty result of the same type, with a
    `NoDetectionsWarning`.

    - `data`: shape `(y, x)`, the sky included. `mask`: True on pixels that are of no source.
    - `threshold`: in the unit of `data`; without it, level + 3 sigma of `skewness_background`.
    - `background`, `segmentation`, `deblending`: arguments of `skewness_background`,
        `dbscan_segments` and `denclue_deblend`. Where nothing is said `h_frac` is 0.1, as in
        ASTErIsM's examples.

    **Raises:** `ValueError` as these three, or for arguments of a background with a `threshold`.

    ??? cite
        Tramacere et al. (2016), MNRAS 463, 2939.
    """
    if threshold is not None and background:
        raise ValueError(
            f"`background` is not used where `threshold` is given; got {sorted(background)}."
        )
    sky = None
    if threshold is None:
        sky = skewness_background(data, mask=mask, **background)
        threshold = sky.threshold
    segments = dbscan_segments(data, threshold, mask=mask, **segmentation)
    deblended = denclue_deblend(np.asarray(data), segments.labels, **{"h_frac": 0.1, **deblending})
    return AsterismResult(sky, float(threshold), segments, deblended)
