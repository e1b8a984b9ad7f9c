"""Footprints, families of blends and noise in place of sources, as pictures.

Each function draws in a figure, or on axes that are given. Needs matplotlib, of which no global
state is touched.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.footprints.footprint import Footprint
from diffdeblend.footprints.heavy import HeavyFootprint
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.panels import INK, Canvas, in_rows, page_of, panels, show_image
from diffdeblend.replace_noise.replacer import NoiseReplacer
from diffdeblend.segment.boxes import BoundingBox
from diffdeblend.stretch import (
    PEAK,
    Box,
    Interval,
    Stretch,
    corners_of,
    extent_of,
    grey,
    mark,
    normalisation,
    positions_of,
)

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

_PANEL = 2.2


def plot_footprint(
    footprint: Footprint,
    image: Float[np.ndarray, "y x"] | None = None,
    *,
    title: str | None = None,
    stretch: Stretch = "asinh",
    interval: Interval = "minmax",
    box: Box = None,
    on: Canvas = None,
) -> "Figure":
    """The pixels of a footprint, with its peaks as red crosses; what is not of it is grey.

    - `image`: whose pixels are shown, `(y, x)` from (0, 0); default: those that a heavy footprint
        has, or else all alike.
    - `title`: default: how many pixels and peaks.
    - `box`: of what is shown; default: that of the footprint. `on`: as of `plot_images`.

    **Raises:** `ValueError` for a footprint without pixels and no box, and as `normalisation`.
    """
    x0, x1, y0, y1 = footprint.bbox if box is None else box
    if x1 <= x0 or y1 <= y0:
        raise ValueError("`footprint` has no pixels; give a `box` to show that.")
    inside = footprint.spans.to_mask((x0, x1, y0, y1))
    if image is not None:
        values = _cut(np.asarray(image, float), (x0, x1, y0, y1))
    elif isinstance(footprint, HeavyFootprint):
        values = np.asarray(footprint.to_image(0.0, (x0, x1, y0, y1)), float)
    else:
        values = np.ones(inside.shape)
    values = np.where(inside, values, np.nan)
    (axes,) = panels(on, [1], (3.4, 3.6))
    n = len(footprint.peaks)
    words = f"{footprint.area} pixels, {n} peak{'' if n == 1 else 's'}" if title is None else title
    norm = normalisation(values, stretch, interval)
    extent = extent_of(x0, x1, y0, y1)
    show_image(axes, values, words, 9, norm=norm, cmap=grey(), extent=extent)
    mark(axes, positions_of(footprint.peaks), "+", PEAK)
    axes.set_xlim(x0 - 0.5, x1 - 0.5)
    axes.set_ylim(y0 - 0.5, y1 - 0.5)
    return page_of([axes])


def plot_family(
    records: SourceRecords,
    id: int,
    image: Float[np.ndarray, "y x"],
    *,
    most: int = 15,
    columns: int = 4,
    stretch: Stretch = "asinh",
    on: Canvas = None,
) -> "Figure":
    """Mug shots: a parent with the peaks of its footprint, and each child alone, on one scale.

    - `records`: after deblending; `id`: of the parent. `image`: that it was found on, `(y, x)`.
    - `most`: children shown, the first so many. Pixels of which a child has less than half, and
        less than the noise of the image, are left empty: of such crumbs templates leave many.

    **Raises:** `ValueError` for an id that is not there, or has no children.
    """
    parent: Any = records.footprints[records.row(id)]
    children = records.children(id)
    if not len(children):
        raise ValueError(f"`id` must be of a source with children; {id} has none.")
    n = min(len(children), most)
    box = BoundingBox(*corners_of(parent.bbox, np.shape(image)))
    axes = panels(on, in_rows(n + 1, columns), _panel_size(box))
    whole = _cut(np.where(parent.spans.to_mask(image.shape), image, np.nan), box)
    norm = normalisation(whole, stretch, "minmax")
    shown = {"norm": norm, "cmap": grey(), "extent": extent_of(*box)}
    # A robust standard deviation: sources are the lesser part of most images.
    noise = MAD_TO_STD * np.nanmedian(np.abs(image - np.nanmedian(image)))
    show_image(axes[0], whole, f"{id}: {len(children)} children", 8, **shown)
    mark(axes[0], positions_of(parent.peaks), "+", PEAK)
    for k, one in enumerate(axes[1:]):
        own: Any = children.footprints[k]
        alone = np.asarray(own.unflatten(own.image, np.nan, box), float)
        crumbs = np.abs(alone) < np.minimum(noise, 0.5 * np.abs(whole))
        show_image(one, np.where(crumbs, np.nan, alone), str(children.id[k]), 8, **shown)
        mark(one, np.array([[children.peak_x[k], children.peak_y[k]]], float), "+", PEAK)
    for one in axes:
        one.set_xlim(box.ixmin - 0.5, box.ixmax - 0.5)
        one.set_ylim(box.iymin - 0.5, box.iymax - 0.5)
    return page_of(axes)


def plot_replacement(
    replacer: NoiseReplacer,
    ids: Sequence[int],
    *,
    box: Box = None,
    columns: int = 4,
    on: Canvas = None,
) -> "Figure":
    """Frames of a film: the image, noise in place of all sources, then one source after another.

    - `ids`: of the sources that are put in, in this order. `box`: as of `plot_images`; default: one
        that holds all of them.

    **Raises:** `ValueError` for an id that is not there.
    """
    frames = _frames(replacer, ids, box)
    axes = panels(on, in_rows(len(frames.images), columns), _panel_size(frames.box))
    for one, image, title in zip(axes, frames.images, frames.titles, strict=True):
        show_image(
            one, image, title, 8, norm=frames.norm, cmap=grey(), extent=extent_of(*frames.box)
        )
    return page_of(axes)


def replacement_film(
    replacer: NoiseReplacer, ids: Sequence[int], *, box: Box = None, milliseconds: float = 700
) -> "FuncAnimation":
    """The frames of `plot_replacement` one after another, as matplotlib's animation.

    `film.to_jshtml()` shows it in a notebook, `film.save("film.gif", writer="pillow")` keeps it.

    - `milliseconds`: between frames.

    **Raises:** `ValueError` as `plot_replacement`.
    """
    from matplotlib.animation import FuncAnimation
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    frames = _frames(replacer, ids, box)
    (axes,) = panels(None, [1], (3.6, 3.9))
    page = page_of([axes])
    # A film needs a canvas with a clock, which a figure alone has not.
    FigureCanvasAgg(page)
    shown = {"norm": frames.norm, "cmap": grey(), "extent": extent_of(*frames.box)}
    show_image(axes, frames.images[0], frames.titles[0], 9, **shown)

    def show(number: int) -> Any:
        axes.images[0].set_data(frames.images[number])
        axes.set_title(frames.titles[number], fontsize=9, color=INK, pad=4)
        return axes.images

    return FuncAnimation(page, show, frames=len(frames.images), interval=int(milliseconds))


class _Frames:
    """What a film shows: images of one box with their titles, on one scale."""

    def __init__(self, images: list[np.ndarray], titles: list[str], box: BoundingBox):
        self.images, self.titles, self.box = images, titles, box
        self.norm = normalisation(images[0], "asinh", "percentile")


def _frames(replacer: NoiseReplacer, ids: Sequence[int], box: Box) -> _Frames:
    k = replacer.band
    original = np.asarray(replacer.original.image[k], float)
    if box is None:
        boxes = [replacer.heavy(replacer.records.row(int(id))).bbox for id in ids]
        ends = np.array(boxes, int).reshape(-1, 4)
        if len(ends):
            low, high = ends.min(axis=0), ends.max(axis=0)
            box = BoundingBox(int(low[0]) - 5, int(high[1]) + 5, int(low[2]) - 5, int(high[3]) + 5)
    corners = BoundingBox(*corners_of(box, original.shape))
    images = [original, np.asarray(replacer.base, float)]
    titles = ["the image", "all replaced by noise"]
    for id in ids:
        own = replacer.heavy(replacer.records.row(int(id)))
        alone = np.array(replacer.base, float)
        alone[own.spans.indices(original.shape)] = own.image
        images.append(alone)
        titles.append(f"source {int(id)}")
    return _Frames([_cut(one, corners) for one in images], titles, corners)


def _cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    x0, x1, y0, y1 = box
    return image[y0:y1, x0:x1]


def _panel_size(box: BoundingBox) -> tuple[float, float]:
    """Inches of a panel, as tall as the box asks for; and a title."""
    height, width = box.shape
    return _PANEL, _PANEL * min(max(height / width, 0.4), 2.0) + 0.3
