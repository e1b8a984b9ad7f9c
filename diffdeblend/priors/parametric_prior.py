"""A learned prior of parametric galaxies: which sizes, shapes and profiles go together."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from diffdeblend.components import AbstractComponent, AnySource, Kind
from diffdeblend.exposure import Exposure
from diffdeblend.fit.prior import shape_prior
from diffdeblend.parameters import as_float, pack
from diffdeblend.priors.decoder_prior import Training
from diffdeblend.priors.features import (
    KINDS,
    MICROJANSKY,
    SHAPES,
    flux_features,
    selection,
    speaks_of,
)
from diffdeblend.priors.mixture import GaussianMixture
from diffdeblend.priors.scene_prior import MixturePrior, PixelPrior
from diffdeblend.scene import Scene


class ParametricPrior(eqx.Module):
    """A mixture of normal densities over the features of one family of galaxies.

    - `mixture`: over the features `names`, those of shape first.
    - `softening`: of the asinh magnitudes, in microjansky.
    - `family`: `"sersic"`, `"bulge_disc"` or `"multi_gaussian"`.
    - `names`: of shape: `ln_radius` (of arcseconds), `e1` and `e2` (mapped as in `unit_disk`),
        `logit_index`, `ln_radius_ratio`, `logit_shear_ratio` (mapped as in a fit); of light:
        `magnitude` (asinh, AB, of the first of `bands`) and `colour_{band}` (others less the first)
    - `bands`: names of bands that magnitude and colours are of; the first is the reference.
    - `training`: what it was learnt on; None if by hand.

    **Raises:** `ValueError` for names or a family that do not exist, or do not fit the mixture.
    """

    mixture: GaussianMixture
    softening: Float[Array, ""] = eqx.field(converter=as_float)
    family: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    bands: tuple[str, ...] = eqx.field(static=True, default=())
    training: Training | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.family not in SHAPES:
            raise ValueError(f"`family` must be one of {list(SHAPES)}; got {self.family!r}.")
        known = [*SHAPES[self.family]]
        if self.bands:
            known += ["magnitude", *(f"colour_{band}" for band in self.bands[1:])]
        if list(self.names) != [name for name in known if name in self.names]:
            raise ValueError(
                f"`names` of {self.family!r} in the bands {list(self.bands)} must be some of "
                f"{known}, in this order; got {list(self.names)}."
            )
        if len({"e1", "e2"} & set(self.names)) == 1:
            raise ValueError("`names` needs both e1 and e2, or none of them.")
        if self.mixture.means.shape[-1] != len(self.names):
            raise ValueError(
                f"`mixture` has {self.mixture.n_features} features; `names` has {len(self.names)}."
            )

    @property
    def n_shapes(self) -> int:
        """Number of features that are of shape."""
        return sum(name in SHAPES[self.family] for name in self.names)

    def log_prob(
        self, features: Float[Array, "feature"], temperature: ArrayLike = 1.0
    ) -> Float[Array, ""]:
        """Logarithm of the density of features, normalised and finite.

        - `temperature`: factor on the covariances of all components.
        """
        return self.mixture.log_prob(features, temperature)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n feature"]:
        """Draws of all features; pure, jit with `n` static."""
        return self.mixture.sample(key, n)

    def marginal(self, names: Sequence[str]) -> "ParametricPrior":
        """The prior of some of the features. Host side.

        **Raises:** `ValueError` for a name that is not a feature.
        """
        self._check(names, "names")
        kept = [i for i, name in enumerate(self.names) if name in names]
        return self._with(self.mixture.marginal(kept), kept)

    def given(self, **values: float) -> "ParametricPrior":
        """The prior of the other features where these are known, as `magnitude=23`. Host side.

        **Raises:** `ValueError` for a name that is not a feature, values that are not finite, or if
        no feature is left.
        """
        self._check(list(values), "values")
        if not np.isfinite(list(values.values())).all():
            raise ValueError(f"`values` must be finite; got {values}.")
        at = [self.names.index(name) for name in values]
        kept = [i for i in range(len(self.names)) if i not in at]
        if not kept:
            raise ValueError("`values` names all features: none is left.")
        return self._with(self.mixture.given(at, list(values.values())), kept)

    def features_of(
        self, component: AbstractComponent, *, pixel_scale: float, zero_points: Any = None
    ) -> Float[Array, "feature"]:
        """The features of a source. Pure; `jax.vmap` goes over the members of a stack.

        - `pixel_scale`: in arcseconds. `zero_points`: AB magnitude of one unit of flux, of each of
            the bands of the source, which are those of the prior in their order.

        **Raises:** `ValueError` for a source of another family, or without `zero_points` where
        there are features of light.
        """
        # Under a transformation the kind of a source is not known.
        kind = component.kind if isinstance(component, AnySource) else None
        kind = None if isinstance(kind, jax.core.Tracer) else kind
        named = "" if kind is None else f" of kind {[Kind(int(k)).name for k in np.ravel(kind)]}"
        if not speaks_of(component, self.family) or (
            kind is not None and (np.asarray(kind) != KINDS[self.family]).any()
        ):
            raise ValueError(
                f"`component` must be a source of the family {self.family!r}; got "
                f"{type(component).__name__}{named}."
            )
        shape = jnp.asarray(selection(component, self.family, self.names)) @ pack(component)
        shape = shape + self._log_scale(pixel_scale)
        if self.n_shapes == len(self.names):
            return shape
        if zero_points is None:
            raise ValueError("`zero_points` are needed for magnitudes and colours; got None.")
        flux = component.flux if component.flux.ndim == 1 else jnp.sum(component.flux, axis=0)
        to_micro = 10 ** (0.4 * (MICROJANSKY - np.asarray(zero_points, dtype=float)))
        light = flux_features(flux * to_micro, self.softening, self.names)
        return jnp.concatenate([shape, light])

    def on(
        self,
        exposure: Exposure | None = None,
        *,
        pixel_scale: float | None = None,
        zero_points: Sequence[float] | None = None,
        bands: Sequence[str] | None = None,
        temperature: ArrayLike = 1.0,
    ) -> PixelPrior:
        """The prior in pixels and units of flux, for `fit_batch(..., prior=...)`. Host side.

        - `exposure`: tells pixel scale, zero points and bands; or else:
        - `pixel_scale`: arcseconds. `zero_points`: AB magnitude of one unit of flux in each band,
            needed if there are features of light. `bands`: their names.
        - `temperature`: as in `log_prob`: above 1 the prior is trusted less.

        **Raises:** `ValueError` if the pixel scale or needed zero points are unknown, if what is
            given and what the exposure says differ (by 1 % or 0.02 mag), for bands that are absent,
            or for a temperature that is not positive.
        """
        heat = np.asarray(temperature, float)
        if heat.shape or not 0 < heat < np.inf:
            raise ValueError(f"`temperature` must be a positive number; got {temperature}.")
        known = None if exposure is None else exposure.header
        scale = pixel_scale if known is None else _agreed(pixel_scale, known.pixel_scale)
        if scale is None or not (np.isfinite(scale) and scale > 0):
            raise ValueError(
                "`pixel_scale` must be known, in arcseconds: sizes of the prior are angles; got "
                f"{scale}. Pass it, or an `exposure` that has one."
            )
        if not self.n_shapes:
            raise ValueError(f"`names` has no feature of shape: {list(self.names)}.")
        columns, to_micro, light = np.zeros(0, int), np.zeros(0), None
        if self.n_shapes < len(self.names):
            points, names = zero_points, bands
            if known is not None:
                points, names = known.zero_points, known.bands
                if zero_points is not None and points is not None:
                    differ = np.abs(np.asarray(zero_points) - np.asarray(points)).max() > 0.02
                    if differ:
                        raise ValueError(
                            f"`zero_points` {list(zero_points)} differ from those of the exposure, "
                            f"{list(points)}."
                        )
                points = zero_points if points is None else points
            columns, to_micro = self._light(points, names)
            light = self.mixture.marginal(range(self.n_shapes, len(self.names)))
        return PixelPrior(
            self.mixture,
            light,
            self._log_scale(scale),
            to_micro,
            self.softening,
            self.family,
            self.names,
            tuple(columns.tolist()),
            heat,
        )

    def scene_prior(
        self,
        start: Scene,
        exposure: Exposure | None = None,
        *,
        pixel_scale: float | None = None,
        zero_points: Sequence[float] | None = None,
        bands: Sequence[str] | None = None,
        position_error: ArrayLike = 1.0,
        temperature: ArrayLike = 1.0,
    ) -> MixturePrior:
        """A prior for `fit(start, exposure, prior=...)`: of shapes, given the light of each source.

        Fluxes have no prior of their own: of the joint density that of magnitude and colours alone
        is divided out, so that a source is as likely as its shape is for its light. Shapes that the
        features do not speak of, positions, and sources of other families keep the weak
        `ShapePrior` around the start.

        - `exposure`, `pixel_scale`, `zero_points`, `bands`: as in `on`.
        - `position_error`: standard deviation of the positions, in pixels.
        - `temperature`: as in `log_prob`; 1 is what was learnt, and what errors need.

        **Raises:** `ValueError` as `on`, for as many bands as the scene does not have, or if no
        source is of the family.
        """
        placed = self.on(
            exposure,
            pixel_scale=pixel_scale,
            zero_points=zero_points,
            bands=bands,
            temperature=temperature,
        )
        if not any(speaks_of(stack.member(0), self.family) for stack in start.sources):
            raise ValueError(f"`start` has no source of the family {self.family!r}.")
        if max(placed.columns, default=0) >= start.n_bands:
            raise ValueError(f"`bands` are more than the {start.n_bands} of `start`.")
        return placed.around(shape_prior(start, position_error))

    def _light(self, points: Any, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the bands of the prior, and microjansky of a unit of flux there."""
        if points is None or names is None:
            raise ValueError(
                "`zero_points` and `bands` must be known for a prior of magnitudes and colours; "
                "pass them, an `exposure` that has them, or take `marginal` of the shapes."
            )
        if np.shape(points) != (len(names),):
            raise ValueError(
                "`zero_points` and `bands` need one entry for each band; got "
                f"{np.atleast_1d(points).tolist()} and {list(names)}."
            )
        missing = [band for band in self.bands if band not in names]
        if missing:
            raise ValueError(f"`bands` lacks {missing} of the prior; has {list(names)}.")
        columns = np.array([list(names).index(band) for band in self.bands])
        return columns, 10 ** (0.4 * (MICROJANSKY - np.asarray(points, dtype=float)[columns]))

    def _log_scale(self, pixel_scale: ArrayLike) -> Float[Array, "feature"]:
        """What is added to mapped shapes in pixels to make them features."""
        log = jnp.log(jnp.asarray(pixel_scale, jnp.result_type(float)))
        is_radius = np.array([name == "ln_radius" for name in self.names[: self.n_shapes]])
        return jnp.where(is_radius, log, 0)

    def _check(self, names: Sequence[str], argument: str) -> None:
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise ValueError(
                f"`{argument}` must be some of the features {list(self.names)}; got {list(names)}."
            )

    def _with(self, mixture: GaussianMixture, kept: list[int]) -> "ParametricPrior":
        names = tuple(self.names[i] for i in kept)
        return ParametricPrior(
            mixture, self.softening, self.family, names, self.bands, self.training
        )


def _agreed(given: float | None, known: float | None) -> float | None:
    if given is None or known is None:
        return known if given is None else given
    if abs(given / known - 1) > 0.01:
        raise ValueError(f"`pixel_scale` is {given}; the exposure has {known} arcsec.")
    return given
