"""One exposure with decoded galaxies: the steps of a batch, on one blend. Host side."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffdeblend.components import AnySource, Kind, Stack, any_stack
from diffdeblend.deblend.attempt import Attempt, attempt_of
from diffdeblend.deblend.catalog import Flag, Sources
from diffdeblend.deblend.choose import n_parameters
from diffdeblend.deblend.decoded_steps import Job, decode_all
from diffdeblend.deblend.measure import common_flags, signal_to_noise
from diffdeblend.deblend.mixed import MixedSettings, fit_mixed
from diffdeblend.deblend.refine import DRAWN
from diffdeblend.exposure import Exposure
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt
from diffdeblend.fit.prior import shape_prior
from diffdeblend.priors.decoder_prior import DecoderPrior
from diffdeblend.scene import Scene

# What may be refitted as something else, and the numbers of its start, with their ends.
_ENDS = {
    "x": (-np.inf, np.inf),
    "y": (-np.inf, np.inf),
    "radius": (0.2, np.inf),
    "index": (0.6, 6.0),
    "radius_ratio": (0.05, 10.0),
    "shear_ratio": (0.05, 1.35),
    "ellipticity": (-0.6, 0.6),
}

# Compiled once for each padded shape.
_fit = eqx.filter_jit(fit_mixed)


def fit_exposure(
    start: Scene,
    exposure: Exposure,
    prior: DecoderPrior,
    *,
    temperature: float,
    fallback: bool,
    robust: bool,
    false_alarm: float,
) -> Attempt:
    """Fit the sources of a start, as decoded galaxies first.

    - `start`: one stack of `AnySource` where sources are, with the sky.

    The fit that is kept in what is returned has its decoder; images of all sources are kept too.
    """
    stack = start.sources[0]
    count = int(np.asarray(stack.active).sum())
    around = shape_prior(start)

    def run(jobs: Sequence[Job]) -> list[Attempt]:
        return [one(job) for job in jobs]

    def one(job: Job) -> Attempt:
        decoded = np.ones(stack.size, bool)
        decoded[:count] = job.decoded
        latent = np.zeros((stack.size, prior.n_latent), exposure.image.dtype)
        if job.start is not None:
            latent[:count] = np.nan_to_num(job.start.columns["latent"])
        found = _fit(
            _at(start, job),
            around,
            jnp.asarray(latent),
            jnp.asarray(decoded),
            prior.decoder,
            exposure.data,
            exposure.weight,
            exposure.psf,
            LevenbergMarquardt(fast_steps=0 if job.exact else 25),
            MixedSettings(DRAWN, not job.decoded.all(), images=True, covariance=True),
            temperature=jnp.asarray(temperature, exposure.image.dtype),
            false_alarm=jnp.asarray(false_alarm, exposure.image.dtype),
            noise=exposure.noise_correlation,
        )
        return attempt_of(jax.device_get(found), job.decoded, job.kind, keep=True)

    (found,) = decode_all([count], run, fallback=fallback, robust=robust, restarts=1)
    for of in ("scene", "errors"):
        found.fit = eqx.tree_at(
            lambda f, of=of: getattr(f, of).sources[0].shared,
            found.fit,
            prior.decoder,
            is_leaf=lambda leaf: leaf is None,
        )
    return found


def _at(start: Scene, job: Job) -> Scene:
    """The start with the kinds of a job, and the numbers of a fit before it."""
    stack = start.sources[0]
    members, n = stack.members, len(job.decoded)
    assert isinstance(members, AnySource)
    values = {name: np.array(getattr(members, name)) for name in (*_ENDS, "kind", "flux")}
    values["kind"][:n] = np.where(job.decoded, int(Kind.SERSIC), job.kind)
    sky = start.background
    if job.start is not None:
        columns = job.start.columns
        for name, (low, high) in _ENDS.items():
            known = np.isfinite(columns[name])
            values[name][:n] = np.where(known, np.clip(columns[name], low, high), values[name][:n])
        bulge = np.nan_to_num(columns["bulge_flux"])
        values["flux"][:n] = 0
        values["flux"][:n, 0] = np.nan_to_num(columns["flux"]) - bulge
        values["flux"][:n, 1] = bulge
        if sky is not None:
            sky = sky.with_coefficients(jnp.asarray(job.start.sky, start.dx.dtype))
    members = eqx.tree_at(
        lambda m: [getattr(m, name) for name in values],
        members,
        [jnp.asarray(value) for value in values.values()],
    )
    again = any_stack(Stack(members, stack.active, stack.rank))
    return Scene([again], sky, start.dx, start.dy)


def sources_of(
    found: Attempt,
    exposure: Exposure,
    start: Float[np.ndarray, "source 2"],
    reduced_chi2: Float[np.ndarray, "source"],
) -> Sources:
    """What the catalogue says of each source."""
    columns, bands = found.columns, exposure.n_bands
    models, weight = found.images, np.asarray(exposure.weight, float)
    assert models is not None
    x, y = columns["centre_x"], columns["centre_y"]
    kinds = [None if d else Kind(int(k)) for d, k in zip(found.decoded, found.kind, strict=True)]
    shape: dict[str, np.ndarray] = {}
    for end in ("", "_err"):
        for name in ("radius", "index", "radius_ratio", "shear_ratio"):
            shape[f"{name}{end}"] = columns[f"{name}{end}"].copy()
        for axis, name in enumerate(("g1", "g2")):
            shape[f"{name}{end}"] = columns[f"ellipticity{end}"][:, axis].copy()
    has = {
        None: {"radius", "g1", "g2"},
        Kind.POINT: set(),
        Kind.SERSIC: {"radius", "index", "g1", "g2"},
        Kind.BULGE_DISC: {"radius", "radius_ratio", "shear_ratio", "g1", "g2"},
    }
    for number, kind in enumerate(kinds):
        for name in {column.removesuffix("_err") for column in shape} - has[kind]:
            shape[name][number] = shape[f"{name}_err"][number] = np.nan
    flux, error = columns["flux"], columns["flux_err"]
    finite = np.isfinite(flux).all(axis=1) & np.isfinite(error).all(axis=1)
    flags = common_flags(x, y, start, flux, reduced_chi2, weight)
    for bit, where in (
        (Flag.NOT_CONVERGED, not found.converged),
        (Flag.NON_FINITE, ~finite),
        (Flag.OUT_OF_DOMAIN, found.outside),
    ):
        flags |= np.where(where, int(bit), 0)
    two = np.array([kind is Kind.BULGE_DISC for kind in kinds])[:, None]
    free = 2 + bands + columns["latent"].shape[1]
    support = ("latent_norm", "latent_quantile", "own_chi2", "own_quantile")
    return Sources(
        x=x,
        y=y,
        x_err=columns["centre_x_err"],
        y_err=columns["centre_y_err"],
        flux=flux,
        flux_err=error,
        model=["decoded" if kind is None else kind.name.lower() for kind in kinds],
        shape=shape,
        bulge_flux=np.where(two, columns["bulge_flux"], np.nan),
        flags=flags,
        reduced_chi2=reduced_chi2,
        n_parameters=np.array([free if k is None else n_parameters(k, bands) for k in kinds]),
        snr=signal_to_noise(models, weight),
        support={name: columns[name] for name in support}
        | {"replaced": ~found.decoded, "decoder_log_odds": found.odds},
    )
