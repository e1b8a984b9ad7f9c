"""A PSF that varies over the image, and the stars it was taken from, as pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from diffdeblend.panels import (
    COLOURS,
    INK,
    Canvas,
    diverging,
    few_ticks,
    in_rows,
    label_axes,
    new_figure,
    page_of,
    panels,
    show_image,
)
from diffdeblend.psf import PSFBasis
from diffdeblend.widths import FWHM_PER_SIGMA, equivalent_fwhm

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffdeblend.stars import PSFReport, StarPSF

_COLUMNS, _MOST, _MAP = 4, 8, 60
_WHISKERS = 8


def plot_basis(psf: PSFBasis, *, band: int = 0, on: Canvas = None) -> "Figure":
    """The images of a basis, at most 8, each on a scale of its own around zero."""
    images = np.asarray(psf.images[band, :_MOST])
    axes = panels(on, in_rows(len(images), _COLUMNS), (2.0, 2.2))
    for k, (one, image) in enumerate(zip(axes, images, strict=True)):
        highest = float(np.abs(image).max()) or 1.0
        settings: dict[str, Any] = {"cmap": diverging(), "vmin": -highest, "vmax": highest}
        show_image(one, image, f"image {k + 1}, sum {image.sum():.2f}", 8, **settings)
    return page_of(axes)


def plot_fields(psf: PSFBasis, *, band: int = 0, on: Canvas = None) -> "Figure":
    """What each image of a basis, at most 8, is multiplied with over the image."""
    x, y = _places(psf.shape, _MAP)
    weights = np.asarray(psf.weights(x, y)[band, :_MOST])
    ny, nx = psf.shape
    axes = panels(on, in_rows(len(weights), _COLUMNS), (2.4, 2.2))
    for k, (one, weight) in enumerate(zip(axes, weights, strict=True)):
        show_image(one, weight, f"field {k + 1}", 8, extent=(-0.5, nx - 0.5, -0.5, ny - 0.5))
        bar = page_of(axes).colorbar(one.images[0], ax=one, shrink=0.8)
        bar.ax.tick_params(labelsize=7, colors=INK)
    return page_of(axes)


def plot_psf_shape(psf: PSFBasis, *, band: int = 0, on: Canvas = None) -> "Figure":
    """FWHM over the image, and whiskers along the PSF's longer axis, by their ellipticity.

    FWHM is that of the Gaussian with the PSF's noise-equivalent area.
    """
    (axes,) = panels(on, [1], (5.0, 4.2))
    x, y = _places(psf.shape, _MAP)
    images = np.asarray(psf.images_at(x.ravel(), y.ravel())[:, band])
    ny, nx = psf.shape
    fwhm = equivalent_fwhm(images).reshape(x.shape)
    show_image(axes, fwhm, "FWHM (pixels)", 9, extent=(-0.5, nx - 0.5, -0.5, ny - 0.5))
    page_of([axes]).colorbar(axes.images[0], ax=axes, shrink=0.8)
    x, y = _places(psf.shape, _WHISKERS, inset=0.5)
    e1, e2 = weighted_ellipticity(np.asarray(psf.images_at(x.ravel(), y.ravel())[:, band]))
    size, angle = np.hypot(e1, e2), 0.5 * np.arctan2(e2, e1)
    # The longest is as long as the distance of two of them.
    length = size * min(ny, nx) / _WHISKERS / max(float(size.max()), 1e-9)
    axes.quiver(
        x.ravel(),
        y.ravel(),
        length * np.cos(angle),
        length * np.sin(angle),
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="middle",
        headwidth=0,
        headlength=0,
        headaxislength=0,
        color="white",
        width=0.006,
    )
    axes.set_xlabel(f"longest whisker: |e| = {size.max():.3f}", fontsize=8, color=INK)
    return page_of([axes])


def plot_magnitude_size(table: "Table", *, on: Canvas = None) -> "Figure":
    """Size against magnitude of all sources: stars lie on a level line.

    - `table`: with columns `mag`, `size`, `is_star`, `used` and `reserved`, as that of a `StarPSF`.
    """
    (axes,) = panels(on, [1], (5.0, 4.0))
    mag, size = (np.asarray(table[name], float) for name in ("mag", "size"))
    flags = {name: np.asarray(table[name], bool) for name in ("is_star", "used", "reserved")}
    star = flags["is_star"]
    kinds = (
        ("other sources", ~star & ~flags["used"] & ~flags["reserved"], "#b0b0b0", 6),
        ("stars not used", star & ~flags["used"] & ~flags["reserved"], COLOURS[4], 10),
        ("used", flags["used"], COLOURS[0], 12),
        ("reserved", flags["reserved"], COLOURS[1], 12),
    )
    known = np.isfinite(mag) & np.isfinite(size)
    for name, kind, colour, area in kinds:
        shown = kind & known
        axes.scatter(mag[shown], size[shown], s=area, c=colour, label=f"{name} ({shown.sum()})")
    if (known & star).any():
        axes.set_ylim(0, 3.5 * float(np.median(size[known & star])))
    label_axes(axes, "magnitude", "size, sigma (pixels)")
    axes.legend(fontsize=7, frameon=False)
    return page_of([axes])


def plot_star_residuals(report: "PSFReport", *, n: int = 6, on: Canvas = None) -> "Figure":
    """Stars, the PSF fitted to them, and what is left, the brightest above.

    - `n`: stars at most. What is left is shown within 5 % of the star's peak.
    """
    table: Any = report.table
    brightest = np.argsort(-np.asarray(table["flux"], float), kind="stable")[:n]
    axes = panels(on, [3] * len(brightest), (1.7, 1.8))
    for row, k in enumerate(brightest):
        star, model = report.stamps[k], report.models[k]
        peak = float(np.nanmax(model))
        left, middle, right = axes[3 * row : 3 * row + 3]
        # The root shows core and wings.
        shown: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
        show_image(left, _root(star / peak), f"S/N {table['snr'][k]:.0f}", 8, **shown)
        show_image(middle, _root(model / peak), "PSF", 8, **shown)
        shown = {"vmin": -0.05, "vmax": 0.05, "cmap": diverging()}
        excess = 100 * float(table["excess"][k])
        show_image(right, (star - model) / peak, f"left, {excess:.1f} %", 8, **shown)
    return page_of(axes)


def plot_residuals(report: "PSFReport", *, on: Canvas = None) -> "Figure":
    """Errors of size and ellipticity of each star, by its S/N."""
    axes = panels(on, [2], (3.6, 3.0))
    table = report.table
    snr = np.asarray(table["snr"], float)
    size = np.asarray(table["size"], float) / np.asarray(table["model_size"], float) - 1
    _against(axes[0], snr, [("size", 100 * size)], "size, star / PSF - 1 (%)")
    errors = [
        (name, np.asarray(table[name], float) - np.asarray(table[f"model_{name}"], float))
        for name in ("e1", "e2")
    ]
    _against(axes[1], snr, errors, "ellipticity, star - PSF")
    return page_of(axes)


def psf_figure(found: "StarPSF", report: "PSFReport | None" = None) -> "Figure":
    """All of it on one page: stars, shape, basis, fields, and what is left of stars.

    - `report`: of `validate_psf`; without it the last two are left out.
    """
    width = 12.0
    kept = min(found.psf.n_basis, _MOST)
    rows = 2.3 * len(in_rows(kept, _COLUMNS))
    page = new_figure(width, 4.2 + rows + (3.0 if report is None else 7.0))
    heights = [4.2, rows] + ([] if report is None else [7.0])
    strips: Any = page.subfigures(len(heights), 1, height_ratios=heights)
    top = strips[0].subfigures(1, 2)
    plot_magnitude_size(found.table, on=top[0])
    plot_psf_shape(found.psf, on=top[1])
    middle = strips[1].subfigures(1, 2)
    plot_basis(found.psf, on=middle[0])
    plot_fields(found.psf, on=middle[1])
    if report is not None:
        bottom = strips[2].subfigures(1, 2)
        plot_star_residuals(report, n=4, on=bottom[0])
        plot_residuals(report, on=bottom[1])
    return page


def weighted_ellipticity(
    images: Float[np.ndarray, "n h w"],
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """(Ixx - Iyy) / T and 2 Ixy / T under a round Gaussian of the PSF's own width, doubled.

    The weight halves the ellipticity of a Gaussian of that width, to first order.
    """
    height, width = images.shape[1:]
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - width // 2, y - height // 2
    sigma = equivalent_fwhm(images)[:, None, None] / FWHM_PER_SIGMA
    weighted = images * np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    xx, yy, xy = (np.sum(weighted * one, axis=(1, 2)) for one in (x * x, y * y, x * y))
    return 2 * (xx - yy) / (xx + yy), 4 * xy / (xx + yy)


def _against(axes: "Axes", snr: np.ndarray, series: list, label: str) -> None:
    for (name, values), colour in zip(series, COLOURS, strict=False):
        axes.scatter(snr, values, s=8, c=colour, label=f"{name}, median {np.nanmedian(values):.2g}")
    axes.axhline(0, color=INK, lw=0.6)
    axes.set_xscale("log")
    few_ticks(axes)
    label_axes(axes, "S/N", label)
    axes.legend(fontsize=7, frameon=False)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(values, 0, None))


def _places(shape: tuple[int, int], n: int, inset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A grid of places over the image, by default from border to border."""
    share = np.linspace(0, 1, n) if not inset else (np.arange(n) + inset) / n
    x, y = np.meshgrid(share * (shape[1] - 1), share * (shape[0] - 1))
    return x, y
