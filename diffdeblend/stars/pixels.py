"""Image, variance and mask as all of this folder takes them."""

import numpy as np
from jaxtyping import ArrayLike

from diffdeblend.exposure import Exposure


def checked_pixels(
    image: ArrayLike | Exposure, variance: ArrayLike | None, mask: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, variance and mask in float32; see `determine_psf`.

    **Raises:** `ValueError` for shapes that disagree, or no pixel that can be used.
    """
    if isinstance(image, Exposure):
        if variance is not None or mask is not None:
            raise ValueError("`variance` and `mask` are those of the `Exposure`; do not give them.")
        if len(image.bands) != 1:
            raise ValueError(
                f"`image` must be an Exposure of one band; got {len(image.bands)} bands."
            )
        weight = np.asarray(image.weight[0], np.float32)
        masked = weight <= 0
        return (
            np.asarray(image.data[0], np.float32),
            1 / np.where(masked, 1, weight),
            masked,
        )
    pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise ValueError(f"`image` needs shape (y, x); got {pixels.shape}.")
    if variance is None:
        raise ValueError("`variance` is needed with an array `image`.")
    # FITS arrays are big-endian.
    pixels = pixels.astype(np.float32)
    v = np.asarray(variance).astype(np.float32)
    if v.ndim == 0:
        v = np.full(pixels.shape, v)
    masked = np.zeros(pixels.shape, bool) if mask is None else np.asarray(mask) != 0
    for name, array in (("variance", v), ("mask", masked)):
        if array.shape != pixels.shape:
            raise ValueError(
                f"`{name}` needs the shape of `image`, {pixels.shape}; got {array.shape}."
            )
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(pixels) & np.isfinite(v) & (v > 0)
    masked = masked | ~usable
    if masked.all():
        raise ValueError("`image` has no pixel that is finite, of positive variance, and unmasked.")
    return pixels, v, masked
