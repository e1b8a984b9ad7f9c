"""Columns of positions on the sky. Host side."""

from typing import Any

from diffdeblend.measure import sky
from diffdeblend.measure.apertures import ApertureMeasurements


class SkyMeasurements:
    """Families of columns as in `Measurements`, through a `wcs`; all None without one."""

    def __init__(self, wcs: Any, of: ApertureMeasurements):
        self._wcs, self._of = wcs, of

    @property
    def sky(self) -> dict[str, Any]:
        names = ("sky_centroid", "sky_centroid_icrs", "sky_orientation")
        if self._wcs is None:
            return dict.fromkeys(names)
        columns = self._of.own.isophotal
        place = columns["x_centroid"], columns["y_centroid"]
        at = sky.positions(self._wcs, *place)
        angle = sky.sky_orientation(self._wcs, *place, columns["covariance"])
        return dict(zip(names, (at, at.icrs, angle), strict=True))

    @property
    def sky_win(self) -> dict[str, Any]:
        return self._position("sky_centroid_win", lambda: self._of.windowed["centroid_win"])

    @property
    def sky_quad(self) -> dict[str, Any]:
        return self._position("sky_centroid_quad", lambda: self._of.own.quad["centroid_quad"])

    @property
    def sky_bbox(self) -> dict[str, Any]:
        if self._wcs is None:
            return dict.fromkeys(f"sky_bbox_{corner}" for corner in sky.CORNERS)
        return {
            f"sky_bbox_{corner}": sky.box_corners(self._wcs, self._of.own.boxes, corner)
            for corner in sky.CORNERS
        }

    @property
    def sky_err(self) -> dict[str, Any]:
        return self._errors(
            "sky_centroid",
            lambda: (self._of.own.isophotal["centroid"], self._of.own.centroid_covariance),
        )

    @property
    def sky_win_err(self) -> dict[str, Any]:
        return self._errors(
            "sky_centroid_win",
            lambda: (self._of.windowed["centroid_win"], self._of.windowed_covariance),
        )

    @property
    def sky_quad_err(self) -> dict[str, Any]:
        return self._errors(
            "sky_centroid_quad",
            lambda: (self._of.own.quad["centroid_quad"], self._of.own.quad_covariance),
        )

    def _position(self, name: str, place: Any) -> dict[str, Any]:
        return {name: None if self._wcs is None else sky.positions(self._wcs, *place().T)}

    def _errors(self, name: str, known: Any) -> dict[str, Any]:
        names = (f"{name}_err", f"{name}_ra_err", f"{name}_dec_err")
        if self._wcs is None:
            return dict.fromkeys(names)
        place, covariance = known()
        both = sky.sky_errors(self._wcs, place[:, 0], place[:, 1], covariance)
        return dict(zip(names, (both, both[:, 0], both[:, 1]), strict=True))
