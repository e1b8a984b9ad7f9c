"""Small pieces of the images of a catalogue, one for each source. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from diffdeblend.measure.windows import Planes

# Columns of cutouts, and the images they are cut from; with `_masked`, as masked arrays.
CUTOUTS = {
    "data_cutout": "data",
    "conv_data_cutout": "convolved",
    "error_cutout": "error",
    "background_cutout": "background",
    "segment_cutout": "labels",
}


class Cutout(NamedTuple):
    """A piece of an image.

    - `data`: its pixels. `x0`, `y0`: place of the first in the image; negative where it begins
        outside, for cutouts that are filled up.
    """

    data: Shaped[np.ndarray, "h w"]
    x0: int
    y0: int


def cutout_column(
    planes: Planes, name: str, labels: Int[np.ndarray, "n"], boxes: Int[np.ndarray, "n 4"]
) -> list[np.ndarray | np.ma.MaskedArray | None]:
    """Views of one image, or masked arrays, on the boxes of sources; None without that image.

    - `name`: one of `CUTOUTS`, or that and `_masked`: then all that is not of the source, masked or
        not finite is hidden.
    """
    masked = name.endswith("_masked")
    image = getattr(planes, CUTOUTS[name.removesuffix("_masked")])
    if image is None and name.startswith("conv"):
        image = planes.data
    found = []
    for label, (y0, x0, y1, x1) in zip(labels, boxes.tolist(), strict=True):
        box = (0, slice(y0, y1), slice(x0, x1))
        if image is None:
            found.append(None)
        elif not masked:
            found.append(image[box])
        else:
            hidden = (planes.labels[box] != label) | ~np.isfinite(planes.data[box])
            if planes.mask is not None:
                hidden |= planes.mask[box]
            found.append(np.ma.masked_array(image[box], mask=hidden))
    return found


def center_cutouts(
    image: Shaped[np.ndarray, "y x"],
    x: np.ndarray,
    y: np.ndarray,
    shape: tuple[int, int],
    mode: str = "partial",
    fill_value: float = np.nan,
) -> list[Cutout | None]:
    """Pieces of one shape around positions; None where a position is not finite.

    - `mode`: "partial" fills up what lies outside the image with `fill_value`; "trim" leaves it
        out, so that the piece is smaller.

    **Raises:** `ValueError` for another mode, a shape that is not two positive integers, or a
    `fill_value` that the type of the image cannot hold.
    """
    if mode not in ("partial", "trim"):
        raise ValueError(f'`mode` must be "partial" or "trim"; got {mode!r}.')
    if len(shape) != 2 or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"`shape` must be two positive integers; got {shape!r}.")
    if mode == "partial" and image.dtype.kind in "iub" and not np.isfinite(fill_value):
        raise ValueError(f"`fill_value` {fill_value} does not fit an image of {image.dtype}.")
    found: list[Cutout | None] = []
    most = np.array(image.shape)
    for place in np.stack([y, x], axis=1):
        if not np.isfinite(place).all():
            found.append(None)
            continue
        low = np.ceil(place - np.array(shape) / 2).astype(int)
        high = low + np.array(shape)
        first, last = np.clip(low, 0, most), np.clip(high, 0, most)
        piece = image[first[0] : last[0], first[1] : last[1]]
        if mode == "trim":
            found.append(Cutout(piece, int(first[1]), int(first[0])))
            continue
        filled = np.full(tuple(shape), fill_value, image.dtype)
        at = first - low
        filled[at[0] : at[0] + piece.shape[0], at[1] : at[1] + piece.shape[1]] = piece
        found.append(Cutout(filled, int(low[1]), int(low[0])))
    return found
