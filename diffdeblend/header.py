"""What goes with the pixels of an exposure and is no array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import ArrayLike

if TYPE_CHECKING:  # 0.4 s of import that arrays alone do not need
    import astropy.wcs

# What numpy makes an array of, on the host.
Numbers = ArrayLike | Sequence[Any]

# Bit 0, 1, ... as in the LSST pipelines.
STANDARD_PLANES = (
    "BAD",
    "SAT",
    "INTRP",
    "CR",
    "EDGE",
    "DETECTED",
    "DETECTED_NEGATIVE",
    "SUSPECT",
    "NO_DATA",
)
# Interpolated and edge pixels still carry light; these do not.
EXCLUDED_PLANES = ("BAD", "SAT", "CR", "NO_DATA")


# Compared by identity: cheap as the static part of a pytree, and a WCS has no equality.
@dataclass(frozen=True, eq=False)
class Header:
    """What goes with the pixels of an exposure and is no array. Lives on the host.

    - `bands`: names, in the order of the image's first axis.
    - `zero_points`: AB magnitude of one unit of flux in each band, or None.
    - `unit`: unit of flux, as astropy reads it; empty for plain counts.
    - `wcs`: the map to the sky, or None.
    - `mask_planes`: names of bit 0, 1, ... of the mask.
    - `excluded`: planes whose pixels are not used.
    - `gain`: electrons per unit of flux. `read_noise`: electrons. `saturation`: unit of flux.
        `exposure_time`: seconds. `date`: of the observation, ISO.
    - `pixel_scale`: arcseconds, or None.
    """

    bands: tuple[str, ...]
    zero_points: tuple[float, ...] | None = None
    unit: str = ""
    wcs: "astropy.wcs.WCS | None" = None
    mask_planes: tuple[str, ...] = STANDARD_PLANES
    excluded: tuple[str, ...] = EXCLUDED_PLANES
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    exposure_time: float | None = None
    date: str | None = None
    pixel_scale: float | None = None


def flux_unit(header: Header) -> Any:
    """astropy's unit of flux; dimensionless for plain counts, and for what astropy cannot read."""
    from astropy import units

    try:
        return units.Unit(header.unit)
    except (ValueError, TypeError):
        return units.dimensionless_unscaled
