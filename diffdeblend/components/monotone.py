"""Constraints on an image of a source: symmetric, and falling outwards."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def make_symmetric(image: Float[Array, "*part h w"]) -> Float[Array, "*part h w"]:
    """The nearest image that is the same at opposite points about its middle."""
    return 0.5 * (image + image[..., ::-1, ::-1])


def make_monotone(image: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """An image below `image` that falls outwards from the middle pixel.

    Square rings one pixel wide are walked outwards; a pixel is capped by its inner neighbours on
    the line to the middle, interpolated between the two that the line passes. Every ring is one
    vector operation on slices that are known beforehand.

    - `image`: shape `(h, w)`, both odd.
    """
    height, width = image.shape
    cy, cx = (height - 1) // 2, (width - 1) // 2
    flat = image.reshape(-1)
    for ring in range(1, max(cy, cx) + 1):
        here, inner, outer, share = _ring(height, width, ring)
        if here.size == 0:
            break
        cap = (1 - share) * flat[inner] + share * flat[outer]
        flat = flat.at[here].set(jnp.minimum(flat[here], cap))
    return flat.reshape(height, width)


def _ring(height: int, width: int, ring: int) -> tuple[np.ndarray, ...]:
    """Flat indices of a square ring, of its two inner neighbours, and the share of the second."""
    cy, cx = (height - 1) // 2, (width - 1) // 2
    dy, dx = np.meshgrid(np.arange(height) - cy, np.arange(width) - cx, indexing="ij")
    on_ring = np.maximum(np.abs(dy), np.abs(dx)) == ring
    dy, dx = dy[on_ring], dx[on_ring]
    # The point on the next ring inwards that lies on the line to the middle.
    y, x = dy * (ring - 1) / ring, dx * (ring - 1) / ring
    low_y, low_x = np.floor(np.abs(y)), np.floor(np.abs(x))
    share = np.where(np.abs(dy) == ring, np.abs(x) - low_x, np.abs(y) - low_y)
    step_y = np.where((np.abs(dy) != ring) & (share > 0), 1, 0)
    step_x = np.where((np.abs(dy) == ring) & (share > 0), 1, 0)
    sign_y, sign_x = np.sign(dy), np.sign(dx)

    def flat(ay: np.ndarray, ax: np.ndarray) -> np.ndarray:
        return ((cy + sign_y * ay) * width + cx + sign_x * ax).astype(np.int32)

    return (
        ((cy + dy) * width + cx + dx).astype(np.int32),
        flat(low_y, low_x),
        flat(low_y + step_y, low_x + step_x),
        share.astype(np.float32),
    )
