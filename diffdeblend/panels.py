"""What all figures share: where panels are, and how they look."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

# Where to draw: a figure or a part of one, in which panels are made; or panels that are there.
Canvas = Union["FigureBase", "Axes", "Sequence[Axes]", None]

INK = "#222222"
# Of Okabe & Ito (2008): told apart by the colour-blind, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")


def new_figure(width: float, height: float) -> "Figure":
    """A white page, in inches, that is no part of the state of matplotlib."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")


def panels(on: Canvas, rows: Sequence[int], size: tuple[float, float]) -> "list[Axes]":
    """Axes row by row, with so many in each row.

    - `on`: a figure in which they are made, axes to take instead, or None for a new figure.
    - `size`: inches of a panel along x and y, for a new figure.

    **Raises:** `ValueError` if axes are given and they are not as many.
    """
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    columns = max(rows, default=0)
    if on is None:
        on = new_figure(columns * size[0], len(rows) * size[1])
    if isinstance(on, FigureBase):
        grid = on.add_gridspec(len(rows), columns)
        return [on.add_subplot(grid[r, c]) for r, n in enumerate(rows) for c in range(n)]
    given = [on] if isinstance(on, Axes) else list(np.ravel(np.asarray(on, dtype=object)))
    if len(given) != sum(rows) or not all(isinstance(axes, Axes) for axes in given):
        raise ValueError(f"`on` needs a figure, or {sum(rows)} axes; got {on!r}.")
    return given


def in_rows(n: int, columns: int) -> list[int]:
    """Panels in each row, if n of them stand in so many columns."""
    return [min(columns, n - start) for start in range(0, n, columns)]


def page_of(parts: "Sequence[Axes | FigureBase]") -> "Figure":
    """The figure that panels or parts of it are in."""
    found: Any = parts[0].figure
    return found.figure


def show_image(axes: "Axes", image: np.ndarray, title: str, size: int, **settings: Any) -> None:
    """An upright image with a title and nothing else."""
    axes.imshow(image, origin="lower", interpolation="nearest", **settings)
    axes.set_title(title, fontsize=size, color=INK, pad=4)
    axes.set_axis_off()


def diverging() -> Any:
    """Blue to red through white; grey where there is nothing."""
    import matplotlib

    return matplotlib.colormaps["RdBu_r"].with_extremes(bad="#b0b0b0")


def few_ticks(axes: "Axes") -> None:
    """Along logarithmic axes, labels at powers of ten, and at 2 and 5 times these, alone."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(9, 9)))
            axis.set_minor_formatter(NullFormatter())


def label_axes(axes: "Axes", x: str, y: str, title: str = "") -> None:
    """Words of a diagram, and no frame where nothing is read off."""
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.set_title(title, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
