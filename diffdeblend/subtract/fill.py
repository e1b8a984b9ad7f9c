"""Missing pixels filled, so that filters find no holes: first guesses from around them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_LAYERS = 40


def fill_holes(
    image: Float[np.ndarray, "y x"], missing: Bool[np.ndarray, "y x"], layers: int = _LAYERS
) -> Float[np.ndarray, "y x"]:
    """The image with missing pixels replaced by means of known ones, from their border inwards.

    Each layer is the mean of its known neighbours among eight; after so many layers the rest
    is 0, the sky. Values of missing pixels are not looked at.
    """
    ny, nx = image.shape
    filled = np.pad(np.where(missing, image.dtype.type(0), image), 1)
    known = np.pad(~missing, 1)
    y, x = (place + 1 for place in np.nonzero(missing))
    for _ in range(layers):
        if not y.size:
            break
        total = np.zeros(y.size, image.dtype)
        count = np.zeros(y.size, image.dtype)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                seen = known[y + dy, x + dx]
                total += np.where(seen, filled[y + dy, x + dx], 0)
                count += seen
        edge = count > 0
        filled[y[edge], x[edge]] = total[edge] / count[edge]
        known[y[edge], x[edge]] = True
        y, x = y[~edge], x[~edge]
    return filled[1 : ny + 1, 1 : nx + 1]


def fill_layers(
    image: Float[Array, "y x"], missing: Bool[Array, "y x"], layers: int = _LAYERS
) -> Float[Array, "y x"]:
    """`fill_holes` under `jax.jit`: holes filled from their border inwards, by means of neighbours.

    Each layer is the mean of its known neighbours among eight; after so many layers the rest
    is 0, the sky. Values of missing pixels are not looked at.
    """

    def around(values: Array) -> Array:
        for axis in (0, 1):
            grown = jnp.pad(values, [(1, 1) if k == axis else (0, 0) for k in (0, 1)])
            size = values.shape[axis]
            low, here, high = (
                jax.lax.slice_in_dim(grown, k, k + size, axis=axis) for k in range(3)
            )
            values = low + here + high
        return values

    def layer(_: int, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        filled, known = carried
        total, count = around(filled), around(known)
        edge = (known == 0) & (count > 0)
        filled = jnp.where(edge, total / jnp.maximum(count, 1), filled)
        return filled, jnp.where(edge, 1, known)

    start = jnp.where(missing, 0, image), (~missing).astype(image.dtype)
    # Deeper than the stamp no hole is.
    layers = min(layers, max(image.shape))
    return jax.lax.fori_loop(0, layers, layer, start)[0]
