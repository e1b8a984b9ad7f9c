"""How much of the light at a source's place is that of others."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]
# The window ends at so many standard deviations of the source.
_REACH = 3.0


class Blendedness(NamedTuple):
    """Scalars; 0 for a source alone, towards 1 where others outshine it; NaN without a shape.

    - `old`: child times parent over child times child, less 1: more than 1 in a bright blend.
    - `raw`: 1 - child / parent, of fluxes through a Gaussian window of the child's shape.
    - `abs`: the same of absolute pixel values less what noise adds to these; never negative.
    - `raw_child`, `raw_parent`, `abs_child`, `abs_parent`: those fluxes.
    - `flag`: no shape, or no light in the window.
    """

    old: Scalar
    raw: Scalar
    abs: Scalar
    raw_child: Scalar
    raw_parent: Scalar
    abs_child: Scalar
    abs_parent: Scalar
    flag: Bool[Array, ""]


def blendedness(
    child: Float[Array, "h w"],
    parent: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    x: Scalar,
    y: Scalar,
    xx: Scalar,
    yy: Scalar,
    xy: Scalar,
    used: Bool[Array, "h w"] | None = None,
) -> Blendedness:
    r"""Blendedness of one source. Pure; of many sources with `jax.vmap`.

    The flux through a window w is $\sum w \sum w d / \sum w^2$.

    - `child`: the source alone; `parent`: the image as it was; `variance`: of the parent's pixels.
    - `x`, `y`: the centre, and `xx`, `yy`, `xy` the second moments of the child, px^2.
    - `used`: pixels to use; all with a positive variance if not given.

    ??? cite
        Bosch et al. (2018), PASJ 70, S5, sec. 4.9.11.
    """
    child, parent, variance, x, y, xx, yy, xy = (
        jnp.asarray(v) for v in (child, parent, variance, x, y, xx, yy, xy)
    )
    used = variance > 0 if used is None else used & (variance > 0)
    det = xx * yy - xy**2
    known = (det > 0) & (xx > 0) & jnp.isfinite(det) & jnp.isfinite(x) & jnp.isfinite(y)
    x, y, xx, yy, xy, det = (
        jnp.where(known, value, default)
        for value, default in ((x, 0), (y, 0), (xx, 1), (yy, 1), (xy, 0), (det, 1))
    )
    rows, columns = (jnp.arange(n, dtype=child.dtype) for n in child.shape)
    dx, dy = columns - x, rows[:, None] - y
    q = (yy * dx * dx + xx * dy * dy - 2 * xy * dx * dy) / det
    window = jnp.where(used & (q < _REACH**2), jnp.exp(-0.5 * q), 0)
    power = jnp.sum(window**2)
    scale = jnp.sum(window) / jnp.where(power > 0, power, 1)
    sigma = jnp.sqrt(jnp.where(used, variance, 1))

    def flux(values: Array) -> Array:
        return scale * jnp.sum(window * jnp.where(used, values, 0))

    def absolute(values: Array) -> Array:
        # What the mean of |d| has more than the mean of d, for the value that was seen.
        mean = jnp.maximum(values, 0)
        bias = sigma * np.sqrt(2 / np.pi) * jnp.exp(-0.5 * (mean / sigma) ** 2) - mean * erfc(
            mean / (np.sqrt(2) * sigma)
        )
        return flux(jnp.abs(values) - bias)

    raw, whole, alone, together = flux(child), flux(parent), absolute(child), absolute(parent)
    own = jnp.sum(jnp.where(used, child * child, 0))
    both = jnp.sum(jnp.where(used, child * parent, 0))
    fails = ~known | ~(power > 0)
    nothing = jnp.where(fails, jnp.nan, 0)
    return Blendedness(
        jnp.where(own > 0, both / jnp.where(own > 0, own, 1) - 1, jnp.nan) + nothing,
        1 - _ratio(raw, whole) + nothing,
        jnp.maximum(1 - _ratio(jnp.maximum(alone, 0), together), 0) + nothing,
        *(raw + nothing, whole + nothing, alone + nothing, together + nothing),
        fails | ~(whole > 0) | ~(together > 0),
    )


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), jnp.nan)
