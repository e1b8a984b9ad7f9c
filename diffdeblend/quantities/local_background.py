"""The sky around a source, from a ring on its stamp."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.sums import steps_along

Scalar = Float[Array, ""]
# Of a Gaussian's quartiles: its standard deviation over their distance.
_OF_QUARTILES = 0.741301109252802
_HALVINGS = 24
_CLIPPINGS = 2
_LEAST_PIXELS = 10


class Level(NamedTuple):
    """Scalars: clipped mean, its error, clipped standard deviation, and pixels that were kept."""

    value: Scalar
    value_err: Scalar
    rms: Scalar
    n_pixels: Scalar


def clipped_level(
    values: Float[Array, "h w"], used: Bool[Array, "h w"], sigma: float = 3.0
) -> Level:
    """Clipped mean of some pixels: first about the median, by the quartiles; then twice more.

    May be differentiated as the mean of the pixels that are kept. NaN from fewer than ten pixels.
    Quantiles by halving: a sort of every stamp took ten times as long.

    - `used`: pixels that count.
    """
    held = lax.stop_gradient(values)
    low, middle, high = _quantiles(held, used, (0.25, 0.5, 0.75))
    centre, half = middle, sigma * _OF_QUARTILES * (high - low)
    kept = used & (jnp.abs(held - centre) <= half)
    for _ in range(_CLIPPINGS):
        centre, deviation, _ = _mean(held, kept)
        kept = used & (jnp.abs(held - centre) <= sigma * deviation)
    value, deviation, n = _mean(values, kept)
    enough = n >= _LEAST_PIXELS
    return Level(
        jnp.where(enough, value, jnp.nan),
        jnp.where(enough, deviation / jnp.sqrt(jnp.maximum(n, 1.0)), jnp.nan),
        jnp.where(enough, deviation, jnp.nan),
        n,
    )


def _mean(values: Array, kept: Array) -> tuple[Scalar, Scalar, Scalar]:
    n = jnp.sum(kept).astype(values.dtype)
    mean = jnp.sum(jnp.where(kept, values, 0)) / jnp.maximum(n, 1)
    square = jnp.sum(jnp.where(kept, values - mean, 0) ** 2) / jnp.maximum(n - 1, 1)
    some = square > 0
    return mean, jnp.sqrt(jnp.where(some, square, 1.0)) * some, n


def _quantiles(values: Array, used: Array, shares: tuple[float, ...]) -> Float[Array, "share"]:
    """Quantiles to 2^-24 of the range of the values."""
    wanted = jnp.asarray(shares, values.dtype) * jnp.sum(used)
    some = jnp.any(used)
    low = jnp.where(some, jnp.min(jnp.where(used, values, jnp.inf)), 0.0)
    high = jnp.where(some, jnp.max(jnp.where(used, values, -jnp.inf)), 0.0)
    # What does not count is above all.
    counted = jnp.where(used, values, jnp.inf)

    def halve(ends: tuple, _: None) -> tuple[tuple, None]:
        low, high = ends
        middle = (low + high) / 2
        below = jnp.sum(counted <= middle[:, None, None], axis=(1, 2)) < wanted
        return (jnp.where(below, middle, low), jnp.where(below, high, middle)), None

    ends = (jnp.full_like(wanted, low), jnp.full_like(wanted, high))
    (lows, highs), _ = lax.scan(halve, ends, None, length=_HALVINGS)
    return (lows + highs) / 2


@dataclass(frozen=True)
class MeasureLocalBackground:
    """Clipped mean of a ring about the centroid: `value`, `value_err`, `rms`, `n_pixels`.

    Of pixels on no excluded plane and not of the source. It is not taken off any flux. `flag`:
    fewer than ten pixels.

    - `inner`, `outer`: radii in units of the determinant radius of the PSF. The stamp cuts the
        ring.
    """

    inner: float = 7.0
    outer: float = 15.0

    def __post_init__(self):
        if not 0 <= self.inner < self.outer:
            raise ValueError(
                f"`inner` must be at least 0 and below `outer`; got {self.inner}, {self.outer}."
            )

    def __call__(
        self, stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
    ) -> dict[str, Array]:
        x, y = found["centroid"]["x"], found["centroid"]["y"]
        unit = found["psf_shape"]["radius"]
        height, width = stamp.image.shape
        square = steps_along(width, x) ** 2 + steps_along(height, y)[:, None] ** 2
        ring = (square >= (self.inner * unit) ** 2) & (square <= (self.outer * unit) ** 2)
        made = clipped_level(stamp.image, ring & stamp.good & ~stamp.footprint)
        return {**made._asdict(), "flag": made.n_pixels < _LEAST_PIXELS}
