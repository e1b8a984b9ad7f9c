"""Fits of this program as tables, read again to learn from them. Host side."""

import json
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

from diffdeblend.components import Kind
from diffdeblend.deblend.catalog import Flag
from diffdeblend.simulate.catalog import check_columns, numbers, read_table

_NUMBERS = ("radius", "index", "radius_ratio", "shear_ratio")
_UNUSABLE = Flag.NOT_CONVERGED | Flag.NON_FINITE
# A card of FITS that holds what the table's `meta` is in ECSV.
_CARD = "PROVENAN"


@dataclass(frozen=True, eq=False)
class FittedTable:
    """Fitted sources with errors, as `Found` has them: what `fitted_features` needs of it.

    - `names`: of the bands; `zero_points`: AB magnitude of one unit of flux in each, and
        `pixel_scale`: arcseconds, None where the table does not know.
    - `blend`: of each source its own, `converged`: of each blend.
    """

    names: tuple[str, ...]
    zero_points: tuple[float, ...] | None
    pixel_scale: float | None
    kind: Int[np.ndarray, "source"]
    flux: Float[np.ndarray, "source band"]
    flux_err: Float[np.ndarray, "source band"]
    radius: Float[np.ndarray, "source"]
    radius_err: Float[np.ndarray, "source"]
    index: Float[np.ndarray, "source"]
    index_err: Float[np.ndarray, "source"]
    radius_ratio: Float[np.ndarray, "source"]
    radius_ratio_err: Float[np.ndarray, "source"]
    shear_ratio: Float[np.ndarray, "source"]
    shear_ratio_err: Float[np.ndarray, "source"]
    ellipticity: Float[np.ndarray, "source 2"]
    ellipticity_err: Float[np.ndarray, "source 2"]
    blend: Int[np.ndarray, "source"]
    converged: Bool[np.ndarray, "blend"]

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.names)


def read_fitted(given: str | PathLike | Table) -> FittedTable:
    """A catalogue of `deblend` or `deblend_image`, or a table of `Found.table`.

    - `given`: the table, or a file of it: ECSV or FITS. Models other than those of `Kind` are kept
        with a kind of -1; sources that did not converge count as not converged.

    **Raises:** `ValueError` for a file that is no table, or without the columns of such fits.
    """
    table: Any = read_table(given, "table")
    needed = ["model", "flags", "g1", "g1_err", "g2", "g2_err"]
    needed += [f"{name}{end}" for name in _NUMBERS for end in ("", "_err")]
    hint = "It must be one of `diffdeblend deblend`, or of `Found.table`."
    check_columns(table, needed, "`table`", hint)
    # One way of writing the error of a flux is that of catalogues, the other that of `Found`.
    columns = {
        name.removeprefix("flux_err_"): (name, f"flux_{name.removeprefix('flux_err_')}")
        for name in table.colnames
        if name.startswith("flux_err_")
    } or {
        name[5:-4]: (name, name[:-4])
        for name in table.colnames
        if name.startswith("flux_") and name.endswith("_err")
    }
    if not columns:
        raise ValueError(f"`table` has no fluxes with errors; it has {table.colnames}. {hint}")
    kinds = {kind.name.lower(): int(kind) for kind in Kind}
    flags = np.asarray(table["flags"], int)
    values = {f"{n}{end}": numbers(table, f"{n}{end}") for n in _NUMBERS for end in ("", "_err")}
    meta = _meta(table)
    points, scale = meta.get("zero_points"), meta.get("pixel_scale")
    return FittedTable(
        names=tuple(columns),
        zero_points=None if points is None else tuple(map(float, points)),
        pixel_scale=None if scale is None else float(scale),
        kind=np.array([kinds.get(str(model), -1) for model in table["model"]], int),
        flux=np.stack([numbers(table, flux) for _, flux in columns.values()], axis=1),
        flux_err=np.stack([numbers(table, error) for error, _ in columns.values()], axis=1),
        **values,
        ellipticity=np.stack([numbers(table, name) for name in ("g1", "g2")], axis=1),
        ellipticity_err=np.stack([numbers(table, f"{g}_err") for g in ("g1", "g2")], axis=1),
        blend=np.arange(len(table)),
        converged=(flags & int(_UNUSABLE)) == 0,
    )


def _meta(table: Table) -> dict[str, Any]:
    meta: dict[str, Any] = dict(table.meta)
    card = meta.get(_CARD)
    return meta if card is None else {**meta, **json.loads(str(card))}
