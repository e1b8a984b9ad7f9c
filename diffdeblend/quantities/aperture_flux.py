"""Light in circles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.measure.overlap import circle_overlap
from diffdeblend.quantities.reach import leaves_image, leaves_stamp
from diffdeblend.quantities.sinc_aperture import sinc_weights
from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.sums import steps_along

Scalar = Float[Array, ""]
Method = Literal["sinc", "exact", "center"]
# In pixels; those of the LSST pipelines go on to 17, 25, 35, 50 and 70.
RADII = (3.0, 4.5, 6.0, 9.0, 12.0)


class ApertureFlux(NamedTuple):
    """Scalars: weighted sum, its error and the area, the sum of the weights."""

    flux: Scalar
    flux_err: Scalar
    area: Scalar


def aperture_flux(
    image: Float[Array, "h w"],
    variance: Float[Array, "h w"],
    x: Scalar,
    y: Scalar,
    radius: float,
    method: Method = "sinc",
) -> ApertureFlux:
    r"""Light in a circle, $\sum c I$, and its error $\sqrt{\sum c^2 v}$.

    - `image`, `variance`: 0 where nothing is known.
    - `radius`: in pixels; static.
    - `method`: "sinc", the band-limited disc of `sinc_aperture`, which gives the light of a star
        just so; "exact", the shares of the pixels' areas in the circle; "center", whole pixels
        whose centre is in it. Static.
    """
    x, y = jnp.asarray(x, image.dtype), jnp.asarray(y, image.dtype)
    known = jnp.isfinite(x) & jnp.isfinite(y)
    x, y = jnp.where(known, x, 0.0), jnp.where(known, y, 0.0)
    shape = image.shape[0], image.shape[1]
    if method == "sinc":
        weight = sinc_weights(shape, x, y, radius)
    elif method == "exact":
        weight = circle_overlap(shape, x, y, jnp.asarray(radius, image.dtype))
    else:
        square = steps_along(shape[1], x) ** 2 + steps_along(shape[0], y)[:, None] ** 2
        weight = (square <= radius**2).astype(image.dtype)
    flux, square = jnp.sum(weight * image), jnp.sum(weight**2 * variance)
    some = known & (square > 0)
    error = jnp.sqrt(jnp.where(some, square, 1.0))
    return ApertureFlux(
        jnp.where(known, flux, jnp.nan), jnp.where(some, error, jnp.nan), jnp.sum(weight)
    )


@dataclass(frozen=True)
class MeasureApertures:
    """`flux_<r>`, `flux_<r>_err` and `flag_<r>` in circles about the centroid.

    `flag_<r>`: the circle leaves the image, or the largest stamp, and the flux is NaN: part of the
    light is no flux; or a pixel in it has no value, and counts as 0. `flag`: the centroid failed.
    Names have an underscore for the point: `flux_4_5`.

    - `radii`: in pixels.
    - `method`: as for `aperture_flux`, the same for all: another one beyond some radius, as in the
        LSST pipelines, makes a step there.
    """

    radii: tuple[float, ...] = RADII
    method: Method = "sinc"

    def __post_init__(self):
        if not self.radii or not all(0 < r < 1e4 for r in self.radii):
            raise ValueError(f"`radii` must be positive numbers of pixels; got {self.radii}.")
        if self.method not in get_args(Method):
            raise ValueError(f"`method` must be one of {get_args(Method)}; got {self.method!r}.")

    @property
    def reach(self) -> float:
        """Pixels from the peak that must be on the stamp."""
        return max(self.radii) + 1.0

    def __call__(
        self, stamp: SourceStamp, found: Mapping[str, Mapping[str, Array]]
    ) -> dict[str, Array]:
        x, y = found["centroid"]["x"], found["centroid"]["y"]
        shape = stamp.image.shape[0], stamp.image.shape[1]
        square = steps_along(shape[1], x) ** 2 + steps_along(shape[0], y)[:, None] ** 2
        # One pass for all circles: the nearest pixel of the image without a value.
        hole = jnp.sqrt(jnp.min(jnp.where(stamp.inside & ~stamp.known, square, jnp.inf)))
        columns = {}
        for radius in self.radii:
            made = aperture_flux(stamp.image, stamp.variance, x, y, radius, self.method)
            cut = leaves_image(stamp, x, y, radius, radius)
            cut |= leaves_stamp(shape, x, y, radius, radius)
            name = radius_name(radius)
            columns[f"flux_{name}"] = jnp.where(cut, jnp.nan, made.flux)
            columns[f"flux_{name}_err"] = jnp.where(cut, jnp.nan, made.flux_err)
            columns[f"flag_{name}"] = cut | (hole < radius + 0.5)
        return columns | {"flag": found["centroid"]["flag"]}


def radius_name(radius: float) -> str:
    """A radius as part of a column's name: 12, 4_5."""
    return f"{radius:g}".replace(".", "_")
