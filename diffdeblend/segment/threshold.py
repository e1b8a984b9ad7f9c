"""How bright a pixel must be to belong to a source."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.background.sorted_rows import clip_rows
from diffdeblend.segment.smooth import smooth


def detect_threshold(
    data: Any,
    n_sigma: float,
    *,
    background: Any = None,
    error: Any = None,
    mask: Any = None,
    sigma: float | None = 3.0,
    max_iterations: int | None = 10,
) -> Any:
    """The sky plus so many standard deviations of its noise, at each pixel; shape `(y, x)`.

    - `data`: shape `(y, x)`; what is not finite does not count. A unit is kept.
    - `background`: level of the sky, one number or shape `(y, x)`; None for the mean of the image
        after clipping.
    - `error`: standard deviation of the noise of the sky, likewise; None for that of the image
        after clipping.
    - `mask`: True on pixels that do not count for the two, shape `(y, x)`.
    - `sigma`: clip at so many standard deviations about the median, `max_iterations` times at most;
        None for no clipping, or for as often as it takes.

    **Raises:** `ValueError` for shapes or units that do not fit, a number out of its range, or if
    nothing is left to estimate from.

    ??? cite
        As `detect_threshold` of photutils 3.
    """
    if not isinstance(n_sigma, Real) or not np.isfinite(float(n_sigma)):
        raise ValueError(f"`n_sigma` must be one finite number; got {n_sigma!r}.")
    if sigma is not None and not sigma > 0:
        raise ValueError(f"`sigma` must be positive or None; got {sigma!r}.")
    unit = getattr(data, "unit", None)
    values = np.asarray(data if unit is None else data.value)
    if values.ndim != 2:
        raise ValueError(f"`data` needs shape (y, x); got {values.shape}.")
    level = _number_or_map("background", background, unit, values.shape)
    noise = _number_or_map("error", error, unit, values.shape)
    if level is None or noise is None:
        if mask is not None and np.shape(mask) != values.shape:
            raise ValueError(f"`mask` needs shape {values.shape}; got {np.shape(mask)}.")
        used = values.reshape(-1) if mask is None else values[~np.asarray(mask, dtype=bool)]
        used = np.array(used, dtype=used.dtype if used.dtype.kind == "f" else float)
        if not np.isfinite(used).any():
            raise ValueError("`data` has no finite pixel outside of `mask`.")
        kept = clip_rows(used[None], sigma, max_iterations)
        level = kept.mean[0] if level is None else level
        noise = kept.std[0] if noise is None else noise
    kind = values.dtype if values.dtype.kind == "f" else np.float64
    threshold = np.broadcast_to(np.asarray(level + n_sigma * noise, dtype=kind), values.shape)
    return threshold.copy() if unit is None else threshold * unit


def combined_significance(
    images: Float[np.ndarray, "band y x"],
    weight: Float[np.ndarray, "band y x"],
    kernels: Float[np.ndarray, "band ky kx"],
) -> Float[np.ndarray, "y x"]:
    """Signal-to-noise of a point source at each pixel, all bands together. Host side.

    The best filter for a point of the spectrum that the bands see as equally bright in units of
    their noise: the PSF in each band, weighted by inverse variance. 0 where hardly any pixel is
    used.

    - `images`: without the sky.
    - `weight`: inverse variance, 0 where a pixel is not used.
    - `kernels`: the PSF of each band at the middle of an odd stamp.

    **Raises:** `ValueError` for shapes that do not fit.

    ??? cite
        Zackay & Ofek (2017), ApJ 836, 187, eqs. 10 and 12.
    """
    images, weight = np.asarray(images, dtype=float), np.asarray(weight, dtype=float)
    if images.ndim != 3 or weight.shape != images.shape:
        raise ValueError(
            "`images` and `weight` need one shape (band, y, x); "
            f"got {images.shape} and {weight.shape}."
        )
    if len(kernels) != len(images):
        raise ValueError(
            f"`kernels` must be as many as there are bands, {len(images)}; got {len(kernels)}."
        )
    total, variance = matched_filter(images, weight, kernels)
    # Where hardly any pixel is used the transform leaves only rounding.
    floor = 1e-3 * variance.max()
    return np.where(variance > floor, total / np.sqrt(np.maximum(variance, floor)), 0.0)


def matched_filter(
    images: Sequence[np.ndarray] | Float[np.ndarray, "band y x"],
    weight: Sequence[np.ndarray] | Float[np.ndarray, "band y x"],
    kernels: Sequence[np.ndarray] | Float[np.ndarray, "band ky kx"],
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
    """Weighted light under the PSF, summed over the bands, and the variance of that sum.

    Their ratio is the flux of a point source at each pixel, the sum over the root of its variance
    the signal-to-noise ratio. Host side.

    - `images`, `weight`, `kernels`: as for `combined_significance`, one of each for each band;
        images may be anything where the weight is 0.
    """
    total, variance = np.zeros_like(images[0]), np.zeros_like(images[0])
    for image, inverse, kernel in zip(images, weight, kernels, strict=True):
        weighted = np.multiply(inverse, image, where=inverse > 0, out=np.zeros_like(image))
        # Correlation, not convolution: the kernel is turned.
        turned = kernel[::-1, ::-1]
        total += smooth(weighted, turned, backend="host", normalize=False)
        variance += smooth(inverse, turned**2, backend="host", normalize=False)
    return total, variance


def _number_or_map(name: str, value: Any, unit: Any, shape: tuple[int, ...]) -> Any:
    if value is None:
        return None
    other = getattr(value, "unit", None)
    if (unit is None) != (other is None) or (unit is not None and not unit.is_equivalent(other)):
        raise ValueError(f"`{name}` needs the unit of `data`, {unit}; got {other}.")
    number = np.asarray(value if unit is None else value.to_value(unit))
    if number.ndim and number.shape != shape:
        raise ValueError(
            f"`{name}` must be one number or of the shape of `data`, {shape}; got {number.shape}."
        )
    return number
