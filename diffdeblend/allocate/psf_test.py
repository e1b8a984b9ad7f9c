"""Whether a peak is a point: a least-squares fit of points on a slope of sky."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffdeblend.quantities.psf_on_stamp import psf_on_stamp

# Half of the step over which a PSF is differentiated, in pixels.
_STEP = 0.25
# Weight of the rows that keep columns apart that the pixels do not, in units of a column's length.
_RIDGE = 1e-4


class PointFit(NamedTuple):
    """A point at each peak.

    - `flux`, `error`: of the point.
    - `dx`, `dy`: how much farther from its place it fits best, in pixels; 0 where not asked for.
    - `chi2`: of the weighted pixels; `dof`: their number (sum of the ramp) less that of columns.
    """

    flux: Float[Array, "n"]
    error: Float[Array, "n"]
    dx: Float[Array, "n"]
    dy: Float[Array, "n"]
    chi2: Float[Array, "n"]
    dof: Float[Array, "n"]


@jax.jit
def fit_points(
    image: Float[Array, "n s s"],
    weight: Float[Array, "n s s"],
    psf: Float[Array, "n k k"],
    x: Float[Array, "n source"],
    y: Float[Array, "n source"],
    present: Bool[Array, "n source"],
    ramp: Float[Array, "n 2"],
    moves: Bool[Array, ""],
) -> PointFit:
    """Fit a point, its neighbours and a slope of sky to the pixels about each peak.

    Least squares with columns PSF, 1, x, y, the PSF at each neighbour, and with `moves` the
    derivatives of the first PSF. Weights are those of the pixels, times 1 up to the radius
    `ramp[:, 0]` and falling to 0 at `ramp[:, 1]`.

    - `image`, `weight` (one over the variance, 0 where not used): the peak in the middle pixel.
    - `psf`: odd, of unit sum.
    - `x`, `y`: of the point and its neighbours from the middle pixel; the point first.
    - `present`: which of them there are.

    ??? cite
        Bosch et al. (2018), PASJ 70, S5, section 4.8.1: the test of the point.
    """
    one = jax.vmap(_fit, in_axes=(0,) * 7 + (None,))
    return one(image, weight, psf, x, y, present, ramp, jnp.asarray(moves))


def _fit(
    image: Array,
    weight: Array,
    psf: Array,
    x: Array,
    y: Array,
    present: Array,
    ramp: Array,
    moves: Array,
) -> PointFit:
    size = image.shape[0]
    along = jnp.arange(size, dtype=image.dtype) - size // 2
    radius = jnp.hypot(along[:, None], along[None, :])
    slope = jnp.clip((ramp[1] - radius) / jnp.maximum(ramp[1] - ramp[0], 1e-3), 0, 1)
    used = jnp.where(weight > 0, slope, 0)
    root = jnp.sqrt(used * weight)
    points = jax.vmap(lambda x, y: moved_psf(psf, x, y, size))(x, y)
    # Of one size with the sky's, so that all columns count alike.
    scale = jnp.broadcast_to(along / max(size // 2, 1), (size, size))
    step = jnp.array([_STEP, -_STEP], image.dtype)
    left, right = jax.vmap(lambda d: moved_psf(psf, x[0] + d, y[0], size))(step)
    down, up = jax.vmap(lambda d: moved_psf(psf, x[0], y[0] + d, size))(step)
    columns = [points, jnp.stack([jnp.ones_like(image), scale, scale.T])]
    columns.append(jnp.stack([left - right, down - up]) / (2 * _STEP))
    exists = jnp.concatenate([present, jnp.ones(3, bool), jnp.full(2, moves)])
    design = jnp.concatenate(columns).reshape(exists.size, -1) * root.ravel()[None, :]
    length = jnp.sqrt(jnp.sum(design**2, axis=1))
    # A column of zeros, as of a neighbour whose light does not reach the stamp, is not there.
    exists = exists & (length > 1e-6 * jnp.max(length))
    unit = jnp.where(exists[:, None], design / jnp.where(exists, length, 1)[:, None], 0)
    extra = jnp.diag(jnp.where(exists, _RIDGE, 1.0).astype(image.dtype))
    known = jnp.where(used > 0, image, 0).ravel() * root.ravel()
    q, r = jnp.linalg.qr(jnp.concatenate([unit.T, extra]))
    found = jax.scipy.linalg.solve_triangular(r, q[: known.size].T @ known)
    chi2 = jnp.sum((known - unit.T @ found) ** 2)
    values = jnp.where(exists, found / jnp.where(exists, length, 1), 0)
    first = jnp.zeros(exists.size, image.dtype).at[0].set(1)
    spread = jax.scipy.linalg.solve_triangular(r, first, trans=1)
    error = jnp.sqrt(jnp.sum(spread**2)) / jnp.where(exists[0], length[0], 1)
    flux = values[0]
    safe = jnp.where(flux > 0, flux, 1)
    dx, dy = jnp.where(flux > 0, values[-2:] / safe, 0)
    dof = jnp.sum(used) - jnp.sum(exists)
    return PointFit(flux, error, dx, dy, chi2, dof)


def moved_psf(
    psf: Float[Array, "k k"], x: Float[Array, ""], y: Float[Array, ""], size: int
) -> Float[Array, "s s"]:
    """The PSF centred at (x, y) from the middle pixel of a stamp; 0 beyond its own stamp."""
    return psf_on_stamp(psf, (size, size), size // 2 + x, size // 2 + y)
