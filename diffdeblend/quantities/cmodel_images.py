"""Images of a galaxy profile seen through the PSF, and their derivatives by its shape.

The shape is three numbers: ln of the half-light radius (of the circle of the same area), and the
conformal shear, whose length is ln(a / b) and which is positive in its first part along x.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fourier import to_image
from diffdeblend.quantities.cmodel_problem import Problem, Settings, problem_grid
from diffdeblend.quantities.cmodel_profiles import Profile
from diffdeblend.wings import spread_wings, wrapped_wings


def _squeeze(numbers: Array, sign: int) -> Array:
    """Q for `sign` 1 and its inverse for -1, as (xx, yy, xy)."""
    size = jnp.exp(2 * sign * numbers[0])
    one, two = numbers[1], numbers[2]
    squared = one * one + two * two
    # Series where the root has no derivative.
    tiny = squared < 1e-6
    length = jnp.sqrt(jnp.where(tiny, 1.0, squared))
    even = jnp.where(tiny, 1 + squared / 2, jnp.cosh(length))
    odd = sign * jnp.where(tiny, 1 + squared / 6, jnp.sinh(length) / length)
    return jnp.stack([size * (even + odd * one), size * (even - odd * one), size * odd * two])


def shape_matrix(numbers: Float[Array, "3"]) -> Float[Array, "3"]:
    """Q as (xx, yy, xy), square pixels: the ellipse that holds half of the light."""
    return _squeeze(numbers, 1)


def shape_numbers(form: Float[Array, "3"]) -> Float[Array, "3"]:
    """ln(radius) and conformal shear of an ellipse (xx, yy, xy): `shape_matrix` the other way."""
    tiny = jnp.finfo(form.dtype).tiny
    area = jnp.sqrt(jnp.maximum(form[0] * form[1] - form[2] ** 2, tiny))
    one, two = 0.5 * (form[0] - form[1]) / area, form[2] / area
    squared = one * one + two * two
    small = squared < 1e-6
    length = jnp.sqrt(jnp.where(small, 1.0, squared))
    ratio = jnp.where(small, 1 - squared / 6, jnp.arcsinh(length) / length)
    return jnp.stack([0.5 * jnp.log(area), one * ratio, two * ratio])


def with_slopes(numbers: Array, sign: int) -> tuple[Array, Array]:
    """`_squeeze` and its Jacobian, rows the entries; xy counts twice, as in a quadratic form."""
    twice = jnp.asarray([1, 1, 2], numbers.dtype)
    value = _squeeze(numbers, sign) * twice
    return value, jax.jacfwd(lambda n: _squeeze(n, sign) * twice)(numbers)


def profile_image(
    profile: Profile, problem: Problem, numbers: Float[Array, "3"], settings: Settings
) -> Float[Array, "y x"]:
    """The seen profile of unit flux."""
    grid = problem_grid(problem, settings)
    modes = grid.modes
    xx, yy, xy = shape_matrix(numbers)
    value, _ = profile.transform(
        xx * modes.kx * modes.kx + yy * modes.ky * modes.ky + 2 * xy * modes.kx * modes.ky
    )
    re, im = problem.transfer
    image = to_image((re * value, im * value), grid)
    if not settings.quality.corrections:
        return image

    def wings(x: Array, y: Array) -> Array:
        return _wings(profile, problem, numbers, x, y)[:1]

    return image - spread_wings(wrapped_wings(wings, grid, image.dtype), grid)[0]


def profile_images(
    profile: Profile, problem: Problem, numbers: Float[Array, "3"], settings: Settings
) -> Float[Array, "4 y x"]:
    """The seen profile of unit flux, and its derivatives by the numbers of the shape."""
    grid = problem_grid(problem, settings)
    modes = grid.modes
    form, slopes = with_slopes(numbers, 1)
    kxx, kyy, kxy = modes.kx * modes.kx, modes.ky * modes.ky, modes.kx * modes.ky
    # Materialised: each is read several times, and would be computed as often.
    value, slope = jax.lax.optimization_barrier(
        profile.transform(form[0] * kxx + form[1] * kyy + form[2] * kxy)
    )
    real = [value] + [
        slope * (slopes[0, t] * kxx + slopes[1, t] * kyy + slopes[2, t] * kxy) for t in range(3)
    ]
    re, im = (
        jnp.stack(jax.lax.optimization_barrier([part * r for r in real]))
        for part in problem.transfer
    )
    images = to_image(jax.lax.optimization_barrier((re, im)), grid)
    if not settings.quality.corrections:
        return images
    wings = partial(_wings, profile, problem, numbers)
    return images - spread_wings(wrapped_wings(wings, grid, images.dtype), grid)


def _wings(profile: Profile, problem: Problem, numbers: Array, x: Array, y: Array) -> Array:
    """Surface brightness far from the centre and its derivatives, `(4, p)`."""
    form, slopes = with_slopes(numbers, -1)
    x, y = x - problem.x, y - problem.y
    xx, yy, xy = x * x, y * y, x * y
    value, slope = jax.lax.optimization_barrier(
        profile.brightness(form[0] * xx + form[1] * yy + form[2] * xy)
    )
    area = jnp.exp(-2 * numbers[0])
    by = [slope * (slopes[0, t] * xx + slopes[1, t] * yy + slopes[2, t] * xy) for t in range(3)]
    by[0] = by[0] - 2 * value
    return area * jnp.stack(jax.lax.optimization_barrier([value, *by]))
