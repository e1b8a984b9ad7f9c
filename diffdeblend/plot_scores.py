"""Scores as pictures: how measure functions compare, and what their errors go with.

Each function takes the `Scores` of one measure function, or those of several by name, drawn side by
side or over each other. Only sources that count (`judged`) are shown. Needs matplotlib, of which no
global state is touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.panels import (
    COLOURS,
    INK,
    Canvas,
    diverging,
    in_rows,
    label_axes,
    new_figure,
    page_of,
    panels,
)
from diffdeblend.plot_columns import (
    SOURCE,
    Given,
    Limits,
    checked_columns,
    column_range,
    column_values,
    column_word,
    default_columns,
    is_number,
    judged,
    named_scores,
    set_scale,
    target_names,
)
from diffdeblend.score.score import Scores
from diffdeblend.score.summary import binned, scores_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

_COLUMNS = 4  # of panels
_PANEL = (3.1, 2.7)


def plot_efficiency(scores: Given, *, normalized: bool = True, on: Canvas = None) -> "Figure":
    """In how many blends so many sources were found of so many: a matrix for each measure.

    - `normalized`: in percent of the blends with that number of sources; a number of sources that
        no blend has stays empty. Otherwise numbers of blends.
    - `on`: a figure to draw in, axes to draw on, one a measure, or None for a new figure.
    """
    named = named_scores(scores)
    matrices = {name: one.efficiency() for name, one in named.items()}
    # Of one size, so that they compare; nobody finds more than there are.
    side = max(matrix.shape[1] for matrix in matrices.values())
    axes = panels(on, in_rows(len(named), _COLUMNS), (2.6, 2.7))
    for panel, (name, matrix) in zip(axes, matrices.items(), strict=True):
        counts = np.zeros((side, side))
        counts[: len(matrix), : matrix.shape[1]] = matrix
        blends = counts.sum(axis=0)
        share = counts / np.maximum(blends, 1)
        # White above the diagonal and where there are no blends: it cannot be, or is not known.
        empty = np.tri(side, k=-1, dtype=bool) | (blends == 0)
        panel.imshow(
            np.ma.masked_array(share, mask=empty), origin="lower", cmap="Blues", vmin=0, vmax=1
        )
        for found, truth in zip(*np.nonzero(~empty), strict=True):
            value = 100 * share[found, truth] if normalized else counts[found, truth]
            panel.text(
                truth,
                found,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[found, truth] > 0.6 else INK,
            )
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_ticks(range(side))
        unit = "% of blends" if normalized else "blends"
        label_axes(panel, "sources in a blend", "found", f"{name}, {unit}" if name else unit)
    return page_of(axes)


def plot_distributions(
    scores: Given,
    columns: Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
    bins: int = 20,
    on: Canvas = None,
) -> "Figure":
    """How the values of metrics are distributed over sources: a panel a metric.

    A dashed line is the median. The legend has the number of sources that have a value, and of how
    many; what lies beyond the limits is counted in the bins at the ends.

    - `columns`: of `per_source`; if None, those of images, segmentations and of the flux in the
        band of the scores. A measure that lacks one is left out of that panel.
    - `limits`: by column; see `column_range` if not given.
    - `bins`: number of them.
    - `on`: a figure to draw in, axes to draw on, one a column, or None for a new figure.

    **Raises:** `ValueError` for a column that no scores have, or that is not of numbers.
    """
    named = named_scores(scores)
    chosen = checked_columns(named, columns, default_columns(named))
    axes = panels(on, in_rows(len(chosen), _COLUMNS), _PANEL)
    for panel, column in zip(axes, chosen, strict=True):
        values = {name: v[np.isfinite(v)] for name, v in column_values(named, column)}
        set_scale(panel, column, values.values())
        logarithmic = panel.get_xscale() == "log"
        low, high = column_range(column, values.values(), limits)
        edges: Any = (np.geomspace if logarithmic else np.linspace)(low, high, bins + 1)
        for i, (name, own) in _coloured(named, values):
            of = int(np.asarray(named[name].per_source["judged"]).sum())
            label = f"{name} {len(own)} of {of}".strip()
            panel.hist(
                np.clip(own, low, high),
                edges,
                histtype="step",
                linewidth=1.5,
                color=COLOURS[i],
                label=label,
            )
            if len(own):
                panel.axvline(float(np.median(own)), color=COLOURS[i], linestyle="--", linewidth=1)
        panel.set_xlim(low, high)
        label_axes(panel, column_word(column), "sources")
        panel.legend(fontsize=7, frameon=False)
    return page_of(axes)


def plot_trends(
    scores: Given,
    columns: Sequence[str] | None = None,
    *,
    by: str = "snr",
    bins: int | Sequence[float] = 5,
    limits: Limits | None = None,
    points: bool = True,
    on: Canvas = None,
) -> "Figure":
    """How metrics go with what a source is: medians in bins, and how sure they are.

    Lines are medians, at the median of `by` in each bin; bands are the intervals when blends are
    drawn again, see `binned`. `recall` is the share of sources that were found.

    - `columns`: `recall` or columns of `per_source`; if None, `recall`, those of images and the
        flux error in the band of the scores.
    - `by`: `snr`, `magnitude`, `size`, `blendedness`, or another column.
    - `bins`: as in `binned`. `points`: whether to show each source, too.
    - `limits`: by column, `by` included; see `column_range` if not given.
    - `on`: a figure to draw in, axes to draw on, one a column, or None for a new figure.

    **Raises:** `ValueError` for a column that no scores have, or that is not of numbers; and as
    `binned`.
    """
    named = named_scores(scores)
    chosen = checked_columns(named, columns, ["recall", *default_columns(named)], more=("recall",))
    checked_columns(named, [by], [], name="by")
    tables = {
        name: binned(one, by, bins, [c for c in chosen if c in one.per_source.colnames])
        for name, one in named.items()
    }
    axes = panels(on, in_rows(len(chosen), _COLUMNS), _PANEL)
    place = dict(column_values(named, by))
    for panel, column in zip(axes, chosen, strict=True):
        values = {} if column == "recall" else dict(column_values(named, column))
        set_scale(panel, by, place.values())
        if values:
            set_scale(panel, column, values.values(), "y")
        for i, (name, table) in _coloured(named, tables):
            if column not in table.colnames:
                continue
            x, y, low, high = (
                np.asarray(table[c], float)
                for c in ("middle", column, f"{column}_low", f"{column}_high")
            )
            if points and name in values:
                panel.plot(place[name], values[name], ".", color=COLOURS[i], alpha=0.25, ms=3)
            panel.fill_between(x, low, high, color=COLOURS[i], alpha=0.25, linewidth=0)
            panel.plot(x, y, "o-", color=COLOURS[i], markersize=4, linewidth=1.5, label=name)
        panel.set_xlim(*column_range(by, place.values(), limits, 0.03))
        if column == "recall":
            panel.set_ylim(*dict(limits or {}).get("recall", (-0.03, 1.03)))
        else:
            panel.set_ylim(*column_range(column, values.values(), limits, 0.03))
        if column.startswith(("flux_error", "pull", "colour_error")):
            panel.axhline(0, color=INK, linewidth=0.6, zorder=0)
        label_axes(panel, column_word(by), column_word(column))
    if len(named) > 1:
        axes[0].legend(fontsize=7, frameon=False)
    return page_of(axes)


def plot_correlation(
    scores: Given, columns: Sequence[str] | None = None, *, on: Canvas = None
) -> "Figure":
    """Which metrics rise and fall together: Spearman's rank correlation, a matrix a measure.

    - `columns`: of `per_source`; if None, what sources are, those of images and of the flux. Of a
        pair, sources enter for which both are finite; it stays grey with fewer than three, or with
        a column that is constant.
    - `on`: a figure to draw in, axes to draw on, one a measure, or None for a new figure.

    **Raises:** `ValueError` for a column that no scores have, or that is not of numbers.
    """
    named = named_scores(scores)
    chosen = checked_columns(named, columns, [*SOURCE, *default_columns(named)])
    side = 1.6 + 0.42 * len(chosen)
    axes = panels(on, in_rows(len(named), 2), (side, side))
    for panel, (name, one) in zip(axes, named.items(), strict=True):
        found = _rank_correlation([judged(one, column) for column in chosen])
        panel.imshow(np.ma.masked_invalid(found), cmap=diverging(), vmin=-1, vmax=1, aspect="auto")
        for i, j in zip(*np.nonzero(np.isfinite(found)), strict=True):
            panel.text(
                j,
                i,
                f"{found[i, j]:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if abs(found[i, j]) > 0.7 else INK,
            )
        panel.set_xticks(range(len(chosen)), chosen, rotation=90)
        panel.set_yticks(range(len(chosen)), chosen)
        label_axes(panel, "", "", name)
    return page_of(axes)


def plot_targets(
    scores: Given,
    targets: Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
    on: Canvas = None,
) -> "Figure":
    """Target measures on deblended images against those on the true ones: a panel a target.

    - `targets`: their names; all if None.
    - `limits`: by name, of both axes; those of the true values if not given.
    - `on`: a figure to draw in, axes to draw on, one a target, or None for a new figure.

    **Raises:** `ValueError` for a target that the scores have not, or if there is none.
    """
    named = named_scores(scores)
    known = target_names(named)
    chosen = known if targets is None else list(targets)
    if not chosen or set(chosen) - set(known):
        raise ValueError(f"`targets` must be at least one of {known}; got {targets}.")
    axes = panels(on, in_rows(len(chosen), _COLUMNS), _PANEL)
    for panel, target in zip(axes, chosen, strict=True):
        found, true = (
            dict(column_values(named, target)),
            dict(column_values(named, f"{target}_true")),
        )
        ends = np.concatenate(list(true.values()))
        ends = ends[np.isfinite(ends)]
        if limits is None or target not in limits:
            low, high = (ends.min(), ends.max()) if ends.size else (0.0, 0.0)
            # Beyond lies what is far off, and a constant needs some width.
            step = 0.1 * (high - low) or 0.5
            low, high = float(low - step), float(high + step)
        else:
            low, high = column_range(target, [], limits)
        panel.plot([low, high], [low, high], color=INK, linewidth=0.6)
        for i, (name, own) in _coloured(named, found):
            panel.plot(true[name], own, ".", color=COLOURS[i], alpha=0.6, label=name)
        panel.set_xlim(low, high)
        panel.set_ylim(low, high)
        label_axes(panel, f"{target}, true", f"{target}, deblended")
    if len(named) > 1:
        axes[0].legend(fontsize=7, frameon=False)
    return page_of(axes)


def plot_totals(
    scores: Given, metrics: Sequence[str] | None = None, *, on: Canvas = None
) -> "Figure":
    """Figures of the summaries with their intervals, measures below each other: a panel a figure.

    - `metrics`: of the summaries, the usual ones if None; see `scores_table`.
    - `on`: a figure to draw in, axes to draw on, one a figure, or None for a new figure.

    **Raises:** `ValueError` for a figure that no summary has.
    """
    named = named_scores(scores)
    table = scores_table(named, metrics)
    names = [c for c in table.colnames[1:] if f"{c}_low" in table.colnames]
    axes = panels(on, in_rows(len(names), _COLUMNS), (_PANEL[0], 0.9 + 0.3 * len(named)))
    rows = np.arange(len(named))
    for panel, metric in zip(axes, names, strict=True):
        value, low, high = (
            np.asarray(table[f"{metric}{end}"], float) for end in ("", "_low", "_high")
        )
        for k in rows:
            panel.plot([low[k], high[k]], [k, k], color=COLOURS[k % len(COLOURS)], linewidth=1.5)
            panel.plot(value[k], k, "o", color=COLOURS[k % len(COLOURS)], markersize=5)
        panel.set_yticks(rows, list(named))
        panel.set_ylim(len(named) - 0.5, -0.5)
        panel.margins(x=0.08)
        label_axes(panel, column_word(metric), "")
    return page_of(axes)


def plot_summary(
    scores: Given,
    *,
    columns: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    by: str = "snr",
    limits: Limits | None = None,
    on: "FigureBase | None" = None,
) -> "Figure":
    """Several measures side by side on one page.

    From above: `plot_totals`, `plot_efficiency`, `plot_distributions`, `plot_trends` and, with
    target measures, `plot_targets`; arguments are those of these. `on` must be a figure.

    **Raises:** as these.
    """
    named = named_scores(scores)
    chosen = checked_columns(named, columns, default_columns(named))
    aims = target_names(named) if targets is None else list(targets)
    totals = [
        c for c in scores_table(named, metrics).colnames[1:] if not c.endswith(("_low", "_high"))
    ]
    parts: list[tuple[float, Any, dict[str, Any]]] = [
        (
            (0.9 + 0.3 * len(named)) * -(-len(totals) // _COLUMNS),
            plot_totals,
            {"metrics": totals},
        ),
        (2.7 * -(-len(named) // _COLUMNS), plot_efficiency, {}),
        (
            _PANEL[1] * -(-len(chosen) // _COLUMNS),
            plot_distributions,
            {"columns": chosen, "limits": limits},
        ),
        (
            _PANEL[1] * -(-(1 + len(chosen)) // _COLUMNS),
            plot_trends,
            {"columns": ["recall", *chosen], "by": by, "limits": limits},
        ),
    ]
    if aims:
        height = _PANEL[1] * -(-len(aims) // _COLUMNS)
        parts.append((height, plot_targets, {"targets": aims, "limits": limits}))
    heights = [height for height, _, _ in parts]
    page = new_figure(_COLUMNS * _PANEL[0], sum(heights)) if on is None else on
    rows: Any = page.subfigures(len(parts), 1, height_ratios=heights)
    for row, (_, plot, settings) in zip(rows, parts, strict=True):
        plot(named, on=row, **settings)
    return page_of([page])


def browse_scores(scores: Given) -> Any:
    """`plot_trends` with a choice of what is shown, and against what, for a notebook.

    Gives a widget of ipywidgets.

    **Raises:** `ImportError` without ipywidgets, which is not installed with the package.
    """
    try:
        import ipywidgets  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(
            "`browse_scores` needs ipywidgets: pip install ipywidgets; "
            "`plot_trends` shows the same without it"
        ) from error
    named = named_scores(scores)
    numbers = [
        c
        for c in dict.fromkeys(c for one in named.values() for c in one.per_source.colnames)
        if any(is_number(one, c) for one in named.values())
    ]

    def show(column: str, by: str, bins: int) -> "Figure":
        return plot_trends(named, [column], by=by, bins=bins)

    return ipywidgets.interactive(
        show,
        column=["recall", *default_columns(named), *numbers],
        by=[*(c for c in SOURCE if c in numbers), *numbers],
        bins=(1, 20),
    )


def _rank_correlation(values: Sequence[np.ndarray]) -> np.ndarray:
    """Spearman's, of pairs of finite values; NaN where it is not defined."""
    from scipy.stats import rankdata

    n = len(values)
    found = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(n):
            both = np.isfinite(values[i]) & np.isfinite(values[j])
            if both.sum() < 3:
                continue
            a, b = (rankdata(v[both]) for v in (values[i], values[j]))
            if np.ptp(a) and np.ptp(b):
                found[i, j] = np.corrcoef(a, b)[0, 1]
    return found


def _coloured(named: Mapping[str, Scores], values: Mapping[str, Any]) -> Iterable[Any]:
    """Colour and value of each measure, the same colour in all panels."""
    places = list(named)
    return [(places.index(name) % len(COLOURS), (name, v)) for name, v in values.items()]
