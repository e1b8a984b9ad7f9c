"""Galaxies by words whose features a mixture is learnt from. Host side."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffdeblend.simulate import read_catalog, synthetic_catalog
from diffdeblend.simulate.keys import stream
from diffdeblend.train.fitted_table import FittedTable, read_fitted
from diffdeblend.train.parametric import Features, catalog_features, fitted_features

ACCEPTED = "`synthetic`, `catalog:FILE` (CatSim, COSMOS), or `fits:TABLE` of this program's fits"


def read_features(
    words: str,
    family: str = "sersic",
    *,
    n: int = 20_000,
    seed: int = 0,
    bands: Sequence[str] = (),
    pixel_scale: float | None = None,
) -> Features:
    """Features of galaxies, by words.

    - `words`: `synthetic`: `n` galaxies of `synthetic_catalog`; `catalog:FILE`: those of CatSim or
        COSMOS; `fits:TABLE`: those of `read_fitted`, with their errors.
    - `n`, `seed`: of more galaxies, so many are drawn.
    - `bands`: for magnitude and colours, as in `catalog_features`.
    - `pixel_scale`: arcseconds; for fits that do not know it.

    **Raises:** `ValueError` for other words, files that cannot be read, bands or a pixel scale that
    the source does not have, or as `catalog_features` and `fitted_features` do.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1; got {n}.")
    word, colon, file = words.strip().partition(":")
    # Before any reading: `catalog` takes folders, so that the reader alone cannot tell.
    if word in ("catalog", "fits") and not (file and Path(file).exists()):
        raise ValueError(f"`population`: there is no file {file!r}, of {words!r}.")
    if pixel_scale is not None and word != "fits":
        raise ValueError(f"`pixel_scale` is of fits; sizes of {words!r} are angles already.")
    if word == "synthetic" and not colon:
        catalog = synthetic_catalog(n, stream(seed, "features"))
        features = catalog_features(catalog, family, bands=bands)
    elif word == "catalog":
        features = catalog_features(read_catalog(file), family, bands=bands)
    elif word == "fits":
        features = _of_fits(read_fitted(file), family, bands, pixel_scale)
    else:
        raise ValueError(f"`population` must be {ACCEPTED}; got {words!r}.")
    if len(features.rows) <= n:
        return features
    chosen = np.sort(stream(seed, "chosen").permutation(len(features.rows))[:n])
    errors = None if features.errors is None else features.errors[chosen]
    return features._replace(
        values=features.values[chosen], errors=errors, rows=features.rows[chosen]
    )


def _of_fits(
    table: FittedTable, family: str, bands: Sequence[str], pixel_scale: float | None
) -> Features:
    known = table.pixel_scale
    if known is None and pixel_scale is None:
        raise ValueError("`pixel_scale` is not in the table of fits; give it, in arcseconds.")
    if known is not None and pixel_scale is not None and abs(pixel_scale / known - 1) > 0.01:
        raise ValueError(f"`pixel_scale` is {pixel_scale}; the table has {known} arcsec.")
    missing = [band for band in bands if band not in table.names]
    if missing:
        raise ValueError(f"`bands`: the fits lack {missing}; they have {list(table.names)}.")
    points = table.zero_points
    if bands and points is None:
        raise ValueError(
            "`bands`: the table of fits has no zero points, so no magnitudes; leave them out for "
            "shapes alone."
        )
    if bands:
        at = [table.names.index(band) for band in bands]
        assert points is not None
        points = tuple(points[k] for k in at)
        table = replace(
            table, names=tuple(bands), flux=table.flux[:, at], flux_err=table.flux_err[:, at]
        )
    scale = known if pixel_scale is None else pixel_scale
    assert scale is not None
    return fitted_features(table, family, pixel_scale=scale, zero_points=points, bands=bands)
