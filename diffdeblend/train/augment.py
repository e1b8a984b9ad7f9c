"""Turns and reflections that leave a square grid what it is."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, Shaped

Images = TypeVar("Images")


def augment(key: PRNGKeyArray, images: Images) -> Images:
    """Each image turned and reflected at random: one of the eight ways that only move pixels.

    - `images`: an array `(..., size, size)`, or a tree of such arrays with the same leading shape,
        as stamps with their variances and PSFs: what is of one galaxy is turned alike. Sizes may
        differ from array to array.

    Pure: may be compiled and vmapped.

    **Raises:** `ValueError` for images that are not square, or leading shapes that differ.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(images)]
    leading = {leaf.shape[:-2] for leaf in leaves}
    if len(leading) != 1 or any(
        leaf.ndim < 2 or leaf.shape[-1] != leaf.shape[-2] for leaf in leaves
    ):
        raise ValueError(
            "`images` needs square images, as many in each array; "
            f"got shapes {[leaf.shape for leaf in leaves]}."
        )
    shape = (3, *leading.pop(), 1, 1)
    swap, flip_y, flip_x = jax.random.bernoulli(key, 0.5, shape)

    def turned(image):
        image = jnp.where(swap, jnp.swapaxes(image, -2, -1), image)
        image = jnp.where(flip_y, jnp.flip(image, -2), image)
        return jnp.where(flip_x, jnp.flip(image, -1), image)

    return jax.tree.map(turned, images)


def all_turns(image: Shaped[np.ndarray, "size size"]) -> Shaped[np.ndarray, "8 size size"]:
    """The eight turns and flips of a square; host side."""
    return np.stack([np.rot90(side, k) for side in (image, image.T) for k in range(4)])
