"""The sky in a ring around each source."""

from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.background.mesh import Estimator, check_mask, check_name, estimated, plain_values
from diffdeblend.background.sorted_rows import LEVELS, clip_rows
from diffdeblend.cores import in_threads

# Pixels of all rings that are sorted at a time.
_CHUNK = 1 << 19


def local_background(
    data: Float[Any, "y x"],
    x: Any,
    y: Any,
    inner_radius: float,
    outer_radius: float,
    *,
    mask: Any = None,
    estimator: Estimator = "median",
    sigma: float | None = 3.0,
    max_iterations: int | None = 10,
) -> Any:
    """Clipped level of the pixels whose middle lies in a ring, for each position. Host side.

    photutils' `LocalBackground`, for all positions at once.

    - `data`: image `(y, x)`; the result carries its unit, if it has one.
    - `x`, `y`: positions in pixels, the first pixel centred on 0; of one shape, that of the result.
    - `inner_radius`, `outer_radius`: in pixels; the inner edge belongs to the ring, the outer not.
    - `mask`: true where a pixel is not used, as those that are not finite are not.
    - `estimator`, `sigma`, `max_iterations`: as in `estimate_background`.

    NaN where a ring has no pixel to use.

    **Raises:** `ValueError` for a wrong shape, radius or name.
    """
    values, mask, unit = plain_values(data, mask)
    if values.ndim != 2:
        raise ValueError(f"`data` needs shape (y, x); got {values.shape}.")
    known = check_mask("mask", mask, values.shape)
    check_name("estimator", estimator, LEVELS)
    if not 0 < inner_radius < outer_radius or not np.isfinite(outer_radius):
        raise ValueError(
            "`inner_radius` must be positive and below `outer_radius`; "
            f"got {inner_radius!r} and {outer_radius!r}."
        )
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape:
        raise ValueError(f"`x` and `y` need one shape; got {x.shape} and {y.shape}.")
    if known is not None:
        values = np.where(known, np.asarray(np.nan, values.dtype), values)
    found = np.full(x.size, np.nan, values.dtype)
    ok = np.flatnonzero(np.isfinite(x.ravel()) & np.isfinite(y.ravel()))
    places_x, places_y = x.ravel()[ok], y.ravel()[ok]
    reach = int(np.ceil(outer_radius)) + 1
    step = np.arange(-reach, reach + 1)
    # Only what may lie in a ring about any place in its pixel.
    dy, dx = (d.ravel() for d in np.meshgrid(step, step, indexing="ij"))
    distance = np.hypot(dx, dy)
    may = (distance > inner_radius - 0.8) & (distance < outer_radius + 0.8)
    dy, dx = dy[may], dx[may]

    def measure(rows: slice) -> None:
        px, py = places_x[rows, None], places_y[rows, None]
        # Far outside, an integer would overflow.
        column = np.rint(np.clip(px, -2 * reach, values.shape[1] + 2 * reach)).astype(int) + dx
        line = np.rint(np.clip(py, -2 * reach, values.shape[0] + 2 * reach)).astype(int) + dy
        squared = (column - px) ** 2 + (line - py) ** 2
        inside = (squared >= inner_radius**2) & (squared < outer_radius**2)
        inside &= (column >= 0) & (column < values.shape[1])
        inside &= (line >= 0) & (line < values.shape[0])
        taken = values[line * inside, column * inside]
        taken[~inside] = np.nan
        found[ok[rows]] = estimated(estimator, LEVELS, clip_rows(taken, sigma, max_iterations))

    if dx.size:
        chunk = max(1, _CHUNK // dx.size)
        in_threads(measure, [slice(i, i + chunk) for i in range(0, ok.size, chunk)])
    result = found.reshape(x.shape)
    return result if unit is None else result << unit
