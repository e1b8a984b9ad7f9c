"""One exposure brought onto the pixels of another."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import map_coordinates

from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.planes import excluded_bits, with_plane
from diffdeblend.prepare.interpolate import fill_masked
from diffdeblend.prepare.peers import astroalign_matrix
from diffdeblend.prepare.star_lists import bright_points, match_stars
from diffdeblend.sky import pixel_positions, sky_positions

Method = Literal["stars", "wcs", "astroalign"]

# A map of the sky is exact at every so many pixels, and a spline in between.
_STEP = 16
# A pixel is masked if a flaw has so large a share of it.
_SHARE = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Where the pixels of one exposure lie in another.

    - `matrix`: takes `(x, y, 1)` of `onto` to `(x, y)` of the exposure, shape `(2, 3)`; None where
        the map is not affine, as between two WCS.
    - `x`, `y`: of each pixel of `onto` in the exposure, shape `(y, x)`; NaN where there is none.
    """

    matrix: Float[np.ndarray, "2 3"] | None
    x: Float[np.ndarray, "y x"]
    y: Float[np.ndarray, "y x"]

    def __repr__(self) -> str:
        middle = tuple(n // 2 for n in self.x.shape)
        dx, dy = self.x[middle] - middle[1], self.y[middle] - middle[0]
        return f"<Alignment of {self.x.shape} pixels: by ({dx:.2f}, {dy:.2f}) in the middle>"


def find_alignment(
    exposure: Exposure, onto: Exposure, *, method: Method = "stars", fwhm: float = 3.0
) -> Alignment:
    """Where the pixels of `onto` lie in `exposure`.

    - `method`: "stars": the stars of both are matched, whatever the shift, rotation and scale, and
        an affine map is fitted to them; "wcs": the maps to the sky are believed; "astroalign": the
        package of that name, which the extra `interop` brings.
    - `fwhm`: of a star, in pixels.

    The first band counts. Exposures come without their sky, as `prepare` makes them.

    **Raises:** `ValueError` if too few stars are shared, an exposure has no WCS, the two do not
    overlap, or the method is another; `ImportError` if astroalign is asked for and absent.
    """
    if method == "wcs":
        return _by_sky(exposure, onto)
    if method not in ("stars", "astroalign"):
        raise ValueError(f'`method` must be "stars", "wcs" or "astroalign"; got {method!r}.')
    lists = [_stars(one, fwhm) for one in (exposure, onto)]
    matrix = astroalign_matrix(*lists) if method == "astroalign" else match_stars(*lists)
    if matrix is None:
        raise ValueError(
            "`exposure` and `onto` share too few stars to be aligned: "
            f"{len(lists[0])} and {len(lists[1])} were found."
        )
    yy, xx = np.mgrid[: onto.shape[0], : onto.shape[1]].astype(float)
    x = matrix[0, 0] * xx + matrix[0, 1] * yy + matrix[0, 2]
    y = matrix[1, 0] * xx + matrix[1, 1] * yy + matrix[1, 2]
    return _overlapping(Alignment(matrix, x, y), exposure)


def align(
    exposure: Exposure,
    onto: Exposure,
    *,
    method: Method | Alignment = "stars",
    fwhm: float = 3.0,
    order: int = 5,
) -> Exposure:
    """The exposure on the pixels of another.

    Masked pixels are filled before, so that they do not ring, and are masked where they have a
    share of a pixel; what the exposure does not show is on the plane `"NO_DATA"`. Light is kept:
    where pixels of `onto` are smaller, they hold less. The noise of a pixel stays that of one, and
    from then on goes with its neighbours'. The PSF is handed on as it is: where pixels turn by more
    than a degree, or its last per cent counts, take it anew from the stars.

    - `method`: as in `find_alignment`, or what that returned.
    - `order`: of the spline.

    **Raises:** `ValueError` as `find_alignment`, or for another `order`.
    """
    if not isinstance(order, int | np.integer) or not 1 <= order <= 5:
        raise ValueError(f"`order` must be 1 to 5; got {order!r}.")
    if isinstance(method, Alignment):
        found = _overlapping(method, exposure)
    else:
        found = find_alignment(exposure, onto, method=method, fwhm=fwhm)
    ny, nx = exposure.shape
    inside = (found.x >= -0.5) & (found.x <= nx - 0.5) & (found.y >= -0.5) & (found.y <= ny - 0.5)
    places = np.stack([np.where(inside, found.y, 0), np.where(inside, found.x, 0)])
    area = _area(found)
    header = exposure.header
    planes, no_data = with_plane(header.mask_planes, "NO_DATA")
    spoils = np.uint32(excluded_bits(header))
    images, variances, masks = [], [], []
    for band in range(exposure.n_bands):
        bits = np.asarray(exposure.mask[band]).view(np.uint32)
        image, variance = np.asarray(exposure.image[band]), np.asarray(exposure.variance[band])
        flawed = (bits & spoils) != 0
        flawed |= ~np.isfinite(image) | ~np.isfinite(variance)
        known = np.where(flawed, np.median(variance[~flawed]), variance)
        image = fill_masked(image, flawed, fwhm=fwhm)
        out = map_coordinates(image, places, order=order, mode="mirror")
        noise = map_coordinates(known, places, order=1, mode="nearest")
        flags = np.zeros(out.shape, np.uint32)
        for bit in range(len(header.mask_planes)):
            plane = (bits >> np.uint32(bit)) & np.uint32(1)
            if plane.any():
                share = map_coordinates(plane.astype(np.float32), places, order=1, mode="nearest")
                flags[share > _SHARE] |= np.uint32(1 << bit)
        unsaid = flawed & ((bits & spoils) == 0)
        share = map_coordinates(unsaid.astype(np.float32), places, order=1, mode="nearest")
        flags[~inside | (share > _SHARE)] |= np.uint32(1 << no_data)
        images.append(np.where(inside, out * area, 0).astype(image.dtype))
        variances.append((noise * area**2).astype(variance.dtype))
        masks.append(flags)
    return make_exposure(
        np.stack(images),
        np.stack(variances),
        exposure.psf,
        mask=np.stack(masks),
        mask_planes=planes,
        excluded=header.excluded,
        bands=header.bands,
        zero_points=header.zero_points,
        wcs=onto.header.wcs,
        unit=header.unit,
        gain=header.gain,
        read_noise=header.read_noise,
        exposure_time=header.exposure_time,
        date=header.date,
    )


def _stars(exposure: Exposure, fwhm: float) -> np.ndarray:
    noise = np.sqrt(np.asarray(exposure.variance[0]))
    x, y, _ = bright_points(
        np.asarray(exposure.image[0]), ~np.asarray(exposure.good[0]), noise, fwhm=fwhm
    )
    return np.column_stack([x, y])


def _by_sky(exposure: Exposure, onto: Exposure) -> Alignment:
    for name, one in (("exposure", exposure), ("onto", onto)):
        if one.header.wcs is None:
            raise ValueError(f'`{name}` has no WCS, which `method="wcs"` needs; use "stars".')
    ny, nx = onto.shape
    rows = np.linspace(0, ny - 1, max(4, ny // _STEP + 1))
    columns = np.linspace(0, nx - 1, max(4, nx // _STEP + 1))
    few_y, few_x = np.meshgrid(rows, columns, indexing="ij")
    x, y = pixel_positions(exposure.header, *sky_positions(onto.header, few_x, few_y))
    if not (np.isfinite(x) & np.isfinite(y)).all():
        yy, xx = np.mgrid[:ny, :nx].astype(float)
        x, y = pixel_positions(exposure.header, *sky_positions(onto.header, xx, yy))
    else:
        # So smooth that a spline has it to a thousandth of a pixel, up to the border.
        x, y = (
            RectBivariateSpline(rows, columns, few)(np.arange(ny), np.arange(nx)) for few in (x, y)
        )
    return _overlapping(Alignment(None, x, y), exposure)


def _overlapping(found: Alignment, exposure: Exposure) -> Alignment:
    ny, nx = exposure.shape
    with np.errstate(invalid="ignore"):
        inside = (found.x > -0.5) & (found.x < nx - 0.5) & (found.y > -0.5) & (found.y < ny - 0.5)
    if not inside.any():
        raise ValueError("`exposure` and `onto` do not overlap on the sky.")
    return found


def _area(found: Alignment) -> Any:
    """Pixels of the exposure that one of `onto` covers."""
    if found.matrix is not None:
        return abs(np.linalg.det(found.matrix[:, :2]))
    (xy, xx), (yy, yx) = np.gradient(found.x), np.gradient(found.y)
    area = np.abs(xx * yy - xy * yx)
    return np.where(np.isfinite(area), area, 1.0)
