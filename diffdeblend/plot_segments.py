"""Labels of sources as pictures: where they are, how blends came apart, and what the sky was.

Each function draws in a figure, or on axes that are given. Needs matplotlib, of which no global
state is touched.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from diffdeblend.background.background_map import BackgroundMap
from diffdeblend.panels import COLOURS, INK, Canvas, label_axes, page_of, panels, show_image
from diffdeblend.segment.labels import LabelImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 3.2
# Neighbours in number are far apart in hue: the turn of the golden section.
_TURN = 0.6180339887498949
_NOISE = (0.55, 0.55, 0.55)


def label_colours(labels: Any) -> Float[np.ndarray, "*n 3"]:
    """Red, green and blue of labels; black for 0.

    The colour of a label depends on its number alone: it stays when others go.
    """
    from matplotlib.colors import hsv_to_rgb

    labels = np.asarray(labels)
    shade = np.stack(
        [
            labels * _TURN % 1,
            np.array([0.55, 0.8, 0.4])[labels % 3],
            np.where(labels > 0, np.array([0.95, 0.75])[labels % 2], 0.0),
        ],
        axis=-1,
    )
    return hsv_to_rgb(shade)


def make_cmap(labels: LabelImage) -> Any:
    """matplotlib's `ListedColormap` of the labels from 0 to the largest; see `label_colours`.

    Show an image of labels with `vmin=0, vmax=labels.max_label`, and without interpolation.
    """
    from matplotlib.colors import ListedColormap

    return ListedColormap(label_colours(np.arange(labels.max_label + 1)))


def paint_labels(labels: LabelImage) -> UInt8[np.ndarray, "y x 3"]:
    """The labels as an image of colours."""
    known = np.concatenate([[0], labels.labels])
    colours = (255 * label_colours(known)).round().astype(np.uint8)
    return colours[np.searchsorted(known, labels.data)]


def plot_labels(
    data: Float[np.ndarray, "y x"],
    labels: LabelImage,
    *,
    numbers: bool | None = None,
    on: Canvas = None,
) -> "Figure":
    """The image with the outlines of the labels, and beside it the labels.

    - `numbers`: write them on the labels; by default if there are at most 50.
    - `on`: a figure to draw in, two axes to draw on, or None for a new figure.

    **Raises:** `ValueError` if `data` is not of the shape of the labels.
    """
    data = _image("data", data, labels.shape)
    upper = panels(on, [2], _panel_size(labels.shape))
    _show_sky(upper[0], data, "image")
    draw_outlines(upper[0], labels)
    n = labels.n_labels
    show_image(upper[1], paint_labels(labels), f"{n} label{'' if n == 1 else 's'}", 9)
    if numbers or (numbers is None and n <= 50):
        _write_numbers(upper[1], labels)
    return page_of(upper)


def draw_outlines(axes: "Axes", labels: LabelImage, *, colour: Any = None) -> Any:
    """The edges of all labels on axes of an image of the same pixels.

    - `colour`: one for all; by default each label has its own, as in `label_colours`.
    """
    from matplotlib.collections import LineCollection

    rings, owner = [], []
    for label, own in zip(labels.labels, labels.polygons, strict=True):
        rings += own
        owner += [label] * len(own)
    colours = label_colours(np.array(owner, dtype=int)) if colour is None else colour
    return axes.add_collection(LineCollection(rings, colors=colours, linewidths=0.9), autolim=False)


def plot_children(
    data: Float[np.ndarray, "y x"],
    before: LabelImage,
    after: LabelImage,
    *,
    labels: Any = None,
    max_parents: int = 6,
    on: Canvas = None,
) -> "Figure":
    """Blends that came apart, one a row: the image, the label before, and its parts.

    - `before`, `after`: labels of the same image before and after deblending.
    - `labels`: of `before`; by default those that `after` says were split, or, if it says nothing,
        those that have several labels there.
    - `max_parents`: of the default, the first so many.
    - `on`: a figure to draw in, three axes a row to draw on, or None for a new figure.

    **Raises:** `ValueError` if shapes differ, a label is not there, or nothing was split.
    """
    data = _image("data", data, before.shape)
    parts = before.get_label_mapping(after)
    if labels is None:
        split = after.parent_to_deblended_labels or {k: v for k, v in parts.items() if len(v) > 1}
        labels = np.array([label for label in split if label in parts][:max_parents], dtype=int)
        if not labels.size:
            raise ValueError("`after` has no label of `before` in parts: there is nothing to show.")
    chosen = before.check_labels(labels)
    axes = panels(on, [3] * len(chosen), (2.4, 2.4))
    for label, row in zip(chosen, np.reshape(np.array(axes, dtype=object), (-1, 3)), strict=True):
        rows, columns = (
            slice(max(s.start - 3, 0), s.stop + 3) for s in before.get_segment(label).slices
        )
        parent = LabelImage(np.where(before.data[rows, columns] == label, label, 0))
        children = LabelImage(np.where(parent.data > 0, after.data[rows, columns], 0))
        _show_sky(row[0], data[rows, columns], "image")
        draw_outlines(row[0], children, colour="white")
        show_image(row[1], paint_labels(parent), f"label {label}", 9)
        names = ", ".join(str(child) for child in children.labels[:6])
        more = ", ..." if children.n_labels > 6 else ""
        show_image(row[2], paint_labels(children), f"{children.n_labels}: {names}{more}", 9)
    return page_of(axes)


def plot_background(
    data: Float[np.ndarray, "y x"], background: BackgroundMap, *, on: Canvas = None
) -> "Figure":
    """The image, the sky with the middles of its boxes, and the image without the sky.

    Crosses mark boxes that had too few pixels and take their values from others.

    - `on`: a figure to draw in, three axes to draw on, or None for a new figure.

    **Raises:** `ValueError` if `data` is not of the shape of the map.
    """
    data = _image("data", data, background.shape)
    sky = np.asarray(background.background)
    axes = panels(on, [3], _panel_size(data.shape))
    _show_sky(axes[0], data, "image")
    show_image(axes[1], sky, "sky", 9, cmap="viridis")
    used_x, used_y = background.box_centres
    axes[1].plot(used_x, used_y, ".", color="white", markersize=2.5, alpha=0.8)
    row, column = np.nonzero(background.excluded)
    ny, nx = background.box_size
    axes[1].plot(column * nx + (nx - 1) / 2, row * ny + (ny - 1) / 2, "x", color=COLOURS[1])
    # Middles of boxes that are cut short may lie outside.
    axes[1].set_xlim(-0.5, data.shape[1] - 0.5)
    axes[1].set_ylim(-0.5, data.shape[0] - 0.5)
    page = page_of(axes)
    bar = page.colorbar(axes[1].images[0], ax=axes[1], shrink=0.8)
    bar.ax.tick_params(labelsize=7, colors=INK)
    _show_sky(axes[2], data - sky, "image - sky")
    return page


def plot_background_histogram(
    values: Any,
    *,
    level: float,
    threshold: float | None = None,
    window: tuple[float, float] | None = None,
    bins: int = 80,
    on: Canvas = None,
) -> "Figure":
    """How the values of pixels are distributed, with what was taken for the sky.

    - `values`: of any shape; what is not finite is left out, what lies beyond the axis is counted
        in the bins at its ends.
    - `level`: of the sky; `threshold`: above it pixels belong to sources.
    - `window`: the lowest and highest value that clipping kept.
    - `on`: a figure to draw in, one axes to draw on, or None for a new figure.

    **Raises:** `ValueError` if no value is finite.
    """
    values = np.asarray(values, dtype=float).reshape(-1)
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("`values` has no finite number.")
    marks = [level, *([threshold] if threshold is not None else []), *(window or ())]
    low, high = np.percentile(values, [0.2, 99.0])
    low, high = min(low, *marks, level), max(high, *marks, level)
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    (axes,) = panels(on, [1], (5.0, 3.2))
    axes.hist(np.clip(values, low, high), np.linspace(low, high, bins + 1), color="#b8c4cc")
    if window is not None:
        axes.axvspan(*window, color=COLOURS[5], alpha=0.25, label="kept by clipping")
    axes.axvline(level, color=COLOURS[0], label=f"level {level:.4g}")
    if threshold is not None:
        axes.axvline(
            threshold, color=COLOURS[1], linestyle="--", label=f"threshold {threshold:.4g}"
        )
    axes.set_xlim(low, high)
    axes.set_yscale("log")
    label_axes(axes, "pixel value", "pixels")
    axes.legend(fontsize=8, frameon=False)
    return page_of([axes])


def plot_apertures(
    data: Float[np.ndarray, "y x"],
    x: Any,
    y: Any,
    semimajor_axis: Any,
    semiminor_axis: Any,
    orientation: Any,
    *,
    labels: Any = None,
    on: Canvas = None,
) -> "Figure":
    """Ellipses on an image, as Kron apertures; those with a number that is not finite are left out.

    - `x`, `y`: centres, in pixels. `semimajor_axis`, `semiminor_axis`: in pixels.
    - `orientation`: of the longer axis, in degrees from x to y. Each of these is one number a
        source or one for all.
    - `labels`: colours as of these labels; by default white.
    - `on`: a figure to draw in, one axes to draw on, or None for a new figure.

    **Raises:** `ValueError` for lengths that do not fit.
    """
    from matplotlib.collections import EllipseCollection

    data = _image("data", data, None)
    given = (x, y, semimajor_axis, semiminor_axis, orientation)
    try:
        columns = np.broadcast_arrays(*(np.ravel(np.asarray(c, dtype=float)) for c in given))
    except ValueError as error:
        sizes = [np.size(c) for c in given]
        raise ValueError(f"Centres, axes and `orientation` must fit; got {sizes}.") from error
    table = np.stack(columns)
    colours: Any = "white"
    if labels is not None and np.shape(labels) != table[0].shape:
        raise ValueError(f"`labels` must be {table[0].size}, as the sources; got {labels!r}.")
    usable = np.isfinite(table).all(axis=0)
    if labels is not None:
        colours = label_colours(np.asarray(labels)[usable])
    px, py, long, short, angle = table[:, usable]
    (axes,) = panels(on, [1], _panel_size(data.shape))
    _show_sky(axes, data, f"{len(px)} apertures")
    axes.add_collection(
        EllipseCollection(
            2 * long,
            2 * short,
            angle,
            units="xy",
            offsets=np.stack([px, py], axis=1),
            transOffset=axes.transData,
            facecolors="none",
            edgecolors=colours,
            linewidths=0.9,
        ),
        autolim=False,
    )
    return page_of([axes])


def plot_attractors(
    data: Float[np.ndarray, "y x"],
    x: Any,
    y: Any,
    *,
    labels: LabelImage | None = None,
    paths: Sequence[Any] = (),
    on: Canvas = None,
) -> "Figure":
    """Where pixels climb to: the attractors of a density, and some of the ways there.

    - `x`, `y`: of the attractors, in pixels, shape `(attractor,)`.
    - `labels`: what became of the pixels, drawn as outlines.
    - `paths`: x and y along each way, shape `(step, 2)`.
    - `on`: a figure to draw in, one axes to draw on, or None for a new figure.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    from matplotlib.collections import LineCollection

    data = _image("data", data, None if labels is None else labels.shape)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"`x` and `y` need one shape (attractor,); got {x.shape} and {y.shape}.")
    ways = [np.asarray(path, dtype=float) for path in paths]
    if any(way.ndim != 2 or way.shape[1] != 2 for way in ways):
        raise ValueError("`paths` must each be of shape (step, 2).")
    (axes,) = panels(on, [1], _panel_size(data.shape))
    _show_sky(axes, data, f"{len(x)} attractor{'' if len(x) == 1 else 's'}")
    if ways:
        axes.add_collection(
            LineCollection(ways, colors=COLOURS[5], linewidths=0.6, alpha=0.7), autolim=False
        )
    if labels is not None:
        draw_outlines(axes, labels)
    axes.plot(
        x,
        y,
        "o",
        color=COLOURS[1],
        markersize=4,
        markeredgecolor="white",
        scalex=False,
        scaley=False,
    )
    return page_of([axes])


def plot_clusters(
    data: Float[np.ndarray, "y x"],
    clusters: LabelImage,
    *,
    selected: Any = None,
    on: Canvas = None,
) -> "Figure":
    """Pixels that were selected and the clusters that they make; grey are those of no cluster.

    - `selected`: True on pixels that were looked at, shape `(y, x)`; by default those of clusters.
    - `on`: a figure to draw in, two axes to draw on, or None for a new figure.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    data = _image("data", data, clusters.shape)
    colours = label_colours(clusters.data)
    inside = clusters.data > 0
    if selected is not None:
        seen = np.asarray(selected, dtype=bool)
        if seen.shape != clusters.shape:
            raise ValueError(f"`selected` needs shape {clusters.shape}; got {seen.shape}.")
        colours[seen & ~inside] = _NOISE
    axes = panels(on, [2], _panel_size(clusters.shape))
    _show_sky(axes[0], data, "image")
    draw_outlines(axes[0], clusters)
    n = clusters.n_labels
    title = f"{n} cluster{'' if n == 1 else 's'}"
    if selected is not None:
        title += f", {np.count_nonzero(seen & ~inside)} pixels of none"
    show_image(axes[1], colours, title, 9)
    return page_of(axes)


def _show_sky(axes: "Axes", data: np.ndarray, title: str) -> None:
    """An image in grey, from the sky to the bright middles of sources."""
    finite = data[np.isfinite(data)]
    if not finite.size:
        show_image(axes, np.zeros(data.shape), title, 9, cmap="gray", vmin=0, vmax=1)
        return
    low, middle, high = np.percentile(finite, [1, 50, 99.8])
    # As the logarithm for what is bright, linear in the noise.
    knee = max(middle - low, 1e-6 * (high - low), np.finfo(np.float32).tiny)
    shown = np.arcsinh((data - middle) / knee)
    show_image(
        axes,
        shown,
        title,
        9,
        cmap="gray",
        vmin=np.arcsinh((low - middle) / knee),
        vmax=max(np.arcsinh((high - middle) / knee), 1.0),
    )


def _write_numbers(axes: "Axes", labels: LabelImage) -> None:
    for label, (y0, y1, x0, x1) in zip(labels.labels, labels.boxes, strict=True):
        axes.text(
            (x0 + x1 - 1) / 2,
            (y0 + y1 - 1) / 2,
            str(label),
            color="white",
            fontsize=6,
            ha="center",
            va="center",
        )


def _image(name: str, data: Any, shape: tuple[int, ...] | None) -> Float[np.ndarray, "y x"]:
    image = np.asarray(getattr(data, "value", data), dtype=float)
    if image.ndim != 2 or (shape is not None and image.shape != tuple(shape)):
        raise ValueError(f"`{name}` needs shape {shape or '(y, x)'}; got {image.shape}.")
    return image


def _panel_size(shape: tuple[int, ...]) -> tuple[float, float]:
    return _PANEL, _PANEL * float(np.clip(shape[0] / shape[1], 0.4, 2.0)) + 0.3
