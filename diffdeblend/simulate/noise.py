"""The noise of counted photons, independent from pixel to pixel or as in coadds."""

import numpy as np
from jaxtyping import Float

from diffdeblend.noise import correlated_noise

NOISES = ("all", "background", "galaxy", "none")

# Below so many electrons counts are drawn from Poisson's law itself; from there on a Gaussian has
# its skewness right to 0.03 and takes a tenth of the time.
_MANY = 1000.0


def noise_rate(
    image: Float[np.ndarray, "*n band y x"], sky: Float[np.ndarray, "band"], noise: str
) -> Float[np.ndarray, "*n band y x"]:
    """Electrons whose Poisson noise a pixel has: its variance.

    - `image`: noiseless light in electrons, the sky taken off. Negative light has no noise.
    - `sky`: electrons of the sky in a pixel of each band.
    - `noise`: `"all"`, `"background"`, `"galaxy"` (of the sources alone) or `"none"`.

    **Raises:** `ValueError` for another word.
    """
    if noise not in NOISES:
        raise ValueError(f"`noise` must be one of {', '.join(NOISES)}; got {noise!r}.")
    rate = np.zeros(image.shape, dtype=np.float32)
    if noise in ("all", "galaxy"):
        np.maximum(image, 0, out=rate, casting="same_kind")
    if noise in ("all", "background"):
        rate += np.asarray(sky, dtype=np.float32)[:, None, None]
    return rate


def draw_noise(
    rate: Float[np.ndarray, "band y x"],
    rng: np.random.Generator,
    correlation: Float[np.ndarray, "band h w"] | None = None,
    *,
    dip: float = 1e-3,
) -> Float[np.ndarray, "band y x"]:
    """Noise of zero mean and of variance `rate`.

    Poisson's law minus its mean where fewer than 1000 electrons are expected, Gaussian elsewhere.

    - `correlation`: autocovariance of the noise in units of its variance, as in `Exposure`; the
        noise is then Gaussian in every pixel, as it is the sum of many.
    - `dip`: how far the power of the correlation may fall below zero, in units of its peak; what
        does is taken for nothing. Correlations that were measured need some.

    **Raises:** `ValueError` if the correlation is not one stamp a band with 1 in its middle, or
    belongs to no noise at all: its power spectrum is negative somewhere.
    """
    if correlation is not None:
        return np.sqrt(rate) * correlated_noise(rate.shape, correlation, rng, dip=dip)
    noise = rng.standard_normal(rate.shape, dtype=np.float32)
    noise *= np.sqrt(rate)
    # Pixel by pixel, so that a band with a dark sky and a bright star has both laws.
    few = rate < _MANY
    if few.any():
        noise[few] = rng.poisson(rate[few]) - rate[few]
    return noise
