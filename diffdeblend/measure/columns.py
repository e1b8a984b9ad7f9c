"""What a catalogue can say of its sources: names, which are measured together, and units."""

import astropy.units as u

from diffdeblend.measure.shapes import Ellipse

# Measured together, by the first use of one of them. A name is where it is looked for.
FAMILIES: dict[str, tuple[str, ...]] = {
    "geometry": (
        *("label", "bbox_xmin", "bbox_xmax", "bbox_ymin", "bbox_ymax"),
        *("segment_area", "area", "equivalent_radius"),
    ),
    "isophotal": (
        *("x_centroid", "y_centroid", "centroid", "cutout_centroid", *Ellipse._fields),
        *("covariance", "covariance_eigvals"),
    ),
    "moments": ("moments", "moments_central", "inertia_tensor"),
    "values": (
        *("min_value", "max_value", "min_value_index", "max_value_index"),
        *("min_value_xindex", "min_value_yindex", "max_value_xindex", "max_value_yindex"),
        *("cutout_min_value_index", "cutout_max_value_index"),
        *("segment_flux", "segment_flux_err"),
    ),
    "gini": ("gini",),
    "perimeter": ("perimeter",),
    "background": ("background_sum", "background_mean", "background_centroid"),
    "centroid_err": ("centroid_err", "x_centroid_err", "y_centroid_err"),
    "quad": (
        *("x_centroid_quad", "y_centroid_quad", "centroid_quad", "cutout_centroid_quad"),
        *("centroid_quad_err", "x_centroid_quad_err", "y_centroid_quad_err"),
        "centroid_quad_fallback",
    ),
    "windowed": (
        *("x_centroid_win", "y_centroid_win", "centroid_win", "cutout_centroid_win"),
        *("centroid_win_err", "x_centroid_win_err", "y_centroid_win_err"),
        "centroid_win_fallback",
    ),
    "local_background": ("local_background",),
    "kron": ("kron_radius", "kron_radius_measured", "kron_flux", "kron_flux_err"),
    "flags": ("flags",),
    "sky": ("sky_centroid", "sky_centroid_icrs", "sky_orientation"),
    "sky_win": ("sky_centroid_win",),
    "sky_quad": ("sky_centroid_quad",),
    "sky_bbox": ("sky_bbox_ll", "sky_bbox_ul", "sky_bbox_lr", "sky_bbox_ur"),
    "sky_err": ("sky_centroid_err", "sky_centroid_ra_err", "sky_centroid_dec_err"),
    "sky_win_err": ("sky_centroid_win_err", "sky_centroid_win_ra_err", "sky_centroid_win_dec_err"),
    "sky_quad_err": (
        *("sky_centroid_quad_err", "sky_centroid_quad_ra_err", "sky_centroid_quad_dec_err"),
    ),
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}

# A catalogue with a detection catalogue takes these from there.
OF_DETECTION = frozenset(FAMILIES) - {"values", "background", "local_background", "kron", "flags"}

DEFAULT_COLUMNS = (
    *("label", "x_centroid", "y_centroid", "sky_centroid"),
    *("bbox_xmin", "bbox_xmax", "bbox_ymin", "bbox_ymax", "area"),
    *("semimajor_axis", "semiminor_axis", "orientation", "eccentricity", "min_value", "max_value"),
    *("segment_flux", "segment_flux_err", "kron_flux", "kron_flux_err", "flags"),
)

# Of data in other units, these have theirs.
OF_DATA = frozenset(
    (
        *("min_value", "max_value", "segment_flux", "segment_flux_err", "kron_flux"),
        *("kron_flux_err", "background_sum", "background_mean", "background_centroid"),
        "local_background",
    )
)
UNITS = {
    **dict.fromkeys(("area", "segment_area"), u.pix**2),
    **dict.fromkeys(("covariance_xx", "covariance_xy", "covariance_yy"), u.pix**2),
    **dict.fromkeys(("covariance", "covariance_eigvals", "inertia_tensor"), u.pix**2),
    **dict.fromkeys(("semimajor_axis", "semiminor_axis", "fwhm", "equivalent_radius"), u.pix),
    **dict.fromkeys(("perimeter", "kron_radius", "kron_radius_measured"), u.pix),
    **dict.fromkeys(("ellipse_cxx", "ellipse_cxy", "ellipse_cyy"), u.pix**-2),
    **dict.fromkeys(("orientation", "sky_orientation"), u.deg),
    **dict.fromkeys(
        (
            name
            for family in ("sky_err", "sky_win_err", "sky_quad_err")
            for name in FAMILIES[family]
        ),
        u.arcsec,
    ),
}
