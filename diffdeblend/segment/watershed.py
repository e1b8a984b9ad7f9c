"""A flood from markers downhill, all pixels of a stamp at once, on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.backend import Backend, on_host
from diffdeblend.segment.around import follow, shifted, touching
from diffdeblend.segment.flood import flood
from diffdeblend.segment.pixel_list import list_pixels
from diffdeblend.segment.sources import check_connectivity


def watershed(
    data: Any,
    markers: Any,
    *,
    mask: Any = None,
    connectivity: int = 8,
    backend: Backend = "auto",
) -> Int[np.ndarray, "y x"]:
    """The marker from which a flood reaches each pixel first, higher pixels before lower ones.

    The regions of scikit-image's `watershed(-data, markers, mask=mask)` wherever no two pixels are
    equally high.

    - `data`: shape `(y, x)`. What is not finite is reached last.
    - `markers`: positive integers of that shape, 0 where there is none.
    - `mask`: True on the pixels to be flooded; all if None.
    - `connectivity`: 8, or 4 if a flood goes over edges only.

    **Raises:** `ValueError` for shapes that do not fit or another argument out of its range.

    ??? cite
        Meyer (1994), Signal Processing 38, 113.
    """
    image, start = np.asarray(data), np.asarray(markers)
    if image.ndim != 2 or image.dtype.kind not in "fiub":
        raise ValueError(f"`data` needs real numbers, (y, x); got {image.dtype}, {image.shape}.")
    inside = np.ones(image.shape, bool) if mask is None else np.asarray(mask, bool)
    if start.dtype.kind not in "iu" or start.shape != image.shape or start.min(initial=0) < 0:
        raise ValueError(
            f"`markers` needs integers from 0 of shape {image.shape}; "
            f"got {start.dtype} of shape {start.shape}."
        )
    if inside.shape != image.shape:
        raise ValueError(f"`mask` needs the shape of `data`, {image.shape}; got {inside.shape}.")
    check_connectivity(connectivity)
    host = on_host(backend)
    if image.dtype not in (np.float32, np.float64):
        image = image.astype(float)
    if not host:
        image = for_device(image)
    image = np.where(np.isfinite(image), image, np.finfo(image.dtype).min)
    start = np.where(inside, start, 0).astype(np.int32)
    if not host:
        found = _compiled(jnp.asarray(image), jnp.asarray(start), jnp.asarray(inside), connectivity)
        return np.asarray(found)
    place = np.flatnonzero(inside)
    parent = np.zeros(len(place), np.int32)
    values = image.reshape(-1)[place]
    pixels = list_pixels(place, values, parent, (1, *image.shape), connectivity, least_peaks=0)
    found = np.zeros(image.size, np.int32)
    found[place] = flood(pixels.value, pixels.neighbours, start.reshape(-1)[place])
    return found.reshape(image.shape)


def for_device(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Pixels in the dtype that JAX has for floats; what is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return values.astype(jnp.result_type(float), copy=False)


def flood_stamp(
    value: Float[Array, "y x"],
    markers: Int[Array, "y x"],
    labels: Int[Array, "y x"],
    connectivity: int = 8,
) -> Int[Array, "y x"]:
    """`watershed` within each label of a stamp. For `jit` and `vmap`.

    As `flood` on the host, with one array over all pixels in place of each list.

    - `value`: finite where there is a label. `labels`: 0 where nothing is flooded.
    """
    size, shape = value.size, value.shape
    index = jnp.arange(size, dtype=jnp.int32)
    grid = index.reshape(shape)
    near = list(
        zip(
            touching(labels, connectivity),
            shifted(value, connectivity),
            shifted(grid, connectivity),
            strict=True,
        )
    )
    free = (labels > 0) & (markers == 0)
    top = follow(jnp.where(free, highest(value, near), grid).reshape(-1))
    hilly = (free & (markers.reshape(-1)[top].reshape(shape) == 0)).reshape(-1)
    level = jnp.full(size, jnp.inf, value.dtype)
    level = level.at[jnp.where(hilly, top, size)].set(-jnp.inf, mode="drop")
    crosses = [
        touches & (other != top.reshape(shape))
        for (touches, _, _), other in zip(
            near, shifted(top.reshape(shape), connectivity), strict=True
        )
    ]
    hill = jnp.where(hilly, top, size)

    def enter(state: tuple[Array, ...]) -> tuple[Array, ...]:
        level, door, outside, _ = state
        ways = shifted(level[top].reshape(shape), connectivity)
        best = jnp.full(shape, -jnp.inf, value.dtype)
        beyond = grid
        for crosses_here, (_, seen, other), way in zip(crosses, near, ways, strict=True):
            over = jnp.where(crosses_here, jnp.minimum(jnp.minimum(value, seen), way), -jnp.inf)
            beyond = jnp.where(over > best, other, beyond)
            best = jnp.maximum(best, over)
        best, beyond = best.reshape(-1), beyond.reshape(-1)
        most = jnp.full(size, -jnp.inf, value.dtype).at[hill].max(best, mode="drop")
        gains = most > level
        winner = hilly & (best == most[top])
        first = jnp.full(size, size, jnp.int32)
        first = first.at[jnp.where(winner, top, size)].min(index, mode="drop")
        # Only who gains is changed: ways stay free of circles.
        first = jnp.minimum(first, size - 1)
        door = jnp.where(gains, first, door)
        outside = jnp.where(gains, beyond[first], outside)
        return jnp.where(gains, most, level), door, outside, jnp.any(gains)

    # Of each hill the pixel that is reached first, and from which one outside.
    level, door, outside, _ = jax.lax.while_loop(
        lambda state: state[3], enter, (level, index, index, jnp.any(hilly))
    )
    own = level[top].reshape(shape)
    door_here, outside_here = door[top].reshape(shape), outside[top].reshape(shape)
    at_once = hilly.reshape(shape) & (value >= own)
    is_door = at_once & (door_here == grid)
    # A door that is the pass itself may be open to several sides: it chooses as any other pixel.
    is_pass = is_door & (value == own)
    at_once &= ~is_pass
    reached = jnp.where(free, jnp.minimum(value, own), value)
    best, target = _first_reached(reached, ~at_once, near, grid, connectivity)
    target = jnp.where(is_pass & (best <= value), outside_here, target)
    target = jnp.where(at_once, jnp.where(is_door, outside_here, door_here), target)
    target = jnp.where(free, target, grid)
    return markers.reshape(-1)[follow(target.reshape(-1))].reshape(shape)


def highest(
    value: Float[Array, "y x"], near: list[tuple[Array, Array, Array]]
) -> Int[Array, "y x"]:
    """The highest of a pixel and its neighbours; of equals a later one than the pixel itself.

    - `near`: of each direction in raster order whether there is a neighbour, its value and index.
    """
    best = value
    target = jnp.arange(value.size, dtype=jnp.int32).reshape(value.shape)
    for direction, (touches, seen, other) in enumerate(near):
        better = seen >= best if direction >= len(near) // 2 else seen > best
        better &= touches
        best, target = jnp.where(better, seen, best), jnp.where(better, other, target)
    return target


def _first_reached(
    reached: Float[Array, "y x"],
    plain: Bool[Array, "y x"],
    near: list[tuple[Array, Array, Array]],
    grid: Int[Array, "y x"],
    connectivity: int,
) -> tuple[Float[Array, "y x"], Int[Array, "y x"]]:
    """When the first neighbour is reached, and which it is.

    Of equals one that is not taken at once from a pass.
    """
    best = jnp.full(reached.shape, -jnp.inf, reached.dtype)
    best_plain, target = jnp.zeros(reached.shape, bool), grid
    seen_by = zip(shifted(reached, connectivity), shifted(plain, connectivity), strict=True)
    for (touches, _, other), (seen, seen_plain) in zip(near, seen_by, strict=True):
        better = (seen > best) | ((seen == best) & (seen_plain >= best_plain))
        better &= touches
        best = jnp.where(better, seen, best)
        best_plain = jnp.where(better, seen_plain, best_plain)
        target = jnp.where(better, other, target)
    return best, target


def _watershed(value: Array, markers: Array, inside: Array, connectivity: int) -> Array:
    return flood_stamp(value, markers, inside.astype(jnp.int32), connectivity)


_compiled = jax.jit(_watershed, static_argnums=3)
