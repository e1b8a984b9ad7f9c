"""Free pixels under constraints alone: what non-negativity, symmetry and monotonicity do.

The image of a source in a model frame, seen through a narrow round Gaussian, is free; between it
and the data is a Gaussian, so that drawing is two small matrix products, exact at any shift.
Accelerated projected gradients (FISTA with restarts), as scarlet has them.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from blends import Blends

from diffdeblend.components.monotone import make_monotone, make_symmetric


@dataclass(frozen=True)
class Constraints:
    """What a source is told to be, and for how many steps it is sought.

    - `centre`: whether the true centre is known, or the nearest pixel alone.
    - `frame`: width of the Gaussian of the model frame, pixels.
    - `reach`: pixels that a source extends from its centre; None: all over the stamp.
    """

    symmetric: bool = False
    monotone: bool = False
    centre: bool = False
    steps: int = 30
    frame: float = 0.8
    reach: int | None = None


# Steps and reach were chosen on blends of seed 1, by the sum of the median flux errors of all three
# sets: more steps fit the noise, and so does a larger reach, where nothing falls outwards.
NON_NEGATIVE = Constraints(reach=8)
SYMMETRIC = Constraints(symmetric=True, centre=True, reach=12)
SCARLET_LIKE = Constraints(symmetric=True, monotone=True, centre=True)


def fit_pixels(blends: Blends, constraints: Constraints) -> np.ndarray:
    """The image of each source, `(blend, source, band, y, x)`; of one band with a Gaussian PSF.

    **Raises:** `ValueError` for several bands or another PSF.
    """
    settings = blends.settings
    if len(settings.psf_sigma) != 1 or settings.beta is not None:
        raise ValueError("`blends` must have one band with a Gaussian PSF.")
    blur = np.sqrt((settings.told * settings.psf_sigma[0]) ** 2 - constraints.frame**2)
    places = np.stack([blends.x, blends.y], axis=-1) if constraints.centre else blends.peaks
    reach = constraints.reach or settings.size // 2 + int(max(settings.apart) / 2) + 2
    images = _all(
        jnp.asarray(blends.image[:, 0]), jnp.asarray(places, jnp.float32), float(blur), reach,
        constraints,
    )  # fmt: skip
    return np.asarray(images)[:, :, None]


@partial(jax.jit, static_argnums=(2, 3, 4))
def _all(data, places, blur: float, reach: int, constraints: Constraints):
    return jax.lax.map(lambda one: _one(*one, blur, reach, constraints), (data, places))


def _one(data, places, blur: float, reach: int, constraints: Constraints):
    """One blend: images of its sources as the camera sees them, `(source, y, x)`."""
    box, pixels = jnp.arange(-reach, reach + 1), jnp.arange(data.shape[0])

    def along(centre):
        """What a row of the box lights in a row of the stamp."""
        far = (pixels[:, None] - centre - box[None]) / blur
        return jnp.exp(-0.5 * far**2) / (np.sqrt(2 * np.pi) * blur)

    across_x, across_y = jax.vmap(along)(places[:, 0]), jax.vmap(along)(places[:, 1])

    def draw(source):
        return across_y @ source @ across_x.transpose(0, 2, 1)

    def constrained(source):
        source = make_symmetric(source) if constraints.symmetric else source
        source = jnp.maximum(source, 0)
        if constraints.monotone:
            source = jax.vmap(make_monotone)(source)
            # Capping along rays is not symmetric to the last pixel.
            source = make_symmetric(source) if constraints.symmetric else source
        return source

    def step(_, walk):
        now, ahead, pace = walk
        left = draw(ahead).sum(axis=0) - data
        slope = across_y.transpose(0, 2, 1) @ left @ across_x
        # Two kernels of unit sum: no curvature is above 2.
        new = constrained(ahead - 0.5 * slope)
        restart = jnp.sum((ahead - new) * (new - now)) > 0
        pace = jnp.where(restart, 1.0, pace)
        faster = 0.5 * (1 + jnp.sqrt(1 + 4 * pace**2))
        return new, new + (pace - 1) / faster * (new - now), faster

    start = _start(data, places, box, blur)
    walk = jax.lax.fori_loop(0, constraints.steps, step, (start, start, jnp.asarray(1.0)))
    return draw(walk[0])


def _start(data, places, box, blur: float):
    """A round source of the size of the PSF with the peak of the data."""
    at = jnp.round(places).astype(int)
    peak = jnp.maximum(data[at[:, 1], at[:, 0]], 0)
    shape = jnp.exp(-0.5 * (box[:, None] ** 2 + box[None] ** 2) / blur**2)
    return peak[:, None, None] * shape
