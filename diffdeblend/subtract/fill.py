"""Missing pixels filled, so that filters find no holes: first guesses from around them."""

import numpy as np
from jaxtyping import Bool, Float

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
