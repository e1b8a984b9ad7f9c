"""An image convolved with a small kernel, pixels without a value left out."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffdeblend.backend import Backend, on_host
from diffdeblend.segment.kernels import factors

# Kernels of more pixels that are no products go through Fourier space.
_LARGEST_DIRECT = 121
# Values of a block: what is in work stays in the cache of a core.
_BLOCK = 1 << 17
_FOURIER_BLOCK = 1 << 20


def smooth(
    data: Any,
    kernel: Any,
    *,
    mask: Any = None,
    backend: Backend = "auto",
    normalize: bool = True,
) -> Any:
    """An image, or a stack of stamps, convolved with a kernel; outside of the image is 0.

    What `astropy.convolution.convolve` gives: pixels that are not finite, or masked, get the
    weighted mean of those around them, and count nowhere else. Where a kernel finds none at all
    the result is NaN. Kernels that are a product of a row and a column cost two short sums.

    - `data`: shape `(y, x)` or `(stamp, y, x)`; a unit is kept, and so is the kind of float.
    - `kernel`: shape `(y, x)`, both odd.
    - `mask`: True on pixels to leave out, of the shape of `data`.
    - `backend`: "host" for numpy, "jax" for an array on the device, or as the device is.
    - `normalize`: divide by the sum of the kernel.

    **Raises:** `ValueError` for shapes that do not fit, a kernel that is not finite or of even
    size, one of sum 0 that is to be normalized or meets pixels without a value, or another
    `backend`.
    """
    weights = _kernel(kernel, normalize)
    unit = getattr(data, "unit", None)
    values = data if unit is None else data.value
    if np.ndim(values) not in (2, 3):
        raise ValueError(f"`data` needs shape (y, x) or (stamp, y, x); got {np.shape(values)}.")
    if mask is not None and np.shape(mask) != np.shape(values):
        raise ValueError(
            f"`mask` needs the shape of `data`, {np.shape(values)}; got {np.shape(mask)}."
        )
    if on_host(backend):
        out = _on_host(np.asarray(values), weights, None if mask is None else np.asarray(mask))
    else:
        pair = factors(weights)
        kernels = (weights,) if pair is None else pair
        hidden = None if mask is None else jnp.asarray(mask, bool)
        out = _on_device(jnp.asarray(values), tuple(jnp.asarray(k) for k in kernels), hidden)
    return out if unit is None else np.asarray(out) * unit


def smooth_stamp(
    data: Float[Array, "y x"],
    kernel: tuple[Float[Array, "ky"], Float[Array, "kx"]] | tuple[Float[Array, "ky kx"]],
    mask: Bool[Array, "y x"] | None = None,
) -> Float[Array, "y x"]:
    """`smooth` of one stamp, for `jit`, `vmap` and gradients.

    - `kernel`: a column and a row, or one image alone, of odd sizes. Where pixels are missing and
        its sum is 0, all is NaN.
    """
    total = sum_of(kernel)
    good = jnp.isfinite(data) if mask is None else jnp.isfinite(data) & ~mask
    light = _convolved(jnp.where(good, data, 0), kernel)
    # Outside of the image are zeros, which are values: as many weights are lost as are inside.
    reach = [k // 2 for k in (kernel[0].shape[0], kernel[-1].shape[-1])]
    inside = jnp.pad(good.astype(data.dtype), [(n, n) for n in reach], constant_values=1)
    share = _convolved(inside, kernel)[
        reach[0] : reach[0] + data.shape[0], reach[1] : reach[1] + data.shape[1]
    ]
    # All weights are there as a rule, and then nothing is to be divided, not even 0 by 0.
    whole = jnp.all(good)
    known = jnp.abs(share) > 1e-6 * jnp.abs(total)
    scale = jnp.where(whole, 1.0, total / jnp.where(known, share, 1.0))
    return jnp.where(whole | (known & (total != 0)), light * scale, jnp.nan)


def sum_of(kernel: tuple[Array, ...]) -> Float[Array, ""]:
    """Sum of a kernel that is an image, or a column and a row."""
    total = jnp.sum(kernel[0])
    return total * jnp.sum(kernel[1]) if len(kernel) == 2 else total


def _kernel(kernel: Any, normalize: bool) -> Float[np.ndarray, "y x"]:
    weights = np.asarray(getattr(kernel, "array", kernel), dtype=float)
    if weights.ndim != 2 or not all(n % 2 for n in weights.shape):
        raise ValueError(f"`kernel` needs shape (y, x), both odd; got {weights.shape}.")
    if not np.isfinite(weights).all():
        raise ValueError("`kernel` must be finite.")
    if not normalize:
        return weights
    if _sums_to_nothing(weights):
        raise ValueError("`kernel` sums to 0 and cannot be normalized; try `normalize=False`.")
    return weights / weights.sum()


def _sums_to_nothing(weights: np.ndarray) -> bool:
    return bool(abs(weights.sum()) <= 1e-8 * np.abs(weights).sum())


@jax.jit
def _on_device(data: Array, kernel: tuple[Array, ...], mask: Array | None) -> Array:
    values = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    kernel = tuple(k.astype(values.dtype) for k in kernel)
    if values.ndim == 2:
        return smooth_stamp(values, kernel, mask)  # type: ignore[arg-type]
    return jax.vmap(smooth_stamp, in_axes=(0, None, None if mask is None else 0))(
        values,
        kernel,  # type: ignore[arg-type]
        mask,
    )


def _convolved(data: Array, kernel: tuple[Array, ...]) -> Array:
    if len(kernel) == 1:
        taps, (ny, nx) = kernel[0], kernel[0].shape
        # A convolution turns the kernel; that of neural networks does not.
        return jax.lax.conv_general_dilated(
            data[None, None],
            taps[None, None, ::-1, ::-1],
            (1, 1),
            ((ny // 2, ny // 2), (nx // 2, nx // 2)),
            precision=jax.lax.Precision.HIGHEST,
        )[0, 0]
    for axis, taps in enumerate(kernel):
        reach, n = len(taps) // 2, data.shape[axis]
        wide = jnp.pad(data, [(reach, reach) if axis == k else (0, 0) for k in (0, 1)])
        shifted = [
            jax.lax.slice_in_dim(wide, len(taps) - 1 - k, len(taps) - 1 - k + n, axis=axis)
            for k in range(len(taps))
        ]
        data = sum((taps[k] * part for k, part in enumerate(shifted)), jnp.zeros_like(data))
    return data


def _on_host(data: np.ndarray, kernel: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    kind = np.float32 if data.dtype == np.float32 else np.float64
    values = data if data.ndim == 3 else data[None]
    good = _finite(values)
    if mask is not None and mask.any():
        hidden = mask.astype(bool).reshape(values.shape)
        good = ~hidden if good is None else good & ~hidden
    if good is None:
        return _sums(values, kernel, kind).reshape(data.shape)
    if _sums_to_nothing(kernel):
        raise ValueError("`kernel` sums to 0, which tells nothing of pixels without a value.")
    light = _sums(np.where(good, values, 0), kernel, kind)
    reach = [(0, 0)] + [(n // 2, n // 2) for n in kernel.shape]
    share = _sums(np.pad(good.astype(kind), reach, constant_values=1), kernel, kind)
    share = share[:, reach[1][0] :, reach[2][0] :][:, : values.shape[1], : values.shape[2]]
    total = kernel.sum()
    known = np.abs(share) > 1e-6 * abs(total)
    light *= np.divide(kind(total), share, out=np.full_like(share, np.nan), where=known)
    return light.reshape(data.shape)


def _finite(values: np.ndarray) -> np.ndarray | None:
    """Where values are finite; None if all are."""
    if values.dtype.kind in "biu":
        return None
    # One sum tells nearly always, and leaves no image behind.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return None
    good = np.isfinite(values)
    return None if good.all() else good


def _sums(values: np.ndarray, kernel: np.ndarray, kind: Any) -> np.ndarray:
    """Convolution of each stamp, zeros outside."""
    # Here: it takes long to load.
    from scipy.signal import fftconvolve

    out = np.empty(values.shape, kind)
    pair = factors(kernel)
    reach = kernel.shape[0] // 2
    direct = pair is not None or kernel.size <= _LARGEST_DIRECT
    for stamps, first, last in _blocks(values.shape, _BLOCK if direct else _FOURIER_BLOCK):
        low, high = max(first - reach, 0), min(last + reach, values.shape[1])
        block = np.asarray(values[stamps, low:high], kind if direct else float)
        rows = slice(first - low, last - low)
        if pair is not None:
            part = _line_sums(_line_sums(block, pair[0], 1, rows), pair[1], 2, slice(None))
        elif direct:
            part = np.zeros((len(block), last - first, values.shape[2]), kind)
            for k, taps in enumerate(kernel):
                single = np.zeros(len(kernel))
                single[k] = 1
                part += _line_sums(_line_sums(block, single, 1, rows), taps, 2, slice(None))
        else:
            part = fftconvolve(block, kernel[None], mode="same", axes=(1, 2))[:, rows]
        out[stamps, first:last] = part
    return out


def _line_sums(values: np.ndarray, taps: np.ndarray, axis: int, keep: slice) -> np.ndarray:
    """Convolution along an axis, of which a part is kept."""
    n, middle = values.shape[axis], len(taps) // 2
    start, stop, _ = keep.indices(n)
    shape = list(values.shape)
    shape[axis] = stop - start
    out = np.zeros(shape, values.dtype)
    scratch = np.empty(shape, values.dtype)
    whole: list[slice] = [slice(None)] * 3
    for k, tap in enumerate(taps):
        # Output i takes input i - shift.
        shift = k - middle
        first, last = max(start, shift), min(stop, n + shift)
        if tap == 0 or first >= last:
            continue
        source, target, work = whole.copy(), whole.copy(), whole.copy()
        source[axis] = slice(first - shift, last - shift)
        target[axis] = slice(first - start, last - start)
        work[axis] = slice(0, last - first)
        np.multiply(values[tuple(source)], values.dtype.type(tap), out=scratch[tuple(work)])
        out[tuple(target)] += scratch[tuple(work)]
    return out


def _blocks(shape: tuple[int, ...], largest: int) -> Iterator[tuple[slice, int, int]]:
    """Some stamps at a time with all their rows, or some rows of one."""
    n_stamps, ny, nx = shape
    together = largest // max(ny * nx, 1)
    if together >= 1:
        for first in range(0, n_stamps, together):
            yield slice(first, first + together), 0, ny
        return
    n_rows = max(largest // nx, 16)
    for stamp in range(n_stamps):
        for first in range(0, ny, n_rows):
            yield slice(stamp, stamp + 1), first, min(first + n_rows, ny)
