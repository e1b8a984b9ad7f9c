"""What a measurement in several bands leaves on disk: catalogue, summary and figure."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdeblend.io.results import make_directory, write_catalog, write_figure, write_summary

if TYPE_CHECKING:
    from diffdeblend.multiband.measure_bands import BandCatalog


def write_measured(
    found: "BandCatalog", directory: str | os.PathLike, summary: Mapping[str, Any]
) -> dict[str, Path]:
    """Write what was measured to a directory, which is made if it is not there.

    `catalog.ecsv`, `catalog.fits`, `figure.png`, `summary.json`. Each appears whole or not at all,
    and replaces one that is there.

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

    def draw() -> Any:
        from diffdeblend.plot_measured import measured_figure

        return measured_figure(found.catalog)

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(summary, place("summary.json"))
    return files
