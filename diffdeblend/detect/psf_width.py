"""How wide a PSF is, as detection needs it: one number. Host side."""

import numpy as np
from jaxtyping import ArrayLike, Float

_ROUNDS = 100


def determinant_radius(image: Float[ArrayLike, "y x"]) -> float:
    r"""$(I_{xx} I_{yy} - I_{xy}^2)^{1/4}$ of the adaptive moments of a PSF, in pixels.

    The moments are those of the elliptical Gaussian that matches the image under its own weight;
    for a Gaussian its sigma. The centre is the middle pixel.

    - `image`: odd in height and width.

    **Raises:** `ValueError` for an image without a positive core.

    ??? cite
        Bernstein & Jarvis (2002), AJ 123, 583, section 3.1.
    """
    values = np.asarray(image, float)
    ny, nx = values.shape
    y, x = np.mgrid[:ny, :nx] - np.array([ny // 2, nx // 2])[:, None, None]
    moments = np.array([1.5, 1.5, 0.0])
    for _ in range(_ROUNDS):
        xx, yy, xy = moments
        determinant = xx * yy - xy**2
        weight = np.exp(-0.5 * (yy * x**2 - 2 * xy * x * y + xx * y**2) / determinant) * values
        total = weight.sum()
        if not total > 0:
            break
        seen = np.array([(weight * part).sum() for part in (x * x, y * y, x * y)]) / total
        found = seen[0] * seen[1] - seen[2] ** 2
        if not (np.isfinite(seen).all() and found > 0 and min(seen[:2]) > 0):
            break
        # Inverses subtract: a Gaussian under a Gaussian weight.
        inverse = np.array([seen[1], seen[0], -seen[2]]) / found
        inverse -= np.array([yy, xx, -xy]) / determinant
        below = inverse[0] * inverse[1] - inverse[2] ** 2
        if not (below > 0 and inverse[0] > 0):
            break
        new = np.array([inverse[1], inverse[0], -inverse[2]]) / below
        settled = np.abs(new - moments).max() < 1e-7 * new[:2].max()
        moments = new
        if settled:
            return float((moments[0] * moments[1] - moments[2] ** 2) ** 0.25)
    raise ValueError("`image` of the PSF has no core whose width can be measured.")
