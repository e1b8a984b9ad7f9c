"""What a source may look like, by what lies on the other side of its peak.

All on stamps of odd sides with the peak in the middle pixel, many at once.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Of a column sorted by rows and then by columns, those that may still be the median of 25: the
# others have 13 above or 13 below them (Knuth, The Art of Computer Programming 3, 5.3.3).
_MIDDLE = tuple(
    (i, j) for i in range(5) for j in range(5) if max((i + 1) * (j + 1), (5 - i) * (5 - j)) <= 13
)
# Exchanges that sort five.
_FIVE = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))


def symmetric_templates(
    image: Float[Array, "n h w"], inside: Bool[Array, "n h w"]
) -> Float[Array, "n h w"]:
    """The lesser of each pixel and the one opposite to it, max(0, min(I(c + d), I(c - d))).

    - `inside`: pixels of the parent; 0 where one of the two is outside.

    ??? cite
        Lupton (2005), "SDSS Image Processing: the Deblender", section 2.
    """
    both = inside & inside[:, ::-1, ::-1]
    # Outside of the parent anything may be, also NaN.
    known = jnp.where(both, image, 0)
    return jnp.maximum(jnp.minimum(known, known[:, ::-1, ::-1]), 0)


def median_smoothed(
    templates: Float[Array, "n h w"],
    half_width: Int[Array, "n"],
    half_height: Int[Array, "n"],
) -> Float[Array, "n h w"]:
    """Median of 5 x 5 pixels; the outermost two pixels are left as they are.

    - `half_width`, `half_height`: how far each template reaches from its peak; those of less than
        5 pixels along an axis are left alone.
    """
    height, width = templates.shape[1:]
    inner = (height - 4, width - 4)
    if min(inner) < 1:
        return templates
    rows = [templates[:, k : k + inner[0], :] for k in range(5)]
    # Columns are sorted once for the five windows that each is in.
    columns = _sorted(rows)
    ranks = [_sorted([one[:, :, k : k + inner[1]] for k in range(5)]) for one in columns]
    median = _median([ranks[i][j] for i, j in _MIDDLE])
    dy = np.abs(np.arange(height) - height // 2)[None, :, None]
    dx = np.abs(np.arange(width) - width // 2)[None, None, :]
    smoothed = (dy <= half_height[:, None, None] - 2) & (dx <= half_width[:, None, None] - 2)
    return jnp.where(smoothed, jnp.pad(median, ((0, 0), (2, 2), (2, 2))), templates)


def _sorted(values: list[Array]) -> list[Array]:
    ordered = list(values)
    for i, j in _FIVE:
        ordered[i], ordered[j] = (
            jnp.minimum(ordered[i], ordered[j]),
            jnp.maximum(ordered[i], ordered[j]),
        )
    return ordered


def _median(values: list[Array]) -> Array:
    """Of an odd number: the least and the largest of a bit more than half are let go, in turn."""
    n_held = len(values) // 2 + 2
    held, waiting = list(values[:n_held]), list(values[n_held:])
    while len(held) > 1:
        low, high, rest = held[0], held[1], held[2:]
        low, high = jnp.minimum(low, high), jnp.maximum(low, high)
        kept = []
        for one in rest:
            low, one = jnp.minimum(low, one), jnp.maximum(low, one)
            one, high = jnp.minimum(high, one), jnp.maximum(high, one)
            kept.append(one)
        held = kept + waiting[:1]
        waiting = waiting[1:]
    return held[0]
