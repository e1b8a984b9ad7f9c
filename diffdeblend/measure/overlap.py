"""Exact areas that ellipses share with pixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.polynomial import chebyshev

Scalar = Float[Array, ""]


def ellipse_overlap(
    shape: tuple[int, int], x: Scalar, y: Scalar, a: Scalar, b: Scalar, theta: Scalar
) -> Float[Array, "y x"]:
    r"""Share of each pixel that lies in an ellipse, from 0 to 1.

    The share is the mixed difference of $A$ over the four corners of the pixel, where $A(x, y)$ is
    the area of the part of the ellipse that lies left of x and below y. With the half extent
    $X^2 = a^2 \cos^2 θ + b^2 \sin^2 θ$, $k = (a^2 - b^2) \sin θ \cos θ / X^2$, $c = ab / X$ the
    ellipse is $|y - kx| \le c \sqrt{1 - x^2/X^2}$, and $A$ needs inverse sines only of the edges
    of columns and of the places where the edges of rows cross the ellipse.

    - `shape`: `(ny, nx)` of the result.
    - `x`, `y`: centre; the first pixel is centred on `(0, 0)`.
    - `a`, `b`: semi-axes in pixels, positive. If these or the angle are not, all shares are 0.
    - `theta`: angle from the x axis to the semi-axis `a`, in radians, counterclockwise.

    Exact to rounding of the whole area; pixels all in or all out get 1 and 0 just so. May be
    differentiated by all arguments but `shape`.
    """
    ellipse = ellipse_of(x, y, a, b, theta)
    columns = columns_of(ellipse, shape[1])
    lines = jax.vmap(line_of, in_axes=(None, 0))(ellipse, jnp.arange(shape[0] + 1) - 0.5)
    corners = jax.vmap(line_corners, in_axes=(0, None))(lines, columns)
    low = jax.tree.map(lambda v: v[:-1], (lines, corners))
    high = jax.tree.map(lambda v: v[1:], (lines, corners))
    return jax.vmap(strip_share, in_axes=(None, 0, 0, None))(ellipse, low, high, columns)


class Ellipse(NamedTuple):
    r"""An ellipse as $|y - kx| \le c \sqrt{1 - x^2/X^2}$ about its centre, `(x, y)`."""

    x: Scalar
    y: Scalar
    reach_x: Scalar
    reach_y: Scalar
    slope: Scalar
    bulge: Scalar
    mixed: Scalar
    area: Scalar
    known: Bool[Array, ""]


class Line(NamedTuple):
    """An edge between rows: height, where it enters and leaves the ellipse, and sums for areas."""

    height: Scalar
    left: Scalar
    right: Scalar
    below_left: Scalar
    below_right: Scalar
    at_left: Scalar
    at_right: Scalar
    level: Scalar


class Columns(NamedTuple):
    """Of each edge between columns, `(w + 1,)`: place, place in the ellipse, and areas."""

    place: Array
    inside: Array
    full: Array
    above: Array


def ellipse_of(x: Scalar, y: Scalar, a: Scalar, b: Scalar, theta: Scalar) -> Ellipse:
    """Arguments as for `ellipse_overlap`."""
    known = (a > 0) & (b > 0)
    for value in (x, y, a, b, theta):
        known &= jnp.isfinite(value)
    x, y, theta = (jnp.where(known, value, 0.0) for value in (x, y, theta))
    a, b = jnp.where(known, a, 1.0), jnp.where(known, b, 1.0)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    reach_x = jnp.sqrt((a * cos) ** 2 + (b * sin) ** 2)
    reach_y = jnp.sqrt((a * sin) ** 2 + (b * cos) ** 2)
    mixed = (a - b) * (a + b) * sin * cos
    slope, bulge = mixed / reach_x**2, a * b / reach_x
    return Ellipse(x, y, reach_x, reach_y, slope, bulge, mixed, a * b, known)


def _full(ellipse: Ellipse, at: Array) -> Array:
    """Area of the ellipse left of a place, but for a constant."""
    return 2 * ellipse.area * half_disc(jnp.clip(at / ellipse.reach_x, -1, 1))


def columns_of(ellipse: Ellipse, width: int) -> Columns:
    """The edges of so many columns of pixels."""
    place = jnp.arange(width + 1) - 0.5 - ellipse.x
    inside = jnp.clip(place, -ellipse.reach_x, ellipse.reach_x)
    full = _full(ellipse, inside)
    # Minus the integral of the lower edge of the ellipse.
    return Columns(place, inside, full, full / 2 - ellipse.slope * inside**2 / 2)


def line_of(ellipse: Ellipse, y: Scalar) -> Line:
    """The edge between rows of pixels at height `y`."""
    y = y - ellipse.y
    height = jnp.clip(y / ellipse.reach_y, -1, 1)
    half = ellipse.area / ellipse.reach_y * jnp.sqrt((1 - height) * (1 + height))
    side = jnp.arange(-1.0, 2.0, 2.0)
    # The area is stationary where the edge cuts the ellipse, so these places, left and right, need
    # no derivative; their own is infinite where the edge is a tangent.
    place = jax.lax.stop_gradient(ellipse.mixed / ellipse.reach_y * height + side * half)
    # Left of the chord the ellipse is all below the edge or all above; so too to its right.
    below = (y > side * ellipse.slope * ellipse.reach_x).astype(y.dtype)
    level = ellipse.reach_y * height
    area = _full(ellipse, place)
    part = level * place + area / 2 - ellipse.slope * place**2 / 2
    at_left = below[0] * area[0] - part[0]
    at_right = at_left + part[1] - below[1] * area[1]
    return Line(y, place[0], place[1], below[0], below[1], at_left, at_right, level)


def line_corners(line: Line, columns: Columns) -> Float[Array, "x"]:
    """$A$ at the corners along one edge between rows, but for constants."""
    place = columns.inside
    return jnp.where(
        place < line.left,
        line.below_left * columns.full,
        jnp.where(
            place > line.right,
            line.at_right + line.below_right * columns.full,
            line.at_left + line.level * place + columns.above,
        ),
    )


def strip_share(
    ellipse: Ellipse,
    low: tuple[Line, Float[Array, "x"]],
    high: tuple[Line, Float[Array, "x"]],
    columns: Columns,
) -> Float[Array, "x"]:
    """Shares of the pixels of one row, of the edges below and above it and their corners."""
    below, above = low[0], high[0]
    step = high[1] - low[1]
    share = jnp.clip(step[1:] - step[:-1], 0.0, 1.0)
    # Rounding would leave a hint of far pixels, whose light may be large: beyond the farthest
    # places that the row meets all is out, between the nearest all is in.
    reach_x, reach_y, tip = ellipse.reach_x, ellipse.reach_y, ellipse.slope * ellipse.reach_x

    def within(y):
        return (below.height <= y) & (y <= above.height)

    farthest_left = jnp.where(within(-tip), -reach_x, jnp.minimum(below.left, above.left))
    farthest_right = jnp.where(within(tip), reach_x, jnp.maximum(below.right, above.right))
    met = (above.height > -reach_y) & (below.height < reach_y) & ellipse.known
    crossed = (below.height >= -reach_y) & (above.height <= reach_y)
    first, last = columns.place[:-1], columns.place[1:]
    out = (last <= farthest_left) | (first >= farthest_right) | ~met
    whole = (first >= jnp.maximum(below.left, above.left)) & crossed
    whole &= last <= jnp.minimum(below.right, above.right)
    return jnp.where(out, 0.0, jnp.where(whole, 1.0, share))


def circle_overlap(
    shape: tuple[int, int], x: Scalar, y: Scalar, radius: Scalar
) -> Float[Array, "y x"]:
    """Share of each pixel that lies in a circle; arguments as for `ellipse_overlap`."""
    return ellipse_overlap(shape, x, y, radius, radius, jnp.zeros_like(radius))


@jax.custom_jvp
def half_disc(u: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\int_0^u \sqrt{1 - t^2} dt$ for $|u| \le 1$."""
    return (u * jnp.sqrt((1 - u) * (1 + u)) + arcsine(u)) / 2


@half_disc.defjvp
def _half_disc_jvp(primals, tangents):
    # By parts it is infinite less infinite at the ends.
    (u,), (du,) = primals, tangents
    return half_disc(u), jnp.sqrt((1 - u) * (1 + u)) * du


def arcsine(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Inverse sine, to rounding. That of XLA is scalar code on CPU."""
    size = jnp.abs(u)
    far = size > 0.5
    square = jnp.where(far, (1 - size) / 2, size**2)
    near = jnp.where(far, jnp.sqrt(square), size)
    terms = _ARCSINE[jnp.finfo(u.dtype).bits]
    # Powers of this one, which is from -1 to 1, lose no digits.
    power = 8 * square - 1
    series = jnp.full_like(u, terms[-1])
    for term in terms[-2::-1]:
        series = series * power + term
    value = near * series
    return jnp.sign(u) * jnp.where(far, np.pi / 2 - 2 * value, value)


def _arcsine_terms(degree: int) -> np.ndarray:
    """Coefficients of arcsin(u) / u by powers of 8 u^2 - 1, for |u| <= 1/2."""

    def function(power):
        # No node of the interpolation is at u = 0.
        u = np.sqrt((power + 1) / 8)
        return np.arcsin(u) / u

    return chebyshev.cheb2poly(chebyshev.chebinterpolate(function, degree))


# By the number of bits of a float.
_ARCSINE = {16: _arcsine_terms(4), 32: _arcsine_terms(7), 64: _arcsine_terms(15)}
