"""The sky of a sparse image where it is darkest and most symmetric, as ASTErIsM finds it."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from diffdeblend.background.mesh import check_mask
from diffdeblend.background.statistics import MAD_TO_STD

# Windows that are tried: middles, and half-widths of each.
_CENTRES, _WIDTHS = 21, 200

Sigma = Literal["mad", "mad_std", "std"]


@dataclass(frozen=True, repr=False)
class SkewnessBackground:
    """A level of the sky, and how it was found. Values are in the unit of the image.

    - `level`: mean of the selected pixels. `sigma`: scatter of the block.
        `threshold`: level + n_std_th * sigma.
    - `block_side`: height and width of a block, in pixels. `n_blocks`: blocks of the image.
        `block`: number of the one that was taken, row by row. `corner`: its first pixel, `(y, x)`.
    - `pixels`: values of the block that were used, `(n,)`.
    - `selected`: which of these lie in the window.
    - `mean`, `std`, `first_skewness`: of all of `pixels`. `skewness`: of the selected.
    - `centre`, `half_width`: of the window. `size_ratio`: share of the pixels in it.
    """

    level: float
    sigma: float
    threshold: float
    block_side: tuple[int, int]
    n_blocks: int
    block: int
    corner: tuple[int, int]
    pixels: Float[np.ndarray, "n"]
    selected: Bool[np.ndarray, "n"]
    mean: float
    std: float
    first_skewness: float
    skewness: float
    centre: float
    half_width: float
    size_ratio: float

    def __repr__(self) -> str:
        return (
            f"<SkewnessBackground level={self.level:.6g}, sigma={self.sigma:.6g}, "
            f"threshold={self.threshold:.6g}: skewness {self.first_skewness:.3g} to "
            f"{self.skewness:.3g} with {self.size_ratio:.0%} of {self.pixels.size} pixels>"
        )


def skewness_background(
    data: Float[Any, "y x"],
    *,
    sub_block_frac_size: float | None = 0.1,
    skewness_range: float | None = 0.1,
    min_size_ratio: float = 0.1,
    n_std_th: float = 3.0,
    resampling_size: int = 1_000_000,
    sigma: Sigma = "mad",
    seed: int = 0,
    mask: Bool[Any, "y x"] | None = None,
) -> SkewnessBackground:
    """Level, scatter and threshold from the darkest block of an image. Host side.

    Of the block with the least flux, pixels within a window are kept: the window whose pixels have
    the least absolute skewness, of 21 middles within `skewness_range` standard deviations about
    the mean and 200 half-widths each, up to the farthest pixel; of equals the widest. Their mean
    is the level. On Gaussian noise it scatters by 0.05 standard deviations (the mean of all 961
    pixels of a block by 0.02): what the method buys is to be less drawn by a faint source.

    For images with much empty sky. On a crowded field (sky noise 33, a source every 420 pixels)
    it lies 6 too high where a clipped median lies 4 too high: see `source_free_background`.

    - `sub_block_frac_size`: area of a block over that of the image; None for the whole image.
        Blocks begin at the first pixel; what is left over is not used.
    - `skewness_range`: in standard deviations; None keeps all pixels of the block.
    - `min_size_ratio`: least share of pixels in the window.
    - `n_std_th`: threshold above the level, in units of `sigma`.
    - `resampling_size`: of more pixels than this so many are drawn, by `seed`.
    - `sigma`: scatter of all pixels of the block. "mad" is the plain median absolute deviation as
        in ASTErIsM, 0.67 of a Gaussian's standard deviation, so that "3 sigma" is 2.02 of these;
        "mad_std" is 1 for a Gaussian; "std" the standard deviation.
    - `mask`: true where a pixel is not used, as those that are not finite are not.

    **Raises:** `ValueError` for a wrong shape or setting, or without any pixel to use.

    ??? cite
        ASTErIsM: Tramacere et al. (2016), section 2.
    """
    data = np.asarray(data)
    if data.ndim != 2 or data.dtype.kind not in "fiub":
        raise ValueError(f"`data` needs numbers of shape (y, x); got {data.dtype} {data.shape}.")
    good = np.isfinite(data)
    hidden = check_mask("mask", mask, data.shape)
    if hidden is not None:
        good &= ~hidden
    if not good.any():
        raise ValueError("`data` has no pixel that is finite and not masked.")
    _check(sub_block_frac_size, skewness_range, min_size_ratio, sigma)
    if resampling_size < 1:
        raise ValueError(f"`resampling_size` must be at least 1; got {resampling_size!r}.")
    side, grid = _blocks(data.shape, sub_block_frac_size)
    block = int(_darkest(data, good, side, grid, np))
    corner = block // grid[1] * side[0], block % grid[1] * side[1]
    inside = tuple(slice(a, a + n) for a, n in zip(corner, side, strict=True))
    pixels = data[inside][good[inside]].astype(float)
    if pixels.size > resampling_size:
        pixels = np.random.default_rng(seed).choice(pixels, resampling_size, replace=False)
    found = _symmetric(np.sort(pixels), pixels.size, skewness_range, min_size_ratio, np)
    spread = {"std": found.std, "mad": found.mad, "mad_std": MAD_TO_STD * found.mad}[sigma]
    selected = (pixels >= found.low) & (pixels <= found.high)
    numbers = {name: float(getattr(found, name)) for name in _Found._fields}
    return SkewnessBackground(
        level=numbers["level"],
        sigma=float(spread),
        threshold=float(found.level + n_std_th * spread),
        block_side=side,
        n_blocks=grid[0] * grid[1],
        block=block,
        corner=corner,
        pixels=pixels,
        selected=selected,
        mean=numbers["mean"],
        std=numbers["std"],
        first_skewness=numbers["first_skewness"],
        skewness=numbers["skewness"],
        centre=numbers["centre"],
        half_width=numbers["half_width"],
        size_ratio=numbers["size_ratio"],
    )


def stamp_skewness_background(
    data: Float[Array, "y x"],
    good: Bool[Array, "y x"],
    *,
    sub_block_frac_size: float | None = 0.1,
    skewness_range: float | None = 0.1,
    min_size_ratio: float = 0.1,
    n_std_th: float = 3.0,
    sigma: Sigma = "mad",
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Level, sigma and threshold of `skewness_background` for one stamp, in JAX: for `vmap`.

    - `good`: true where a pixel is used; without any the results are NaN.

    In single precision another of nearly equal windows may be taken.

    **Raises:** `ValueError` for a wrong setting.
    """
    _check(sub_block_frac_size, skewness_range, min_size_ratio, sigma)
    side, grid = _blocks(data.shape, sub_block_frac_size)
    good = good & jnp.isfinite(data)
    data = jnp.where(good, data, 0)
    block = _darkest(data, good, side, grid, jnp)
    corner = block // grid[1] * side[0], block % grid[1] * side[1]
    used = jnp.ravel(_slice(good, corner, side))
    pixels = jnp.where(used, jnp.ravel(_slice(data, corner, side)), jnp.inf)
    found = _symmetric(jnp.sort(pixels), jnp.sum(used), skewness_range, min_size_ratio, jnp)
    spread = {"std": found.std, "mad": found.mad, "mad_std": MAD_TO_STD * found.mad}[sigma]
    ok = jnp.any(used)
    values = found.level, spread, found.level + n_std_th * spread
    level, spread, threshold = (jnp.where(ok, v, jnp.nan) for v in values)
    return level, spread, threshold


class _Found(NamedTuple):
    level: Any
    mad: Any
    mean: Any
    std: Any
    first_skewness: Any
    skewness: Any
    centre: Any
    half_width: Any
    size_ratio: Any
    low: Any
    high: Any


def _symmetric(ordered: Any, n: Any, reach: float | None, least: float, xp: Any) -> _Found:
    """The window of least skewness. `ordered`: `n` ascending values, then infinities."""
    # NumPy and JAX spell all of this alike: one text for both.
    used = xp.arange(ordered.size) < n
    one = xp.maximum(n, 1)
    middle = ordered[n // 2]
    middle = xp.where(n > 0, middle, 0)
    z = xp.where(used, ordered - middle, 0)
    mean = xp.sum(z) / one
    away = xp.where(used, z - mean, 0)
    std = xp.sqrt(xp.sum(away * away) / one)
    unit = xp.where(std > 0, std, 1)
    z = away / unit
    sums = [_from_the_middle(z**power, xp) for power in (1, 2, 3)]
    widest = xp.max(xp.abs(z))
    if reach is None:
        centres, widths = xp.zeros((1, 1)), xp.reshape(widest, (1, 1))
    else:
        centres = xp.linspace(-reach, reach, _CENTRES)[:, None]
        # A hair more: the farthest pixel is in.
        widths = widest * (xp.arange(_WIDTHS, 0, -1) / _WIDTHS)[None, :]
    values = xp.where(used, z, xp.inf)
    hair = 1 + 8 * np.finfo(z.dtype).eps
    first = xp.searchsorted(values, centres - widths * hair, side="left")
    stop = xp.minimum(xp.searchsorted(values, centres + widths * hair, side="right"), n)
    count = stop - first
    skewness, average = _moments(sums, first, stop, xp)
    allowed = count >= xp.maximum(least * n, 1)
    # A mean of pixels, were it of two, has no skewness at all.
    allowed = allowed & (count >= xp.minimum(n, 3))
    away_from_zero = xp.where(allowed, xp.abs(skewness), xp.inf)
    # Columns go from wide to narrow: the first of equals in this order is the widest.
    best = xp.argmin(away_from_zero.T)
    row, column = best % centres.shape[0], best // centres.shape[0]
    low, high = first[row, column], stop[row, column]
    level = mean + middle + std * average[row, column]
    whole, _ = _moments(sums, xp.zeros((1, 1), int), xp.full((1, 1), n), xp)
    last = ordered.size - 1
    median = 0.5 * (ordered[xp.maximum(n - 1, 0) // 2] + ordered[xp.minimum(n // 2, last)])
    away = xp.sort(xp.where(used, xp.abs(ordered - median), xp.inf))
    mad = 0.5 * (away[xp.maximum(n - 1, 0) // 2] + away[xp.minimum(n // 2, last)])
    return _Found(
        level,
        mad,
        mean + middle,
        std,
        whole[0, 0],
        skewness[row, column],
        mean + middle + std * centres[row, 0],
        std * widths[0, column],
        count[row, column] / one,
        ordered[xp.minimum(low, last)],
        ordered[xp.clip(high - 1, 0, last)],
    )


def _moments(sums: list[Any], first: Any, stop: Any, xp: Any) -> tuple[Any, Any]:
    """Skewness and mean of runs of sorted values."""
    n = xp.maximum(stop - first, 1)
    m1, m2, m3 = ((s[stop] - s[first]) / n for s in sums)
    variance = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    # Equal values: no spread, but rounding.
    flat = variance <= 1e-6 * xp.maximum(m2, 1e-12)
    return xp.where(flat, 0, third / xp.where(flat, 1, variance) ** 1.5), m1


def _from_the_middle(values: Any, xp: Any) -> Any:
    """Running sum that is zero at the middle place: outliers at the ends spoil no other sum."""
    half = values.size // 2
    left = -xp.cumsum(values[:half][::-1])[::-1]
    return xp.concatenate([left, xp.zeros(1, values.dtype), xp.cumsum(values[half:])])


def _blocks(shape: tuple[int, ...], share: float | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a block, and how many there are along each axis."""
    root = 1.0 if share is None else share**0.5
    side = max(1, int(root * shape[0])), max(1, int(root * shape[1]))
    return side, (shape[0] // side[0], shape[1] // side[1])


def _darkest(data: Any, good: Any, side: tuple[int, int], grid: tuple[int, int], xp: Any) -> Any:
    """Number of the block with the least mean, among those of which half is used if there are."""
    ny, nx = grid[0] * side[0], grid[1] * side[1]
    split = (grid[0], side[0], grid[1], side[1])
    n = good[:ny, :nx].reshape(split).sum(axis=(1, 3)).ravel()
    # Their sums, were nothing masked.
    light = xp.where(good, data, 0)[:ny, :nx].reshape(split).sum(axis=(1, 3)).ravel()
    mean = xp.where(n > 0, light / xp.maximum(n, 1), xp.inf)
    half = 2 * n >= side[0] * side[1]
    return xp.where(xp.any(half), xp.argmin(xp.where(half, mean, xp.inf)), xp.argmax(n))


def _slice(image: Array, corner: tuple[Any, Any], side: tuple[int, int]) -> Array:
    rows = jnp.arange(side[0]) + corner[0]
    columns = jnp.arange(side[1]) + corner[1]
    return image[rows[:, None], columns]


def _check(share: float | None, reach: float | None, least: float, sigma: str) -> None:
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"`sub_block_frac_size` must be above 0 and at most 1; got {share!r}.")
    if reach is not None and not reach >= 0:
        raise ValueError(f"`skewness_range` must be at least 0 or None; got {reach!r}.")
    if not 0 <= least <= 1:
        raise ValueError(f"`min_size_ratio` must be 0 to 1; got {least!r}.")
    if sigma not in ("mad", "mad_std", "std"):
        raise ValueError(f'`sigma` must be "mad", "mad_std" or "std"; got {sigma!r}.')
