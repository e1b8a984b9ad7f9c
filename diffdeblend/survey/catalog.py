"""Parts of a run to one catalogue: every stamp once, in the order of the store."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdeblend.deblend.catalog import what_numbers_mean
from diffdeblend.files import whole_file
from diffdeblend.stamps.stamps import StampsHeader, nested
from diffdeblend.survey.catalog_files import arrow_rows, fits_writer, parquet_writer
from diffdeblend.survey.columns import Column, columns_of
from diffdeblend.survey.manifest import run_manifest
from diffdeblend.survey.parts import FORMAT as PART_FORMAT
from diffdeblend.survey.parts import Run, list_parts, read_part
from diffdeblend.survey.source_rows import source_columns, source_rows, stamp_rows
from diffdeblend.survey.status import STATUS_MEANINGS

if TYPE_CHECKING:
    import pyarrow

FORMAT = "diffdeblend survey catalogue 1"
ROWS = ("sources", "stamps")


@dataclass(frozen=True)
class Merged:
    """A catalogue that was written.

    - `rows`: how many it has. `n_stamps`: in the store; `n_missing`: of them in no part.
    - `status`: how many stamps became what.
    """

    path: Path
    rows: int
    n_stamps: int
    n_missing: int
    status: Mapping[str, int]


@dataclass(frozen=True)
class _Contents:
    """What parts hold together: what is to be known before anything is written."""

    schema: Any
    n_sources: int
    n_found: int
    status: Mapping[str, int]
    widths: Mapping[str, int]


def merge_parts(
    out: str | Path,
    path: str | Path,
    rows: str = "sources",
    *,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> Merged:
    """All parts of a run as one table, `.parquet` or `.fits`, part by part.

    - `out`: folder of the run. `path`: of the catalogue.
    - `rows`: `"sources"`, a row a source with what became of its stamp; stamps without sources have
        none, sources of stamps that failed have NaN. Or `"stamps"`, a row a stamp; numbers of its
        sources are lists, which FITS goes without.
    - `allow_missing`: write what is there, though not all stamps are fitted.
    - `overwrite`: replace a file that is there.

    Where parts overlap the first one counts.

    **Raises:** `ValueError` for a folder that holds no run, or not all of it, a part that is
    damaged or of another version, a file that is there, or another kind of file.
    """
    out, path = Path(out), Path(path)
    kind = path.suffix.lower()
    if rows not in ROWS:
        raise ValueError(f"`rows` must be sources or stamps; got {rows!r}.")
    if kind not in (".parquet", ".fits"):
        raise ValueError(f"`path` must end in .parquet or .fits; got {str(path)!r}.")
    check_free(path, overwrite)
    manifest = run_manifest(out)
    header = header_of(manifest)
    contents = _contents(out, header.n_stamps)
    missing = header.n_stamps - contents.n_found
    if missing and not allow_missing:
        raise ValueError(
            f"`out`: {missing} of {header.n_stamps} stamps of {str(out)!r} are not fitted; run "
            "fit-survey again, which goes on where it stopped, or ask for a partial catalogue."
        )
    given = columns_of(contents.schema)
    n_rows = contents.n_sources if rows == "sources" else contents.n_found
    about = _about(manifest, rows, header.n_stamps, missing, contents.status)
    with whole_file(path) as temporary, ExitStack() as stack:
        tables = (table for _, table in _pieces(out, header.n_stamps))
        if rows == "sources":
            columns = source_columns(given, header)
        elif kind == ".fits":
            columns = tuple(c for c in given if not c.by_source and not c.size)
        else:
            columns = given
        widths = {c.name: contents.widths[c.name] for c in columns if c.name in contents.widths}
        if kind == ".fits":
            values = fits_writer(temporary, columns, about, widths, n_rows)
            add = stack.enter_context(values)
        else:
            add = stack.enter_context(parquet_writer(temporary, columns, about, widths))
        for table in tables:
            add(_rows(table, columns, header, rows, kind))
    return Merged(path, n_rows, header.n_stamps, missing, contents.status)


def check_free(path: Path, overwrite: bool) -> None:
    """**Raises:** `ValueError` for a file that is there and is not to be replaced."""
    if path.is_dir():
        raise ValueError(f"`path`: {str(path)!r} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise ValueError(f"`path`: {str(path)!r} is there; ask for it to be overwritten.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"`path`: there is no folder {str(path.parent)!r}.")


def header_of(manifest: Mapping[str, Any]) -> StampsHeader:
    """What all stamps of a run share, from its manifest."""
    # JSON has lists for tuples.
    told: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest["store"]["header"].items()
    }
    told["noise_correlation"] = nested(told.get("noise_correlation"))
    return StampsHeader(**told)


def _rows(
    table: "pyarrow.Table", columns: tuple[Column, ...], header: StampsHeader, rows: str, kind: str
) -> Any:
    """The rows of a part, as the writer wants them."""
    if rows == "stamps":
        return stamp_rows(table, columns) if kind == ".fits" else table
    values = source_rows(table, columns, header)
    return values if kind == ".fits" else arrow_rows(columns, values)


def _pieces(
    out: Path, n_stamps: int, columns: Iterable[str] | None = None
) -> Iterator[tuple[Path, "pyarrow.Table"]]:
    """Tables of all parts in the order of their stamps, without stamps that came before."""
    reached = 0
    chosen = None if columns is None else [*columns]
    for run, path in list_parts(out):
        if run.stop > n_stamps:
            raise ValueError(f"the part {str(path)!r} is of stamps that the store does not have.")
        if run.stop > reached:
            table = read_part(path, Run(run.start, run.stop), chosen)
            yield path, table.slice(max(reached - run.start, 0))
            reached = run.stop


def _contents(out: Path, n_stamps: int) -> _Contents:
    """What parts hold together.

    **Raises:** `ValueError` if there is none, or they do not have the same columns.
    """
    import pyarrow.parquet as pq
    from pyarrow.compute import call_function

    schema: Any = None
    status: Counter[str] = Counter()
    n_sources = n_found = 0
    widths: dict[str, int] = {}
    for path, table in _pieces(out, n_stamps, ("status", "error", "model", "n_sources")):
        own = pq.read_schema(path)
        made_as = (own.metadata or {}).get(b"format", b"").decode()
        if made_as != PART_FORMAT:
            raise ValueError(
                f"the part {str(path)!r} is {made_as or 'of no format'!r}, not {PART_FORMAT!r}: "
                "another version made it."
            )
        if schema is None:
            schema = own
        elif not schema.equals(own):
            other = {field.name for field in set(own) ^ set(schema)}
            raise ValueError(
                f"the part {str(path)!r} has other columns than those before it "
                f"({', '.join(sorted(other)) or 'in another order'}): another version made it."
            )
        status.update(table.column("status").to_pylist())
        n_found += len(table)
        n_sources += int(table.column("n_sources").to_numpy().sum())
        for name in ("status", "error", "model"):
            words: Any = table.column(name)
            flat = call_function("list_flatten", [words]) if name == "model" else words
            lengths = call_function("utf8_length", [flat]).to_numpy()
            widths[name] = max(widths.get(name, 1), int(lengths.max(initial=1)))
    if schema is None:
        raise ValueError(f"`out`: {str(out)!r} has no parts: no stamp is fitted yet.")
    return _Contents(schema, n_sources, n_found, dict(status), widths)


def _about(
    manifest: Mapping[str, Any], rows: str, n_stamps: int, missing: int, status: Mapping[str, int]
) -> dict[str, Any]:
    """What a catalogue tells of the whole: provenance, and what its words and bits mean."""
    return {
        "format": FORMAT,
        "rows": rows,
        "n_stamps": n_stamps,
        "n_missing": missing,
        "status": dict(status),
        "statuses": {str(word): text for word, text in STATUS_MEANINGS.items()},
        **what_numbers_mean(),
        "run": dict(manifest),
    }
