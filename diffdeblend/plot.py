"""A blend taken apart, as a picture."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffdeblend.deblend.deblend import Deblended

# Filters by their first letter, from blue to red.
_LETTERS = "ubgvrizyjhk"
# JWST's filters beyond 2 micrometres, whose numbers would be ultraviolet or blue ones of HST.
_JWST = (200, 210, 212, 250, 277, 300, 322, 323, 335, 356, 360, 405, 410, 430, 444, 460, 480)
_WIDTH = 12.0  # inches
_MARGIN, _GAP, _LABEL, _BAR = 0.25, 0.1, 0.45, 0.6
_DPI = 150
_INK = "#222222"
_UNUSED = (70, 76, 92)
# Where the colour scale turns from linear to logarithmic, in standard deviations of the noise.
_KNEE = 4.0


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
        _MARGIN / _WIDTH, 1 - 0.12 / height, _title(deblended), va="top", fontsize=12, color=_INK
    )
    upper = [panel(_MARGIN + k * (wide + _GAP), 0.7, wide, wide * aspect) for k in range(3)]
    shown = [
        (paint(data - deblended.background, good), f"Data ({paint.legend})", {}),
        (paint(models.sum(axis=0)), "Model", {}),
        (
            residual_significance(deblended.residual, variance, good),
            "Residual" if exposure.n_bands == 1 else "Residual, all bands",
            {"cmap": _diverging(), "vmin": -5, "vmax": 5},
        ),
    ]
    for axes, (image, title, settings) in zip(upper, shown, strict=True):
        _show(axes, image, title, 10, **settings)
    bar = page.colorbar(
        upper[2].images[0],
        cax=panel(_MARGIN + 3 * (wide + _GAP), 0.7, 0.13, wide * aspect),
        extend="both",
    )
    bar.set_label("standard deviations", fontsize=9, color=_INK)
    bar.ax.tick_params(labelsize=8, colors=_INK)
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
        _show(axes, paint(image), _label(deblended, k, paint.reference), 8)
        _zoom(axes, deblended, k, window)
    return page


class Painter:
    """One colour scale for all panels of a blend.

    Bands are brought to the mean colour of the blend's sources, so that a red one looks red among
    the others; the knee of the stretch sits just above the noise, and the brightest pixel of the
    model at the end. Blue, green and red are means of neighbouring bands, as a tent over the
    wavelengths, by inverse variance: less noise than three bands alone would have.

    - `legend`: what the colours are. `reference`: the band that labels quote.
    - `noise`: of the mean of the three colours.
    """

    def __init__(
        self,
        bands: Sequence[str],
        variance: Float[np.ndarray, "band y x"],
        good: Bool[np.ndarray, "band y x"],
        models: Float[np.ndarray, "source band y x"],
    ):
        order = by_wavelength(bands)
        sigma = np.array([_middle(np.sqrt(v[g])) for v, g in zip(variance, good, strict=True)])
        light = np.maximum(models.sum(axis=(2, 3)), 0)
        scale = _grey_scale(light, sigma) if len(bands) >= 3 else 1 / sigma
        tent = np.ones((1, len(bands)))
        self.legend = " + ".join(bands[k] for k in order)
        if len(bands) >= 3:
            tent = np.maximum(0, 1 - np.abs(np.linspace(0, 2, len(bands)) - np.arange(3)[:, None]))
            tent = tent[:, np.argsort(order)]
            self.legend = f"{bands[order[0]]} blue to {bands[order[-1]]} red"
        share = tent / (scale * sigma) ** 2
        # One row of weights for each colour: three, or one for grey.
        self.share = share / share.sum(axis=1, keepdims=True)
        self.scale = scale
        self.noise = float(np.sqrt(np.sum((self.share.mean(axis=0) * scale * sigma) ** 2)))
        letters = [_letter(band) for band in bands]
        self.reference = letters.index("r") if "r" in letters else order[len(order) // 2]
        # The model sets the scale: a hot pixel of the data must not.
        channels = self._channels(models.sum(axis=0)).reshape(len(tent), -1)
        peak = int(np.argmax(channels.mean(axis=0)))
        intensity = max(float(channels[:, peak].mean()), 10 * self.noise)
        knee = _KNEE * self.noise
        # Lupton's function is asinh(Q I / stretch) 0.1 / asinh(0.1 Q). It shall reach 1 at the
        # peak in the strongest of the three colours, so that no plateau is cut off there.
        strongest = max(float(channels[:, peak].max()) / intensity, 1.0)
        self.softening = float(10 * np.sinh(0.1 * strongest * np.arcsinh(intensity / knee)))
        self.stretch = self.softening * knee

    def __call__(
        self, image: Float[np.ndarray, "band y x"], good: Bool[np.ndarray, "band y x"] | None = None
    ) -> UInt8[np.ndarray, "y x 3"]:
        """Colours of an image, from the bands in use; grey-blue where a colour has none."""
        from astropy.visualization import make_lupton_rgb

        good = np.ones(image.shape, dtype=bool) if good is None else good
        used = np.einsum("cb,byx->cyx", self.share, good.astype(float))
        channels = self._channels(np.where(good, image, 0)) / np.where(used > 0, used, 1)
        blue, green, red = np.broadcast_to(channels, (3, *channels.shape[1:]))
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where there is no light at all
            colours = make_lupton_rgb(
                red,
                green,
                blue,
                stretch=self.stretch,  # type: ignore[arg-type]  # float in fact
                Q=self.softening,  # type: ignore[arg-type]
            )
        colours[(used <= 0).any(axis=0)] = _UNUSED
        return colours

    def intensity(self, image: Float[np.ndarray, "band y x"]) -> Float[np.ndarray, "y x"]:
        """Mean of the colours, before the stretch."""
        return self._channels(image).mean(axis=0)

    def _channels(self, image: np.ndarray) -> Float[np.ndarray, "colour y x"]:
        return np.einsum("cb,byx->cyx", self.share * self.scale, np.asarray(image, float))


def by_wavelength(bands: Sequence[str]) -> list[int]:
    """Places of the bands from blue to red, by their names; as given if a name is not known."""
    wavelengths = [_wavelength(band) for band in bands]
    if any(wavelength is None for wavelength in wavelengths):
        return list(range(len(bands)))
    return sorted(range(len(bands)), key=lambda k: wavelengths[k])  # type: ignore[arg-type]


def residual_significance(
    residual: Float[np.ndarray, "band y x"],
    variance: Float[np.ndarray, "band y x"],
    good: Bool[np.ndarray, "band y x"],
) -> np.ma.MaskedArray:
    """Residual over its noise, summed over the bands in use, again of unit variance.

    Masked where no band is in use.
    """
    sigma = np.sqrt(np.where(good, variance, 1))
    count = good.sum(axis=0)
    total = np.sum(np.where(good, residual / sigma, 0), axis=0)
    return np.ma.masked_array(total / np.sqrt(np.maximum(count, 1)), mask=count == 0)


def _wavelength(band: str) -> float | None:
    """Of a filter by its name, in micrometres, or anything that sorts as it."""
    space = re.search(r"F(\d{3,4})[A-Z]", band.upper())
    if space:
        # HST: F814W is 0.814, but F160W 1.6. JWST: F150W is 1.5, F1500W 15.
        digits = int(space.group(1))
        return digits / 100 if digits < 200 or digits > 999 or digits in _JWST else digits / 1000
    letter = _letter(band)
    centres = dict(
        zip(_LETTERS, (0.36, 0.44, 0.48, 0.55, 0.62, 0.76, 0.89, 1.0, 1.2, 1.6, 2.2), strict=True)
    )
    return centres.get(letter) if letter else None


def _letter(band: str) -> str | None:
    """The letter of a broad filter: `r` of "r", "HSC-R", "r2", "lsst_r" or "DECam r"."""
    last = re.split(r"[-_./: ]", band.strip())[-1].lower()
    found = re.fullmatch(rf"([{_LETTERS}])(\d|p|'|prime|s)?", last)
    return found.group(1) if found else None


def _grey_scale(
    light: Float[np.ndarray, "source band"], noise: Float[np.ndarray, "band"]
) -> Float[np.ndarray, "band"]:
    """Factors that bring the sources' mean colour to grey; faint sources count less."""
    floor = 5 * noise
    weight = np.log1p(np.min(light / floor, axis=1))
    if not (weight > 0).any():
        return 1 / noise
    logs = np.log(np.maximum(light, floor))
    return np.exp(-np.sum(weight[:, None] * logs, axis=0) / weight.sum())


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 1.0


def _columns(n: int) -> int:
    """Panels in a row, so that rows are even and panels neither huge nor tiny."""
    rows = -(-n // 8)
    return max(3, -(-n // rows)) if n else 3


def _show(axes: "Axes", image: np.ndarray, title: str, size: int, **settings: Any) -> None:
    axes.imshow(image, origin="lower", interpolation="nearest", aspect="auto", **settings)
    axes.set_title(title, fontsize=size, color=_INK, pad=4)
    axes.set_axis_off()


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
}


def _label(deblended: "Deblended", k: int, reference: int) -> str:
    row, band = _rows(deblended)[k], deblended.exposure.bands[reference]
    model = str(row["model"])
    if f"mag_{band}" in deblended.catalog.colnames and np.isfinite(row[f"mag_{band}"].value):
        light = f"{band} = {row[f'mag_{band}'].value:.2f}"
    else:
        unit = f" {row[f'flux_{band}'].unit}".rstrip()
        light = f"{band}: {row[f'flux_{band}'].value:.4g}{unit}"
    return f"{row['id']}  {_MODEL_NAMES.get(model, model)}\n{light}"


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


def _diverging() -> Any:
    """Blue to red through white; grey where no band is in use."""
    import matplotlib

    return matplotlib.colormaps["RdBu_r"].with_extremes(bad="#b0b0b0")
