"""What a source of a blend has got: its pixels with their values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffdeblend.allocate.blends import OpenBlend
from diffdeblend.footprints import Footprint, HeavyFootprint, SpanSet


class Child(NamedTuple):
    """A source of a blend.

    - `footprint`: its pixels.
    - `has_stray_flux`: among them are some that its template does not claim.
    - `zero_flux`: it got none, and its footprint is the pixel of its peak with value 0.
    """

    footprint: HeavyFootprint
    has_stray_flux: bool
    zero_flux: bool


def child_of(
    parent: Footprint,
    blend: OpenBlend,
    number: int,
    share: Float[np.ndarray, "y x"],
    stray: bool,
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    mask: np.ndarray,
    planes: tuple[str, ...],
    *,
    doubt: float,
) -> Child:
    """The child of one peak: the image times its share r, the variance times r^2 + d r (1 - r).

    The second part is what is uncertain in the share itself: none where a source is alone.

    - `parent`: with the peak of that `number`; `share`: in the box of the blend.
    - `image`, `variance`, `mask`: of the whole image.
    - `doubt`: d.
    """
    peak = parent.peaks[number]
    box = blend.box
    spans = SpanSet.from_mask(share > 0, (box.ixmin, box.iymin))
    empty = not spans
    if empty:
        x = int(np.clip(peak.x[0], 0, image.shape[1] - 1))
        y = int(np.clip(peak.y[0], 0, image.shape[0] - 1))
        spans = SpanSet.from_box((x, x + 1, y, y + 1))
    y, x = spans.indices()
    part = np.zeros(1, image.dtype) if empty else share[y - box.iymin, x - box.ixmin]
    value = np.where(part > 0, image[y, x], 0) * part
    noise = variance[y, x] * (1 if empty else part**2 + doubt * part * (1 - part))
    footprint = HeavyFootprint(
        *(spans, peak, parent.region),
        *(value.astype(image.dtype), mask[y, x], noise.astype(variance.dtype), planes),
    )
    return Child(footprint, bool(stray), empty)
