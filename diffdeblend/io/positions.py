"""Where the sources are, from tables that others made."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Header
from diffdeblend.files import is_path
from diffdeblend.io.npz import read_npz_positions
from diffdeblend.positions import check_finite
from diffdeblend.sky import pixel_positions

# (first column, second column, what it is), compared without regard to case, best first.
_COLUMNS = (
    ("x", "y", "pixel"),
    ("x_image", "y_image", "fits pixel"),
    ("xcentroid", "ycentroid", "pixel"),
    ("x_centroid", "y_centroid", "pixel"),
    ("ra", "dec", "sky"),
    ("ra_icrs", "de_icrs", "sky"),
    ("raj2000", "dej2000", "sky"),
    ("alpha_j2000", "delta_j2000", "sky"),
    ("alphawin_j2000", "deltawin_j2000", "sky"),
)

_IDS = ("source_id", "id", "object_id", "objectid")


def read_positions(
    path_or_table: Any, header: Header | None = None
) -> Float[np.ndarray, "source 2"]:
    """Positions of sources, `(x, y)` in pixels, the first pixel centred on (0, 0).

    - `path_or_table`: a file that astropy reads (ECSV, CSV, FITS, plain columns with names) or
        that `write_npz` wrote, or an astropy table, or a structured array.
    - `header`: of the exposure, for its WCS; needed for sky coordinates only.

    Columns, in any case: `x`, `y`; or `X_IMAGE`, `Y_IMAGE` of Source Extractor, which count from
    1; or `ra`, `dec` or `ALPHA_J2000`, `DELTA_J2000`, ICRS, in degrees unless the column has a
    unit; or one column of sky coordinates. The first of these is used.

    **Raises:** `ValueError` if the file cannot be read or has no such columns or no rows, a row
    is not finite, or sky coordinates are given without a WCS.
    """
    if is_path(path_or_table) and Path(path_or_table).suffix == ".npz":
        positions = read_npz_positions(path_or_table)
        if len(positions) == 0:
            raise ValueError(f"`positions`: {str(path_or_table)!r} holds none.")
        return check_finite(positions)
    table = _table(path_or_table)
    by_name = {name.lower(): name for name in table.colnames}
    found = next((c for c in _COLUMNS if c[0] in by_name and c[1] in by_name), None)
    sky = None if found else _sky_column(table)
    if found is None and sky is None:
        raise ValueError(
            "`positions` needs columns x and y (pixels), X_IMAGE and Y_IMAGE, or ra and dec; "
            f"the columns are {table.colnames}."
        )
    if len(table) == 0:
        raise ValueError("`positions` has no rows; give at least one source.")
    if found is None:
        first, second, kind = sky.icrs.ra.deg, sky.icrs.dec.deg, "sky"  # type: ignore[union-attr]
    else:
        kind = found[2]
        unit = "deg" if kind == "sky" else "pix"
        first, second = (_numbers(table[by_name[name]], name, unit) for name in found[:2])
    pair = check_finite(np.stack([np.asarray(first, float), np.asarray(second, float)], axis=-1))
    if kind == "fits pixel":
        return pair - 1  # FITS counts pixels from 1
    if kind == "pixel":
        return pair
    if header is None or header.wcs is None:
        raise ValueError(
            "`positions` are in sky coordinates, and the exposure has no WCS; give x and y."
        )
    x, y = pixel_positions(header, pair[:, 0], pair[:, 1])
    return check_finite(np.stack([x, y], axis=-1), " on the exposure's map of the sky")


def read_ids(path_or_table: Any) -> Int[np.ndarray, "source"] | None:
    """Numbers of sources from the table of their positions; None if it has none.

    - `path_or_table`: as for `read_positions`.

    Whole numbers in a column `source_id`, `id`, `object_id` or `objectid`, in any case; the first
    of these is used.

    **Raises:** `ValueError` if the file cannot be read.
    """
    if is_path(path_or_table) and Path(path_or_table).suffix == ".npz":
        return None
    table = _table(path_or_table)
    by_name = {name.lower(): name for name in table.colnames}
    for name in _IDS:
        if name in by_name:
            values = np.asarray(table[by_name[name]])
            if values.dtype.kind in "iu" and values.ndim == 1:
                return values.astype(np.int64)
    return None


def _table(path_or_table: Any) -> Any:
    from astropy.table import QTable, Table

    if isinstance(path_or_table, Table):
        return path_or_table
    if isinstance(path_or_table, np.ndarray) and path_or_table.dtype.names is not None:
        return Table(path_or_table)
    if not is_path(path_or_table):
        raise ValueError(
            "`positions` must be a path, an astropy Table or a structured array; "
            f"got {type(path_or_table).__name__}."
        )
    path = Path(path_or_table)
    if not path.is_file():
        raise ValueError(f"`positions`: there is no file {str(path)!r}.")
    try:
        if _is_fits(path):
            return _fits_table(path)
        if path.suffix.lower() == ".ecsv":
            return QTable.read(path, format="ascii.ecsv")
        return Table.read(path, format="ascii")
    # astropy's readers have no common exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"`positions`: {str(path)!r} is no readable table: {reason}") from error


def _is_fits(path: Path) -> bool:
    return any(suffix.lower() in (".fits", ".fit", ".fts") for suffix in path.suffixes)


def _fits_table(path: Path) -> Any:
    """The first table with positions: Source Extractor's LDAC has a table of headers before."""
    from astropy.io import fits
    from astropy.table import QTable

    with fits.open(path, memmap=False) as hdus:
        tables = [
            QTable.read(hdu) for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)
        ]
    if not tables:
        raise ValueError("the FITS file holds no table")
    for table in tables:
        names = {name.lower() for name in table.colnames}
        if any({first, second} <= names for first, second, _ in _COLUMNS):
            return table
    return tables[0]


def _sky_column(table: Any) -> Any:
    from astropy.coordinates import SkyCoord

    return next((c for c in table.itercols() if isinstance(c, SkyCoord)), None)


def _numbers(column: Any, name: str, unit: str) -> np.ndarray:
    from astropy import units

    given = getattr(column, "unit", None)
    # A Quantity has its numbers in `value`; a masked one's are masked there.
    values = getattr(column, "value", column)
    array = np.asarray(getattr(values, "unmasked", values))
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        raise ValueError(
            f"`positions` column {name!r} must hold one number a row; got {array.dtype}."
        )
    array = array.astype(float)
    array[np.asarray(getattr(column, "mask", False)) | np.zeros(array.shape, bool)] = np.nan
    if given in (None, units.dimensionless_unscaled):
        return array
    try:
        return array * float(np.real(units.Unit(given).to(unit)))
    except (units.UnitConversionError, ValueError) as error:
        raise ValueError(
            f"`positions` column {name!r} must be in {unit}; got {str(given)!r}."
        ) from error
