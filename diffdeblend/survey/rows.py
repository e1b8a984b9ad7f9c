"""A row for every stamp, as an Arrow table: numbers of its sources are lists."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.batch import Found
from diffdeblend.survey.stamps import Stamps, StampsHeader

if TYPE_CHECKING:
    import pyarrow

_SHAPES = ("radius", "index", "radius_ratio", "shear_ratio")


def rows_of(
    stamps: Stamps,
    header: StampsHeader,
    found: Sequence[tuple[list[int], Found]],
    status: Sequence[str],
    error: Sequence[str],
) -> "pyarrow.Table":
    """Stamps with what was found in them, a row each, in their order.

    - `found`: fits, with the places of their stamps.
    - `status`, `error`: of each stamp.
    """
    import pyarrow as pa

    count = stamps.n_sources()
    first = np.concatenate([[0], np.cumsum(count)])
    n, n_stamps = int(first[-1]), len(stamps)
    lit = np.arange(stamps.position.shape[1]) < count[:, None]

    by_source: dict[str, np.ndarray] = {"source_id": stamps.source_id[lit]}
    for axis, name in enumerate("xy"):
        by_source[name] = stamps.position[lit][:, axis].astype(float)
        by_source[f"{name}_err"] = np.full(n, np.nan)
    for name in (*_SHAPES, "g1", "g2"):
        by_source[name], by_source[f"{name}_err"] = np.full(n, np.nan), np.full(n, np.nan)
    for band in header.bands:
        for name in (f"flux_{band}", f"flux_err_{band}", f"bulge_flux_{band}"):
            by_source[name] = np.full(n, np.nan)
    by_source["model"] = np.full(n, "", dtype=object)
    by_source["flags"] = np.zeros(n, np.int32)
    by_stamp: dict[str, np.ndarray] = {
        "chi2": np.full(n_stamps, np.nan),
        "n_pixels": np.zeros(n_stamps, np.int32),
        "steps": np.zeros(n_stamps, np.int32),
        "converged": np.zeros(n_stamps, bool),
    }
    for places, fit in found:
        rows = np.concatenate([np.arange(first[p], first[p + 1]) for p in places])
        for name in (*_SHAPES, "x", "y"):
            by_source[name][rows] = getattr(fit, name)
            by_source[f"{name}_err"][rows] = getattr(fit, f"{name}_err")
        for axis, name in enumerate(("g1", "g2")):
            by_source[name][rows] = fit.ellipticity[:, axis]
            by_source[f"{name}_err"][rows] = fit.ellipticity_err[:, axis]
        for number, band in enumerate(header.bands):
            by_source[f"flux_{band}"][rows] = fit.flux[:, number]
            by_source[f"flux_err_{band}"][rows] = fit.flux_err[:, number]
            by_source[f"bulge_flux_{band}"][rows] = fit.bulge_flux[:, number]
        by_source["model"][rows] = fit.model
        by_source["flags"][rows] = fit.flags
        by_stamp["chi2"][places] = fit.chi2.sum(axis=1)
        by_stamp["n_pixels"][places] = fit.n_pixels.sum(axis=1)
        by_stamp["steps"][places] = fit.steps
        by_stamp["converged"][places] = fit.converged

    offsets = pa.array(first, pa.int32())

    def lists(values: Any) -> Any:
        return pa.ListArray.from_arrays(offsets, pa.array(values))

    columns: dict[str, Any] = {
        "id": stamps.id,
        "row": np.arange(stamps.first, stamps.first + n_stamps),
        "status": pa.array(list(status), pa.string()),
        "error": pa.array(list(error), pa.string()),
        "n_sources": count.astype(np.int32),
        **by_stamp,
    }
    for name, values in (("ra", stamps.ra), ("dec", stamps.dec)):
        if values is not None:
            columns[name] = np.asarray(values, float)
    columns |= {name: lists(values) for name, values in by_source.items()}
    for name, values in stamps.truth.items():
        columns[f"true_{name}"] = lists(np.asarray(values, float)[lit])
    return pa.table(columns)
