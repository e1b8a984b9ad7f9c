"""From pixels to the sky and back, at the host edge."""

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.header import Header, Numbers

if TYPE_CHECKING:  # 0.4 s of import that arrays alone do not need
    import astropy.wcs


def sky_positions(header: Header, x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (ICRS, degrees) of positions in pixels.

    **Raises:** `ValueError` if the exposure has no WCS.
    """
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    wcs = _wcs(header)
    lon, lat = _longitude_latitude(wcs, np.asarray(x, float), np.asarray(y, float))
    sky: Any = SkyCoord(lon, lat, unit="deg", frame=wcs_to_celestial_frame(wcs)).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def pixel_positions(header: Header, ra: Numbers, dec: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Positions in pixels, `x` and `y`, of right ascensions and declinations (ICRS, degrees).

    NaN for what the map cannot show, such as the other side of the sky.

    **Raises:** `ValueError` if the exposure has no WCS.
    """
    import warnings

    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    wcs = _wcs(header)
    sky: Any = SkyCoord(np.asarray(ra, float), np.asarray(dec, float), unit="deg")
    sky = sky.transform_to(wcs_to_celestial_frame(wcs)).spherical
    lon, lat = np.atleast_1d(sky.lon.deg), np.atleast_1d(sky.lat.deg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all points NaN, said by the NaNs
        world = (lon, lat) if wcs.wcs.lng == 0 else (lat, lon)
        x, y = wcs.all_world2pix(*world, 0, quiet=True)
        lon_back, lat_back = _longitude_latitude(wcs, x, y)
    # Where a distortion was not inverted, astropy hands back its last guess.
    off = np.linalg.norm(_unit_vectors(lon_back, lat_back) - _unit_vectors(lon, lat), axis=-1)
    pixel = np.deg2rad(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))
    lost = ~(off < 1e-3 * pixel)
    x, y = np.where(lost, np.nan, x), np.where(lost, np.nan, y)
    return x.reshape(np.shape(ra)), y.reshape(np.shape(ra))


def local_jacobian(header: Header, x: Numbers, y: Numbers) -> np.ndarray:
    """How a step in pixels moves on the sky, shape `(*x.shape, 2, 2)`.

    Rows: east and north, in arcseconds; columns: along x and y, in pixels. By central differences
    of the whole map, distortion included.

    **Raises:** `ValueError` if the exposure has no WCS.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    ra, dec = (np.deg2rad(angle) for angle in sky_positions(header, x, y))
    zero = np.zeros_like(ra)
    east = np.stack([-np.sin(ra), np.cos(ra), zero], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    columns = []
    for step_x, step_y in ((0.5, 0.0), (0.0, 0.5)):
        ahead = _unit_vectors(*sky_positions(header, x + step_x, y + step_y))
        behind = _unit_vectors(*sky_positions(header, x - step_x, y - step_y))
        # Differences of vectors, not of angles: right ascension jumps at 360 and at the poles.
        step = ahead - behind
        columns.append(np.stack([np.sum(step * east, -1), np.sum(step * north, -1)], axis=-1))
    return np.rad2deg(np.stack(columns, axis=-1)) * 3600


def _wcs(header: Header) -> "astropy.wcs.WCS":
    if header.wcs is None:
        raise ValueError("`header` has no WCS; sky coordinates need one.")
    return header.wcs


def _longitude_latitude(wcs: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In the map's own system; astropy's `ra_dec_order` knows only right ascension."""
    world = wcs.all_pix2world(x, y, 0)
    return world[wcs.wcs.lng], world[wcs.wcs.lat]


def _unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    lon, lat = np.deg2rad(lon), np.deg2rad(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
