"""The sky of one stamp in JAX: static shapes, for `jit` and `vmap`, and with gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from diffdeblend.background import statistics
from diffdeblend.background.mesh_repair import NEIGHBOURS, spline_matrix
from diffdeblend.fourier import EXACT

_LEVELS = {
    "sextractor": statistics.sextractor_mode,
    "mean": statistics.mean,
    "median": statistics.median,
    "mode": statistics.mode,
    "mmm": statistics.mode,
    "biweight_location": statistics.biweight_location,
}
_SCATTERS = {
    "std": statistics.std,
    "mad_std": statistics.mad_std,
    "biweight_scale": statistics.biweight_scale,
}


class StampBackground(NamedTuple):
    """Level and scatter of the sky of a stamp; see `BackgroundMap`."""

    background: Float[Array, "y x"]
    background_rms: Float[Array, "y x"]
    background_mesh: Float[Array, "my mx"]
    background_rms_mesh: Float[Array, "my mx"]
    n_pixels_mesh: Int[Array, "my mx"]
    excluded: Bool[Array, "my mx"]


def stamp_background(
    data: Float[Array, "y x"],
    good: Bool[Array, "y x"],
    box_size: tuple[int, int],
    *,
    exclude_percentile: float = 10.0,
    filter_size: tuple[int, int] = (3, 3),
    filter_threshold: float | None = None,
    sigma: float | None = 3.0,
    max_iterations: int | None = 10,
    estimator: str | Callable[..., Any] = "sextractor",
    rms_estimator: str | Callable[..., Any] = "std",
) -> StampBackground:
    """The same numbers as `estimate_background` of a stamp, all in JAX.

    Only holes in a mesh of more than ten boxes may differ, where of neighbours equally far away
    another is taken. If all boxes are excluded, those with any pixel are kept; a stamp without any
    is NaN.

    The gradient of all maps with respect to `data` is that at the pixels that clipping kept, with
    the same boxes excluded: which these are is held. A level at the border of SExtractor's rule,
    or of the largest or the least box, has the derivative of one side.

    - `good`: true where a pixel is used; what is not finite never is.
    - The others: as in `estimate_background`, known before tracing. A function for `estimator`
        gets JAX arrays.
    """
    ny, nx = data.shape
    box = min(box_size[0], ny), min(box_size[1], nx)
    level, scatter, kept, _ = box_statistics(
        data, good, box, sigma, max_iterations, estimator, rms_estimator
    )
    enough = (1 - exclude_percentile / 100) * box[0] * box[1]
    excluded = (kept < enough) | (kept == 0)
    holes = excluded & ~(jnp.all(excluded) & (kept > 0))
    # Both at once: XLA takes long to compile a sort.
    both = jax.vmap(partial(_filled, holes=holes))(jnp.stack([level, scatter]))
    level, scatter = both
    smooth, smooth_scatter = jax.vmap(partial(_filtered, size=filter_size))(both)
    if filter_threshold is not None:
        bright = level > filter_threshold
        smooth = jnp.where(bright, smooth, level)
        smooth_scatter = jnp.where(bright, smooth_scatter, scatter)
    matrix_y = jnp.asarray(spline_matrix(level.shape[0], box[0], ny), data.dtype)
    matrix_x = jnp.asarray(spline_matrix(level.shape[1], box[1], nx), data.dtype)

    def full(mesh: Array) -> Array:
        # About one of its values: single precision keeps the digits of small differences.
        middle = jax.lax.stop_gradient(mesh[0, 0])
        along = jnp.matmul(mesh - middle, matrix_x.T, precision=EXACT)
        whole = jnp.matmul(matrix_y, along, precision=EXACT) + middle
        return jnp.clip(whole, jnp.min(mesh), jnp.max(mesh))

    return StampBackground(
        full(smooth), full(smooth_scatter), smooth, smooth_scatter, kept, excluded
    )


@partial(
    jax.jit,
    static_argnames=("box", "sigma", "max_iterations", "estimator", "rms_estimator"),
)
def box_statistics(
    data: Float[Array, "y x"],
    good: Bool[Array, "y x"],
    box: tuple[int, int],
    sigma: float | None,
    max_iterations: int | None,
    estimator: str | Callable[..., Any],
    rms_estimator: str | Callable[..., Any],
) -> tuple[Array, Array, Array, Array]:
    """Level, scatter, pixels kept and pixels used of each box of a stamp, `(my, mx)`."""
    good = good & jnp.isfinite(data)
    # Zeros take part in nothing, but a NaN times a zero gradient is NaN.
    data = jnp.where(good, data, 0)
    values, used = _boxes(data, box), _boxes(good, box)
    kept = used
    if sigma is not None:
        kept = jax.vmap(partial(statistics.clip, sigma=sigma, max_iterations=max_iterations))(
            values, used
        ).good

    def estimated(given: str | Callable[..., Any], known: dict[str, Callable]) -> Array:
        if callable(given):
            return jnp.asarray(given(jnp.where(kept, values, jnp.nan), axis=1))
        return jax.vmap(known[given])(values, kept)

    shape = -(-data.shape[0] // box[0]), -(-data.shape[1] // box[1])
    return (
        estimated(estimator, _LEVELS).reshape(shape),
        estimated(rms_estimator, _SCATTERS).reshape(shape),
        jnp.sum(kept, axis=1).reshape(shape),
        jnp.sum(used, axis=1).reshape(shape),
    )


def _boxes(image: Array, box: tuple[int, int]) -> Array:
    """One row of pixels a box; what is beyond the image is zero, or false."""
    reach = [(0, -n % b) for n, b in zip(image.shape, box, strict=True)]
    padded = jnp.pad(image, reach)
    my, mx = padded.shape[0] // box[0], padded.shape[1] // box[1]
    return padded.reshape(my, box[0], mx, box[1]).swapaxes(1, 2).reshape(my * mx, -1)


def _filled(mesh: Array, holes: Array) -> Array:
    """Holes from the nearest others, weighted by inverse distance."""
    shape = mesh.shape
    y, x = np.divmod(np.arange(mesh.size), shape[1])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    holes, flat = holes.ravel(), mesh.ravel()
    usable = jnp.where(holes[None, :] | (distance == 0), jnp.inf, distance)
    # The smallest, of equals the first.
    near_minus, near = jax.lax.top_k(-usable, min(NEIGHBOURS, mesh.size))
    weight = jnp.where(jnp.isfinite(near_minus), -1 / near_minus, 0).astype(mesh.dtype)
    total = jnp.sum(weight, axis=1)
    values = jnp.where(holes, 0, flat)[near]
    filled = jnp.sum(weight * values, axis=1) / jnp.where(total > 0, total, 1)
    filled = jnp.where(total > 0, filled, jnp.nan)
    return jnp.where(holes, filled, flat).reshape(shape)


def _filtered(mesh: Array, size: tuple[int, int]) -> Array:
    """Median of a window around each box; beyond the edge nothing counts."""
    if size == (1, 1):
        return mesh
    (my, mx), (hy, hx) = mesh.shape, (size[0] // 2, size[1] // 2)
    padded = jnp.pad(mesh, ((hy, hy), (hx, hx)), constant_values=jnp.inf)
    shifted = [padded[dy : dy + my, dx : dx + mx] for dy in range(size[0]) for dx in range(size[1])]
    ordered = jnp.sort(jnp.stack(shifted), axis=0)
    # How many of a window lie inside is known before: only edges cut it.
    inside = np.pad(np.ones((my, mx), int), ((hy, hy), (hx, hx)))
    windows = np.lib.stride_tricks.sliding_window_view(inside, size)
    n = windows.sum(axis=(2, 3))[None]
    low = jnp.take_along_axis(ordered, jnp.asarray((n - 1) // 2), axis=0)
    high = jnp.take_along_axis(ordered, jnp.asarray(n // 2), axis=0)
    return (0.5 * (low + high))[0]
