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
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

# Made by `build_radial_table.py`: cubics in ln n, highest power first, one interval a row.
with np.load(Path(__file__).with_name("radial_table.npz")) as _table:
    _PIECES = _table["pieces"]
    _START, _STEP = float(_table["start"]), float(_table["step"])

# The intervals cover 0.5 to 6.2 and one node more on either side.
_LEAST, _GREATEST = np.exp(_START), np.exp(_START + _STEP * len(_PIECES))

# Turns the coefficients of a Chebyshev series into those of its derivative.
_DERIVATIVE = np.polynomial.chebyshev.chebder(np.eye(_PIECES.shape[2] - 2))

# b - 2n in powers of 1/n, constant term first: least squares on n in 0.4 to 8.
_B_SERIES = (
    -3.33333542e-01,
    9.87947111e-03,
    1.78782641e-03,
    1.19508088e-04,
    -1.29800461e-04,
    2.54604859e-05,
    -1.92995846e-06,
)


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
    # Not log1p: rounding 1 + y moves S by 1e-7 at most, and log takes two thirds of the time.
    u = jnp.exp(-0.5 / _inside(index) * jnp.log(1 + kappa_squared * q_squared))
    return u * _chebyshev_sum(u, c) / (1 + taper_squared * q_squared)


# By hand, because autodiff of the recurrence keeps or repeats its 20 steps for every column: with
# this a gradient takes 8 ns a mode and not 21, six Gauss-Newton columns 9 and not 33 (float32, one
# core). The rule is ordinary code and can be differentiated again.
@jax.custom_jvp
def _transform(q_squared: Float[Array, "*k"], index: Float[Array, ""]) -> Float[Array, "*k"]:
    return radial(q_squared, index, *coefficients(index))


@_transform.defjvp
def _transform_jvp(primals, tangents):
    (q, n), (dq, dn) = primals, tangents
    inside = _inside(n)
    (kappa, taper, c), (kappa_n, taper_n, c_n) = jax.jvp(coefficients, (n,), (jnp.ones_like(n),))
    d, taper_factor = 1 + kappa * q, 1 + taper * q
    log_d = jnp.log(d)
    u = jnp.exp(-0.5 / inside * log_d)
    series = _chebyshev_sum(u, c)
    # The derivative's own coefficients, a few per source, instead of a longer recurrence per mode.
    c_u = 2 * jnp.sum(jnp.asarray(_DERIVATIVE, dtype=n.dtype) * c, axis=1)
    u_slope = u * (series + u * _chebyshev_sum(u, c_u))
    # Each ends in a division, because XLA takes one as too dear to repeat: slopes that end in a
    # product are computed anew in every column that they enter, 20 ns a mode for six columns.
    value = u * series / taper_factor
    q_slope = -(0.5 / inside * kappa * u_slope / d + taper * value) / taper_factor
    u_n = 0.5 / inside * (log_d / inside - kappa_n * q / d)
    n_slope = (u_slope * u_n + u * _chebyshev_sum(u, c_n) - taper_n * q * value) / taper_factor
    return value, q_slope * dq + n_slope * dn


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
    b = sersic_b(n)
    log_norm = jnp.log(2 * jnp.pi * n) + jax.scipy.special.gammaln(2 * n) - 2 * n * jnp.log(b)
    # `where` on both sides: the derivative of the branch not taken must be finite too.
    off_centre = r_squared > 1e-20
    log_r = 0.5 * jnp.log(jnp.where(off_centre, r_squared, 1))
    return jnp.exp(-b * jnp.where(off_centre, jnp.exp(log_r / n), 0) - log_norm)


def sersic_b(index: Float[ArrayLike, ""]) -> Float[Array, ""]:
    r"""$b_n$, for which half of the light lies within $r_e$; to 1e-8 for $n$ in 0.5 to 6.2.

    ??? cite
        The form: Ciotti & Bertin (1999), A&A 352, 447, whose own series is wrong by 3e-4 at 0.5.
    """
    index = jnp.asarray(index, dtype=jnp.result_type(index, 0.0))
    tail = jnp.zeros_like(index)
    for term in reversed(_B_SERIES):
        tail = term + tail / index
    return 2 * index + tail


def _inside(index: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.clip(index, _LEAST, _GREATEST)
