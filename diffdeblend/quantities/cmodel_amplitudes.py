"""The amplitudes of two given profiles, and how they answer to noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fourier import EXACT
from diffdeblend.quantities.cmodel_minimise import solve3
from diffdeblend.quantities.cmodel_problem import Problem, Settings, at_bound, prior_curvature


class Sums(NamedTuple):
    """Sums over pixels of products of images.

    - `gram`: of images with weights; `data`: of images and data with weights.
    - `noise`: covariance of `data`, from the variance of every pixel.
    - `power`: of the data with itself.
    """

    gram: Float[Array, "n n"]
    data: Float[Array, "n"]
    noise: Float[Array, "n n"]
    power: Float[Array, ""]


def make_sums(
    images: Float[Array, "n y x"], problem: Problem, variance: Float[Array, "y x"]
) -> Sums:
    """Sums of images on the used pixels."""
    rows = images.reshape(images.shape[0], -1)
    weight, data = problem.weight.reshape(-1), problem.data.reshape(-1)
    noise = jnp.where(weight > 0, variance.reshape(-1), 0)
    weighted, scattered = jax.lax.optimization_barrier(
        (rows * weight, rows * (weight * weight * noise))
    )
    return Sums(
        jnp.matmul(weighted, rows.T, precision=EXACT),
        jnp.matmul(weighted, data, precision=EXACT),
        jnp.matmul(scattered, rows.T, precision=EXACT),
        jnp.sum(weight * data * data),
    )


class Amplitudes(NamedTuple):
    """Of two images of unit flux, as their total flux and the share of the second in it.

    - `values`: total flux, and flux of the second image.
    - `filters`: by how much the total follows the data's sums with the first image, and with the
        second less the first.
    - `basis`: orthonormal images that the amplitudes can make, in terms of these two; zeros where
        one amplitude is held at 0.
    """

    values: Float[Array, "2"]
    filters: Float[Array, "2"]
    basis: Float[Array, "2 2"]


def two_amplitudes(gram: Float[Array, "3 3"], data: Float[Array, "3"]) -> Amplitudes:
    """Amplitudes of two images, neither negative.

    Where no amplitude is positive, the better of the two is negative and the other 0, so that the
    flux of nothing is not biased. The difference of the images is an image of its own: for a point
    both are the PSF, and a difference of sums would be nothing but rounding.

    - `gram`, `data`: sums of the two images and of the second less the first.
    """
    tiny = jnp.finfo(data.dtype).tiny
    mass = jnp.maximum(gram[0, 0], tiny)
    other = jnp.maximum(gram[1, 1], tiny)
    cross = gram[0, 2]
    # The share is 0 where images differ by less than float32 can see.
    spread = gram[2, 2] - cross * cross / mass + 1e-7 * mass
    flux_one = data[0] / mass
    of_second = (data[2] - cross * flux_one) / spread
    both = jnp.stack([flux_one - of_second * cross / mass, of_second])
    flux_other = data[1] / other
    # What each explains of the data: a negative one counts against.
    alone = flux_one * jnp.abs(data[0]) >= flux_other * jnp.abs(data[1])
    single = jnp.where(alone, jnp.stack([flux_one, 0]), jnp.stack([flux_other, flux_other]))
    mixed = (both[1] >= 0) & (both[1] <= both[0])
    first = jnp.stack([jax.lax.rsqrt(mass), 0])
    rest = jnp.stack([-cross / mass, 1]) * jax.lax.rsqrt(spread)
    second = jnp.ones(2, data.dtype) * jax.lax.rsqrt(other)
    basis = jnp.stack(
        [jnp.where(mixed | alone, first, second), jnp.where(mixed, rest, jnp.zeros_like(rest))]
    )
    return Amplitudes(jnp.where(mixed, both, single), basis[:, 0] @ basis, basis)


def shape_response(
    slot: int,
    numbers: Float[Array, "3"],
    sums: Sums,
    amplitudes: Amplitudes,
    problem: Problem,
    settings: Settings,
) -> Float[Array, "9"]:
    """How much the total flux follows the sums of all images by way of one profile's ellipse.

    The profiles' images are rows 0 and 4, their derivatives follow each, row 8 is the difference.
    First order: noise moves the ellipse as the Gauss-Newton matrix of the profile alone says, and
    the ellipse moves the flux.
    """
    first = 4 * slot
    slopes, gram = slice(first + 1, first + 4), sums.gram
    mass = jnp.maximum(gram[first, first], jnp.finfo(sums.data.dtype).tiny)
    flux = sums.data[first] / mass
    cross = jnp.stack([gram[slopes, 0], gram[slopes, 8]], axis=1)
    own, own_filter = (
        v[1] if slot else v[0] - v[1] for v in (amplitudes.values, amplitudes.filters)
    )
    left = sums.data[slopes] - cross @ amplitudes.values
    by_shape = own * (cross @ amplitudes.filters) - own_filter * left
    shared = gram[slopes, first] / mass
    matrix = flux**2 * (gram[slopes, slopes] - shared[:, None] * gram[first, slopes])
    prior = settings.prior
    # Of a radius at its bound nothing moves, whatever the brightness.
    held = jnp.where(at_bound(problem, prior, numbers), 1e6, 0.0) * (1 + matrix[0, 0])
    extra = prior_curvature(prior, problem, numbers).at[0].add(held + 1 / prior.resolution**2)
    weights = flux * solve3(matrix + jnp.diag(extra), by_shape)
    response = jnp.zeros_like(sums.data).at[slopes].set(weights)
    return response.at[first].add(-shared @ weights)


def chi2(sums: Sums, model: Float[Array, "n"]) -> Float[Array, ""]:
    """What a sum of the images leaves of the data."""
    return jnp.maximum(sums.power - 2 * model @ sums.data + model @ sums.gram @ model, 0)
