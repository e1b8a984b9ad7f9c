"""What stands in for the light of other sources in an aperture."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.measure.windows import Window

MaskMethod = Literal["correct", "mask", "none"]


class Box(NamedTuple):
    """Pixels of a window from (x0, y0) up to, but not with, (x1, y1)."""

    x0: Int[Array, ""]
    y0: Int[Array, ""]
    x1: Int[Array, ""]
    y1: Int[Array, ""]


class Pixels(NamedTuple):
    """What an aperture sums, `(h, w)`.

    - `data`: without the local background; 0 where not `used`.
    - `error`: likewise.
    - `used`: pixels that count.
    - `neighbours`: those of other sources, where these are masked or corrected.
    - `uncorrected`: neighbours without a mirror pixel, which count as 0.
    """

    data: Float[Array, "h w"]
    error: Float[Array, "h w"]
    used: Bool[Array, "h w"]
    neighbours: Bool[Array, "h w"]
    uncorrected: Bool[Array, "h w"]


class Mirrored(NamedTuple):
    """A window turned by half a turn about a pixel, and where there is something in it."""

    data: Float[Array, "h w"]
    error: Float[Array, "h w"]
    free: Bool[Array, "h w"]


def check_mask_method(method: str) -> None:
    """**Raises:** `ValueError` for what is not one of the three."""
    if method not in ("correct", "mask", "none"):
        raise ValueError(
            f'`aperture_mask_method` must be "correct", "mask" or "none"; got {method!r}.'
        )


def rounded(x: Float[Array, ""]) -> Int[Array, ""]:
    """Nearest pixel; that of a place that is not finite is 0."""
    return jnp.floor(jnp.where(jnp.isfinite(x), x, 0.0) + 0.5).astype(int)


def box_around(
    window: Window,
    x: Float[Array, ""],
    y: Float[Array, ""],
    reach_x: Float[Array, ""],
    reach_y: Float[Array, ""],
) -> Box:
    """Pixels of the image that the box around an aperture touches, as places in the window."""
    return Box(
        jnp.maximum(rounded(x - reach_x), -window.x0),
        jnp.maximum(rounded(y - reach_y), -window.y0),
        jnp.minimum(rounded(x + reach_x) + 1, window.nx - window.x0),
        jnp.minimum(rounded(y + reach_y) + 1, window.ny - window.y0),
    )


def mirror(window: Window, x: Float[Array, ""], y: Float[Array, ""]) -> Mirrored:
    """The window turned about the pixel nearest to (x, y)."""
    middle_x, middle_y = rounded(x), rounded(y)
    free = window.good & ~_of_others(window)

    def turned(image: Array) -> Array:
        # Pixel i of the mirror is pixel 2 m - i; that of the flipped one is n - 1 - i.
        h, w = image.shape
        wide = jnp.pad(image[::-1, ::-1], ((h, h), (w, w)))
        start = (2 * h - 1 - 2 * middle_y, 2 * w - 1 - 2 * middle_x)
        return lax.dynamic_slice(wide, start, (h, w))

    # Of a middle far outside the slice would begin elsewhere; then nothing has a mirror.
    h, w = window.data.shape
    near = (middle_x >= 0) & (middle_x < w) & (middle_y >= 0) & (middle_y < h)
    return Mirrored(
        turned(window.data),
        turned(window.error),
        (turned(free.astype(window.data.dtype)) > 0) & near,
    )


def pixels_of(
    window: Window,
    mirrored: Mirrored | None,
    x: Float[Array, ""],
    y: Float[Array, ""],
    box: Box,
    local_background: Float[Array, ""],
    method: MaskMethod,
) -> Pixels:
    """The pixels that an aperture within `box` sums.

    - `mirrored`: of the window about (x, y); needed for "correct" alone.
    - `method`: "correct" takes for a pixel of another source the one that lies opposite, seen from
        the pixel nearest to (x, y), and 0 if that is outside `box`, of another source, or not
        good; "mask" leaves such pixels out; "none" takes them as they are.
    """
    others = _of_others(window)
    data, error, used = window.data - local_background, window.error, window.good
    nothing = jnp.zeros_like(others)
    if method == "none":
        return Pixels(jnp.where(used, data, 0), jnp.where(used, error, 0), used, nothing, nothing)
    if method == "mask":
        used = used & ~others
        return Pixels(jnp.where(used, data, 0), jnp.where(used, error, 0), used, others, nothing)
    assert mirrored is not None
    h, w = data.shape
    row, column = 2 * rounded(y) - jnp.arange(h), 2 * rounded(x) - jnp.arange(w)
    in_rows = (row >= box.y0) & (row < box.y1)
    in_columns = (column >= box.x0) & (column < box.x1)
    free = mirrored.free & in_rows[:, None] & in_columns[None]
    data = jnp.where(others, jnp.where(free, mirrored.data - local_background, 0), data)
    error = jnp.where(others, jnp.where(free, mirrored.error, 0), error)
    return Pixels(jnp.where(used, data, 0), jnp.where(used, error, 0), used, others, others & ~free)


def _of_others(window: Window) -> Bool[Array, "h w"]:
    return (window.labels != 0) & (window.labels != window.label)
