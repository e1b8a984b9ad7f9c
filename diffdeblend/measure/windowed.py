"""Centroids under a Gaussian window that follows the source."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from diffdeblend.measure.kron import MOST_PIXELS
from diffdeblend.measure.neighbours import Box, MaskMethod, mirror, pixels_of, rounded
from diffdeblend.measure.windows import Window
from diffdeblend.widths import FWHM_PER_SIGMA

Scalar = Float[Array, ""]

_LEAST_RADIUS = 0.5
_MOST_STEPS, _ENOUGH = 16, 1e-4
# The window reaches so many of its standard deviations.
_REACH = 4.0


class WindowedCentroid(NamedTuple):
    """Where a windowed centroid is.

    - `x`, `y`: in pixels of the window; NaN without a half-light radius.
    - `xx`, `yy`, `xy`: covariance of its error, in square pixels; NaN without light in the window.
    - `fallback`: it is not to be trusted: take the isophotal centroid.
    """

    x: Scalar
    y: Scalar
    xx: Scalar
    yy: Scalar
    xy: Scalar
    fallback: Bool[Array, ""]


def window_reach(half_light_radius: np.ndarray) -> np.ndarray:
    """How far from the first position windows reach, in pixels, with room for a few to wander."""
    sigma = 2 / FWHM_PER_SIGMA * np.maximum(half_light_radius, _LEAST_RADIUS)
    return _REACH * sigma + 3


def centroid_win(
    window: Window,
    x: Scalar,
    y: Scalar,
    half_light_radius: Scalar,
    cxx: Scalar,
    cyy: Scalar,
    cxy: Scalar,
    method: MaskMethod = "correct",
) -> WindowedCentroid:
    r"""Windowed centroid (SExtractor's XWIN_IMAGE, YWIN_IMAGE).

    $x \leftarrow x + 2 \sum w I dx / \sum w I$ with a Gaussian $w$ of
    $\sigma = 2 r_{50} / 2.3548$ within $4 \sigma$, until it moves by less than 1e-4 pixels, and at
    most 16 times.

    `fallback` is set where it is beyond one pixel in x and in y and outside the ellipse of one
    standard deviation; where the light, a second moment or their determinant under the window is
    negative; and where it is not finite.

    - `window`: has to hold pixels as far as `window_reach` from (x, y).
    - `x`, `y`: first position, the isophotal centroid, in pixels of the window.
    - `half_light_radius`: in pixels; at least 0.5 is used.
    - `cxx`, `cyy`, `cxy`: of the ellipse of one standard deviation, in pixels to the power of -2.

    ??? cite
        SExtractor manual, sect. "Windowed positional parameters"; Bertin & Arnouts (1996).
    """
    fine = jnp.isfinite(half_light_radius) & jnp.isfinite(x) & jnp.isfinite(y)
    half_light = jnp.maximum(jnp.where(fine, half_light_radius, 1.0), _LEAST_RADIUS)
    first_x, first_y = jnp.where(fine, x, 0.0), jnp.where(fine, y, 0.0)
    sigma = 2 / FWHM_PER_SIGMA * half_light
    reach = _REACH * sigma
    # This many pixels to either side of the middle one.
    side = (reach + 1.5).astype(int)
    fine &= (2 * side + 1) ** 2 <= jnp.maximum(window.ny * window.nx, MOST_PIXELS)
    h, w = window.data.shape

    def moments(place_x, place_y):
        middle_x, middle_y = rounded(place_x), rounded(place_y)
        box = Box(
            jnp.maximum(middle_x - side, -window.x0),
            jnp.maximum(middle_y - side, -window.y0),
            jnp.minimum(middle_x + side + 1, window.nx - window.x0),
            jnp.minimum(middle_y + side + 1, window.ny - window.y0),
        )
        mirrored = mirror(window, place_x, place_y) if method == "correct" else None
        pixels = pixels_of(window, mirrored, place_x, place_y, box, jnp.zeros_like(x), method)
        dx, dy = (jnp.arange(w) - place_x)[None], (jnp.arange(h) - place_y)[:, None]
        square = dx**2 + dy**2
        weight = jnp.where(square <= reach**2, jnp.exp(-square / (2 * sigma**2)), 0.0)
        overlaps = (box.x1 > box.x0) & (box.y1 > box.y0)
        return weight * pixels.data, (weight * pixels.error) ** 2, dx, dy, overlaps

    def step(state):
        place_x, place_y = state[0], state[1]
        light, variance, dx, dy, overlaps = moments(place_x, place_y)
        total = jnp.where(overlaps, jnp.sum(light), jnp.nan)
        mean_x, mean_y = jnp.sum(light * dx) / total, jnp.sum(light * dy) / total
        # A twelfth is the variance of a place within a pixel.
        pixel = jnp.sum(variance) / 12
        sums = (
            total,
            jnp.sum(light * dx**2) / total - mean_x**2,
            jnp.sum(light * dy**2) / total - mean_y**2,
            jnp.sum(light * dx * dy) / total - mean_x * mean_y,
            jnp.sum(variance * dx**2) + pixel,
            jnp.sum(variance * dy**2) + pixel,
            jnp.sum(variance * dx * dy),
        )
        place = place_x + 2 * mean_x, place_y + 2 * mean_y
        return *place, jnp.hypot(mean_x, mean_y), state[3] + 1, sums

    # NaN is no reason to go on.
    def unsettled(state):
        return (state[2] > _ENOUGH) & (state[3] < _MOST_STEPS)

    start = (first_x, first_y, jnp.ones_like(x), jnp.int32(0), (jnp.zeros_like(x),) * 7)
    place_x, place_y, _, _, sums = lax.while_loop(unsettled, step, start)
    total, xx, yy, xy, *errors = sums
    norm = 4 / jnp.where(total > 0, total, jnp.nan) ** 2
    errors = [norm * error for error in errors]
    off_x, off_y = first_x - place_x, first_y - place_y
    ellipse = cxx * off_x**2 + cxy * off_x * off_y + cyy * off_y**2
    lost = (off_x**2 > 1) & (off_y**2 > 1) & (ellipse > 1)
    lost |= (total <= 0) | (xx < 0) | (yy < 0) | (xx * yy - xy**2 < 0)
    lost |= ~(jnp.isfinite(place_x) & jnp.isfinite(place_y))
    values = (place_x, place_y, *errors)
    return WindowedCentroid(*(jnp.where(fine, v, jnp.nan) for v in values), fallback=lost | ~fine)
