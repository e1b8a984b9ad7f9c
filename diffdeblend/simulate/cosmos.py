"""Galaxies of the COSMOS field, as fitted profiles or as images, in the form of GalSim."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.table import Table
from jaxtyping import Bool

from diffdeblend.simulate.catalog import (
    Catalog,
    Parts,
    check_columns,
    is_path,
    numbers,
    read_table,
    standard_columns,
    take_rows,
)
from diffdeblend.simulate.real_galaxies import RealGalaxies

PARAMETRIC_COLUMNS = ("use_bulgefit", "viable_sersic", "sersicfit", "bulgefit", "hlr", "flux")
REAL_COLUMNS = (
    *("GAL_FILENAME", "PSF_FILENAME", "GAL_HDU", "PSF_HDU", "PIXEL_SCALE"),
    *("NOISE_VARIANCE", "flux_radius"),
)
_SELECTION_COLUMNS = (
    *("peak_image_pixel_count", "sn_ellip_gauss", "min_mask_dist_pixels"),
    *("average_mask_adjacent_pixel_count", "dmag"),
)
_WHERE = (
    "The full catalogue is at https://zenodo.org/record/3242143; "
    "`galsim_download_cosmos` fetches it."
)
_LEVELS = ("none", "bad_stamp", "bad_fits", "marginal")


def read_cosmos(
    given: Any,
    *,
    kind: Literal["parametric", "real"] = "parametric",
    exclusion: Literal["none", "bad_stamp", "bad_fits", "marginal"] = "marginal",
    index_step: float = 0.05,
    centred: bool = True,
    taper: tuple[float, float] | None = None,
) -> Catalog:
    """Galaxies from a catalogue of GalSim's form.

    - `given`: a folder, or the file `NAME.fits`, with `NAME_fits.fits` and, for cuts,
        `NAME_selection.fits` beside it; or these two or three one by one, as paths or tables.
    - `kind`: `"parametric"`: Sersic profiles, or bulge and disc where GalSim prefers them;
        `"real"`: images of the Hubble telescope.
    - `exclusion`: GalSim's cuts against bad stamps, bad fits, both and marginal cases.
    - `index_step`: Sersic indices are rounded to it, as in GalSim, and kept within 0.3 to 6; 0 for
        those of the fits. Each new index costs GalSim a table.
    - `centred`, `taper`: of real galaxies, see `RealGalaxies`.

    The columns of both files are there, so that magnitudes may be in either: `{survey}_{band}`,
    else `MAG` (F814W) in all bands. `magnitude` is `MAG`, else `mag_auto`; `size` is the half-light
    radius, of real galaxies `flux_radius`; `ra` and `dec` are in degrees. Always left out are
    galaxies without a usable fit (parametric) or whose stamp sums to nothing (real).

    **Raises:** `ValueError` that lists all missing columns, for tables that do not belong together,
    a file or a galaxy's image that is absent, or if no galaxy is left.

    ??? cite
        Mandelbaum et al. (2012), MNRAS 420, 1518; fits and cuts: Mandelbaum et al. (2014), ApJS
        212, 5.
    """
    for name, value, accepted in (
        ("kind", kind, ("parametric", "real")),
        ("exclusion", exclusion, _LEVELS),
    ):
        if value not in accepted:
            raise ValueError(f"`{name}` must be one of {list(accepted)}; got {value!r}.")
    if not index_step >= 0:
        raise ValueError(f"`index_step` must be at least 0; got {index_step}.")
    files = cosmos_files(given)
    tables = [read_table(file, "given") for file in files]
    table = _joint(tables[0], tables[1])
    if kind == "real":
        _check_real(table, files[0])
    else:
        check_columns(table, PARAMETRIC_COLUMNS, "`given`", _WHERE)
        if "MAG" not in table.colnames:
            check_columns(table, ("mag_auto",), "`given` without `MAG`", _WHERE)
            # The rule for magnitudes, `Catalog.magnitudes`, looks for this name.
            table["MAG"] = table["mag_auto"]
    selection = tables[2] if len(tables) > 2 else None
    sample = Path(files[0]).name if is_path(files[0]) else ""
    keep = _included(table, selection, exclusion, sample)
    # A stamp that sums to nothing cannot be given a flux.
    if kind == "real" and "stamp_flux" in table.colnames:
        keep &= numbers(table, "stamp_flux") > 0
    shapes = _fits(table, index_step) if kind == "parametric" else None
    if shapes is not None:
        keep &= shapes[-1].sum(axis=1) > 0
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise ValueError(f"`given`: none of its {len(table)} galaxies passes {exclusion!r}.")
    table = take_rows(table, rows)
    magnitude = numbers(table, "MAG")
    if shapes is not None:
        parts = Parts(*(values[rows] for values in shapes))
        columns = standard_columns(
            table, row=rows, magnitude=magnitude, size=parts.half_light_radius()
        )
        return Catalog(columns, parts)
    size = numbers(table, "flux_radius") * numbers(table, "PIXEL_SCALE")
    path = str(Path(files[0]).resolve())
    real = RealGalaxies((path,), np.zeros(len(rows), int), rows, centred, taper)
    return Catalog(standard_columns(table, row=rows, magnitude=magnitude, size=size), real=real)


# Reading.


def cosmos_files(given: Any) -> tuple[Any, ...]:
    """The catalogue, the fits, and the selection if there is one."""
    if isinstance(given, tuple | list):
        if not 2 <= len(given) <= 3:
            raise ValueError(f"`given` needs two or three files or tables; got {len(given)}.")
        return tuple(given)
    if not is_path(given):
        raise ValueError(
            "`given` must be a folder, a file, or two or three files or tables; "
            f"got {type(given).__name__}."
        )
    path = Path(given)
    if path.is_dir():
        # Beside it lie tables of fits and of selections.
        found = [
            file
            for file in sorted(path.glob("*.fits"))
            if file.with_name(f"{file.stem}_fits.fits").exists()
        ]
        if len(found) != 1:
            raise ValueError(
                f"`given`: the folder {path.name!r} needs one NAME.fits with NAME_fits.fits beside "
                f"it; found {[file.name for file in found]}. {_WHERE}"
            )
        path = found[0]
    beside = [path.with_name(f"{path.stem}_{name}.fits") for name in ("fits", "selection")]
    return (path, *(file for k, file in enumerate(beside) if k == 0 or file.exists()))


def _joint(catalog: Table, fits: Table) -> Table:
    """All columns of the catalogue, and those of the fits that it does not have."""
    if len(catalog) != len(fits):
        raise ValueError(
            f"`given`: the tables have {len(catalog)} and {len(fits)} rows; one belongs to another "
            "catalogue."
        )
    table = catalog.copy(copy_data=False)
    for name in fits.colnames:
        if name not in table.colnames:
            table[name] = fits[name]
    if "IDENT" in catalog.colnames and "IDENT" in fits.colnames:
        different = np.asarray(catalog["IDENT"] != fits["IDENT"])
        if different.any():
            raise ValueError(
                f"`given`: the tables differ in `IDENT` from row {int(different.argmax())} on."
            )
    for own, usual in (("RA", "ra"), ("DEC", "dec")):
        if own in table.colnames and usual not in table.colnames:
            table.rename_column(own, usual)
    return table


def _check_real(table: Table, file: Any) -> None:
    """Columns and files: better now than in the middle of a set."""
    check_columns(table, ("MAG", *REAL_COLUMNS), "`given`", _WHERE)
    if not is_path(file):
        raise ValueError("`given`: images of real galaxies need files, not tables.")
    folder = Path(file).resolve().parent
    named = [
        name.decode() if isinstance(name, bytes) else str(name)
        for column in ("GAL_FILENAME", "PSF_FILENAME", "NOISE_FILENAME")
        if column in table.colnames
        for name in np.unique(np.asarray(table[column]))
    ]
    missing = [name for name in named if not (folder / name.strip()).is_file()]
    if missing:
        raise ValueError(
            f"`given`: {len(missing)} files of images are not beside it, as {missing[:3]}. {_WHERE}"
        )


# The cuts.


def _included(
    table: Table, selection: Table | None, exclusion: str, sample: str
) -> Bool[np.ndarray, "row"]:
    """GalSim's cuts, of `galsim.COSMOSCatalog`."""
    keep = np.ones(len(table), bool)
    if exclusion in ("bad_stamp", "marginal"):
        if selection is None:
            raise ValueError(
                f"`exclusion` {exclusion!r} needs NAME_selection.fits, which is absent; "
                f"'none' and 'bad_fits' do without. {_WHERE}"
            )
        check_columns(selection, _SELECTION_COLUMNS, "the selection of `given`", _WHERE)
        if len(selection) != len(table):
            raise ValueError(
                f"`given`: the selection has {len(selection)} rows, the catalogue {len(table)}."
            )
        # The two samples differ in their brightest pixels.
        ratio, least_snr = (0.2, 20.0) if "23.5" in sample else (0.8, 12.0)
        peak, snr, distance, beside, _ = (numbers(selection, name) for name in _SELECTION_COLUMNS)
        peak = np.where(peak == 0, 1e-5, peak)
        keep &= (snr >= least_snr) & ((distance > 11) | (beside / peak < ratio))
        if "stamp_flux" in table.colnames:
            keep &= numbers(table, "stamp_flux") > 0
    if exclusion in ("bad_fits", "marginal"):
        check_columns(table, ("fit_status",), "`given`", _WHERE)
        status = np.asarray(table["fit_status"])[:, [0, 4]]
        good = (status > 0) & (status < 5)
        keep &= good.all(axis=1) if exclusion == "marginal" else good.any(axis=1)
    if exclusion == "marginal" and selection is not None:
        check_columns(table, ("hlr", "sersicfit"), "`given`", _WHERE)
        index, radius = np.asarray(table["sersicfit"])[:, 2], np.asarray(table["hlr"])[:, 0]
        keep &= ((index < 5) | (radius < 1)) & (np.abs(numbers(selection, "dmag")) < 0.8)
    return keep


# The shapes.


def _fits(table: Table, index_step: float) -> tuple[np.ndarray, ...]:
    """As in `Parts`, disc or single profile first; a share of 0 throughout if there is no model.

    `sersicfit` holds brightness, radius, index, axis ratio, boxiness, x, y and angle (radians, from
    +x to +y), `bulgefit` eight such numbers of the disc and eight of the bulge; `hlr` holds the
    half-light radii of the single profile, bulge and disc in arcseconds, means of both axes.
    """
    sersic, both, radii, flux = (
        np.asarray(table[name], dtype=float) for name in ("sersicfit", "bulgefit", "hlr", "flux")
    )
    double = np.asarray(table["use_bulgefit"]).astype(bool)
    single = ~double & np.asarray(table["viable_sersic"]).astype(bool)
    index = np.clip(sersic[:, 2], 0.3, 6.0)
    if index_step > 0:
        # To the nearest step, halves up, as in GalSim.
        index = np.floor(index / index_step + 0.5) * index_step
    index = np.stack([np.where(double, 1.0, index), np.full(len(index), 4.0)], axis=1)
    first = np.where(double, radii[:, 2], radii[:, 0])
    radius = np.stack([first, radii[:, 1]], axis=1)
    ratio = np.stack([np.where(double, both[:, 3], sersic[:, 3]), both[:, 11]], axis=1)
    angle = np.stack([np.where(double, both[:, 7], sersic[:, 7]), both[:, 15]], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        bulge = np.where(double, flux[:, 1] / (flux[:, 1] + flux[:, 2]), 0.0)
    share = np.stack([1 - bulge, bulge], axis=1)
    there = np.isfinite(share) & (share > 0)
    valid = (radius > 0) & (ratio > 0) & (index > 0)
    valid &= np.isfinite(radius + ratio + angle + index)
    good = (single | double) & ((share >= 0) & (~there | valid)).all(axis=1)
    # Axis ratios above 1 are round in GalSim.
    g = (1 - np.minimum(ratio, 1)) / (1 + np.minimum(ratio, 1))
    used = good[:, None] & there
    shapes = (index, radius, g * np.cos(2 * angle), g * np.sin(2 * angle), share)
    fill = (1.0, 0.0, 0.0, 0.0, 0.0)
    return tuple(np.where(used, value, empty) for value, empty in zip(shapes, fill, strict=True))
