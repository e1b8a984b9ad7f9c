"""What became of a survey run, as pictures: from its summary alone.

Each function takes what `summarise` of `diffdeblend.survey` returns, or `summary.json` as read, and
draws on an axes, or in a figure, that is given. Needs matplotlib, of which no global state is
touched.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.panels import (
    COLOURS,
    INK,
    Canvas,
    in_rows,
    label_axes,
    new_figure,
    page_of,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3  # of panels, at most
_PANEL = (4.0, 3.2)
_GREY, _EMPTY = "#c8c8c8", "#eeeeee"
# What all went well with, and the rest.
_GOOD = "ok"
# Of stamps, that must lie between the ends of an axis of chi2.
_SHOWN = 0.995

Summary = Mapping[str, Any]


def plot_statuses(summary: Summary, *, on: Canvas = None) -> "Figure":
    """How many stamps became what, and how many are still to be done: bars, logarithmic.

    - `summary`: of a run. `on`: an axes or a figure to draw in, or None for a new figure.
    """
    (axes,) = panels(on, [1], _PANEL)
    stamps = summary["stamps"]
    counts = {name: entry["stamps"] for name, entry in stamps["status"].items()}
    counts["not yet done"] = max(0, stamps["planned"] - stamps["finished"])
    colours = [COLOURS[2] if name == _GOOD else COLOURS[1] for name in counts]
    colours[-1] = _GREY
    _bars(axes, counts, colours, stamps["planned"])
    label_axes(axes, "stamps", "", f"{stamps['finished']:,} of {stamps['planned']:,} stamps")
    return page_of([axes])


def plot_flags(summary: Summary, *, on: Canvas = None) -> "Figure":
    """How many sources have each flag: bars, logarithmic. Arguments as of `plot_statuses`."""
    (axes,) = panels(on, [1], _PANEL)
    n = summary["sources"]["fitted"]
    counts = {name: entry["sources"] for name, entry in summary["flags"].items()}
    kept = {name: count for name, count in counts.items() if count or name == "any"}
    _bars(axes, kept, [COLOURS[0] if name == "any" else COLOURS[5] for name in kept], n)
    label_axes(axes, "sources", "", f"flags of {n:,} fitted sources")
    return page_of([axes])


def plot_chi2(summary: Summary, *, on: Canvas = None) -> "Figure":
    """Reduced chi2 of the stamps against what noise alone would give.

    What lies beyond the axis is counted in its last bin. Arguments as of `plot_statuses`.
    """
    (axes,) = panels(on, [1], _PANEL)
    chi2 = summary["reduced_chi2"]
    counts, expected = (np.asarray(chi2[name], float) for name in ("counts", "expected"))
    edges = np.linspace(chi2["from"], chi2["to"], len(counts) + 1)
    beyond = chi2["above"]
    n = counts.sum() + beyond
    if n:
        low, high = _window(counts, expected)
        inside = counts[low:high].copy()
        inside[0] += counts[:low].sum()
        inside[-1] += counts[high:].sum() + beyond
        own = edges[low : high + 1]
        axes.stairs(inside, own, color=COLOURS[0], fill=True, alpha=0.35)
        axes.stairs(inside, own, color=COLOURS[0], label=f"found: median {chi2['median']:.3f}")
        middle = (own[1:] + own[:-1]) / 2
        axes.plot(
            middle,
            expected[low:high],
            color=INK,
            lw=1.2,
            label=f"noise alone: median {chi2['expected_median']:.3f}",
        )
        axes.set_xlim(own[0], own[-1])
        axes.set_ylim(0, 1.3 * max(inside.max(), expected.max()))
        axes.locator_params(axis="x", nbins=6)
        axes.legend(fontsize=7, frameon=False, loc="upper right")
    else:
        _nothing(axes)
    label_axes(axes, "reduced chi2", "stamps", "residuals of the fits")
    return page_of([axes])


def plot_pulls(summary: Summary, *, on: Canvas = None) -> "Figure":
    """Errors of fluxes over those reported, against a Gaussian of width 1; a line a band.

    Arguments as of `plot_statuses`.
    """
    (axes,) = panels(on, [1], _PANEL)
    fluxes = {name: p for name, p in summary["pulls"].items() if name.startswith("flux_")}
    for number, (name, pulls) in enumerate(fluxes.items()):
        histogram = pulls["histogram"]
        counts = np.asarray(histogram["counts"], float)
        edges = np.linspace(histogram["from"], histogram["to"], len(counts) + 1)
        # In twice as wide bins there is less to see of chance.
        counts, edges = counts.reshape(-1, 2).sum(axis=1), edges[::2]
        # Without one that is finite there is nothing to draw.
        if pulls["mean"] is None:
            continue
        density = counts / pulls["sources"] / np.diff(edges)
        band = name.removeprefix("flux_")
        label = (
            f"{band}: {pulls['mean']:+.2f}, {pulls['robust_std']:.2f}, "
            f"{pulls['within_68']:.0f} %, {pulls['within_95']:.0f} %"
        )
        axes.stairs(density, edges, color=COLOURS[number % len(COLOURS)], lw=1.2, label=label)
    x = np.linspace(-6, 6, 241)
    gauss = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    axes.plot(x, gauss, color=INK, lw=1.2, label="Gaussian: 0, 1, 68 %, 95 %")
    axes.set_yscale("log")
    axes.set_xlim(-6, 6)
    # Room for the lines of the legend.
    axes.set_ylim(3e-5, 10 ** (0.5 + 0.42 * (len(fluxes) + 1)))
    title = "mean, robust std, within 1 and 1.96 errors"
    axes.legend(fontsize=7, frameon=False, loc="upper left", title=title, title_fontsize=7)
    label_axes(axes, "(flux - truth) / error", "density", "pulls of fluxes")
    return page_of([axes])


def plot_flagged_on_stamp(summary: Summary, *, on: Canvas = None) -> "Figure":
    """Share of the sources that are flagged, by their place in the stamp.

    Arguments as of `plot_statuses`.
    """
    (axes,) = panels(on, [1], _PANEL)
    _shares(axes, summary["by_place"]["stamp"], 1.0)
    label_axes(axes, "x, pixels", "y, pixels", "flagged sources on the stamps")
    return page_of([axes])


def plot_flagged_on_sky(summary: Summary, *, on: Canvas = None) -> "Figure":
    """Share of the sources that are flagged, on the sky, east to the left.

    Arguments as of `plot_statuses`.

    **Raises:** `ValueError` for a run whose stamps have no places on the sky.
    """
    if "sky" not in summary["by_place"]:
        raise ValueError("`summary` has no `sky`: the stamps have no `ra` and `dec`.")
    (axes,) = panels(on, [1], _PANEL)
    sky = summary["by_place"]["sky"]
    middle = np.deg2rad((sky["y"][0] + sky["y"][-1]) / 2)
    _shares(axes, sky, 1 / max(np.cos(middle), 0.05))
    axes.invert_xaxis()
    # A circle has 360 degrees, also where the piece lies across 0.
    axes.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
    label_axes(axes, "right ascension, degrees", "declination, degrees", "flagged on the sky")
    return page_of([axes])


def survey_figure(summary: Summary) -> "Figure":
    """All that there is of a run: statuses, flags, chi2, pulls where truth is known, places.

    - `summary`: of a run, of which nothing may have been finished, or all have failed.
    """
    drawn: list[Callable[..., Any]] = [plot_statuses, plot_chi2]
    if any(
        p["mean"] is not None for name, p in summary["pulls"].items() if name.startswith("flux_")
    ):
        drawn.append(plot_pulls)
    drawn += [plot_flags, plot_flagged_on_stamp]
    if "sky" in summary["by_place"]:
        drawn.append(plot_flagged_on_sky)
    columns = 2 if len(drawn) == 4 else _COLUMNS
    rows = in_rows(len(drawn), columns)
    page = new_figure(columns * _PANEL[0], len(rows) * _PANEL[1])
    for draw, axes in zip(drawn, panels(page, rows, _PANEL), strict=True):
        draw(summary, on=axes)
    return page


def _bars(axes: "Axes", counts: Mapping[str, int], colours: list[str], of: int) -> None:
    """Horizontal bars with their numbers, the first on top; from 1 to what they are parts of."""
    names = list(counts)
    top = max(of, *counts.values(), 10)
    place = np.arange(len(names))
    axes.barh(place, [max(counts[name] - 0.5, 0) for name in names], color=colours, left=0.5)
    for y, name in enumerate(names):
        share = f" ({_percent(counts[name] / of)})" if of and counts[name] else ""
        axes.text(
            1.2 * max(counts[name], 0.5),
            y,
            f"{counts[name]:,}{share}",
            va="center",
            fontsize=7,
            color=INK if counts[name] else "#888888",
        )
    axes.set_xscale("log")
    # Room for the numbers behind the longest bar.
    axes.set_xlim(0.5, 30 * top**1.15)
    axes.set_yticks(place, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()


def _percent(share: float) -> str:
    return f"{100 * share:.{3 if share > 0.999 else 2}g} %" if share < 1 else "100 %"


def _window(counts: np.ndarray, expected: np.ndarray) -> tuple[int, int]:
    """Bins that nearly all stamps lie in, found or expected, with some room."""
    ends = []
    for each in (counts, expected):
        if each.sum():
            reached = np.cumsum(each) / each.sum()
            ends.append(np.searchsorted(reached, [1 - _SHOWN, _SHOWN]))
    if not ends:
        return 0, len(counts)
    low, high = min(e[0] for e in ends), max(e[1] for e in ends) + 1
    room = max(3, (high - low) // 6)
    return max(0, int(low) - room), min(len(counts), int(high) + room)


def _shares(axes: "Axes", grid: Mapping[str, Any], aspect: float) -> None:
    """A map of shares in percent, grey where there are no sources."""
    import matplotlib

    sources, flagged = (np.asarray(grid[name], float) for name in ("sources", "flagged"))
    axes.set_facecolor(_EMPTY)
    share = np.ma.masked_array(100 * flagged / np.maximum(sources, 1), mask=sources == 0)
    most = float(share.max()) if share.count() else 0.0
    shown = axes.pcolormesh(
        grid["x"],
        grid["y"],
        share,
        cmap=matplotlib.colormaps["viridis"],
        vmin=0,
        vmax=max(most, 1.0),
    )
    axes.set_aspect(aspect, adjustable="box")
    bar = page_of([axes]).colorbar(shown, ax=axes, shrink=0.9)
    bar.set_label("flagged, % of sources", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    if not sources.any():
        _nothing(axes)


def _nothing(axes: "Axes") -> None:
    axes.text(
        0.5, 0.5, "nothing was fitted", transform=axes.transAxes, ha="center", color="#888888"
    )
