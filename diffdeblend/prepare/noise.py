"""How much noise each pixel has: that of the sky as measured, and the photons of the sources."""

import numpy as np
from jaxtyping import Float

# Weight of each neighbour along x, then along y: a Gaussian of 0.7 pixels, as narrow as does.
_SIDE = 0.245


def gain_of_sky(level: float, rms: float, read_noise: float | None = None) -> float | None:
    r"""Electrons per unit of flux for which the sky's noise is that of its photons, or None.

    $\mathrm{rms}^2 = \mathrm{level}/g + (\mathrm{read\ noise}/g)^2$, solved for g. None where the
    sky is not above zero, as in frames that have lost it, or no gain gives such little noise.

    - `level`, `rms`: of the sky, in the unit of the image. A bias left in it makes g too large.
    - `read_noise`: electrons; None for none.
    """
    if not (level > 0 and rms > 0):
        return None
    # A sky whose photons alone are fewer than 3 sigma's worth is no sky but what is left of one.
    if level < 3 * rms:
        return None
    other = 0.0 if read_noise is None else float(read_noise)
    return float((level + np.sqrt(level**2 + 4 * rms**2 * other**2)) / (2 * rms**2))


def pixel_variance(
    residual: Float[np.ndarray, "y x"],
    rms: Float[np.ndarray, "y x"],
    gain: float | None,
    *,
    smooth: bool = True,
) -> Float[np.ndarray, "y x"]:
    """Variance of each pixel: of the sky, plus the photons of the sources over the gain.

    - `residual`: image without its sky, finite. `rms`: noise of the sky.
    - `gain`: electrons per unit of flux; None leaves the sources' photons out.
    - `smooth`: take the sources from the image smoothed by 0.7 pixels. From the pixels themselves
        those that are low by chance would weigh more, and fitted fluxes come out low.
    """
    variance = np.square(rms, dtype=np.float32)
    if gain is None:
        return variance
    light = residual
    if smooth:
        light = _smoothed(_smoothed(light.T).T)
    variance += np.maximum(light, 0) * np.float32(1 / gain)
    return variance


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Along the first axis, reflected at the ends. Slices: a general filter takes four times."""
    out = values * values.dtype.type(1 - 2 * _SIDE)
    side = values * values.dtype.type(_SIDE)
    out[1:] += side[:-1]
    out[:-1] += side[1:]
    out[0] += side[0]
    out[-1] += side[-1]
    return out
