"""Light in ellipses that grow with the source: Kron photometry."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.measure.neighbours import (
    MaskMethod,
    Pixels,
    box_around,
    mirror,
    pixels_of,
)
from diffdeblend.measure.overlap import columns_of, ellipse_of, line_corners, line_of, strip_share
from diffdeblend.measure.windows import Window

Scalar = Float[Array, ""]
Flag = Bool[Array, ""]

# The first moment is taken in an ellipse of so many standard deviations; a larger radius is absurd.
KRON_REACH = 6.0
# Boxes with more pixels than the image and than this are not measured.
MOST_PIXELS = 1_000_000


class Aperture(NamedTuple):
    """Light in one aperture. Scalars; NaN where it has no pixel that counts.

    - `flux`, `flux_err`: weighted sum without the local background, and its error, the root of the
        sum of squared weights times variances; in the unit of the data.
    - `no_overlap`, `partial_overlap`: the aperture lies outside the image, or partly.
    - `bad_pixels`: pixels in it are masked or not finite.
    - `neighbor_pixels`: pixels in it belong to other sources and were masked or corrected.
    - `uncorrected_pixels`: of these, some had no mirror pixel and count as 0.
    """

    flux: Scalar
    flux_err: Scalar
    no_overlap: Flag
    partial_overlap: Flag
    bad_pixels: Flag
    neighbor_pixels: Flag
    uncorrected_pixels: Flag


class Kron(NamedTuple):
    """Kron photometry of one source.

    - `kron_radius_measured`: first moment in units of the source's own ellipse; NaN where the light
        in it, or its first moment, is not positive.
    - `kron_radius`: what is used: at least `kron_params[1]`, 0 where the least circle is used, NaN
        above 6.
    - `semimajor_axis`, `semiminor_axis`: of the aperture, in pixels.
    - `aperture`: the light in it.
    - `undefined`: there is no aperture, or it is absurdly large.
    - `minimum_radius`: the least radius or the least circle is used.
    """

    kron_radius_measured: Scalar
    kron_radius: Scalar
    semimajor_axis: Scalar
    semiminor_axis: Scalar
    aperture: Aperture
    undefined: Flag
    minimum_radius: Flag


def kron_photometry(
    window: Window,
    x: Scalar,
    y: Scalar,
    a: Scalar,
    b: Scalar,
    theta: Scalar,
    local_background: Scalar,
    method: MaskMethod = "correct",
    kron_params: tuple[float, ...] = (2.5, 1.4, 0.0),
) -> Kron:
    r"""Kron radius $k = \sum r I / \sum I$, and the light in the ellipse `(s k a, s k b)`.

    $r$ is the elliptical radius; the sums go over pixels whose centre is in the ellipse of six
    standard deviations, without taking off the local background. A sum that is not positive gives
    the least radius.

    - `window`: has to hold that ellipse, and the aperture: of other apertures, those with
        `s k > 6`, see `larger_than_window`.
    - `x`, `y`: centroid, in pixels of the window.
    - `a`, `b`, `theta`: standard deviations in pixels along the axes, and the angle from the x axis
        to the larger one in radians.
    - `kron_params`: $s$, least $k$, and the radius of the least circle, which replaces the ellipse
        where $s k \sqrt{ab}$ is not larger.

    ??? cite
        Kron (1980), ApJS 43, 305; Bertin & Arnouts (1996), A&AS 117, 393.
    """
    mirrored = mirror(window, x, y) if method == "correct" else None
    numerator, denominator = _first_moment(window, mirrored, x, y, a, b, theta, method)
    measured, radius, least = kron_radius(numerator, denominator, a, b, kron_params)
    major, minor = kron_axes(radius, a, b, kron_params)
    aperture = aperture_photometry(
        window, x, y, major, minor, theta, local_background, method, mirrored=mirrored
    )
    undefined = ~_defined(window, x, y, major, minor, theta)
    return Kron(measured, radius, major, minor, aperture, undefined, least)


def kron_radius(
    numerator: Scalar, denominator: Scalar, a: Scalar, b: Scalar, kron_params: tuple[float, ...]
) -> tuple[Scalar, Scalar, Flag]:
    """Measured and used radius of the two sums, and whether a least size is used."""
    scale, least, *circle = kron_params
    positive = (numerator > 0) & (denominator > 0)
    # NaN sums are not `positive`, but neither are they known.
    known = jnp.isfinite(numerator) & jnp.isfinite(denominator)
    ratio = jnp.where(positive, numerator, 1.0) / jnp.where(positive, denominator, 1.0)
    measured = jnp.where(positive & known, ratio, jnp.nan)
    used = jnp.where(positive, ratio, least)
    used = jnp.where(known & (used <= KRON_REACH), jnp.maximum(used, least), jnp.nan)
    at_least = known & (~positive | (ratio <= least))
    if circle:
        small = scale * used * jnp.sqrt(a * b) <= circle[0]
        used = jnp.where(small, 0.0, used)
        at_least |= small
    return measured, used, at_least


def kron_axes(
    radius: Array, a: Array, b: Array, kron_params: tuple[float, ...]
) -> tuple[Array, Array]:
    """Semi-axes of the aperture, of sources of any number; a circle where the radius is 0."""
    scale, circle = kron_params[0], kron_params[2] if len(kron_params) == 3 else 0.0
    least = radius == 0
    return (
        jnp.where(least, circle, scale * radius * a),
        jnp.where(least, circle, scale * radius * b),
    )


def aperture_photometry(
    window: Window,
    x: Scalar,
    y: Scalar,
    major: Scalar,
    minor: Scalar,
    theta: Scalar,
    local_background: Scalar,
    method: MaskMethod = "correct",
    *,
    mirrored=None,
) -> Aperture:
    """Light in an ellipse, with exact areas of pixels; arguments as for `kron_photometry`.

    - `window`: has to hold the pixels of the ellipse that are in the image.
    - `major`, `minor`: semi-axes in pixels.
    - `mirrored`: `mirror(window, x, y)`, where it is at hand.
    """
    defined = _defined(window, x, y, major, minor, theta)
    reach_x, reach_y = reach(major, minor, theta)
    box = box_around(window, x, y, reach_x, reach_y)
    if method == "correct" and mirrored is None:
        mirrored = mirror(window, x, y)
    pixels = pixels_of(window, mirrored, x, y, box, local_background, method)
    sums = ellipse_sums(window, pixels, x, y, major, minor, theta)
    return _judged(window, sums, x, y, reach_x, reach_y, defined)


def ellipse_sums(
    window: Window,
    pixels: Pixels,
    x: Scalar,
    y: Scalar,
    major: Scalar,
    minor: Scalar,
    theta: Scalar,
) -> tuple[Scalar, Scalar, Int[Array, ""]]:
    """Weighted light, its variance, and the kinds of pixels met, as bits.

    Row by row: XLA on CPU would compute the weights anew for each of the sums, and each of the
    corners for its four pixels; it was five times slower.
    """
    h, w = window.data.shape
    ellipse = ellipse_of(x, y, major, minor, theta)
    columns = columns_of(ellipse, w)

    def edge(y: Scalar):
        line = line_of(ellipse, y)
        return line, line_corners(line, columns)

    kinds = (pixels.used, ~window.good, pixels.neighbours, pixels.uncorrected)
    bits = [of_kind.astype(jnp.int32) << (i + 1) for i, of_kind in enumerate(kinds)]
    # A window of a small image has places that are no pixels of it.
    in_rows = (jnp.arange(h) + window.y0 >= 0) & (jnp.arange(h) + window.y0 < window.ny)
    in_columns = (jnp.arange(w) + window.x0 >= 0) & (jnp.arange(w) + window.x0 < window.nx)
    kind = (1 + bits[0] + bits[1] + bits[2] + bits[3]) * (in_rows[:, None] & in_columns)

    def row(state, inputs):
        low, flux, variance, met = state
        top, data, error, kind = inputs
        high = edge(top)
        weight = strip_share(ellipse, low, high, columns)
        flux += weight * data
        variance += (weight * error) ** 2
        met |= jnp.where(weight > 0, kind, 0)
        return (high, flux, variance, met), None

    nothing = jnp.zeros_like(pixels.data[0])
    start = (edge(jnp.full_like(x, -0.5)), nothing, nothing, jnp.zeros_like(kind[0]))
    inputs = (jnp.arange(h) + jnp.full_like(x, 0.5), pixels.data, pixels.error, kind)
    (_, flux, variance, met), _ = lax.scan(row, start, inputs)
    return jnp.sum(flux), jnp.sum(variance), lax.reduce(met, 0, lax.bitwise_or, (0,))


def _judged(window: Window, sums, x, y, reach_x, reach_y, defined: Flag) -> Aperture:
    flux, variance, met = sums
    inside, some, bad, neighbours, uncorrected = (((met >> i) & 1) > 0 for i in range(5))
    flux = jnp.where(defined & some, flux, jnp.nan)
    # Where there is no error image it is 0, and the root has no derivative there.
    root = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    flux_err = jnp.where(defined & some, jnp.where(variance > 0, root, 0.0), jnp.nan)
    x_, y_ = x + window.x0, y + window.y0
    out = (x_ - reach_x < -0.5) | (x_ + reach_x > window.nx - 0.5)
    out |= (y_ - reach_y < -0.5) | (y_ + reach_y > window.ny - 0.5)
    return Aperture(
        flux,
        flux_err,
        no_overlap=defined & ~inside,
        partial_overlap=defined & inside & out,
        bad_pixels=defined & bad,
        neighbor_pixels=defined & neighbours,
        uncorrected_pixels=defined & uncorrected,
    )


def reach(major: Scalar, minor: Scalar, theta: Scalar) -> tuple[Scalar, Scalar]:
    """Half the width and height of an ellipse."""
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    # The root of 0 has no derivative.
    square_x = (major * cos) ** 2 + (minor * sin) ** 2
    square_y = (major * sin) ** 2 + (minor * cos) ** 2
    reach_x, reach_y = (
        jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), s) for s in (square_x, square_y)
    )
    return reach_x, reach_y


def _defined(window: Window, x, y, major, minor, theta) -> Flag:
    fine = (major > 0) & (minor > 0)
    for value in (x, y, major, minor, theta):
        fine &= jnp.isfinite(value)
    reach_x, reach_y = reach(major, minor, theta)
    most = jnp.maximum(window.ny * window.nx, MOST_PIXELS)
    return fine & ((2 * reach_x + 1) * (2 * reach_y + 1) <= most)


def _first_moment(window, mirrored, x, y, a, b, theta, method) -> tuple[Scalar, Scalar]:
    fine = (a > 0) & (b > 0)
    for value in (x, y, a, b, theta):
        fine &= jnp.isfinite(value)
    reach_x, reach_y = reach(KRON_REACH * a, KRON_REACH * b, theta)
    box = box_around(window, x, y, reach_x, reach_y)
    pixels = pixels_of(window, mirrored, x, y, box, jnp.zeros_like(x), method)
    h, w = window.data.shape
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    a, b = jnp.where(fine, a, 1.0), jnp.where(fine, b, 1.0)
    cxx, cyy = (cos / a) ** 2 + (sin / b) ** 2, (sin / a) ** 2 + (cos / b) ** 2
    cxy = 2 * cos * sin * (1 / a**2 - 1 / b**2)
    dx, dy = jnp.arange(w) - x, jnp.arange(h) - y

    def row(state, inputs):
        numerator, denominator = state
        dy, data = inputs
        square = jnp.maximum(cxx * dx**2 + dy * (cxy * dx + cyy * dy), 0.0)
        data = jnp.where(square <= KRON_REACH**2, data, 0)
        # The root of 0 has no derivative.
        radius = jnp.sqrt(jnp.where(square > 0, square, 1.0)) * (square > 0)
        return (numerator + data * radius, denominator + data), None

    nothing = jnp.zeros_like(pixels.data[0])
    sums, _ = lax.scan(row, (nothing, nothing), (dy, pixels.data))
    numerator, denominator = (jnp.sum(s) for s in sums)
    # Without a pixel in the image there is no radius.
    fine &= (box.x1 > box.x0) & (box.y1 > box.y0)
    return jnp.where(fine, numerator, jnp.nan), jnp.where(fine, denominator, jnp.nan)
