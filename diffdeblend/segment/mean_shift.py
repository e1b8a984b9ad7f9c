"""One step of DENCLUE: where the light around a point has its centre, for a block of points.

Two forms. A Gaussian without an end is a product of one in x and one in y, so that the sums over
all pixels are two small matrix products. Other kernels, and those that end at a radius that
matters, are summed over a list of pixels.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float

from diffdeblend.segment.density_kernels import KERNELS

# Twice the step still never lowers the density (it maximises a lower bound of it): less is faster.
_OVER = 1.8
# Newton's step where the maximum is that near, in widths; farther it could leave the basin.
_TRUST = 0.5
# Plain steps of that fraction of the tolerance end a climb that Newton's method never finishes.
_PLAIN = 0.01


class Moments(NamedTuple):
    """Sums around points, each `(point,)`: density, mean shift, covariance about the mean."""

    density: Array
    dx: Array
    dy: Array
    xx: Array
    xy: Array
    yy: Array


class State(NamedTuple):
    """Points on their way, each `(block, point)`: place, last step, and which still move."""

    x: Any
    y: Any
    step: Any
    moving: Any


def product_moments(
    light: Float[Array, "y x"], h: Float[Array, ""], x: Float[Array, "p"], y: Float[Array, "p"]
) -> Moments:
    """Moments of the light of a window under a Gaussian of width `h` around each point."""
    dx = jnp.arange(light.shape[1]) - x[:, None]
    dy = jnp.arange(light.shape[0]) - y[:, None]
    gx, gy = jnp.exp(-0.5 * (dx / h) ** 2), jnp.exp(-0.5 * (dy / h) ** 2)
    rows = partial(jnp.matmul, precision=Precision.HIGHEST)
    one, first, second = rows(gy, light), rows(gy * dy, light), rows(gy * dy**2, light)
    density = jnp.sum(one * gx, 1)
    total = jnp.where(density > 0, density, 1)
    mx, my = jnp.sum(one * (gx * dx), 1) / total, jnp.sum(first * gx, 1) / total
    xx = jnp.sum(one * (gx * dx**2), 1) / total - mx**2
    xy = jnp.sum(first * (gx * dx), 1) / total - mx * my
    yy = jnp.sum(second * gx, 1) / total - my**2
    return Moments(density, mx, my, xx, xy, yy)


def listed_moments(
    kernel: str,
    table_size: int | None,
    pixels: tuple[Array, Array, Array],
    radius: Float[Array, ""],
    h: Float[Array, ""],
    x: Float[Array, "p"],
    y: Float[Array, "p"],
) -> Moments:
    """Moments of listed pixels, under any kernel that ends at `radius`; no covariance.

    - `pixels`: their x, y and light, each `(pixel,)`.
    - `table_size`: so many values of the kernel, evenly spaced in distance, instead of the kernel.
    """
    px, py, light = pixels
    dx, dy = px - x[:, None], py - y[:, None]
    square = dx * dx + dy * dy
    if table_size:
        u = jnp.arange(table_size) * (radius / h / (table_size - 1))
        distance = jnp.sqrt(jnp.where(square > 0, square, 1))
        distance = jnp.where(square > 0, distance, 0)
        entry = jnp.round(distance * ((table_size - 1) / radius)).astype(int)
        value = KERNELS[kernel](u * u)[jnp.minimum(entry, table_size - 1)]
    else:
        value = KERNELS[kernel](square / h**2)
    value = jnp.where(square <= radius**2, value, 0)
    density = jnp.matmul(value, light, precision=Precision.HIGHEST)
    total = jnp.where(density > 0, density, 1)
    # Sums of differences, not of positions: no digits are lost.
    mx, my = (value * dx) @ light / total, (value * dy) @ light / total
    zero = jnp.zeros_like(mx)
    return Moments(density, mx, my, zero, zero, zero)


def newton_step(moments: Moments, h: Array) -> tuple[Array, Array, Array]:
    """Newton's step on the logarithm of a Gaussian density, and whether its matrix allows it.

    The gradient is m / h² and the Hessian (C / h² - 1) / h², m the mean shift and C the covariance.
    """
    a, b, c = 1 - moments.xx / h**2, -moments.xy / h**2, 1 - moments.yy / h**2
    determinant = a * c - b * b
    peaked = (determinant > 0) & (a + c > 0)
    scale = 1 / jnp.where(peaked, determinant, 1)
    x = scale * (c * moments.dx - b * moments.dy)
    y = scale * (a * moments.dy - b * moments.dx)
    return x, y, peaked


@partial(jax.jit, static_argnames=("speed_up", "steps"))
def climb_product(
    light: Float[Array, "block y x"],
    h: Float[Array, "block"],
    eps: Float[Array, "block"],
    state: State,
    *,
    speed_up: bool,
    steps: int,
) -> State:
    """Up to `steps` steps of blocks of points, each block on its own window."""
    moments = jax.vmap(product_moments)
    return _climb(lambda x, y: moments(light, h, x, y), speed_up, steps, h, eps, state)


@partial(jax.jit, static_argnames=("kernel", "table_size", "steps"))
def climb_listed(
    pixels: tuple[Array, Array, Array],
    radius: Float[Array, "block"],
    h: Float[Array, "block"],
    eps: Float[Array, "block"],
    state: State,
    *,
    kernel: str,
    table_size: int | None,
    steps: int,
) -> State:
    """Up to `steps` steps of blocks of points, each with a list of pixels, `(block, pixel)`."""
    moments = jax.vmap(partial(listed_moments, kernel, table_size))
    return _climb(lambda x, y: moments(pixels, radius, h, x, y), False, steps, h, eps, state)


def _climb(moments_of, speed_up: bool, steps: int, h: Array, eps: Array, state: State) -> State:
    def go_on(carry):
        state, count = carry
        return (count < steps) & jnp.any(state.moving)

    def turn(carry):
        state, count = carry
        moments = moments_of(state.x, state.y)
        return _advance(moments, speed_up, h[:, None], eps[:, None], state), count + 1

    return jax.lax.while_loop(go_on, turn, (state, 0))[0]


def _advance(moments: Moments, speed_up: bool, h: Array, eps: Array, state: State) -> State:
    """All points one step further; who has arrived stays."""
    sx, sy = moments.dx, moments.dy
    plain = jnp.sqrt(sx**2 + sy**2)
    arrived = plain < eps
    if speed_up:
        nx, ny, peaked = newton_step(moments, h)
        length = jnp.sqrt(nx**2 + ny**2)
        near = peaked & (length < _TRUST * h)
        sx, sy = jnp.where(near, nx, _OVER * sx), jnp.where(near, ny, _OVER * sy)
        arrived = jnp.where(near, length < eps, plain < _PLAIN * eps)
    # Where no light is in reach there is nowhere to go.
    go = state.moving & (moments.density > 0)
    sx, sy = jnp.where(go, sx, 0), jnp.where(go, sy, 0)
    step = jnp.where(state.moving, jnp.sqrt(sx**2 + sy**2), state.step)
    return State(state.x + sx, state.y + sy, step, go & ~arrived)
