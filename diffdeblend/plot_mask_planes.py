"""Images, side by side or with their mask planes as overlays of colour.

Each function draws in a figure, or on axes that are given. Needs matplotlib, of which no global
state is touched.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike, Float

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.one_band import band_of
from diffdeblend.panels import Canvas, in_rows, page_of, panels
from diffdeblend.stretch import (
    CENTRE,
    PEAK,
    Box,
    Interval,
    Stretch,
    corners_of,
    extent_of,
    mark,
    positions_of,
    show_box,
    step_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As image displays of surveys have them; other planes take what is left, in turn.
PLANE_COLOURS = {
    "DETECTED": "#2c6fdb",
    "DETECTED_NEGATIVE": "#2bc4c4",
    "BAD": "#d62728",
    "CR": "#d62fd6",
    "EDGE": "#e6d51e",
    "INTRP": "#2ca02c",
    "SAT": "#7ee081",
    "SUSPECT": "#c8a415",
    "NO_DATA": "#f08a24",
    "THISDET": "#2c6fdb",
    "OTHERDET": "#8a8a8a",
}
_OTHER_COLOURS = ("#9467bd", "#8c564b", "#e377c2", "#17becf")


def plot_images(
    images: Mapping[str, Float[np.ndarray, "y x"]],
    *,
    box: Box = None,
    stretch: Stretch = "asinh",
    interval: Interval = "zscale",
    columns: int = 3,
    on: Canvas = None,
) -> "Figure":
    """Images side by side under their titles, each on a scale of its own.

    - `box`: `(ixmin, ixmax, iymin, iymax)` of the pixels that are shown, upper ends not in it;
        default: all.
    - `on`: a figure to draw in, an axes for each image, or None for a new figure.

    **Raises:** `ValueError` for a box without pixels, and as `normalisation`.
    """
    axes = panels(on, in_rows(len(images), columns), (3.2, 3.3))
    for one, (title, image) in zip(axes, images.items(), strict=True):
        show_box(one, np.asarray(image, float), title, box, stretch, interval)
    return page_of(axes)


def plot_mask_planes(
    exposure: Exposure,
    *,
    band: str | None = None,
    planes: Sequence[str] | Mapping[str, str] | None = None,
    peaks: Any = None,
    centres: ArrayLike | None = None,
    box: Box = None,
    stretch: Stretch = "asinh",
    interval: Interval = "zscale",
    opacity: float = 0.4,
    on: Canvas = None,
) -> "Figure":
    """An image with its mask planes as overlays of colour, with peaks and centres.

    - `band`: may be left out where there is but one.
    - `planes`: names, or names with their colours; default: all that have a pixel in the box.
        Those named later lie above.
    - `peaks`: red crosses: anything with pixels `x` and `y`, as `Peaks`, or with `peaks`, as a
        `FootprintSet`; or positions `(n, 2)`.
    - `centres`: yellow circles: positions `(n, 2)` as x, y, or `SourceRecords`: the peaks of those
        that were not taken apart further, children among them.
    - `box`, `stretch`, `interval`, `on`: as of `plot_images`. `opacity`: of the colours.

    **Raises:** `ValueError` for an unknown band or plane, or an opacity that is not in 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must be from 0 to 1; got {opacity}.")
    k = band_of(exposure, band)
    image, mask = np.asarray(exposure.image[k], float), np.asarray(exposure.mask[k])
    x0, x1, y0, y1 = corners_of(box, image.shape)
    colours = _plane_colours(exposure, mask[y0:y1, x0:x1], planes)
    (axes,) = panels(on, [1], (6.0, 6.0 * (y1 - y0) / (x1 - x0) + 0.6))
    title = exposure.bands[k] if exposure.n_bands > 1 else ""
    show_box(axes, image, title, box, stretch, interval)
    step = step_of((y1 - y0, x1 - x0))
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    for name, colour in colours.items():
        bit = exposure.header.mask_planes.index(name)
        flagged = (mask[y0:y1:step, x0:x1:step] >> bit) & 1
        layer = np.zeros((*flagged.shape, 4))
        layer[..., :3], layer[..., 3] = to_rgb(colour), opacity * flagged
        axes.imshow(
            layer,
            origin="lower",
            interpolation="nearest",
            extent=extent_of(x0, x1, y0, y1),
            label=name,
        )
    mark(axes, positions_of(peaks), "+", PEAK)
    mark(axes, _leaf_positions(centres), "o", CENTRE)
    axes.set_xlim(x0 - 0.5, x1 - 0.5)
    axes.set_ylim(y0 - 0.5, y1 - 0.5)
    if colours:
        legend = axes.legend(
            handles=[Patch(color=c, alpha=opacity, label=n) for n, c in colours.items()],
            loc="upper left",
            bbox_to_anchor=(0.0, -0.01),
            ncols=4,
            fontsize=8,
            frameon=False,
        )
        legend.set_in_layout(True)
    return page_of([axes])


def _plane_colours(
    exposure: Exposure, mask: np.ndarray, planes: Sequence[str] | Mapping[str, str] | None
) -> dict[str, str]:
    known = exposure.header.mask_planes
    if planes is None:
        used = int(np.bitwise_or.reduce(mask.astype(np.int64), axis=None, initial=0))
        planes = [name for bit, name in enumerate(known) if (used >> bit) & 1]
    names = [planes] if isinstance(planes, str) else list(planes)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"`planes` must be among the mask planes {known}; got {unknown}.")
    if isinstance(planes, Mapping):
        return dict(planes)
    others = [name for name in names if name not in PLANE_COLOURS]
    return {
        name: PLANE_COLOURS.get(name) or _OTHER_COLOURS[others.index(name) % len(_OTHER_COLOURS)]
        for name in names
    }


def _leaf_positions(centres: Any) -> Float[np.ndarray, "n 2"]:
    if not isinstance(centres, SourceRecords):
        return positions_of(centres)
    own = centres.is_leaf
    return np.stack([centres.peak_x[own], centres.peak_y[own]], axis=1).astype(float)
