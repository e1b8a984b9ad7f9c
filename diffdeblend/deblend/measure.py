"""From a fit to what is told of each source: positions, fluxes, shapes and flags, with errors."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.components import AnySource, Kind
from diffdeblend.components.gaussian import MIXTURE_SCALES
from diffdeblend.deblend.catalog import Flag, Sources
from diffdeblend.deblend.choose import n_parameters
from diffdeblend.exposure import Exposure
from diffdeblend.fit import Fit
from diffdeblend.parameters import Interval, UnitDisk, domains

_SHAPES = {
    Kind.POINT: (),
    Kind.SERSIC: ("radius", "index", "g1", "g2"),
    Kind.BULGE_DISC: ("radius", "radius_ratio", "shear_ratio", "g1", "g2"),
    Kind.MULTI_GAUSSIAN: ("radius", "g1", "g2"),
}


def measure_sources(
    found: Fit,
    exposure: Exposure,
    names: Sequence[str],
    start: Float[np.ndarray, "source 2"],
    models: Float[np.ndarray, "source band y x"],
    reduced_chi2: Float[np.ndarray, "source"],
    refined: Bool[np.ndarray, "source"],
    flux: Float[np.ndarray, "source band"],
) -> Sources:
    """What the catalogue says of each source. Host side.

    - `found`: the parametric fit, a scene with one stack of `AnySource`.
    - `names`: of the models; `start`: positions given; `models`: final images of the sources.
    - `refined`: which sources became free pixels; `flux`: final total fluxes.
    """
    stack, sigma = found.scene.sources[0], found.errors.sources[0]
    active = np.flatnonzero(np.asarray(stack.active))
    values, errors = stack.members, sigma.members
    assert isinstance(values, AnySource)
    assert isinstance(errors, AnySource)
    kinds = [Kind(int(k)) for k in np.asarray(values.kind)[active]]
    x, y = (np.asarray(v, float)[active] for v in (values.x, values.y))
    shape = _shapes(values, errors, kinds, active)
    parts = np.asarray(values.flux, float)[active]
    bulge = np.where(np.array([k is Kind.BULGE_DISC for k in kinds])[:, None], parts[:, 1], np.nan)
    flux_err = np.asarray(found.flux_error, float)[active]
    weight = np.asarray(exposure.weight, float)
    snr = signal_to_noise(models, weight)
    n_free = np.array([n_parameters(k, exposure.n_bands) for k in kinds])
    finite = np.asarray(np.isfinite(flux).all(axis=1) & np.isfinite(flux_err).all(axis=1))
    for number, kind in enumerate(kinds):
        for name in _SHAPES[kind]:
            finite[number] &= bool(np.isfinite(shape[name][number]))
    flags = common_flags(x, y, start, flux, reduced_chi2, weight)
    for bit, where in (
        (Flag.NOT_CONVERGED, not bool(found.converged)),
        (Flag.NON_FINITE, ~finite),
        (Flag.AT_BOUND, _at_bound(values, shape)),
        (Flag.FREE_FORM, refined),
    ):
        flags |= np.where(where, int(bit), 0)
    return Sources(
        x=x,
        y=y,
        x_err=np.asarray(errors.x, float)[active],
        y_err=np.asarray(errors.y, float)[active],
        flux=flux,
        flux_err=flux_err,
        model=list(names),
        shape=shape,
        bulge_flux=bulge,
        flags=flags,
        reduced_chi2=reduced_chi2,
        n_parameters=n_free,
        snr=snr,
    )


def common_flags(
    x: Float[np.ndarray, "source"],
    y: Float[np.ndarray, "source"],
    start: Float[np.ndarray, "source 2"],
    flux: Float[np.ndarray, "source band"],
    reduced_chi2: Float[np.ndarray, "source"],
    weight: Float[np.ndarray, "band y x"],
) -> Int[np.ndarray, "source"]:
    """The flags that any model of a source may have: of its place, its light, its residuals."""
    ny, nx = weight.shape[1:]
    border = np.minimum.reduce([x, y, nx - 1 - x, ny - 1 - y])
    flags = np.zeros(len(x), dtype=int)
    for bit, where in (
        (Flag.NEGATIVE_FLUX, (flux < 0).any(axis=1)),
        (Flag.MOVED, np.hypot(x - start[:, 0], y - start[:, 1]) > 1.5),
        (Flag.NEAR_EDGE, border < 3),
        (Flag.MASKED, near_masked(x, y, weight)),
        (Flag.POOR_FIT, reduced_chi2 > 1.5),
    ):
        flags |= np.where(where, int(bit), 0)
    return flags


def signal_to_noise(
    models: Float[np.ndarray, "source band y x"], weight: Float[np.ndarray, "band y x"]
) -> Float[np.ndarray, "source"]:
    """Signal-to-noise ratio of each source's light, all bands together, were it alone."""
    return np.sqrt(np.sum(weight * models**2, axis=(1, 2, 3)))


def _shapes(
    values: AnySource, errors: AnySource, kinds: Sequence[Kind], active: np.ndarray
) -> dict[str, np.ndarray]:
    """The shape columns: NaN where a kind has no such number."""
    raw = {
        "radius": (values.radius, errors.radius),
        "index": (values.index, errors.index),
        "radius_ratio": (values.radius_ratio, errors.radius_ratio),
        "shear_ratio": (values.shear_ratio, errors.shear_ratio),
        "g1": (values.ellipticity[:, 0], errors.ellipticity[:, 0]),
        "g2": (values.ellipticity[:, 1], errors.ellipticity[:, 1]),
    }
    found: dict[str, np.ndarray] = {}
    for name, pair in raw.items():
        has = np.array([name in _SHAPES[kind] for kind in kinds])
        for column, array in zip((name, f"{name}_err"), pair, strict=True):
            found[column] = np.where(has, np.asarray(array, float)[active], np.nan)
    flux = np.asarray(values.flux, float)[active].sum(axis=2)
    for number, kind in enumerate(kinds):
        if kind is Kind.MULTI_GAUSSIAN:
            factor = _mixture_radius(flux[number])
            found["radius"][number] *= factor
            found["radius_err"][number] *= factor
    return found


def _mixture_radius(flux: Float[np.ndarray, "part"]) -> float:
    """Half-light radius of a mixture in units of its `radius`, its weights held."""
    # Here: it takes long to load.
    from scipy.optimize import brentq

    weight = np.maximum(flux, 0)
    if weight.sum() <= 0:
        return 1.0
    scales = np.array(MIXTURE_SCALES)

    def missing(r: float) -> float:
        return float(weight @ (0.5 - 2.0 ** (-((r / scales) ** 2))))

    root = brentq(missing, 0.1 * scales.min(), 10 * scales.max())
    return float(np.asarray(root))


def _at_bound(values: AnySource, shape: dict[str, np.ndarray]) -> np.ndarray:
    """Whether index or ellipticity is within a hundredth of the end of its domain."""
    declared = domains(values)
    index, disk = declared["index"], declared["ellipticity"]
    assert isinstance(index, Interval)
    assert isinstance(disk, UnitDisk)
    margin = 0.01 * (index.high - index.low)
    with np.errstate(invalid="ignore"):
        ends = (shape["index"] < index.low + margin) | (shape["index"] > index.high - margin)
        return np.asarray(ends) | (np.hypot(shape["g1"], shape["g2"]) > 0.99 * disk.limit)


def near_masked(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Whether a pixel within 2 pixels of the centre is not used in some band."""
    unused = (weight == 0).any(axis=0)
    yy, xx = np.nonzero(unused)
    if not len(xx):
        return np.zeros(len(x), dtype=bool)
    return np.asarray(np.any(np.hypot(x[:, None] - xx, y[:, None] - yy) <= 2, axis=1))
