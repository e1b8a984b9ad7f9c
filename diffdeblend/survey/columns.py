"""The columns of a run's rows: name, type, unit and description, all said here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.deblend.catalog import FLAG_MEANINGS, SUPPORT_MEANINGS
from diffdeblend.stamps.stamps import StampsHeader
from diffdeblend.survey.status import STATUS_MEANINGS

if TYPE_CHECKING:
    import pyarrow

# Of a list that is as long as it needs to be.
RAGGED = -1


@dataclass(frozen=True)
class Column:
    """A column of a run's rows.

    Numbers are kept as fits have them, in double precision, so that nothing is lost between a fit
    and its part. Only covariances are in single precision: theory knows them less well.

    - `dtype`: of a number, as numpy calls it; `"str"` for words.
    - `unit`: as astropy reads it, empty for none.
    - `by_source`: whether there is one for each source of a stamp, a list a row.
    - `size`: numbers of each, 0 for one that is no list; `RAGGED` for lists of any length. In the
        row of a stamp those of all sources stand one after the other.
    """

    name: str
    dtype: str
    description: str
    unit: str = ""
    by_source: bool = False
    size: int = 0

    def one_type(self) -> "pyarrow.DataType":
        """Arrow's type of what one stamp, or one source, has."""
        import pyarrow as pa

        number = pa.string() if self.dtype == "str" else pa.from_numpy_dtype(self.dtype)
        if self.size == 0:
            return number
        return pa.list_(number) if self.size == RAGGED else pa.list_(number, self.size)

    def field(self) -> "pyarrow.Field":
        """Arrow's field of the column in rows of stamps, with unit and description."""
        import pyarrow as pa

        of_row = self.one_type()
        if self.by_source:
            # One after the other: few readers know lists of lists.
            of_row = pa.list_(of_row.value_type if self.size else of_row)
        return pa.field(self.name, of_row, metadata=self.metadata())

    def metadata(self) -> dict[str, str]:
        """What Arrow's field says beside name and type."""
        per = "source" if self.by_source else "stamp"
        told = {"unit": self.unit, "description": self.description, "per": per}
        return told | ({"size": str(self.size)} if self.by_source and self.size else {})


def row_columns(
    header: StampsHeader,
    *,
    covariance: bool,
    n_latent: int | None = None,
    stamp_sky: bool = False,
    source_sky: bool = False,
    truth: Iterable[str] = (),
) -> tuple[Column, ...]:
    """The columns of the rows of a run: the same for all of its parts, whatever was found.

    - `covariance`: whether fits keep it. `n_latent`: of a prior that decodes, or None.
    - `stamp_sky`, `source_sky`: whether it is known where stamps, and where sources, are on the
        sky.
    - `truth`: names of what is known of the sources.
    """
    unit = unit_word(header.unit)
    columns = [*_of_stamp(header, unit), *_sky_places("", "the middle of the stamp", stamp_sky)]
    columns += _of_source(header, unit, source_sky)
    if n_latent is not None:
        columns += _decoded(n_latent)
    if covariance:
        columns.append(covariance_column(unit))
    for name in truth:
        of_light = name.startswith("flux")
        place = name in ("x", "y")
        word = unit if of_light else "pix" if place else ""
        columns.append(_source(f"true_{name}", f"True {name} of the source", word))
    return tuple(columns)


def columns_of(schema: "pyarrow.Schema") -> tuple[Column, ...]:
    """The columns of rows that were read: what `Column.field` says, read back."""
    import pyarrow as pa

    found = []
    for field in schema:
        told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        by_source = told.get("per") == "source"
        one: Any = field.type.value_type if by_source else field.type
        fixed, ragged = pa.types.is_fixed_size_list(one), pa.types.is_list(one)
        size = one.list_size if fixed else RAGGED if ragged else 0
        number = one.value_type if size else one
        size = int(told.get("size", size))
        dtype = "str" if pa.types.is_string(number) else np.dtype(number.to_pandas_dtype()).name
        text, unit = told.get("description", ""), told.get("unit", "")
        found.append(Column(field.name, dtype, text, unit, by_source, size))
    return tuple(found)


def unit_word(unit: str, power: int = 1, per: str = "") -> str:
    """A unit of flux as astropy writes it; empty for counts, and for what it cannot read.

    - `power`: that it is raised to. `per`: unit that it is divided by, unless it is empty.
    """
    from astropy import units

    try:
        known = units.Unit(unit) ** power
        return (known / units.Unit(per) if unit else known).to_string()
    except (ValueError, TypeError):
        return ""


def covariance_column(unit: str, size: int = RAGGED, of: str = "") -> Column:
    """The column of covariances of fluxes.

    - `unit`: of flux. `size`: numbers of each row. `of`: what is in it, in words.
    """
    text = of or (
        "Covariance of the fluxes of all sources in all bands, source by source and in each band "
        "by band: the upper triangle of the matrix, row by row; its diagonal is flux_err squared"
    )
    return Column("flux_covariance", "float32", text, unit_word(unit, 2), size=size)


def arrow_schema(
    columns: Sequence[Column], about: dict[str, str] | None = None
) -> "pyarrow.Schema":
    """Arrow's schema of rows of stamps.

    - `about`: what the file says beside its columns.
    """
    import pyarrow as pa

    return pa.schema([column.field() for column in columns], metadata=about)


def _source(name: str, description: str, unit: str = "", dtype: str = "float64") -> Column:
    return Column(name, dtype, description, unit, by_source=True)


def _of_stamp(header: StampsHeader, unit: str) -> Iterator[Column]:
    yield Column("id", "int64", "Number of the stamp in its store")
    yield Column("row", "int64", "Place of the stamp in its store, from 0")
    meanings = "; ".join(f"{status}: {text}" for status, text in STATUS_MEANINGS.items())
    yield Column("status", "str", f"What became of the stamp. {meanings}")
    yield Column("error", "str", "What went wrong, in a line; empty if nothing did")
    yield Column("n_sources", "int32", "Number of sources of the stamp")
    yield Column("chi2", "float64", "Squared residual over variance, summed over all used pixels")
    yield Column("reduced_chi2", "float64", "chi2 over n_pixels")
    yield Column("n_pixels", "int32", "Number of used pixels, all bands together")
    yield Column("steps", "int32", "Steps of the fit")
    yield Column("converged", "bool", "Whether the fit met its own criterion")
    per_pixel = unit_word(unit, per="pix2")
    for band in header.bands:
        text = f"Level of the sky in {band}, a pixel; of a linear sky its constant term"
        yield Column(f"sky_{band}", "float64", f"{text}; NaN without one", per_pixel)


def _sky_places(prefix: str, where: str, known: bool, by_source: bool = False) -> Iterator[Column]:
    if known:
        for name, word in (("ra", "Right ascension"), ("dec", "Declination")):
            text = f"{word} of {where}, ICRS"
            yield Column(f"{prefix}{name}", "float64", text, "deg", by_source)


def _of_source(header: StampsHeader, unit: str, sky: bool) -> Iterator[Column]:
    yield _source("source_id", "Number of the source in its store", dtype="int64")
    for name, other in (("x", "column"), ("y", "row")):
        text = f"Centre along {name} ({other}); the first pixel is centred on 0"
        yield _source(name, f"{text}; where no fit is, the position given", "pix")
        yield _source(f"{name}_err", f"Error of {name}", "pix")
    yield from _sky_places("source_", "the centre of the source", sky, by_source=True)
    yield _source("model", "Model of the source's light; empty where no fit is", dtype="str")
    for band in header.bands:
        yield _source(f"flux_{band}", f"Total flux in {band}", unit)
        yield _source(f"flux_err_{band}", f"Error of the total flux in {band}", unit)
    for band in header.bands:
        yield _source(f"bulge_flux_{band}", f"Flux of the bulge in {band}; 0 without one", unit)
        yield _source(f"bulge_flux_err_{band}", f"Error of bulge_flux_{band}", unit)
    for name, own, text in (
        ("radius", "pix", "Half-light radius before the PSF, geometric mean of the two half axes"),
        ("index", "", "Sersic index"),
        ("g1", "", "Reduced shear, positive along x"),
        ("g2", "", "Reduced shear, positive along the diagonal x = y"),
        ("radius_ratio", "", "Half-light radius of the bulge over that of the disc"),
        ("shear_ratio", "", "Shear of the bulge over that of the disc, in mapped variables"),
    ):
        yield _source(name, f"{text}; NaN if the model has none", own)
        yield _source(f"{name}_err", f"Error of {name}", own)
    yield _source("snr", "Flux over its error, in quadrature over the bands; 0 where negative")
    yield _source(
        "contest", "How much of the change by free pixels neighbours contest; NaN if none"
    )
    bits = "; ".join(f"{flag.value} {flag.name}: {text}" for flag, text in FLAG_MEANINGS.items())
    yield _source("flags", f"Sum of bits. {bits}", dtype="int32")


def _decoded(n_latent: int) -> Iterator[Column]:
    for name, text in SUPPORT_MEANINGS.items():
        yield _source(name, text, dtype="bool" if name == "replaced" else "float64")
    for name, text in (
        ("latent", "Numbers that the galaxy is decoded from; NaN if it is not"),
        ("latent_err", "Their standard deviations"),
    ):
        yield Column(name, "float64", text, by_source=True, size=n_latent)


def numpy_dtype(column: Column) -> Any:
    """Of the numbers of a column in memory; words are objects."""
    return object if column.dtype == "str" else column.dtype
