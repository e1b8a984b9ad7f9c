"""Point-like peaks of an image, with what tells a star: a size, a flux, a place."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import correlate1d

# A light smoothing: about matched to seeing of 2 to 5 pixels, and short, thus fast.
_KERNEL = np.array([1, 4, 7, 4, 1], np.float32) / 17
_STEPS = 4


@dataclass(frozen=True)
class Peaks:
    """Sources that stand out of the sky, the brightest first; arrays of one length.

    - `x`, `y`: centroid under a Gaussian weight, in pixels.
    - `flux`, `flux_err`: under the same weight, brought to the total of a Gaussian of that size;
        good to some 10 % of a star's.
    - `size`: sigma in pixels, sqrt of half the trace of the moments, the weight taken out; NaN
        where there is none.
    - `e1`, `e2`: (Ixx - Iyy) / T and 2 Ixy / T, T the trace.
    - `peak`: the value of the brightest pixel.
    - `touched`: a masked pixel is within two sigma of the weight, or the border of the image.
    """

    x: Float[np.ndarray, "peak"]
    y: Float[np.ndarray, "peak"]
    flux: Float[np.ndarray, "peak"]
    flux_err: Float[np.ndarray, "peak"]
    size: Float[np.ndarray, "peak"]
    e1: Float[np.ndarray, "peak"]
    e2: Float[np.ndarray, "peak"]
    peak: Float[np.ndarray, "peak"]
    touched: Bool[np.ndarray, "peak"]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def snr(self) -> Float[np.ndarray, "peak"]:
        """Flux over its standard deviation."""
        return self.flux / self.flux_err


def find_point_sources(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    *,
    threshold: float = 8.0,
    limit: int = 4000,
) -> tuple[Float[np.ndarray, "peak"], Float[np.ndarray, "peak"]]:
    """Places (x, y) of local maxima of a lightly smoothed image, the brightest first.

    - `image`: without the sky. `masked`: True where a pixel is no good.
    - `threshold`: least height in standard deviations of the smoothed noise.
    - `limit`: keep at most so many.
    """
    clean = np.where(masked, np.float32(0), image)
    smooth = correlate1d(correlate1d(clean, _KERNEL, 0, mode="nearest"), _KERNEL, 1, mode="nearest")
    noise = np.sqrt(sky_variance(variance, masked)) * np.sum(_KERNEL**2)
    # Only what is bright is compared with its neighbours: a few pixels in a hundred.
    inner = smooth[2:-2, 2:-2]
    y, x = np.nonzero(inner > threshold * noise)
    place = (y + 2) * image.shape[1] + x + 2
    flat = smooth.ravel()
    value = flat[place]
    width = image.shape[1]
    near = [dy * width + dx for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)]
    # The direct neighbours first, which rule most of them out.
    for offset in sorted(near, key=lambda o: abs(o) not in (1, width)):
        top = value > flat[place + offset] if offset < 0 else value >= flat[place + offset]
        place, value = place[top], value[top]
    order = np.argsort(-value, kind="stable")[:limit]
    return (place[order] % width).astype(float), (place[order] // width).astype(float)


def measure_peaks(
    image: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    x: Float[np.ndarray, "peak"],
    y: Float[np.ndarray, "peak"],
    *,
    sigma: float,
) -> Peaks:
    """Centroids and sizes under one round Gaussian weight for all; those far apart are dropped.

    With a weight of the stars' own size the noise of a size is the least, and a neighbour counts
    little. A Gaussian source of variance s^2 under a weight of variance w^2 has moments
    s^2 w^2 / (s^2 + w^2): solved for s^2.

    - `x`, `y`: places to start at, in pixels. `sigma`: of the weight, in pixels.
    """
    half = max(3, int(np.ceil(3 * sigma)))
    height, width = image.shape
    offset = np.arange(-half, half + 1)
    column = np.round(x).astype(int)[:, None] + offset
    row = np.round(y).astype(int)[:, None] + offset
    inside = (row >= 0)[:, :, None] & (row < height)[:, :, None]
    inside = inside & ((column >= 0) & (column < width))[:, None, :]
    place = np.clip(row, 0, height - 1)[:, :, None] * width
    place = place + np.clip(column, 0, width - 1)[:, None, :]
    good = inside & ~masked.ravel()[place]
    stamp = np.where(good, image.ravel()[place], 0).astype(np.float32)
    # A source on masked pixels still has a place.
    x, y = x.astype(float), y.astype(float)
    u, v, wu, wv, sums = _weighted(stamp, column, row, x, y, sigma)
    for _ in range(_STEPS - 1):
        total = np.where(sums["0"] > 0, sums["0"], np.nan)
        # Under a weight of its own size the centroid is half as far off as it is.
        x = x + np.nan_to_num(np.clip(2 * sums["x"] / total, -1, 1))
        y = y + np.nan_to_num(np.clip(2 * sums["y"] / total, -1, 1))
        u, v, wu, wv, sums = _weighted(stamp, column, row, x, y, sigma)
    total = np.where(sums["0"] > 0, sums["0"], np.nan)
    mx, my = sums["x"] / total, sums["y"] / total
    xx, yy, xy = (sums[k] / total - c for k, c in (("xx", mx**2), ("yy", my**2), ("xy", mx * my)))
    t = 0.5 * (xx + yy)
    w2 = sigma**2
    with np.errstate(invalid="ignore", divide="ignore"):
        square = t * w2 / (w2 - t)
        size = np.sqrt(np.where((t > 0) & (t < 0.98 * w2), square, np.nan))
        # The ellipticity is diluted by the weight, to first order as the size is.
        dilution = 1 + np.where(np.isfinite(size), square, w2) / w2
        e1, e2 = (xx - yy) / (2 * t) * dilution, 2 * xy / (2 * t) * dilution
        # Sum of w I = F w^2 / (s^2 + w^2) for a Gaussian.
        gain = 1 + np.where(np.isfinite(size), square, w2) / w2
    level = np.where(good, variance.ravel()[place], 0)
    err = np.sqrt(np.einsum("nyx,ny,nx->n", level, wv**2, wu**2, optimize=True))
    core = (np.abs(u) <= 2 * sigma)[:, None, :] & (np.abs(v) <= 2 * sigma)[:, :, None]
    return Peaks(
        x,
        y,
        np.nan_to_num(total * gain),
        np.maximum(err * gain, np.finfo(np.float32).tiny),
        size,
        e1,
        e2,
        stamp.max(axis=(1, 2)).astype(float),
        (core & ~good).any(axis=(1, 2)),
    )


def _weighted(
    stamp: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    sigma: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Offsets and weights along both axes, and the moments under the weight."""
    u, v = column - x[:, None], row - y[:, None]
    wu, wv = np.exp(-0.5 * (u / sigma) ** 2), np.exp(-0.5 * (v / sigma) ** 2)
    return u, v, wu, wv, _moments(stamp, u, v, wu, wv)


def _moments(
    stamp: np.ndarray, u: np.ndarray, v: np.ndarray, wu: np.ndarray, wv: np.ndarray
) -> dict[str, np.ndarray]:
    # Sums over a stamp are products with its two short axes.
    along_x = np.stack([wu, u * wu, u * u * wu], axis=2).astype(np.float32)
    along_y = np.stack([wv, v * wv, v * v * wv], axis=1).astype(np.float32)
    both = (along_y @ (stamp @ along_x)).astype(float)
    names = (("0", "x", "xx"), ("y", "xy", ""), ("yy", "", ""))
    return {names[j][i]: both[:, j, i] for j in range(3) for i in range(3) if names[j][i]}


def sky_variance(variance: np.ndarray, masked: np.ndarray) -> float:
    """The variance of empty sky: the median of a part of the pixels."""
    step = max(1, variance.size // 20000)
    part, bad = variance.ravel()[::step], masked.ravel()[::step]
    part = part[~bad & np.isfinite(part)]
    return float(np.median(part)) if part.size else float(np.nanmedian(variance))
