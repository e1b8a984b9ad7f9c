"""Where sources of stamps are on the sky."""

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.stamps.stamps import Stamps, StampsHeader


def knows_sky(stamps: Stamps, header: StampsHeader) -> bool:
    """Whether it is known where the sources of stamps are on the sky."""
    here = stamps.ra is not None and stamps.dec is not None
    return here and (stamps.cd is not None or header.pixel_scale is not None)


def source_sky(
    stamps: Stamps,
    header: StampsHeader,
    stamp: Int[np.ndarray, "source"],
    x: Float[np.ndarray, "source"],
    y: Float[np.ndarray, "source"],
) -> tuple[Float[np.ndarray, "source"], Float[np.ndarray, "source"]]:
    """Right ascension and declination of sources, in degrees, ICRS.

    The sky is projected gnomonically about the middle of each stamp, as `TAN` of FITS does.

    - `stamp`: place of each source's stamp. `x`, `y`: in pixels of it.

    **Raises:** `ValueError` where that is not known, see `knows_sky`.
    """
    if not knows_sky(stamps, header) or stamps.ra is None or stamps.dec is None:
        raise ValueError("`stamps` must have ra, dec, and cd or a pixel scale; some are missing.")
    ny, nx = header.shape
    step = np.stack([x - (nx - 1) / 2, y - (ny - 1) / 2], axis=1)
    if stamps.cd is None:
        scale = (header.pixel_scale or 0) / 3600
        flat = step * np.array([-scale, scale])
    else:
        flat = np.einsum("sij,sj->si", np.asarray(stamps.cd, float)[stamp], step)
    east, north = np.deg2rad(flat).T
    ra, dec = np.deg2rad([stamps.ra[stamp], stamps.dec[stamp]]).astype(float)
    # The direction, as a step along the tangent plane from the middle.
    along = np.cos(dec) - north * np.sin(dec)
    found_ra = ra + np.arctan2(east, along)
    found_dec = np.arctan2(np.sin(dec) + north * np.cos(dec), np.hypot(along, east))
    degrees = np.rad2deg(found_ra) % 360
    # The smallest negative numbers come out as 360 itself.
    return np.where(degrees >= 360, 0.0, degrees), np.rad2deg(found_dec)
