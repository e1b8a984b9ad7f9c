"""Sources of a stack of stamps taken apart on the device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffdeblend.segment.bits import LOW_MINIMUM, MANY_MARKERS, NOT_CONNECTED
from diffdeblend.segment.deblend_stamp import DeblendedStamp, deblend_stamp
from diffdeblend.segment.split import Parts, Settings, split_sources
from diffdeblend.segment.watershed import for_device


def split_on_device(
    place: Int[np.ndarray, "pixel"],
    value: Float[np.ndarray, "pixel"],
    parent: Int[np.ndarray, "pixel"],
    n_parents: int,
    shape: tuple[int, int, int],
    settings: Settings,
) -> Parts:
    """`split_sources` by a program that is compiled once for stacks of a shape."""
    if n_parents == 0:
        return split_sources(place, value, parent, n_parents, shape, settings)
    stamp = place // (shape[1] * shape[2])
    # A stamp's sources by numbers of its own, no larger than its pixels are many.
    lowest = np.full(shape[0], n_parents)
    np.minimum.at(lowest, stamp, parent)
    value = for_device(value)
    stack, labels = np.zeros(shape, value.dtype), np.zeros(shape, np.int32)
    stack.reshape(-1)[place] = value
    labels.reshape(-1)[place] = parent - lowest[stamp] + 1
    made = _program(
        jnp.asarray(stack),
        jnp.asarray(labels),
        settings.n_pixels,
        settings.contrast,
        settings._replace(n_pixels=0, contrast=0.0),
    )
    after, bits = (np.asarray(part).reshape(-1)[place] for part in (made.labels, made.bits))
    first = np.full(n_parents, np.iinfo(np.int32).max)
    last, told = np.zeros(n_parents, np.int64), np.zeros(n_parents, np.int32)
    np.minimum.at(first, parent, after)
    np.maximum.at(last, parent, after)
    told[parent] = bits
    n_parts = (last - first + 1).astype(np.int32)
    apart = n_parts[parent] > 1
    return Parts(
        place[apart],
        parent[apart],
        (after - first[parent])[apart].astype(np.int32),
        n_parts,
        (told & LOW_MINIMUM) > 0,
        (told & MANY_MARKERS) > 0,
        (told & NOT_CONNECTED) > 0,
    )


# The number of pixels and the contrast are traced: others compile nothing.
@partial(jax.jit, static_argnums=4)
def _program(
    stack: Array, labels: Array, n_pixels: Array, contrast: Array, settings: Settings
) -> DeblendedStamp:
    settings = settings._replace(n_pixels=n_pixels, contrast=contrast)

    def one(stamp: tuple[Array, Array]) -> DeblendedStamp:
        return deblend_stamp(*stamp, settings)

    # A CPU takes stamps one by one: together, all wait for the slowest at every step.
    if jax.default_backend() == "cpu":
        return jax.lax.map(one, (stack, labels))
    return jax.vmap(one)((stack, labels))
