r"""The Sersic profile as a function of frequency and of radius, at unit flux and half-light radius.

With $D = 1 + \kappa(n)^2 k^2$ and $u = D^{-1/2n}$ the Hankel transform is, to 3e-7,
$$S_n(k) = \frac{u}{1 + \tau(n)^2 k^2} \sum_{j<20} c_j(n)\, T_j(2u - 1).$$
At large $k$, $S$ is a series in $k^{-1/n}$, so that $u$ is its natural variable. A table read in
every mode would cost more: here $\kappa$, $\tau$ and $c_j$ are read once a source, and a mode takes
one logarithm and one exponential.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

# Made by `build_radial_table.py`: cubics in ln n, highest power first, one interval a row.
with np.load(Path(__file__).with_name("radial_table.npz")) as _table:
    _PIECES = _table["pieces"]
    _START, _STEP = float(_table["start"]), float(_table["step"])
    # Powers of 1/n, constant term first: b - 2n, and ln of the brightness at r_e times sqrt(n).
    _B_SERIES, _BRIGHTNESS_SERIES = (
        _table["b_series"].tolist(),
        _table["brightness_series"].tolist(),
    )

# The intervals cover 0.5 to 6.2 and one node more on either side.
_LEAST, _GREATEST = float(np.exp(_START)), float(np.exp(_START + _STEP * len(_PIECES)))

# Turns the coefficients of a Chebyshev series into those of its derivative.
_DERIVATIVE = np.polynomial.chebyshev.chebder(np.eye(_PIECES.shape[2] - 2))


def radial_transform(
    q_squared: Float[ArrayLike, "*k"], index: Float[ArrayLike, ""]
) -> Float[Array, "*k"]:
    r"""Hankel transform of the Sersic profile of unit flux: 1 at frequency 0.

    - `q_squared`: $(k r_e)^2$, where $r_e$ is the half-light radius; not negative.
    - `index`: $n$, between 0.5 and 6.2. Outside, the profile of the nearest $n$ is given.

    Differentiable in both arguments to any order. At a radius of 0 it is 1 with finite derivatives,
    so that a star needs no special case. Errors: below 3e-7 (S + 0.01), and 1e-6 in float32.

    ??? cite
        Profile: Graham & Driver (2005), PASA 22, 118, eqs. 1 and 4.
    """
    dtype = jnp.result_type(q_squared, index, 0.0)
    return _transform(jnp.asarray(q_squared, dtype=dtype), jnp.asarray(index, dtype=dtype))


def coefficients(
    index: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "term"]]:
    r"""$\kappa^2$, $\tau^2$ and $c_j$ of the closed form, in the dtype of the index."""
    place = (jnp.log(_inside(index)) - _START) / _STEP
    interval = jnp.clip(jnp.floor(lax.stop_gradient(place)), 0, len(_PIECES) - 1)
    cubic = jnp.asarray(_PIECES, dtype=index.dtype)[interval.astype(jnp.int32)]
    t = place - interval
    row = ((cubic[0] * t + cubic[1]) * t + cubic[2]) * t + cubic[3]
    return jnp.exp(row[0]), jnp.exp(row[1]), row[2:]


def radial(
    q_squared: Float[Array, "*k"],
    index: Float[Array, ""],
    kappa_squared: Float[Array, ""],
    taper_squared: Float[Array, ""],
    c: Float[Array, "term"],
) -> Float[Array, "*k"]:
    """The closed form, with the coefficients that belong to the index."""
    # Not log1p: rounding 1 + y moves S by 1e-7 at most, and log1p makes the whole a fifth slower.
    u = jnp.exp(-0.5 / _inside(index) * jnp.log(1 + kappa_squared * q_squared))
    return u * _chebyshev_sum(u, c) / (1 + taper_squared * q_squared)


# By hand, because autodiff of the recurrence keeps or repeats its 20 steps for every column: with
# this a gradient takes 8 ns a mode and not 21, six Gauss-Newton columns 9 and not 33 (float32, one
# core). The rule is ordinary code and can be differentiated again.
@jax.custom_jvp
@jax.jit
def _transform(q_squared: Float[Array, "*k"], index: Float[Array, ""]) -> Float[Array, "*k"]:
    return radial(q_squared, index, *coefficients(index))


@_transform.defjvp
def _transform_jvp(primals, tangents):
    value, by_q_squared, by_index = value_and_slopes(*primals)
    return value, by_q_squared * tangents[0] + by_index * tangents[1]


@jax.jit
def value_and_slopes(
    q: Float[Array, "*k"], n: Float[Array, ""]
) -> tuple[Float[Array, "*k"], Float[Array, "*k"], Float[Array, "*k"]]:
    """The transform and its derivatives by squared frequency and by index."""
    (kappa, taper, c), (kappa_n, taper_n, c_n) = jax.jvp(coefficients, (n,), (jnp.ones_like(n),))
    # The derivative's own coefficients, a few per source, instead of a longer recurrence per mode.
    c_u = 2 * jnp.sum(jnp.asarray(_DERIVATIVE, dtype=n.dtype) * c[None, :], axis=1)
    half, half_n = jax.jvp(lambda n: 0.5 / _inside(n), (n,), (jnp.ones_like(n),))
    d, decline = 1 + kappa * q, 1 + taper * q
    log_d = jnp.log(d)
    u = jnp.exp(-half * log_d)
    series = _chebyshev_sum(u, c)
    by_log_u = u * (series + u * _chebyshev_sum(u, c_u))
    # Each ends in a division, because XLA takes one as too dear to repeat: slopes that end in a
    # product are computed anew in every column that they enter, 20 ns a mode for six columns.
    value = u * series / decline
    by_q = -(half * kappa * by_log_u / d + taper * value) / decline
    log_u_by_n = -half_n * log_d - half * kappa_n * q / d
    by_n = (by_log_u * log_u_by_n + u * _chebyshev_sum(u, c_n) - taper_n * q * value) / decline
    return value, by_q, by_n


def _chebyshev_sum(u: Float[Array, "*k"], c: Float[Array, "term"]) -> Float[Array, "*k"]:
    r"""$\sum_j c_j T_j(2u - 1)$ by Clenshaw's recurrence, unrolled: one vector loop over modes."""
    twice_x = 4 * u - 2
    newer, older = jnp.broadcast_to(c[-1], u.shape), jnp.zeros_like(u)
    for j in range(c.shape[0] - 2, 0, -1):
        # In this order the chain from step to step is one multiply-add: 10 % of the whole.
        newer, older = twice_x * newer + (c[j] - older), newer
    return 0.5 * twice_x * newer + (c[0] - older)


def surface_brightness(
    r_squared: Float[ArrayLike, "*p"], index: Float[ArrayLike, ""]
) -> Float[Array, "*p"]:
    r"""Sersic profile of unit flux, per area of $r_e^2$.

    - `r_squared`: $(r / r_e)^2$, where $r_e$ is the half-light radius; not negative.
    - `index`: $n$, between 0.5 and 6.2.

    At the centre the derivative in `r_squared` is infinite for $n > 0.5$, and 0 is given.

    ??? cite
        Graham & Driver (2005), PASA 22, 118, eqs. 1 and 2.
    """
    dtype = jnp.result_type(r_squared, index, 0.0)
    r_squared, n = jnp.asarray(r_squared, dtype=dtype), _inside(jnp.asarray(index, dtype=dtype))
    # `where` on both sides: the derivative of the branch not taken must be finite too.
    off_centre = r_squared > 1e-20
    log_r = 0.5 * jnp.log(jnp.where(off_centre, r_squared, 1))
    power = jnp.where(off_centre, jnp.exp(log_r / n), 0)
    # The gamma function in a series: written out, it trebles the time to compile.
    log_brightness = _inverse_powers(_BRIGHTNESS_SERIES, n) - 0.5 * jnp.log(n)
    return jnp.exp(log_brightness - sersic_b(n) * (power - 1))


def sersic_b(index: Float[ArrayLike, ""]) -> Float[Array, ""]:
    r"""$b_n$, for which half of the light lies within $r_e$; to 1e-8 for $n$ in 0.5 to 6.2.

    ??? cite
        The form: Ciotti & Bertin (1999), A&A 352, 447, whose own series is wrong by 3e-4 at 0.5.
    """
    index = jnp.asarray(index, dtype=jnp.result_type(index, 0.0))
    return 2 * index + _inverse_powers(_B_SERIES, index)


def _inverse_powers(series: list[float], index: Float[Array, ""]) -> Float[Array, ""]:
    total = jnp.zeros_like(index)
    for term in reversed(series):
        total = term + total / index
    return total


def _inside(index: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.clip(index, _LEAST, _GREATEST)
