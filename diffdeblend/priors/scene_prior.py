"""A learned mixture as the prior of a scene: value, slope and curvature for a fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.components import AnySource, Stack
from diffdeblend.fit.prior import CostedPrior, ShapePrior
from diffdeblend.fit.unknowns import Unknowns, unknowns_of
from diffdeblend.fourier import EXACT
from diffdeblend.parameters import as_float, per_parameter
from diffdeblend.priors.features import KINDS, flux_features, selection, speaks_of
from diffdeblend.priors.mixture import GaussianMixture
from diffdeblend.scene import Scene


class PixelPrior(eqx.Module):
    """A learned prior in pixels and units of flux; made by `ParametricPrior.on`.

    Fields as those of `MixturePrior`. All that counts are arrays: other values compile nothing.
    """

    mixture: GaussianMixture
    light: GaussianMixture | None
    offset: Float[Array, "shape"] = eqx.field(converter=as_float)
    to_micro: Float[Array, "band"] = eqx.field(converter=as_float)
    softening: Float[Array, ""] = eqx.field(converter=as_float)
    family: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)
    temperature: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)

    def around(
        self,
        weak: ShapePrior,
        width: ArrayLike = 1.0,
        unit: Float[Array, "band"] | None = None,
    ) -> "MixturePrior":
        """The prior of a scene. Pure.

        - `weak`: of all that is not learnt.
        - `width`: of the pixels of the scene, in those of the prior.
        - `unit`: of the fluxes of the scene in each of its bands, in that of the prior.
        """
        is_radius = np.array([name == "ln_radius" for name in self.names[: self.offset.size]])
        offset = self.offset + is_radius * jnp.log(jnp.asarray(width, self.offset.dtype))
        to_micro = self.to_micro
        if unit is not None and self.columns:
            to_micro = to_micro * unit[np.array(self.columns)]
        return MixturePrior(
            self.mixture,
            self.light,
            weak,
            offset,
            to_micro,
            self.softening,
            self.temperature,
            self.family,
            self.names,
            self.columns,
        )


class MixturePrior(CostedPrior):
    r"""The density of shapes given the light of each source; see `ParametricPrior.scene_prior`.

    The cost of a source is $-\ln p(s, m) + \ln p(m)$ for its shapes s and its magnitude and colours
    m, plus a constant that makes it comparable to that of the weak prior at its centre, so that
    sources of several kinds can be chosen between. Value and gradient (also by the fluxes) are
    exact; the curvature is the mean of the components' precisions, each as far as the source
    belongs to it: above the true one, and positive definite.

    - `mixture`: of all features, shapes first; `light`: of magnitude and colours alone.
    - `weak`: of positions, of shapes that the features do not speak of, and of other sources.
    - `offset`: of the features from the mapped shapes, `(shape,)`.
    - `to_micro`: microjansky of a unit of flux, in the bands of the prior; `columns`: where these
        are among the bands of the scene.
    """

    mixture: GaussianMixture
    light: GaussianMixture | None
    weak: ShapePrior
    offset: Float[Array, "shape"] = eqx.field(converter=as_float)
    to_micro: Float[Array, "band"] = eqx.field(converter=as_float)
    softening: Float[Array, ""] = eqx.field(converter=as_float)
    temperature: Float[Array, ""] = eqx.field(converter=as_float)
    family: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        return -self.cost(unknowns_of(scene), scene)[0]

    def cost(
        self, unknowns: Unknowns, scene: Scene
    ) -> tuple[Float[Array, ""], Unknowns, Float[Array, "shape shape"]]:
        masks = [
            jnp.broadcast_to(self._spoken(stack), values.shape)
            for stack, values in zip(scene.sources, unknowns.shape, strict=True)
        ]
        # Where the mixture speaks the weak prior is at its centre: it costs nothing there.
        quiet = tuple(
            jnp.where(mask, centre, values)
            for mask, centre, values in zip(masks, self.weak.centre, unknowns.shape, strict=True)
        )
        value, slope, diagonal = self.weak.cost(
            eqx.tree_at(lambda u: u.shape, unknowns, quiet), scene
        )
        diagonal = jnp.where(jnp.concatenate([m.reshape(-1) for m in masks]), 0, diagonal)

        def learned(shape: tuple[Array, ...], flux: Array) -> tuple[Array, list[Array]]:
            return self._learned(shape, flux, scene)

        (more, blocks), (by_shape, by_flux) = jax.value_and_grad(
            learned, argnums=(0, 1), has_aux=True
        )(unknowns.shape, unknowns.flux)
        slope = eqx.tree_at(
            lambda u: (u.shape, u.flux),
            slope,
            (
                jax.tree.map(jnp.add, slope.shape, by_shape),
                slope.flux + by_flux,
            ),
        )
        whole = jax.scipy.linalg.block_diag(*blocks) if len(blocks) > 1 else blocks[0]
        return value + more, slope, whole + jnp.diag(diagonal)

    def _spoken(self, stack: Stack) -> Array:
        """Of which numbers of which sources the mixture speaks, `(source, parameter)`."""
        member = stack.member(0)
        if not speaks_of(member, self.family):
            return jnp.zeros((stack.size, 1), bool)
        names = selection(member, self.family, self.names).any(axis=0)
        return self._own(stack)[:, None] & jnp.asarray(names)

    def _own(self, stack: Stack) -> Array:
        """Which sources are active and of the family."""
        if isinstance(stack.members, AnySource):
            return stack.active & (stack.members.kind == KINDS[self.family])
        return stack.active

    def _learned(
        self, shape: tuple[Array, ...], flux: Array, scene: Scene
    ) -> tuple[Array, list[Array]]:
        """The cost of all sources of the family; for each stack the curvature, `(p, p)`."""
        total, blocks, first = jnp.zeros((), flux.dtype), [], 0
        for stack, values in zip(scene.sources, shape, strict=True):
            own_flux = flux[first : first + stack.n_slots]
            first += stack.n_slots
            size, parameters = values.shape
            member = stack.member(0)
            if not speaks_of(member, self.family):
                blocks.append(jnp.zeros((size * parameters, size * parameters), flux.dtype))
                continue
            light = jnp.matmul(stack.membership, own_flux, precision=EXACT)
            picks = selection(member, self.family, self.names)
            pick = jnp.asarray(picks, values.dtype)
            features = jnp.matmul(values, pick.T, precision=EXACT) + self.offset
            cost, precision = jax.vmap(self._one)(features, light)
            own = self._own(stack)
            # What the weak prior would say of these at its centre.
            width = np.asarray(picks.any(axis=0)) * jnp.log(
                per_parameter(member, "width") * np.sqrt(2 * np.pi)
            )
            total = total + jnp.sum(jnp.where(own, cost - jnp.sum(width), 0))
            precision = jnp.where(own[:, None, None], precision, 0)
            of_source = jnp.einsum("ap,sab,bq->spq", pick, precision, pick, precision=EXACT)
            spread = of_source[:, :, None, :] * jnp.eye(size, dtype=values.dtype)[:, None, :, None]
            blocks.append(spread.reshape(size * parameters, size * parameters))
        return total, jax.lax.stop_gradient(blocks)

    def _one(self, shape: Array, flux: Array) -> tuple[Array, Array]:
        """Cost of one source, and its curvature in the features of shape."""
        n, heat = shape.size, self.temperature
        light = shape[:0]
        if self.light is not None:
            seen = flux[np.array(self.columns)] * self.to_micro
            light = flux_features(seen, self.softening, self.names)
        logs = self.mixture.log_components(jnp.concatenate([shape, light]), heat)
        cost = -jax.scipy.special.logsumexp(logs)
        precisions = self.mixture.precisions / heat
        mean = jnp.einsum("k,kab->ab", jax.nn.softmax(logs), precisions[:, :n, :n], precision=EXACT)
        if self.light is not None:
            cost = cost + self.light.log_prob(light, heat)
        return cost, mean
