"""An image cut into equal tiles with a margin, and the places where filters are made for them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import fast_length


@dataclass(frozen=True)
class Tiling:
    """Equal tiles that cover an image, each with a margin that is not kept.

    - `shape`: pixels of the image, (ny, nx).
    - `counts`: tiles along y and x.
    - `core`: pixels of a tile that are kept, (height, width).
    - `margin`: pixels before the core along y and x; there are at least as many behind it.
    - `full`: pixels of a tile with its margins: lengths that are fast to transform.
    """

    shape: tuple[int, int]
    counts: tuple[int, int]
    core: tuple[int, int]
    margin: tuple[int, int]
    full: tuple[int, int]

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Borders and middles of the tiles, along y and along x, in pixels."""
        rows, columns = (
            np.arange(2 * n + 1) * (size / 2) - 0.5
            for n, size in zip(self.counts, self.core, strict=True)
        )
        return rows, columns

    def pad(self, image: Float[Array, "y x"]) -> Float[Array, "Y X"]:
        """The image with its mirror image around it, as wide as the tiles and their margins."""
        for axis in (0, 1):
            total = self.counts[axis] * self.core[axis] + self.full[axis] - self.core[axis]
            image = _mirrored(image, self.margin[axis], total, axis)
        return image

    def tile(self, padded: Float[Array, "Y X"], row: Array, column: Array) -> Array:
        """One tile with its margins, `full`, of an image from `pad`."""
        start = row * self.core[0], column * self.core[1]
        return jax.lax.dynamic_slice(padded, start, self.full)

    def cores(self, tile: Float[Array, "*n h w"], more: int = 0) -> Array:
        """What is kept of tiles, and so many pixels more on each side."""
        (top, left), (height, width) = self.margin, self.core
        return tile[..., top - more : top + height + more, left - more : left + width + more]

    def joined(self, cores: Float[Array, "tile height width"]) -> Float[Array, "y x"]:
        """The image made of the cores of all tiles, row after row."""
        _, height, width = cores.shape
        rows, columns = self.counts
        whole = jnp.swapaxes(cores.reshape(rows, columns, height, width), 1, 2)
        return whole.reshape(rows * height, columns * width)[: self.shape[0], : self.shape[1]]


def make_tiling(shape: tuple[int, int], tile: int, margin: int) -> Tiling:
    """Tiles of about `tile` pixels for an image of `shape`, with margins of at least `margin`.

    **Raises:** `ValueError` for a `tile` or a `margin` that is not positive.
    """
    if tile < 1:
        raise ValueError(f"`tile` must be at least 1 pixel; got {tile}.")
    if margin < 1:
        raise ValueError(f"`margin` must be at least 1 pixel; got {margin}.")
    counts = tuple(max(1, round(length / tile)) for length in shape)
    core = tuple(-(-length // n) for length, n in zip(shape, counts, strict=True))
    # Even, as the transform of real images of odd width is slower.
    full = tuple(2 * fast_length(-(-(size + 2 * margin) // 2), real=False) for size in core)
    before = tuple((whole - size) // 2 for whole, size in zip(full, core, strict=True))
    return Tiling(_pair(shape), _pair(counts), _pair(core), _pair(before), _pair(full))


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _mirrored(image: Array, before: int, total: int, axis: int) -> Array:
    """An image continued to `total` pixels by reflection, however small it is."""
    length = image.shape[axis]
    after = total - before - length
    if max(before, after) < length:
        widths = [(0, 0), (0, 0)]
        widths[axis] = (before, after)
        return jnp.pad(image, widths, mode="symmetric")
    place = np.arange(total) - before
    place = place % (2 * length)
    return jnp.take(image, np.where(place < length, place, 2 * length - 1 - place), axis=axis)
