"""What there is to draw: galaxies and stars, as tables with shapes in a few Sersic parts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from astropy.table import MaskedColumn, Table, vstack
from jaxtyping import ArrayLike, Bool, Float, Int, Shaped
from scipy.special import gammainc, gammaincinv

from diffdeblend.simulate.real_galaxies import RealGalaxies, join_real

# Effective wavelength in nm of the bands that columns are named after, as in surveycodex.
WAVELENGTHS = {
    "u": 368.1,
    "g": 486.4,
    "r": 625.0,
    "i": 756.5,
    "z": 870.2,
    "y": 972.2,
    "Y": 989.3,
    "w": 657.9,
    "J": 1250.0,
    "H": 1650.0,
    "K": 2150.0,
    "f814w": 807.3,
    "IE": 750.6,
    "YE": 1089.0,
    "JE": 1379.1,
    "HE": 1786.0,
    "F087": 881.2,
    "F106": 1073.6,
    "F129": 1296.9,
    "F146": 1536.6,
    "F158": 1596.1,
    "F184": 1850.2,
    "F213": 2144.1,
}

# Of `{survey}_{band}`: a column of errors or fluxes may end in `_r` just as well.
_SURVEYS = (
    *("LSST", "HSC", "DES", "CFHTLS", "SDSS", "PanSTARRS", "COSMOS"),
    *("Euclid_VIS", "Euclid_NISP", "Roman_WFI", "Roman_WFI_Deep"),
)


class HasBand(Protocol):
    """What is asked of a band here."""

    @property
    def wavelength(self) -> float | None: ...


class HasBands(Protocol):
    """What is asked of a survey here: its name, and names and wavelengths (nm) of its bands."""

    @property
    def name(self) -> str: ...

    @property
    def band_names(self) -> tuple[str, ...]: ...

    @property
    def bands(self) -> Sequence[HasBand]: ...


@dataclass(frozen=True, eq=False)
class Parts:
    """Shapes: every row is a sum of Sersic profiles about one centre, all of shape `(row, part)`.

    - `index`: Sersic's. Any that the catalogue has, also beyond what this library renders.
    - `radius`: half-light radius in arcseconds of the round profile before shear, which is the
        root of the product of the semi-axes; 0 for a point, whose index means nothing.
    - `g1`, `g2`: reduced shear; positive `g1` stretches along x, positive `g2` along x = y.
    - `share`: of the flux of the row, in every band. They sum to 1, or to 0 in a row that is a
        real image; a part with share 0 is absent.

    **Raises:** `ValueError` for arrays of unequal shapes, or values that mean nothing.
    """

    index: Float[np.ndarray, "row part"]
    radius: Float[np.ndarray, "row part"]
    g1: Float[np.ndarray, "row part"]
    g2: Float[np.ndarray, "row part"]
    share: Float[np.ndarray, "row part"]

    def __post_init__(self):
        for name in ("index", "radius", "g1", "g2", "share"):
            # FITS is big-endian, which few can calculate with.
            values = np.ascontiguousarray(getattr(self, name), dtype=float)
            object.__setattr__(self, name, values)
            if values.ndim != 2 or values.shape != self.index.shape:
                raise ValueError(
                    f"`{name}` needs shape (row, part) as `index`, {self.index.shape}; "
                    f"got {values.shape}."
                )
        there, total = self.share > 0, self.share.sum(axis=1)
        for name, good, needed in (
            ("share", self.share >= 0, "at least 0"),
            ("share", (abs(total - 1) < 1e-6) | (total == 0), "with a sum of 1 in each row, or 0"),
            ("radius", ~there | ((self.radius >= 0) & (self.radius < np.inf)), "at least 0"),
            ("index", ~there | (self.radius == 0) | (self.index > 0), "positive"),
            ("g1", ~there | (np.hypot(self.g1, self.g2) < 1), "with g2 below 1 in modulus"),
        ):
            if not good.all():
                row = np.argwhere(~good)[0][0]
                raise ValueError(
                    f"`{name}` must be {needed}; row {row} has {getattr(self, name)[row]}."
                )

    def __len__(self) -> int:
        return len(self.share)

    def select(self, rows: Shaped[ArrayLike, "row"]) -> "Parts":
        """Of some rows, by number or by mask."""
        return Parts(*(values[np.asarray(rows)] for values in self._all()))

    def half_light_radius(self) -> Float[np.ndarray, "row"]:
        """Of the whole, in arcseconds, as if all parts were round; 0 of a point or a real image."""
        low = np.where(self.share > 0, self.radius, np.inf).min(axis=1, initial=np.inf)
        high = np.where(self.share > 0, self.radius, 0).max(axis=1, initial=0)
        radius = np.where(np.isfinite(low), low, 0.0)
        (mixed,) = np.nonzero(high > radius)
        if len(mixed):
            radius[mixed] = _half_light(self.select(mixed), radius[mixed], high[mixed])
        return radius

    def _all(self) -> tuple[np.ndarray, ...]:
        return self.index, self.radius, self.g1, self.g2, self.share


@dataclass(frozen=True, eq=False)
class Catalog:
    """Galaxies and stars to draw from, one a row.

    - `table`: the source's own columns and these: `row` (int, where in the source), `magnitude`
        (AB, for cuts), `size` (half-light radius in arcseconds), `is_star` (bool).
    - `parts`: shapes; None if all rows are real images.
    - `real`: how to get the images of real galaxies; None if there are none.

    **Raises:** `ValueError` if a column is absent or lengths differ.
    """

    table: Table
    parts: Parts | None = None
    real: RealGalaxies | None = None

    def __post_init__(self):
        check_columns(self.table, ("row", "magnitude", "size", "is_star"), "`table`")
        for name, part in (("parts", self.parts), ("real", self.real)):
            if part is not None and len(part) != len(self.table):
                raise ValueError(
                    f"`{name}` needs a row for each of the {len(self.table)} of `table`; "
                    f"got {len(part)}."
                )
        if self.parts is None and self.real is None:
            raise ValueError("`parts` and `real` are both None: there is nothing to draw.")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def is_real(self) -> Bool[np.ndarray, "row"]:
        """Which rows are real images."""
        return np.zeros(len(self), bool) if self.real is None else self.real.index >= 0

    def magnitudes(self, survey: HasBands) -> Float[np.ndarray, "row band"]:
        """AB magnitudes in the bands of a survey.

        Of each row, from the first of the columns `{survey}_{band}`, `{band}_ab` and `MAG` (that
        of COSMOS, the same in all bands) that has a number there. Infinite: no light.

        **Raises:** `ValueError` that lists the bands without a column, or with rows that lack a
        magnitude.
        """
        found = np.full((len(self), len(survey.band_names)), np.nan)
        missing, empty = [], []
        for k, band in enumerate(survey.band_names):
            names = [f"{survey.name}_{band}", f"{band}_ab", "MAG"]
            there = [name for name in names if name in self.table.colnames]
            for name in there:
                found[:, k] = np.where(
                    np.isnan(found[:, k]), numbers(self.table, name), found[:, k]
                )
            bad = int(np.isnan(found[:, k]).sum())
            if not there:
                missing.append(f"{names[0]} or {names[1]}")
            elif bad:
                empty.append(f"{band} ({bad} rows, from {', '.join(there)})")
        if missing:
            raise ValueError(
                f"`catalog` has no magnitudes for {survey.name}: it needs the columns "
                f"{', '.join(missing)}. `with_bands(catalog, survey)` interpolates them from the "
                f"magnitudes that it has; the columns are {self.table.colnames}."
            )
        if empty:
            raise ValueError(
                f"`catalog` has rows without a magnitude for {survey.name} in {'; '.join(empty)}; "
                "leave them out with `catalog.select`."
            )
        return found

    def select(self, rows: Shaped[ArrayLike, "row"]) -> "Catalog":
        """Of some rows, by number or by mask.

        **Raises:** `ValueError` for a mask of another length, or a row that is not there.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.dtype == bool and len(rows) != len(self)):
            raise ValueError(
                f"`rows` must be row numbers, or a mask of length {len(self)}; "
                f"got shape {rows.shape}."
            )
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise ValueError(f"`rows` must be below {len(self)}; got {rows.min()} to {rows.max()}.")
        return Catalog(
            take_rows(self.table, rows),
            None if self.parts is None else self.parts.select(rows),
            None if self.real is None else self.real.select(rows),
        )

    def with_columns(self, **columns: Shaped[ArrayLike, "row"]) -> "Catalog":
        """With columns added or put in place of others, as magnitudes or what a sampling needs."""
        table = self.table.copy(copy_data=False)
        for name, values in columns.items():
            table[name] = values
        return replace(self, table=table)


def concatenate(catalogs: Sequence[Catalog]) -> Catalog:
    """One catalogue of several, as galaxies and stars; where one lacks a column, NaN, 0 or ''.

    **Raises:** `ValueError` for none.
    """
    catalogs = list(catalogs)
    if not catalogs:
        raise ValueError("`catalogs` is empty; give at least one.")
    tables = [catalog.table for catalog in catalogs]
    table = vstack(tables, join_type="outer", metadata_conflicts="silent")
    for name in table.colnames:
        column = table[name]
        if np.ma.is_masked(column):
            empty = np.nan if column.dtype.kind == "f" else np.zeros((), column.dtype)[()]
            table[name] = column.filled(empty)
    parts = None
    if any(catalog.parts is not None for catalog in catalogs):
        parts = _join_parts([(catalog.parts, len(catalog)) for catalog in catalogs])
    real = join_real([(catalog.real, len(catalog)) for catalog in catalogs])
    return Catalog(table, parts, real)


def with_bands(
    catalog: Catalog,
    survey: HasBands,
    *,
    columns: Mapping[str, float] | None = None,
    extrapolate: bool = False,
) -> Catalog:
    """Adds `{survey}_{band}`, interpolated from the catalogue's own magnitudes.

    Linear in the logarithm of wavelength, between effective wavelengths: good to some 0.1 mag
    where a spectrum has no break. Columns of that name that are there already stay.

    - `columns`: those to start from, with wavelengths in nm; by default all `{band}_ab`, and all
        `{survey}_{band}` of a survey of surveycodex, whose band is in `WAVELENGTHS`.
    - `extrapolate`: go on with the slope of the two outermost where a band lies beyond them.

    **Raises:** `ValueError` if there are fewer than two columns to start from, a row has fewer than
    two numbers there, or a band lies beyond them and `extrapolate` is not set.
    """
    columns = _known_columns(catalog.table) if columns is None else dict(columns)
    check_columns(catalog.table, tuple(columns), "`catalog`")
    if len(set(columns.values())) < 2:
        raise ValueError(
            f"`columns` needs magnitudes at two wavelengths at least; got {columns}, of the "
            f"columns {catalog.table.colnames}."
        )
    unknown = [
        band
        for band, its in zip(survey.band_names, survey.bands, strict=True)
        if its.wavelength is None
    ]
    if unknown:
        raise ValueError(f"`survey` {survey.name} has no wavelength for its bands {unknown}.")
    names = sorted(columns, key=lambda name: columns[name])
    at = np.log([columns[name] for name in names])
    values = np.stack([numbers(catalog.table, name) for name in names], axis=1)
    wanted = {
        f"{survey.name}_{name}": np.log(band.wavelength or np.nan)
        for name, band in zip(survey.band_names, survey.bands, strict=True)
        if f"{survey.name}_{name}" not in catalog.table.colnames
    }
    target = np.array(list(wanted.values()))
    found = np.empty((len(catalog), len(target)))
    # Rows of a joint catalogue have different columns: those with the same ones go together.
    known, group = np.unique(np.isfinite(values), axis=0, return_inverse=True)
    for k, there in enumerate(known):
        own = at[there]
        if len(np.unique(own)) < 2:
            raise ValueError(
                f"`catalog` has {int((group.ravel() == k).sum())} rows with fewer than two "
                f"magnitudes among {names}."
            )
        # Wavelengths are known to a few nm.
        beyond = (target < own[0] - 0.01) | (target > own[-1] + 0.01)
        if beyond.any() and not extrapolate:
            raise ValueError(
                f"`catalog` has magnitudes from {np.exp(own[0]):.0f} to {np.exp(own[-1]):.0f} nm; "
                f"beyond them lie {[n for n, out in zip(wanted, beyond, strict=True) if out]}. "
                "With `extrapolate=True` the outermost slope goes on."
            )
        rows = group.ravel() == k
        found[rows] = _lines(own, values[np.ix_(rows, there)], target)
    return catalog.with_columns(**dict(zip(wanted, found.T, strict=True)))


# For those who read catalogues.


def read_table(given: Any, name: str) -> Table:
    """A table, or the table in a file: FITS, ECSV, CSV, or plain columns with names.

    **Raises:** `ValueError` naming the argument `name` if there is no such file or it cannot be
    read.
    """
    if isinstance(given, Table):
        return Table(given)
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"`{name}`: there is no file {str(given)!r}.")
    plain = path.suffix.lower() in (".txt", ".dat", ".ascii", ".cat", "")
    try:
        return Table.read(path, format="ascii.basic") if plain else Table.read(path)
    # Readers raise all sorts of errors, and so do guesses at the form.
    except Exception as error:
        raise ValueError(f"`{name}`: {str(given)!r} holds no table: {error}") from error


def take_rows(table: Table, rows: Shaped[np.ndarray, "row"]) -> Table:
    """Some rows, by number or by mask: never a single row nor a column."""
    return cast(Table, table[rows])


def check_columns(table: Table, needed: Sequence[str], name: str, hint: str = "") -> None:
    """**Raises:** `ValueError` that lists all needed columns that are absent."""
    missing = [column for column in needed if column not in table.colnames]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {missing}; it has {table.colnames}. {hint}".rstrip()
        )


def numbers(table: Table, name: str) -> np.ndarray:
    """A column in double precision, NaN where it is masked; perhaps a view of it."""
    column = table[name]
    if isinstance(column, MaskedColumn):
        return np.ma.filled(column.astype(float), np.nan)
    return np.asarray(column, dtype=float)


def is_path(given: Any) -> bool:
    return isinstance(given, str | os.PathLike)


# Small helpers.


def _known_columns(table: Table) -> dict[str, float]:
    found = {}
    for name in table.colnames:
        first, _, last = name.rpartition("_")
        if last == "ab" and first in WAVELENGTHS:
            found[name] = WAVELENGTHS[first]
        elif first in _SURVEYS and last in WAVELENGTHS:
            found[name] = WAVELENGTHS[last]
    return found


def _lines(
    at: Float[np.ndarray, "known"],
    values: Float[np.ndarray, "row known"],
    target: Float[np.ndarray, "band"],
) -> Float[np.ndarray, "row band"]:
    """Piecewise linear, the outer pieces go on."""
    # Two columns may have one wavelength: r_ab and HSC_r. Their mean.
    at, group = np.unique(at, return_inverse=True)
    count = np.bincount(group)
    values = np.stack(
        [values[:, group == k].sum(axis=1) / count[k] for k in range(len(at))], axis=1
    )
    left = np.clip(np.searchsorted(at, target, side="right") - 1, 0, len(at) - 2)
    part = (target - at[left]) / (at[left + 1] - at[left])
    return values[:, left] * (1 - part) + values[:, left + 1] * part


def _half_light(
    parts: Parts, low: Float[np.ndarray, "row"], high: Float[np.ndarray, "row"]
) -> Float[np.ndarray, "row"]:
    """Bisection of the light within r; for each part that is P(2n, b (r / r_e)^(1/n))."""
    point, index = parts.radius == 0, np.maximum(parts.index, 0.1)
    b = gammaincinv(2 * index, 0.5)
    scale = np.where(point, 1.0, parts.radius)
    for _ in range(40):
        middle = (low + high) / 2
        within = gammainc(2 * index, b * (middle[:, None] / scale) ** (1 / index))
        half = (parts.share * np.where(point, 1.0, within)).sum(axis=1) < 0.5
        low, high = np.where(half, middle, low), np.where(half, high, middle)
    return (low + high) / 2


def _join_parts(given: Sequence[tuple[Parts | None, int]]) -> Parts:
    most = max(parts.share.shape[1] for parts, _ in given if parts is not None)
    absent = {"index": 1.0, "radius": 0.0, "g1": 0.0, "g2": 0.0, "share": 0.0}
    joint = {}
    for name, fill in absent.items():
        joint[name] = np.full((sum(n for _, n in given), most), fill)
        start = 0
        for parts, n in given:
            if parts is not None:
                values = getattr(parts, name)
                joint[name][start : start + n, : values.shape[1]] = values
            start += n
    return Parts(**joint)


def standard_columns(
    table: Table,
    *,
    row: Int[np.ndarray, "row"] | None = None,
    magnitude: Float[np.ndarray, "row"],
    size: Float[np.ndarray, "row"],
    is_star: bool = False,
) -> Table:
    """The table with the columns that every catalogue has."""
    table = table.copy(copy_data=False)
    table["row"] = np.arange(len(table)) if row is None else row
    table["magnitude"], table["size"] = magnitude, size
    table["is_star"] = np.full(len(table), is_star)
    return table
