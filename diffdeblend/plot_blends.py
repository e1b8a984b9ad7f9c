"""Simulated blends as pictures: what is in them, and what was found.

Drawn from pixels and tables; needs matplotlib, of which no global state is touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend.painter import Painter, residual_significance
from diffdeblend.panels import (
    COLOURS,
    INK,
    Canvas,
    diverging,
    in_rows,
    label_axes,
    page_of,
    panels,
    show_image,
)
from diffdeblend.score.matching import Matching, match
from diffdeblend.score.measured import Measured
from diffdeblend.simulate.blends import Blends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels, of both axes: (0, 40); or of x and y: ((0, 40), (10, 50)).
Limits = tuple[float, float] | tuple[tuple[float, float], tuple[float, float]] | None

# Of measures, one after the other.
_MARKERS = ("o", "s", "D", "^", "v", "h")
_FEW = 12


@dataclass(frozen=True)
class View:
    """How blends are shown.

    - `bands`: names of those that make the colours; all if None. Fewer than three are grey.
    - `limits`: zoom, in pixels: a pair for both axes, or one for x and one for y.
    - `stretch`, `q`: of the colour scale, see `Painter`; by default each blend's peak is white.

    Colours of several blends compare: the mean colour of all sources of the set is grey.

    **Raises:** `ValueError` for limits that are no rising pairs.
    """

    bands: Sequence[str] | None = None
    limits: Limits = None
    stretch: float | None = None
    q: float | None = None

    def __post_init__(self):
        if self.limits is not None:
            for low, high in self.window:
                if not low < high:
                    raise ValueError(f"`limits` need rising pairs of pixels; got {self.limits}.")

    @property
    def window(self) -> Float[np.ndarray, "2 2"]:
        """Limits of x and of y."""
        pairs = np.asarray(self.limits, float)
        if pairs.shape not in ((2,), (2, 2)):
            raise ValueError(f"`limits` needs one pair of pixels, or two; got {self.limits}.")
        return np.broadcast_to(pairs, (2, 2))

    def of(self, blends: Blends) -> list[int]:
        """Places of the bands.

        **Raises:** `ValueError` for none, or one that the blends have not.
        """
        names = blends.bands if self.bands is None else tuple(self.bands)
        if not names or set(names) - set(blends.bands):
            raise ValueError(f"`bands` must be some of {blends.bands}; got {self.bands}.")
        return [blends.bands.index(name) for name in names]


def plot_blends(
    blends: Blends,
    measured: Sequence[Measured] | Mapping[str, Sequence[Measured]] | None = None,
    *,
    numbers: Sequence[int] | None = None,
    columns: int = 4,
    on: Canvas = None,
    **view: Any,
) -> "Figure":
    """Blends in colour, a panel each, with crosses where sources are.

    - `measured`: what was found in each blend of the set, or that by name: drawn as hollow marks.
    - `numbers`: which blends; the first 12 if None.
    - `columns`: panels in a row.
    - `on`: a figure to draw in, axes to draw on, one a blend, or None for a new figure.
    - `view`: `bands`, `limits`, `stretch` and `q`, see `View`.

    **Raises:** `ValueError` for blends or bands that are not there, or results of another number.
    """
    chosen, look = _numbers(blends, numbers, _FEW), View(**view)
    found = _named(measured, blends)
    axes = panels(on, in_rows(len(chosen), columns), (2.6, 2.75))
    for place, (k, panel) in enumerate(zip(chosen, axes, strict=True)):
        paint, bands = _painter(blends, k, look)
        n = int(blends.n_sources[k])
        title = f"blend {k}: {n} source{'' if n == 1 else 's'}"
        show_image(panel, paint(blends.images[k, bands]), title, 9)
        _cross(panel, blends.positions(k))
        for i, (name, results) in enumerate(found.items()):
            _mark(panel, results[k].positions, i, name or "found")
        _zoom(panel, blends, look)
        if place == 0 and found:
            panel.legend(fontsize=7, loc="upper left", framealpha=0.7, borderpad=0.3)
    return page_of(axes)


def plot_isolated(
    blends: Blends,
    *,
    numbers: Sequence[int] | None = None,
    on: Canvas = None,
    **view: Any,
) -> "Figure":
    """A row a blend: what the camera saw, and each of its sources alone, without noise.

    All panels of a row have one colour scale. Labels are magnitudes. The rest as in `plot_blends`;
    `numbers` are the first 4 if None.

    **Raises:** as `plot_blends`, and `ValueError` for blends without isolated images.
    """
    chosen, look = _numbers(blends, numbers, 4), View(**view)
    if blends.isolated is None:
        raise ValueError("`blends` needs isolated images; simulate with isolated=True.")
    axes = panels(on, [1 + int(blends.n_sources[k]) for k in chosen], (2.2, 2.45))
    left = iter(axes)
    for k in chosen:
        paint, bands = _painter(blends, k, look)
        panel = next(left)
        show_image(panel, paint(blends.images[k, bands]), f"blend {k}", 9)
        _cross(panel, blends.positions(k))
        _zoom(panel, blends, look)
        labels = _magnitudes(blends, k, bands[paint.reference])
        for alone, label in zip(blends.isolated_of(k), labels, strict=True):
            panel = next(left)
            show_image(panel, paint(alone[bands]), label, 8)
            _zoom(panel, blends, look)
    return page_of(axes)


def plot_deblended(
    blends: Blends,
    measured: Sequence[Measured],
    matches: Sequence[Matching] | None = None,
    *,
    numbers: Sequence[int] | None = None,
    on: Canvas = None,
    **view: Any,
) -> "Figure":
    """Two rows a blend: its sources as they are, and below each what the deblender made of it.

    On the left the blend, with crosses at sources and circles at detections, and below it what the
    deblender left, in standard deviations of the noise summed over the bands, from -5 to 5. Below a
    source that was not found is a panel that says so; detections that are no source come last, with
    nothing above them. All colour panels of a blend have one scale.

    - `measured`: what one measure function found in each blend of the set, with images.
    - `matches`: which detection is which source, as `Scores.matches` has it; if None, by `match`
        within 5 pixels.
    The rest as in `plot_isolated`.

    **Raises:** as `plot_isolated`, and `ValueError` for results without images, or matches that do
    not belong to them.
    """
    chosen, look = _numbers(blends, numbers, 4), View(**view)
    if blends.isolated is None:
        raise ValueError("`blends` needs isolated images; simulate with isolated=True.")
    results = _named(measured, blends)[""]
    pairs = {k: _matching(blends, results, matches, k) for k in chosen}
    rows = []
    for k in chosen:
        rows += [1 + pairs[k].n_truth, 1 + pairs[k].n_truth + _n_false(pairs[k])]
    axes = panels(on, rows, (2.2, 2.45))
    left = iter(axes)
    for k in chosen:
        paint, bands = _painter(blends, k, look)
        images = _images(results[k], blends, k)[:, bands]
        labels = _magnitudes(blends, k, bands[paint.reference])
        row = [next(left) for _ in range(1 + pairs[k].n_truth)]
        show_image(row[0], paint(blends.images[k, bands]), f"blend {k}", 9)
        _cross(row[0], blends.positions(k))
        _mark(row[0], results[k].positions, 0, "found")
        for panel, alone, label in zip(row[1:], blends.isolated_of(k), labels, strict=True):
            show_image(panel, paint(alone[bands]), f"true, {label}", 8)
        below = [next(left) for _ in range(1 + pairs[k].n_truth + _n_false(pairs[k]))]
        variance = np.asarray(blends.variance_of(k))[bands]
        residual = blends.images[k, bands] - images.sum(axis=0)
        shown = residual_significance(residual, variance, np.isfinite(residual))
        show_image(below[0], shown, "residual", 8, cmap=diverging(), vmin=-5, vmax=5)
        found = pairs[k].found_of_truth
        false = np.setdiff1d(np.arange(pairs[k].n_found), found)
        for panel, at in zip(below[1:], [*found, *false], strict=True):
            if at < 0:
                show_image(panel, np.zeros((*blends.shape, 3), np.uint8), "not found", 8)
                continue
            kind = "found" if at in found else "no source"
            light = _light(results[k], int(at), blends, bands[paint.reference])
            show_image(panel, paint(images[at]), f"{kind}{light}", 8)
        for panel in (*row, *below):
            _zoom(panel, blends, look)
    return page_of(axes)


def plot_sample(
    blends: Blends | Mapping[str, Blends],
    *,
    band: str | None = None,
    bins: int = 20,
    on: Canvas = None,
) -> "Figure":
    """How bright and how large the sources of a set are, and how many a blend has.

    - `blends`: one set, or several by name, drawn over each other.
    - `band`: of the magnitudes; r if None, or the middle band of a set that has no r.
    - `bins`: of magnitude and size.
    - `on`: a figure to draw in, three axes to draw on, or None for a new figure.

    Sizes are half-light radii, without the stars. What is not finite is left out.

    **Raises:** `ValueError` for a band that a set has not.
    """
    sets = {"": blends} if isinstance(blends, Blends) else dict(blends)
    if not sets:
        raise ValueError("`blends` is empty; give at least one set.")
    axes = panels(on, [3], (3.2, 2.7))
    magnitudes, sizes, counts, names = {}, {}, {}, {}
    for name, one in sets.items():
        own = _band(one, band)
        names[own] = None
        table: Any = one.truth
        magnitudes[name] = _finite(table[f"magnitude_{own}"])
        sizes[name] = _finite(table["radius"][~np.asarray(table["is_star"], bool)])
        counts[name] = one.n_sources
    _histogram(axes[0], magnitudes, _edges(magnitudes, bins))
    label_axes(axes[0], f"magnitude in {' or '.join(names)} (AB)", "sources")
    _histogram(axes[1], sizes, _edges(sizes, bins))
    label_axes(axes[1], "half-light radius (arcsec)", "sources")
    most = max(int(values.max(initial=0)) for values in counts.values())
    _histogram(axes[2], counts, (np.arange(most + 2) - 0.5).tolist())
    label_axes(axes[2], "sources in a blend", "blends")
    axes[2].locator_params(axis="x", integer=True)
    if len(sets) > 1:
        axes[0].legend(fontsize=7)
    return page_of(axes)


def _numbers(blends: Blends, numbers: Sequence[int] | None, few: int) -> list[int]:
    """Which blends; never none."""
    n = blends.n_blends
    chosen = list(range(min(n, few))) if numbers is None else [int(k) for k in numbers]
    if not chosen or min(chosen) < 0 or max(chosen) >= n:
        raise ValueError(f"`numbers` must be at least one blend, of {n}; got {numbers}.")
    return chosen


def _named(measured: Any, blends: Blends) -> dict[str, Sequence[Measured]]:
    """Results by the name of their measure, each with one entry a blend."""
    if measured is None:
        return {}
    found = dict(measured) if isinstance(measured, Mapping) else {"": measured}
    for name, results in found.items():
        if len(results) != blends.n_blends:
            of = f" of {name!r}" if name else ""
            raise ValueError(
                f"`measured`{of} needs one entry for each of {blends.n_blends} blends; "
                f"got {len(results)}."
            )
    return found


def _painter(blends: Blends, k: int, view: View) -> tuple[Painter, list[int]]:
    """The colours of a blend, and which bands they are made of."""
    bands = view.of(blends)
    names = [blends.bands[b] for b in bands]
    variance = np.asarray(blends.variance_of(k))[bands]
    # Without its sources alone, the blend itself sets the scale.
    models = blends.images[k][None] if blends.isolated is None else blends.isolated_of(k)
    table: Any = blends.truth
    light = np.stack([np.asarray(table[f"flux_{name}"], float) for name in names], axis=1)
    paint = Painter(
        names,
        variance,
        np.ones(variance.shape, bool),
        models[:, bands],
        light=light,
        stretch=view.stretch,
        q=view.q,
    )
    return paint, bands


def _zoom(axes: "Axes", blends: Blends, view: View) -> None:
    """The window, also where marks lie beyond the stamp."""
    ny, nx = blends.shape
    x, y = ((-0.5, nx - 0.5), (-0.5, ny - 0.5)) if view.limits is None else view.window
    axes.set_xlim(*x)
    axes.set_ylim(*y)


def _cross(axes: "Axes", positions: Float[np.ndarray, "source 2"]) -> None:
    from matplotlib.patheffects import withStroke

    (line,) = axes.plot(*positions.T, "+", color="white", markersize=8, label="truth")
    line.set_path_effects([withStroke(linewidth=2.4, foreground="black")])


def _mark(axes: "Axes", positions: Float[np.ndarray, "found 2"], number: int, label: str) -> None:
    """Hollow, and of several measures each a little larger, so that all are seen."""
    axes.plot(
        *positions.T,
        _MARKERS[number % len(_MARKERS)],
        # The first blue is too dark on a dark sky.
        color=COLOURS[::-1][1:][number % (len(COLOURS) - 1)],
        markerfacecolor="none",
        markersize=11 + 3 * number,
        markeredgewidth=1.4,
        label=label,
    )


def _magnitudes(blends: Blends, k: int, band: int) -> list[str]:
    name = blends.bands[band]
    table: Any = blends.truth
    return [f"{name} = {value:.2f}" for value in table[f"magnitude_{name}"][blends.rows(k)]]


def _light(result: Measured, row: int, blends: Blends, band: int) -> str:
    """The magnitude that was found, in words; nothing if no flux is known."""
    name, table = blends.bands[band], result.catalog
    flux = float(np.asarray(table[f"flux_{name}"])[row]) if f"flux_{name}" in table.colnames else 0
    if not flux > 0:
        return ""
    return f", {name} = {blends.survey.zero_points[band] - 2.5 * np.log10(flux):.2f}"


def _images(result: Measured, blends: Blends, k: int) -> Float[np.ndarray, "found band y x"]:
    """The deblended images of a blend, dark where they are not finite."""
    shape = (result.n_sources, len(blends.bands), *blends.shape)
    if result.images is None and result.n_sources:
        raise ValueError(f"`measured` needs deblended images; blend {k} has none.")
    images = np.zeros(shape, np.float32) if result.images is None else np.asarray(result.images)
    if images.shape != shape:
        raise ValueError(f"`measured[{k}].images` needs shape {shape}; got {images.shape}.")
    return np.nan_to_num(images, posinf=0, neginf=0)


def _matching(
    blends: Blends, results: Sequence[Measured], matches: Sequence[Matching] | None, k: int
) -> Matching:
    if matches is None:
        return match(blends.positions(k), results[k].positions)
    if len(matches) != blends.n_blends:
        raise ValueError(
            f"`matches` needs one entry for each of {blends.n_blends} blends; got {len(matches)}."
        )
    sizes = int(blends.n_sources[k]), results[k].n_sources
    if (matches[k].n_truth, matches[k].n_found) != sizes:
        raise ValueError(
            f"`matches[{k}]` is of {matches[k].n_truth} sources and {matches[k].n_found} "
            f"detections; blend {k} has {sizes[0]} and {sizes[1]}."
        )
    return matches[k]


def _n_false(pairs: Matching) -> int:
    return pairs.n_found - len(pairs)


def _band(blends: Blends, band: str | None) -> str:
    if band is None:
        return "r" if "r" in blends.bands else blends.bands[len(blends.bands) // 2]
    if band not in blends.bands:
        raise ValueError(f"`band` must be one of {blends.bands}; got {band!r}.")
    return band


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def _edges(values: Mapping[str, np.ndarray], bins: int) -> Any:
    """The same for all sets."""
    return np.histogram_bin_edges(np.concatenate(list(values.values())), bins)


def _histogram(axes: "Axes", values: Mapping[str, np.ndarray], edges: Any) -> None:
    for i, (name, own) in enumerate(values.items()):
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "label": name}
        if len(values) == 1:
            axes.hist(own, edges, alpha=0.6, edgecolor=INK, linewidth=0.5, **look)
        else:
            axes.hist(own, edges, histtype="step", linewidth=1.5, **look)
