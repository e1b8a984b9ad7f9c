"""The image of a hundred Gaussians of photutils' guide on segmentation, from numpy alone."""

import numpy as np


def hundred_gaussians(variant: str = "doc") -> np.ndarray:
    """300 x 500 pixels on a sky of 5 with noise of 2, float64.

    - `variant`: "doc" as in the guide (photutils before 1.13); "v3" as since then: other noise,
        and each source ends at six standard deviations.
    """
    rng = np.random.RandomState(12345)
    flux = rng.uniform(500, 1000, 100)
    x_mean, y_mean = rng.uniform(0, 500, 100), rng.uniform(0, 300, 100)
    x_sigma, y_sigma = rng.uniform(1, 5, 100), rng.uniform(1, 5, 100)
    theta = rng.uniform(0, 2 * np.pi, 100)
    y, x = np.mgrid[:300, :500].astype(float)
    image = np.full(x.shape, 0.0)
    for k in range(100):
        cos, sin = np.cos(theta[k]), np.sin(theta[k])
        along = 0.5 * ((cos / x_sigma[k]) ** 2 + (sin / y_sigma[k]) ** 2)
        across = 0.5 * ((sin / x_sigma[k]) ** 2 + (cos / y_sigma[k]) ** 2)
        mixed = 0.5 * np.sin(2 * theta[k]) * (x_sigma[k] ** -2.0 - y_sigma[k] ** -2.0)
        dx, dy = x - x_mean[k], y - y_mean[k]
        peak = flux[k] / (2 * np.pi * x_sigma[k] * y_sigma[k])
        light = peak * np.exp(-(along * dx**2 + mixed * dx * dy + across * dy**2))
        if variant == "v3":
            reach_x = 6 * np.hypot(x_sigma[k] * cos, y_sigma[k] * sin)
            reach_y = 6 * np.hypot(x_sigma[k] * sin, y_sigma[k] * cos)
            light[(np.abs(dx) > reach_x + 0.5) | (np.abs(dy) > reach_y + 0.5)] = 0
        image += light
    if variant == "v3":
        noise = np.random.default_rng(0).normal(0, 2, x.shape)
    else:
        noise = np.random.RandomState(12345).normal(0, 2, x.shape)
    return image + 5.0 + noise
