"""Folders of survey runs that no fit was needed for: rows as a fit leaves them, made up."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from diffdeblend.stamps.stamps import Stamps, StampsHeader
from diffdeblend.survey.manifest import keep_manifest, make_manifest
from diffdeblend.survey.parts import Run, write_part
from diffdeblend.survey.rows import rows_of
from diffdeblend.survey.settings import FitSettings, Programs

SIZE, BANDS, MOST = 32, ("g", "r"), 3
ERROR = 10.0


def made_table(n, seed=0, *, ra=None, dec=None, truth=True):
    """Rows of `n` fitted stamps: errors of fluxes are Gaussian, chi2 is that of noise."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, MOST + 1, n)
    lit = np.arange(MOST) < count[:, None]
    position = np.where(lit[..., None], rng.uniform(0, SIZE - 1, (n, MOST, 2)), np.nan)
    flux = np.where(lit, rng.uniform(100, 1000, (len(BANDS), n, MOST)), np.nan)
    stamps = Stamps(
        first=0,
        id=np.arange(n) + 5000,
        image=np.zeros((n, len(BANDS), 1, 1), np.float32),
        variance=np.ones((n, len(BANDS)), np.float32),
        position=position,
        source_id=np.arange(n * MOST).reshape(n, MOST) + 1,
        psf=np.ones((1, len(BANDS), 1, 1), np.float32),
        psf_index=np.zeros(n, int),
        psf_key=np.zeros(1, int),
        ra=ra,
        dec=dec,
        truth={f"flux_{b}": each for b, each in zip(BANDS, flux, strict=True)} if truth else {},
    )
    table = rows_of(stamps, header_of(n), [], ["ok"] * n, [""] * n, covariance=True, n_latent=None)
    total = int(count.sum())
    pixels = len(BANDS) * SIZE**2
    # Two centres and two fluxes of each source, and the sky of each band.
    freedom = pixels - count * 4 - len(BANDS)
    for name, values in (
        ("n_pixels", np.full(n, pixels, np.int32)),
        ("chi2", rng.chisquare(freedom)),
        ("steps", rng.integers(5, 20, n).astype(np.int32)),
    ):
        table = put(table, name, values)
    listed = {"x_err": np.full(total, 0.1), "y_err": np.full(total, 0.1)}
    for band, true in zip(BANDS, flux, strict=True):
        listed[f"flux_{band}"] = true[lit] + rng.normal(0, ERROR, total)
        listed[f"flux_err_{band}"] = np.full(total, ERROR)
    listed["flags"] = np.where(rng.uniform(size=total) < 0.1, 8, 0).astype(np.int32)
    for name, values in listed.items():
        table = put(table, name, in_lists(table, values))
    return table


def put(table, name, values):
    """The table with other values in one of its columns."""
    place = table.column_names.index(name)
    return table.set_column(place, name, values if isinstance(values, pa.Array) else [values])


def in_lists(table, values):
    """Numbers of sources, stamp by stamp."""
    return pa.ListArray.from_arrays(table.column("x").combine_chunks().offsets, pa.array(values))


def header_of(n):
    """What the stamps share."""
    return StampsHeader(BANDS, (SIZE, SIZE), n, MOST, 0.2)


def write_run(out, table, batch, planned=None, settings=None):
    """A folder of a run with these rows in parts of `batch` stamps."""
    out.mkdir(parents=True, exist_ok=True)
    store = SimpleNamespace(
        path="stamps.zarr", fingerprint=lambda: "0" * 64, header=header_of(planned or len(table))
    )
    programs = Programs(None, False, None, None)
    manifest = make_manifest(store, settings or FitSettings(), programs, None)
    keep_manifest(out, manifest | {"programs": {}})
    for start in range(0, len(table), batch):
        part = table.slice(start, batch)
        write_part(part, out, Run(start, start + len(part)))
    return out
