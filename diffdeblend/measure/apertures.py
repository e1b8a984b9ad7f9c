"""What is measured in apertures, of the sources of a catalogue, each family when asked for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.measure.flags import FLAGS
from diffdeblend.measure.kron import Aperture, Kron
from diffdeblend.measure.measurements import Columns, Measurements, error_columns
from diffdeblend.measure.photometry import (
    aperture_of,
    centroid_win_of,
    circular_of,
    flux_radius_of,
    kron_axes_of,
    kron_of,
)
from diffdeblend.measure.windows import Planes


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
    def _where(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Stamp, label, x, y."""
        place = self._shapes.isophotal
        pixels = self.own.pixels
        return pixels.stamp, pixels.label, place["x_centroid"], place["y_centroid"]

    @cached_property
    def _planes(self) -> Planes:
        """What apertures look at; errors that are no numbers are dealt with apart."""
        planes = self.own.planes
        return Planes(planes.data, planes.labels, error=planes.error, mask=planes.mask)

    @cached_property
    def _theta(self) -> Float[np.ndarray, "source"]:
        return np.deg2rad(self._shapes.shape.orientation)

    @property
    def _sky(self) -> Float[np.ndarray, "source"]:
        return self.own.local_background["local_background"]

    @property
    def _params(self) -> tuple[float, ...]:
        return self._shapes.kron_params

    @cached_property
    def _kron(self) -> Kron:
        shape = self._shapes.shape
        if self.detection is None:
            found = kron_of(
                *(self._planes, *self._where, shape.semimajor_axis, shape.semiminor_axis),
                *(self._theta, self._sky, self._method, self._params),
            )
            return found._replace(aperture=self._without_bad_errors(found.aperture, *_axes(found)))
        radii = self.detection._kron
        return radii._replace(aperture=self._light(radii.semimajor_axis, radii.semiminor_axis))

    @property
    def _method(self):
        return self._shapes.aperture_mask_method

    def _light(self, major: np.ndarray, minor: np.ndarray) -> Aperture:
        found = aperture_of(
            self._planes, *self._where, major, minor, self._theta, self._sky, self._method
        )
        return self._without_bad_errors(found, major, minor)
