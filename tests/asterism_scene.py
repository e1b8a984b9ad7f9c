"""A stamp like that of ASTErIsM's tutorial: a blend of two galaxies and two faint sources.

Footprints are near those printed there, 470, 101 and 27 pixels: here 470, 101 and 30.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

SKY, NOISE = 0.25, 0.0594
# The blend first: x, y, half-light radius, Sersic index, axis ratio, angle, flux.
SOURCES = (
    (52.3, 47.6, 3.4, 1.5, 0.75, 0.4, 380.0),
    (42.4, 55.5, 3.0, 1.0, 0.80, 2.0, 140.0),
    (22.7, 21.2, 4.4, 1.0, 0.70, 1.2, 41.0),
    (77.6, 71.4, 1.3, 1.0, 0.90, 0.0, 11.0),
)


@dataclass(frozen=True)
class Scene:
    """An image and the centres of its sources, `(source, 2)` in x and y, in pixels."""

    image: np.ndarray
    centres: np.ndarray


def clean_scene() -> np.ndarray:
    """Without noise: 99 x 99 pixels, Sersic profiles seen through a Gaussian of 1.2 pixels."""
    fine = 5
    side = (np.arange(99 * fine) + 0.5) / fine - 0.5
    image = np.full((99, 99), SKY)
    for x, y, radius, index, ratio, angle, flux in SOURCES:
        dx, dy = side - x, side[:, None] - y
        along = dx * np.cos(angle) + dy * np.sin(angle)
        across = -dx * np.sin(angle) + dy * np.cos(angle)
        b = 2 * index - 1 / 3 + 0.009876 / index
        light = np.exp(-b * (np.hypot(along, across / ratio) / radius) ** (1 / index))
        binned = light.reshape(99, fine, 99, fine).sum(axis=(1, 3))
        image += flux * gaussian_filter(binned / binned.sum(), 1.2)
    return image


def noisy_scene(seed: int) -> Scene:
    """With Gaussian noise."""
    noise = np.random.default_rng(seed).normal(0, NOISE, (99, 99))
    return Scene(clean_scene() + noise, np.array([source[:2] for source in SOURCES]))
