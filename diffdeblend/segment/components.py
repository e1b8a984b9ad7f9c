"""Connected pixels of a stamp, on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def connected_components(
    mask: Bool[Array, "y x"], connectivity: int = 8
) -> tuple[Int[Array, "y x"], Int[Array, ""]]:
    """Labels of connected pixels, and how many there are.

    Labels are 1, 2, ... in the order of the first pixels, row by row, and 0 where `mask` is False:
    those of `scipy.ndimage.label`. For `jit` and `vmap`; under `vmap` all stamps go on until the
    last is done, in about as many rounds as the logarithm of the longest way through a component.

    - `connectivity`: 4 joins pixels that share an edge, 8 also those that share a corner.

    **Raises:** `ValueError` for a `mask` that is not 2-D, or another `connectivity`.

    ??? cite
        Hooking and pointer jumping: Shiloach & Vishkin (1982), J. Algorithms 3, 57; in the form of
        Zhang, Azad & Hu (2020), SIAM PP, 46.
    """
    if mask.ndim != 2:
        raise ValueError(f"`mask` needs shape (y, x); got {mask.shape}.")
    if connectivity not in (4, 8):
        raise ValueError(f"`connectivity` must be 4 or 8; got {connectivity!r}.")
    mask = mask.astype(bool)
    size = mask.size
    flat = mask.reshape(-1)
    # Every pixel points to one of its component with a smaller or the same index; background to
    # an index beyond the image.
    start = jnp.where(flat, jnp.arange(size, dtype=jnp.int32), size)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        pointer, _ = state
        near = _least_around(pointer.reshape(mask.shape), size, connectivity).reshape(-1)
        near = jnp.where(flat, near, size)
        # What a pixel points to learns of the smaller index beside the pixel.
        hooked = jnp.minimum(pointer.at[pointer].min(near, mode="drop"), near)
        for _ in range(2):
            hooked = jnp.minimum(hooked, hooked.at[hooked].get(mode="fill", fill_value=size))
        return hooked, jnp.any(hooked != pointer)

    pointer, _ = jax.lax.while_loop(lambda s: s[1], step, (start, jnp.any(flat)))
    number = jnp.cumsum(flat & (pointer == jnp.arange(size)), dtype=jnp.int32)
    labels = number.at[pointer].get(mode="fill", fill_value=0)
    return labels.reshape(mask.shape), number[-1] if size else jnp.int32(0)


def drop_small(
    labels: Int[Array, "y x"], n_pixels: int | Int[Array, ""]
) -> tuple[Int[Array, "y x"], Int[Array, ""]]:
    """Without the labels of less than `n_pixels` pixels; the others are 1, 2, ... in old order.

    Labels may be up to the number of pixels.
    """
    flat = labels.reshape(-1)
    areas = jnp.zeros(flat.size + 1, jnp.int32).at[flat].add(1)
    large = (areas >= jnp.maximum(n_pixels, 1)).at[0].set(False)
    number = jnp.where(large, jnp.cumsum(large, dtype=jnp.int32), 0)
    return number[flat].reshape(labels.shape), jnp.sum(large, dtype=jnp.int32)


def _least_around(values: Int[Array, "y x"], beyond: int, connectivity: int) -> Int[Array, "y x"]:
    """Least of a pixel and its neighbours."""
    wide = jnp.pad(values, ((0, 0), (1, 1)), constant_values=beyond)
    across = jnp.minimum(jnp.minimum(wide[:, :-2], wide[:, 2:]), values)
    # Through the corners too if it is the least of a row that is handed on.
    tall = jnp.pad(
        across if connectivity == 8 else values, ((1, 1), (0, 0)), constant_values=beyond
    )
    return jnp.minimum(jnp.minimum(tall[:-2], tall[2:]), across)
