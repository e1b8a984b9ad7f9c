"""The stars' pixels as one stack."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.stars.select import neighbours_of

_NEIGHBOURS = 6


class StarStack(NamedTuple):
    """Cut-outs around stars.

    - `data`: without the sky, `(n, size, size)`; 0 where not good.
    - `sky_variance`: what the variance is where there is no star.
    - `good`: pixels to use.
    - `x0`, `y0`: the middle pixel of each in the image; `x`, `y`: the star's place from there.
    - `flux`: to start from.
    - `gain_inverse`: what the variance grows by with each unit of light.
    """

    data: Float[np.ndarray, "n size size"]
    sky_variance: Float[np.ndarray, "n size size"]
    good: Bool[np.ndarray, "n size size"]
    x0: Float[np.ndarray, "n"]
    y0: Float[np.ndarray, "n"]
    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]
    flux: Float[np.ndarray, "n"]
    gain_inverse: float


def cut_stars(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    flux: Float[np.ndarray, "n"],
    size: int,
    *,
    inverse_gain: float,
    gone: Bool[np.ndarray, "n size size"] | None = None,
) -> StarStack:
    """The stack of stars at (x, y); pixels outside of the image are not good. Host side.

    - `gone`: pixels not to use besides, as those with a neighbour's light.
    """
    data, place, inside = _cut(image, x, y, size)
    good = inside & ~masked.ravel()[place] & np.isfinite(data)
    if gone is not None:
        good &= ~gone
    data = np.where(good, data, 0).astype(np.float32)
    v = np.where(good, variance.ravel()[place], 1).astype(np.float32)
    # The star's own light is put back in from the model, which has no noise.
    sky = v - np.float32(inverse_gain) * np.maximum(data, 0)
    level = float(np.median(sky[good])) if good.any() else 1.0
    sky = np.clip(sky, 0.5 * level, None)
    x0, y0 = np.round(x), np.round(y)
    return StarStack(data, sky, good, x0, y0, x - x0, y - y0, np.asarray(flux, float), inverse_gain)


def _cut(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offset = np.arange(size) - size // 2
    row = np.round(y).astype(int)[:, None] + offset
    column = np.round(x).astype(int)[:, None] + offset
    height, width = image.shape
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    place = np.clip(row, 0, height - 1)[:, :, None] * width
    place = place + np.clip(column, 0, width - 1)[:, None, :]
    return image.ravel()[place], place, inside


def neighbour_light(
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    flux: Float[np.ndarray, "n"],
    fwhm: Float[np.ndarray, "n"],
    chosen: np.ndarray,
    size: int,
) -> Float[np.ndarray, "chosen size size"]:
    """Most light that the neighbours of the chosen sources may have in each pixel of their stamps.

    A Moffat profile of beta 2.5 for each of the nearest: wider wings than most PSFs have.

    - `x`, `y`, `flux`, `fwhm`: of all sources.
    """
    radius = 0.75 * size + 4 * float(np.median(fwhm))
    index, _ = neighbours_of(x, y, radius, _NEIGHBOURS)
    index = index[chosen]
    offset = np.arange(size) - size // 2
    light = np.zeros((len(index), size, size), np.float32)
    for one in index.T:
        has = np.flatnonzero(one >= 0)
        if not has.size:
            break
        other = one[has]
        u = np.round(x[chosen][has])[:, None] + offset - x[other][:, None]
        v = np.round(y[chosen][has])[:, None] + offset - y[other][:, None]
        k = 2**0.4 - 1
        rho = (4 / fwhm[other] ** 2)[:, None, None] * ((u**2)[:, None, :] + (v**2)[:, :, None])
        peak = flux[other] * 4 * k * 1.5 / (np.pi * fwhm[other] ** 2)
        light[has] += (peak[:, None, None] * (1 + k * rho) ** -2.5).astype(np.float32)
    return light


def estimate_inverse_gain(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    sky_variance: float,
) -> float:
    """How much the variance grows with the light, by the stars' bright pixels; 0 if it does not."""
    data, place, inside = _cut(image, x, y, 5)
    bright = inside & ~masked.ravel()[place] & (data > 10 * np.sqrt(sky_variance))
    if bright.sum() < 5:
        return 0.0
    slope = (variance.ravel()[place] - sky_variance)[bright] / data[bright]
    return max(float(np.median(slope)), 0.0)
