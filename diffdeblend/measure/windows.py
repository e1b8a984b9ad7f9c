"""Small windows around sources, cut from images and put through a function many at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from diffdeblend.cores import available_cores

# Sides of the windows, and how many go through the function together on a CPU. Few, as each
# compiles a program of its own; most apertures fit into the first. Many of one size, as sums go
# row by row over all of them, but not more than caches hold.
_SIDES = {24: 128, 64: 64, 256: 8, 1024: 1}
# Pixels of the windows that go through together on an accelerator.
_PIXELS = 2**24


class Window(NamedTuple):
    """The surroundings of one source. Where it leaves a small image, nothing is `good`.

    - `data`, `convolved`, `error`, `background`: pixel values, `(h, w)`; what there is no image of
        is 0, but for `convolved`, which then is `data`. What is not finite is 0, and what is not
        `good`; but `convolved` counts where it is not masked.
    - `labels`: of the label image, 0 where no source is.
    - `good`: unmasked and finite in `data`.
    - `label`: that of the source.
    - `x0`, `y0`: place of the first pixel in the image.
    - `ny`, `nx`: shape of the image.
    """

    data: Float[Array, "h w"]
    convolved: Float[Array, "h w"]
    error: Float[Array, "h w"]
    background: Float[Array, "h w"]
    labels: Int[Array, "h w"]
    good: Bool[Array, "h w"]
    label: Int[Array, ""]
    x0: Int[Array, ""]
    y0: Int[Array, ""]
    ny: Int[Array, ""]
    nx: Int[Array, ""]


class Planes(NamedTuple):
    """The images that windows are cut from, stacks `(stamp, y, x)`; one image is a stack of 1.

    - `mask`: true where a pixel is not to be used.
    """

    data: Any
    labels: Any
    convolved: Any = None
    error: Any = None
    background: Any = None
    mask: Any = None


def cut_window(
    planes: Planes,
    stamp: Int[Array, ""],
    label: Int[Array, ""],
    y0: Int[Array, ""],
    x0: Int[Array, ""],
    size: tuple[int, int],
) -> Window:
    """The window whose first pixel is (x0, y0), moved into the image where it would leave it.

    - `size`: height and width, at most those of the image. Static.
    """
    shape = planes.data.shape
    y0, x0 = (jnp.clip(s, 0, n - m) for s, n, m in zip((y0, x0), shape[1:], size, strict=True))

    def cut(plane: Array) -> Array:
        # All of one integer type, whatever the precision.
        at = [jnp.asarray(place, jnp.int32) for place in (stamp, y0, x0)]
        return lax.dynamic_slice(plane, at, (1, *size))[0]

    parts = Planes(*(None if plane is None else cut(plane) for plane in planes))
    return _window(parts, label, y0, x0, shape[1:])


def _window(parts: Planes, label: Array, y0: Array, x0: Array, shape: tuple[Any, Any]) -> Window:
    """The window made of pieces `(h, w)` of the images of `shape`."""
    data = parts.data
    shown = jnp.ones(data.shape, bool) if parts.mask is None else ~parts.mask
    good = jnp.isfinite(data) & shown

    def clean(values: Any, default: Array, used: Array) -> Array:
        if values is None:
            return default
        return jnp.where(used & jnp.isfinite(values), values, 0)

    data = jnp.where(good, data, 0)
    nothing = jnp.zeros_like(data)
    return Window(
        data=data,
        # Smoothing bridges what is not finite.
        convolved=clean(parts.convolved, data, shown),
        error=clean(parts.error, nothing, good),
        background=clean(parts.background, nothing, good),
        labels=parts.labels,
        good=good,
        label=jnp.asarray(label),
        x0=x0,
        y0=y0,
        ny=jnp.asarray(shape[0], jnp.int32),
        nx=jnp.asarray(shape[1], jnp.int32),
    )


def map_windows(
    function: Callable[..., Any],
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    boxes: Int[np.ndarray, "source 4"],
    arguments: Sequence[np.ndarray] = (),
    options: tuple = (),
) -> Any:
    """`function(window, *arguments[source], *options)` for every source; numpy arrays come back.

    Sources go into windows of a few sizes, the smallest that hold their boxes, and through a
    compiled program in chunks of a fixed number: a second call compiles nothing, how many sources
    there may be, and on CPU whatever the shape of the images. There, chunks run side by side on all
    cores.

    - `function`: of one source, pure; a pytree of arrays. The same object in every call, so that
        its program is found again.
    - `planes`: on CPU arrays of numpy, else of JAX: others are copied.
    - `boxes`: pixels that the windows have to hold, rows (y0, x0, y1, x1), the last being the one
        before (y1, x1); what lies outside the image is left out.
    - `arguments`: one row per source. `options`: hashable, the same for all sources.
    """
    shape = planes.data.shape
    n_sources = len(stamp)
    on_cpu = jax.default_backend() == "cpu"
    # XLA's gather on CPU takes three times as long as numpy's.
    kind = np.asarray if on_cpu else jnp.asarray
    planes = Planes(*(None if plane is None else kind(plane) for plane in planes))
    low, high = (np.clip(edge, 0, shape[1:]) for edge in (boxes[:, :2], boxes[:, 2:]))
    extent = (high - low).max(axis=1, initial=1)
    sides = np.array(list(_SIDES))
    size = sides[np.minimum(np.searchsorted(sides, extent), len(sides) - 1)]
    # Beyond the table by factors of two.
    over = 2 ** np.ceil(np.log2(np.maximum(extent / sides[-1], 1))).astype(int)
    size = size * over
    if on_cpu:
        planes = _padded(planes, int(size.max(initial=1)))
    else:
        # No window is larger than the image: all that are share one program.
        size = np.minimum(size, max(shape[1:]))
    start = low - (size[:, None] - (high - low)) // 2
    start = np.clip(start, 0, np.maximum(np.array(shape[1:]) - size[:, None], 0))
    rows = [np.asarray(a) for a in (stamp, label, start[:, 0], start[:, 1])]
    rows = [row.astype(np.int32) for row in rows]
    rows += [_as_jax(np.asarray(argument)) for argument in arguments]
    jobs = []
    for side in np.unique(size)[::-1].tolist():
        window = (side, side) if on_cpu else (min(side, shape[1]), min(side, shape[2]))
        capacity = _SIDES.get(side, 1) if on_cpu else max(1, _PIXELS // (window[0] * window[1]))
        chosen = np.flatnonzero(size == side)
        jobs += [
            (chosen[i : i + capacity], window, capacity) for i in range(0, len(chosen), capacity)
        ]
    if not jobs:
        one = [jax.ShapeDtypeStruct(row.shape[1:], row.dtype) for row in rows]
        run = partial(_one, function, options, (1, 1))
        empty = Planes(
            *(None if p is None else _as_jax(np.zeros((1, 1, 1), p.dtype)) for p in planes)
        )
        kinds = jax.eval_shape(run, Planes(*empty), *one)
        return jax.tree.map(lambda kind: np.zeros((0, *kind.shape), kind.dtype), kinds)
    double = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    # Values, and not part of the program.
    image = np.int32(shape[1]), np.int32(shape[2])

    def work(job: tuple) -> Any:
        chosen, window, capacity = job
        # Free places repeat the first source: their values are sound, and dropped.
        padded = np.full(capacity, chosen[0])
        padded[: len(chosen)] = chosen
        given = [row[padded] for row in rows]
        # A switch that was set for the caller's thread alone would not reach this one.
        with jax.enable_x64(double):
            if on_cpu:
                place = given[0], given[2], given[3]
                parts = [None if p is None else _cut_all(p, place, window) for p in planes]
                found = _pieces(function, options, image, Planes(*parts), *given[1:])
            else:
                found = _chunk(function, options, window, planes, *given)
            return jax.device_get(found)

    # The first of each size compiles its program, one after the other: each takes 150 MB.
    firsts = list({job[1]: job for job in reversed(jobs)}.values())
    found = {id(job): work(job) for job in firsts}
    rest = [job for job in jobs if id(job) not in found]
    with ThreadPoolExecutor(available_cores() if on_cpu else 1) as pool:
        found |= {id(job): done for job, done in zip(rest, pool.map(work, rest), strict=True)}

    def gather(*leaves: np.ndarray) -> np.ndarray:
        all_ = np.empty((n_sources, *leaves[0].shape[1:]), leaves[0].dtype)
        for (chosen, _, _), leaf in zip(jobs, leaves, strict=True):
            all_[chosen] = leaf[: len(chosen)]
        return all_

    return jax.tree.map(gather, *(found[id(job)] for job in jobs))


def _padded(planes: Planes, side: int) -> Planes:
    """Images that are at least so high and wide; what is added is not good."""
    short = [max(0, side - n) for n in planes.data.shape[1:]]
    if not any(short):
        return planes
    around = [(0, 0), (0, short[0]), (0, short[1])]
    wide = {
        name: np.pad(plane, around)
        for name, plane in planes._asdict().items()
        if plane is not None and name != "data"
    }
    data = planes.data.astype(np.promote_types(planes.data.dtype, np.float32), copy=False)
    return Planes(np.pad(data, around, constant_values=np.nan), **wide)


def _as_jax(values: np.ndarray) -> np.ndarray:
    """In the type that JAX would make of it."""
    return values.astype(jax.dtypes.canonicalize_dtype(values.dtype))


def _cut_all(plane: np.ndarray, place: tuple, size: tuple[int, int]) -> np.ndarray:
    """Windows of one image, `(source, h, w)`."""
    windows: Any = sliding_window_view(plane, size, axis=(1, 2))  # type: ignore[call-overload]
    return windows[place]


def _one(function, options, size, planes, stamp, label, y0, x0, *arguments):
    return function(cut_window(planes, stamp, label, y0, x0, size), *arguments, *options)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _chunk(function, options, size, planes, *rows):
    one = partial(_one, function, options, size, planes)
    return jax.vmap(one)(*rows)


@partial(jax.jit, static_argnums=(0, 1))
def _pieces(function, options, shape, parts, label, y0, x0, *arguments):
    def one(parts, label, y0, x0, *arguments):
        return function(_window(parts, label, y0, x0, shape), *arguments, *options)

    return jax.vmap(one)(parts, label, y0, x0, *arguments)
