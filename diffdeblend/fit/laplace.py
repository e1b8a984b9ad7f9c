"""Scenes drawn from what a fit leaves open: the Gaussian of its covariance, weighed if asked."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffdeblend.exposure import Exposure
from diffdeblend.fit.arrow import from_vectors, linear_vector
from diffdeblend.fit.fit import Fit
from diffdeblend.fit.objective import Problem, make_problem, objective
from diffdeblend.fit.prior import Prior
from diffdeblend.fit.unknowns import Unknowns, scene_of, unknowns_of
from diffdeblend.fourier import EXACT
from diffdeblend.grid import FIT, Quality
from diffdeblend.scene import Scene


class Whitened(eqx.Module):
    """The numbers of a fit as a linear map of as many independent standard normal ones.

    - `centre`: where the fit ended, in mapped variables.
    - `shape_root`, `band_root`: lower roots of `Covariance.shape` and `Covariance.alone`; rows and
        columns of held numbers are 0.
    - `response`: of `Covariance`.
    - `free`: 1 for each normal number that moves anything, `(n,)`; padding and held ones do not.
    """

    centre: Unknowns
    shape_root: Float[Array, "shape shape"]
    band_root: Float[Array, "band linear linear"]
    response: Float[Array, "band linear shape"]
    free: Float[Array, "n"]

    def __call__(self, normal: Float[Array, "n"]) -> Unknowns:
        """The numbers of a scene for some normal ones: shapes first, then the bands in turn."""
        n_bands, n_linear, n_shape = self.response.shape
        shape = jnp.matmul(self.shape_root, normal[:n_shape], precision=EXACT)
        alone = normal[n_shape:].reshape(n_bands, n_linear)
        linear = jnp.einsum("blm,bm->bl", self.band_root, alone, precision=EXACT)
        linear = linear - jnp.einsum("blt,t->bl", self.response, shape, precision=EXACT)
        still = jax.tree.map(jnp.zeros_like, self.centre)
        return jax.tree.map(jnp.add, self.centre, from_vectors(linear, shape, still))


def whitened(found: Fit) -> Whitened:
    """The map for a fit; pure."""
    covariance, free = found.covariance, found.covariance.free
    shape_root, shape_moves = _root(covariance.shape)
    band_root, band_moves = jax.vmap(_root)(covariance.alone)
    moves = jnp.concatenate(
        [shape_moves * free.flat_shape, (band_moves * linear_vector(free)).reshape(-1)]
    )
    return Whitened(unknowns_of(found.scene), shape_root, band_root, covariance.response, moves)


def samples(found: Fit, key: PRNGKeyArray, n: int) -> Scene:
    """Scenes from the Gaussian around a fit that its covariance tells of.

    Drawn in the mapped variables, in which radii stay positive and shears below 1, and mapped back.
    Every array of the scene gets a leading axis of `n` samples, but for what stacks share:
    `map_scenes` of `diffdeblend.scene` goes over them, and `jax.vmap` where nothing is shared. Held
    numbers stay what they are. Pure; jit with `n` static.
    """
    chart = whitened(found)
    normal = jax.random.normal(key, (n, chart.free.size), chart.free.dtype)
    return scenes_of(chart, normal, found.scene)


def scenes_of(chart: Whitened, normal: Float[Array, "sample n"], template: Scene) -> Scene:
    """The scenes of many normal numbers; what stacks share is there once."""
    own = template.without_shared()
    return jax.vmap(lambda z: scene_of(chart(z), own))(normal).with_shared(template)


class WeightedSamples(eqx.Module):
    """Samples of the Gaussian with weights that make them samples of the posterior.

    - `scenes`: with a leading axis of samples, as those of `samples`.
    - `weights`: `(sample,)`, of unit sum.
    - `effective_size`: number of independent samples that these are worth, 1 over the sum of the
        squared weights. Where it is a small part of all, the posterior is no Gaussian.
    """

    scenes: Scene
    weights: Float[Array, "sample"]
    effective_size: Float[Array, ""]


def weighted_samples(
    found: Fit,
    exposure: Exposure,
    prior: Prior | None,
    key: PRNGKeyArray,
    n: int,
    *,
    quality: Quality = FIT,
) -> WeightedSamples:
    """`samples`, weighed by posterior over Gaussian: importance sampling.

    For few numbers. With tens of them the weight of all comes to lie on few samples, of two decoded
    galaxies with 16 latents each on 16 of 400: their errors are better off without weights, or by
    `sample_posterior`.

    - `exposure`, `prior`, `quality`: those of the fit. The default prior of a fit is
        `shape_prior(start)`.

    **Raises:** `ValueError` if the noise of `exposure` is correlated: its posterior is another.

    ??? cite
        Effective size: Kong (1992), University of Chicago technical report 348.
    """
    return _weighted(found, problem_of(found, exposure, prior, quality), key, n)


def problem_of(found: Fit, exposure: Exposure, prior: Prior | None, quality: Quality) -> Problem:
    """The problem that a fit solved.

    **Raises:** `ValueError` if bands disagree, or the noise of `exposure` is correlated.
    """
    if found.scene.n_bands != exposure.n_bands:
        raise ValueError(
            f"`exposure` needs the {found.scene.n_bands} bands of the fit; has {exposure.n_bands}."
        )
    if exposure.noise_correlation is not None:
        raise ValueError(
            "`exposure` has correlated noise, under which chi2 is no log-probability; take "
            "`samples`, which need none, or `exposure.with_noise_correlation(None)`."
        )
    free = found.covariance.free
    return make_problem(exposure.data, exposure.weight, exposure.psf, free, prior, quality)


@eqx.filter_jit
def _weighted(found: Fit, problem: Problem, key: PRNGKeyArray, n: int) -> WeightedSamples:
    chart = whitened(found)
    normal = jax.random.normal(key, (n, chart.free.size), chart.free.dtype)
    # One after the other bounds the memory.
    value = jax.lax.map(lambda z: objective(chart(z), found.scene, problem), normal)
    # What is held has no part in either density.
    excess = 0.5 * jnp.sum(chart.free * normal**2, axis=1) - value
    weights = jax.nn.softmax(jnp.where(jnp.isfinite(excess), excess, -jnp.inf))
    scenes = scenes_of(chart, normal, found.scene)
    return WeightedSamples(scenes, weights, 1 / jnp.sum(weights**2))


def _root(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
    """Lower root of a covariance, and 1 for what varies at all."""
    variance = jnp.diagonal(matrix)
    varies = variance > 0
    sigma = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)
    unit = jnp.where(varies, 1 / jnp.where(varies, sigma, 1), 0)
    # Twins, such as two parts on one place, have a correlation of 1 but for rounding.
    tiny = 100 * jnp.finfo(matrix.dtype).eps
    scaled = matrix * unit[:, None] * unit + jnp.diag(jnp.where(varies, tiny, 1))
    return sigma[:, None] * jnp.linalg.cholesky(scaled), varies.astype(matrix.dtype)
