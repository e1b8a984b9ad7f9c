r"""The elliptical Moffat profile integrated over pixels, and its derivatives.

$I(r) = \nu\,(1 + k \rho)^{-1/t}$ with $\rho = 4\, r^T M(g)\, r / f^2$, $k = 2^t - 1$, of unit
flux: f is the FWHM of the profile made round at the same area, g the reduced shear, and t = 1 /
beta, which runs smoothly into a Gaussian at t = 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Gauss-Legendre nodes of a pixel: three on an axis are good to 1e-5 of the peak at a FWHM of 2.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
FWHM_RANGE = (0.8, 60.0)
T_RANGE = (0.02, 0.7)
G_LIMIT = 0.6


class Shape(NamedTuple):
    """FWHM in pixels, shear g1 and g2, and t = 1 / beta; each `(n,)`."""

    fwhm: Float[Array, "n"]
    g1: Float[Array, "n"]
    g2: Float[Array, "n"]
    t: Float[Array, "n"]

    def within_range(self) -> "Shape":
        """The nearest shape that makes sense."""
        size = jnp.hypot(self.g1, self.g2)
        shrink = G_LIMIT / jnp.maximum(size, G_LIMIT)
        return Shape(
            jnp.clip(self.fwhm, *FWHM_RANGE),
            self.g1 * shrink,
            self.g2 * shrink,
            jnp.clip(self.t, *T_RANGE),
        )


class Templates(NamedTuple):
    """A profile of unit flux and its derivatives by place and shape; each `(n, h, w)`."""

    value: Array
    x: Array
    y: Array
    fwhm: Array
    g1: Array
    g2: Array
    t: Array


def moffat_images(
    x: Float[Array, "n"], y: Float[Array, "n"], shape: Shape, size: int
) -> Float[Array, "n size size"]:
    """Images of `size` pixels a side of the profile centred (x, y) away from the middle pixel."""
    offset = jnp.arange(size) - (size - 1) / 2
    u, v = offset - x[:, None], offset - y[:, None]
    a, b, c = _quadratic(shape)
    t = shape.t[:, None, None]
    k = 2**t - 1

    def add(node: Array, total: Array) -> Array:
        p, q, weight = _moved(node, u, v)
        rho = a * p * p + (2 * b * p + c * q) * q
        return total + weight * jnp.exp(-jnp.log1p(k * rho) / t)

    total = jax.lax.fori_loop(0, 9, add, jnp.zeros((x.shape[0], size, size), u.dtype))
    return _norm(shape)[:, None, None] * total


def moffat_templates(
    x: Float[Array, "n"], y: Float[Array, "n"], shape: Shape, size: int
) -> Templates:
    """As `moffat_images`, with all derivatives, in one pass over the pixels."""
    offset = jnp.arange(size) - (size - 1) / 2
    u, v = offset - x[:, None], offset - y[:, None]
    a, b, c = _quadratic(shape)
    t = shape.t[:, None, None]
    power = 2**t
    k = power - 1

    # A loop over the nodes of a pixel: unrolled it takes seconds to compile.
    def add(node: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        value, by_t, by_p, by_q, by_pp, by_pq, by_qq = sums
        p, q, weight = _moved(node, u, v)
        rho = a * p * p + (2 * b * p + c * q) * q
        log = jnp.log1p(k * rho)
        here = weight * jnp.exp(-log / t)
        slope = here / (t * (1 + k * rho))
        by_t += here * log / t**2 - slope * power * np.log(2) * rho
        fall = -k * slope
        along_p, along_q = fall * p, fall * q
        return (
            value + here,
            by_t,
            by_p + along_p,
            by_q + along_q,
            by_pp + along_p * p,
            by_pq + along_p * q,
            by_qq + along_q * q,
        )

    zero = jnp.zeros((x.shape[0], size, size), u.dtype)
    value, by_t, by_p, by_q, by_pp, by_pq, by_qq = jax.lax.fori_loop(0, 9, add, (zero,) * 7)
    norm = _norm(shape)[:, None, None]
    f, g1, g2 = (s[:, None, None] for s in (shape.fwhm, shape.g1, shape.g2))
    room = 1 - g1**2 - g2**2
    unit = 4 / f**2 / room
    # d rho / d g: of the elements of M, and of the 1 / (1 - g^2) before them.
    by_rho = a * by_pp + 2 * b * by_pq + c * by_qq
    d_g1 = 2 * unit * ((g1 - 1) * by_pp + (g1 + 1) * by_qq) + 2 * g1 / room * by_rho
    d_g2 = 2 * unit * (g2 * (by_pp + by_qq) - 2 * by_pq) + 2 * g2 / room * by_rho
    d_log_norm = power * np.log(2) / k - 1 / (t * (1 - t))
    return Templates(
        norm * value,
        norm * (-2 * (a * by_p + b * by_q)),
        norm * (-2 * (b * by_p + c * by_q)),
        norm * (-2 / f) * (by_rho + value),
        norm * d_g1,
        norm * d_g2,
        norm * (by_t + d_log_norm * value),
    )


def _moved(node: Array, u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Coordinates of a node of every pixel, along x and along y, and its weight."""
    places, weights = jnp.asarray(_NODES / 2, u.dtype), jnp.asarray(_WEIGHTS / 2, u.dtype)
    row, column = node // 3, node % 3
    p, q = u + places[column], v + places[row]
    return p[:, None, :], q[:, :, None], weights[row] * weights[column]


def _quadratic(shape: Shape) -> tuple[Array, Array, Array]:
    """rho = a x^2 + 2 b x y + c y^2."""
    g1, g2 = shape.g1[:, None, None], shape.g2[:, None, None]
    unit = 4 / shape.fwhm[:, None, None] ** 2 / (1 - g1**2 - g2**2)
    return unit * ((1 - g1) ** 2 + g2**2), unit * (-2 * g2), unit * ((1 + g1) ** 2 + g2**2)


def _norm(shape: Shape) -> Array:
    return 4 * (2**shape.t - 1) * (1 / shape.t - 1) / (jnp.pi * shape.fwhm**2)
