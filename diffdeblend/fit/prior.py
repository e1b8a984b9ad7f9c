"""What is likely before the data: functions from a scene to a log-probability."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from diffdeblend.components import AbstractComponent
from diffdeblend.fit.unknowns import Unknowns, unknowns_of
from diffdeblend.parameters import as_float, domains, names_of, pack, per_parameter
from diffdeblend.scene import Scene

# Any function of a scene will do; arrays that it closes over belong into an `eqx.Module`, so that
# other values of them do not compile again.
Prior = Callable[[Scene], Float[Array, ""]]


class CostedPrior(eqx.Module):
    """A prior that knows its own derivatives; of others a fit takes them by autodiff."""

    @abstractmethod
    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The log-probability of a scene, up to a constant."""

    @abstractmethod
    def cost(
        self, unknowns: Unknowns, scene: Scene
    ) -> tuple[Float[Array, ""], Unknowns, Float[Array, "*shape shape"]]:
        """Minus the log-probability, its gradient, and its curvature in the shapes.

        - `unknowns`: of `scene`, which says what is active.

        The curvature is a matrix that is positive definite, or a vector where it is diagonal. A fit
        takes it for a datum: errors are made of it.
        """


# Curvature of the wall, in units of that of the prior, halved.
_WALL = 1000.0


class ShapePrior(CostedPrior):
    r"""A weak Gaussian prior on the mapped shape parameters, which keeps faint sources at home.

    Standard deviations: `position_error` pixels (1) in position, 0.8 in ln(radius), 0.6 in each
    part of the mapped ellipticity, 1.3 in the logit of the index. Centres: the start of the fit;
    no ellipticity. Latents of learned galaxies are normal, of variance `temperature`, with no wall;
    fluxes have none. Above a signal-to-noise ratio of some 15 it moves nothing, up
    to walls: at 1.5 pixels in position and `radius_wall` in ln(radius) (2, a factor of 7).
    """

    centre: tuple[Float[Array, "source parameter"], ...]
    # An array: another width compiles nothing.
    position_error: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    radius_wall: Float[Array, ""] = eqx.field(converter=as_float, default=2.0)
    temperature: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        return -self.cost(unknowns_of(scene), scene)[0]

    def cost(
        self, unknowns: Unknowns, scene: Scene
    ) -> tuple[Float[Array, ""], Unknowns, Float[Array, "shape"]]:
        total = jnp.zeros((), dtype=scene.dx.dtype)
        slopes, curvatures = [], []
        for values, stack, centre in zip(unknowns.shape, scene.sources, self.centre, strict=True):
            width, wall = (
                per_parameter(stack.member(0), name).astype(centre.dtype)
                for name in ("width", "wall")
            )
            names = np.array(names_of(stack.member(0)))
            width = jnp.where(np.isin(names, ("x", "y")), width * self.position_error, width)
            width = jnp.where(names == "latent", width * jnp.sqrt(self.temperature), width)
            wall = jnp.where(names == "radius", self.radius_wall, wall)
            on = stack.active[:, None].astype(centre.dtype)
            away = values - centre
            # Where the model cannot follow a bright neighbour, chi2 would pay any price to have a
            # faint source mend it: hence the wall.
            beyond = jnp.maximum(jnp.abs(away) - wall, 0) / width
            total = total + jnp.sum(on * (0.5 * (away / width) ** 2 + _WALL * beyond**2))
            slope = away / width**2 + 2 * _WALL * beyond * jnp.sign(away) / width
            curvature = (1 + 2 * _WALL * (beyond > 0)) / width**2
            slopes.append((on * slope).reshape(-1))
            curvatures.append((on * curvature).reshape(-1))
        still = jax.tree.map(jnp.zeros_like, unknowns)
        return (
            total,
            still.with_flat_shape(jnp.concatenate(slopes)),
            jnp.concatenate(curvatures),
        )


def shape_prior(
    start: Scene,
    position_error: ArrayLike = 1.0,
    radius_wall: ArrayLike = 2.0,
    temperature: ArrayLike = 1.0,
) -> ShapePrior:
    """The default prior around a start: its positions and sizes, no ellipticity, latents of zero.

    - `position_error`: standard deviation of the positions, in pixels.
    - `radius_wall`: how far a radius may go from that of the start, in its logarithm.
    - `temperature`: variance of the latents of learned galaxies. 1 is what they were trained with,
        and what errors need; a large one leaves them free.
    """

    def centre(member: AbstractComponent) -> Array:
        for name in {"ellipticity", "latent"} & set(domains(member)):
            member = eqx.tree_at(lambda m, n=name: getattr(m, n), member, replace_fn=jnp.zeros_like)
        return pack(member)

    return ShapePrior(
        tuple(jax.vmap(centre)(stack.members) for stack in start.sources),
        position_error,
        radius_wall,
        temperature,
    )
