"""Neighbours of all pixels of a stamp at once, on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

# In raster order, the pixel itself between the two halves.
STEPS = {
    4: ((-1, 0), (0, -1), (0, 1), (1, 0)),
    8: ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
}


def shifted(values: Array, connectivity: int) -> list[Array]:
    """What each pixel's neighbours have, one image per direction; the edge's own value beyond."""
    wide = jnp.pad(values, 1, mode="edge")
    ny, nx = values.shape
    return [wide[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] for dy, dx in STEPS[connectivity]]


def touching(labels: Int[Array, "y x"], connectivity: int) -> list[Bool[Array, "y x"]]:
    """Of each direction, whether there is a neighbour of the same label; not for label 0."""
    wide = jnp.pad(labels, 1)
    ny, nx = labels.shape
    return [
        (wide[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] == labels) & (labels > 0)
        for dy, dx in STEPS[connectivity]
    ]


def follow(target: Int[Array, "pixel"]) -> Int[Array, "pixel"]:
    """Where each pixel ends up that goes from target to target."""

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        further = state[0][state[0]]
        return further, jnp.any(further != state[0])

    return jax.lax.while_loop(lambda state: state[1], step, (target, jnp.array(True)))[0]
