"""What a detection leaves on disk: catalogue, labels, sky, summary and figure."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend import __version__
from diffdeblend.files import whole_file
from diffdeblend.header import Header
from diffdeblend.io.fits import wcs_hdus
from diffdeblend.io.results import make_directory, write_catalog, write_figure
from diffdeblend.io.results import write_summary as write_summary

if TYPE_CHECKING:
    from diffdeblend.detect.detect import Detections


def write_detections(
    found: "Detections", directory: str | os.PathLike, summary: Mapping[str, Any]
) -> dict[str, Path]:
    """Write all that was found to a directory, which is made if it is not there.

    `catalog.ecsv`, `catalog.fits`, `labels.fits`, `background.fits`, `figure.png`, `summary.json`.
    Each appears whole or not at all, and replaces one that is there.

    Returns the files by name. Without matplotlib there is no figure, and one of an older run is
    removed: it would show something else.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    folder = make_directory(directory)
    files: dict[str, Path] = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    write_catalog(found.catalog, summary, place)
    with whole_file(place("labels.fits")) as temporary:
        label_hdus(found).writeto(temporary)
    with whole_file(place("background.fits")) as temporary:
        background_hdus(found).writeto(temporary)

    def draw() -> Any:
        from diffdeblend.plot_detections import detection_figure

        return detection_figure(found)

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(summary, place("summary.json"))
    return files


def label_hdus(found: "Detections") -> Any:
    """Labels as FITS: LABELS, and PARENTS where blends were taken apart; with the WCS."""
    from astropy.io import fits

    shared, tables = _shared(found.header)
    parts: list[Any] = [_primary(), fits.ImageHDU(np.array(found.labels.data), shared, "LABELS")]
    parts[1].header["NLABELS"] = (found.labels.n_labels, "number of labels")
    if found.parents is not found.labels:
        parts.append(fits.ImageHDU(np.array(found.parents.data), shared, "PARENTS"))
    return fits.HDUList([*parts, *tables])


def background_hdus(found: "Detections") -> Any:
    """The sky as FITS `[band, y, x]`: BACKGROUND, BACKGROUND_RMS; with the WCS."""
    planes = {"BACKGROUND": found.background, "BACKGROUND_RMS": found.background_rms}
    return image_hdus(found.header, planes)


def image_hdus(header: Header, planes: Mapping[str, Any]) -> Any:
    """Cubes `[band, y, x]` as FITS extensions by name, with bands, unit and WCS."""
    from astropy.io import fits

    shared, tables = _shared(header)
    if header.unit:
        shared["BUNIT"] = header.unit
    for k, band in enumerate(header.bands, start=1):
        shared[f"BAND{k}"] = (band.encode("ascii", "replace").decode(), f"band of plane {k}")
        if header.zero_points is not None:
            shared[f"MAGZP{k}"] = (header.zero_points[k - 1], "AB magnitude of one unit")
    parts = [fits.ImageHDU(np.asarray(cube), shared, name) for name, cube in planes.items()]
    return fits.HDUList([_primary(), *parts, *tables])


def _primary() -> Any:
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = f"diffdeblend {__version__}"
    return primary


def _shared(header: Header) -> tuple[Any, list[Any]]:
    """Cards of the WCS, and the tables that they may need."""
    from astropy.io import fits

    shared = fits.Header()
    if header.wcs is None:
        return shared, []
    maps = wcs_hdus(header.wcs)
    shared.update(maps[0].header)
    return shared, list(maps[1:])
