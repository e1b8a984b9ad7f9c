"""What became of a survey run, in numbers: read part by part, so of any number of stamps."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammainc

from diffdeblend.deblend.catalog import FLAG_MEANINGS, Flag
from diffdeblend.io.results import write_figure
from diffdeblend.io.results import write_summary as write_json
from diffdeblend.survey.extent import Extent, extent_of
from diffdeblend.survey.manifest import run_manifest
from diffdeblend.survey.parts import list_parts, read_part
from diffdeblend.survey.status import STATUS_MEANINGS, Status
from diffdeblend.survey.tallies import Histogram, Pulls, Shares

if TYPE_CHECKING:
    import pyarrow

SUMMARY = "summary.json"
_TRUE = "true_"
# Numbers of the sky in each band.
_SKY = {"none": 0, "constant": 1, "linear": 3}
# Cells of a stamp along its longer side.
_CELLS = 12
# Different errors that are told apart, how much of each is kept, and how many are told of.
_ERRORS, _LENGTH, _TOLD = 1000, 200, 10


class Totals:
    """Counts over the stamps of some parts of a run, of bounded size. They may be added up.

    - `manifest`: of the run. `extent`: the piece of sky that is mapped; None without.
    """

    def __init__(self, manifest: Mapping[str, Any], extent: Extent | None = None):
        header = manifest["store"]["header"]
        self.extent = extent
        self._bands = tuple(header["bands"])
        self._sky_terms = _SKY.get(manifest["settings"].get("background"), 0) * len(self._bands)
        ny, nx = header["shape"]
        side = max(nx, ny) / _CELLS
        self.stamps = 0
        self.status: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.first_row: dict[tuple[str, str], int] = {}
        self.sources = self.fitted = 0
        self.models: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.chi2 = Histogram(np.linspace(0, 5, 501))
        self.freedom = Histogram(np.geomspace(1, 1e7, 701))
        self.steps = Histogram(np.arange(-0.5, 301))
        self.pulls: dict[str, Pulls] = {}
        self.unflagged: dict[str, Pulls] = {}
        self.on_stamp = Shares(
            np.linspace(-0.5, nx - 0.5, max(1, round(nx / side)) + 1),
            np.linspace(-0.5, ny - 0.5, max(1, round(ny / side)) + 1),
        )
        self.on_sky = None if extent is None else Shares(*extent.edges())

    def add(self, table: "pyarrow.Table") -> None:
        """Count the stamps of a part."""
        self.stamps += table.num_rows
        status = np.array(table.column("status").to_pylist(), dtype=object)
        self.status.update(status.tolist())
        self._add_errors(table, status)
        count = table.column("n_sources").to_numpy()
        self.sources += int(count.sum())
        done = np.isin(status, [Status.OK, Status.NOT_CONVERGED])
        self._add_fits(table, done)
        stamp = np.repeat(np.arange(table.num_rows), count)
        own = done[stamp]
        self.fitted += int(own.sum())
        flags = _flat(table, "flags")[own].astype(int)
        self.models.update(np.array(_strings(table, "model"), dtype=object)[own].tolist())
        for flag in Flag:
            self.flags[_name(flag)] += int(np.count_nonzero(flags & int(flag)))
        self.flags["any"] += int(np.count_nonzero(flags))
        self.on_stamp.add(_flat(table, "x")[own], _flat(table, "y")[own], flags != 0)
        if self.on_sky is not None and self.extent is not None and "ra" in table.column_names:
            ra, dec = (table.column(name).to_numpy()[stamp][own] for name in ("ra", "dec"))
            self.on_sky.add(self.extent.unwrapped(ra), dec, flags != 0)
        self._add_pulls(table, (status == Status.OK)[stamp])

    def merge(self, other: "Totals") -> None:
        """Add what was counted of other parts of the same run, with the same extent."""
        for name in ("stamps", "sources", "fitted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("status", "errors", "models", "flags"):
            getattr(self, name).update(getattr(other, name))
        self.first_row = other.first_row | self.first_row
        for name in ("chi2", "freedom", "steps", "on_stamp"):
            getattr(self, name).merge(getattr(other, name))
        for own, theirs in ((self.pulls, other.pulls), (self.unflagged, other.unflagged)):
            for name, pulls in theirs.items():
                own.setdefault(name, Pulls()).merge(pulls)
        if self.on_sky is not None and other.on_sky is not None:
            self.on_sky.merge(other.on_sky)

    def _add_errors(self, table: "pyarrow.Table", status: np.ndarray) -> None:
        error = np.array(table.column("error").to_pylist(), dtype=object)
        row = table.column("row").to_numpy()
        for place in np.flatnonzero(error != "").tolist():
            kind = str(status[place]), str(error[place])[:_LENGTH]
            if kind not in self.errors and len(self.errors) >= _ERRORS:
                kind = str(status[place]), "others"
            self.errors[kind] += 1
            self.first_row.setdefault(kind, int(row[place]))

    def _add_fits(self, table: "pyarrow.Table", done: np.ndarray) -> None:
        """Chi2 and steps. What was fitted of a source is what has an error."""
        names = [n for n in table.column_names if n.endswith("_err") or "flux_err_" in n]
        count = table.column("n_sources").to_numpy()
        n_fitted = np.zeros(int(count.sum()), int)
        for name in names:
            n_fitted += _n_known(table, name)
        stamp = np.repeat(np.arange(table.num_rows), count)
        numbers = np.bincount(stamp, n_fitted, minlength=table.num_rows) + self._sky_terms
        freedom = np.maximum(table.column("n_pixels").to_numpy() - numbers, 1)[done]
        self.chi2.add(table.column("chi2").to_numpy()[done] / freedom)
        self.freedom.add(freedom)
        self.steps.add(table.column("steps").to_numpy()[done])

    def _add_pulls(self, table: "pyarrow.Table", own: np.ndarray) -> None:
        names = set(table.column_names)
        clean = _flat(table, "flags")[own] == 0
        for name in table.column_names:
            error = name.replace("flux_", "flux_err_", 1) if "flux_" in name else f"{name}_err"
            wanted = name, error, f"{_TRUE}{name}"
            if not names.issuperset(wanted):
                continue
            values = [_flat(table, each)[own].astype(float) for each in wanted]
            self.pulls.setdefault(name, Pulls()).add(*values)
            self.unflagged.setdefault(name, Pulls()).add(*(each[clean] for each in values))


def summarise(out: str | Path) -> dict[str, Any]:
    """What became of the stamps of a run, finished or not; reads one part at a time.

    - `out`: folder of the run.

    Returns what goes to `summary.json`:
    - `stamps`: how many are `planned`, `finished`, and of each `status`; `errors`: the most
        frequent ones, with the first row of each.
    - `sources`: how many, in fits how many, by `model`; `flags`: how many of those in fits have
        each.
    - `reduced_chi2`: median, and counts, with those `expected` of noise alone: of chi2
        distributions with as many degrees of freedom as each stamp has pixels less the numbers
        that were fitted, those that have errors. `steps`: of the fits.
    - `pulls`: where the truth is known, of the stamps whose status is ok; `unflagged`: of sources
        without any flag.
    - `by_place`: sources in fits and how many of them are flagged, on a grid over the stamps, and
        on the sky where that is known.
    - `parts`: files, and what is wrong with them; `run`: settings, versions and hashes.

    **Raises:** `ValueError` for a folder of no run.
    """
    folder = Path(out)
    manifest = run_manifest(folder)
    damaged: list[str] = []
    n_parts = size = reached = twice = 0
    totals = Totals(manifest, extent_of(path for _, path in list_parts(folder)))
    for run, path in list_parts(folder):
        try:
            totals.add(read_part(path, run))
        except ValueError:
            damaged.append(path.name)
            continue
        n_parts, size = n_parts + 1, size + path.stat().st_size
        twice += max(0, min(reached, run.stop) - run.start)
        reached = max(reached, run.stop)
    parts = {"n": n_parts, "bytes": size, "damaged": damaged, "stamps_twice": twice}
    return as_dict(totals, manifest) | {"parts": parts, "run": _run(manifest)}


def write_summary(
    out: str | Path, more: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Write `summary.json` and, if matplotlib is there, `figure.png` to the folder of a run.

    - `more`: to be told besides.

    Returns the summary.

    **Raises:** as `summarise`.
    """
    folder = Path(out)
    found = summarise(folder) | dict(more)

    def draw() -> Any:
        from diffdeblend.plot_survey import survey_figure

        return survey_figure(found)

    write_figure(draw, folder, lambda name: folder / name)
    # Last: where it is, all else is.
    write_json(found, folder / SUMMARY)
    return found


def as_dict(totals: Totals, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Counts as a summary, but for what is known of the files."""
    expected = expected_counts(totals)
    places = {"stamp": totals.on_stamp.as_dict()}
    if totals.on_sky is not None:
        places["sky"] = totals.on_sky.as_dict()
    reasons = [
        {"status": status, "error": text, "stamps": n, "first_row": totals.first_row[status, text]}
        for (status, text), n in totals.errors.most_common(_TOLD)
    ]
    return {
        "stamps": {
            "planned": manifest["store"]["header"]["n_stamps"],
            "finished": totals.stamps,
            "status": {
                str(status): {"stamps": totals.status[status], "meaning": STATUS_MEANINGS[status]}
                for status in Status
            },
        },
        "errors": reasons,
        "sources": {
            "n": totals.sources,
            "fitted": totals.fitted,
            "model": dict(sorted(totals.models.items())),
        },
        "flags": {
            "any": {"sources": totals.flags["any"], "meaning": "at least one of these"},
            **{
                _name(flag): {"sources": totals.flags[_name(flag)], "meaning": FLAG_MEANINGS[flag]}
                for flag in Flag
            },
        },
        "reduced_chi2": {
            "median": totals.chi2.quantile(0.5),
            "expected_median": _median_of(totals.chi2.edges, expected),
            **totals.chi2.as_dict(),
            "expected": np.round(expected, 3).tolist(),
        },
        "steps": {"median": totals.steps.quantile(0.5), "p95": totals.steps.quantile(0.95)},
        "pulls": {
            name: pulls.numbers() | {"histogram": pulls.histogram.as_dict()}
            for name, pulls in totals.pulls.items()
        },
        "unflagged": {name: pulls.numbers() for name, pulls in totals.unflagged.items()},
        "by_place": places,
    }


def expected_counts(totals: Totals) -> np.ndarray:
    """How many stamps would be in each bin of reduced chi2 if all there is was noise."""
    edges, counts = totals.freedom.edges, totals.freedom.counts[1:-1]
    some = np.flatnonzero(counts)
    freedom = np.sqrt(edges[some] * edges[some + 1])[:, None]
    below = gammainc(freedom / 2, totals.chi2.edges * freedom / 2)
    return counts[some] @ np.diff(below, axis=1)


def _median_of(edges: np.ndarray, counts: np.ndarray) -> float:
    """Of counts that need not be whole."""
    if not counts.sum():
        return float("nan")
    reached = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return float(np.interp(0.5, reached, edges))


def _run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("settings", "settings_sha256", "programs", "versions", "created")
    header = manifest["store"]["header"]
    return {name: manifest[name] for name in kept if name in manifest} | {
        "store_sha256": manifest["store"]["sha256"],
        "bands": header["bands"],
        "shape": header["shape"],
    }


def _name(flag: Flag) -> str:
    return str(flag.name).lower()


def _flat(table: "pyarrow.Table", column: str) -> np.ndarray:
    """Numbers of all sources of a column of lists."""
    return table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _n_known(table: "pyarrow.Table", column: str) -> np.ndarray:
    """How many errors each source has: of what was fitted they are finite and not 0."""
    values: Any = table.column(column).combine_chunks().flatten()
    size = 1
    if hasattr(values.type, "list_size"):
        # As the latents of a prior: several numbers a source.
        size, values = values.type.list_size, values.flatten()
    numbers = values.to_numpy(zero_copy_only=False).reshape(-1, size)
    return (np.isfinite(numbers) & (numbers > 0)).sum(axis=1)


def _strings(table: "pyarrow.Table", column: str) -> list[str]:
    return table.column(column).combine_chunks().flatten().to_pylist()
