"""A row for every stamp, as an Arrow table: numbers of its sources are lists."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from diffdeblend.batch import Found
from diffdeblend.batch.decoded_results import FoundDecoded
from diffdeblend.deblend.catalog import SUPPORT_MEANINGS
from diffdeblend.priors import DecoderPrior
from diffdeblend.stamps.stamps import Stamps, StampsHeader, has_position
from diffdeblend.survey.columns import Column, arrow_schema, numpy_dtype, row_columns
from diffdeblend.survey.covariance import flux_triangles
from diffdeblend.survey.places import knows_sky, source_sky

if TYPE_CHECKING:
    import pyarrow

_SHAPES = ("radius", "index", "radius_ratio", "shear_ratio")
_LATENTS = ("latent", "latent_err")


def rows_of(
    stamps: Stamps,
    header: StampsHeader,
    found: Sequence[tuple[list[int], Found]],
    status: Sequence[str],
    error: Sequence[str],
    *,
    covariance: bool,
    n_latent: int | None,
) -> "pyarrow.Table":
    """Stamps with what was found in them, a row each, in their order.

    The columns depend on the store and on how is fitted alone, not on what was found.

    - `found`: fits, with the places of their stamps.
    - `status`, `error`: of each stamp.
    - `covariance`: whether fits keep it. `n_latent`: see `n_latent_of`.
    """
    columns = row_columns(
        header,
        covariance=covariance,
        n_latent=n_latent,
        stamp_sky=stamps.ra is not None and stamps.dec is not None,
        source_sky=knows_sky(stamps, header),
        truth=sorted(stamps.truth),
    )
    count = stamps.n_sources()
    first = np.concatenate([[0], np.cumsum(count)])
    values = {column.name: _room(column, len(stamps), int(first[-1])) for column in columns}
    triangles: list[Any] = [_nothing(int(n) * header.n_bands) for n in count]
    _put_given(values, stamps, status, error)
    for places, fit in found:
        rows = np.concatenate([np.arange(first[p], first[p + 1]) for p in places])
        _put_sources(values, fit, rows, header.bands)
        _put_stamps(values, fit, np.asarray(places), header.bands)
        if covariance:
            for place, triangle in zip(places, flux_triangles(fit), strict=True):
                triangles[place] = triangle
    if "source_ra" in values:
        owner = np.repeat(np.arange(len(stamps)), count)
        x, y = values["x"], values["y"]
        values["source_ra"], values["source_dec"] = source_sky(stamps, header, owner, x, y)
    return _table(columns, values, first, triangles)


def n_latent_of(prior: Any) -> int | None:
    """How many numbers a prior decodes galaxies from; None without one that decodes."""
    return prior.n_latent if isinstance(prior, DecoderPrior) else None


def _room(column: Column, n_stamps: int, n_sources: int) -> np.ndarray:
    """What a column holds where there is nothing to tell."""
    n = n_sources if column.by_source else n_stamps
    shape = (n, column.size) if column.size > 0 else (n,)
    dtype = numpy_dtype(column)
    empty = {"str": "", "float64": np.nan, "float32": np.nan}.get(column.dtype, 0)
    return np.full(shape, empty, dtype=dtype)


def _nothing(n: int) -> np.ndarray:
    return np.full(n * (n + 1) // 2, np.nan, np.float32)


def _put_given(
    values: dict[str, np.ndarray], stamps: Stamps, status: Sequence[str], error: Sequence[str]
) -> None:
    """What is known before any fit."""
    lit = has_position(stamps.position)
    values["id"][:] = stamps.id
    values["row"][:] = np.arange(stamps.first, stamps.first + len(stamps))
    values["status"][:], values["error"][:] = [str(word) for word in status], list(error)
    values["n_sources"][:] = lit.sum(axis=1)
    values["source_id"][:] = stamps.source_id[lit]
    for axis, name in enumerate("xy"):
        values[name][:] = stamps.position[lit][:, axis]
    if stamps.ra is not None and stamps.dec is not None:
        values["ra"][:], values["dec"][:] = stamps.ra, stamps.dec
    for name, truth in stamps.truth.items():
        values[f"true_{name}"][:] = np.asarray(truth)[lit]


def _put_sources(
    values: dict[str, np.ndarray], fit: Found, rows: Int[np.ndarray, "n"], bands: Sequence[str]
) -> None:
    for name in (*_SHAPES, "x", "y"):
        values[name][rows] = getattr(fit, name)
        values[f"{name}_err"][rows] = getattr(fit, f"{name}_err")
    for axis, name in enumerate(("g1", "g2")):
        values[name][rows] = fit.ellipticity[:, axis]
        values[f"{name}_err"][rows] = fit.ellipticity_err[:, axis]
    for number, band in enumerate(bands):
        for name in ("flux", "bulge_flux"):
            values[f"{name}_{band}"][rows] = getattr(fit, name)[:, number]
            values[f"{name}_err_{band}"][rows] = getattr(fit, f"{name}_err")[:, number]
    ratio = np.maximum(fit.flux, 0) / fit.flux_err
    values["snr"][rows] = np.sqrt(np.nansum(ratio**2, axis=1))
    values["model"][rows] = fit.model
    values["contest"][rows] = fit.contest
    values["flags"][rows] = fit.flags
    if isinstance(fit, FoundDecoded):
        for name in (*SUPPORT_MEANINGS, *_LATENTS):
            values[name][rows] = getattr(fit, name)


def _put_stamps(
    values: dict[str, np.ndarray], fit: Found, places: Int[np.ndarray, "n"], bands: Sequence[str]
) -> None:
    values["chi2"][places] = fit.chi2.sum(axis=1)
    values["reduced_chi2"][places] = fit.reduced_chi2
    values["n_pixels"][places] = fit.n_pixels.sum(axis=1)
    values["steps"][places] = fit.steps
    values["converged"][places] = fit.converged
    # A fit without a sky has none to tell of.
    for number, band in enumerate(bands if fit.sky.shape[2] else ()):
        values[f"sky_{band}"][places] = fit.sky[:, number, 0]


def _table(
    columns: Sequence[Column],
    values: Mapping[str, np.ndarray],
    first: Int[np.ndarray, "stamp_1"],
    triangles: Sequence[np.ndarray],
) -> "pyarrow.Table":
    import pyarrow as pa

    offsets = pa.array(first, pa.int32())
    arrays: list[Any] = []
    for column in columns:
        field = column.field()
        if column.name == "flux_covariance":
            lengths = [len(triangle) for triangle in triangles]
            own = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            flat = np.concatenate([np.zeros(0, np.float32), *triangles])
            arrays.append(pa.ListArray.from_arrays(own, pa.array(flat), type=field.type))
            continue
        given = values[column.name]
        array: Any = pa.array(given.reshape(-1), type=None if column.size else column.one_type())
        if column.by_source:
            own = pa.array(first * column.size, pa.int32()) if column.size else offsets
            array = pa.ListArray.from_arrays(own, array, type=field.type)
        arrays.append(array)
    return pa.table(arrays, schema=arrow_schema(columns))
