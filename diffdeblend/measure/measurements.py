"""Everything that is measured of the sources of stamps, each family when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from diffdeblend.measure import isophotal
from diffdeblend.measure.flags import FLAGS
from diffdeblend.measure.local_background import LEAST_PIXELS, local_background_of
from diffdeblend.measure.outline import perimeter
from diffdeblend.measure.peak import quadratic_centroids
from diffdeblend.measure.pixels import SegmentPixels, list_pixels
from diffdeblend.measure.shapes import PIXEL_VARIANCE, Ellipse, ellipse
from diffdeblend.measure.windows import Planes

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Measurements:
    """The sources of a stack of label images `(stamp, y, x)`, and what is measured of them.

    Families of columns are methods without arguments, worked out once for all sources; each gives a
    dict of arrays whose first axis is the source. Values are in pixels of the stamp and in the unit
    of the data. Host side.

    - `planes`: the images, numpy. `data` and `labels` must be there.
    - `local_bkg_width`, `aperture_mask_method`, `kron_params`: as for `SourceCatalog`.
    - `label_flags`: bits that a label brings along.
    """

    planes: Planes
    local_bkg_width: int = 0
    aperture_mask_method: str = "correct"
    kron_params: tuple[float, ...] = (2.5, 1.4, 0.0)
    label_flags: Mapping[int, int] | None = None

    @cached_property
    def pixels(self) -> SegmentPixels:
        """All pixels of all segments."""
        return list_pixels(self.planes.labels)

    @cached_property
    def boxes(self) -> Int[np.ndarray, "source 4"]:
        """Rows (y0, x0, y1, x1) around the segments."""
        return self.pixels.boxes()

    @cached_property
    def _finite(self) -> Bool[np.ndarray, "pixel"]:
        return np.isfinite(self.pixels.values(self.planes.data))

    @cached_property
    def _masked(self) -> Bool[np.ndarray, "pixel"]:
        mask = self.planes.mask
        return np.zeros_like(self._finite) if mask is None else self.pixels.values(mask)

    @cached_property
    def used(self) -> SegmentPixels:
        """Pixels that are finite and not masked."""
        return self.pixels.only(self._finite & ~self._masked)

    @cached_property
    def lit(self) -> SegmentPixels:
        """Pixels that are not masked: smoothing bridges what is not finite."""
        return self.pixels.only(~self._masked)

    @cached_property
    def _empty(self) -> Bool[np.ndarray, "source"]:
        return self.used.count == 0

    def _or_nan(self, values: np.ndarray) -> np.ndarray:
        return np.where(self._empty, np.nan, values)

    @cached_property
    def geometry(self) -> Columns:
        y0, x0, y1, x1 = self.boxes.T
        area = self._or_nan(self.used.count)
        return {
            "label": self.pixels.label,
            "bbox_xmin": x0,
            "bbox_xmax": x1 - 1,
            "bbox_ymin": y0,
            "bbox_ymax": y1 - 1,
            "segment_area": self.pixels.count,
            "area": area,
            "equivalent_radius": np.sqrt(area / np.pi),
        }

    @cached_property
    def _light(self) -> isophotal.Weights:
        convolved = self.planes.convolved
        image = self.planes.data if convolved is None else convolved
        return isophotal.weights(self.lit, image, self.boxes)

    @cached_property
    def _centroid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return isophotal.centroids(self.lit, self._light)

    @cached_property
    def _raw_covariance(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Along xx, xy and yy, before thin sources are made a pixel wide."""
        total, y, x = self._centroid
        moments = isophotal.central_moments(self.lit, self._light, y, x)
        there = np.where(total > 0, total, np.nan)
        return moments[:, 0, 2] / there, moments[:, 1, 1] / there, moments[:, 2, 0] / there

    @cached_property
    def shape(self) -> Ellipse:
        """The ellipse of each source."""
        return ellipse(*self._raw_covariance)

    @cached_property
    def isophotal(self) -> Columns:
        _, y, x = self._centroid
        shape = self.shape
        cutout = np.stack([x, y], axis=1)
        centroid = cutout + self.boxes[:, [1, 0]]
        xx, xy, yy = shape.covariance_xx, shape.covariance_xy, shape.covariance_yy
        axes = np.stack([shape.semimajor_axis, shape.semiminor_axis], axis=1)
        return {
            "x_centroid": centroid[:, 0],
            "y_centroid": centroid[:, 1],
            "centroid": centroid,
            "cutout_centroid": cutout,
            **shape._asdict(),
            "covariance": np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2),
            "covariance_eigvals": axes**2,
        }

    @cached_property
    def moments(self) -> Columns:
        total, y, x = self._centroid
        central = isophotal.central_moments(self.lit, self._light, y, x, order=3)
        # Without light there is no centre, but a sum.
        about_centre = np.arange(16).reshape(4, 4) > 0
        central = np.where((total <= 0)[:, None, None] & about_centre, np.nan, central)
        mixed = -central[:, 1, 1]
        inertia = np.stack([central[:, 0, 2], mixed, mixed, central[:, 2, 0]], axis=1)
        return {
            "moments": isophotal.raw_moments(self.lit, self._light),
            "moments_central": central,
            "inertia_tensor": inertia.reshape(-1, 2, 2),
        }

    @cached_property
    def _extremes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return isophotal.extremes(self.used, self.planes.data)

    @cached_property
    def values(self) -> Columns:
        least, largest, place = self._extremes
        sky = self.local_background["local_background"]
        flux = self.used.sum(self.used.values(self.planes.data)) - self.used.count * sky
        if self.planes.error is None:
            error = np.full(len(flux), np.nan)
        else:
            error = np.sqrt(self.used.sum(self.used.values(self.planes.error).astype(float) ** 2))
        if self._empty.any():
            place = np.where(self._empty[:, None], np.nan, place)
        first = np.tile(self.boxes[:, :2], 2)
        return {
            "min_value": least - sky,
            "max_value": largest - sky,
            "min_value_index": place[:, :2],
            "max_value_index": place[:, 2:],
            "min_value_yindex": place[:, 0],
            "min_value_xindex": place[:, 1],
            "max_value_yindex": place[:, 2],
            "max_value_xindex": place[:, 3],
            "cutout_min_value_index": (place - first)[:, :2],
            "cutout_max_value_index": (place - first)[:, 2:],
            "segment_flux": self._or_nan(flux),
            "segment_flux_err": self._or_nan(error),
        }

    @cached_property
    def gini(self) -> Columns:
        return {"gini": isophotal.gini(self.used, self.planes.data)}

    @cached_property
    def perimeter(self) -> Columns:
        return {"perimeter": perimeter(self.used)}

    def background_at(
        self, x: Float[np.ndarray, "source"], y: Float[np.ndarray, "source"]
    ) -> Columns:
        """The background under each source, and at positions (x, y) between pixels."""
        if self.planes.background is None:
            nothing = np.full(self.pixels.n_sources, np.nan)
            return dict.fromkeys(
                ("background_sum", "background_mean", "background_centroid"), nothing
            )
        total = self.used.sum(self.used.values(self.planes.background))
        at = np.full(len(x), np.nan)
        known = np.isfinite(x) & np.isfinite(y)
        # The order along the stamps is nearest: no position lies between two.
        at[known] = _bilinear(self.planes.background, self.pixels.stamp[known], y[known], x[known])
        return {
            "background_sum": self._or_nan(total),
            "background_mean": self._or_nan(total / np.maximum(self.used.count, 1)),
            "background_centroid": at,
        }

    @cached_property
    def centroid_covariance(self) -> Float[np.ndarray, "source 2 2"]:
        """Of the isophotal centroid (x, y); NaN without errors."""
        if self.planes.error is None:
            return np.full((self.pixels.n_sources, 2, 2), np.nan)
        _, y, x = self._centroid
        # What was bridged has no error of its own.
        known = np.isfinite(self.lit.values(self.planes.data))
        light = self._light._replace(counted=self._light.counted & known)
        return isophotal.centroid_covariance(self.lit, light, self.planes.error, y, x)

    @cached_property
    def centroid_err(self) -> Columns:
        return error_columns("centroid_err", self.centroid_covariance)

    @cached_property
    def _quad(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (x, y), covariance and whether the parabola gave none."""
        peaks: Any = quadratic_centroids(
            self.used, self.planes.data, self._extremes[2][:, 2:], self.boxes, self.planes.error
        )
        place = np.stack([peaks.x, peaks.y], axis=1)
        failed: Any = np.isnan(place).any(axis=1)
        place = np.where(failed[:, None], self.isophotal["centroid"], place)
        covariance = np.where(failed[:, None, None], self.centroid_covariance, peaks.covariance)
        return place, covariance, ~peaks.fitted

    @property
    def quad_covariance(self) -> Float[np.ndarray, "source 2 2"]:
        """Of the centroid by a parabola (x, y)."""
        return self._quad[1]

    @cached_property
    def quad(self) -> Columns:
        place, covariance, failed = self._quad
        return {
            "x_centroid_quad": place[:, 0],
            "y_centroid_quad": place[:, 1],
            "centroid_quad": place,
            "cutout_centroid_quad": place - self.boxes[:, [1, 0]],
            **error_columns("centroid_quad_err", covariance),
            "centroid_quad_fallback": failed,
        }

    @cached_property
    def local_background(self) -> Columns:
        return {"local_background": self._sky[0]}

    @cached_property
    def _sky(self) -> tuple[np.ndarray, np.ndarray]:
        """Level around each source, and whether it had too few pixels to be known."""
        n = self.pixels.n_sources
        if self.local_bkg_width == 0:
            return np.zeros(n), np.zeros(n, bool)
        level, n_used = local_background_of(
            self.planes, self.pixels.stamp, self.boxes, self.local_bkg_width
        )
        return self._or_nan(level), n_used < LEAST_PIXELS

    @cached_property
    def segment_flags(self) -> Int[np.ndarray, "source"]:
        """Bits of what can be seen of the pixels of the segment."""
        flags = np.zeros(self.pixels.n_sources, np.int64)

        def put(name: str, where: np.ndarray) -> None:
            flags[where] |= FLAGS[name]

        if self.label_flags:
            keys = np.array(list(self.label_flags), np.int64)
            bits = np.array(list(self.label_flags.values()), np.int64)
            order = np.argsort(keys)
            at = np.minimum(np.searchsorted(keys[order], self.pixels.label), len(keys) - 1)
            flags |= np.where(keys[order][at] == self.pixels.label, bits[order][at], 0)
        ny, nx = self.pixels.shape[1:]
        at_edge = (self.boxes[:, :2] == 0).any(axis=1) | (self.boxes[:, 2:] == (ny, nx)).any(axis=1)
        put("edge_touch", at_edge)
        put("masked_pixels", self.pixels.sum(self._masked) > 0)
        put("non_finite_data", self.pixels.sum(~self._finite) > 0)
        if self.planes.error is not None:
            wrong = ~np.isfinite(self.pixels.values(self.planes.error))
            put("non_finite_error", self.pixels.sum(wrong) > 0)
        put("all_masked", self._empty)
        put("local_bkg_too_few_pixels", self._sky[1])
        return flags

    @cached_property
    def shape_flags(self) -> Int[np.ndarray, "source"]:
        """Bits of what is wrong with the shape."""
        xx, xy, yy = self._raw_covariance
        smaller = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
        undefined = np.isnan(self.shape.semimajor_axis)
        # Its own reason is enough.
        thin = (smaller < PIXEL_VARIANCE) & ~undefined
        return np.where(undefined, FLAGS["undefined_shape"], 0) | np.where(
            thin, FLAGS["singular_covariance"], 0
        )


def error_columns(name: str, covariance: Float[np.ndarray, "source 2 2"]) -> dict[str, Any]:
    """Errors along x and y, together and each."""
    error = np.sqrt(np.stack([covariance[:, 0, 0], covariance[:, 1, 1]], axis=1))
    return {name: error, f"x_{name}": error[:, 0], f"y_{name}": error[:, 1]}


def _bilinear(stack: np.ndarray, stamp: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    if len(stack) == 1:
        place, image = (y, x), stack[0]
    else:
        place, image = (stamp, y, x), stack
    return map_coordinates(image, place, output=float, order=1, mode="nearest")
