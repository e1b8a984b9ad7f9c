"""Which flaws of the image a source is on."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from diffdeblend.quantities.stamp import SourceStamp, plane_bits
from diffdeblend.quantities.sums import steps_along

# Column by plane, as in the LSST pipelines.
PLANES = (
    ("edge", "EDGE"),
    ("nodata", "NO_DATA"),
    ("interpolated", "INTRP"),
    ("saturated", "SAT"),
    ("cr", "CR"),
    ("bad", "BAD"),
    ("suspect", "SUSPECT"),
)


@dataclass(frozen=True)
class MeasurePixelFlags:
    """For each plane: `flag_<name>`, any pixel of the footprint is on it; `flag_<name>_center`,
    any of the 3 x 3 pixels about the centroid; `flag_<name>_center_all`, all nine.

    Of the nine, those off the image are left out. `flag_offimage`: the centroid is off the image;
    then also `flag_edge` and `flag_edge_center`. `flag`: the centroid failed, and its place is that
    of the peak.

    - `planes`: pairs of a name and a plane of the mask; planes that the mask has not are empty.
    """

    planes: tuple[tuple[str, str], ...] = PLANES

    def __call__(
        self, stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
    ) -> dict[str, Array]:
        height, width = stamp.image.shape
        x, y = found["centroid"]["x"], found["centroid"]["y"]
        known = jnp.isfinite(x) & jnp.isfinite(y)
        x, y = jnp.where(known, x, stamp.x), jnp.where(known, y, stamp.y)
        # NaN is nowhere: no pixel is near it.
        column, row = jnp.floor(x + 0.5), jnp.floor(y + 0.5)
        dx = jnp.abs(steps_along(width, column))
        dy = jnp.abs(steps_along(height, row))[:, None]
        off = ~jnp.any((dx < 0.5) & (dy < 0.5) & stamp.inside)
        nine = (dx < 1.5) & (dy < 1.5) & stamp.inside
        footprint = stamp.footprint & stamp.inside
        columns = {"flag": found["centroid"]["flag"] | ~known, "flag_offimage": off}
        # Planes that any, or all, of some pixels are on: three passes, whatever the planes.
        nothing, everything = np.int32(0), np.int32(-1)
        of_footprint = _any_bit(jnp.where(footprint, stamp.mask, nothing))
        of_nine = _any_bit(jnp.where(nine, stamp.mask, nothing))
        of_all = lax.reduce(
            jnp.where(nine, stamp.mask, everything), everything, lax.bitwise_and, (0, 1)
        )
        some = jnp.any(nine)
        for name, plane in self.planes:
            bit = plane_bits(stamp.planes, plane)
            extra = off if name == "edge" else jnp.zeros_like(off)
            columns[f"flag_{name}"] = ((of_footprint & bit) != 0) | extra
            columns[f"flag_{name}_center"] = ((of_nine & bit) != 0) | extra
            columns[f"flag_{name}_center_all"] = ((of_all & bit) != 0) & some
        return columns


def _any_bit(bits: Int[Array, "h w"]) -> Int[Array, ""]:
    return lax.reduce(bits, np.int32(0), lax.bitwise_or, (0, 1))
