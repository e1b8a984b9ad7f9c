r"""An image brought onto another's pixels where the two are a fraction of a pixel apart.

A shift by a field $\delta(x)$ is $\exp(-\delta \cdot \nabla)$, summed as a power series with a long
antisymmetric stencil for the derivative. What such a stencil does to a wave is purely imaginary, so
that the series is a rotation of phases: the noise stays white, which no interpolation by weights
does. Phases come out right up to 0.8 of the Nyquist frequency.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Taps on either side, and terms of the series: for half a pixel the noise keeps its power to 1 %.
_REACH = 6
_ORDER = 5
# The stencil is fitted up to this share of the Nyquist frequency.
_BAND = 0.85


def warp(
    image: Float[Array, "y x"],
    dx: Float[Array, "y x"] | Float[Array, ""] | float,
    dy: Float[Array, "y x"] | Float[Array, ""] | float,
) -> Float[Array, "y x"]:
    r"""The image moved by a smooth field: out(x, y) = image(x - dx, y - dy).

    - `dx`, `dy`: in pixels, maps `(y, x)` or numbers, of at most half a pixel; where they are
        larger, take a whole or mean shift off first. They must hardly change from one pixel to
        the next, as what is left of a registration does. Differentiable.

    Beyond the border the image goes on as its mirror image. Where pixels are unknown (NaN), so is
    what lies within 6 pixels.
    """
    return _warped(_warped(image, dx, 1), dy, 0)


def _warped(image: Array, shift: Array | float, axis: int) -> Array:
    """exp(-shift d/dx) of an image, by Horner's rule."""
    shift = jnp.asarray(shift, image.dtype)

    # A loop: it is compiled once.
    def term(k: Array, total: Array) -> Array:
        power = (_ORDER - k).astype(image.dtype)
        return image - (shift / power) * derivative(total, axis)

    return jax.lax.fori_loop(0, _ORDER, term, image)


def derivative(image: Float[Array, "y x"], axis: int) -> Float[Array, "y x"]:
    """Slope a pixel along an axis, of what has no power near the Nyquist frequency."""
    reach = min(_REACH, image.shape[axis] - 1)
    widths = [(0, 0), (0, 0)]
    widths[axis] = (reach, reach)
    padded = jnp.pad(image, widths, mode="reflect")
    total = jnp.zeros_like(image)
    for step, tap in enumerate(_taps(reach), start=1):
        after = _slice(padded, reach + step, image.shape[axis], axis)
        before = _slice(padded, reach - step, image.shape[axis], axis)
        total = total + tap * (after - before)
    return total


def _slice(image: Array, start: int, length: int, axis: int) -> Array:
    rows = slice(start, start + length)
    return image[rows] if axis == 0 else image[:, rows]


def _taps(reach: int) -> list[float]:
    """Weights of the stencil: sum_j 2 w_j sin(j k) is nearest to k over the band, in squares."""
    if reach == 0:
        return []
    k = np.linspace(0, _BAND * np.pi, 400)
    waves = 2 * np.sin(k[:, None] * np.arange(1, reach + 1))
    # Light has most of its power at low frequencies.
    weight = np.exp(-0.5 * k**2) + 1e-3
    return np.linalg.lstsq(waves * weight[:, None], k * weight, rcond=None)[0].tolist()
