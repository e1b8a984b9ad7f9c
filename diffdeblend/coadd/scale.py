"""How bright the sky's light is in one epoch relative to another."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.fft import irfft2, rfft2

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.fourier import fast_length

# Pixels on a side of the piece in the middle that is compared: enough for 0.1 %.
_PIECE = 1536
_LEAST_SIGNIFICANCE = 20.0
_LEAST_PIXELS = 10


@dataclass(frozen=True, eq=False)
class Light:
    """One band of one epoch, to compare with another: `(y, x)`, and its PSF, `(h, w)`.

    `image` without sky, 0 where not `good`; `variance`, too.
    """

    image: Float[np.ndarray, "y x"]
    variance: Float[np.ndarray, "y x"]
    good: Bool[np.ndarray, "y x"]
    psf: Float[np.ndarray, "h w"]


def middle_piece(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    good: Bool[np.ndarray, "y x"],
    psf: Float[np.ndarray, "h w"],
) -> Light:
    """What of an image is compared: no more than is needed."""
    start = [max(0, (n - _PIECE) // 2) for n in image.shape]
    part = tuple(slice(s, s + _PIECE) for s in start)
    on = np.asarray(good[part])
    return Light(np.where(on, image[part], 0), np.where(on, variance[part], 0), on, psf)


def flux_ratio(first: Light, other: Light, dx: float = 0.0, dy: float = 0.0) -> float:
    """Light in `other` over that in `first`: the robust slope of their pixels at one resolution.

    Each image is seen through the other's PSF, too: neighbours blend alike in both, so that
    nothing has to be isolated, or a star.

    - `dx`, `dy`: position in `other` minus position in `first`, in pixels.

    **Raises:** `ValueError` if too few pixels with light are seen in both.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27, section 3.3, of which this is the case of pixels
        far above the noise.
    """
    reach = [max(first.psf.shape[k], other.psf.shape[k]) for k in (0, 1)]
    size: Any = [fast_length(n + r) for n, r in zip(first.image.shape, reach, strict=True)]
    ny, nx = first.image.shape
    ky, kx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    moved = np.exp(-2j * np.pi * (kx * dx + ky * dy))
    a, b = (_transfer(light.psf, size) for light in (first, other))
    a2, b2 = (_transfer(light.psf**2, size) for light in (first, other))

    def seen(values: np.ndarray, through: np.ndarray) -> np.ndarray:
        whole: Any = irfft2(rfft2(values, size) * through, size)
        return whole[:ny, :nx]

    # The first is moved onto the other.
    left, right = seen(first.image, b * moved), seen(other.image, a)
    left_noise, right_noise = seen(first.variance, b2 * moved), seen(other.variance, a2)
    whole = seen(1.0 - first.good, b * moved) < 1e-3
    whole &= seen(1.0 - other.good, a) < 1e-3
    for axis, edge in ((0, reach[0] // 2), (1, reach[1] // 2)):
        index = np.arange((ny, nx)[axis])
        far = (index >= edge) & (index < (ny, nx)[axis] - edge)
        whole &= far[:, None] if axis == 0 else far
    # Chosen by one image alone: chosen by both, those lifted by noise would be kept.
    bright = whole & (left > _LEAST_SIGNIFICANCE * np.sqrt(np.maximum(left_noise, 1e-30)))
    if bright.sum() < _LEAST_PIXELS:
        raise ValueError(
            "`scale` cannot be measured: too little light stands out in both the first epoch and "
            "another one. Give numbers."
        )
    x, y = left[bright], right[bright]
    noise_x, noise_y = left_noise[bright], right_noise[bright]
    ratio = float(np.median(y / x))
    for _ in range(30):
        deviation = y - ratio * x
        # PSFs that are off leave errors in proportion to the light.
        excess = MAD_TO_STD * np.median(np.abs(deviation / x))
        spread = noise_y + ratio**2 * noise_x + (excess * x) ** 2
        pull = 1 / (spread + deviation**2 / 4)
        step = float((pull * x * deviation).sum() / (pull * x**2).sum())
        ratio += step
        if abs(step) < 1e-6 * abs(ratio):
            break
    return ratio


def _transfer(psf: np.ndarray, size: list[int]) -> Any:
    placed = np.zeros(size)
    placed[: psf.shape[0], : psf.shape[1]] = psf
    return rfft2(np.roll(placed, (-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1)))
