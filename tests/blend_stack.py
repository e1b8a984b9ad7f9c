"""Stamps full of faint blends, and what comes of them laid under one another as one image."""

import numpy as np
from scipy.ndimage import gaussian_filter


def blend_stack(n_stamps: int, shape=(48, 44), seed: int = 0, n_sources: int = 9) -> np.ndarray:
    """Stars and galaxies on smoothed noise of about 1, shape `(stamp, y, x)`, float64."""
    rng = np.random.default_rng(seed)
    stack = np.zeros((n_stamps, *shape))
    for width, weight in ((1.4, 1.0), (2.6, 2.0)):
        points = np.zeros_like(stack)
        stamp = np.repeat(np.arange(n_stamps), n_sources)
        y, x = (rng.integers(0, n, len(stamp)) for n in shape)
        np.add.at(points, (stamp, y, x), weight * 30 * rng.pareto(1.2, len(stamp)))
        stack += gaussian_filter(points, (0, width, width), mode="constant")
    noise = gaussian_filter(rng.normal(size=stack.shape), (0, 1.2, 1.2))
    return stack + noise / noise.std()


def tall(stack: np.ndarray) -> np.ndarray:
    """The stamps of a stack under one another, with a row of 0 between them."""
    framed = np.pad(stack, ((0, 0), (0, 1), (0, 0)))
    return framed.reshape(-1, stack.shape[2])


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the same pixels are together, and the same in none."""
    pairs = np.unique(np.stack([one.reshape(-1), other.reshape(-1)]), axis=1)
    apart = [len(np.unique(labels)) == pairs.shape[1] for labels in pairs]
    return all(apart) and np.array_equal(one == 0, other == 0)
