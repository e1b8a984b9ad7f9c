"""How large and how round a source is: moments under a Gaussian that adapts to them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.fourier import EXACT
from diffdeblend.quantities.sums import power_sums, steps_along

Scalar = Float[Array, ""]
Vector = Float[Array, "5"]

_MOST_STEPS = 60
# Newton's step after the search squares what is left of the error.
_SETTLED = 2e-5
# Least determinant of a covariance in px^4, and the least and the largest change in one step.
_LEAST, _SHRINK, _GROW = 1e-3, 0.2, 4.0
# Powers of (y, x) in the terms 1, dx, dy, dx^2, dx dy, dy^2, and those of their products.
_TERMS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
_PRODUCTS = np.eye(25)[[[(a[0] + b[0]) * 5 + a[1] + b[1] for b in _TERMS] for a in _TERMS]]


class Moments(NamedTuple):
    """Scalars, but for the covariance; all NaN where the search failed.

    - `x`, `y`: centre, in pixels of the stamp. `xx`, `yy`, `xy`: in square pixels.
    - `flux`: through the Gaussian of this shape: that of the source if it is Gaussian.
    - `covariance`: of (x, y, xx, xy, yy), `(5, 5)`; with a held centre its rows are 0.
    - `flux_err`: with what the noise does to the shape.
    - `fourth`: weighted mean of the fourth power of the elliptical radius; 2 for a Gaussian.
    - `n_steps`: of the search. `settled`: whether it came to an end.
    """

    x: Scalar
    y: Scalar
    xx: Scalar
    yy: Scalar
    xy: Scalar
    flux: Scalar
    covariance: Float[Array, "5 5"]
    flux_err: Scalar
    fourth: Scalar
    n_steps: Int[Array, ""]
    settled: Bool[Array, ""]


def adaptive_moments(
    image: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    x: Scalar,
    y: Scalar,
    start: Scalar | float = 1.5,
    recentre: bool = True,
) -> Moments:
    r"""Centre and covariance $W$ of the elliptical Gaussian $w$ that is like the source.

    That is, with $d$ the distance from the centre,
    $\sum I w\, d = 0$ and $\sum I w\, (d d^T - W / 2) = 0$: for a Gaussian source its own
    covariance. The error is that of the linear response to the noise of the pixels. May be
    differentiated by `image`, as a root is.

    - `image`, `variance`: 0 where nothing is known.
    - `x`, `y`: to start from, in pixels.
    - `start`: variance of the first Gaussian along either axis, in square pixels.
    - `recentre`: False holds the centre at (x, y); static.

    ??? cite
        Bernstein & Jarvis (2002), AJ 123, 583, sect. 3.1; Hirata & Seljak (2003), MNRAS 343, 459.
    """
    x, y, start = (jnp.asarray(v, image.dtype) for v in (x, y, start))
    fine = jnp.isfinite(x) & jnp.isfinite(y) & (start > 0)
    x, y = jnp.where(fine, x, 0.0), jnp.where(fine, y, 0.0)
    start = jnp.where(fine, start, 1.0)
    zero = jnp.zeros_like(x)
    # One vector only where its entries are used together: x, y, xx, xy, yy.
    first = (x, y, start, zero, start)
    held = jax.lax.stop_gradient(image)
    most = float(max(image.shape)) ** 2 / 4

    def go_on(state):
        _, change, n, sound = state
        return (change > _SETTLED) & (n < _MOST_STEPS) & sound

    def step(state):
        place, _, n, _ = state
        new, sound = _stepped(held, place, recentre)
        sound &= (new[2] + new[4] < 2 * most) & (new[2] * new[4] - new[3] ** 2 > _LEAST)
        change = _change(place, new)
        new = tuple(jnp.where(sound, a, b) for a, b in zip(new, place, strict=True))
        return new, change, n + 1, sound

    begin = jax.lax.stop_gradient((first, jnp.full_like(x, jnp.inf), jnp.int32(0), fine))
    place, change, n_steps, sound = jax.lax.while_loop(go_on, step, begin)
    settled = sound & (change <= _SETTLED)
    place = jax.lax.stop_gradient(
        tuple(jnp.where(settled, p, f) for p, f in zip(place, first, strict=True))
    )
    if not recentre:
        # Its own derivative: the moments move with the centre that is given.
        place = (x, y, *place[2:])
    value, products, matrix, slope = _system(image, place, recentre)
    inverse, slope = jax.lax.stop_gradient((_inverse(matrix), slope))
    last = -_dot(inverse, value)
    det = place[2] * place[4] - place[3] ** 2
    small = jnp.max(jnp.abs(last)) < 0.02 * (place[2] + place[4])
    settled &= small & (det > _LEAST)
    covariance, flux_err = _errors(variance, place, inverse, slope, recentre)
    fourth = _fourth(products, place)
    # Of the last step to first order: the sum is not taken once more.
    flux = 2 * (products[0, 0] + jnp.sum(slope * last))
    place = tuple(p + m for p, m in zip(place, last, strict=True))
    return Moments(
        *(jnp.where(settled, place[k], jnp.nan) for k in (0, 1, 2, 4, 3)),
        flux=jnp.where(settled, flux, jnp.nan),
        covariance=jnp.where(settled, covariance, jnp.nan),
        flux_err=jnp.where(settled, flux_err, jnp.nan),
        fourth=jnp.where(settled, fourth, jnp.nan),
        n_steps=n_steps,
        settled=settled,
    )


def gaussian_weight(shape: tuple[int, ...], place: tuple) -> Float[Array, "h w"]:
    """The Gaussian of unit height with centre and covariance (x, y, xx, xy, yy)."""
    x, y, xx, xy, yy = place
    det = xx * yy - xy * xy
    dx, dy = steps_along(shape[1], x), steps_along(shape[0], y)
    of_x, of_y = (yy / det) * dx**2, (xx / det) * dy**2
    cross = (2 * xy / det) * dx
    return jnp.exp(-0.5 * (of_y[:, None] + of_x - dy[:, None] * cross))


def _stepped(image: Array, place: tuple, recentre: bool) -> tuple[tuple, Array]:
    """The next Gaussian: that which would be right if the source were Gaussian."""
    x, y, xx, xy, yy = place
    m = power_sums(image * gaussian_weight(image.shape, place), x, y, 2)
    sound = m[0, 0] > 0
    light = jnp.where(sound, m[0, 0], 1.0)
    mx, my = m[0, 1] / light, m[1, 0] / light
    vx, vxy, vy = m[0, 2] / light, m[1, 1] / light, m[2, 0] / light
    if recentre:
        vx, vxy, vy = vx - mx * mx, vxy - mx * my, vy - my * my
    det, old = vx * vy - vxy * vxy, xx * yy - xy * xy
    sound &= (vx > 0) & (vy > 0) & (det > _LEAST**2)
    safe = jnp.where(sound, det, 1.0)
    # Covariances of Gaussians multiplied add their inverses.
    ixx, ixy, iyy = vy / safe - yy / old, -vxy / safe + xy / old, vx / safe - xx / old
    inverse = ixx * iyy - ixy * ixy
    steep = (ixx > 0) & (inverse * old > (1 / _GROW) ** 2) & (inverse * old < (1 / _SHRINK) ** 2)
    inverse = jnp.where(steep, inverse, 1.0)
    # Otherwise the light is flatter than any Gaussian can explain: the slower rule, which grows.
    nxx = jnp.where(steep, iyy / inverse, jnp.clip(2 * vx, _SHRINK * xx, _GROW * xx))
    nyy = jnp.where(steep, ixx / inverse, jnp.clip(2 * vy, _SHRINK * yy, _GROW * yy))
    slow = vxy / jnp.sqrt(jnp.where(sound, vx * vy, 1.0)) * jnp.sqrt(jnp.maximum(nxx * nyy, 0.0))
    nxy = jnp.where(steep, -ixy / inverse, slow)
    if recentre:
        reach = jnp.sqrt(jnp.maximum(xx + yy, 1.0))
        x, y = x + jnp.clip(2 * mx, -reach, reach), y + jnp.clip(2 * my, -reach, reach)
    return (x, y, nxx, nxy, nyy), sound


def _change(old: tuple, new: tuple) -> Scalar:
    """Largest change, in units of the size."""
    size = old[2] + old[4]
    shift = jnp.maximum(jnp.abs(new[0] - old[0]), jnp.abs(new[1] - old[1])) / jnp.sqrt(size)
    shape = [jnp.abs(new[k] - old[k]) / size for k in (2, 3, 4)]
    return jnp.maximum(shift, jnp.maximum(jnp.maximum(shape[0], shape[1]), shape[2]))


def _functions(place: tuple) -> tuple[Float[Array, "5 6"], Float[Array, "5 6"]]:
    """Coefficients of the equations by `_TERMS`, and of the derivatives of log w."""
    _, _, xx, xy, yy = place
    det = xx * yy - xy * xy
    a, b, c = yy / det, -xy / det, xx / det
    o, i = jnp.zeros_like(xx), jnp.ones_like(xx)
    equations = [
        [o, i, o, o, o, o],
        [o, o, i, o, o, o],
        [-xx / 2, o, o, i, o, o],
        [-xy / 2, o, o, o, i, o],
        [-yy / 2, o, o, o, o, i],
    ]
    slopes = [
        [o, a, b, o, o, o],
        [o, b, c, o, o, o],
        [o, o, o, a * a / 2, a * b, b * b / 2],
        [o, o, o, a * b, a * c + b * b, b * c],
        [o, o, o, b * b / 2, b * c, c * c / 2],
    ]
    return (
        jnp.stack([jnp.stack(row) for row in equations]),
        jnp.stack([jnp.stack(row) for row in slopes]),
    )


def _system(image: Array, place: tuple, recentre: bool) -> tuple[Vector, Array, Array, Vector]:
    """The equations' values, light by products of `_TERMS`, derivatives, and those of the light."""
    weight = gaussian_weight(image.shape, place)
    sums = power_sums(image * weight, place[0], place[1], 4)
    equations, slopes = _functions(place)
    products = _products(sums)
    light = products[0]
    values = _dot(equations, light)
    o, half = jnp.zeros_like(light[0]), -light[0] / 2
    own = [
        [-light[0], o, o, o, o],
        [o, -light[0], o, o, o],
        [-2 * light[1], o, half, o, o],
        [-light[2], -light[1], o, half, o],
        [o, -2 * light[2], o, o, half],
    ]
    matrix = _dot(_dot(equations, products), slopes.T)
    matrix = matrix + jnp.stack([jnp.stack(row) for row in own])
    slope = _dot(slopes, light)
    if not recentre:
        free = np.array([False, False, True, True, True])
        values, slope = jnp.where(free, values, 0), jnp.where(free, slope, 0)
        matrix = jnp.where(free[:, None] & free, matrix, -jnp.eye(5, dtype=light.dtype) * light[0])
    return values, products, matrix, slope


def _errors(
    variance: Array, place: tuple, inverse: Array, slope: Vector, recentre: bool
) -> tuple[Float[Array, "5 5"], Scalar]:
    """Covariance of the place, and error of the flux. A sandwich, Huber (1967)."""
    weight = jax.lax.stop_gradient(gaussian_weight(variance.shape, place))
    sums = power_sums(variance * weight**2, place[0], place[1], 4)
    products = _products(sums)
    equations, _ = _functions(jax.lax.stop_gradient(place))
    if not recentre:
        equations = equations.at[:2].set(0)
    noise = _dot(_dot(equations, products), equations.T)
    covariance = _dot(_dot(inverse, noise), inverse.T)
    # The flux is 2 sum(w I) with the place held, and the place moves.
    by_place = _dot(slope, inverse)
    square = products[0, 0] - 2 * jnp.sum(by_place * _dot(equations, products[0]))
    square = square + jnp.sum(by_place * _dot(noise, by_place))
    positive = square > 0
    return covariance, 2 * jnp.sqrt(jnp.where(positive, square, 1.0)) * positive


def _fourth(products: Float[Array, "6 6"], place: tuple) -> Scalar:
    _, _, xx, xy, yy = place
    det = xx * yy - xy * xy
    o = jnp.zeros_like(det)
    radius2 = jnp.stack([o, o, o, yy / det, -2 * xy / det, xx / det])
    some = products[0, 0] > 0
    return jnp.sum(radius2 * _dot(products, radius2)) / jnp.where(some, products[0, 0], 1.0)


def _products(sums: Float[Array, "5 5"]) -> Float[Array, "6 6"]:
    """Sums of the products of `_TERMS`; a product with 0 and 1, as a gather of each is slower."""
    return _dot(jnp.asarray(_PRODUCTS, sums.dtype), sums.reshape(25))


def _inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """By elimination without pivots, unrolled: a library call a source took longer than the sums.

    The matrix is close to that of a Gaussian source, whose pivots are far from 0.
    """
    n = matrix.shape[0]
    rows = [jnp.concatenate([matrix[i], jnp.asarray(np.eye(n)[i], matrix.dtype)]) for i in range(n)]
    for i in range(n):
        pivot = rows[i][i]
        rows[i] = rows[i] / jnp.where(pivot == 0, 1.0, pivot)
        for j in range(n):
            if j != i:
                rows[j] = rows[j] - rows[j][i] * rows[i]
    return jnp.stack(rows)[:, n:]


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)
