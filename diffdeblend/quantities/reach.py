"""Whether what a measurement looks at is all there."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.sums import steps_along

Scalar = Float[Array, ""]
Flag = Bool[Array, ""]


def leaves_stamp(
    shape: tuple[int, int], x: Scalar, y: Scalar, half_x: Scalar | float, half_y: Scalar | float
) -> Flag:
    """Whether a box (x +- half_x, y +- half_y) leaves the pixels of a stamp, or is not known."""
    inside = (x - half_x >= -0.5) & (x + half_x <= shape[1] - 0.5)
    inside &= (y - half_y >= -0.5) & (y + half_y <= shape[0] - 0.5)
    return ~inside


def leaves_image(
    stamp: SourceStamp, x: Scalar, y: Scalar, half_x: Scalar | float, half_y: Scalar | float
) -> Flag:
    """Whether a box (x +- half_x, y +- half_y) leaves the image, as far as the stamp shows it."""
    height, width = stamp.image.shape
    columns, rows = jnp.any(stamp.inside, axis=0), jnp.any(stamp.inside, axis=1)
    over = []
    for there, middle, half, length in ((columns, x, half_x, width), (rows, y, half_y, height)):
        # A box that ends in a pixel has that pixel on it.
        away = jnp.abs(steps_along(length, middle)) - 0.5
        over.append(jnp.any((away < half - 1e-6) & ~there))
    known = jnp.isfinite(x) & jnp.isfinite(y)
    return over[0] | over[1] | ~known | ~jnp.any(stamp.inside)
