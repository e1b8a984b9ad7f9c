"""What the deblending of a large image leaves on disk."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdeblend.files import whole_file
from diffdeblend.io.detections import image_hdus, label_hdus
from diffdeblend.io.results import (
    make_directory,
    write_catalog,
    write_figure,
    write_summary,
)

if TYPE_CHECKING:
    from diffdeblend.batch.image import DeblendedImage


def write_deblended_image(
    found: "DeblendedImage", directory: str | os.PathLike, summary: Mapping[str, Any]
) -> dict[str, Path]:
    """Write all that was found to a directory, which is made if it is not there.

    `catalog.ecsv`, `catalog.fits`, `models.fits` (MODEL, BACKGROUND, RESIDUAL), `labels.fits`
    where sources were detected, `figure.png`, `summary.json`. Each appears whole or not at all.

    Returns the files by name. What this run does not make is removed: it would show another.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    folder = make_directory(directory)
    files: dict[str, Path] = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    write_catalog(found.catalog, summary, place)
    planes = {"MODEL": found.model, "BACKGROUND": found.background, "RESIDUAL": found.residual}
    with whole_file(place("models.fits")) as temporary:
        image_hdus(found.exposure.header, planes).writeto(temporary)
    if found.detections is None:
        (folder / "labels.fits").unlink(missing_ok=True)
    else:
        with whole_file(place("labels.fits")) as temporary:
            label_hdus(found.detections).writeto(temporary)
    (folder / "scene.eqx").unlink(missing_ok=True)

    def draw() -> Any:
        from diffdeblend.plot_detections import image_figure

        return image_figure(found)

    write_figure(draw, folder, place)
    write_summary(summary, place("summary.json"))
    return files
