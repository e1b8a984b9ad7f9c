"""Exact areas that ellipses share with pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    known = (a > 0) & (b > 0)
    for value in (x, y, a, b, theta):
        known &= jnp.isfinite(value)
    x, y, theta = (jnp.where(known, value, 0.0) for value in (x, y, theta))
    a, b = jnp.where(known, a, 1.0), jnp.where(known, b, 1.0)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    reach_x = jnp.hypot(a * cos, b * sin)
    reach_y = jnp.hypot(a * sin, b * cos)
    mixed = (a - b) * (a + b) * sin * cos
    slope, bulge = mixed / reach_x**2, a * b / reach_x

    columns = jnp.arange(shape[1] + 1) - 0.5 - x
    rows = jnp.arange(shape[0] + 1) - 0.5 - y

    def full(at: Array) -> Array:
        """Area of the ellipse left of a place, but for a constant."""
        return 2 * bulge * reach_x * half_disc(jnp.clip(at / reach_x, -1, 1))

    def above(at: Array) -> Array:
        """Minus the integral of the lower edge of the ellipse."""
        return full(at) / 2 - slope * at**2 / 2

    # The area is stationary where a row's edge cuts the ellipse, so these places need no
    # derivative; their own is infinite where the edge is a tangent.
    height = jnp.clip(rows / reach_y, -1, 1)
    middle = mixed / reach_y * height
    half = a * b / reach_y * jnp.sqrt((1 - height) * (1 + height))
    left, right = (jax.lax.stop_gradient(place) for place in (middle - half, middle + half))
    # Left of the chord the ellipse is all below the row's edge or all above; so too to its right.
    below_left = (rows > -slope * reach_x).astype(rows.dtype)
    below_right = (rows > slope * reach_x).astype(rows.dtype)
    level = reach_y * height
    at_left = below_left * full(left) - level * left - above(left)
    at_right = at_left + level * right + above(right) - below_right * full(right)

    inside = jnp.clip(columns, -reach_x, reach_x)
    over, under = full(inside), above(inside)
    place, left_, right_ = inside[None], left[:, None], right[:, None]
    corner = jnp.where(
        place < left_,
        below_left[:, None] * over[None],
        jnp.where(
            place > right_,
            at_right[:, None] + below_right[:, None] * over[None],
            at_left[:, None] + level[:, None] * place + under[None],
        ),
    )
    share = corner[1:, 1:] - corner[1:, :-1] - corner[:-1, 1:] + corner[:-1, :-1]

    # Rounding would leave a hint of far pixels, whose light may be large.
    leftmost = -slope * reach_x
    low, high = rows[:-1], rows[1:]
    farthest_left = jnp.where(
        (low <= leftmost) & (leftmost <= high), -reach_x, jnp.minimum(left[:-1], left[1:])
    )
    farthest_right = jnp.where(
        (low <= -leftmost) & (-leftmost <= high), reach_x, jnp.maximum(right[:-1], right[1:])
    )
    met = (high > -reach_y) & (low < reach_y) & known
    out = (
        (columns[1:] <= farthest_left[:, None])
        | (columns[:-1] >= farthest_right[:, None])
        | ~met[:, None]
    )
    crossed = (low >= -reach_y) & (high <= reach_y)
    nearest_left = jnp.maximum(left[:-1], left[1:])
    nearest_right = jnp.minimum(right[:-1], right[1:])
    whole = (
        (columns[:-1] >= nearest_left[:, None])
        & (columns[1:] <= nearest_right[:, None])
        & crossed[:, None]
    )
    return jnp.where(out, 0.0, jnp.where(whole, 1.0, jnp.clip(share, 0.0, 1.0)))


def circle_overlap(
    shape: tuple[int, int], x: Scalar, y: Scalar, radius: Scalar
) -> Float[Array, "y x"]:
    """Share of each pixel that lies in a circle; arguments as for `ellipse_overlap`."""
    return ellipse_overlap(shape, x, y, radius, radius, jnp.zeros_like(radius))


@jax.custom_jvp
def half_disc(u: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\int_0^u \sqrt{1 - t^2} dt$ for $|u| \le 1$."""
    return (u * jnp.sqrt((1 - u) * (1 + u)) + jnp.arcsin(u)) / 2


@half_disc.defjvp
def _half_disc_jvp(primals, tangents):
    # By parts it is infinite less infinite at the ends.
    (u,), (du,) = primals, tangents
    return half_disc(u), jnp.sqrt((1 - u) * (1 + u)) * du
