"""Figures of many sources together, each with its interval and with what was lost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from jaxtyping import Int

from diffdeblend.score import fluxes
from diffdeblend.score.detection import Counts, average_precision, precision_recall
from diffdeblend.score.uncertainty import Bootstrap, Interval

if TYPE_CHECKING:  # it imports this file
    from diffdeblend.score.score import Scores

_NONE: Interval = (np.nan, np.nan)
_MEDIANS = (
    "distance_detection",
    "msr",
    "rmse",
    "relative_residual",
    "psnr",
    "ssim",
    "cosine",
    "psnr_btk",
    "ssim_btk",
    "iou",
)
# A flux that is wrong by more is as good as lost.
_GROSS = 0.9


class _Rows:
    """A summary that grows."""

    def __init__(self, bootstrap: Bootstrap, blend: np.ndarray):
        self.bootstrap = bootstrap
        self.blend = blend
        self.rows: list[tuple[str, float, float, float, int, int]] = []

    def add(self, metric: str, value: float, interval: Interval, n: int, lost: int) -> None:
        self.rows.append((metric, float(value), *interval, int(n), int(lost)))

    def middle(self, values: np.ndarray, median: str, spread: str | None = None) -> None:
        """The median, and the scatter if it has a name."""
        n = int(np.isfinite(values).sum())
        low, half, high = self.bootstrap.quantiles(values, self.blend, [0.16, 0.5, 0.84])
        interval = self.bootstrap.interval
        self.add(median, fluxes.bias(values), interval(half), n, len(values) - n)
        if spread is not None:
            self.add(spread, fluxes.scatter(values), interval((high - low) / 2), n, len(values) - n)

    def mean(self, metric: str, values: np.ndarray) -> None:
        """The mean of what is finite."""
        finite = np.isfinite(values)
        n = int(finite.sum())
        value = float(np.mean(values[finite])) if n else np.nan
        self.add(metric, value, self.bootstrap.mean(values, self.blend), n, len(values) - n)


def summarise(per_source: Table, detections: Table, settings: Mapping[str, Any]) -> Table:
    """Figures of merit of the sources that count, pooled over all blends.

    One row a figure: `metric`, `value`; `low` and `high`, its interval when blends are drawn again;
    `n`, the number of rows that it is made of; `lost`, the sources that count but do not enter,
    because they were not found or could not be measured.

    - `precision`, `recall`, `f1`, pooled, as in `Counts`; for precision `n` are detections.
    - medians of the columns that compare positions and images.
    - for each measured band: `flux_bias_r`, `flux_scatter_r` (median and half of 16 to 84 % of the
        relative error of what was found); `flux_abs_error_r`, median |error|, and `flux_gross_r`,
        share of errors above 0.9, both with what is lost counted as a flux of 0; `pull_median_r`,
        `pull_mean_r`, `pull_std_r`, `pull_scatter_r`, `coverage1_r`, `coverage2_r`.
    - `colour_bias_g_r`, `colour_scatter_g_r` in magnitudes.
    - of target measures `name_bias`, `name_scatter`: of found minus true.
    """
    boot = Bootstrap(
        settings["n_blends"], settings["draws"], settings["confidence"], settings["seed"]
    )
    judged = np.asarray(per_source["judged"])

    def column(name: str) -> np.ndarray:
        return np.asarray(per_source[name], float)[judged]

    rows = _Rows(boot, np.asarray(per_source["blend"])[judged])
    matched, found, truth = blend_counts(per_source, detections, settings["n_blends"])
    total = Counts(int(matched.sum()), int(found.sum()), int(truth.sum()))
    lost = total.truth - total.matched
    rows.add("precision", total.precision, boot.ratio(matched, found), total.found, lost)
    rows.add("recall", total.recall, boot.ratio(matched, truth), total.truth, lost)
    both = boot.ratio(2 * matched, found + truth)
    rows.add("f1", total.f1, both, total.found + total.truth, lost)
    for name in _MEDIANS:
        if name in per_source.colnames:
            rows.middle(column(name), name)
    for b in settings["bands"]:
        if f"flux_error_{b}" in per_source.colnames:
            error = column(f"flux_error_{b}")
            rows.middle(error, f"flux_bias_{b}", f"flux_scatter_{b}")
            every = np.abs(fluxes.with_lost(error))
            rows.middle(every, f"flux_abs_error_{b}")
            rows.mean(f"flux_gross_{b}", (every > _GROSS).astype(float))
        if f"pull_{b}" in per_source.colnames:
            _pulls(rows, column(f"pull_{b}"), b)
    for name in per_source.colnames:
        if name.startswith("colour_error_"):
            pair = name.removeprefix("colour_error_")
            rows.middle(column(name), f"colour_bias_{pair}", f"colour_scatter_{pair}")
    for name in settings["target_measures"]:
        difference = column(name) - column(f"{name}_true")
        rows.middle(difference, f"{name}_bias", f"{name}_scatter")
    return Table(rows=rows.rows, names=("metric", "value", "low", "high", "n", "lost"))


def blend_counts(
    per_source: Table, detections: Table, n_blends: int
) -> tuple[Int[np.ndarray, "blend"], Int[np.ndarray, "blend"], Int[np.ndarray, "blend"]]:
    """Pairs, detections and sources of each blend, of those that count."""
    judged, detected = np.asarray(per_source["judged"]), np.asarray(per_source["detected"])
    blend = np.asarray(per_source["blend"])
    counts = np.asarray(detections["judged"])
    return (
        np.bincount(blend[judged & detected], minlength=n_blends),
        np.bincount(np.asarray(detections["blend"])[counts], minlength=n_blends),
        np.bincount(blend[judged], minlength=n_blends),
    )


def rank_average_precision(scores: "Scores", rank: str | None = None) -> float:
    """Average precision of the detections in the order of a column of `detections`.

    - `rank`: the flux in the band of the scores if None; the largest values are the surest.

    A detection of a source that does not count is left out.

    **Raises:** `ValueError` for a column that the detections have not.
    """
    found = scores.detections
    rank = f"flux_{scores.settings['band']}" if rank is None else rank
    if rank not in found.colnames:
        raise ValueError(f"`rank` must be one of the columns {found.colnames}; got {rank!r}.")
    counts = np.asarray(found["judged"])
    values, matched = np.asarray(found[rank], float)[counts], np.asarray(found["matched"])[counts]
    return average_precision(*precision_recall(values, matched, scores.counts.truth))


def binned(
    scores: "Scores",
    by: str = "snr",
    bins: int | Sequence[float] = 5,
    columns: Sequence[str] | None = None,
) -> Table:
    """How scores go with what a source is.

    One row a bin: `low`, `high` (a value at `low` is in, one at `high` only in the last bin),
    `middle` (median), `n` (sources that count), `lost` (of them not detected), `recall` with
    `recall_low` and `recall_high`; and for each column its median under its own name, the interval
    `_low`, `_high` of that, `_scatter` (half of 16 to 84 %) and `_n`, the number of sources that it
    is made of. `meta["outside"]` is the number of sources that no bin takes.

    - `by`: column of `per_source`: `snr`, `magnitude`, `size`, `blendedness`, or another.
    - `bins`: edges, rising; or a number of bins that hold equally many sources.
    - `columns`: of `per_source`; those of images and fluxes if None.

    **Raises:** `ValueError` for an unknown column, or edges that do not rise.
    """
    table: Any = scores.per_source[np.asarray(scores.per_source["judged"])]
    if columns is None:
        starts = ("flux_error_", "pull_", "colour_error_")
        columns = [c for c in table.colnames if c in _MEDIANS[1:] or c.startswith(starts)]
    for name, column in (("by", by), *(("columns", column) for column in columns)):
        if column not in table.colnames or np.asarray(table[column]).dtype.kind not in "biuf":
            raise ValueError(
                f"`{name}` must be a column of numbers, of {table.colnames}; got {column!r}."
            )
    values = np.asarray(table[by], float)
    edges = _edges(values, bins)
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = len(edges) - 2
    inside = (place >= 0) & (place < len(edges) - 1) & ~np.isnan(values)
    settings = scores.settings
    boot = Bootstrap(
        settings["n_blends"], settings["draws"], settings["confidence"], settings["seed"]
    )
    rows = []
    for i in range(len(edges) - 1):
        chosen = inside & (place == i)
        blend, detected = np.asarray(table["blend"])[chosen], np.asarray(table["detected"])[chosen]
        low, high = boot.mean(detected.astype(float), blend)
        row: dict[str, float | int] = {
            "low": edges[i],
            "high": edges[i + 1],
            "middle": fluxes.bias(values[chosen]),
            "n": int(chosen.sum()),
            "lost": int(np.sum(~detected)),
            "recall": float(np.mean(detected)) if len(detected) else np.nan,
            "recall_low": low,
            "recall_high": high,
        }
        for column in columns:
            own = np.asarray(table[column], float)[chosen]
            low, high = boot.quantile(own, blend)
            row |= {
                column: fluxes.bias(own),
                f"{column}_low": low,
                f"{column}_high": high,
                f"{column}_scatter": fluxes.scatter(own),
                f"{column}_n": int(np.isfinite(own).sum()),
            }
        rows.append(row)
    return Table(rows=rows, meta={"by": by, "outside": int(np.sum(~inside))})


def scores_table(
    scores: "Mapping[str, Scores]", metrics: Sequence[str] | None = None, *, intervals: bool = True
) -> Table:
    """Several measure functions side by side: a row each, a column a figure.

    - `metrics`: of their summaries; the usual ones if None. One that a summary lacks is NaN there.
    - `intervals`: with `_low` and `_high` of each.

    **Raises:** `ValueError` for a figure that no summary has.
    """
    summaries = {
        name: {row[0]: tuple(row)[1:4] for row in one.summary.iterrows()}
        for name, one in scores.items()
    }
    known = list(dict.fromkeys(metric for one in summaries.values() for metric in one))
    if metrics is None:
        usual = ["precision", "recall", "f1", "rmse", "psnr", "ssim", "iou"]
        for band in dict.fromkeys(one.settings["band"] for one in scores.values()):
            usual += [f"flux_{kind}_{band}" for kind in ("bias", "scatter", "abs_error")]
        metrics = [metric for metric in usual if metric in known]
    missing = [metric for metric in metrics if metric not in known]
    if missing:
        raise ValueError(f"`metrics` must be of {known}; got {missing}.")
    table = Table({"measure": np.array(list(scores), dtype=str)})
    for metric in metrics:
        values = np.array([one.get(metric, (np.nan, *_NONE)) for one in summaries.values()], float)
        values = values.reshape(-1, 3)
        for i, suffix in enumerate(("", "_low", "_high") if intervals else ("",)):
            table[metric + suffix] = values[:, i]
    return table


def _pulls(rows: _Rows, pull: np.ndarray, band: str) -> None:
    """Whether errors say how wrong fluxes are."""
    rows.middle(pull, f"pull_median_{band}", f"pull_scatter_{band}")
    rows.mean(f"pull_mean_{band}", pull)
    finite = np.isfinite(pull)
    n = int(finite.sum())
    boot, blend = rows.bootstrap, rows.blend[finite]
    sums = (
        boot.times @ np.bincount(blend, weights=pull[finite] ** power, minlength=boot.n_blends)
        for power in (0, 1, 2)
    )
    number, first, second = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(second / number - (first / number) ** 2, 0))
    value = float(np.std(pull[finite])) if n else np.nan
    rows.add(f"pull_std_{band}", value, boot.interval(spread), n, len(pull) - n)
    for sigmas in (1, 2):
        within = np.where(finite, np.abs(pull) <= sigmas, np.nan)
        rows.mean(f"coverage{sigmas}_{band}", within)


def _edges(values: np.ndarray, bins: int | Sequence[float]) -> np.ndarray:
    """The edges of the bins."""
    if isinstance(bins, int | np.integer):
        finite = values[np.isfinite(values)]
        if bins < 1:
            raise ValueError(f"`bins` must be at least 1; got {bins}.")
        if not finite.size:
            return np.array([0.0, 1.0])
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, int(bins) + 1)))
        return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.inf)])
    edges = np.asarray(bins, float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"`bins` needs at least two rising edges; got {bins}.")
    return edges
