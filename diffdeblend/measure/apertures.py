"""What is measured in apertures, of the sources of a catalogue, each family when asked for."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.measure.flags import FLAGS
from diffdeblend.measure.kron import kron_axes
from diffdeblend.measure.measurements import Columns, Measurements, error_columns
from diffdeblend.measure.photometry import (
    aperture_of,
    centroid_win_of,
    check_kron_params,
    circular_of,
    flux_radius_of,
    kron_of,
)
from diffdeblend.measure.windowed import window_reach
from diffdeblend.measure.windows import Planes

# Bits of an aperture's own flags.
_BITS = {
    "no_overlap": "kron_no_overlap",
    "partial_overlap": "kron_partial_overlap",
    "neighbor_pixels": "kron_neighbor_pixels",
    "uncorrected_pixels": "kron_uncorrected_pixels",
}


@dataclass(frozen=True, eq=False)
class ApertureMeasurements:
    """Kron, circular and windowed measures; families as in `Measurements`.

    - `own`: has the images.
    - `detection`: has centroids and Kron radii of the same sources, where these come from other
        images; None where they are to come from the same.
    """

    own: Measurements
    detection: "ApertureMeasurements | None" = None

    @property
    def _shapes(self) -> Measurements:
        return self.own if self.detection is None else self.detection.own

    @property
    def _place(self) -> tuple[np.ndarray, np.ndarray]:
        columns = self._shapes.isophotal
        # Nothing is measured where no pixel is left.
        x = np.where(self.own.used.count > 0, columns["x_centroid"], np.nan)
        return x, columns["y_centroid"]

    @property
    def _where(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Stamp, label, x, y."""
        return (self.own.pixels.stamp, self.own.pixels.label, *self._place)

    @cached_property
    def _planes(self) -> Planes:
        planes = self.own.planes
        return Planes(planes.data, planes.labels, error=planes.error, mask=planes.mask)

    @cached_property
    def _theta(self) -> Float[np.ndarray, "source"]:
        return np.deg2rad(self._shapes.shape.orientation)

    @property
    def _sky(self) -> Float[np.ndarray, "source"]:
        return self.own.local_background["local_background"]

    @property
    def _method(self) -> Any:
        return self._shapes.aperture_mask_method

    @cached_property
    def _kron(self) -> Any:
        shape = self._shapes.shape
        if self.detection is None:
            found: Any = kron_of(
                *(self._planes, *self._where, shape.semimajor_axis, shape.semiminor_axis),
                *(self._theta, self._sky, self._method, self._shapes.kron_params),
            )
            axes = found.semimajor_axis, found.semiminor_axis
            return found._replace(aperture=self._with_bad_errors(found.aperture, *axes))
        radii = self.detection._kron
        light = self._light(radii.semimajor_axis, radii.semiminor_axis)
        undefined = radii.undefined | (self.own.used.count == 0)
        return radii._replace(aperture=light, undefined=undefined)

    @cached_property
    def kron(self) -> Columns:
        kron = self._kron
        return {
            "kron_radius": kron.kron_radius,
            "kron_radius_measured": kron.kron_radius_measured,
            "kron_flux": kron.aperture.flux,
            "kron_flux_err": self._error(kron.aperture),
        }

    @cached_property
    def flags(self) -> Columns:
        """All bits of each source."""
        kron = self._kron
        axes = kron.semimajor_axis, kron.semiminor_axis
        flags = self.own.segment_flags | self._shapes.shape_flags
        flags |= np.where(kron.undefined, FLAGS["kron_undefined"], 0)
        flags |= np.where(kron.minimum_radius, FLAGS["kron_minimum_radius"], 0)
        for field, name in _BITS.items():
            flags |= np.where(getattr(kron.aperture, field), FLAGS[name], 0)
        masked, not_finite = self._kinds_of_bad(kron.aperture, *axes)
        flags |= np.where(masked, FLAGS["kron_masked_pixels"], 0)
        flags |= np.where(not_finite, FLAGS["kron_non_finite_data"], 0)
        wrong = self._touches_bad_errors(*axes)
        flags |= np.where(wrong & ~kron.undefined, FLAGS["kron_non_finite_error"], 0)
        return {"flags": flags}

    def kron_photometry(
        self, kron_params: tuple[float, ...]
    ) -> tuple[Float[np.ndarray, "source"], Float[np.ndarray, "source"]]:
        """Flux and error with other Kron parameters.

        **Raises:** `ValueError` for bad ones.
        """
        params = check_kron_params(kron_params)
        shape = self._shapes.shape
        found: Any = kron_of(
            *((self if self.detection is None else self.detection)._planes, *self._where),
            *(shape.semimajor_axis, shape.semiminor_axis, self._theta),
            *(self._sky, self._method, params),
        )
        light = self._light(found.semimajor_axis, found.semiminor_axis)
        return light.flux, self._error(light)

    def kron_ellipses(self, kron_params: tuple[float, ...] | None) -> Columns:
        """Middles, semi-axes in pixels and angles in radians of Kron apertures."""
        kron, shape = self._kron, self._shapes.shape
        major, minor = kron.semimajor_axis, kron.semiminor_axis
        if kron_params is not None:
            params = check_kron_params(kron_params)
            radius = np.maximum(kron.kron_radius_measured, params[1])
            radius: Any = np.where(kron.kron_radius_measured > 0, radius, params[1])
            a, b = shape.semimajor_axis, shape.semiminor_axis
            major, minor = map(np.asarray, kron_axes(radius, a, b, params))
        x, y = self._place
        return {"x": x, "y": y, "a": major, "b": minor, "theta": self._theta}

    def circular_photometry(
        self, radius: float
    ) -> tuple[Float[np.ndarray, "source"], Float[np.ndarray, "source"]]:
        """Flux and error in circles.

        **Raises:** `ValueError` for a radius that is not positive.
        """
        light: Any = circular_of(self._planes, *self._where, radius, self._sky, self._method)
        radii = np.full(len(light.flux), float(radius))
        light = self._with_bad_errors(light, radii, radii)
        return light.flux, self._error(light)

    def flux_radius(self, fraction: float) -> Float[np.ndarray, "source"]:
        """Radius of the circle with a fraction of the Kron flux.

        **Raises:** `ValueError` for a fraction that is not above 0 and at most 1.
        """
        kron = self._kron
        return flux_radius_of(
            *(self._planes, *self._where, kron.aperture.flux, kron.semimajor_axis),
            *(self._sky, fraction, self._method),
        )

    @cached_property
    def half_light_radius(self) -> Float[np.ndarray, "source"]:
        return self.flux_radius(0.5)

    @cached_property
    def _windowed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (x, y), their covariance, and whether they are isophotal."""
        shape, columns = self.own.shape, self.own.isophotal
        found: Any = centroid_win_of(
            *(self._planes, *self._where, self.half_light_radius),
            *(shape.ellipse_cxx, shape.ellipse_cyy, shape.ellipse_cxy, self._method),
        )
        failed = found.fallback
        place = np.stack([found.x, found.y], axis=1)
        covariance = np.stack([found.xx, found.xy, found.xy, found.yy], axis=1).reshape(-1, 2, 2)
        # Without the room to wander.
        half_light: Any = self.half_light_radius
        reach: Any = window_reach(half_light) - 3
        if self.own.planes.error is None:
            covariance = np.full_like(covariance, np.nan)
        wrong = self._touches_bad_errors(reach, reach)
        covariance = np.where(wrong[:, None, None], np.nan, covariance)
        place = np.where(failed[:, None], columns["centroid"], place)
        instead = self.own.centroid_covariance
        return place, np.where(failed[:, None, None], instead, covariance), failed

    @property
    def windowed_covariance(self) -> Float[np.ndarray, "source 2 2"]:
        """Of the windowed centroid (x, y)."""
        return self._windowed[1]

    @cached_property
    def windowed(self) -> Columns:
        place, covariance, failed = self._windowed
        return {
            "x_centroid_win": place[:, 0],
            "y_centroid_win": place[:, 1],
            "centroid_win": place,
            "cutout_centroid_win": place - self.own.boxes[:, [1, 0]],
            **error_columns("centroid_win_err", covariance),
            "centroid_win_fallback": failed,
        }

    def _error(self, light: Any) -> Float[np.ndarray, "source"]:
        if self.own.planes.error is None:
            return np.full(len(light.flux), np.nan)
        return light.flux_err

    def _light(self, major: np.ndarray, minor: np.ndarray) -> Any:
        rows = (*self._where, major, minor, self._theta, self._sky)
        found = aperture_of(self._planes, *rows, self._method)
        return self._with_bad_errors(found, major, minor)

    def _with_bad_errors(self, light: Any, major: np.ndarray, minor: np.ndarray) -> Any:
        """NaN as error where an error in the aperture is not finite: windows have 0 there."""
        wrong = self._touches_bad_errors(major, minor)
        return light._replace(flux_err=np.where(wrong, np.nan, light.flux_err))

    def _touches_bad_errors(
        self, major: np.ndarray, minor: np.ndarray
    ) -> Bool[np.ndarray, "source"]:
        planes = self._planes
        if planes.error is None or np.isfinite(planes.error).all():
            return np.zeros(len(major), bool)
        bad = ~np.isfinite(planes.error) & np.isfinite(planes.data)
        rows = np.arange(len(major))
        return self._sum_over(planes._replace(data=bad.astype(np.float32)), rows, major, minor) > 0

    def _kinds_of_bad(
        self, light: Any, major: np.ndarray, minor: np.ndarray
    ) -> tuple[Bool[np.ndarray, "source"], Bool[np.ndarray, "source"]]:
        """Whether masked pixels, and whether others that are not finite, are in apertures."""
        planes, nothing = self._planes, np.zeros_like(light.bad_pixels)
        if planes.mask is None:
            return nothing, light.bad_pixels
        finite = np.isfinite(planes.data)
        if (finite | planes.mask).all():
            return light.bad_pixels, nothing
        rows = np.flatnonzero(light.bad_pixels)
        found = []
        for bad in (planes.mask, ~finite & ~planes.mask):
            bare = Planes(bad.astype(np.float32), planes.labels)
            some = nothing.copy()
            some[rows] = self._sum_over(bare, rows, major, minor, "none") > 0
            found.append(some)
        return found[0], found[1]

    def _sum_over(
        self,
        planes: Planes,
        rows: Int[np.ndarray, "n"],
        major: np.ndarray,
        minor: np.ndarray,
        method: Any = None,
    ) -> Float[np.ndarray, "n"]:
        where: Any = [values[rows] for values in (*self._where, major, minor, self._theta)]
        planes = planes._replace(error=None)
        where += [np.zeros(len(rows)), method or self._method]
        light: Any = aperture_of(planes, *where)
        return light.flux
