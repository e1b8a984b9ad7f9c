"""Where sources are on the sky. Host side, through astropy."""

from typing import Any

import numpy as np
from jaxtyping import Float

# Corners of a box, and the ends of it (columns of first and last pixel) that meet there.
CORNERS = {"ll": (0, 0), "ul": (0, 1), "lr": (1, 0), "ur": (1, 1)}


def sky_jacobian(
    wcs: Any, x: Float[np.ndarray, "source"], y: Float[np.ndarray, "source"]
) -> Float[np.ndarray, "source 2 2"]:
    """Arcseconds to the east and to the north (rows) for a pixel along x and y (columns).

    East and north are those of the frame of `wcs`. Differences over one pixel, as photutils takes
    them; NaN where x or y is.
    """
    found = np.full((len(x), 2, 2), np.nan)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return found
    x, y = x[good], y[good]
    steps = ((0, 0), (-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
    at = wcs.pixel_to_world(
        *(np.stack([c + step[i] for step in steps]) for i, c in ((0, x), (1, y)))
    )
    lon, lat = at.spherical.lon.rad, at.spherical.lat.rad
    # Unit vectors know no wrap of the longitude and no pole.
    place = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    lon, lat = lon[0], lat[0]
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)])
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    moved = np.stack([place[:, 2] - place[:, 1], place[:, 4] - place[:, 3]])
    by = np.einsum("scn,acn->nsa", np.stack([east, north]), moved)
    found[good] = np.rad2deg(by) * 3600
    return found


def sky_errors(
    wcs: Any,
    x: Float[np.ndarray, "source"],
    y: Float[np.ndarray, "source"],
    covariance: Float[np.ndarray, "source 2 2"],
) -> Float[np.ndarray, "source 2"]:
    """Errors to the east and to the north in arcseconds, of positions with this covariance."""
    turned = _turned(wcs, x, y, covariance)
    return np.sqrt(np.stack([turned[:, 0, 0], turned[:, 1, 1]], axis=1))


def sky_orientation(
    wcs: Any,
    x: Float[np.ndarray, "source"],
    y: Float[np.ndarray, "source"],
    covariance: Float[np.ndarray, "source 2 2"],
) -> Float[np.ndarray, "source"]:
    """Position angle of the major axis in degrees from north to east, in (-90, 90]."""
    turned = _turned(wcs, x, y, covariance)
    along, across, mixed = turned[:, 1, 1], turned[:, 0, 0], turned[:, 0, 1]
    return np.rad2deg(0.5 * np.arctan2(2 * mixed, along - across))


def positions(wcs: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """`SkyCoord` of pixel positions; that of a position that is NaN is NaN."""
    return wcs.pixel_to_world(x, y)


def box_corners(wcs: Any, boxes: np.ndarray, corner: str) -> Any:
    """`SkyCoord` of the outer corner of the boxes, rows (y0, x0, y1, x1)."""
    right, upper = CORNERS[corner]
    return wcs.pixel_to_world(boxes[:, 1 + 2 * right] - 0.5, boxes[:, 2 * upper] - 0.5)


def _turned(wcs: Any, x: np.ndarray, y: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    turn = sky_jacobian(wcs, x, y)
    return np.einsum("nij,njk,nlk->nil", turn, covariance, turn)
