"""Footprints on the device: a stamp of booleans for each, all of one size."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from diffdeblend.footprints.footprint_set import FootprintSet
from diffdeblend.footprints.lines import half_widths
from diffdeblend.footprints.ragged import RaggedSpans
from diffdeblend.segment.runs import row_runs


class FootprintStamps(eqx.Module):
    """Footprints as stamps.

    - `inside`: shape `(footprint, y, x)`, True on the pixels of each.
    - `x0`, `y0`: pixel of the image on which the first of the stamp is.

    Made by `from_footprints`.

    **Raises:** `ValueError` if the arrays disagree in shape.
    """

    inside: Bool[Array, "footprint y x"]
    x0: Int[Array, "footprint"]
    y0: Int[Array, "footprint"]

    def __check_init__(self):
        n = self.inside.shape[:-2]
        if self.x0.shape != n or self.y0.shape != n:
            raise ValueError(
                f"`x0` and `y0` need shape {n}, one for each stamp of `inside`; "
                f"got {self.x0.shape} and {self.y0.shape}."
            )

    @classmethod
    def from_footprints(
        cls, footprints: FootprintSet, shape: tuple[int, int] | None = None, margin: int = 0
    ) -> "FootprintStamps":
        """Each footprint in the middle of its stamp. On the host; not for use under jit.

        - `shape`: of the stamps, `(y, x)`; default: of the largest footprint, with `margin` pixels
            on all sides, room for a dilation.

        **Raises:** `ValueError` if a footprint and its margin do not fit.
        """
        x0, x1, y0, y1 = footprints.boxes.T
        height, width = (int((b - a).max(initial=1)) + 2 * margin for a, b in ((y0, y1), (x0, x1)))
        h, w = (height, width) if shape is None else shape
        if h < height or w < width:
            raise ValueError(
                f"`shape` must be at least ({height}, {width}), which the largest footprint needs "
                f"with a margin of {margin}; got {tuple(shape or ())}."
            )
        left, low = x0 - (w - (x1 - x0)) // 2, y0 - (h - (y1 - y0)) // 2
        owner = np.repeat(np.arange(len(footprints)), footprints.areas)
        y, x = footprints.spans.indices()
        inside = np.zeros((len(footprints), h, w), bool)
        inside[owner, y - low[owner], x - left[owner]] = True
        origin = (jnp.asarray(one.astype(np.int32)) for one in (left, low))
        return cls(jnp.asarray(inside), *origin)

    def to_footprints(self, like: FootprintSet) -> FootprintSet:
        """Back on the host, without loss.

        - `like`: the set that they are from: has the peaks, of which those outside go, the region
            and the bands.

        **Raises:** `ValueError` if it has another number of footprints.
        """
        n, h, w = self.inside.shape
        if len(like) != n:
            raise ValueError(f"`like` needs {n} footprints, as many as stamps; got {len(like)}.")
        row, start, stop = row_runs(np.asarray(self.inside).reshape(n * h, w))
        owner = row // h
        x0, y0 = np.asarray(self.x0)[owner], np.asarray(self.y0)[owner]
        spans = RaggedSpans.of_owners(row % h + y0, start + x0, stop - 1 + x0, owner, n)
        return like.with_spans(spans)

    @property
    def areas(self) -> Int[Array, "footprint"]:
        """Pixels of each footprint."""
        return jnp.sum(self.inside, axis=(-2, -1), dtype=jnp.int32)

    def dilate(self, radius: int, stencil: str = "circle") -> "FootprintStamps":
        """Each grown by a stencil, as far as its stamp goes; see `dilate_stamp`."""
        return FootprintStamps(dilate_stamp(self.inside, radius, stencil), self.x0, self.y0)

    def erode(self, radius: int, stencil: str = "circle") -> "FootprintStamps":
        """Each shrunk by a stencil; see `erode_stamp`."""
        return FootprintStamps(erode_stamp(self.inside, radius, stencil), self.x0, self.y0)


@partial(jax.jit, static_argnames=("radius", "stencil"))
def dilate_stamp(
    inside: Bool[Array, "*batch y x"], radius: int, stencil: str = "circle"
) -> Bool[Array, "*batch y x"]:
    """True within a stencil of a True pixel; what would be beyond the stamp is lost.

    For `jit` and `vmap`; stencils as in `SpanSet.from_stencil`.

    **Raises:** `ValueError` for another stencil or radius.
    """
    return _pooled(inside, radius, stencil, jnp.logical_or)


@partial(jax.jit, static_argnames=("radius", "stencil"))
def erode_stamp(
    inside: Bool[Array, "*batch y x"], radius: int, stencil: str = "circle"
) -> Bool[Array, "*batch y x"]:
    """True where the whole stencil is; beyond the stamp nothing is.

    For `jit` and `vmap`; stencils as in `SpanSet.from_stencil`.

    **Raises:** `ValueError` for another stencil or radius.
    """
    return _pooled(inside, radius, stencil, jnp.logical_and)


def _pooled(inside: Array, radius: int, stencil: str, join: Any) -> Array:
    widths = half_widths(radius, stencil)
    h, w = inside.shape[-2:]
    around = [(0, 0)] * (inside.ndim - 2) + [(radius, radius)] * 2
    wide = jnp.pad(inside.astype(bool), around)
    # Pooled along x over 1, 3, 5, ... pixels, each from the one before.
    along = [wide[..., radius : radius + w]]
    for k in range(1, int(widths.max()) + 1):
        sides = join(wide[..., radius - k : radius - k + w], wide[..., radius + k : radius + k + w])
        along.append(join(along[-1], sides))
    out = along[widths[0]][..., :h, :]
    for row, width in enumerate(widths[1:], start=1):
        out = join(out, along[width][..., row : row + h, :])
    return out
