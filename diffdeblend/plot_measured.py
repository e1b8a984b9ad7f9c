"""What was measured of stars and galaxies: colours, magnitudes and sizes, as diagrams.

Each function draws in a figure, or on axes that are given. Needs matplotlib, of which no global
state is touched.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike

from diffdeblend.painter import by_wavelength
from diffdeblend.panels import COLOURS, INK, Canvas, label_axes, new_figure, page_of, panels
from diffdeblend.plot_psf import plot_magnitude_size
from diffdeblend.quantities.magnitudes import MAGNITUDE, magnitudes

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STAR, _GALAXY = "#d62728", "#222222"
# Beyond these quantiles points are gross errors: they do not squeeze all others together.
_SHOWN = (0.01, 0.99)


def plot_colour_colour(
    magnitudes: Mapping[str, ArrayLike],
    is_star: ArrayLike | None = None,
    errors: Mapping[str, ArrayLike] | None = None,
    *,
    bands: Sequence[str] = ("g", "r", "i"),
    on: Canvas = None,
) -> "Figure":
    """Difference of the first two bands against that of the last two; stars red, galaxies black.

    - `magnitudes`: of each band, a value a source; those that are not finite are left out.
    - `is_star`: booleans; None where stars are not told from galaxies. `errors`: standard
        deviations of the magnitudes, drawn as bars.
    - `bands`: three names: g - r against r - i. Four: g - r against i - z.
    - `on`: a figure to draw in, an axes, or None for a new figure.

    **Raises:** `ValueError` for another number of bands, one without magnitudes, or columns that
    differ in length.
    """
    names = tuple(bands)
    if len(names) not in (3, 4):
        raise ValueError(f"`bands` must be three or four names; got {names}.")
    (axes,) = panels(on, [1], (5.0, 4.4))
    x = _difference(magnitudes, errors, names[0], names[1])
    y = _difference(magnitudes, errors, names[-2], names[-1])
    _stars_and_galaxies(axes, x, y, is_star)
    label_axes(axes, f"{names[0]} - {names[1]}", f"{names[-2]} - {names[-1]}")
    return page_of([axes])


def plot_colour_magnitude(
    magnitudes: Mapping[str, ArrayLike],
    is_star: ArrayLike | None = None,
    errors: Mapping[str, ArrayLike] | None = None,
    *,
    colour: tuple[str, str] = ("g", "i"),
    band: str = "i",
    on: Canvas = None,
) -> "Figure":
    """Magnitude, bright above, against a colour; stars red, galaxies black.

    - `colour`: two bands, whose difference is shown. `band`: of the magnitude.
    - the rest: as of `plot_colour_colour`.

    **Raises:** `ValueError` as `plot_colour_colour`.
    """
    if len(colour) != 2:
        raise ValueError(f"`colour` must be two names of bands; got {colour}.")
    (axes,) = panels(on, [1], (4.4, 5.0))
    x = _difference(magnitudes, errors, *colour)
    y = _magnitude(magnitudes, errors, band)
    _stars_and_galaxies(axes, x, y, is_star)
    axes.invert_yaxis()
    label_axes(axes, f"{colour[0]} - {colour[1]}", band)
    return page_of([axes])


def plot_aperture_minus_kron(
    aperture: ArrayLike,
    kron: ArrayLike,
    is_star: ArrayLike | None = None,
    *,
    error: ArrayLike | None = None,
    label: str = "aperture",
    expected: float | None = None,
    on: Canvas = None,
) -> "Figure":
    """How much brighter the Kron magnitude is than one in a fixed aperture, by magnitude.

    Stars lie on a level line, by what share of a point's light both hold; large galaxies above it,
    as they overflow the aperture.

    - `aperture`, `kron`: magnitudes of the same sources. `error`: of their difference.
    - `is_star`: booleans, for colours; None for all alike. `label`: of the aperture.
    - `expected`: difference of a point, drawn as a line.

    **Raises:** `ValueError` for columns that differ in length.
    """
    (axes,) = panels(on, [1], (5.4, 4.0))
    x = np.asarray(aperture, float)
    y = x - _column("kron", kron, len(x))
    bars = None if error is None else _column("error", error, len(x))
    _stars_and_galaxies(axes, (x, None), (y, bars), is_star)
    axes.axhline(0, color=INK, lw=0.6)
    if expected is not None:
        axes.axhline(expected, color=COLOURS[0], lw=1.0, label=f"a point: {expected:+.3f}")
        axes.legend(fontsize=8, frameon=False)
    label_axes(axes, f"{label} magnitude", f"{label} - Kron")
    return page_of([axes])


def plot_star_candidates(
    magnitude: ArrayLike,
    xx: ArrayLike,
    yy: ArrayLike,
    candidate: ArrayLike,
    used: ArrayLike,
    reserved: ArrayLike,
    *,
    on: Canvas = None,
) -> "Figure":
    """Size against magnitude of all sources, with the candidates for the PSF and their fate.

    - `xx`, `yy`: second moments, in px^2; the size is the trace radius sqrt((xx + yy) / 2).
    - `candidate`, `used`, `reserved`: booleans, a source each.

    **Raises:** `ValueError` for columns that differ in length.
    """
    from astropy.table import Table

    mag = np.asarray(magnitude, float)
    n = len(mag)
    with np.errstate(invalid="ignore"):
        size = np.sqrt((_column("xx", xx, n) + _column("yy", yy, n)) / 2)
    flags = {"is_star": candidate, "used": used, "reserved": reserved}
    columns = {name: _column(name, flag, n).astype(bool) for name, flag in flags.items()}
    return plot_magnitude_size(Table({"mag": mag, "size": size, **columns}), on=on)


def best_flux(catalog: "Table") -> str:
    """The measurement whose fluxes colours are best taken from: CModel's where there is one.

    - `catalog`: of a `BandCatalog`.

    **Raises:** `ValueError` for a table without fluxes.
    """
    bands = bands_of(catalog)
    for name in ("cmodel", "kron", "psf"):
        if f"{name}_flux_{bands[0]}" in catalog.colnames:
            return name
    raise ValueError("`catalog` has no column of fluxes, as psf_flux_<band>.")


def bands_of(catalog: "Table") -> tuple[str, ...]:
    """Names of the bands of a catalogue, in its order.

    **Raises:** `ValueError` for a table that does not say them.
    """
    meta: Any = catalog.meta
    if not meta.get("bands"):
        raise ValueError("`catalog` must have its `bands` in `meta`, as that of a BandCatalog.")
    return tuple(meta["bands"])


def band_magnitudes(
    catalog: "Table", flux: str = "cmodel"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Magnitudes of a measurement in all bands, and their errors; NaN where there is no light.

    Without zero points in the catalogue they are those of fluxes whose unit is magnitude 0.

    - `flux`: name of the measurement: cmodel, psf, kron, aperture_12 ...

    **Raises:** `ValueError` if the catalogue has no such fluxes.
    """
    values, errors = {}, {}
    for band in bands_of(catalog):
        name, _, radius = flux.partition("_")
        tail = f"_{radius}" if radius else ""
        of_flux = f"{name}_flux{tail}_{band}", f"{name}_flux{tail}_err_{band}"
        known = f"{name}_mag{tail}_{band}", f"{name}_mag{tail}_err_{band}"
        if known[0] in catalog.colnames:
            values[band], errors[band] = (_numbers(catalog[one]) for one in known)
        elif of_flux[0] in catalog.colnames:
            light, error = (_numbers(catalog[one]) for one in of_flux)
            zero_point = _zero_point(catalog, band)
            values[band], errors[band] = magnitudes(light, error, zero_point)
        else:
            raise ValueError(f"`catalog` has no column {of_flux[0]!r} of {flux!r} fluxes.")
    return values, errors


def _zero_point(catalog: "Table", band: str) -> float:
    """From fluxes of the PSF with their magnitudes; 0 where there are none."""
    if f"psf_mag_{band}" not in catalog.colnames:
        return 0.0
    flux, known = (_numbers(catalog[f"psf_{name}_{band}"]) for name in ("flux", "mag"))
    some = np.isfinite(known)
    return float(np.median(known[some] + 2.5 * np.log10(flux[some]))) if some.any() else 0.0


def good_sources(catalog: "Table", flux: str = "cmodel", snr: float = 10.0) -> np.ndarray:
    """Rows for colours: not taken apart further, no flag of this flux, and enough S/N, everywhere.

    - `flux`: as of `band_magnitudes`. `snr`: at least so many errors, in each band.

    **Raises:** `ValueError` as `band_magnitudes`.
    """
    _, errors = band_magnitudes(catalog, flux)
    good = np.asarray(catalog["deblend_n_child"]) == 0
    for band, error in errors.items():
        with np.errstate(invalid="ignore"):
            good &= error < MAGNITUDE / snr
        flag = f"{flux.partition('_')[0]}_flag_{band}"
        if flag in catalog.colnames:
            good &= ~np.asarray(catalog[flag], bool)
    return good


def is_point(catalog: "Table") -> np.ndarray | None:
    """Which rows look like points, by their extendedness; None if that was not measured."""
    for name in ("ref_extendedness_value", "extendedness_value"):
        if name in catalog.colnames:
            return _numbers(catalog[name]) < 0.5
    return None


def measured_figure(catalog: "Table", *, snr: float = 10.0) -> "Figure":
    """Colours of stars and galaxies, and magnitudes against a colour or aperture against Kron.

    - `catalog`: of a `BandCatalog`. `snr`: least one of what is shown; see `good_sources`.

    With three bands or more colour against colour and magnitude against colour; with two the
    second; with one the magnitudes alone, of Kron against those of the PSF.

    **Raises:** `ValueError` for a table that is not such a catalogue.
    """
    bands = bands_of(catalog)
    flux = best_flux(catalog)
    good = good_sources(catalog, flux, snr)
    values, errors = (
        {band: column[good] for band, column in some.items()}
        for some in band_magnitudes(catalog, flux)
    )
    point = is_point(catalog)
    star = None if point is None else point[good]
    if len(bands) == 1:
        psf, kron = (band_magnitudes(catalog, name)[0][bands[0]][good] for name in ("psf", "kron"))
        return plot_aperture_minus_kron(psf, kron, star, label="PSF")
    first, last = by_wavelength(bands)[0], by_wavelength(bands)[-1]
    colour = bands[first], bands[last]
    if len(bands) == 2:
        return plot_colour_magnitude(values, star, errors, colour=colour, band=colour[1])
    page = new_figure(10.0, 4.8)
    left, right = page.subplots(1, 2)
    # The three middle ones of many: g, r and i of ugrizy would be best, and ends are shallow.
    order = [bands[k] for k in by_wavelength(bands)]
    start = min((len(order) - 3) // 2, 1)
    plot_colour_colour(values, star, errors, bands=order[start : start + 3], on=left)
    plot_colour_magnitude(values, star, errors, colour=colour, band=order[start + 2], on=right)
    page.suptitle(f"{flux} fluxes, S/N above {snr:g}", fontsize=10, color=INK)
    return page


_Values = tuple[np.ndarray, np.ndarray | None]


def _stars_and_galaxies(axes: "Axes", x: _Values, y: _Values, is_star: ArrayLike | None) -> None:
    """Points with bars, galaxies below stars, within the range that nearly all of them have."""
    named = is_star is not None
    star = np.zeros(x[0].shape, bool) if is_star is None else np.asarray(is_star)
    if star.shape != x[0].shape:
        raise ValueError(f"`is_star` needs one boolean a source, {len(x[0])}; got {star.shape}.")
    star = star.astype(bool)
    known = np.isfinite(x[0]) & np.isfinite(y[0])
    for name, kind, colour in (("galaxies", ~star, _GALAXY), ("stars", star, _STAR)):
        some = known & kind
        bars = [None if error is None else np.nan_to_num(error[some]) for _, error in (x, y)]
        axes.errorbar(
            x[0][some],
            y[0][some],
            xerr=bars[0],
            yerr=bars[1],
            fmt="o",
            ms=2.6,
            color=colour,
            ecolor=(*_rgb(colour), 0.3),
            elinewidth=0.7,
            label=f"{name} ({np.count_nonzero(some)})" if named else None,
        )
    for (values, _), limits in ((x, axes.set_xlim), (y, axes.set_ylim)):
        if known.any():
            low, high = np.quantile(values[known], _SHOWN)
            margin = 0.08 * (high - low) + 0.05
            limits(low - margin, high + margin)
    if named:
        axes.legend(fontsize=8, frameon=False)


def _difference(
    magnitudes: Mapping[str, ArrayLike],
    errors: Mapping[str, ArrayLike] | None,
    first: str,
    second: str,
) -> _Values:
    a, a_error = _magnitude(magnitudes, errors, first)
    b, b_error = _magnitude(magnitudes, errors, second)
    if a.shape != b.shape:
        raise ValueError(
            f"`magnitudes` need one length; got {len(a)} in {first!r} and {len(b)} in {second!r}."
        )
    both = None if a_error is None or b_error is None else np.hypot(a_error, b_error)
    return a - b, both


def _magnitude(
    magnitudes: Mapping[str, ArrayLike], errors: Mapping[str, ArrayLike] | None, band: str
) -> _Values:
    if band not in magnitudes:
        raise ValueError(
            f"`bands` must be among those of `magnitudes`: {', '.join(magnitudes)}; got {band!r}."
        )
    values = np.asarray(magnitudes[band], float)
    if errors is None or band not in errors:
        return values, None
    return values, _column("errors", errors[band], len(values))


def _column(name: str, values: ArrayLike, n: int) -> np.ndarray:
    column = np.asarray(values)
    if column.shape != (n,):
        raise ValueError(f"`{name}` needs one value a source, {n}; got shape {column.shape}.")
    return column if column.dtype == bool else column.astype(float)


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _numbers(column: Any) -> np.ndarray:
    """Plain numbers of a column, NaN where it is masked."""
    values = getattr(column, "value", column)
    return np.ma.filled(np.ma.asarray(values, float), np.nan)
