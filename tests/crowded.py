"""A crowded field of stars and galaxies, small enough for a test."""

import numpy as np
from scipy.ndimage import gaussian_filter


def crowded_field(shape=(512, 512), n_sources: int = 620, seed: int = 1) -> np.ndarray:
    """A sky of 1000 with photon noise; Gaussians of 1.3 to 4 pixels, n(> f) as 1 / f. float32."""
    rng = np.random.default_rng(seed)
    flux = 1500 / (1 - rng.random(n_sources) * (1 - 1500 / 3e5))
    x, y = rng.uniform(0, shape[1], n_sources), rng.uniform(0, shape[0], n_sources)
    width = np.where(rng.random(n_sources) < 0.7, 1.3, rng.uniform(1.5, 4, n_sources))
    image = np.zeros(shape)
    for w in np.unique(np.round(width, 1)):
        chosen = np.round(width, 1) == w
        points = np.zeros(shape)
        np.add.at(points, (y[chosen].astype(int), x[chosen].astype(int)), flux[chosen])
        image += gaussian_filter(points, w, mode="constant")
    return rng.poisson(image + 1000).astype(np.float32)
