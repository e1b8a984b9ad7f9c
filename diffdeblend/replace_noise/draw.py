"""Noise to stand where sources were."""

from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.noise import correlated_noise

NOISE_SOURCES = ("measure", "variance", "variance_median")

# A median of more pixels than that takes longer and says nothing new.
_MANY = 2_000_000
# With fewer pixels between the footprints those on them are used, too.
_FEW = 100


def draw_replacement(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    good: Bool[np.ndarray, "y x"],
    where: Bool[np.ndarray, "y x"],
    *,
    noise: str | float = "measure",
    offset: float = 0.0,
    seed: int = 1,
    correlation: Float[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "y x"]:
    """An image of noise `where` it is wanted, 0 elsewhere. Host side.

    - `good`: pixels in use.
    - `noise`: `"measure"`: mean and standard deviation as of the good pixels not in `where`, by
        median and median absolute deviation; `"variance"`: of zero mean and the variance of the
        pixel; `"variance_median"`: of the median variance of the good pixels; or a number, the
        standard deviation.
    - `offset`: added to all.
    - `seed`: the same noise for the same seed.
    - `correlation`: autocovariance of the noise, an odd stamp; None for independent pixels.

    **Raises:** `ValueError` for another `noise`, or an `offset` that is not finite.
    """
    if not np.isfinite(offset):
        raise ValueError(f"`offset` must be finite; got {offset}.")
    level, sigma = _law(image, variance, good, where, noise)
    out = np.zeros(image.shape, image.dtype)
    rng = np.random.default_rng(seed)
    if correlation is None:
        drawn = rng.standard_normal(int(where.sum()))
    else:
        drawn = correlated_noise((1, *image.shape), _unit(correlation)[None], rng, dip=0.2)[0][
            where
        ]
    out[where] = level + offset + drawn * (sigma if np.ndim(sigma) == 0 else sigma[where])
    return out


def _law(
    image: np.ndarray, variance: np.ndarray, good: np.ndarray, where: np.ndarray, noise: Any
) -> tuple[float, Any]:
    """Mean, and standard deviation of all or of each pixel."""
    if isinstance(noise, Real) and not isinstance(noise, bool):
        if not (np.isfinite(float(noise)) and float(noise) >= 0):
            raise ValueError(f"`noise` must be a standard deviation of at least 0; got {noise}.")
        return 0.0, float(noise)
    if noise not in NOISE_SOURCES:
        raise ValueError(
            f"`noise` must be one of {', '.join(NOISE_SOURCES)}, or a number; got {noise!r}."
        )
    known = np.isfinite(variance) & (variance > 0)
    if noise == "variance":
        # A pixel whose noise nobody knows gets that of the others.
        middle = _median(variance[known]) if known.any() else 0.0
        return 0.0, np.sqrt(np.where(known, variance, middle))
    if noise == "variance_median":
        chosen = variance[known & good]
        return 0.0, float(np.sqrt(_median(chosen))) if chosen.size else 0.0
    sky = good & np.isfinite(image) & ~where
    if sky.sum() < _FEW:
        sky = good & np.isfinite(image)
    values = image[sky]
    if not values.size:
        return 0.0, 0.0
    level = _median(values)
    return level, MAD_TO_STD * _median(np.abs(values - level))


def _median(values: np.ndarray) -> float:
    return float(np.median(values[:: len(values) // _MANY + 1]))


def _unit(correlation: np.ndarray) -> np.ndarray:
    stamp = np.asarray(correlation, dtype=float)
    return stamp / stamp[stamp.shape[0] // 2, stamp.shape[1] // 2]
