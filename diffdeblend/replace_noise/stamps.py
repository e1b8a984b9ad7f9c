"""Many sources at once, each alone on its stamp."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.heavy import HeavyFootprint
from diffdeblend.footprints.records import SourceRecords


class LoneStamps(NamedTuple):
    """Stamps of sources; what is not on the image is 0 and not `inside`.

    - `image`: the source's own pixels, noise in all other footprints, the image elsewhere.
    - `variance`: of its own pixels as its footprint has it, elsewhere that of the image.
    - `mask`: bits of the image's planes.
    - `inside`: on the image; `own`: of its footprint.
    """

    image: Float[np.ndarray, "n h w"]
    variance: Float[np.ndarray, "n h w"]
    mask: Int[np.ndarray, "n h w"]
    inside: Bool[np.ndarray, "n h w"]
    own: Bool[np.ndarray, "n h w"]


def lone_stamps(
    exposure: Exposure,
    records: SourceRecords,
    rows: Int[np.ndarray, "n"],
    x0: Int[np.ndarray, "n"],
    y0: Int[np.ndarray, "n"],
    shape: tuple[int, int],
    *,
    band: int,
    base: Float[np.ndarray, "y x"],
) -> LoneStamps:
    """Each source of some rows alone on a stamp of one shape. Host side.

    - `x0`, `y0`: of the first pixel of each stamp; may be beyond the image.
    - `band`: place of the band; `base`: its image with all sources replaced, as that of a
        `NoiseReplacer`.

    A source without pixels of its own has those of its nearest ancestor that has, or of the image.
    """
    rows, x0, y0 = (np.asarray(v, np.int64) for v in (rows, x0, y0))
    height, width = shape
    ny, nx = exposure.shape
    y = y0[:, None] + np.arange(height)
    x = x0[:, None] + np.arange(width)
    inside = ((y >= 0) & (y < ny))[:, :, None] & ((x >= 0) & (x < nx))[:, None, :]
    place = y.clip(0, ny - 1)[:, :, None] * nx + x.clip(0, nx - 1)[:, None, :]

    def cut(plane: np.ndarray) -> np.ndarray:
        stamps = plane.ravel()[place]
        stamps[~inside] = 0
        return stamps

    planes = [np.asarray(getattr(exposure, name)[band]) for name in ("image", "variance", "mask")]
    image, variance, mask = cut(np.asarray(base)), cut(planes[1]), cut(planes[2])
    own = np.zeros(image.shape, bool)
    for number, row in enumerate(records.heavy_row()[rows]):
        one = records.footprints[row]
        py, px = one.spans.indices()
        on_image = (py >= 0) & (py < ny) & (px >= 0) & (px < nx)
        heavy = isinstance(one, HeavyFootprint)
        sy, sx = py - y0[number], px - x0[number]
        here = on_image & (sy >= 0) & (sy < height) & (sx >= 0) & (sx < width)
        at = number, sy[here], sx[here]
        own[at] = True
        if heavy:
            image[at], variance[at] = one.image[here], one.variance[here]
        else:
            image[at] = planes[0][py[here], px[here]]
    return LoneStamps(image, variance, mask, inside, own)
