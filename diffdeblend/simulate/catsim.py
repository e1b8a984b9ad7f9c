"""Bulges and discs of CatSim, the catalogue of the Rubin Observatory's simulations."""

from typing import Any

import numpy as np

from diffdeblend.simulate.catalog import (
    Catalog,
    Parts,
    check_columns,
    numbers,
    read_table,
    standard_columns,
    take_rows,
)

CATSIM_COLUMNS = (
    *("fluxnorm_bulge", "fluxnorm_disk", "a_b", "b_b", "a_d", "b_d"),
    *("pa_bulge", "pa_disk"),
)
_WHERE = (
    "The catalogue of a square degree, OneDegSq.fits, can be had from the page "
    "https://lsstdesc.org/BlendingToolKit/catalog.html."
)


def read_catsim(path_or_table: Any, *, reference: str = "i_ab") -> Catalog:
    """Galaxies of a disc (index 1), a bulge (index 4) and an active nucleus, a point.

    - `path_or_table`: FITS, ECSV, CSV or plain columns with names, or an astropy table.
    - `reference`: the column that becomes `magnitude`, by which sources are chosen.

    Columns: `fluxnorm_bulge`, `fluxnorm_disk` and perhaps `fluxnorm_agn`, shares of the light up to
    a factor; half-light semi-axes `a_b`, `b_b`, `a_d`, `b_d` in arcseconds; `pa_bulge`, `pa_disk`
    in degrees; AB magnitudes `{band}_ab`. The angle is that of `galsim.Shear(beta=)`, from +x to
    +y, as in the BlendingToolKit, and not from north through east.

    Left out are galaxies that cannot be drawn: without any light, or with light in a disc or bulge
    of unknown axes. If only both axes are 0, the part is a point. `row` counts the rows of the
    file.

    **Raises:** `ValueError` that lists all missing columns, or if no galaxy is left.

    ??? cite
        Connolly et al. (2014), SPIE 9150, 915014. Semantics: Sanchez et al. (2021), JCAP 07, 043,
        and Mendoza et al. (2025), OJAp 8, the BlendingToolKit.
    """
    table = read_table(path_or_table, "path_or_table")
    check_columns(table, (*CATSIM_COLUMNS, reference), "`path_or_table`", _WHERE)
    total = np.zeros(len(table))
    usable = np.ones(len(table), bool)
    found: list[tuple[np.ndarray, ...]] = []
    for index, name, axes in ((1.0, "disk", "d"), (4.0, "bulge", "b")):
        a, b = numbers(table, f"a_{axes}"), numbers(table, f"b_{axes}")
        light, angle = numbers(table, f"fluxnorm_{name}"), numbers(table, f"pa_{name}")
        light = np.nan_to_num(light)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Negative where b > a: the same ellipse with the axes' names exchanged.
            g = np.where(a + b > 0, (a - b) / (a + b), 0.0)
            good = ((a > 0) & (b > 0) & np.isfinite(angle)) | ((a == 0) & (b == 0))
            usable &= (light == 0) | ((light > 0) & good)
        turn = 2 * np.deg2rad(np.nan_to_num(angle))
        radius = np.sqrt(np.abs(a * b))
        found.append((np.full(len(a), index), radius, g * np.cos(turn), g * np.sin(turn), light))
        total += light
    if "fluxnorm_agn" in table.colnames:
        light = np.nan_to_num(numbers(table, "fluxnorm_agn"))
        zero = np.zeros(len(table))
        if light.any():
            # A part that no galaxy has would cost time wherever galaxies are drawn.
            found.append((zero + 1, zero, zero, zero, light))
        usable &= light >= 0
        total += light
    usable &= total > 0
    if not usable.any():
        raise ValueError(f"`path_or_table`: none of its {len(table)} galaxies can be drawn.")
    index, radius, g1, g2, light = (np.stack(v, axis=1)[usable] for v in zip(*found, strict=True))
    absent = light == 0
    radius, g1, g2 = (np.where(absent, 0.0, values) for values in (radius, g1, g2))
    parts = Parts(index, radius, g1, g2, light / light.sum(axis=1, keepdims=True))
    rows = np.flatnonzero(usable)
    kept = take_rows(table, rows)
    columns = standard_columns(
        kept, row=rows, magnitude=numbers(kept, reference), size=parts.half_light_radius()
    )
    return Catalog(columns, parts)
