"""Where light pulls each pixel of a cluster: the attractors of DENCLUE."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.segment.density_kernels import check_kernel
from diffdeblend.segment.mean_shift import (
    State,
    climb_listed,
    climb_product,
    newton_step,
    product_moments,
)
from diffdeblend.segment.members import Members
from diffdeblend.segment.windows_of_members import window_size

# Beyond that many widths a Gaussian is below 2e-5 of its peak: to end it there changes nothing.
_ENDLESS = 4.7
# Points of a block, where clusters have many, and where they have few.
_POINTS, _FEW = 64, 8
# Points of a call: on CPU what is made of them has to fit into the cache (a half of the time).
_CALL_CPU, _CALL_DEVICE = 2**10, 2**15
_STEPS = 8


@dataclass(frozen=True)
class Climb:
    """Where points have come to rest.

    - `x`, `y`: in pixels; `step`: length of the last step.
    - `converged`: whether they have; `n_rounds`: how many rounds of 8 steps it took.
    - `path_x`, `path_y`: places after each round of one step, `(step, point)`, if asked for.
    """

    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]
    step: Float[np.ndarray, "n"]
    converged: Bool[np.ndarray, "n"]
    n_rounds: int
    path_x: Float[np.ndarray, "step n"] | None = None
    path_y: Float[np.ndarray, "step n"] | None = None


def climb(
    members: Members,
    group: Int[np.ndarray, "n"],
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    h: Float[np.ndarray, "group"],
    radius: Float[np.ndarray, "group"],
    *,
    kernel: str = "gauss",
    eps: float | None = None,
    k_table_size: int | None = None,
    speed_up: bool = True,
    max_steps: int = 600,
    paths: bool = False,
) -> Climb:
    """Attractors of points: x <- Σ w K x_i / Σ w K, until a step is shorter than `eps`.

    The sums run over the pixels of the point's cluster within the radius of influence. All points
    of all clusters climb together, in blocks of a static shape.

    - `group`, `x`, `y`: cluster of each point, ascending, and where it starts, in pixels.
    - `h`, `radius`: width of the kernel of each cluster, and its radius of influence, in pixels. A
        Gaussian is cut off only where that is below 4.7 h.
    - `eps`: in pixels; default 1e-3 h. Early ends leave attractors of flat clusters apart.
    - `k_table_size`: a lookup table of the kernel of so many entries.
    - `speed_up`: steps of a Gaussian are 1.8 times longer, and Newton's near the maximum: the same
        attractors, converged, in a fraction of the steps. Otherwise plain steps.
    - `paths`: also where each point was after each step; plain steps.

    **Raises:** `ValueError` for an unknown kernel, an `eps` that is not positive, a table of fewer
    than 2 entries, or a `max_steps` below 1.

    ??? cite
        Hinneburg & Keim (1998), KDD-98, 58; the step is that of Hinneburg & Gabriel (2007), IDA,
        70. On steps longer than the mean shift: Carreira-Perpiñán (2007), IEEE PAMI 29, 767.
    """
    check_kernel(kernel)
    if eps is not None and not eps > 0:
        raise ValueError(f"`eps` must be positive; got {eps}.")
    if k_table_size is not None and k_table_size < 2:
        raise ValueError(f"`k_table_size` must be at least 2; got {k_table_size}.")
    if max_steps < 1:
        raise ValueError(f"`max_steps` must be at least 1; got {max_steps}.")
    size, x0, y0 = window_size(members)
    dtype = jnp.zeros(0).dtype
    # Positions are told from the corner of the window, where float32 has digits to spare.
    place_x, place_y = (x - x0[group]).astype(dtype), (y - y0[group]).astype(dtype)
    state = State(place_x, place_y, np.full(len(x), np.inf, dtype), np.ones(len(x), bool))
    product = (kernel == "gauss") & (radius >= _ENDLESS * h) & (k_table_size is None)
    tolerance = 1e-3 * h if eps is None else np.full(len(h), float(eps))
    steps = 1 if paths else _STEPS
    trace = [(state.x + x0[group], state.y + y0[group])]
    n_rounds = 0
    while state.moving.any() and n_rounds * steps < max_steps:
        state = State(*(a.copy() for a in state))
        for edge, listed in _kinds(size, product, group[state.moving]):
            these = state.moving & (size[group] == edge) & (product[group] != listed)
            for block_group, rows in _blocks(np.flatnonzero(these), group, edge, listed):
                part = State(*(np.where(rows >= 0, a[rows], 0) for a in state))
                part = part._replace(moving=part.moving & (rows >= 0))
                width, end = (a[block_group].astype(dtype) for a in (h, tolerance))
                if listed:
                    pixels = _lists(members, block_group, edge, x0, y0, dtype)
                    reach = radius[block_group].astype(dtype)
                    options = {"kernel": kernel, "table_size": k_table_size, "steps": steps}
                    part = climb_listed(pixels, reach, width, end, part, **options)
                else:
                    light = _light(members, block_group, edge, x0, y0, dtype)
                    fast = speed_up and not paths
                    part = climb_product(light, width, end, part, speed_up=fast, steps=steps)
                kept = rows >= 0
                for whole, new in zip(state, part, strict=True):
                    whole[rows[kept]] = np.asarray(new)[kept]
        n_rounds += 1
        if paths:
            trace.append((state.x + x0[group], state.y + y0[group]))
    path_x, path_y = (np.stack(t) for t in zip(*trace, strict=True)) if paths else (None, None)
    end_x, end_y = state.x + x0[group], state.y + y0[group]
    return Climb(end_x, end_y, state.step, ~state.moving, n_rounds, path_x, path_y)


def _kinds(size, product, group) -> list[tuple[int, bool]]:
    """Sizes of windows that still have points, and whether their pixels are listed."""
    return sorted({(int(size[g]), not product[g]) for g in np.unique(group)})


def _blocks(
    rows: np.ndarray, group: np.ndarray, edge: int, listed: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points in blocks of one cluster; `(block,)` clusters and `(block, point)` rows or -1."""
    owner = group[rows]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    count = np.diff(np.append(first, len(rows)))
    # Tops of the grid are one or two a cluster: large blocks would be empty.
    block = _POINTS if len(rows) > 2 * _FEW * len(first) else _FEW
    n_blocks = -(-count // block)
    base = np.concatenate([[0], np.cumsum(n_blocks)])
    within = np.arange(len(rows)) - np.repeat(first, count)
    table = np.full((base[-1], block), -1)
    table[np.repeat(base[:-1], count) + within // block, within % block] = rows
    block_group = np.repeat(owner[first], n_blocks)
    # So many blocks a call that all that is made of them fits the cache, whatever their size.
    points = _CALL_CPU if jax.default_backend() == "cpu" else _CALL_DEVICE
    most = max(1, points * 32 // (_POINTS * edge * (edge if listed else 1)))
    for start in range(0, len(table), most):
        part = table[start : start + most]
        missing = most - len(part)
        # Blocks without points fill the last call, so that it needs no program of its own.
        yield (
            np.pad(block_group[start : start + most], (0, missing), mode="edge"),
            np.pad(part, ((0, missing), (0, 0)), constant_values=-1),
        )


def _light(members: Members, groups, edge: int, x0, y0, dtype) -> Float[np.ndarray, "b y x"]:
    """Window of each of the clusters, the light scaled to a peak of 1."""
    unique, inverse = np.unique(groups, return_inverse=True)
    part = members.take(unique)
    light = np.zeros((len(unique), edge, edge), dtype)
    x, y, scaled = _in_windows(part, x0[unique], y0[unique])
    light[part.group, y, x] = scaled
    return light[inverse]


def _lists(members: Members, groups, edge: int, x0, y0, dtype) -> tuple[Any, Any, Any]:
    """x, y and light of the pixels of each of the clusters, `(block, edge²)` each."""
    unique, inverse = np.unique(groups, return_inverse=True)
    part = members.take(unique)
    slot = np.arange(len(part.x)) - part.start[:-1][part.group]
    found = np.zeros((3, len(unique), edge * edge), dtype)
    for k, values in enumerate(_in_windows(part, x0[unique], y0[unique])):
        found[k, part.group, slot] = values
    return found[0, inverse], found[1, inverse], found[2, inverse]


def _in_windows(part: Members, x0, y0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the pixels in the windows of their clusters, and the light by its peak."""
    peak = np.maximum.reduceat(part.light, part.start[:-1])
    scaled = part.light / np.where(peak > 0, peak, 1)[part.group]
    return part.x - x0[part.group], part.y - y0[part.group], scaled


def attractor_position(
    light: Float[Array, "y x"],
    x: Float[Array, "p"],
    y: Float[Array, "p"],
    h: Float[Array, ""],
    *,
    max_steps: int = 600,
) -> tuple[Float[Array, "p"], Float[Array, "p"]]:
    r"""Attractors of points on one window under a Gaussian, differentiable. Under jit and vmap.

    The climb goes on to 1e-10 (or to the last digit); the derivative with respect to the light and
    `h` is that of the condition that the mean shift vanishes, by the implicit function theorem: at
    a tolerance of 1e-2 the derivative of the climb itself is off by percents. Starting points have
    no derivative; neither has which attractor a point goes to.

    - `light`: of the pixels, 0 outside the cluster; `x`, `y`: where points start; `h`: the width.
    """
    light, h = jnp.asarray(light), jnp.asarray(h)
    held, width = jax.lax.stop_gradient(light), jax.lax.stop_gradient(h)
    digits = 10 * jnp.finfo(light.dtype).eps * max(light.shape)
    eps = jnp.maximum(1e-10, digits).astype(light.dtype)
    start = jax.lax.stop_gradient((jnp.asarray(x, light.dtype), jnp.asarray(y, light.dtype)))
    whole = (*start, jnp.full_like(start[0], jnp.inf), jnp.ones(start[0].shape, bool))
    state = State(*(values[None] for values in whole))
    state = climb_product(held[None], width[None], eps[None], state, speed_up=True, steps=max_steps)
    x, y = state.x[0], state.y[0]
    # One step of Newton's method from the end: it moves nothing and has the derivative wanted.
    moments = product_moments(light, h, x, y)
    fixed = moments._replace(
        xx=jax.lax.stop_gradient(moments.xx),
        xy=jax.lax.stop_gradient(moments.xy),
        yy=jax.lax.stop_gradient(moments.yy),
    )
    sx, sy, peaked = newton_step(fixed, width)
    # Off a maximum, on a plateau, there is no derivative: zero, not noise.
    found = peaked & (moments.density > 0)
    return x + jnp.where(found, sx, 0), y + jnp.where(found, sy, 0)
