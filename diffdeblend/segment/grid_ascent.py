"""Uphill from pixel to pixel on a smoothed image: DENCLUE at a hundredth of its price."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.segment import pixel_list
from diffdeblend.segment.around import STEPS, follow
from diffdeblend.segment.members import Members
from diffdeblend.segment.windows_of_members import draw_windows


def climb_grid(members: Members, h: Float[np.ndarray, "group"]) -> Int[np.ndarray, "n"]:
    """The maximum that each pixel climbs to, as a row of the list of members. Host side.

    The density is the light of the cluster smoothed with a Gaussian of width `h`, at pixel
    centres. A pixel goes to the one of its eight neighbours in the cluster to which the way is the
    steepest, until none is higher; of equals to the first in raster order.
    """
    top = np.arange(len(members.x))
    for windows in draw_windows(members):
        size = windows.size
        reach = np.arange(size)
        smooth = np.exp(-0.5 * ((reach[:, None] - reach) / h[windows.group, None, None]) ** 2)
        smooth = smooth.astype(windows.light.dtype)
        density = np.full((len(windows.group), size + 2, size + 2), -1, windows.light.dtype)
        inside = np.zeros(windows.light.shape, bool)
        inside.ravel()[windows.slot] = True
        density[:, 1:-1, 1:-1] = np.where(inside, smooth @ windows.light @ smooth, -1)
        # On the list of members alone: most of a window is empty.
        flat = density.ravel()
        width = size + 2
        window, place = np.divmod(windows.slot, size * size)
        y, x = np.divmod(place, size)
        here = (window * width + y + 1) * width + x + 1
        best, slope = here.copy(), np.zeros(len(here), flat.dtype)
        for dy, dx in STEPS[8]:
            there = here + dy * width + dx
            rise = (flat[there] - flat[here]) * flat.dtype.type(1 / np.hypot(dy, dx))
            # Level ground leads to earlier pixels only, so that no way is a circle.
            steeper = (rise > slope) | ((rise == slope) & (there < best))
            best = np.where(steeper, there, best)
            slope = np.where(steeper, rise, slope)
        number = np.full(flat.size, -1)
        number[here] = np.arange(len(here))
        top[windows.row] = windows.row[pixel_list.follow(number[best])]
    return top


def climb_stamp(
    light: Float[Array, "y x"], inside: Bool[Array, "y x"], h: Float[Array, ""]
) -> Int[Array, "y x"]:
    """The same for one cluster on a stamp, for use under jit and vmap.

    Gives the flat index of the pixel that each pixel climbs to, and -1 outside the cluster. It has
    no gradient.
    """
    height, width = light.shape
    light = jax.lax.stop_gradient(jnp.where(inside, jnp.maximum(light, 0), 0))
    rows, columns = (
        jnp.exp(-0.5 * ((jnp.arange(n)[:, None] - jnp.arange(n)) / h) ** 2).astype(light.dtype)
        for n in light.shape
    )
    density = jnp.matmul(rows, light, precision=Precision.HIGHEST)
    density = jnp.where(inside, jnp.matmul(density, columns, precision=Precision.HIGHEST), -1)
    padded = jnp.pad(density, 1, constant_values=-1)
    index = jnp.arange(height * width).reshape(height, width)
    best, slope = index, jnp.zeros_like(density)
    for dy, dx in STEPS[8]:
        other = jax.lax.dynamic_slice(padded, (1 + dy, 1 + dx), (height, width))
        there = index + dy * width + dx
        rise = (other - density) * float(1 / np.hypot(dy, dx))
        steeper = (rise > slope) | ((rise == slope) & (there < best))
        steeper &= inside & (other >= 0)
        best, slope = jnp.where(steeper, there, best), jnp.where(steeper, rise, slope)
    return jnp.where(inside, follow(best.ravel()).reshape(height, width), -1)
