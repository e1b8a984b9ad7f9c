"""What was measured of each source, as a table that explains itself."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntFlag
from importlib import metadata
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from jaxtyping import Float, Int, Shaped

from diffdeblend import __version__
from diffdeblend.exposure import Header
from diffdeblend.header import flux_unit
from diffdeblend.quantities.magnitudes import magnitudes as magnitudes
from diffdeblend.sky import local_jacobian, sky_positions

# Standard deviation of an angle that may be anything within 180 degrees: none is known worse.
_UNKNOWN_ANGLE = 180 / np.sqrt(12)
_COUNTS = u.dimensionless_unscaled


class Flag(IntFlag):
    """What to know about a source before its numbers are used; bits of the column `flags`."""

    NOT_CONVERGED = 1
    NON_FINITE = 2
    NEGATIVE_FLUX = 4
    AT_BOUND = 8
    MOVED = 16
    NEAR_EDGE = 32
    MASKED = 64
    POOR_FIT = 128
    FREE_FORM = 256
    CROWDED = 512
    CONTESTED = 1024
    OUT_OF_DOMAIN = 2048


FLAG_MEANINGS: Mapping[Flag, str] = {
    Flag.NOT_CONVERGED: "the fit stopped before its own criterion was met",
    Flag.NON_FINITE: "a value or an error is not finite",
    Flag.NEGATIVE_FLUX: "the total flux is negative in some band",
    Flag.AT_BOUND: "index, radius or ellipticity is at the end of its domain",
    Flag.MOVED: "the centre ended more than 1.5 pixels from where it started",
    Flag.NEAR_EDGE: "the centre is closer than 3 pixels to the border of the image",
    Flag.MASKED: "a pixel within 2 pixels of the centre is not used in some band",
    Flag.POOR_FIT: "reduced chi2 in the source's own pixels is above 1.5",
    Flag.FREE_FORM: "refined with free pixels; shape and errors are those of the model before",
    Flag.CROWDED: "part of a larger group of sources that was divided or cut short",
    Flag.CONTESTED: "free pixels changed its flux, and some of that may be a neighbour's light",
    Flag.OUT_OF_DOMAIN: "no galaxy of the learned prior: its latents or residuals are too large",
}


@dataclass(frozen=True, eq=False)
class Sources:
    """What was measured of each source. Host side: numpy arrays in pixels, as the fit has it.

    - `x`, `y`, `x_err`, `y_err`: centre and its error, `(source,)`, in pixels.
    - `flux`, `flux_err`: total flux, `(source, band)`, in the unit of the exposure.
    - `model`: name of the model of each.
    - `shape`: `(source,)` each, NaN where the model has none: `radius` (half-light, in pixels, of
        the round profile before the shear), `index`, `g1`, `g2` (reduced shear), `radius_ratio`
        and `shear_ratio` (bulge over disc), and the error of each under its name with `_err`.
    - `bulge_flux`: flux of the bulge, `(source, band)`; NaN where there is none.
    - `flags`: bits of `Flag`, `(source,)`.
    - `reduced_chi2`: in the source's own pixels, `(source,)`.
    - `n_parameters`: free numbers of the source's model, `(source,)`.
    - `snr`: signal-to-noise ratio of the source's light in all bands together, `(source,)`.
    - `support`: of fits under a learned prior, the columns of `SUPPORT_MEANINGS`, `(source,)` each.
    """

    x: Float[np.ndarray, "source"]
    y: Float[np.ndarray, "source"]
    x_err: Float[np.ndarray, "source"]
    y_err: Float[np.ndarray, "source"]
    flux: Float[np.ndarray, "source band"]
    flux_err: Float[np.ndarray, "source band"]
    model: Sequence[str]
    shape: Mapping[str, Float[np.ndarray, "source"]]
    bulge_flux: Float[np.ndarray, "source band"]
    flags: Int[np.ndarray, "source"]
    reduced_chi2: Float[np.ndarray, "source"]
    n_parameters: Int[np.ndarray, "source"]
    snr: Float[np.ndarray, "source"]
    support: Mapping[str, Shaped[np.ndarray, "source"]] = field(default_factory=dict)


SUPPORT_MEANINGS: Mapping[str, str] = {
    "latent_norm": "Squared length of the latent of the decoded galaxy",
    "latent_quantile": "Its place among those of the prior's population at this noise",
    "own_chi2": "Mean squared residual over variance in the source's own light",
    "own_quantile": "Its place among those of a model that is right",
    "replaced": "Whether another model explains it better than the prior's galaxies, and took over",
    "decoder_log_odds": "Logarithm of the odds of the decoder against other models; NaN if untried",
}


def make_catalog(sources: Sources, header: Header) -> QTable:
    """The sources as a table, a row each; every column says what it is and in which unit.

    Columns `id`, `x`, `y`, `model`, `flux_<band>`, the shape, `flags` and more; `ra`, `dec`, sizes
    in arcseconds and angles on the sky where the header has a WCS, magnitudes where it has zero
    points, `bulge_fraction_<band>` where a source has a bulge. Errors are one standard deviation,
    marginal over all other numbers of the fit. `meta` holds provenance and the meaning of the
    flags.

    **Raises:** `ValueError` if the fluxes are not those of the header's bands.
    """
    n = len(sources.x)
    for name in ("flux", "flux_err", "bulge_flux"):
        shape = np.shape(getattr(sources, name))
        if shape != (n, len(header.bands)):
            raise ValueError(
                f"`{name}` needs shape ({n}, {len(header.bands)}) for bands {header.bands}; "
                f"got {shape}."
            )
    table: Any = QTable()
    columns = [
        *_places(sources, header),
        *_light(sources, header),
        *_shapes(sources, header),
        *_quality(sources),
    ]
    for name, values, unit, description in columns:
        table[name] = values if unit is None else u.Quantity(np.asarray(values, float), unit)
        table[name].info.description = description
    table.meta.update(_meta(header))
    return table


def flag_names(flags: int) -> list[str]:
    """Names of the bits that are set."""
    return [flag.name or "" for flag in Flag if flags & flag]


def versions() -> dict[str, str]:
    """Versions of all that made the numbers."""
    found = {"diffdeblend": __version__, "python": platform.python_version()}
    for package in ("jax", "jaxlib", "equinox", "numpy", "scipy", "astropy"):
        found[package] = metadata.version(package)
    return found


def ellipse(
    radius: Float[np.ndarray, "*s"],
    g1: Float[np.ndarray, "*s"],
    g2: Float[np.ndarray, "*s"],
    frame: Float[np.ndarray, "*s 2 2"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-light ellipse in another frame: radius, axis ratio, position angle.

    - `radius`: geometric mean of the half axes, in pixels.
    - `frame`: step along the frame's first and second axis (rows) for a step of one pixel along x
        and y (columns).

    The radius is again the geometric mean of the half axes; the angle of the long axis counts from
    the frame's first axis towards its second, in degrees from 0 to 180.
    """
    norm = radius / np.sqrt(1 - g1**2 - g2**2)
    sheared = np.stack([np.stack([1 + g1, g2], -1), np.stack([g2, 1 - g1], -1)], -2)
    # Columns: images of the round profile's two half axes.
    half = frame @ (norm[..., None, None] * sheared)
    squared = half @ np.swapaxes(half, -1, -2)
    a, b, c = squared[..., 0, 0], squared[..., 1, 1], squared[..., 0, 1]
    largest = 0.5 * (a + b) + np.hypot(0.5 * (a - b), c)
    area = _area(half)
    angle = np.rad2deg(0.5 * np.arctan2(2 * c, a - b)) % 180
    # The smallest negative numbers come out as 180 itself.
    return np.sqrt(area), area / largest, np.where(angle >= 180, 0.0, angle)


def _area(matrix: Float[np.ndarray, "*s 2 2"]) -> Float[np.ndarray, "*s"]:
    """Of the parallelogram of the columns. NumPy's own determinant warns of NaN."""
    product = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    return np.abs(product)


Column = tuple[str, Any, Any, str]  # name, values, unit or None, description


def _places(sources: Sources, header: Header) -> Iterator[Column]:
    n = len(sources.x)
    yield "id", np.arange(1, n + 1), None, "Number of the source in this blend, from 1"
    for axis, other in (("x", "column"), ("y", "row")):
        yield (
            axis,
            getattr(sources, axis),
            u.pix,
            f"Centre along {axis} ({other}); the first pixel is centred on 0",
        )
        yield f"{axis}_err", getattr(sources, f"{axis}_err"), u.pix, f"Error of {axis}"
    if header.wcs is not None:
        ra, dec = sky_positions(header, sources.x, sources.y)
        yield "ra", ra, u.deg, "Right ascension of the centre, ICRS"
        yield "dec", dec, u.deg, "Declination of the centre, ICRS"
    yield "model", np.array(sources.model, dtype=str), None, "Model of the source's light"


def _light(sources: Sources, header: Header) -> Iterator[Column]:
    unit = flux_unit(header)
    for k, band in enumerate(header.bands):
        flux, error = sources.flux[:, k], sources.flux_err[:, k]
        yield f"flux_{band}", flux, unit, f"Total flux in {band}"
        yield f"flux_err_{band}", error, unit, f"Error of the total flux in {band}"
    for k, band in enumerate(header.bands):
        if header.zero_points is None:
            break
        magnitude, error = magnitudes(
            sources.flux[:, k], sources.flux_err[:, k], header.zero_points[k]
        )
        yield f"mag_{band}", magnitude, u.mag, f"AB magnitude in {band}; NaN without positive flux"
        yield f"mag_err_{band}", error, u.mag, f"Error of the magnitude in {band}, first order"
    if np.isfinite(sources.bulge_flux).any():
        for k, band in enumerate(header.bands):
            total = sources.flux[:, k]
            share = sources.bulge_flux[:, k] / np.where(total == 0, np.nan, total)
            yield (
                f"bulge_fraction_{band}",
                share,
                _COUNTS,
                f"Share of the flux in {band} that is in the bulge; NaN without a bulge",
            )


def _shapes(sources: Sources, header: Header) -> Iterator[Column]:
    shape = {name: np.asarray(values, dtype=float) for name, values in sources.shape.items()}
    radius, g1, g2 = shape["radius"], shape["g1"], shape["g2"]
    for name, unit, description in (
        ("radius", u.pix, "Half-light radius before the PSF, geometric mean of the two half axes"),
        ("index", _COUNTS, "Sersic index"),
        ("g1", _COUNTS, "Reduced shear, positive along x"),
        ("g2", _COUNTS, "Reduced shear, positive along the diagonal x = y"),
        ("radius_ratio", _COUNTS, "Half-light radius of the bulge over that of the disc"),
        ("shear_ratio", _COUNTS, "Shear of the bulge over that of the disc, in mapped variables"),
    ):
        yield name, shape[name], unit, f"{description}; NaN if the model has none"
        yield f"{name}_err", shape[f"{name}_err"], unit, f"Error of {name}"
    flat = np.broadcast_to(np.eye(2), (len(radius), 2, 2))
    _, ratio, angle = ellipse(radius, g1, g2, flat)
    ratio_err, angle_err = _ellipse_errors(shape, flat)
    yield "axis_ratio", ratio, _COUNTS, "Short over long axis, (1 - |g|) / (1 + |g|)"
    yield "axis_ratio_err", ratio_err, _COUNTS, "Error of axis_ratio"
    yield "position_angle", angle, u.deg, "Angle of the long axis from +x towards +y, 0 to 180"
    yield "position_angle_err", angle_err, u.deg, "Error of position_angle, at most 52 (unknown)"
    if header.wcs is None:
        return
    # North first: position angles on the sky count from north towards east.
    sky = local_jacobian(header, sources.x, sources.y)[..., ::-1, :]
    sky_radius, sky_ratio, sky_angle = ellipse(radius, g1, g2, sky)
    sky_ratio_err, sky_angle_err = _ellipse_errors(shape, sky)
    scale = np.sqrt(_area(sky))
    yield "radius_arcsec", sky_radius, u.arcsec, "Half-light radius on the sky, as radius"
    yield "radius_arcsec_err", shape["radius_err"] * scale, u.arcsec, "Error of radius_arcsec"
    yield "axis_ratio_sky", sky_ratio, _COUNTS, "Short over long axis on the sky"
    yield "axis_ratio_sky_err", sky_ratio_err, _COUNTS, "Error of axis_ratio_sky"
    yield (
        "position_angle_sky",
        sky_angle,
        u.deg,
        "Angle of the long axis on the sky from north towards east, 0 to 180",
    )
    yield (
        "position_angle_sky_err",
        sky_angle_err,
        u.deg,
        "Error of position_angle_sky, at most 52 (unknown)",
    )


def _ellipse_errors(
    shape: Mapping[str, np.ndarray], frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of axis ratio and angle: their changes for one sigma of g1 and of g2, in quadrature.

    Steps of one sigma, not derivatives: at g = 0 the axis ratio has a kink, and no derivative.
    """
    radius, g1, g2 = shape["radius"], shape["g1"], shape["g2"]
    _, ratio, angle = ellipse(radius, g1, g2, frame)
    by_ratio, by_angle = np.zeros_like(ratio), np.zeros_like(angle)
    for step_1, step_2 in ((shape["g1_err"], 0.0), (0.0, shape["g2_err"])):
        largest_ratio, largest_angle = np.zeros_like(ratio), np.zeros_like(angle)
        for sign in (1, -1):
            moved_1, moved_2 = g1 + sign * step_1, g2 + sign * step_2
            # No ellipse is flatter than a line.
            inside = 0.999 / np.maximum(np.hypot(moved_1, moved_2), 0.999)
            _, ratio_there, angle_there = ellipse(radius, moved_1 * inside, moved_2 * inside, frame)
            turn = np.abs((angle_there - angle + 90) % 180 - 90)
            largest_ratio = np.maximum(largest_ratio, np.abs(ratio_there - ratio))
            largest_angle = np.maximum(largest_angle, turn)
        by_ratio += largest_ratio**2
        by_angle += largest_angle**2
    return np.sqrt(by_ratio), np.minimum(np.sqrt(by_angle), _UNKNOWN_ANGLE)


def _quality(sources: Sources) -> Iterator[Column]:
    yield "snr", sources.snr, _COUNTS, "Signal-to-noise ratio of the light in all bands together"
    yield (
        "reduced_chi2",
        sources.reduced_chi2,
        _COUNTS,
        "Squared residual over variance, mean over the source's own pixels",
    )
    yield (
        "n_parameters",
        np.asarray(sources.n_parameters, dtype=int),
        None,
        "Number of free parameters of the source's model",
    )
    for name, values in sources.support.items():
        # A yes or no has no unit, and stays one.
        yield name, values, None if values.dtype == bool else _COUNTS, SUPPORT_MEANINGS[name]
    bits = "; ".join(f"{flag.value} {flag.name}: {text}" for flag, text in FLAG_MEANINGS.items())
    yield "flags", np.asarray(sources.flags, dtype=np.int32), None, f"Sum of bits. {bits}"


def _meta(header: Header) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "bands": list(header.bands),
        "zero_points": None if header.zero_points is None else list(header.zero_points),
        "flux_unit": header.unit,
        "pixel_scale": header.pixel_scale,
        **what_numbers_mean(),
    }


def what_numbers_mean() -> dict[str, Any]:
    """Of errors and flags, for the `meta` of a catalogue."""
    return {
        "errors": "one standard deviation, marginal over all other numbers of the fit",
        "flags": {
            str(flag.name): {"value": flag.value, "meaning": text}
            for flag, text in FLAG_MEANINGS.items()
        },
    }
