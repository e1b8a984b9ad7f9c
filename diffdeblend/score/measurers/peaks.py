"""The simplest detection of all: local maxima of the image."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import maximum_filter

from diffdeblend.exposure import Exposure
from diffdeblend.score.measured import Measured, add_column, catalog_of
from diffdeblend.score.measurers.images import pixels_of


def peaks(
    exposure: Exposure,
    positions: Float[np.ndarray, "source 2"] | None = None,
    *,
    band: str | None = None,
    threshold: float = 5.0,
    separation: int = 2,
    most: int | None = None,
) -> Measured:
    """Local maxima of one band, or of the mean of all: a catalogue alone.

    A maximum is the largest pixel within `separation` along either axis, above the threshold, and
    not nearer than `separation` to the border. The same as `skimage.feature.peak_local_max` but for
    equal pixels side by side.

    - `positions`: not used; it finds its own.
    - `band`: name of a band; None: the mean of all.
    - `threshold`: in standard deviations of a pixel. `separation`: pixels.
    - `most`: largest number of peaks; the highest are kept and `truncated` says so.

    **Raises:** `ValueError` for an unknown band, or a separation below 1.
    """
    if separation < 1:
        raise ValueError(f"`separation` must be at least 1; got {separation}.")
    seen = pixels_of(exposure).band(band)
    image = seen.image[0]
    highest = maximum_filter(image, size=2 * separation + 1, mode="nearest")
    peak = (image == highest) & (image > threshold * np.sqrt(seen.variance[0]))
    if seen.bad is not None:
        peak &= ~seen.bad[0]
    inner = np.zeros_like(peak)
    inner[separation:-separation, separation:-separation] = True
    y, x = np.nonzero(peak & inner)
    order = np.argsort(-image[y, x], kind="stable")
    y, x = y[order], x[order]
    table = catalog_of(np.stack([x, y], axis=1), exposure.header, exposure.shape)
    add_column(table, "peak", image[y, x], "Brightness of the pixel, unit of the image")
    return Measured(table).brightest(most, image[y, x])
