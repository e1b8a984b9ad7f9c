"""Point, hit or motion: what explains best what stands on a place of a proper difference."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import mode_counts
from diffdeblend.subtract.filters import shift_plane
from diffdeblend.transients.templates import PLANE, Pair, Templates, product, templates

# Hits that are taken away from one stamp, at most: a track has many.
_MOST_HITS = 24
# Less than this is noise somewhere on a stamp.
_LEAST_HIT = 5.0
# Noise lifts the largest of some pixels so far above what a point gives there.
_NOISE = 1.5


class Place(NamedTuple):
    """What stands on one place of a difference; significances in standard deviations of white D.

    - `x`, `y`: where a point fits best, from the middle of the stamp, in pixels.
    - `point`: its significance there, signed; `curvature_x`, `curvature_y`: minus its second
        derivatives, of its absolute value.
    - `hit_new`, `hit_reference`: the largest of a hit within two pixels.
    - `hit_limit_new`, `hit_limit_reference`: what is more than a point would give.
    - `motion`: the largest Z^2 within three pixels, chi^2 of two degrees of freedom.
    - `left`: significance of a point within a pixel once all hits around are taken away.
    - `chi2`: mean square of the 9 x 9 pixels around once the point is taken away.
    - `n_hits`: hits that were taken away.
    """

    x: Any
    y: Any
    point: Any
    curvature_x: Any
    curvature_y: Any
    hit_new: Any
    hit_reference: Any
    hit_limit_new: Any
    hit_limit_reference: Any
    motion: Any
    left: Any
    chi2: Any
    n_hits: Any


def judge_place(stamp: Float[Array, "size size"], made: Templates) -> Place:
    """How points, hits and motion explain the middle of a stamp of D, of odd size. Pure; vmap it.

    A point of significance S gives a hit r S + noise, with r the product of the two templates; a
    hit of significance H gives a point r H. Halfway in between, and more than noise away, is the
    limit. Hits above it are taken away one after the other, the strongest first, until none is
    left: what then is left of the point says whether a hit beside it made it.
    """
    size = stamp.shape[0]
    middle = size // 2
    data = jnp.fft.rfft2(stamp, (PLANE, PLANE))
    hits = made.hit_new, made.hit_reference
    ratios = [jnp.abs(product(made.point, hit)) for hit in hits]

    def back(plane: Array) -> Array:
        return jnp.fft.irfft2(plane, (PLANE, PLANE))

    def seen(template: Array) -> Array:
        return back(data * jnp.conj(template))[:size, :size]

    point = seen(made.point)
    responses = [seen(hit) for hit in hits]
    # How each hit, put on the middle of a table, shows in the maps of points and of hits.
    tables = [
        [jnp.fft.fftshift(back(hit * jnp.conj(to))) for to in (made.point, *hits)] for hit in hits
    ]
    known = (jnp.arange(size) > 1) & (jnp.arange(size) < size - 2)
    known = known[:, None] & known

    def strongest(maps: tuple[Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        """Of the hits above their limit the one with the largest amplitude: which, where."""
        nearby = _largest_around(jnp.abs(maps[0]), 2)
        over = [
            jnp.where(known & (h > jnp.maximum(_limit(nearby, r), _LEAST_HIT)), h, 0)
            for h, r in zip(maps[1:], ratios, strict=True)
        ]
        best = [jnp.argmax(h) for h in over]
        height = [h.reshape(-1)[k] for h, k in zip(over, best, strict=True)]
        which = (height[1] > height[0]).astype(jnp.int32)
        place = jnp.where(which == 1, best[1], best[0])
        return which, place // size, place % size, jnp.maximum(*height)

    def take_away(state: tuple) -> tuple:
        maps, _, n = state
        which, row, column, height = strongest(maps)
        start = PLANE // 2 - row, PLANE // 2 - column
        less = [
            jnp.where(
                which == 1,
                jax.lax.dynamic_slice(second, start, (size, size)),
                jax.lax.dynamic_slice(first, start, (size, size)),
            )
            for first, second in zip(*tables, strict=True)
        ]
        maps = tuple(m - height * part for m, part in zip(maps, less, strict=True))
        return maps, height > 0, n + (height > 0)

    def goes_on(state: tuple) -> Array:
        return state[1] & (state[2] < _MOST_HITS)

    first = ((point, *responses), jnp.asarray(True), jnp.asarray(0))
    cleaned, _, n_hits = jax.lax.while_loop(goes_on, take_away, first)

    def around(values: Array, reach: int) -> Array:
        part = slice(middle - reach, middle + reach + 1)
        return jnp.max(values[part, part])

    moved_x, moved_y = seen(made.moved_x), seen(made.moved_y)
    c = made.overlap
    motion = (moved_x**2 + moved_y**2 - 2 * c * moved_x * moved_y) / jnp.maximum(1 - c**2, 1e-3)
    x, y, peak, bend_x, bend_y = _best_point(data * jnp.conj(made.point), middle, point)
    model = peak * back(made.point * shift_plane(x + middle, y + middle, (PLANE, PLANE)))
    near = slice(middle - 4, middle + 5)
    chi2 = jnp.mean((stamp - model[:size, :size])[near, near] ** 2)
    strength = around(jnp.abs(point), 2)
    return Place(
        x,
        y,
        peak,
        bend_x,
        bend_y,
        around(responses[0], 2),
        around(responses[1], 2),
        _limit(strength, ratios[0]),
        _limit(strength, ratios[1]),
        around(motion, 3),
        around(cleaned[0] * jnp.sign(peak), 1),
        chi2,
        n_hits,
    )


def _limit(point: Array, ratio: Array) -> Array:
    """Above this a hit explains more than a point of this significance does."""
    return 0.5 * (1 + ratio) * point + _NOISE


def _largest_around(values: Array, reach: int) -> Array:
    window = (2 * reach + 1, 2 * reach + 1)
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, (1, 1), "SAME")


def _best_point(both: Array, middle: int, point: Array) -> tuple[Array, ...]:
    """Place, value and curvatures of the extremum of a correlation next to the middle.

    Newton's steps on the Fourier series itself, so that there is no interpolation.
    """
    weighted = both * jnp.asarray(mode_counts(PLANE) / PLANE**2, point.dtype)
    ky = jnp.asarray(2 * np.pi * np.fft.fftfreq(PLANE), point.dtype)
    kx = jnp.asarray(2 * np.pi * np.fft.rfftfreq(PLANE), point.dtype)
    sign = jnp.sign(point[middle, middle])

    def terms(x: Array, y: Array) -> tuple[Array, ...]:
        wave_y = jnp.exp(1j * ky * (y + middle))
        rows = jnp.stack([wave_y, 1j * ky * wave_y, -(ky**2) * wave_y]) @ weighted
        wave_x = jnp.exp(1j * kx * (x + middle))
        table = (rows @ jnp.stack([wave_x, 1j * kx * wave_x, -(kx**2) * wave_x]).T).real * sign
        return table[0, 0], table[0, 1], table[1, 0], table[0, 2], table[2, 0], table[1, 1]

    x, y = jnp.zeros_like(sign), jnp.zeros_like(sign)
    for _ in range(4):
        _, x1, y1, xx, yy, xy = terms(x, y)
        # Off a maximum the Hessian may point anywhere; its diagonal is safe.
        determinant = xx * yy - xy**2
        sound = (xx < 0) & (yy < 0) & (determinant > 0.05 * xx * yy)
        safe = jnp.where(sound, determinant, 1)
        step_x = jnp.where(sound, -(yy * x1 - xy * y1) / safe, 0)
        step_y = jnp.where(sound, -(xx * y1 - xy * x1) / safe, 0)
        x = jnp.clip(x + jnp.clip(step_x, -0.4, 0.4), -1, 1)
        y = jnp.clip(y + jnp.clip(step_y, -0.4, 0.4), -1, 1)
    value, _, _, xx, yy, _ = terms(x, y)
    return x, y, value * sign, jnp.maximum(-xx, 0), jnp.maximum(-yy, 0)


@jax.jit
def judge_places(stamps: Float[Array, "place size size"], pair: Pair) -> tuple[Place, Array]:
    """`judge_place` for many, and the norms of their templates of points.

    `pair`: fields with a leading axis `place`, or without one where they are the same for all.
    """
    ranks = (2, 2, 0, 0, 0, 0, 0)
    axes = Pair._make(None if jnp.ndim(v) == r else 0 for v, r in zip(pair, ranks, strict=True))
    if all(axis is None for axis in axes):
        made = templates(pair)
        norm = jnp.broadcast_to(made.norm, stamps.shape[:1])
        return jax.vmap(judge_place, in_axes=(0, None))(stamps, made), norm
    made = jax.vmap(templates, in_axes=(axes,))(pair)
    return jax.vmap(judge_place)(stamps, made), made.norm
