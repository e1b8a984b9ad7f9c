"""Templates that never rise from the peak outwards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# How many rings of pixels cast their shadow at once, and how far it falls.
CHUNK = 5
# Half the opening of the shadow, as a slope.
SLOPE = 0.3


class Shadows(NamedTuple):
    """Who casts a shadow on whom, for stamps of one shape. Host side.

    - `order`: pixels of the stamp by their ring about the peak; `place`: where each is in that.
    - `start`: of each chunk of rings that cast, the first place that its shadow may fall on.
    - `casters`: of each chunk, for each place from there, of those that cast on it their places;
        its own fills up.
    """

    order: Int[np.ndarray, "pixel"]
    place: Int[np.ndarray, "pixel"]
    start: tuple[int, ...]
    casters: tuple[Int[np.ndarray, "target caster"], ...]


def shadows(shape: tuple[int, int]) -> Shadows:
    """The shadows on stamps of a shape, odd along both axes, with the peak in the middle.

    A pixel at (dx, dy) from the peak, |dx| >= |dy|, casts on those 1 to 5 columns farther out:
    in the column s farther on the pixels that the wedge of lines from it with slopes
    dy / |dx| - 0.3 to dy / |dx| + 0.3 comes nearest to. Likewise with x and y exchanged where
    |dy| > |dx|. The peak casts on all within 5 rings.
    """
    height, width = shape
    y, x = (v.ravel() for v in np.indices(shape))
    dy, dx = y - height // 2, x - width // 2
    ring = np.maximum(np.abs(dx), np.abs(dy))
    order = np.argsort(ring, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    last = int(ring.max(initial=0))
    first = np.searchsorted(ring[order], np.arange(last + 2))
    caster, target = _pairs(dx, dy, ring, shape)
    chunk = ring[caster] // CHUNK
    start, found = [], []
    for number in range((last - 1) // CHUNK + 1):
        mine = chunk == number
        low = first[number * CHUNK + 1]
        # Off the diagonal a wedge reaches two rings farther than it has steps.
        high = first[min((number + 2) * CHUNK + 2, last + 1)]
        start.append(int(low))
        found.append(_padded(place[caster[mine]], place[target[mine]], low, high))
    return Shadows(order, place, tuple(start), tuple(found))


def _pairs(
    dx: np.ndarray, dy: np.ndarray, ring: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a pixel and one that its shadow falls on."""
    height, width = shape
    pixel = np.arange(dx.size)
    wide = np.abs(dx) >= np.abs(dy)
    major, minor = np.where(wide, dx, dy), np.where(wide, dy, dx)
    slope = minor / np.maximum(np.abs(major), 1)
    casters, targets = [], []
    for step in range(1, CHUNK + 1):
        low = np.floor(minor + step * (slope - SLOPE) + 0.5).astype(int)
        high = np.floor(minor + step * (slope + SLOPE) + 0.5).astype(int)
        along = major + step * np.sign(major)
        for more in range(int((high - low).max(initial=0)) + 1):
            across = low + more
            to_x, to_y = np.where(wide, along, across), np.where(wide, across, along)
            falls = (ring > 0) & (across <= high)
            falls &= (np.abs(to_x) <= width // 2) & (np.abs(to_y) <= height // 2)
            casters.append(pixel[falls])
            targets.append(((to_y + height // 2) * width + to_x + width // 2)[falls])
    middle = (height // 2) * width + width // 2
    near = pixel[(ring > 0) & (ring <= CHUNK)]
    return (
        np.concatenate([*casters, np.full(near.size, middle)]),
        np.concatenate([*targets, near]),
    )


def _padded(caster: np.ndarray, target: np.ndarray, low: int, high: int) -> np.ndarray:
    """The casters of each place from `low` to `high`, a row a target."""
    order = np.argsort(target, kind="stable")
    caster, target = caster[order], target[order] - low
    count = np.bincount(target, minlength=high - low)
    start = np.cumsum(count) - count
    table = np.repeat(np.arange(low, high, dtype=np.int32)[:, None], count.max(initial=1), axis=1)
    table[target, np.arange(target.size) - start[target]] = caster
    return table


@jax.jit
def monotone(templates: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Each template with no pixel brighter than one that casts its shadow on it.

    From the peak outwards in square rings, five at a time: a pixel becomes the least of itself and
    of those that cast on it, as these were before the five rings began. See `shadows`.

    - `templates`: of odd sides, with the peak in the middle pixel.

    ??? cite
        Bosch et al. (2018), PASJ 70, S5, section 4.8.1.
    """
    n, height, width = templates.shape
    # Who casts on whom is known when the program is compiled.
    cast = shadows((height, width))
    # Stamps last: what is gathered is then a row of memory, not a number.
    values = templates.reshape(n, height * width).T[cast.order]
    for start, casters in zip(cast.start, cast.casters, strict=True):
        part = slice(start, start + len(casters))
        least = values[part]
        for one in casters.T:
            least = jnp.minimum(least, values[one])
        values = values.at[part].set(least)
    return values[cast.place].T.reshape(n, height, width)
