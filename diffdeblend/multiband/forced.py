"""The same places and shapes measured in every band."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffdeblend.exposure import Exposure
from diffdeblend.footprints.records import SourceRecords
from diffdeblend.header import Header
from diffdeblend.quantities.aperture_flux import MeasureApertures
from diffdeblend.quantities.gaussian_flux import gaussian_flux
from diffdeblend.quantities.kron_flux import ellipse_flux
from diffdeblend.quantities.measure_cmodel import MeasureForcedCModel
from diffdeblend.quantities.measure_sources import SIZES, Columns, measure_sources
from diffdeblend.quantities.pixel_flags import MeasurePixelFlags
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.quantities.reach import leaves_image, leaves_stamp
from diffdeblend.quantities.shape import axes, measure_psf_shape, shape_or_psf
from diffdeblend.quantities.stamp import SourceStamp
from diffdeblend.quantities.standard import Measurement
from diffdeblend.sky import local_jacobian, pixel_positions, sky_positions

Found = Mapping[str, Mapping[str, Array]]
_SQUARE = ("xx", "yy", "xy")


@dataclass(frozen=True)
class ForcedKron:
    """The light in the Kron aperture of the reference: `flux`, `flux_err`, `flag`, `flag_edge`.

    - `radii`: the aperture in units of the Kron radius.
    """

    radii: float = 2.5

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        x, y = found["centroid"]["x"], found["centroid"]["y"]
        xx, yy, xy, _ = shape_or_psf(found)
        a, b, theta = axes(xx, yy, xy)
        radius = found["kron"]["radius"]
        known = jnp.isfinite(radius) & jnp.isfinite(x) & jnp.isfinite(y)
        radius = jnp.where(known, radius, 1.0)
        major, minor = self.radii * radius * jnp.sqrt(a / b), self.radii * radius * jnp.sqrt(b / a)
        flux, error = ellipse_flux(stamp.image, stamp.variance, x, y, major, minor, theta)
        size = stamp.image.shape[0], stamp.image.shape[1]
        edge = leaves_image(stamp, x, y, major, major)
        cut = leaves_stamp(size, x, y, major, major)
        return {
            "flux": jnp.where(known, flux, jnp.nan),
            "flux_err": jnp.where(known, error, jnp.nan),
            "reach": major + 1.5,
            "flag": ~known | edge | cut | found["centroid"]["flag"],
            "flag_edge": edge,
        }


@dataclass(frozen=True)
class ForcedCModel:
    """The flux of the reference's two ellipses, as `MeasureForcedCModel` has it.

    Flag: `flag`, for its reasons, or the reference's own CModel is flagged or not known.

    - `hold_mix`: whether the share of the two is that of the reference, too. Then fluxes are linear
        in the image, and colours are those of one light.
    """

    hold_mix: bool = True

    def __call__(self, stamp: SourceStamp, found: Found) -> dict[str, Array]:
        held = found["cmodel"]
        ellipses = [f"{part}_{key}" for part in ("exp", "dev") for key in _SQUARE]
        known = jnp.isfinite(held["frac_dev"])
        for name in ellipses:
            known &= jnp.isfinite(held[name])
        # What is not known is drawn round: no NaN may come of it before it is dropped.
        safe = {
            name: jnp.where(known, held[name], float(name[-2] == name[-1])) for name in ellipses
        }
        safe["frac_dev"] = jnp.where(known, held["frac_dev"], 0.0)
        measured = MeasureForcedCModel("cmodel", self.hold_mix)
        made = measured(stamp, {**found, "cmodel": safe})
        for name in ("flux", "flux_err"):
            made[name] = jnp.where(known, made[name], jnp.nan)
        return {**made, "flag": made["flag"] | ~known | held["flag"]}


def measure_forced_gaussian(stamp: SourceStamp, found: Found) -> dict[str, Array]:
    """Flux through the Gaussian of the reference's shape: `flux`, `flux_err`, `flag`."""
    x, y = found["centroid"]["x"], found["centroid"]["y"]
    xx, yy, xy, failed = shape_or_psf(found)
    made = gaussian_flux(stamp.image, stamp.variance, x, y, xx, yy, xy)
    return {
        "flux": made.flux,
        "flux_err": made.flux_err,
        "flag": failed | found["centroid"]["flag"],
    }


# What is measured at a place and with a shape that are known; in their order.
FORCED: Mapping[str, Measurement] = MappingProxyType(
    {
        "psf_shape": measure_psf_shape,
        "pixel": MeasurePixelFlags(),
        "psf": measure_psf_flux,
        "gaussian": measure_forced_gaussian,
        "aperture": MeasureApertures(),
        "forced_kron": ForcedKron(),
    }
)
# With CModel, where the reference has one.
FORCED_CMODEL: Mapping[str, Measurement] = MappingProxyType(
    {**FORCED, "forced_cmodel": ForcedCModel()}
)
# What a measurement finds of the reference: columns of each name.
_HELD = {
    "centroid": ("x", "y", "flag"),
    "shape": ("xx", "yy", "xy", "flag"),
    "kron": ("radius",),
    "cmodel": (*(f"{p}_{k}" for p in ("exp", "dev") for k in _SQUARE), "frac_dev", "flag"),
}


def forced_photometry(
    exposure: Exposure,
    reference: Mapping[str, Any],
    *,
    records: Mapping[str, SourceRecords] | None = None,
    header: Header | None = None,
    measurements: Mapping[str, Measurement] | None = None,
    noise: str | float = "measure",
    sizes: tuple[int, ...] = SIZES,
    seed: int = 1,
) -> dict[str, Columns]:
    """Fluxes in each band at places and with shapes that are known from elsewhere. Host side.

    - `exposure`: without its sky; all of its bands are measured.
    - `reference`: columns with a row a source: `centroid_x`, `centroid_y` (pixels), `shape_xx`,
        `shape_yy`, `shape_xy` (px^2), `kron_radius` (pixels) and for CModel `cmodel_exp_xx` and so
        on; `*_flag` where they are known. Such as `measure_sources` gives, or a table of it.
    - `records`: of each band, a row for each of `reference`: their pixels are measured with all
        others replaced by noise. Without it nothing is replaced.
    - `header`: of the exposure that `reference` was measured on, if it is another: places and
        shapes are taken over by the two WCSs.

    - `measurements`: by name; default `FORCED`, with CModel where the reference has one.

    Returns the columns of each band, in the order of the rows of `reference`.

    **Raises:** `ValueError` for columns that are missing, records of another length, or a `header`
    without a WCS.
    """
    given = held_columns(reference)
    if measurements is None:
        measurements = FORCED_CMODEL if "cmodel" in given else FORCED
    if header is not None:
        given = _on_other_pixels(given, header, exposure.header)
    place = np.stack([given["centroid"]["x"], given["centroid"]["y"]], axis=1)
    out = {}
    for band in exposure.bands:
        rows = place if records is None else records[band]
        if len(rows) != len(place):
            raise ValueError(
                f"`records` of band {band!r} need a row for each of the {len(place)} of "
                f"`reference`; got {len(rows)}."
            )
        made = measure_sources(
            exposure,
            rows,
            band=band,
            measurements=measurements,
            places=place,
            given=given,
            noise=noise,
            sizes=sizes,
            seed=seed,
        )
        out[band] = _measured_columns(made)
    return out


def _measured_columns(made: Columns) -> Columns:
    """Without what was given; forced measurements by the names of those they stand for."""
    held = [f"{name}_{key}" for name, keys in _HELD.items() for key in keys]
    return {
        name.removeprefix("forced_"): values for name, values in made.items() if name not in held
    }


def held_columns(reference: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """What forced measurements take from the reference, by measurement and key.

    **Raises:** `ValueError` where the centroid is missing.
    """
    names = set(getattr(reference, "colnames", None) or reference.keys())
    if not {"centroid_x", "centroid_y"} <= names:
        raise ValueError(
            f"`reference` needs the columns centroid_x and centroid_y; got {sorted(names)[:8]}..."
        )

    def column(name: str) -> np.ndarray:
        values: Any = reference[name]
        return np.asarray(getattr(values, "value", values))

    n = len(column("centroid_x"))
    given: dict[str, dict[str, np.ndarray]] = {}
    for name, keys in _HELD.items():
        own = {key: column(f"{name}_{key}") for key in keys if f"{name}_{key}" in names}
        if "flag" in keys:
            own.setdefault("flag", np.zeros(n, bool))
        given[name] = own
    if not set(_SQUARE) <= set(given["shape"]):
        # The shape of the PSF stands in.
        given["shape"] = dict.fromkeys(_SQUARE, np.full(n, np.nan)) | {"flag": np.ones(n, bool)}
    if "radius" not in given["kron"]:
        given["kron"] = {"radius": np.full(n, np.nan)}
    if "exp_xx" not in given["cmodel"]:
        del given["cmodel"]
    return given


def _on_other_pixels(given: dict, old: Header, new: Header) -> dict:
    """Places and shapes of one WCS as those of another."""
    x, y = given["centroid"]["x"], given["centroid"]["y"]
    known = np.isfinite(x) & np.isfinite(y)
    at = np.where(known, x, 0.0), np.where(known, y, 0.0)
    there = pixel_positions(new, *sky_positions(old, *at))
    to_sky, from_sky = local_jacobian(old, *at), local_jacobian(new, *there)
    step = np.linalg.solve(from_sky, to_sky)
    area = np.abs(np.linalg.det(step))
    given = {name: dict(columns) for name, columns in given.items()}
    for key, values in zip(("x", "y"), there, strict=True):
        given["centroid"][key] = np.where(known, values, np.nan)

    def turned(columns: dict, prefix: str = "") -> None:
        xx, yy, xy = (columns[f"{prefix}{key}"] for key in _SQUARE)
        form = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
        form = step @ form @ np.swapaxes(step, -1, -2)
        columns[f"{prefix}xx"], columns[f"{prefix}yy"] = form[..., 0, 0], form[..., 1, 1]
        columns[f"{prefix}xy"] = form[..., 0, 1]

    turned(given["shape"])
    given["kron"]["radius"] = given["kron"]["radius"] * np.sqrt(area)
    if "cmodel" in given:
        turned(given["cmodel"], "exp_")
        turned(given["cmodel"], "dev_")
    return given
