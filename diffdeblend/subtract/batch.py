"""Many pairs of small images of one shape, subtracted and fitted at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.fill import fill_layers
from diffdeblend.subtract.fill_jointly import fill_jointly
from diffdeblend.subtract.fit_pair import PairFit, fit_pair
from diffdeblend.subtract.maps import ImagePair, Maps
from diffdeblend.subtract.variance import SystematicNoise


def subtract_batch(
    news: Any,
    references: Any,
    variances_new: Any,
    variances_reference: Any,
    psfs_new: Any,
    psfs_reference: Any,
    *,
    masks_new: Any = None,
    masks_reference: Any = None,
    beta: Any = 1.0,
    dx: Any = 0.0,
    dy: Any = 0.0,
    gamma: Any = 0.0,
    sigma_new: Any = None,
    sigma_reference: Any = None,
    noise: SystematicNoise | None = None,
) -> Maps:
    """`subtract` for a stack of pairs of stamps, each with its own PSFs, in one compiled program.

    A stack of another shape is compiled anew, other values are not. May itself be under `jax.jit`,
    `jax.grad` or `jax.vmap`: then NaN has to be masked.

    - `news`, `references`: without sky, shape `(pair, y, x)`.
    - `variances_new`, `variances_reference`: of each pixel, sky and sources, the same shape.
    - `psfs_new`, `psfs_reference`: unit sum, odd sides, shape `(pair, h, w)`, or `(h, w)` for all.
    - `masks_new`, `masks_reference`: true for pixels not to be used, `(pair, y, x)`; these are
        filled. Pixels that are not finite, or whose variance is not positive, are masked, too.
    - `beta`, `dx`, `dy`, `gamma`: as in `subtract`; one number, or one a pair.
    - `sigma_new`, `sigma_reference`: noise of empty sky; default the root of the median variance.
    - `noise`: errors of beta, positions and PSFs; each one number, or one a pair.

    Gives `Maps` with a first axis for the pairs; where `lost` is above 0.5 nothing can be said.

    **Raises:** `ValueError` for shapes that do not go together, or numbers out of range.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27.
    """
    made = _stack(
        (news, references, variances_new, variances_reference),
        (psfs_new, psfs_reference),
        (masks_new, masks_reference),
        {"beta": beta, "dx": dx, "dy": dy, "gamma": gamma},
        (sigma_new, sigma_reference),
        noise,
    )
    return _subtract(made)


def fit_batch(
    news: Any,
    references: Any,
    variances_new: Any,
    variances_reference: Any,
    psfs_new: Any,
    psfs_reference: Any,
    *,
    masks_new: Any = None,
    masks_reference: Any = None,
    beta: Any = 1.0,
    dx: Any = 0.0,
    dy: Any = 0.0,
    sigma_new: Any = None,
    sigma_reference: Any = None,
    steps: int = 10,
) -> PairFit:
    """Flux ratio, shift and background of each pair of stamps, from its own pixels.

    For stamps with a source or more in them; see `fit_pair`. Arguments as in `subtract_batch`, to
    which the result's `beta`, `dx`, `dy` and `gamma` may be given.

    - `beta`, `dx`, `dy`: where the fit begins.
    - `steps`: of Gauss-Newton, the same for all.

    **Raises:** `ValueError` as `subtract_batch`.
    """
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"`steps` must be a positive integer; got {steps!r}.")
    made = _stack(
        (news, references, variances_new, variances_reference),
        (psfs_new, psfs_reference),
        (masks_new, masks_reference),
        {"beta": beta, "dx": dx, "dy": dy, "gamma": 0.0},
        (sigma_new, sigma_reference),
        None,
    )
    return _fit(made, steps)


class _Stack(eqx.Module):
    """Arguments in their final shapes: `(pair, ...)` for all of them."""

    images: tuple[Array, Array, Array, Array]
    psfs: tuple[Array, Array]
    masks: tuple[Array, Array] | None
    numbers: dict[str, Array]
    sigmas: tuple[Array | None, Array | None]
    noise: SystematicNoise


@eqx.filter_jit
def _subtract(stack: _Stack) -> Maps:
    def one(stack: _Stack) -> Maps:
        pair = fill_jointly(_pair(stack), *stack.psfs)
        return subtract_constant(pair, *stack.psfs)

    return jax.vmap(one)(stack)


@eqx.filter_jit
def _fit(stack: _Stack, steps: int) -> PairFit:
    return jax.vmap(lambda stack: fit_pair(_pair(stack), *stack.psfs, steps=steps))(stack)


def _pair(stack: _Stack) -> ImagePair:
    filled, noise, missing, sigmas = [], [], [], []
    for k in (0, 1):
        image, variance, sky = stack.images[k], stack.images[k + 2], stack.sigmas[k]
        hole = None
        if stack.masks is not None:
            # Comparisons with NaN are false: it is a hole.
            hole = stack.masks[k] | ~jnp.isfinite(image) | ~((variance > 0) & (variance < jnp.inf))
        good = jnp.ones(image.shape, bool) if hole is None else ~hole
        level = background_variance(variance, good) if sky is None else sky**2
        filled.append(image if hole is None else fill_layers(image, hole))
        noise.append(variance if hole is None else jnp.where(hole, level, variance))
        missing.append(hole)
        sigmas.append(jnp.sqrt(level))
    numbers = stack.numbers
    return ImagePair(
        filled[0] - numbers["gamma"],
        filled[1],
        noise[0],
        noise[1],
        missing[0],
        missing[1],
        sigmas[0],
        sigmas[1],
        numbers["beta"],
        numbers["dx"],
        numbers["dy"],
        stack.noise,
    )


def background_variance(
    variance: Float[Array, "y x"], good: Bool[Array, "y x"]
) -> Float[Array, ""]:
    """Median variance of the pixels in use; 1 if there is none."""
    middle = jnp.nanmedian(jnp.where(good, variance, jnp.nan))
    return jnp.where(jnp.any(good), middle, 1)


def _stack(
    images: tuple[Any, ...],
    psfs: tuple[Any, ...],
    masks: tuple[Any, ...],
    numbers: dict[str, Any],
    sigmas: tuple[Any, ...],
    noise: SystematicNoise | None,
) -> _Stack:
    first = _floats("news", images[0])
    if first.ndim != 3 or 0 in first.shape:
        raise ValueError(f"`news` needs shape (pair, y, x); got {first.shape}.")
    n, *shape = first.shape
    names = ("news", "references", "variances_new", "variances_reference")
    stacks = [_floats(name, value) for name, value in zip(names, images, strict=True)]
    for name, stack in zip(names, stacks, strict=True):
        if stack.shape != first.shape:
            raise ValueError(
                f"`{name}` needs the shape of `news`, {first.shape}; got {stack.shape}."
            )
    stamps = []
    for name, value in zip(("psfs_new", "psfs_reference"), psfs, strict=True):
        stamp = _floats(name, value)
        stamp = jnp.broadcast_to(stamp, (n, *stamp.shape)) if stamp.ndim == 2 else stamp
        fits = stamp.ndim == 3 and stamp.shape[0] == n
        if not fits or any(
            size % 2 == 0 or size > side for size, side in zip(stamp.shape[1:], shape, strict=True)
        ):
            raise ValueError(
                f"`{name}` needs shape ({n}, h, w) or (h, w) with odd sides no larger than those "
                f"of the stamps, {tuple(shape)}; got {np.shape(value)}."
            )
        total = stamp.sum(axis=(1, 2))
        if not isinstance(total, Tracer) and not np.allclose(total, 1, atol=1e-3):
            raise ValueError(f"`{name}` must sum to 1 each; got sums of {np.asarray(total)}.")
        stamps.append(stamp.astype(first.dtype))
    dtype = first.dtype
    each = {name: _each(name, value, n, dtype) for name, value in numbers.items()}
    sky = [
        None if value is None else _each(name, value, n, dtype)
        for name, value in zip(("sigma_new", "sigma_reference"), sigmas, strict=True)
    ]
    for name, value in (("beta", each["beta"]), ("sigma_new", sky[0]), ("sigma_reference", sky[1])):
        if value is not None and not isinstance(value, Tracer) and not (value > 0).all():
            raise ValueError(f"`{name}` must be positive; got {np.asarray(value)}.")
    noise = SystematicNoise() if noise is None else noise
    return _Stack(
        images=(stacks[0], stacks[1], stacks[2], stacks[3]),
        psfs=(stamps[0], stamps[1]),
        masks=_masks(masks, stacks),
        numbers=each,
        sigmas=(sky[0], sky[1]),
        noise=jax.tree.map(lambda leaf: _each("noise", leaf, n, dtype), noise),
    )


def _masks(masks: tuple[Any, ...], stacks: list[Array]) -> tuple[Array, Array] | None:
    """None if there is nothing to fill, which saves the filling."""
    made = []
    for name, mask in zip(("masks_new", "masks_reference"), masks, strict=True):
        made.append(jnp.zeros(stacks[0].shape, bool) if mask is None else jnp.asarray(mask, bool))
        if made[-1].shape != stacks[0].shape:
            raise ValueError(
                f"`{name}` needs the shape of `news`, {stacks[0].shape}; got {made[-1].shape}."
            )
    if any(mask is not None for mask in masks):
        return made[0], made[1]
    known = not any(isinstance(stack, Tracer) for stack in stacks)
    flawed = known and not (
        all(bool(jnp.isfinite(stack).all()) for stack in stacks)
        and all(bool((stack > 0).all()) for stack in stacks[2:])
    )
    return (made[0], made[1]) if flawed else None


def _floats(name: str, value: Any) -> Array:
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
        if value.dtype.kind not in "fiu":
            raise ValueError(f"`{name}` must be real numbers; got {value.dtype}.")
        # Either byte order; JAX's own is what the machine has.
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _each(name: str, value: Any, n: int, dtype: Any) -> Array:
    array = jnp.asarray(value, dtype)
    if array.shape not in ((), (n,)):
        raise ValueError(f"`{name}` needs one number, or one for each of {n} pairs; got {value!r}.")
    if not isinstance(array, Tracer) and not bool(jnp.isfinite(array).all()):
        raise ValueError(f"`{name}` must be finite; got {np.asarray(array)}.")
    return jnp.broadcast_to(array, (n,))
