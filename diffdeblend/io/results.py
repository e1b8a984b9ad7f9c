"""What a deblending leaves on disk: catalogue, models, scene, summary and figure."""

import io
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend import __version__
from diffdeblend.files import whole_file
from diffdeblend.io.fits import wcs_hdus
from diffdeblend.io.scene import save_scene

if TYPE_CHECKING:
    from astropy.table import QTable

    from diffdeblend.deblend.deblend import Deblended

FIGURE = "figure.png"


@dataclass(frozen=True, eq=False)
class Models:
    """What `models.fits` holds. Numpy arrays, in the unit of the exposure.

    - `sources`: image of each source as the camera sees it, `(source, band, y, x)`.
    - `background`: the sky, `(band, y, x)`.
    - `residual`: data minus sources and sky, same shape; 0 where a pixel is not used.
    - `ids`: number of each source in the catalogue; `kinds`: name of its model.
    - `bands`: their names. `unit`: of flux. `wcs`: the map to the sky, or None.
    """

    sources: Float[np.ndarray, "source band y x"]
    background: Float[np.ndarray, "band y x"]
    residual: Float[np.ndarray, "band y x"]
    ids: tuple[int, ...]
    kinds: tuple[str, ...]
    bands: tuple[str, ...]
    unit: str
    wcs: Any


def write_results(deblended: "Deblended", directory: str | os.PathLike) -> dict[str, Path]:
    """Write all that was found to a directory, which is made if it is not there.

    `catalog.ecsv`, `catalog.fits`, `models.fits`, `scene.eqx`, `figure.png` and `summary.json`.
    Each appears whole or not at all, and replaces one that is there.

    Returns the files by name. Without matplotlib there is no figure, and one of an older run is
    removed: it would show something else.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    folder = make_directory(directory)
    header = deblended.exposure.header
    files = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    write_catalog(deblended.catalog, deblended.summary, place)
    with whole_file(place("models.fits")) as temporary:
        model_hdus(deblended).writeto(temporary)
    save_scene(deblended.scene, place("scene.eqx"), header)

    def draw() -> Any:
        from diffdeblend.plot import figure

        return figure(deblended)

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(deblended.summary, place("summary.json"))
    return files


def write_catalog(
    catalog: "QTable", summary: Mapping[str, Any], place: Callable[[str], Path]
) -> None:
    """Write `catalog.ecsv` and `catalog.fits` with their provenance; `place` names the files."""
    table: Any = with_provenance(catalog, summary)
    with whole_file(place("catalog.ecsv")) as temporary:
        table.write(temporary, format="ascii.ecsv")
    with whole_file(place("catalog.fits")) as temporary:
        catalog_hdus(table).writeto(temporary)


def write_figure(draw: Callable[[], Any], folder: Path, place: Callable[[str], Path]) -> None:
    """Write `figure.png` if matplotlib is installed, else remove that of an older run.

    - `draw`: makes the figure; called only where matplotlib is. `place` names the file in `folder`.
    """
    if find_spec("matplotlib") is None:
        (folder / FIGURE).unlink(missing_ok=True)
        return
    with whole_file(place(FIGURE)) as temporary:
        draw().savefig(temporary)


def make_directory(directory: str | os.PathLike) -> Path:
    """The directory, made with its parents if it is not there.

    **Raises:** `ValueError` if it cannot be.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`directory`: {str(folder)!r} cannot be made: {error}") from error
    return folder


def write_summary(summary: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a summary as JSON; what is not a finite number becomes null, as JSON has no NaN."""
    text = json.dumps(_plain(summary), indent=2, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n")


def with_provenance(table: "QTable", summary: Mapping[str, Any]) -> "QTable":
    """A copy of a catalogue whose `meta` also says from what and how it was made."""
    marked: Any = table.copy()
    marked.meta |= {key: _plain(summary[key]) for key in ("inputs", "settings") if key in summary}
    return marked


def catalog_hdus(table: "QTable") -> Any:
    """A catalogue as FITS: descriptions in TCOMMn, meanings of the flags in FLAGn cards.

    astropy reads units and descriptions of all columns back, also of units that FITS does not know.
    """
    from astropy import units
    from astropy.io import fits

    flat: Any = table.copy()
    meta: dict[str, Any] = dict(flat.meta)
    flat.meta = {}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # For such units as nmgy, which stand in the description instead.
        warnings.filterwarnings("ignore", "The unit .* could not be saved in native FITS format")
        flat.write(buffer, format="fits")
    buffer.seek(0)
    # All in memory before the buffer goes.
    hdus = fits.open(buffer, memmap=False, lazy_load_hdus=False)
    data: Any = hdus[1]
    data.name = "CATALOG"
    data.data  # noqa: B018
    cards = data.header
    for number, name in enumerate(table.colnames, start=1):
        unit = getattr(flat[name], "unit", None)
        text = str(flat[name].info.description or name.replace("_", " "))
        if unit not in (None, units.dimensionless_unscaled) and f"TUNIT{number}" not in cards:
            text += f" [{unit}]"
        cards[f"TCOMM{number}"] = text
    cards["DATE"] = (str(meta.get("created", "")), "when the catalogue was made, UTC")
    cards["CREATOR"] = f"diffdeblend {__version__}"
    for bit, (name, flag) in enumerate(meta.get("flags", {}).items()):
        cards[f"FLAG{bit}"] = f"{flag['value']} {name}: {flag['meaning']}"
    rest = {key: value for key, value in meta.items() if key != "flags"}
    # ASCII only: FITS headers have nothing else.
    cards["PROVENAN"] = json.dumps(_plain(rest), allow_nan=False)
    return hdus


def model_hdus(deblended: "Deblended") -> Any:
    """The images as FITS extensions `[band, y, x]`: SOURCE_<id> each, BACKGROUND, RESIDUAL."""
    from astropy.io import fits

    header, catalog = deblended.exposure.header, deblended.catalog
    meta: dict[str, Any] = catalog.meta  # type: ignore[assignment]
    shared, tables = fits.Header(), []
    if header.wcs is not None:
        maps = wcs_hdus(header.wcs)
        shared.update(maps[0].header)
        tables = list(maps[1:])
    if header.unit:
        shared["BUNIT"] = header.unit
    for k, band in enumerate(header.bands, start=1):
        shared[f"BAND{k}"] = (_ascii(band), f"band of plane {k}")
        if header.zero_points is not None:
            shared[f"MAGZP{k}"] = (header.zero_points[k - 1], "AB magnitude of one unit")
    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = f"diffdeblend {__version__}"
    primary.header["DATE"] = (str(meta.get("created", "")), "UTC")
    primary.header["NSOURCES"] = len(deblended.models)
    parts: list[Any] = [primary]
    for place, image in enumerate(deblended.models):
        row: Any = catalog[place]
        cards = shared.copy()
        cards["SOURCEID"] = (int(row["id"]), "id in the catalogue")
        cards["MODEL"] = (str(row["model"]), "model of the light")
        for key, column in (("XCENTRE", "x"), ("YCENTRE", "y")):
            value = float(row[column].value)
            if math.isfinite(value):  # FITS has no NaN in its header
                cards[key] = (value, "pixel, the first one centred on 0")
        parts.append(fits.ImageHDU(_native(image), cards, name=f"SOURCE_{int(row['id'])}"))
    for name, image in (("BACKGROUND", deblended.background), ("RESIDUAL", deblended.residual)):
        parts.append(fits.ImageHDU(_native(image), shared, name=name))
    return fits.HDUList([*parts, *tables])


def read_models(path: str | os.PathLike) -> Models:
    """The images of a `models.fits`.

    **Raises:** `ValueError` if there is no such file, or it is not one of these.
    """
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path`: there is no file {str(path)!r}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            # What is cut short ends in a warning and zeros otherwise.
            warnings.filterwarnings("error", ".*truncated.*")
            with path.open("rb") as file, fits.open(file, lazy_load_hdus=False) as hdus:
                parts: list[Any] = list(hdus)
                found = [hdu for hdu in parts if hdu.name.startswith("SOURCE_")]
                sky, left = (parts[hdus.index_of(name)] for name in ("BACKGROUND", "RESIDUAL"))
                cards = sky.header
                return Models(
                    sources=np.stack([_native(hdu.data) for hdu in found]),
                    background=_native(sky.data),
                    residual=_native(left.data),
                    ids=tuple(int(hdu.header["SOURCEID"]) for hdu in found),
                    kinds=tuple(str(hdu.header["MODEL"]) for hdu in found),
                    bands=tuple(str(cards[f"BAND{k + 1}"]) for k in range(cards["NAXIS3"])),
                    unit=str(cards.get("BUNIT", "")),
                    wcs=WCS(cards, hdus, naxis=2) if "CTYPE1" in cards else None,
                )
    # Damaged or foreign bytes end in many exceptions inside astropy; all mean the same here.
    except Exception as error:
        raise ValueError(f"`path`: {str(path)!r} is no readable models.fits: {error}") from error


def _native(image: Any) -> np.ndarray:
    """In the byte order of this machine, which FITS does not have."""
    array = np.asarray(image)
    return array.astype(array.dtype.newbyteorder("="))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _plain(value: Any) -> Any:
    """The same with only what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
