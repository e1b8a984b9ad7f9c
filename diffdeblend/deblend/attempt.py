"""What one fit of a blend with decoded sources found, without padding. Host side, numpy."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.components import AnySource, Decoded, Kind
from diffdeblend.deblend.mixed import MixedFit

# Shapes of a parametric source, each with its error under its name with `_err`.
_SHAPES = ("radius", "index", "radius_ratio", "shear_ratio", "ellipticity")
# What a prior takes for granted of the outskirts of a galaxy moves its centroid, in pixels along
# each axis. Found on pairs of bulge + disc + knots and of real galaxies. Of others, above a
# signal-to-noise ratio of 100, 89 % are within two sigmas with it, 73 % of 184 without.
_CENTRE_FLOOR = 0.05


@dataclass(eq=False)
class Attempt:
    """One fit of one blend: a row a source, in pixels of the stamp and units of its task.

    - `decoded`: which sources are decoded; `kind`: what the others are.
    - `columns`: by name `x`, `y` (of the model, to start from), `centre_x`, `centre_y` (to be told:
        of decoded sources the centroid of the light), `flux` `(source, band)`, `bulge_flux`,
        `latent` `(source, latent)`, NaN where not decoded, and the shapes of `AnySource`, NaN for
        an index or ratios of decoded ones; the error of each under its name with `_err`; and
        `latent_norm`, `latent_quantile`, `own_chi2`, `own_quantile`.
    - `outside`: which sources are out of the prior's domain; of one that is decoded no more,
        whether it was.
    - `evidence`: its logarithm; `value`: half of chi2 minus the log-prior.
    - `sky`, `chi2`, `n_pixels`: a row a band.
    - `odds`: logarithm of the odds of the decoder, where another model was weighed; else NaN.
    - `fit`: of JAX, where it was kept; `images`: of the sources, `(source, band, y, x)`, or None.
    """

    decoded: Bool[np.ndarray, "source"]
    kind: Int[np.ndarray, "source"]
    columns: dict[str, np.ndarray]
    outside: Bool[np.ndarray, "source"]
    odds: Float[np.ndarray, "source"]
    evidence: float
    value: float
    sky: Float[np.ndarray, "band term"]
    chi2: Float[np.ndarray, "band"]
    n_pixels: Int[np.ndarray, "band"]
    steps: int
    converged: bool
    finite: bool
    fit: Any = None
    images: Float[np.ndarray, "source band y x"] | None = None

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return len(self.decoded)

    @property
    def snr(self) -> Float[np.ndarray, "source"]:
        """Flux over its error, all bands together."""
        error = self.columns["flux_err"]
        ratio = np.divide(self.columns["flux"], error, where=error > 0, out=np.zeros_like(error))
        return np.sqrt(np.sum(ratio**2, axis=1))


def attempt_of(
    found: MixedFit,
    decoded: Bool[np.ndarray, "source"],
    kind: Int[np.ndarray, "source"],
    *,
    keep: bool = False,
) -> Attempt:
    """The attempt that a fit of one blend is; numpy arrays with padding in, without out."""
    n, fit = len(decoded), found.fit
    size = found.radius.shape[0]
    learned, wrong = fit.scene.sources[0].members, fit.errors.sources[0].members
    assert isinstance(learned, Decoded)
    assert isinstance(wrong, Decoded)
    columns: dict[str, Any] = {
        "x": learned.x[:n],
        "x_err": wrong.x[:n],
        "y": learned.y[:n],
        "y_err": wrong.y[:n],
        "flux": learned.flux[:n],
        "flux_err": fit.flux_error[:n],
        "latent": learned.latent[:n],
        "latent_err": found.latent_err[:n],
    }
    for axis, name in enumerate("xy"):
        columns[f"centre_{name}"] = found.centroid[:n, axis]
        columns[f"centre_{name}_err"] = np.hypot(found.centroid_err[:n, axis], _CENTRE_FLOOR)
    none = np.full(n, np.nan)
    shapes = dict.fromkeys([f"{name}{end}" for name in _SHAPES for end in ("", "_err")], none)
    for name in ("radius", "radius_err", "ellipticity", "ellipticity_err"):
        shapes[name] = getattr(found, name)[:n]
    bulge, bulge_err = np.zeros_like(learned.flux[:n]), np.zeros_like(learned.flux[:n])
    if len(fit.scene.sources) > 1:
        plain, sigma = fit.scene.sources[1].members, fit.errors.sources[1].members
        assert isinstance(plain, AnySource)
        assert isinstance(sigma, AnySource)
        two = ((kind == Kind.BULGE_DISC) & ~decoded)[:, None]
        bulge = np.where(two, plain.flux[:n, 1], 0)
        bulge_err = np.where(two, sigma.flux[:n, 1], 0)
        other: dict[str, Any] = {
            "x": plain.x[:n],
            "x_err": sigma.x[:n],
            "y": plain.y[:n],
            "y_err": sigma.y[:n],
            "flux": plain.flux[:n].sum(axis=1),
            "flux_err": fit.flux_error[size : size + n],
            "latent": np.full_like(columns["latent"], np.nan),
            "latent_err": np.full_like(columns["latent"], np.nan),
        }
        other |= {f"centre_{name}": other[name] for name in ("x", "x_err", "y", "y_err")}
        columns = {k: _where(decoded, columns[k], other[k]) for k in columns}
        for name in _SHAPES:
            shapes[name] = _where(decoded, shapes[name], getattr(plain, name)[:n])
            error = f"{name}_err"
            shapes[error] = _where(decoded, shapes[error], getattr(sigma, name)[:n])
    of_latents = {
        "latent_norm": np.where(decoded, found.support.latent_norm[:n], np.nan),
        "latent_quantile": np.where(decoded, found.support.latent_quantile[:n], np.nan),
        "own_chi2": found.support.own_chi2[:n],
        "own_quantile": found.support.own_quantile[:n],
    }
    columns |= shapes | {"bulge_flux": bulge, "bulge_flux_err": bulge_err} | of_latents
    sky = fit.scene.background
    return Attempt(
        decoded=decoded,
        kind=kind,
        columns={name: np.asarray(value, float) for name, value in columns.items()},
        outside=decoded & np.asarray(found.support.out_of_domain[:n]),
        odds=np.full(n, np.nan),
        evidence=float(found.evidence),
        value=float(found.value),
        sky=np.zeros((len(fit.chi2), 0)) if sky is None else np.asarray(sky.coefficients, float),
        chi2=np.asarray(fit.chi2, float),
        n_pixels=np.asarray(fit.n_pixels),
        steps=int(fit.steps),
        converged=bool(fit.converged),
        finite=bool(fit.finite),
        fit=fit if keep else None,
        images=None if found.images is None else np.asarray(found.images)[:n],
    )


def one_of(stacked: MixedFit, place: int) -> MixedFit:
    """One blend of many that were fitted side by side."""
    return jax.tree.map(lambda leaf: leaf[place], stacked)


def _where(rows: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    if no.ndim > 1 and yes.ndim == 1:
        yes = np.broadcast_to(yes[:, None], no.shape)
    return np.where(rows.reshape(-1, *[1] * (no.ndim - 1)), yes, no)
