"""A blend taken apart, as a picture."""

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.deblend.catalog import Flag
from diffdeblend.painter import Painter, residual_significance
from diffdeblend.panels import INK, diverging, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffdeblend.deblend.deblend import Deblended

_WIDTH = 12.0  # inches
_MARGIN, _GAP, _LABEL, _BAR = 0.25, 0.1, 0.45, 0.6
_DPI = 150


def figure(deblended: "Deblended") -> "Figure":
    """Data, model and residual of a blend, and each of its sources alone.

    Colours are Lupton's, of the bluest, the middle and the reddest band; with fewer than three
    bands, grey. All colour panels have one scale. The residual is in standard deviations, summed
    over the bands in use at each pixel. Needs matplotlib; touches no global state of it.
    """
    from matplotlib.figure import Figure

    # A fit that failed is shown too: what is not finite is dark.
    exposure, models = deblended.exposure, np.nan_to_num(deblended.models, posinf=0, neginf=0)
    data, variance = np.asarray(exposure.data), np.asarray(exposure.variance)
    good = np.asarray(exposure.good)
    paint = Painter(exposure.bands, variance, good, models)

    # In inches, from the top left corner: pictures of one size, whatever their number.
    n, (ny, nx) = len(models), exposure.shape
    columns = _columns(n)
    rows = -(-n // columns)
    aspect = float(np.clip(ny / nx, 0.4, 2.0))
    wide = (_WIDTH - 2 * _MARGIN - 3 * _GAP - _BAR) / 3
    small = min((_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns, wide)
    below = 0.7 + wide * aspect + 0.55
    height = below + rows * small * aspect + (rows - 1) * _LABEL + _MARGIN
    page = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")

    def panel(left: float, top: float, width: float, tall: float) -> "Axes":
        return page.add_axes(
            (left / _WIDTH, 1 - (top + tall) / height, width / _WIDTH, tall / height)
        )

    page.text(
        _MARGIN / _WIDTH, 1 - 0.12 / height, _title(deblended), va="top", fontsize=12, color=INK
    )
    upper = [panel(_MARGIN + k * (wide + _GAP), 0.7, wide, wide * aspect) for k in range(3)]
    shown = [
        (paint(data - deblended.background, good), f"Data ({paint.legend})", {}),
        (paint(models.sum(axis=0)), "Model", {}),
        (
            residual_significance(deblended.residual, variance, good),
            "Residual" if exposure.n_bands == 1 else "Residual, all bands",
            {"cmap": diverging(), "vmin": -5, "vmax": 5},
        ),
    ]
    for axes, (image, title, settings) in zip(upper, shown, strict=True):
        show_image(axes, image, title, 10, aspect="auto", **settings)
    bar = page.colorbar(
        upper[2].images[0],
        cax=panel(_MARGIN + 3 * (wide + _GAP), 0.7, 0.13, wide * aspect),
        extend="both",
    )
    bar.set_label("standard deviations", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    _mark_sources(upper[0], deblended)

    window = (float(ny), float(nx)) if n <= columns else _window(deblended, models, paint)
    for k, image in enumerate(models):
        row, column = divmod(k, columns)
        axes = panel(
            _MARGIN + column * (small + _GAP),
            below + row * (small * aspect + _LABEL),
            small,
            small * aspect,
        )
        show_image(axes, paint(image), _label(deblended, k, paint.reference), 8, aspect="auto")
        _zoom(axes, deblended, k, window)
    return page


def _columns(n: int) -> int:
    """Panels in a row, so that rows are even and panels neither huge nor tiny."""
    rows = -(-n // 8)
    return max(3, -(-n // rows)) if n else 3


def _title(deblended: "Deblended") -> str:
    n, bands = len(deblended.models), deblended.exposure.bands
    names = "".join(bands) if all(len(band) == 1 for band in bands) else ", ".join(bands)
    text = f"{n} source{'' if n == 1 else 's'} in {names}"
    chi2 = deblended.summary.get("reduced_chi2")
    return text if chi2 is None else f"{text},  reduced χ² {chi2:.2f}"


_MODEL_NAMES = {
    "point": "point",
    "gaussian": "Gaussian",
    "sersic": "Sérsic",
    "exponential": "exponential",
    "de_vaucouleurs": "de Vaucouleurs",
    "bulge_disc": "bulge + disc",
    "multi_gaussian": "multi-Gaussian",
    "free_form": "free form",
    "decoded": "decoded",
}


def _label(deblended: "Deblended", k: int, reference: int) -> str:
    row, band = _rows(deblended)[k], deblended.exposure.bands[reference]
    model = str(row["model"])
    if f"mag_{band}" in deblended.catalog.colnames and np.isfinite(row[f"mag_{band}"].value):
        light = f"{band} = {row[f'mag_{band}'].value:.2f}"
    else:
        unit = f" {row[f'flux_{band}'].unit}".rstrip()
        light = f"{band}: {row[f'flux_{band}'].value:.4g}{unit}"
    strange = ", out of domain" if int(row["flags"]) & Flag.OUT_OF_DOMAIN else ""
    return f"{row['id']}  {_MODEL_NAMES.get(model, model)}{strange}\n{light}"


def _rows(deblended: "Deblended") -> list[Any]:
    return [deblended.catalog[k] for k in range(len(deblended.catalog))]


def _mark_sources(axes: "Axes", deblended: "Deblended") -> None:
    """Ids, and ellipses that hold half of the light before the PSF; a point gets a small circle."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    ny, nx = deblended.residual.shape[1:]
    outline = [withStroke(linewidth=1.8, foreground="black", alpha=0.7)]
    for row in _rows(deblended):
        x, y = float(row["x"].value), float(row["y"].value)
        radius, ratio = float(row["radius"].value), float(row["axis_ratio"].value)
        angle = float(row["position_angle"].value)
        if not np.isfinite([x, y]).all():
            continue
        if not np.isfinite([radius, ratio, angle]).all() or radius <= 0:
            radius, ratio, angle = 0.012 * nx, 1.0, 0.0
        long, short = radius / np.sqrt(ratio), radius * np.sqrt(ratio)
        axes.add_patch(
            Ellipse(
                (x, y),
                2 * long,
                2 * short,
                angle=angle,
                fill=False,
                color="white",
                linewidth=0.8,
                alpha=0.9,
                path_effects=outline,
            )
        )
        # Just outside of the ellipse along a diagonal, the one that leads into the stamp.
        right, upper = x < 0.9 * nx, y < 0.9 * ny
        turn = np.deg2rad((45 if right == upper else 135) - angle)
        edge = long * short / np.hypot(short * np.cos(turn), long * np.sin(turn))
        step = min(0.71 * edge, 0.15 * nx) + 0.008 * nx
        axes.text(
            x + (step if right else -step),
            y + (step if upper else -step),
            str(row["id"]),
            color="white",
            fontsize=9,
            ha="left" if right else "right",
            va="bottom" if upper else "top",
            path_effects=outline,
            clip_on=True,
        )


def _window(deblended: "Deblended", models: np.ndarray, paint: Painter) -> tuple[float, float]:
    """Height and width of what the panel of a source shows, where panels are small.

    Of one size for all, so that they compare; large enough for the light of the largest that
    stands out of the noise.
    """
    ny, nx = models.shape[2:]
    share = 0.25
    for row, image in zip(_rows(deblended), models, strict=True):
        y, x = np.nonzero(paint.intensity(image) > paint.noise)
        for places, centre, length in ((y, row["y"], ny), (x, row["x"], nx)):
            reach = np.nan_to_num(np.abs(places - float(centre.value)))
            share = max(share, 2 * float(np.max(reach, initial=0.0)) / length + 0.05)
    return min(share, 1.0) * ny, min(share, 1.0) * nx


def _zoom(axes: "Axes", deblended: "Deblended", k: int, window: tuple[float, float]) -> None:
    """Show a window around a source, within the stamp."""
    ny, nx = deblended.residual.shape[1:]
    row = _rows(deblended)[k]
    for size, length, centre, limits in (
        (window[1], nx, float(row["x"].value), axes.set_xlim),
        (window[0], ny, float(row["y"].value), axes.set_ylim),
    ):
        start = np.clip(np.nan_to_num(centre) - size / 2, -0.5, length - 0.5 - size)
        limits(start, start + size)
