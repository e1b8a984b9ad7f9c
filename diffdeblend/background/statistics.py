"""Clipped statistics of the values in one box, in JAX: for `vmap`, and with gradients.

All take `values` of shape `(n,)` and `good`, true where a value is used. With no used value the
result is NaN. Gradients are those of the statistic of the values that are used: which these are is
held.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

# What turns a median absolute deviation into a standard deviation of a Gaussian.
MAD_TO_STD = 1.482602218505602


class Clipped(NamedTuple):
    """What clipping keeps.

    - `good`: which values, shape `(n,)`.
    - `n`: how many.
    - `low`, `high`: the bounds, closed.
    """

    good: Bool[Array, "n"]
    n: Int[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]


def clip(
    values: Float[Array, "n"],
    good: Bool[Array, "n"],
    sigma: float = 3.0,
    max_iterations: int | None = 10,
) -> Clipped:
    """Keep the values within `sigma` standard deviations of the median, again and again.

    The same as `astropy.stats.SigmaClip` with its defaults. What is not finite is not used.

    - `max_iterations`: None for as many as it takes.
    """
    values = jax.lax.stop_gradient(values)
    good = good & jnp.isfinite(values)
    # A sum of zero values far from zero would lose the digits that differ.
    ordered = jnp.sort(jnp.where(good, values, jnp.inf))
    centre = _median_of_sorted(ordered, jnp.sum(good))
    centre = jnp.where(jnp.isfinite(centre), centre, 0)
    shifted, ordered = jnp.where(good, values - centre, jnp.inf), ordered - centre

    def again(state: tuple) -> Array:
        _, _, _, changed, passes = state
        return changed if max_iterations is None else changed & (passes < max_iterations)

    def narrow(state: tuple) -> tuple:
        kept, _, _, _, passes = state
        n = jnp.sum(kept)
        # What is kept is a run of the sorted values.
        below = jnp.sum(good & (shifted < jnp.min(jnp.where(kept, shifted, jnp.inf))))
        median = _median_of_run(ordered, below, n)
        mean = jnp.sum(jnp.where(kept, shifted, 0)) / jnp.maximum(n, 1)
        away = jnp.where(kept, shifted - mean, 0)
        std = jnp.sqrt(jnp.sum(away * away) / jnp.maximum(n, 1))
        low, high = median - sigma * std, median + sigma * std
        new = kept & (shifted >= low) & (shifted <= high)
        left = jnp.sum(new)
        return new, low, high, (left < n) & (left > 0), passes + 1

    ends = jnp.asarray(-jnp.inf, values.dtype), jnp.asarray(jnp.inf, values.dtype)
    start = (good, *ends, jnp.any(good), jnp.asarray(0))
    _, low, high, _, _ = jax.lax.while_loop(again, narrow, start)
    kept = good & (shifted >= low) & (shifted <= high)
    return Clipped(kept, jnp.sum(kept), low + centre, high + centre)


def mean(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """Arithmetic mean."""
    n = jnp.sum(good)
    total = jnp.sum(jnp.where(good, values, 0))
    rough = total / jnp.maximum(n, 1)
    # Again about itself: single precision has no digits left for a small sky difference.
    rest = jnp.sum(jnp.where(good, values - jax.lax.stop_gradient(rough), 0)) / jnp.maximum(n, 1)
    return jnp.where(n > 0, jax.lax.stop_gradient(rough) + rest, jnp.nan)


def median(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """Median; the mean of the middle two of an even number."""
    ordered = jnp.sort(jnp.where(good, values, jnp.inf))
    return _median_of_sorted(ordered, jnp.sum(good))


def std(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """Standard deviation, by the number of values (not one less)."""
    n = jnp.sum(good)
    away = jnp.where(good, values - mean(values, good), 0)
    variance = jnp.sum(away * away) / jnp.maximum(n, 1)
    # The root of a zero has no derivative.
    root = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    return jnp.where(n > 0, root, jnp.nan)


def mode(
    values: Float[Array, "n"],
    good: Bool[Array, "n"],
    median_factor: float = 3.0,
    mean_factor: float = 2.0,
) -> Float[Array, ""]:
    """`median_factor * median - mean_factor * mean`; with the defaults also called MMM."""
    return median_factor * median(values, good) - mean_factor * mean(values, good)


def sextractor_mode(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """2.5 median - 1.5 mean; the median where the two differ by 0.3 standard deviations or more.

    Source: Bertin & Arnouts (1996), section 7.1, as photutils has it: the mean where all values
    are equal.
    """
    middle, average, spread = median(values, good), mean(values, good), std(values, good)
    flat = spread == 0
    crowded = jnp.abs(average - middle) / jnp.where(flat, 1, spread) >= 0.3
    found = jnp.where(crowded, middle, 2.5 * middle - 1.5 * average)
    return jnp.where(flat, average, found)


def mad(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """Median absolute deviation from the median."""
    return median(jnp.abs(values - median(values, good)), good)


def mad_std(values: Float[Array, "n"], good: Bool[Array, "n"]) -> Float[Array, ""]:
    """Median absolute deviation in units in which it is 1 for a Gaussian of width 1."""
    return MAD_TO_STD * mad(values, good)


def biweight_location(
    values: Float[Array, "n"], good: Bool[Array, "n"], c: float = 6.0
) -> Float[Array, ""]:
    """Tukey's biweight about the median. Source: Beers, Flynn & Gebhardt (1990), eq. 5."""
    away, weight, _ = _tukey(values, good, c)
    total = jnp.sum(weight**2)
    moved = jnp.sum(away * weight**2) / jnp.where(total > 0, total, 1)
    return median(values, good) + moved


def biweight_scale(
    values: Float[Array, "n"], good: Bool[Array, "n"], c: float = 9.0
) -> Float[Array, ""]:
    """Tukey's biweight scatter. Source: Beers, Flynn & Gebhardt (1990), eq. 9."""
    away, weight, u2 = _tukey(values, good, c)
    n = jnp.sum(good)
    above = n * jnp.sum(away**2 * weight**4)
    below = jnp.abs(jnp.sum(weight * (1 - 5 * u2)))
    root = jnp.where(above > 0, jnp.sqrt(jnp.where(above > 0, above, 1)), 0)
    return jnp.where(n > 0, root / jnp.where(below > 0, below, 1), jnp.nan)


def _tukey(values: Array, good: Array, c: float) -> tuple[Array, Array, Array]:
    """Distance from the median, 1 - u^2 where |u| < 1 else 0, and u^2, with u of Tukey."""
    width = mad(values, good)
    wide = width > 0
    away = jnp.where(good, values - median(values, good), 0)
    u2 = jnp.where(good & wide, (away / jnp.where(wide, c * width, 1)) ** 2, 2)
    return away, jnp.where(u2 < 1, 1 - u2, 0), jnp.where(u2 < 1, u2, 0)


def _median_of_sorted(ordered: Array, n: Array) -> Array:
    return _median_of_run(ordered, jnp.zeros_like(n), n)


def _median_of_run(ordered: Array, first: Array, n: Array) -> Array:
    """Median of `n` sorted values that begin at `first`."""
    last = ordered.size - 1
    low = jnp.take(ordered, jnp.minimum(first + jnp.maximum(n - 1, 0) // 2, last), mode="clip")
    high = jnp.take(ordered, jnp.minimum(first + n // 2, last), mode="clip")
    return jnp.where(n > 0, 0.5 * (low + jnp.where(n > 0, high, low)), jnp.nan)
