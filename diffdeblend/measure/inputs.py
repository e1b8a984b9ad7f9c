"""What a catalogue is made from, checked once."""

from typing import Any

import numpy as np

from diffdeblend.measure.windows import Planes
from diffdeblend.segment.labels import LabelImage
from diffdeblend.segment.smooth import smooth


def catalog_planes(
    data: Any,
    segment_image: LabelImage,
    convolved_data: Any,
    kernel: Any,
    error: Any,
    mask: Any,
    background: Any,
) -> tuple[Planes, Any]:
    """The images as stacks of one stamp, and the unit of the data, None without.

    **Raises:** `ValueError` for other shapes or types, units that differ, or both a kernel and
    convolved data.
    """
    if not isinstance(segment_image, LabelImage):
        raise ValueError(
            f"`segment_image` must be a LabelImage; got {type(segment_image).__name__}."
        )
    if kernel is not None and convolved_data is not None:
        raise ValueError("`kernel` and `convolved_data` exclude each other; give one of them.")
    shape = segment_image.shape
    given = {
        "data": data,
        "convolved_data": convolved_data,
        "error": error,
        "background": background,
    }
    units = {name: getattr(v, "unit", None) for name, v in given.items() if v is not None}
    if len({str(unit) for unit in units.values()}) > 1:
        told = ", ".join(f"`{name}` {unit or 'none'}" for name, unit in units.items())
        raise ValueError(f"`data` and what goes with it need the same unit; got {told}.")
    images = {name: _image(name, value, shape) for name, value in given.items()}
    hidden = None
    if mask is not None and mask is not np.ma.nomask:
        hidden = np.asarray(mask)
        if hidden.shape != shape or hidden.dtype != bool:
            raise ValueError(
                f"`mask` needs booleans of shape {shape}; got {hidden.dtype} of {hidden.shape}."
            )
    if kernel is not None:
        images["convolved_data"] = np.asarray(smooth(images["data"], kernel, mask=hidden))
    stacks = [None if image is None else image[None] for image in (*images.values(), hidden)]
    labels = segment_image.data[None]
    return Planes(stacks[0], labels, *stacks[1:]), units["data"]


def check_width(width: Any) -> int:
    """**Raises:** `ValueError` if it is not an integer of at least 0."""
    if isinstance(width, bool) or not float(width).is_integer() or width < 0:
        raise ValueError(f"`local_bkg_width` must be an integer of at least 0; got {width!r}.")
    return int(width)


def _image(name: str, value: Any, shape: tuple[int, int]) -> np.ndarray | None:
    if value is None:
        return None
    image = np.asarray(getattr(value, "value", value))
    if image.shape != shape:
        raise ValueError(
            f"`{name}` needs the shape of `segment_image`, {shape}; got {image.shape}."
        )
    if image.dtype.kind not in "fiu":
        raise ValueError(f"`{name}` needs real numbers; got {image.dtype}.")
    if image.dtype not in (np.float32, np.float64) or not image.dtype.isnative:
        image = image.astype(np.float32 if image.dtype.itemsize <= 2 else np.float64)
    return np.ascontiguousarray(image)
