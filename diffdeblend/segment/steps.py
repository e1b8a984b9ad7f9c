"""What happens while one source is taken apart, for figures. Host side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.segment.deblend import ContrastMethod, Mode, check_settings, pixel_values
from diffdeblend.segment.flood import ascent, flood
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.levels import count_levels_below, source_levels
from diffdeblend.segment.markers import find_markers
from diffdeblend.segment.pixel_list import list_pixels
from diffdeblend.segment.split import drop_faint


@dataclass(frozen=True)
class DeblendSteps:
    """One source on the way apart. Images are of its box, 0 outside of the source.

    - `slices`: the box in the image. `data`: the pixels in it.
    - `levels`: at which the source is cut.
    - `n_above`: how many levels each pixel is above.
    - `hills`: pixels that lead up to one maximum have one number.
    - `markers`: parts that stand apart; all 0 if none do.
    - `basins`: what is flooded from each marker.
    - `parts`: basins, once those too faint are given to the others; numbers are those of markers.
    """

    slices: tuple[slice, slice]
    data: Float[np.ndarray, "y x"]
    levels: Float[np.ndarray, "level"]
    n_above: Int[np.ndarray, "y x"]
    hills: Int[np.ndarray, "y x"]
    markers: Int[np.ndarray, "y x"]
    basins: Int[np.ndarray, "y x"]
    parts: Int[np.ndarray, "y x"]


def deblend_steps(
    data: Any,
    segment_image: LabelImage,
    label: int,
    n_pixels: int,
    *,
    n_levels: int = 32,
    contrast: float = 0.001,
    mode: Mode = "exponential",
    connectivity: int = 8,
    contrast_method: ContrastMethod | None = None,
) -> DeblendSteps:
    """The steps of `deblend_sources` on one source of any size, without its way out into "linear".

    Arguments are as in `deblend_sources`.

    **Raises:** `ValueError` as `deblend_sources`, or if the source has no two different pixels, or
    one that is not finite.
    """
    settings = check_settings(n_pixels, n_levels, contrast, mode, connectivity, contrast_method)
    image = pixel_values(data, 2)
    if image.shape != segment_image.shape:
        raise ValueError(f"`data` needs shape {segment_image.shape}; got {image.shape}.")
    slices = segment_image.get_segment(label).slices
    cutout, inside = image[slices], segment_image.data[slices] == label
    place = np.flatnonzero(inside)
    value = cutout.reshape(-1)[place]
    if not np.isfinite(value).all() or value.min() == value.max():
        raise ValueError(f"`label` {label} has pixels that are not finite, or all the same.")
    parent = np.zeros(len(place), np.int32)
    shape = (1, *cutout.shape)
    pixels = list_pixels(place, value, parent, shape, settings.connectivity, least_peaks=0)
    levels, _ = source_levels(value.min()[None], value.max()[None], settings.n_levels, mode)
    total = np.array([value.sum(dtype=float)])
    saddle = settings.contrast_method == "saddle"
    markers = find_markers(
        pixels, levels, settings.n_pixels, settings.contrast * total if saddle else None
    )
    basins = parts = markers
    if markers.any():
        basins = parts = flood(value, pixels.neighbours, markers)
        # What no marker reaches is no part of anything.
        if not saddle and (basins > 0).all():
            positive = np.array([value.min() >= 0])
            parts = drop_faint(pixels, value, basins, total, positive, settings.contrast)

    def spread(values: np.ndarray) -> Int[np.ndarray, "y x"]:
        found = np.zeros(cutout.shape, np.int32)
        found.reshape(-1)[place] = values
        return found

    _, hill = np.unique(ascent(value, pixels.neighbours), return_inverse=True)
    above = count_levels_below(value, parent, levels)
    return DeblendSteps(
        slices,
        cutout,
        levels[0],
        spread(above),
        spread(hill + 1),
        spread(markers),
        spread(basins),
        spread(parts),
    )
