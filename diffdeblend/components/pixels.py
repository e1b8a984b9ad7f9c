"""A galaxy of any shape: free pixels, as in a small image of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.components.abstract import AbstractComponent, check_flux
from diffdeblend.components.monotone import make_monotone, make_symmetric
from diffdeblend.fourier import Pair, multiply, sampled_modes, shift, to_image
from diffdeblend.grid import Grid, Modes
from diffdeblend.parameters import as_float, positive_image, real


class Pixels(AbstractComponent):
    r"""Free pixels: a sum of small round Gaussians on the points of a pixel grid.

    The Gaussians make the profile smooth between the points, so that a deconvolved galaxy cannot
    be finer than the data can say. Several parts, each with its own colour, let the colour change
    across the galaxy.

    - `flux`: total flux in each band, shape `(band,)`, or `(part, band)`; in the unit of the
        exposure.
    - `x`, `y`: place of the middle point, in pixels; the first pixel is centred on `(0, 0)`.
    - `morphology`: weights of the points, shape `(h, w)` or `(part, h, w)`, sizes odd, not
        negative; the profile of a part is normalised by their sum.
    - `blur`: standard deviation of the Gaussians, in pixels.
    - `monotonic`: whether the weights must fall outwards from the middle.
    - `symmetric`: whether they must be the same at opposite points.

    **Raises:** `ValueError` if `flux` and `morphology` disagree, or the sizes are not odd.
    """

    flux: Float[Array, "*part band"] = eqx.field(converter=as_float)
    x: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    y: Float[Array, ""] = eqx.field(converter=as_float, metadata=real)
    morphology: Float[Array, "*part h w"] = eqx.field(converter=as_float, metadata=positive_image)
    blur: float = eqx.field(static=True, default=0.6)
    monotonic: bool = eqx.field(static=True, default=True)
    symmetric: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        shape = self.morphology.shape
        if len(shape) not in (2, 3) or shape[-2] % 2 == 0 or shape[-1] % 2 == 0:
            raise ValueError(
                f"`morphology` needs shape (h, w) or (part, h, w) with odd h and w; got {shape}."
            )
        check_flux(self.flux, None if len(shape) == 2 else shape[0])

    def fourier(self, modes: Modes) -> Pair:
        total = jnp.sum(self.morphology, axis=(-2, -1), keepdims=True)
        # An empty part has no profile; its gradient must stay finite.
        return self.linear_fourier(self.morphology / jnp.where(total > 0, total, 1), modes)

    def linear_fourier(self, weights: Float[Array, "*part h w"], modes: Modes) -> Pair:
        """The profile with other weights, as they are, at this component's place."""
        height, width = weights.shape[-2:]
        x = jnp.arange(width, dtype=weights.dtype) - (width - 1) // 2
        y = jnp.arange(height, dtype=weights.dtype) - (height - 1) // 2
        re, im = sampled_modes(weights, modes, x, y)
        blur = self.spread(modes)
        return multiply((blur * re, blur * im), shift(modes, self.x, self.y))

    def spread(self, modes: Modes) -> Float[Array, "k"]:
        """Transform of one of the Gaussians."""
        return jnp.exp(-0.5 * self.blur**2 * (modes.kx**2 + modes.ky**2))

    def constrained(self) -> "Pixels":
        image = jnp.maximum(self.morphology, 0)
        if self.symmetric:
            image = make_symmetric(image)
        if self.monotonic:
            flat = image.reshape(-1, *image.shape[-2:])
            image = jax.vmap(make_monotone)(flat).reshape(image.shape)
        return eqx.tree_at(lambda p: p.morphology, self, image)


def to_pixels(
    component: AbstractComponent, size: int, *, blur: float = 0.0, monotonic: bool = False
) -> Pixels:
    """Free pixels that look like another component, at its place.

    - `size`: height and width, odd.
    - `blur`: of the pixels. With 0 they are points, and all that a camera with pixels of this size
        can see of the component is kept.

    Jit-compatible.
    """
    grid = Grid(size, size, 2 * size + 1, 2 * size + 1, size, size)
    middle = (size - 1) // 2
    moved = eqx.tree_at(
        lambda c: (c.x, c.y),
        component,
        (jnp.full_like(component.x, middle), jnp.full_like(component.y, middle)),
    )
    re, im = moved.fourier(grid.modes)
    sharpen = jnp.exp(0.5 * blur**2 * (grid.modes.kx**2 + grid.modes.ky**2))
    weights = jnp.maximum(to_image((re * sharpen, im * sharpen), grid), 0)
    total = jnp.sum(weights, axis=(-2, -1), keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    return Pixels(component.flux, component.x, component.y, weights, blur=blur, monotonic=monotonic)
