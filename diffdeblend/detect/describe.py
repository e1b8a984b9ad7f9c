"""What the columns of a catalogue of detections are."""

import re

_COLUMNS = {
    "label": "Number of the source in the label image, from 1",
    "x_centroid": "Centroid along x (column); the first pixel is centred on 0",
    "y_centroid": "Centroid along y (row); the first pixel is centred on 0",
    "ra": "Right ascension of the centroid, ICRS",
    "dec": "Declination of the centroid, ICRS",
    "bbox_xmin": "First column of the source's pixels",
    "bbox_xmax": "Last column of the source's pixels",
    "bbox_ymin": "First row of the source's pixels",
    "bbox_ymax": "Last row of the source's pixels",
    "area": "Unmasked pixels of the source",
    "semimajor_axis": "Standard deviation of the light along its long axis",
    "semiminor_axis": "Standard deviation of the light along its short axis",
    "orientation": "Angle of the long axis from +x towards +y",
    "eccentricity": "sqrt(1 - b^2 / a^2)",
    "min_value": "Smallest value of the source's pixels",
    "max_value": "Largest value of the source's pixels",
    "flags": "Bits; see diffdeblend.measure.FLAGS",
}
_FLUXES = {
    "segment": "of the source's own pixels",
    "kron": "in the Kron aperture, neighbours replaced",
    "aperture": "in a circle of {} pixels, neighbours replaced",
}
_FLUX = re.compile(r"(segment|kron|aperture)_flux(_err)?(?:_([0-9.e+-]+))?(?:_(.+))?$")


def describe_column(name: str) -> str:
    """What a column is, in a line."""
    if name in _COLUMNS:
        return _COLUMNS[name]
    found = _FLUX.match(name)
    if found is None:
        return name.replace("_", " ")
    kind, error, radius, band = found.groups()
    what = "Standard deviation of the flux" if error else "Flux"
    text = f"{what} {_FLUXES[kind].format(radius)}"
    return f"{text}, band {band}" if band else text
