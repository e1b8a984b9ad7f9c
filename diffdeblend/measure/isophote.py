"""Light and shape within the isophote of one source: in JAX, for `jit`, `vmap` and gradients."""

import jax.numpy as jnp
from jaxtyping import Array

from diffdeblend.measure.flags import FLAGS
from diffdeblend.measure.shapes import PIXEL_VARIANCE, ellipse
from diffdeblend.measure.windows import Window


def isophote(window: Window) -> dict[str, Array]:
    """Columns of `SourceCatalog` for the source of a window: scalars, in pixels of the image.

    Names, boxes, areas, the centroid, all of `Ellipse`, extremes, the flux in the segment, and
    `flags`. NaN where a source has no pixel that counts; then the derivatives are 0. Labels have no
    derivative; `segment_flux_err` is 0 without errors. Besides, `x_window` and `y_window` are the
    centroid from the first pixel of the window, which keep more digits.

    - `window`: has to hold the whole segment.
    """
    h, w = window.data.shape
    segment = window.labels == window.label
    used = segment & window.good
    there = jnp.any(used)
    rows, columns = jnp.any(segment, axis=1), jnp.any(segment, axis=0)
    ymin, xmin = jnp.argmax(rows), jnp.argmax(columns)
    ymax, xmax = h - 1 - jnp.argmax(rows[::-1]), w - 1 - jnp.argmax(columns[::-1])
    # From the box: small numbers keep their digits.
    y, x = (jnp.arange(h) - ymin)[:, None], (jnp.arange(w) - xmin)[None]
    light = jnp.where(segment, jnp.maximum(window.convolved, 0), 0)
    total = jnp.sum(light)
    lit = total > 0
    divisor = jnp.where(lit, total, 1)
    yc, xc = jnp.sum(y * light) / divisor, jnp.sum(x * light) / divisor
    dy, dx = y - yc, x - xc
    xx, xy, yy = (jnp.sum(m * light) / divisor for m in (dx * dx, dx * dy, dy * dy))
    # Round stands in for a source without light: no derivative of it may be NaN.
    xx, xy, yy = (jnp.where(lit, m, d) for m, d in ((xx, 1), (xy, 0), (yy, 1)))
    shape = ellipse(xx, xy, yy, jnp)
    undefined = ~lit | jnp.isnan(shape.semimajor_axis)
    # The smaller variance is below that of a pixel.
    narrow = (xx < PIXEL_VARIANCE) | (yy < PIXEL_VARIANCE)
    narrow |= (xx - PIXEL_VARIANCE) * (yy - PIXEL_VARIANCE) < xy * xy
    thin = narrow & ~undefined
    known = {
        "x_centroid": xc + (xmin + window.x0),
        "y_centroid": yc + (ymin + window.y0),
        "x_window": xc + xmin,
        "y_window": yc + ymin,
        **shape._asdict(),
    }
    count = jnp.sum(used)
    area = count.astype(window.data.dtype)
    variance = jnp.sum(jnp.where(used, window.error**2, 0))
    noisy = variance > 0
    measured = {
        "area": area,
        "equivalent_radius": jnp.sqrt(jnp.maximum(area, 1) / jnp.pi),
        "min_value": jnp.min(jnp.where(used, window.data, jnp.inf)),
        "max_value": jnp.max(jnp.where(used, window.data, -jnp.inf)),
        "segment_flux": jnp.sum(jnp.where(used, window.data, 0)),
        "segment_flux_err": jnp.where(noisy, jnp.sqrt(jnp.where(noisy, variance, 1)), 0),
    }
    low, high = (ymin + window.y0, xmin + window.x0), (ymax + window.y0, xmax + window.x0)
    edge = (low[0] == 0) | (low[1] == 0)
    edge |= (high[0] == window.ny - 1) | (high[1] == window.nx - 1)
    bits = (
        ("edge_touch", edge),
        ("all_masked", ~there),
        ("undefined_shape", undefined),
        ("singular_covariance", thin),
    )
    return {
        "label": window.label,
        "bbox_xmin": low[1],
        "bbox_xmax": high[1],
        "bbox_ymin": low[0],
        "bbox_ymax": high[0],
        "segment_area": jnp.sum(segment),
        **{name: jnp.where(lit, value, jnp.nan) for name, value in known.items()},
        **{name: jnp.where(there, value, jnp.nan) for name, value in measured.items()},
        "flags": jnp.sum(jnp.stack([jnp.where(where, FLAGS[name], 0) for name, where in bits])),
    }
