"""Photometry of lists of sources, each through a window that holds its aperture. Host side."""

import jax
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.measure.circular import circular_photometry, flux_radius
from diffdeblend.measure.kron import (
    KRON_REACH,
    Aperture,
    Kron,
    aperture_photometry,
    kron_photometry,
)
from diffdeblend.measure.neighbours import MaskMethod, check_mask_method
from diffdeblend.measure.windowed import WindowedCentroid, centroid_win, window_reach
from diffdeblend.measure.windows import Planes, map_windows

PerSource = Float[np.ndarray, "source"]


def kron_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    x: PerSource,
    y: PerSource,
    a: PerSource,
    b: PerSource,
    theta: PerSource,
    local_background: PerSource,
    method: MaskMethod = "correct",
    kron_params: tuple[float, ...] = (2.5, 1.4, 0.0),
) -> Kron:
    """`kron_photometry` of sources in images, as numpy arrays `(source,)`.

    - `x`, `y`: centroids, in pixels of the image, double precision.

    **Raises:** `ValueError` for another method or bad Kron parameters.
    """
    check_mask_method(method)
    params = check_kron_params(kron_params)
    least = params[2] if len(params) == 3 else 0.0
    where = (x, y, np.maximum(KRON_REACH * a, least), np.maximum(KRON_REACH * b, least))
    boxes = aperture_boxes(planes.data.shape, *where, theta)
    rows = (*_split(x), *_split(y), a, b, theta, local_background)
    found = map_windows(_kron, planes, stamp, label, boxes, rows, (method, params))
    # Apertures that reach beyond the ellipse of the first moment: few.
    wide = np.flatnonzero(params[0] * found.kron_radius > KRON_REACH)
    if wide.size:
        shape = (found.semimajor_axis, found.semiminor_axis, theta)
        boxes = aperture_boxes(planes.data.shape, *(v[wide] for v in (x, y, *shape)))
        chosen = [row[wide] for row in rows]
        again = map_windows(
            _kron, planes, stamp[wide], label[wide], boxes, chosen, (method, params)
        )
        for all_, some in zip(found.aperture, again.aperture, strict=True):
            all_[wide] = some
    return found


def aperture_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    x: PerSource,
    y: PerSource,
    major: PerSource,
    minor: PerSource,
    theta: PerSource,
    local_background: PerSource,
    method: MaskMethod = "correct",
) -> Aperture:
    """`aperture_photometry` in given ellipses: other Kron parameters, or other bands."""
    check_mask_method(method)
    boxes = aperture_boxes(planes.data.shape, x, y, major, minor, theta)
    rows = (*_split(x), *_split(y), major, minor, theta, local_background)
    return map_windows(_aperture, planes, stamp, label, boxes, rows, (method,))


def circular_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    x: PerSource,
    y: PerSource,
    radius: float,
    local_background: PerSource,
    method: MaskMethod = "correct",
) -> Aperture:
    """`circular_photometry` of sources in images.

    **Raises:** `ValueError` for a radius that is not positive.
    """
    check_mask_method(method)
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"`radius` must be finite and positive; got {radius!r}.")
    radii = np.full(len(x), float(radius))
    boxes = aperture_boxes(planes.data.shape, x, y, radii, radii, np.zeros(len(x)))
    rows = (*_split(x), *_split(y), radii, local_background)
    return map_windows(_circular, planes, stamp, label, boxes, rows, (method,))


def flux_radius_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    x: PerSource,
    y: PerSource,
    kron_flux: PerSource,
    most: PerSource,
    local_background: PerSource,
    fraction: float,
    method: MaskMethod = "correct",
) -> PerSource:
    """`flux_radius` of sources in images.

    - `most`: largest radius, the larger semi-axis of the Kron aperture.

    **Raises:** `ValueError` for a fraction outside (0, 1].
    """
    check_mask_method(method)
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must be above 0 and at most 1; got {fraction!r}.")
    boxes = aperture_boxes(planes.data.shape, x, y, most, most, np.zeros(len(x)))
    fractions = np.full(len(x), float(fraction))
    rows = (*_split(x), *_split(y), kron_flux, most, local_background, fractions)
    return map_windows(_flux_radius, planes, stamp, label, boxes, rows, (method,))


def centroid_win_of(
    planes: Planes,
    stamp: Int[np.ndarray, "source"],
    label: Int[np.ndarray, "source"],
    x: PerSource,
    y: PerSource,
    half_light_radius: PerSource,
    cxx: PerSource,
    cyy: PerSource,
    cxy: PerSource,
    method: MaskMethod = "correct",
) -> WindowedCentroid:
    """`centroid_win` of sources in images; places in pixels of the image, as are `x` and `y`."""
    check_mask_method(method)
    reach = window_reach(half_light_radius)
    boxes = aperture_boxes(planes.data.shape, x, y, reach, reach, np.zeros(len(x)))
    rows = (*_split(x), *_split(y), half_light_radius, cxx, cyy, cxy)
    found = map_windows(_centroid_win, planes, stamp, label, boxes, rows, (method,))
    # The windows know places from the nearest pixel: in single precision that is what is left.
    return found._replace(x=_split(x)[0] + found.x.astype(float), y=_split(y)[0] + found.y)


def aperture_boxes(
    shape: tuple[int, ...],
    x: PerSource,
    y: PerSource,
    major: PerSource,
    minor: PerSource,
    theta: PerSource,
) -> Int[np.ndarray, "source 4"]:
    """Boxes (y0, x0, y1, x1) of pixels that ellipses touch, within an image of `shape` (..., y, x).

    A box of one pixel where there is no ellipse, and where it has more pixels than are measured.
    """
    cos, sin = np.cos(theta), np.sin(theta)
    reach = np.stack([np.hypot(major * sin, minor * cos), np.hypot(major * cos, minor * sin)])
    place = np.stack([y, x])
    fine = np.isfinite(place).all(axis=0) & np.isfinite(reach).all(axis=0)
    fine &= np.prod(2 * np.where(fine, reach, 0) + 1, axis=0) <= max(
        shape[-2] * shape[-1], 1_000_000
    )
    place, reach = np.where(fine, place, 0.0), np.where(fine, reach, 0.0)
    most = np.array(shape[-2:])[:, None]
    low = np.clip(np.floor(place - reach + 0.5), 0, most - 1)
    high = np.clip(np.floor(place + reach + 1.5), low + 1, most)
    return np.concatenate([low, high]).astype(np.int32).T


def check_kron_params(kron_params: tuple[float, ...]) -> tuple[float, ...]:
    """As a tuple of floats.

    **Raises:** `ValueError` for other than two or three finite numbers, a scale or least radius
    that is not positive, or a negative circle.
    """
    params = tuple(float(value) for value in kron_params)
    if len(params) not in (2, 3) or not all(np.isfinite(params)):
        raise ValueError(f"`kron_params` needs two or three finite numbers; got {kron_params!r}.")
    if params[0] <= 0 or params[1] <= 0 or (len(params) == 3 and params[2] < 0):
        raise ValueError(
            "`kron_params` needs a positive scale and least radius, and a circle of at least 0; "
            f"got {kron_params!r}."
        )
    return params


def _split(x: PerSource) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pixel and what is left: in single precision a place in a large image loses digits."""
    whole = np.floor(np.where(np.isfinite(x), x, 0.0) + 0.5)
    return whole.astype(np.int32), x - whole


def _at(window, x, left_x, y, left_y) -> tuple[jax.Array, jax.Array]:
    return (x - window.x0) + left_x, (y - window.y0) + left_y


def _kron(window, x, left_x, y, left_y, a, b, theta, local_background, method, params):
    place = _at(window, x, left_x, y, left_y)
    return kron_photometry(window, *place, a, b, theta, local_background, method, params)


def _aperture(window, x, left_x, y, left_y, major, minor, theta, local_background, method):
    place = _at(window, x, left_x, y, left_y)
    return aperture_photometry(window, *place, major, minor, theta, local_background, method)


def _circular(window, x, left_x, y, left_y, radius, local_background, method):
    place = _at(window, x, left_x, y, left_y)
    return circular_photometry(window, *place, radius, local_background, method)


def _flux_radius(window, x, left_x, y, left_y, flux, most, local_background, fraction, method):
    place = _at(window, x, left_x, y, left_y)
    return flux_radius(window, *place, flux, most, local_background, fraction, method)


def _centroid_win(window, x, left_x, y, left_y, half_light, cxx, cyy, cxy, method):
    place = _at(window, x, left_x, y, left_y)
    found = centroid_win(window, *place, half_light, cxx, cyy, cxy, method)
    return found._replace(x=found.x - (x - window.x0), y=found.y - (y - window.y0))
