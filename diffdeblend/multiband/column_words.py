"""What the columns of measurements mean, and their units, by their names."""

import re
from typing import Any, NamedTuple

from astropy import units

# Of a flux: the unit of the image, whatever that is.
FLUX = "flux"

_OF = {
    "psf": "the PSF",
    "gaussian": "the Gaussian of its moments",
    "kron": "the Kron aperture",
    "cmodel": "CModel",
    "aperture": "a circle",
    "shape": "its adaptive moments",
    "psf_shape": "adaptive moments of the PSF",
    "deblend": "deblending",
}
_PROFILES = {"exp": "exponential", "dev": "de Vaucouleurs"}
_AXES = {"xx": "along x", "yy": "along y", "xy": "mixed"}
_FLAWS = {
    "edge": "at the edge",
    "nodata": "without data",
    "interpolated": "interpolated",
    "saturated": "saturated",
    "cr": "of a cosmic ray",
    "bad": "bad",
    "suspect": "suspect",
}
_WHERE = {
    "": "A pixel of the footprint is",
    "_center": "One of the 3 x 3 pixels about the centroid is",
    "_center_all": "All of the 3 x 3 pixels about the centroid are",
}

# Whole names first; then those of a measurement and its key. `{0}`, `{1}` ... are the groups.
_WHOLE: dict[str, tuple[str, Any]] = {
    "id": ("Number of the source, from 1", None),
    "parent": ("`id` of the blend that it is a part of; 0 for none", None),
    "peak_x": ("Pixel of the peak along x", None),
    "peak_y": ("Pixel of the peak along y", None),
    "footprint_area": ("Pixels of the footprint", None),
    "deblend_n_child": ("Sources that it was taken apart into", None),
    "deblend_n_peaks": ("Peaks in the footprint", None),
    "deblend_parent_n_peaks": ("Peaks in the footprint of the blend", None),
    "deblend_model_flux": ("Flux of the model that light was shared out by", FLUX),
    "deblend_psf_chi2": ("chi2 per degree of freedom of a point fitted at the peak", None),
    "deblend_psf_flux": ("Flux of that point", FLUX),
    "deblend_psf_flux_err": ("Standard deviation of deblend_psf_flux", FLUX),
    "deblend_psf_x": ("Place of that point along x", units.pix),
    "deblend_psf_y": ("Place of that point along y", units.pix),
    "deblend_data_coverage": ("Fraction of the blend's pixels with data", None),
    "deblend_max_overlap": ("Most light of other models in a pixel of its own", FLUX),
    "deblend_flux_overlap": ("Light of other models in its pixels", FLUX),
    "deblend_flux_overlap_fraction": ("The same over its own light", None),
    "deblend_blendedness": ("Share of other light, weighted by its model: 0 alone", None),
    "deblend_flag_deblended_as_psf": ("Its template is a point", None),
    "deblend_flag_skipped": ("A blend that was left alone", None),
    "deblend_flag_parent_too_big": ("Left alone: more pixels than allowed", None),
    "deblend_flag_too_many_peaks": ("More peaks than allowed: only the strongest were used", None),
    "deblend_flag_masked": ("Left alone: too few pixels with data", None),
    "deblend_flag_failed": ("Deblending failed", None),
    "deblend_flag_zero_flux": ("Its model has no light in the blend", None),
    "deblend_flag_has_stray_flux": ("Got light that no template claims", None),
    "deblend_flag_patched_template": ("A part of its template was mirrored along one axis", None),
    "extendedness_value": ("0 for a point, 1 for more, by CModel and PSF fluxes", None),
    "size_extendedness_value": ("0 for a point, towards 1 for more, by moments", None),
    "local_background_value": ("Clipped mean of an annulus about the source", FLUX),
    "local_background_value_err": ("Standard deviation of that mean", FLUX),
    "local_background_rms": ("Clipped standard deviation of the annulus", FLUX),
    "local_background_n_pixels": ("Pixels of the annulus that were used", None),
    "centroid_x": ("Centre along x; the first pixel is centred on 0", units.pix),
    "centroid_y": ("Centre along y; the first pixel is centred on 0", units.pix),
    "centroid_x_err": ("Standard deviation of centroid_x", units.pix),
    "centroid_y_err": ("Standard deviation of centroid_y", units.pix),
    "centroid_xy_cov": ("Covariance of centroid_x and centroid_y", units.pix**2),
    "centroid_flag": (
        "Centre not found, as of sources near the border: that of the peak stands in",
        None,
    ),
    "centroid_flag_not_at_maximum": ("The light has no maximum at the centre", None),
    "centroid_flag_reset_to_peak": ("Too far from the peak, and reset to it", None),
    "shape_fourth": ("Fourth moment over that of a Gaussian", None),
    "shape_flag_not_settled": ("The search for moments did not end", None),
    "shape_flag_shift": ("Centre of the moments is too far from the centroid", None),
    "psf_chi2": ("chi2 of the PSF on its pixels", None),
    "psf_n_pixels": ("Good pixels on the PSF", None),
    "psf_area": ("Noise-equivalent area of the PSF", units.pix**2),
    "psf_share": ("Share of the PSF's power on good pixels", None),
    "kron_radius": ("Kron radius, that of the circle of the ellipse's area", units.pix),
    "kron_a": ("Semi-major axis of the Kron aperture", units.pix),
    "kron_b": ("Semi-minor axis of the Kron aperture", units.pix),
    "kron_flag_bad_shape": ("Moments failed: those of the PSF stand in", None),
    "kron_flag_bad_radius": ("No radius was found: that of the PSF stands in", None),
    "kron_flag_small_radius": ("Smaller than that of the PSF, which stands in", None),
    "kron_flag_used_psf_radius": ("The radius is that of the PSF", None),
    "kron_flag_truncated": ("The aperture is larger than the stamp", None),
    "cmodel_flux_err_held": ("Standard deviation of the flux if the shape were known", FLUX),
    "cmodel_frac_dev": ("Share of the de Vaucouleurs profile in the flux", None),
    "cmodel_chi2": ("chi2 of both profiles together", None),
    "cmodel_n_pixels": ("Pixels that were fitted", None),
    "cmodel_flag_no_pixels": ("Too few good pixels", None),
    "cmodel_flag_not_converged": ("A fit that counts did not end", None),
    "cmodel_flag_size": ("A fitted radius reached its bound", None),
    "pixel_flag": ("The centroid failed: pixels are those about the peak", None),
    "pixel_flag_offimage": ("The centroid is off the image", None),
}


class Words(NamedTuple):
    """What a column is, and its unit: None, `FLUX` or one of astropy's."""

    description: str
    unit: Any


def column_words(name: str) -> Words:
    """Description and unit of a column of `measure_sources`, without a band in its name.

    Names of measurements of one's own say what they are: then the name stands for itself, with the
    unit of its end, as in `mine_flux_err`.
    """
    if name in _WHOLE:
        return Words(*_WHOLE[name])
    for pattern, make in _PATTERNS:
        found = re.fullmatch(pattern, name)
        if found:
            return Words(*make(*found.groups()))
    is_flux = re.fullmatch(r".+_flux(_err)?", name) is not None
    return Words(name.replace("_", " "), FLUX if is_flux else None)


def _of(measurement: str) -> str:
    return _OF.get(measurement, measurement)


def _circle(radius: str, error: str | None) -> tuple[str, Any]:
    said = f"circle of {radius.replace('_', '.')} pixels"
    return (f"Standard deviation of the flux in a {said}" if error else f"Flux in a {said}"), FLUX


def _profile(kind: str, key: str) -> tuple[str, Any]:
    said = f"of the {_PROFILES[kind]} profile alone"
    return {
        "flux": (f"Flux {said}", FLUX),
        "radius": (f"Half-light radius {said}", units.pix),
        "chi2": (f"chi2 {said}", None),
        **{
            axis: (f"Squared half axis {words}, half-light ellipse {said}", units.pix**2)
            for axis, words in _AXES.items()
        },
    }[key]


def _flux(measurement: str, error: str | None) -> tuple[str, Any]:
    said = f"lux of {_of(measurement)}"
    return (f"Standard deviation of the f{said}" if error else f"F{said}"), FLUX


def _moment(measurement: str, key: str, error: str | None) -> tuple[str, Any]:
    whose = " of the PSF" if measurement == "psf_shape" else ""
    said, unit = {
        "x": ("Centre of the moments along x", units.pix),
        "y": ("Centre of the moments along y", units.pix),
        "radius": ("Radius, fourth root of the determinant of moments", units.pix),
        "radius_trace": ("Radius, root of half the trace of moments", units.pix),
        **{axis: (f"Second moment, {words}", units.pix**2) for axis, words in _AXES.items()},
    }[key]
    return (f"Standard deviation of {measurement}_{key}" if error else said + whose), unit


def _covariance(measurement: str, one: str, two: str) -> tuple[str, Any]:
    power = sum(2 if len(key) == 2 else 1 for key in (one, two))
    return f"Covariance of {measurement}_{one} and {measurement}_{two}", units.pix**power


_PATTERNS = (
    (r"pixel_flag_([a-z]+?)(_center|_center_all)?", lambda flaw, where: _flaw(flaw, where)),
    (r"aperture_flux_(\d+(?:_\d+)?)(_err)?", _circle),
    (
        r"aperture_flag_(\d+(?:_\d+)?)",
        lambda radius: (
            f"Circle of {radius.replace('_', '.')} pixels is cut or has holes",
            None,
        ),
    ),
    (r"cmodel_(exp|dev)_(flux|radius|xx|yy|xy|chi2)", _profile),
    (r"(shape|psf_shape)_(radius_trace|radius|x|y|xx|yy|xy)(_err)?", _moment),
    (r"(shape)_(x|y|xx|yy|xy)_(x|y|xx|yy|xy)_cov", _covariance),
    (r"(psf|gaussian|kron|cmodel|shape)_flux(_err)?", _flux),
    (r"(\w+?)_flag_edge", lambda of: (f"Pixels of {_of(of)} are off the image", None)),
    (
        r"(\w+?)_flag_no_good_pixels",
        lambda of: (f"No good pixel for {_of(of)}", None),
    ),
    (r"(\w+?)_flag", lambda of: (f"No number of {_of(of)} is to be trusted", None)),
)


def _flaw(flaw: str, where: str | None) -> tuple[str, Any]:
    return f"{_WHERE[where or '']} {_FLAWS.get(flaw, flaw)}", None
