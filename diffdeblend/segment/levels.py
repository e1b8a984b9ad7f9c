"""Levels between the lowest and the highest pixel of a source."""

import numpy as np
from jaxtyping import Bool, Float, Int

MODES = ("exponential", "linear", "sinh")
_SINH = 0.25


def source_levels(
    low: Float[np.ndarray, "parent"], high: Float[np.ndarray, "parent"], n_levels: int, mode: str
) -> tuple[Float[np.ndarray, "parent level"], Bool[np.ndarray, "parent"]]:
    """Rising levels of each source without its ends; and where "sinh" stands in for "exponential".

    With $u = k/(n+1)$: "linear" $l + (h-l)u$, "exponential" $l (h/l)^u$, "sinh"
    $l + (h-l)\\sinh(4u)/\\sinh 4$. Exponential steps need a positive lowest pixel.

    Rounded as photutils does, in the dtype of the pixels: which pixels are above a level is then
    the same.
    """
    linear = np.linspace(low, high, n_levels + 2, axis=1)
    at_fault = (low <= 0) & (mode == "exponential")
    if mode == "linear":
        return linear[:, 1:-1], at_fault
    low, height = low[:, None], (high - low)[:, None]
    u = (linear - low) / height
    levels = np.empty(u.shape)
    bent = at_fault if mode == "exponential" else np.ones(len(low), bool)
    straight = ~bent
    start = low[straight]
    levels[straight] = start * (high[straight, None] / start) ** u[straight]
    levels[bent] = np.sinh(u[bent] / _SINH) / np.sinh(1 / _SINH) * height[bent] + low[bent]
    return levels[:, 1:-1], at_fault


def count_levels_below(
    value: Float[np.ndarray, "pixel"],
    parent: Int[np.ndarray, "pixel"],
    levels: Float[np.ndarray, "parent level"],
) -> Int[np.ndarray, "pixel"]:
    """How many levels of its parent a pixel is above. By halving: all levels at once need much."""
    n_levels = levels.shape[1]
    depth = n_levels.bit_length()
    padded = np.full((len(levels), 1 << depth), np.inf)
    padded[:, :n_levels] = levels
    flat = padded.reshape(-1)
    below = parent.astype(np.int64) << depth
    for step in (1 << np.arange(depth)[::-1]).tolist():
        below += step * (flat[below + (step - 1)] < value)
    return (below - (parent.astype(np.int64) << depth)).astype(np.int32)
