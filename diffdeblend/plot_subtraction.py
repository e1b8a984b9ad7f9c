"""What changed between two images, as pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background.statistics import MAD_TO_STD
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
    show_image,
)

if TYPE_CHECKING:
    from astropy.table import QTable
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffdeblend.coadd.coadd import Coadd
    from diffdeblend.exposure import Exposure
    from diffdeblend.subtract.difference import Difference

# Larger images are shown by every so many pixels: a page has no more.
_SHOWN = 1024
# With more candidates nothing else would be seen.
_MANY = 300
# Marker and colour of each verdict; others are misfits.
_MARKS = {
    "transient": ("o", COLOURS[2]),
    "cosmic ray": ("x", COLOURS[1]),
    "dipole": ("s", COLOURS[3]),
    "misfit": ("^", COLOURS[6]),
}


def subtraction_figure(
    difference: "Difference",
    new: "Exposure",
    reference: "Exposure",
    candidates: "QTable | None" = None,
    *,
    band: int = 0,
) -> "Figure":
    """New image, reference, difference, its significance with candidates, and how that spreads.

    - `difference`: of `new` and `reference`, which have no sky.
    - `candidates`: as `diffdeblend.transients.find_candidates` has them; those of `band` are shown.
    """
    ny, nx = difference.shape
    width = 4.6
    page = new_figure(3 * width, 2 * min(width * ny / nx, 9.0) + 1.0)
    axes = page.subplots(2, 3).ravel()
    unknown = np.asarray(difference.bad[band])
    for place, exposure, name in ((0, new, "New"), (1, reference, "Reference")):
        plot_sky(
            np.asarray(exposure.image[band]), np.asarray(exposure.good[band]), name, axes[place]
        )
    plot_significance(np.asarray(difference.D[band]), unknown, "Difference D", axes[2])
    plot_significance(np.asarray(difference.S_corr[band]), unknown, "Significance S_corr", axes[3])
    found = None if candidates is None else candidates_of(difference, candidates, band)
    if found is not None:
        mark_candidates(found, axes[3])
    plot_histogram(difference, band=band, on=axes[4])
    if found is not None and len(found):
        _plot_pulls(found, axes[5])
    else:
        axes[5].set_axis_off()
    return page


def plot_sky(
    image: Float[np.ndarray, "y x"], good: Bool[np.ndarray, "y x"], title: str, on: "Axes"
) -> "Axes":
    """An image without its sky: linear in the noise, logarithmic above; grey where it is masked."""
    step = _step(image.shape)
    shown, used = image[::step, ::step], good[::step, ::step]
    noise = _noise(shown[used])
    bright = np.arcsinh(shown / (2 * noise))
    values = bright[used]
    limits = (-1.0, float(np.percentile(values, 99.9))) if values.size else (-1.0, 1.0)
    import matplotlib

    colours = matplotlib.colormaps["gray"].with_extremes(bad="#4a5f7a")
    show_image(
        on,
        np.ma.masked_array(bright, ~used),
        title,
        10,
        cmap=colours,
        vmin=limits[0],
        vmax=max(limits[1], 1.0),
        extent=_extent(image.shape),
    )
    return on


def plot_significance(
    image: Float[np.ndarray, "y x"], unknown: Bool[np.ndarray, "y x"], title: str, on: "Axes"
) -> "Axes":
    """An image in units of its noise, from -5 to 5; grey where nothing can be said."""
    step = _step(image.shape)
    show_image(
        on,
        np.ma.masked_array(image[::step, ::step], unknown[::step, ::step]),
        title,
        10,
        cmap=diverging(),
        vmin=-5,
        vmax=5,
        extent=_extent(image.shape),
    )
    bar: Any = on.figure
    bar = bar.colorbar(on.images[0], ax=on, extend="both", shrink=0.8)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return on


def mark_candidates(candidates: "QTable", on: "Axes") -> "Axes":
    """A mark at each candidate, whose form and colour tell the verdict; the strongest 300."""
    words = np.asarray(candidates["verdict"]).astype(str)[:_MANY]
    x, y = (np.asarray(candidates[name], float)[:_MANY] for name in ("x", "y"))
    for verdict, (marker, colour) in _MARKS.items():
        these = words == verdict
        if not these.any():
            continue
        face: dict[str, Any] = (
            {"color": colour} if marker == "x" else {"facecolors": "none", "edgecolors": colour}
        )
        label = f"{verdict} ({np.count_nonzero(these)})"
        on.scatter(x[these], y[these], s=60, marker=marker, linewidths=1.2, label=label, **face)
    if len(words):
        on.legend(loc="upper left", bbox_to_anchor=(0.0, -0.01), ncols=4, fontsize=8, frameon=False)
    return on


def plot_histogram(difference: "Difference", *, band: int = 0, on: Canvas = None) -> "Figure":
    """How the significance S_corr of all usable pixels spreads, against a unit Gaussian.

    Returns the figure.
    """
    axes = panels(on, [1], (4.6, 4.0))[0]
    use = ~np.asarray(difference.bad[band]) & np.asarray(difference.exposure.good[band])
    values = np.asarray(difference.S_corr[band])[use]
    edges = np.linspace(-8, 8, 81)
    counts, _ = np.histogram(np.clip(values, -7.99, 7.99), edges)
    axes.stairs(counts, edges, color=COLOURS[0], fill=True, alpha=0.45, label="pixels")
    middle = (edges[1:] + edges[:-1]) / 2
    unit = len(values) * (edges[1] - edges[0]) * np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(middle, unit, color=INK, lw=1.2, label="unit Gaussian")
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(3 * counts.max(initial=1), 10))
    spread = _noise(values)
    label_axes(axes, "S_corr (ends hold the rest)", "pixels", f"robust sigma {spread:.3f}")
    axes.legend(fontsize=8, frameon=False)
    return page_of([axes])


def plot_candidates(
    difference: "Difference",
    new: "Exposure",
    reference: "Exposure",
    candidates: "QTable",
    *,
    most: int = 6,
    size: int = 31,
    band: int = 0,
    on: Canvas = None,
) -> "Figure":
    """The strongest candidates: a row of new image, reference and difference for each.

    - `size`: of a stamp, in pixels. `most`: rows.

    Returns the figure.

    **Raises:** `ValueError` if there are no candidates in `band`.
    """
    found: Any = candidates_of(difference, candidates, band)[:most]
    if not len(found):
        raise ValueError("`candidates` has none to show in this band.")
    axes = panels(on, in_rows(3 * len(found), 3), (1.8, 1.9))
    half = size // 2
    sky = [(np.asarray(e.image[band]), np.asarray(e.good[band])) for e in (new, reference)]
    whole, unknown = np.asarray(difference.D[band]), np.asarray(difference.bad[band])
    ny, nx = difference.shape
    for k, row in enumerate(found):
        x, y = round(float(row["x"])), round(float(row["y"]))
        part = (
            slice(max(0, y - half), min(ny, y + half + 1)),
            slice(max(0, x - half), min(nx, x + half + 1)),
        )
        for place, (image, good) in enumerate(sky):
            plot_sky(image[part], good[part], ("New", "Reference")[place], axes[3 * k + place])
        title = f"{row['verdict']} {float(row['significance']):+.1f}"
        stamp = np.ma.masked_array(whole[part], unknown[part])
        show_image(axes[3 * k + 2], stamp, title, 8, cmap=diverging(), vmin=-5, vmax=5)
    return page_of(axes)


def candidates_of(difference: "Difference", candidates: "QTable", band: int) -> "QTable":
    """The rows of one band."""
    if "band" not in candidates.colnames:
        return candidates
    name = difference.exposure.bands[band]
    chosen: Any = candidates[np.asarray(candidates["band"]).astype(str) == name]
    return chosen


def coadd_figure(found: "Coadd", *, band: int = 0) -> "Figure":
    """The coadd, the signal-to-noise of a point on it, and how many epochs see each pixel."""
    ny, nx = found.exposure.shape
    width = 4.6
    page = new_figure(3 * width, min(width * ny / nx, 9.0) + 0.6)
    axes = page.subplots(1, 3)
    number = np.asarray(found.n_epochs[band])
    good = number > 0
    plot_sky(np.asarray(found.exposure.image[band]), good, "Proper coadd", axes[0])
    plot_significance(np.asarray(found.score[band]), ~good, "S/N of a point", axes[1])
    step = _step(number.shape)
    show_image(
        axes[2],
        number[::step, ::step],
        "Epochs",
        10,
        cmap="viridis",
        vmin=0,
        vmax=max(1, int(number.max(initial=0))),
        extent=_extent(number.shape),
    )
    page.colorbar(axes[2].images[0], ax=axes[2], shrink=0.8)
    return page


def _plot_pulls(found: "QTable", axes: "Axes") -> None:
    """Flux over its error against the significance of the peak, by verdict."""
    words = np.asarray(found["verdict"]).astype(str)
    flux, error = (_numbers(found[name]) for name in ("flux", "flux_err"))
    for verdict, (marker, colour) in _MARKS.items():
        these = words == verdict
        if these.any():
            axes.scatter(
                np.abs(flux[these]), error[these], marker=marker, color=colour, s=24, label=verdict
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    label_axes(axes, "|flux|, in the reference's unit", "its error", f"{len(found)} candidates")
    axes.legend(fontsize=8, frameon=False)


def _numbers(column: Any) -> np.ndarray:
    return np.asarray(getattr(column, "value", column), float)


def _noise(values: np.ndarray) -> float:
    """Robust standard deviation, never zero."""
    if not values.size:
        return 1.0
    few = values[:: max(1, values.size // 250_000)]
    spread = MAD_TO_STD * float(np.median(np.abs(few - np.median(few))))
    return spread if spread > 0 and np.isfinite(spread) else 1.0


def _step(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape) // _SHOWN))


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    return (-0.5, shape[1] - 0.5, -0.5, shape[0] - 0.5)
