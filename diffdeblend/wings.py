"""Light that comes back around the period of the series from the far wings of a profile.

Far wings are smooth: they are summed at a few Chebyshev nodes and interpolated. Copies farther
than `_COPIES` periods are one number, the integral of the light out there: without it a galaxy of
n = 6 and 15 pixels radius has 0.6 % too much light in a stamp of 120 pixels.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT
from diffdeblend.grid import Grid

# Copies on either side of the stamp that are summed one by one.
_COPIES = 3
# Chebyshev nodes on each axis.
N_NODES = 10


def wrapped_wings(
    wings: Callable[[Array, Array], Array], grid: Grid, dtype: Any
) -> Float[Array, "slot node node"]:
    """What wraps around, at the nodes of a stamp.

    - `wings`: surface brightness of all slots at points x and y, `(slot, p)`.
    """
    y, _ = _chebyshev(grid.ny)
    x, _ = _chebyshev(grid.nx)
    near = range(-_COPIES, _COPIES + 1)
    copies = [(j, i) for j in near for i in near if (j, i) != (0, 0)]
    jy, ix = (np.array(c, dtype=float) for c in zip(*copies, strict=True))
    copy_y = jy[:, None, None] * grid.period_y + y[None, :, None] + 0 * x
    copy_x = ix[:, None, None] * grid.period_x + 0 * y[None, :, None] + x
    far_y, far_x, share = _outside(grid)
    flat_x, flat_y, share = (
        jnp.asarray(values, dtype=dtype)
        for values in (
            np.concatenate([copy_x.reshape(-1), far_x]),
            np.concatenate([copy_y.reshape(-1), far_y]),
            share,
        )
    )
    light = wings(flat_x, flat_y)
    at_nodes = light[:, : copy_x.size].reshape(-1, len(copies), N_NODES, N_NODES).sum(axis=1)
    return at_nodes + jnp.sum(light[:, copy_x.size :] * share, axis=1)[:, None, None]


def spread_wings(at_nodes: Float[Array, "*n node node"], grid: Grid) -> Float[Array, "*n y x"]:
    """From the nodes to the pixels."""
    to_y, to_x = (
        jnp.asarray(_chebyshev(length)[1], dtype=at_nodes.dtype) for length in (grid.ny, grid.nx)
    )
    return jnp.einsum("yj,...ji,xi->...yx", to_y, at_nodes, to_x, precision=EXACT)


def _outside(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and weights of an integral over all places beyond the copies summed one by one.

    On rectangles around the stamp: Gauss-Legendre in the logarithm of their size, up to 100 times
    the first, and along each half of a side. Weights are in units of the area of a period, of
    which each holds one copy of a pixel.
    """
    log_size, weight_size = _gauss(12, 0.0, np.log(100.0))
    halves = [_gauss(3, -1.0, 0.0), _gauss(3, 0.0, 1.0)]
    along = np.concatenate([h[0] for h in halves])
    weight_along = np.concatenate([h[1] for h in halves])
    one = np.ones_like(along)
    side_x = np.concatenate([one, -one, along, along])
    side_y = np.concatenate([along, along, one, -one])
    half = _COPIES + 0.5
    size = half * np.exp(log_size)[:, None]
    # Area between two rectangles: s ds along each unit of a side, and ds = s d(ln s).
    share = size**2 * weight_size[:, None] * np.tile(weight_along, 4)
    y = (grid.ny - 1) / 2 + size * side_y * grid.period_y
    x = (grid.nx - 1) / 2 + size * side_x * grid.period_x
    return y.reshape(-1), x.reshape(-1), share.reshape(-1)


def _gauss(points: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of a Gauss-Legendre integral from `low` to `high`."""
    t, weight = np.polynomial.legendre.leggauss(points)
    return low + (high - low) * (t + 1) / 2, weight * (high - low) / 2


def _chebyshev(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes on pixels 0 to length - 1, and the matrix that interpolates from them."""
    t = np.cos(np.pi * (np.arange(N_NODES) + 0.5) / N_NODES)
    middle = (length - 1) / 2
    wanted = (np.arange(length) - middle) / max(middle, 0.5)
    matrix = np.polynomial.chebyshev.chebvander(wanted, N_NODES - 1) @ np.linalg.inv(
        np.polynomial.chebyshev.chebvander(t, N_NODES - 1)
    )
    return middle + t * max(middle, 0.5), matrix
