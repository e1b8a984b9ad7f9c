"""Flux ratio, shift and background of one pair of small images, from all of their pixels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from diffdeblend.subtract.constant import default_border
from diffdeblend.subtract.filters import filters_of_transfers, shift_plane, transfer_plane
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.padding import pad, padded_shape, unpad

# Beyond that many standard deviations a pixel counts less.
_HUBER = 2.5
# A filter carries a flaw, and the shift the border's mirror image, that far.
_REACH = 4


class PairFit(eqx.Module):
    """What two images differ by, besides what is new on the sky; of a batch with an axis more.

    - `beta`, `dx`, `dy`, `gamma`: as in `Difference`; zero axes.
    - `covariance`: of log beta, dx, dy and gamma, shape `(4, 4)`, from the noise of the pixels.
    - `chi2`: of a pixel of the difference, on average; 1 where the noise explains it all.
    - `converged`: whether the last step was below a tenth of its error.
    """

    beta: Float[Array, ""]
    dx: Float[Array, ""]
    dy: Float[Array, ""]
    gamma: Float[Array, ""]
    covariance: Float[Array, "4 4"]
    chi2: Float[Array, ""]
    converged: Bool[Array, ""]

    @property
    def beta_err(self) -> Float[Array, ""]:
        """Standard deviation of beta."""
        return self.beta * jnp.sqrt(self.covariance[..., 0, 0])


def fit_pair(
    pair: ImagePair,
    psf_new: Float[Array, "h w"],
    psf_reference: Float[Array, "g v"],
    *,
    steps: int = 10,
) -> PairFit:
    """The flux ratio, shift and background for which the proper difference is most likely noise.

    Gauss-Newton with exact slopes, from `pair.beta`, `pair.dx`, `pair.dy` and no background.
    The sum of squares of the difference over its variance is, but for a constant, twice the
    negative log-likelihood of the two images with the most likely sky behind both. Pixels beyond
    2.5 standard deviations count less: what is new has little say. Derivatives of what is found,
    forward and reverse, are those of the steps.

    - `pair`: missing pixels are filled; those, and 4 pixels around them and at the border, do not
        count.
    - `steps`: of the iteration.
    """
    made = _prepared(pair, psf_new, psf_reference)
    # The background in units of the noise: all four are then of order one.
    start = jnp.stack([jnp.log(pair.beta), pair.dx, pair.dy, jnp.zeros_like(pair.dx)])

    def step(theta: Array, _: None) -> tuple[Array, Array]:
        covariance, gradient, _chi2 = _normal_equations(theta, made)
        move = -covariance @ gradient
        # Half a factor or a pixel at most: beyond that the slopes do not hold.
        longest = jnp.maximum(jnp.abs(move[0]) / 0.4, jnp.max(jnp.abs(move[1:3])))
        move = move / jnp.maximum(1, longest)
        deviation = jnp.sqrt(jnp.diagonal(covariance))
        return theta + move, jnp.max(jnp.abs(move) / deviation)

    theta, changes = jax.lax.scan(step, start, None, length=steps)
    covariance, _, chi2 = _normal_equations(theta, made)
    units = jnp.ones(4, theta.dtype).at[3].set(pair.sigma_new)
    return PairFit(
        beta=jnp.exp(theta[0]),
        dx=theta[1],
        dy=theta[2],
        gamma=theta[3] * pair.sigma_new,
        covariance=covariance * units[:, None] * units,
        chi2=chi2,
        converged=changes[-1] < 0.1,
    )


def misfit(
    pair: ImagePair, psf_new: Float[Array, "h w"], psf_reference: Float[Array, "g v"]
) -> Float[Array, ""]:
    """What `fit_pair` makes small, for any other optimiser: mean of D² over its variance.

    At `pair.beta`, `pair.dx` and `pair.dy`; its background is as `pair.new` has it. No pixel counts
    less for being far off, and the variance is taken as known: no derivative goes through it.
    """
    made = _prepared(pair, psf_new, psf_reference)
    theta = jnp.stack([jnp.log(pair.beta), pair.dx, pair.dy, jnp.zeros_like(pair.dx)])
    variance = jax.lax.stop_gradient(_variance(theta, made))
    known = made.known
    total = jnp.sum(jnp.where(known, _difference(theta, made) ** 2 / variance, 0))
    return total / jnp.maximum(jnp.sum(known), 1)


class _Prepared(eqx.Module):
    """Transforms of the images, of their variances and of the PSFs, on the padded plane."""

    new: Complex[Array, "ky kx"]
    reference: Complex[Array, "ky kx"]
    variance_new: Complex[Array, "ky kx"]
    variance_reference: Complex[Array, "ky kx"]
    psf_new: Complex[Array, "ky kx"]
    psf_reference: Complex[Array, "ky kx"]
    ratio: Float[Array, ""]
    known: Bool[Array, "y x"]
    shape: tuple[int, int] = eqx.field(static=True)
    padded: tuple[int, int] = eqx.field(static=True)


def _prepared(pair: ImagePair, psf_new: Array, psf_reference: Array) -> _Prepared:
    shape = pair.new.shape[0], pair.new.shape[1]
    padded = padded_shape(shape, default_border(psf_new, psf_reference))
    sigma_new, sigma_reference = pair.sigma_new, pair.sigma_reference

    def transform(image: Array) -> Array:
        return jnp.fft.rfft2(pad(image, padded))

    # In units of the noise of each image: float32 is then enough for any unit of flux.
    return _Prepared(
        new=transform(pair.new / sigma_new),
        reference=transform(pair.reference / sigma_reference),
        variance_new=transform(pair.variance_new / sigma_new**2),
        variance_reference=transform(pair.variance_reference / sigma_reference**2),
        psf_new=transfer_plane(psf_new, padded),
        psf_reference=transfer_plane(psf_reference, padded),
        ratio=sigma_reference / sigma_new,
        known=_known(pair),
        shape=shape,
        padded=padded,
    )


def _known(pair: ImagePair) -> Bool[Array, "y x"]:
    ny, nx = pair.new.shape
    inside = np.zeros((ny, nx), bool)
    inside[_REACH : ny - _REACH, _REACH : nx - _REACH] = True
    if pair.missing_new is None or pair.missing_reference is None:
        return jnp.asarray(inside)
    flawed = pair.missing_new | pair.missing_reference
    size = (2 * _REACH + 1,) * 2
    grown = jax.lax.reduce_window(flawed, False, jax.lax.bitwise_or, size, (1, 1), "SAME")
    return inside & ~grown


def _filters(theta: Array, made: _Prepared):
    scaled = jnp.exp(theta[0]) * made.ratio
    filters = filters_of_transfers(made.psf_new, made.psf_reference, 1.0, 1.0, scaled, made.padded)
    return filters, shift_plane(theta[1], theta[2], made.padded)


def _difference(theta: Array, made: _Prepared) -> Float[Array, "y x"]:
    filters, moved = _filters(theta, made)
    total = filters.new * made.new - filters.reference * moved * made.reference
    image = unpad(jnp.fft.irfft2(total, s=made.padded), made.shape)
    return image - theta[3] * jnp.real(filters.new[0, 0])


def _variance(theta: Array, made: _Prepared) -> Float[Array, "y x"]:
    """Of the difference at each pixel: 1 in empty sky, more on the sources."""
    filters, moved = _filters(theta, made)

    def squared(plane: Array) -> Array:
        return jnp.fft.rfft2(jnp.fft.irfft2(plane, s=made.padded) ** 2)

    total = squared(filters.new) * made.variance_new
    total += squared(filters.reference) * moved * made.variance_reference
    return jnp.maximum(unpad(jnp.fft.irfft2(total, s=made.padded), made.shape), 0.1)


def _normal_equations(theta: Array, made: _Prepared) -> tuple[Array, Array, Array]:
    """Covariance and gradient of the four numbers, and chi² of a pixel."""
    variance = _variance(theta, made)

    def twice(theta: Array) -> tuple[Array, Array]:
        image = _difference(theta, made)
        return image, image

    slopes, image = jax.jacfwd(twice, has_aux=True)(theta)
    far = jnp.abs(image) / jnp.sqrt(variance)
    weight = jnp.minimum(1, _HUBER / jnp.maximum(far, 1e-3)) / variance
    weight = jnp.where(made.known, weight, 0)
    normal = jnp.einsum("yxa,yx,yxb->ab", slopes, weight, slopes)
    gradient = jnp.einsum("yxa,yx,yx->a", slopes, weight, image)
    # A pair without light, or without a pixel in use, stays where it is.
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(normal), 1e-6))
    scaled = normal / (size[:, None] * size) + 1e-6 * jnp.eye(4, dtype=size.dtype)
    chi2 = jnp.sum(weight * image**2) / jnp.maximum(jnp.sum(made.known), 1)
    return jnp.linalg.inv(scaled) / (size[:, None] * size), gradient, chi2
