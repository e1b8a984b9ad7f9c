"""Small star fields with truth for the tests of subtraction, drawn by numpy alone."""

import numpy as np

SIGMA_NEW, SIGMA_REFERENCE = 1.6, 1.1
SKY_NEW, SKY_REFERENCE = 400.0, 200.0


def gaussian_stamp(sigma, size=17, lean=0.0):
    """A PSF of unit sum, sampled at the pixels."""
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * ((x - lean * y) ** 2 + y**2) / sigma**2)
    return image / image.sum()


def stars(shape, positions, fluxes, sigma, lean=0.0):
    """Gaussian stars at any positions (x, y), sampled like `gaussian_stamp`."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for (px, py), flux in zip(positions, fluxes, strict=True):
        dx, dy = x - px, y - py
        image += flux * np.exp(-0.5 * ((dx - lean * dy) ** 2 + dy**2) / sigma**2)
    return image / (2 * np.pi * sigma**2)


def field(shape, n_stars=60, beta=0.7, shift=lambda x, y: (0 * x, 0 * y), seed=0, extra=()):
    """New image, reference and their variances, without sky; `extra`: (x, y, flux) only in new."""
    rng = np.random.default_rng(seed)
    places = rng.uniform([6, 6], [shape[1] - 7, shape[0] - 7], (n_stars, 2))
    fluxes = 10 ** rng.uniform(3.3, 4.7, n_stars)
    dx, dy = shift(places[:, 0], places[:, 1])
    moved = places + np.stack([dx, dy], axis=1)
    new = stars(shape, moved, beta * fluxes, SIGMA_NEW)
    for x, y, flux in extra:
        new += stars(shape, [(x, y)], [beta * flux], SIGMA_NEW)
    reference = stars(shape, places, fluxes, SIGMA_REFERENCE)
    variances = new + SKY_NEW, reference + SKY_REFERENCE
    images = [
        image + np.sqrt(variance) * rng.normal(size=shape)
        for image, variance in zip((new, reference), variances, strict=True)
    ]
    return *(a.astype(np.float32) for a in (*images, *variances)), places, fluxes
