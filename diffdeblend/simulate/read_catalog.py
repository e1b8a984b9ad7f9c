"""Any catalogue: what it is, its columns tell."""

from pathlib import Path
from typing import Any

from diffdeblend.simulate.catalog import Catalog, is_path, read_table
from diffdeblend.simulate.catsim import CATSIM_COLUMNS, read_catsim
from diffdeblend.simulate.cosmos import (
    PARAMETRIC_COLUMNS,
    REAL_COLUMNS,
    cosmos_files,
    read_cosmos,
)


def read_catalog(given: Any, **settings: Any) -> Catalog:
    """Galaxies of CatSim or COSMOS, recognised by their columns.

    - `given`: a file or table of CatSim (columns `fluxnorm_disk`, ...); a folder, file, or pair of
        files or tables of COSMOS in GalSim's form.
    - `settings`: for `read_catsim` or `read_cosmos`. Without `kind`, COSMOS is `"real"` where the
        fits lack profiles, else `"parametric"`; without `exclusion` it is `"marginal"` where there
        is a file of the selection, else `"none"`.

    **Raises:** `ValueError` for a catalogue that is neither, and as `read_catsim` and `read_cosmos`
    do; `TypeError` for a setting that its reader does not know.
    """
    several = isinstance(given, tuple | list)
    if not several and not (is_path(given) and Path(given).is_dir()):
        table = read_table(given, "catalog")
        if "fluxnorm_disk" in table.colnames or "fluxnorm_bulge" in table.colnames:
            return read_catsim(table, **settings)
        if not is_path(given) or not {"IDENT", "GAL_FILENAME", "MAG"} & set(table.colnames):
            raise ValueError(
                "`catalog` is neither of CatSim, with the columns "
                f"{', '.join(CATSIM_COLUMNS)}, nor of COSMOS, with {', '.join(REAL_COLUMNS)} or "
                f"{', '.join(PARAMETRIC_COLUMNS)} in one or two files; it has {table.colnames}."
            )
    return read_cosmos(given, **_guessed(given) | settings)


def _guessed(given: Any) -> dict[str, Any]:
    # Not in `read_cosmos`, where cuts must not depend on which files happen to be there.
    files = cosmos_files(given)
    columns = {name for file in files[:2] for name in read_table(file, "given").colnames}
    return {
        "kind": "parametric" if "sersicfit" in columns else "real",
        "exclusion": "marginal" if len(files) > 2 else "none",
    }
