"""Missing pixels of two images, filled so that the one explains the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.subtract.constant import default_border
from diffdeblend.subtract.filters import proper_filters, shift_plane
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.padding import pad, padded_shape, unpad

_STEPS = 6


def fill_jointly(
    pair: ImagePair,
    psf_new: Float[Array, "h w"],
    psf_reference: Float[Array, "g v"],
    *,
    steps: int = _STEPS,
) -> ImagePair:
    """The pair with values of missing pixels that leave least in the proper difference.

    The difference is white noise where nothing is new, thus its sum of squares is smallest for
    the most likely values: a column through a star that one image lacks is filled as the other
    image has it, and the core that both lack so that nothing rings around it. Conjugate
    gradients from the values that are there; what the data do not say stays as it is.

    - `steps`: of the iteration, two transforms of each image a step.
    """
    if pair.missing_new is None or pair.missing_reference is None:
        return pair
    shape = pair.new.shape
    padded = padded_shape(shape, default_border(psf_new, psf_reference))
    made = proper_filters(
        psf_new, psf_reference, pair.sigma_new, pair.sigma_reference, pair.beta, padded
    )
    # In units of the noise of each image, so that neither is stiffer than the other.
    scale = pair.sigma_new, pair.sigma_reference
    new = made.new * scale[0]
    reference = -made.reference * scale[1] * shift_plane(pair.dx, pair.dy, padded)
    masks = [m.astype(pair.new.dtype) for m in (pair.missing_new, pair.missing_reference)]
    rows = [((p - s) // 2, p - s - (p - s) // 2) for s, p in zip(shape, padded, strict=True)]

    def adjoint(difference: Array) -> tuple[Array, Array]:
        first, second = (
            mask * unpad(jnp.fft.irfft2(jnp.conj(plane) * difference, s=padded), shape)
            for mask, plane in zip(masks, (new, reference), strict=True)
        )
        return first, second

    def forward(values: tuple[Array, Array]) -> Array:
        first, second = (jnp.fft.rfft2(jnp.pad(value, rows)) for value in values)
        return new * first + reference * second

    images = pair.new / scale[0], pair.reference / scale[1]
    start = new * jnp.fft.rfft2(pad(images[0], padded))
    start += reference * jnp.fft.rfft2(pad(images[1], padded))
    right = jax.tree.map(jnp.negative, adjoint(start))
    solution, _ = jax.scipy.sparse.linalg.cg(
        lambda values: adjoint(forward(values)), right, maxiter=steps, tol=1e-4
    )
    return ImagePair(
        pair.new + scale[0] * solution[0],
        pair.reference + scale[1] * solution[1],
        pair.variance_new,
        pair.variance_reference,
        pair.missing_new,
        pair.missing_reference,
        pair.sigma_new,
        pair.sigma_reference,
        pair.beta,
        pair.dx,
        pair.dy,
        pair.noise,
    )
