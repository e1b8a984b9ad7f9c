"""What was found on an image, and a large image taken apart, as pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.painter import Painter, residual_significance
from diffdeblend.panels import INK, diverging, new_figure, show_image
from diffdeblend.plot_segments import paint_labels, plot_apertures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diffdeblend.batch.image import DeblendedImage
    from diffdeblend.detect.detect import Detections

# Larger images are shown by every so many pixels: a page has no more.
_SHOWN = 1600
# With more apertures nothing else would be seen.
_MANY = 5000


def detection_figure(found: "Detections") -> "Figure":
    """The image with Kron apertures, and the labels in colours that stay with them."""
    ny, nx = found.labels.shape
    width = 6.0
    page = new_figure(2 * width, min(width * ny / nx, 12.0) + 0.5)
    left, right = page.subplots(1, 2)
    measured: Any = found.measured[0]
    apertures = dict(measured.make_kron_apertures())
    apertures["theta"] = np.rad2deg(apertures["theta"])
    plot_apertures(
        found.image,
        *(np.asarray(apertures[name], float)[:_MANY] for name in _ELLIPSE),
        labels=found.labels.labels[:_MANY],
        on=left,
    )
    left.set_title(f"{found.n_sources} sources, Kron apertures", fontsize=10, color=INK)
    step = max(1, -(-max(ny, nx) // _SHOWN))
    colours = paint_labels(found.labels[::step, ::step])
    show_image(right, colours, "labels", 10, extent=(-0.5, nx - 0.5, -0.5, ny - 0.5))
    return page


_ELLIPSE = ("x", "y", "a", "b", "theta")


def image_figure(found: "DeblendedImage") -> "Figure":
    """Data, model and residual of a large image, in the colours of its bands."""
    exposure = found.exposure
    ny, nx = exposure.shape
    step = max(1, -(-max(ny, nx) // _SHOWN))
    some = (slice(None), slice(None, None, step), slice(None, None, step))
    data, variance = np.asarray(exposure.data)[some], np.asarray(exposure.variance)[some]
    good, model = np.asarray(exposure.good)[some], np.nan_to_num(found.model[some])
    paint = Painter(exposure.bands, variance, good, model[None])
    page = new_figure(15.0, min(5.0 * ny / nx, 12.0) + 0.6)
    axes = page.subplots(1, 3)
    box: dict[str, Any] = {"extent": (-0.5, nx - 0.5, -0.5, ny - 0.5)}
    show_image(axes[0], paint(data - found.background[some], good), "Data", 10, **box)
    show_image(axes[1], paint(model), f"Model, {len(found.catalog)} sources", 10, **box)
    significance = residual_significance(found.residual[some], variance, good)
    shown = {"cmap": diverging(), "vmin": -5, "vmax": 5}
    show_image(axes[2], significance, "Residual", 10, **box, **shown)
    bar = page.colorbar(axes[2].images[0], ax=axes[2], extend="both", shrink=0.8)
    bar.set_label("standard deviations", fontsize=9, color=INK)
    return page
