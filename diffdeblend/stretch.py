"""From values to grey: what parts of large images look like, and marks on them."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import ArrayLike, Float

from diffdeblend.panels import show_image
from diffdeblend.segment.boxes import BoundingBox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Stretch = Literal["asinh", "linear", "log", "sqrt"]
Interval = Literal["zscale", "minmax", "percentile"]
Box = BoundingBox | tuple[int, int, int, int] | None

PEAK, CENTRE = "#ff3b30", "#ffd60a"
# Larger images are shown by every so many pixels: a page has no more.
_SHOWN = 1600


def normalisation(
    image: ArrayLike, stretch: Stretch = "asinh", interval: Interval = "zscale"
) -> Any:
    """matplotlib's way from values to grey, as of astropy.visualization.

    - `stretch`: asinh shows what is faint beside what is bright.
    - `interval`: from black to white: zscale, by the sky (IRAF's), the least to the largest value,
        or 0.5 to 99.5 % of the pixels. NaNs count nowhere.

    **Raises:** `ValueError` for another stretch or interval.
    """
    from astropy import visualization as shown

    stretches = {
        # Where white is the brightest pixel, most of the scale is for what is faint.
        "asinh": lambda: shown.AsinhStretch(0.1 if interval == "zscale" else 0.02),
        "linear": shown.LinearStretch,
        "log": shown.LogStretch,
        "sqrt": shown.SqrtStretch,
    }
    intervals = {
        "zscale": shown.ZScaleInterval,
        "minmax": shown.MinMaxInterval,
        "percentile": lambda: shown.PercentileInterval(99),
    }
    for name, value, known in (
        ("stretch", stretch, stretches),
        ("interval", interval, intervals),
    ):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {value!r}.")
    values = np.asarray(image, float)
    values = values[np.isfinite(values)]
    low, high = intervals[interval]().get_limits(values) if values.size else (0.0, 1.0)
    if not low < high:
        low, high = low - 0.5, low + 0.5
    return shown.ImageNormalize(vmin=low, vmax=high, stretch=stretches[stretch](), clip=False)


def show_box(
    axes: "Axes", image: np.ndarray, title: str, box: Box, stretch: Stretch, interval: Interval
) -> None:
    x0, x1, y0, y1 = corners_of(box, image.shape)
    step = step_of((y1 - y0, x1 - x0))
    shown = image[y0:y1:step, x0:x1:step]
    norm = normalisation(shown, stretch, interval)
    show_image(axes, shown, title, 9, norm=norm, cmap=grey(), extent=extent_of(x0, x1, y0, y1))


def corners_of(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box cut to the image; all of it for None."""
    if box is None:
        return 0, shape[1], 0, shape[0]
    x0, x1, y0, y1 = (int(end) for end in box)
    x0, x1, y0, y1 = max(x0, 0), min(x1, shape[1]), max(y0, 0), min(y1, shape[0])
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"`box` {tuple(box)} has no pixel of the image of shape {tuple(shape)}.")
    return x0, x1, y0, y1


def extent_of(x0: int, x1: int, y0: int, y1: int) -> tuple[float, float, float, float]:
    return x0 - 0.5, x1 - 0.5, y0 - 0.5, y1 - 0.5


def step_of(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape) // _SHOWN))


def positions_of(peaks: Any) -> Float[np.ndarray, "n 2"]:
    """x and y of peaks, of those of footprints, or of positions as they are."""
    if peaks is None:
        return np.zeros((0, 2))
    peaks = getattr(peaks, "peaks", peaks)
    if hasattr(peaks, "x") and hasattr(peaks, "y"):
        return np.stack([np.asarray(peaks.x, float), np.asarray(peaks.y, float)], axis=1)
    return np.asarray(peaks, float).reshape(-1, 2)


def mark(axes: "Axes", places: np.ndarray, marker: str, colour: str) -> None:
    if not len(places):
        return
    face: dict[str, Any] = {"c": colour}
    if marker == "o":
        face = {"facecolors": "none", "edgecolors": colour}
    axes.scatter(*places.T, s=40, marker=marker, linewidths=1.0, **face)


def grey() -> Any:
    import matplotlib

    return matplotlib.colormaps["gray"].with_extremes(bad="#4a5f7a")
