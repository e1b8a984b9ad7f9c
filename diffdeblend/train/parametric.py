"""Learn a prior of parametric galaxies, from a catalogue or from fits with errors. Host side."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import gammainc, gammaincinv

from diffdeblend.batch.results import Found
from diffdeblend.parameters import DISK, Interval
from diffdeblend.priors.decoder_prior import Training
from diffdeblend.priors.features import KINDS, MICROJANSKY, SHAPES
from diffdeblend.priors.parametric_prior import ParametricPrior
from diffdeblend.simulate import Catalog, Parts
from diffdeblend.train.fitted_table import FittedTable
from diffdeblend.train.mixture import MixtureSettings, fit_mixture

# The intervals of index and shear ratio in a fit.
_INDEX, _SHEAR = Interval(0.5, 6.2), Interval(0.0, 1.4)
# Fits that stop at the end of an interval have no finite logit: so near to an end counts as there.
_END = 0.02
_POGSON = 2.5 / np.log(10)


class Features(NamedTuple):
    """Features of galaxies, as `ParametricPrior` has them.

    - `values`: `(galaxy, feature)`; `errors`: covariances of their errors, `(galaxy, feature,
        feature)`, or None.
    - `rows`: which rows of the source they are.
    """

    values: Float[np.ndarray, "galaxy feature"]
    errors: Float[np.ndarray, "galaxy feature feature"] | None
    names: tuple[str, ...]
    bands: tuple[str, ...]
    family: str
    softening: float
    rows: np.ndarray


def catalog_features(
    catalog: Catalog,
    family: str = "sersic",
    *,
    bands: Sequence[str] = (),
    softening: float | None = None,
) -> Features:
    """Features of the galaxies of a catalogue with shapes; stars and points are left out.

    As one Sersic galaxy, what has several parts gets the half-light radius of the whole, the mean
    shear of its parts by light, and the index whose light is as concentrated (radius of 80 % over
    that of 20 %). As bulge and disc only galaxies with both an index of 1 and one of 4 count.

    - `bands`: for magnitude (of the first) and colours: columns `{band}_ab`, or for any band `MAG`
        or `magnitude` where there is no column of that form and it is the only band.
    - `softening`: of the asinh magnitudes, in microjansky; by default a quarter of the flux of the
        faintest hundredth.

    **Raises:** `ValueError` for a family that a catalogue does not know, a catalogue without shapes
    or without the magnitudes, or if no galaxy is left.
    """
    if family not in ("sersic", "bulge_disc"):
        raise ValueError(f"`family` must be sersic or bulge_disc; got {family!r}.")
    if catalog.parts is None:
        raise ValueError("`catalog` has no shapes, only images: fit them, and learn from the fits.")
    parts = catalog.parts
    whole = np.asarray(catalog.table["size"], dtype=float)
    light = [_magnitudes(catalog, band, len(bands)) for band in bands]
    usable = ~np.asarray(catalog.table["is_star"], bool) & (parts.share.sum(axis=1) > 0)
    usable &= np.all([np.isfinite(m) for m in light], axis=0) if light else True
    if family == "sersic":
        usable &= whole > 0
        rows = np.flatnonzero(usable)
        part = parts.select(rows)
        values = [np.log(whole[rows]), *_shear(part, part.share), _logit(_concentrated(part))]
    else:
        disc, bulge = (((parts.index == n) & (parts.radius > 0)) * parts.share for n in (1.0, 4.0))
        rows = np.flatnonzero(usable & (disc.max(axis=1) > 0) & (bulge.max(axis=1) > 0))
        part = parts.select(rows)
        first, second = (v[rows].argmax(axis=1)[:, None] for v in (disc, bulge))
        radii = [np.take_along_axis(part.radius, at, 1)[:, 0] for at in (first, second)]
        e = _mapped(part)
        shear = [np.take_along_axis(e, at[..., None], 1)[:, 0] for at in (first, second)]
        square = np.sum(shear[0] ** 2, axis=1)
        ratio = np.sum(shear[0] * shear[1], axis=1) / np.where(square > 0, square, 1)
        values = [
            np.log(radii[0]),
            *shear[0].T,
            np.log(radii[1] / radii[0]),
            _logit(np.where(square > 0, ratio, 0.7), _SHEAR),
        ]
    if not len(rows):
        raise ValueError(f"`catalog` has no galaxy of the family {family!r}.")
    flux = [10 ** (0.4 * (MICROJANSKY - m[rows])) for m in light]
    if softening is None:
        softening = float(np.quantile(flux[0], 0.01)) / 4 if light else 1.0
    magnitude = [_asinh(f, softening) for f in flux]
    values += [magnitude[0], *(m - magnitude[0] for m in magnitude[1:])] if light else []
    names = (*SHAPES[family], *_light_names(bands))
    return Features(np.stack(values, 1), None, names, tuple(bands), family, softening, rows)


def fitted_features(
    found: Found | FittedTable,
    family: str = "sersic",
    *,
    pixel_scale: float,
    zero_points: Sequence[float] | None = None,
    bands: Sequence[str] = (),
    softening: float | None = None,
    least_snr: float = 10.0,
    keep: Bool[np.ndarray, "source"] | None = None,
) -> Features:
    """Features of fitted sources with their errors, which learning takes out.

    - `found`: from `fit_batch`, or `read_fitted`; of its sources those of the family, of converged
        blends.
    - `pixel_scale`: in arcseconds. `zero_points`: AB magnitude of one unit of flux, and `bands`:
        names, both of each band of the fits; without names there are no features of light.
    - `least_snr`: of the flux in any band. In fits of fainter sources the prior that they were made
        with speaks louder than the data.
    - `keep`: which sources may count, such as those without neighbours.

    **Raises:** `ValueError` for an unknown family, a pixel scale that is not positive, bands
    without zero points, or if no source is left.
    """
    if family not in SHAPES:
        raise ValueError(f"`family` must be one of {list(SHAPES)}; got {family!r}.")
    if not pixel_scale > 0:
        raise ValueError(f"`pixel_scale` must be positive, in arcseconds; got {pixel_scale}.")
    points = np.asarray([] if zero_points is None else zero_points, dtype=float)
    if bands and (points.shape != (found.bands,) or len(bands) != found.bands):
        raise ValueError(f"`bands` and `zero_points` need one entry for each of {found.bands}.")
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.nanmax(np.where(found.flux_err > 0, found.flux / found.flux_err, 0), axis=1)
    usable = (found.kind == KINDS[family]) & found.converged[found.blend] & (snr > least_snr)
    usable &= (found.radius > 0) & np.isfinite(found.radius_err) & (found.radius_err > 0)
    if keep is not None:
        usable &= keep
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise ValueError(
            f"`found` has no converged source of the family {family!r} above a signal-to-noise "
            f"ratio of {least_snr}."
        )
    g = found.ellipticity[rows]
    values = [np.log(found.radius[rows] * pixel_scale), *np.asarray(_to_disk(g)).T]
    spread = [(found.radius_err / found.radius)[rows] ** 2]
    if family == "sersic":
        values.append(_logit(found.index[rows]))
        spread.append((found.index_err[rows] * _slope(found.index[rows], _INDEX)) ** 2)
    if family == "bulge_disc":
        ratio, shear = found.radius_ratio[rows], found.shear_ratio[rows]
        values += [np.log(ratio), _logit(shear, _SHEAR)]
        spread += [
            (found.radius_ratio_err[rows] / ratio) ** 2,
            (found.shear_ratio_err[rows] * _slope(shear, _SHEAR)) ** 2,
        ]
    n_shapes = len(SHAPES[family])
    n = n_shapes + len(bands)
    errors = np.zeros((len(rows), n, n))
    of_rest = np.array([0, *range(3, n_shapes)])
    errors[:, of_rest, of_rest] = np.stack(spread, axis=1)
    by_shear = _disk_slopes(g)
    errors[:, 1:3, 1:3] = np.einsum(
        "nij,nj,nkj->nik", by_shear, found.ellipticity_err[rows] ** 2, by_shear
    )
    soft = 1.0 if softening is None else softening
    if bands:
        to_micro = 10 ** (0.4 * (MICROJANSKY - points))
        flux, sigma = found.flux[rows] * to_micro, found.flux_err[rows] * to_micro
        soft = float(np.median(sigma[:, 0])) if softening is None else softening
        magnitude = _asinh(flux, soft)
        variance = (_POGSON * sigma / np.sqrt(flux**2 + 4 * soft**2)) ** 2
        values += [magnitude[:, 0], *(magnitude[:, 1:] - magnitude[:, :1]).T]
        # Colours share the error of the first band.
        turn = np.eye(len(bands))
        turn[1:, 0] = -1
        errors[:, n_shapes:, n_shapes:] = np.einsum("ij,nj,kj->nik", turn, variance, turn)
    names = (*SHAPES[family], *_light_names(bands))
    return Features(np.stack(values, 1), errors, names, tuple(bands), family, soft, rows)


def usual_settings(n: int, seed: int = 0) -> MixtureSettings:
    """How a prior is learnt from the features of so many galaxies.

    1 to 12 components, of 20 galaxies at least, and a wide one of 2 %, so that a galaxy unlike all
    others is not forced into the crowd. No component is narrower than half of the crowd where
    galaxies are few, or a fifth where they are many: what is narrower pulls bright galaxies.
    """
    counts = tuple(k for k in (1, 2, 4, 8, 12) if k == 1 or 20 * k <= n)
    floor = float(np.clip(5 / np.sqrt(n), 0.2, 0.5))
    return MixtureSettings(n_components=counts, outliers=0.02, floor=floor, seed=seed)


def learn_parametric(
    features: Features,
    *,
    population: str,
    settings: MixtureSettings | None = None,
    weights: Float[np.ndarray, "galaxy"] | None = None,
) -> ParametricPrior:
    """A prior from the features of galaxies; errors, where they have some, are taken out.

    - `population`: what the galaxies are, in words, for the record.
    - `settings`: by default those of `usual_settings`. The two ellipticities are always isotropic.
    - `weights`: how much each galaxy counts.

    **Raises:** `ValueError` as `fit_mixture` does.

    ??? cite
        Hogg, Myers & Bovy (2010), ApJ 725, 2166; Bovy, Hogg & Roweis (2011), AOAS 5, 1657.
    """
    if settings is None:
        settings = usual_settings(len(features.values))
    at = features.names.index("e1")
    given = {**asdict(settings), "isotropic": ((at, at + 1),)}
    found = fit_mixture(
        features.values,
        errors=features.errors,
        weights=weights,
        settings=MixtureSettings(**given),
    )
    text = json.dumps(
        {"names": features.names, "bands": features.bands, "family": features.family, **given},
        sort_keys=True,
    )
    digest = hashlib.sha256(text.encode())
    for array in (features.values, features.errors, weights):
        if array is not None:
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    training = Training(
        population,
        text,
        digest.hexdigest(),
        settings.seed,
        len(features.values),
        # Both in nats a galaxy: of all at the end, and of those held out.
        float(found.loss),
        float(min(found.losses.values())),
        tuple((name, version(name)) for name in ("numpy", "scipy")),
    )
    return ParametricPrior(
        found.mixture, features.softening, features.family, features.names, features.bands, training
    )


# Small helpers.


def _light_names(bands: Sequence[str]) -> list[str]:
    return ["magnitude", *(f"colour_{band}" for band in bands[1:])] if bands else []


def _magnitudes(catalog: Catalog, band: str, n_bands: int) -> np.ndarray:
    columns = [f"{band}_ab", band]
    # Where bands have names, another name is a mistake.
    if n_bands == 1 and not any(name.endswith("_ab") for name in catalog.table.colnames):
        columns += ["MAG", "magnitude"]
    for name in columns:
        if name in catalog.table.colnames:
            return np.ma.filled(np.ma.asarray(catalog.table[name], float), np.nan)
    raise ValueError(f"`catalog` lacks {columns[0]}; it has {catalog.table.colnames}.")


def _asinh(flux: np.ndarray, softening: float) -> np.ndarray:
    """As `asinh_magnitude`, in double precision."""
    return MICROJANSKY - _POGSON * (np.arcsinh(flux / (2 * softening)) + np.log(softening))


def _logit(value: np.ndarray, domain: Interval = _INDEX) -> np.ndarray:
    share = np.clip((value - domain.low) / (domain.high - domain.low), _END, 1 - _END)
    return np.log(share) - np.log1p(-share)


def _slope(value: np.ndarray, domain: Interval) -> np.ndarray:
    """Of the logit by the value."""
    share = np.clip((value - domain.low) / (domain.high - domain.low), _END, 1 - _END)
    return 1 / ((domain.high - domain.low) * share * (1 - share))


def _to_disk(g: np.ndarray) -> np.ndarray:
    """As the domain `unit_disk` maps a shear, in double precision."""
    inside = g / DISK.limit
    squared = np.minimum(np.sum(inside**2, axis=-1, keepdims=True), 0.99)
    return inside / np.sqrt(1 - squared)


def _disk_slopes(g: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2 2"]:
    """Of the mapped shear by the shear."""
    inside = g / DISK.limit
    left = 1 - np.minimum(np.sum(inside**2, axis=-1), 0.99)[:, None, None]
    outer = inside[:, :, None] * inside[:, None, :]
    return (np.eye(2) + outer / left) / np.sqrt(left) / DISK.limit


def _mapped(parts: Parts) -> Float[np.ndarray, "row part 2"]:
    return _to_disk(np.stack([parts.g1, parts.g2], axis=-1))


def _shear(parts: Parts, share: np.ndarray) -> np.ndarray:
    return np.einsum("np,npi->in", share, _mapped(parts))


def _concentrated(parts: Parts) -> Float[np.ndarray, "row"]:
    """The index of the Sersic profile that is as concentrated as the sum of the parts."""
    single = (parts.share > 0).sum(axis=1) == 1
    found = (parts.index * (parts.share > 0)).sum(axis=1)
    rows = np.flatnonzero(~single)
    if len(rows):
        several = parts.select(rows)
        ratio = _radius_of(several, 0.8) / _radius_of(several, 0.2)
        grid = np.linspace(0.3, 8, 400)
        own = (gammaincinv(2 * grid, 0.8) / gammaincinv(2 * grid, 0.2)) ** grid
        found[rows] = np.interp(ratio, own, grid)
    return found


def _radius_of(parts: Parts, share: float) -> Float[np.ndarray, "row"]:
    """Within which a share of the light of round parts lies, by bisection of its logarithm."""
    index = np.where(parts.share > 0, np.maximum(parts.index, 0.1), 1.0)
    b, scale = gammaincinv(2 * index, 0.5), np.maximum(parts.radius, 1e-4)
    top = np.where(parts.share > 0, scale, 0).max(axis=1)
    low, high = np.log(top) - 12, np.log(top) + 5
    for _ in range(45):
        middle = (low + high) / 2
        within = gammainc(2 * index, b * (np.exp(middle)[:, None] / scale) ** (1 / index))
        less = (parts.share * within).sum(axis=1) < share
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return np.exp((low + high) / 2)
