"""One blend of decoded, Sersic, bulge + disc and point sources, in any mixture: the compiled part.

Every source has a place in two stacks and is active in one of them, so that which it is in is data.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from diffdeblend.components import AnySource, Decoded, Decoder, Frame, Stack
from diffdeblend.fit.fit import Fit, Method, assess, solve
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.prior import ShapePrior
from diffdeblend.fit.unknowns import free_numbers
from diffdeblend.grid import Quality
from diffdeblend.priors.evidence import log_evidence
from diffdeblend.priors.morphology import morphology_of
from diffdeblend.priors.support import Support, own_residuals, support_check
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene, render_each


@dataclass(frozen=True)
class MixedSettings:
    """What is compiled in.

    - `mixed`: whether some source may be parametric; without it the program is faster.
    - `images`: whether to return the image of every source; `covariance`: that of all numbers.
    """

    quality: Quality
    mixed: bool
    images: bool = False
    covariance: bool = False


class MixedFit(NamedTuple):
    """The fit of one blend, and what is told of its sources; a row each, padding included.

    - `fit`: with a stack of `Decoded`, whose decoder is left out, and perhaps one of `AnySource`.
    - `value`: half of chi2 minus the log-prior; `evidence`: its logarithm, see `log_evidence`.
    - `centroid`, `radius`, `ellipticity` and their errors: of the light of the decoded galaxies.
        The centroid, in pixels of the data, is what data fix: x and y of a scene, and latents that
        move the light on the stamp, do so together only.
    - `latent_err`: one standard deviation of each latent.
    - `support`: of decoded galaxies; `own_chi2` of all.
    - `images`: of the sources as the camera sees them, `(source, band, y, x)`, or None.
    """

    fit: Fit
    value: Float[Array, ""]
    evidence: Float[Array, ""]
    centroid: Float[Array, "source 2"]
    centroid_err: Float[Array, "source 2"]
    radius: Float[Array, "source"]
    radius_err: Float[Array, "source"]
    ellipticity: Float[Array, "source 2"]
    ellipticity_err: Float[Array, "source 2"]
    latent_err: Float[Array, "source latent"]
    support: Support
    images: Float[Array, "source band y x"] | None


def fit_mixed(
    start: Scene,
    prior: ShapePrior,
    latent: Float[Array, "source latent"],
    decoded: Bool[Array, "source"],
    decoder: Decoder,
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    method: Method,
    settings: MixedSettings,
    *,
    temperature: ArrayLike = 1.0,
    false_alarm: ArrayLike = 0.01,
    noise: Float[Array, "band h w"] | None = None,
) -> MixedFit:
    """Fit one blend; pure.

    - `start`: all sources as one stack of `AnySource`, with the sky; `prior`: around it.
    - `latent`: where those that are `decoded` start.
    - `data`, `weight`, `noise`: as in `Problem`.
    """
    scene, around = _mixed(start, prior, latent, decoded, decoder, settings.mixed, temperature)
    shape = (data.shape[1], data.shape[2])
    quality = roomy(settings.quality, max(shape), decoder.frame)
    problem = make_problem(data, weight, psf, free_numbers(scene, None), around, quality, noise)
    solution = solve(scene, problem, method)
    found = assess(solution, scene, problem)
    curvature = around.cost(solution.unknowns, scene)[2]
    evidence = log_evidence(solution.value, found.covariance, curvature)
    each = render_each(found.scene, psf, shape, quality=quality)
    images = each[0] if len(each) == 1 else each[0] + each[1]
    sky = found.scene.background
    left = data - jnp.sum(images, axis=0)
    left = left if sky is None else left - sky(problem.grid)
    galaxies = found.scene.sources[0].members
    assert isinstance(galaxies, Decoded)
    latents, joint = galaxies.latent, _joint(found)
    marginal = joint[:, 2:, 2:]
    eye = jnp.eye(latents.shape[1], dtype=latents.dtype)
    known = jnp.trace(eye - marginal / temperature, axis1=1, axis2=2)
    # Beside its latents, a place and a flux a band.
    fitted = jnp.where(decoded, jnp.maximum(known, 0), 4) + 2 + data.shape[0]
    chi2, pixels = own_residuals(images, jnp.where(weight > 0, left, 0), weight, fitted)
    support = support_check(
        latents, marginal, chi2, pixels, temperature=temperature, false_alarm=false_alarm
    )

    def shapes(z: Array) -> Array:
        centroid, radius, shear = morphology_of(decoder, z)
        return jnp.concatenate([centroid, radius[None], shear])

    def with_errors(source: tuple[Array, Array]) -> tuple[Array, Array]:
        z, own = source
        # The place of the stamp moves the centroid and nothing else.
        by_place = jnp.eye(5, 2, dtype=z.dtype)
        slope = jnp.concatenate([by_place, jax.jacfwd(shapes)(z)], axis=1)
        return shapes(z), jnp.sqrt(jnp.maximum(jnp.einsum("ij,jk,ik->i", slope, own, slope), 0))

    # One after the other: their tangents are products of matrices.
    values, sigmas = jax.lax.map(with_errors, (latents, joint))
    place = jnp.stack([galaxies.x, galaxies.y], axis=1)
    found = eqx.tree_at(lambda f: f.scene.sources[0].shared, found, None)
    if not settings.covariance:
        found = eqx.tree_at(lambda f: f.covariance, found, None)
    return MixedFit(
        found,
        solution.value,
        evidence,
        place + values[:, :2],
        sigmas[:, :2],
        values[:, 2],
        sigmas[:, 2],
        values[:, 3:],
        sigmas[:, 3:],
        jnp.sqrt(jnp.maximum(jnp.diagonal(marginal, axis1=1, axis2=2), 0)),
        support,
        images if settings.images else None,
    )


def roomy(quality: Quality, size: int, frame: Frame) -> Quality:
    """The same with a period that holds half of a decoder's stamp beside those of the data.

    Else a galaxy near the border comes back on the other side.
    """
    return replace(quality, padding=max(quality.padding, (size + frame.size / 2 + 1) / size))


def _mixed(
    start: Scene,
    prior: ShapePrior,
    latent: Array,
    decoded: Array,
    decoder: Decoder,
    mixed: bool,
    temperature: ArrayLike,
) -> tuple[Scene, ShapePrior]:
    """The scene with each source in the stack that it is active in, and the prior around it."""
    stack, centre = start.sources[0], prior.centre[0]
    members = stack.members
    assert isinstance(members, AnySource)
    galaxies = jax.vmap(lambda flux, x, y, z: Decoded(flux, x, y, z, None))(
        jnp.sum(members.flux, axis=1), members.x, members.y, latent
    )
    learned = Stack(galaxies, stack.active & decoded, stack.rank, shared=decoder)
    # x and y come first among the numbers of both.
    homes = jnp.concatenate([centre[:, :2], jnp.zeros_like(latent)], axis=1)
    stacks, centres = [learned], [homes]
    if mixed:
        stacks.append(eqx.tree_at(lambda s: s.active, stack, stack.active & ~decoded))
        centres.append(centre)
    around = ShapePrior(
        tuple(centres), prior.position_error, prior.radius_wall, jnp.asarray(temperature)
    )
    return Scene(stacks, start.background, start.dx, start.dy), around


def _joint(found: Fit) -> Float[Array, "source n n"]:
    """Covariance of x, y and latent of each decoded source, marginal over all else."""
    members = found.scene.sources[0].members
    assert isinstance(members, Decoded)
    size, n = members.latent.shape
    each = 2 + n
    flat = found.covariance.shape[: size * each, : size * each].reshape(size, each, size, each)
    return jnp.stack([flat[s, :, s] for s in range(size)])
