r"""The one Fourier convention: $\tilde f(k) = \int f(r)\, e^{-i k \cdot r}\, d^2r$.

Complex numbers travel as pairs (real, imaginary): on CPU, XLA turns code around stacked or complex
arrays into scalar code, many times slower. Transforms are products with small real matrices, which
crop, cut the modes and fold frequencies beyond Nyquist in one go, and suit a GPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from diffdeblend.grid import Grid, Modes

Pair = tuple[Array, Array]

# TF32 or bf16 in these products adds up to 48 to chi2 (measured): ask for full float32.
EXACT = Precision.HIGHEST


def fast_length(length: int, real: bool = True) -> int:
    """The next number of pixels that is fast to transform, of real or complex values."""
    return int(next_fast_len(length, real=real) or length)


def mode_counts(length: int) -> Float[np.ndarray, "mode"]:
    """How often each mode of `rfft` of so many real values is in the whole transform."""
    counts = np.full(length // 2 + 1, 2.0)
    counts[0] = 1.0
    if length % 2 == 0:
        counts[-1] = 1.0
    return counts


def multiply(a: Pair, b: Pair) -> Pair:
    """Product of two complex arrays."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def multiply_conjugate(a: Pair, b: Pair) -> Pair:
    """Product of the conjugate of `a` with `b`."""
    return a[0] * b[0] + a[1] * b[1], a[0] * b[1] - a[1] * b[0]


@jax.custom_jvp
def cos_sin(angle: Float[Array, "*n"]) -> Pair:
    """Cosine and sine; in float32 by a polynomial, good to 6e-7 for angles below 1e4.

    XLA's own sine is scalar code on CPU, 7 ns an element; this takes half of one.
    """
    if angle.dtype != jnp.float32:
        return jnp.cos(angle), jnp.sin(angle)
    turns = jnp.round(angle * 0.15915494309189535)
    # 2 pi in two parts, the first with few enough bits that its multiples are exact.
    rest = (angle - turns * 6.28125) - turns * 1.9353071795864769e-3
    half = 0.5 * rest
    squared = half * half
    sine = half * _horner(
        squared, 1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800
    )
    # Cosine of the whole angle from the sine of half of it, and likewise the sine.
    cosine = _horner(squared, 1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600)
    return 1 - 2 * sine * sine, 2 * sine * cosine


@cos_sin.defjvp
def _cos_sin_jvp(primals, tangents):
    cosine, sine = cos_sin(primals[0])
    return (cosine, sine), (-sine * tangents[0], cosine * tangents[0])


def shift(modes: Modes, x: Float[Array, "*n"], y: Float[Array, "*n"]) -> Pair:
    r"""$e^{-i (k_x x + k_y y)}$, shape `(*n, k)`: moves a profile from the origin to (x, y)."""
    cosine, sine = cos_sin(x[..., None] * modes.kx + y[..., None] * modes.ky)
    return cosine, -sine


def to_image(
    values: Pair,
    grid: Grid,
    x: Float[Array, "x"] | np.ndarray | None = None,
    y: Float[Array, "y"] | np.ndarray | None = None,
) -> Float[Array, "*n y x"]:
    """The image with these values of the grid's modes, `(*n, k)`.

    On the pixels of the stamp, or on the product of other points `x` and `y`, in pixels.
    """
    if x is None and y is None:
        return _to_pixels(values, grid)
    cy, sy = _waves(np.arange(grid.ny) if y is None else y, grid.axis_y[1::2])
    cx, sx = _waves(np.arange(grid.nx) if x is None else x, grid.axis_x)
    (re, im), (even_re, odd_re), (even_im, odd_im) = _folded(values, grid)
    along_y_re = re[..., :1, :] + _dot(cy, even_re) - _dot(sy, odd_im)
    along_y_im = im[..., :1, :] + _dot(cy, even_im) + _dot(sy, odd_re)
    w = grid.row_weight
    return _dot(along_y_re, (cx * w).T) - _dot(along_y_im, (sx * w).T)


def _to_pixels(values: Pair, grid: Grid) -> Array:
    """`to_image` on the pixels of the stamp, which lie evenly around its middle.

    Pixels at equal distances on either side share their cosines and sines, too: half of the
    multiplications of an image at any points.
    """
    to_middle = _middle_phase(grid)
    y, x = _half_axis(grid.ny), _half_axis(grid.nx)
    cy, sy = _waves(y, grid.axis_y[1::2])
    cx, sx = _waves(x, grid.axis_x)
    (re, im), (even_re, odd_re), (even_im, odd_im) = _folded(multiply(values, to_middle), grid)
    w = grid.row_weight
    along_y_re = _mirrored(re[..., :1, :] + _dot(cy, even_re), -_dot(sy, odd_im), grid.ny, -2)
    along_y_im = _mirrored(im[..., :1, :] + _dot(cy, even_im), _dot(sy, odd_re), grid.ny, -2)
    even, odd = _dot(along_y_re, (cx * w).T), -_dot(along_y_im, (sx * w).T)
    return _mirrored(even, odd, grid.nx, -1)


def _half_axis(length: int) -> np.ndarray:
    """Distances of pixels from the middle of an axis, on one side of it."""
    return np.arange(length // 2, length) - (length - 1) / 2


def _middle_phase(grid: Grid) -> Pair:
    """What moves the origin from the first pixel to the middle of the stamp."""
    angle = (
        grid.axis_y[:, None] * ((grid.ny - 1) / 2) + grid.axis_x * ((grid.nx - 1) / 2)
    ).reshape(-1)
    dtype = jnp.result_type(float)
    return jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)


def _mirrored(even: Array, odd: Array, length: int, axis: int) -> Array:
    """Values on both sides of the middle from their even and odd part on one side."""
    # Materialised: each is read twice.
    even, odd = jax.lax.optimization_barrier((even, odd))
    other = jax.lax.slice_in_dim(jnp.flip(even - odd, axis), 0, length // 2, axis=axis)
    return jnp.concatenate([other, even + odd], axis=axis)


def _folded(values: Pair, grid: Grid) -> tuple[Pair, Pair, Pair]:
    """The modes as rows of ky, and sum and difference of the rows of k and -k of either part."""
    re, im = (v.reshape(*v.shape[:-1], 2 * grid.modes_y + 1, grid.modes_x + 1) for v in values)
    # Materialised: fused into the sums below, what made them would be computed four times.
    re, im = jax.lax.optimization_barrier((re, im))
    return (re, im), _even_odd(re), _even_odd(im)


def to_modes(image: Float[Array, "*n y x"], grid: Grid) -> Pair:
    """The Fourier sum of an image over the stamp's pixels, shape `(*n, k)`."""
    cy, sy = _waves(np.arange(grid.ny), grid.axis_y[1::2])
    cx, sx = _waves(np.arange(grid.nx), grid.axis_x)
    re, im = _dot(image, cx), -_dot(image, sx)
    even_re, even_im, odd_re, odd_im = (
        _dot(wave.T, part) for wave in (cy, sy) for part in (re, im)
    )
    return (
        _interleaved(jnp.sum(re, axis=-2), even_re + odd_im, even_re - odd_im),
        _interleaved(jnp.sum(im, axis=-2), even_im - odd_re, even_im + odd_re),
    )


def _even_odd(values: Array) -> Pair:
    """Sum and difference of the rows of k and -k."""
    return values[..., 1::2, :] + values[..., 2::2, :], values[..., 1::2, :] - values[..., 2::2, :]


def _interleaved(zero: Array, plus: Array, minus: Array) -> Array:
    """Rows of ky = 0, k, -k, ... as one flat list of modes."""
    # Materialised first: a stack that is fused with what feeds it becomes scalar code.
    zero, plus, minus = jax.lax.optimization_barrier((zero, plus, minus))
    both = jnp.stack([plus, minus], axis=-2)
    flat = both.reshape(*both.shape[:-3], -1)
    return jax.lax.optimization_barrier(jnp.concatenate([zero, flat], axis=-1))


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)


def sampled_modes(
    values: Float[Array, "*n y x"],
    modes: Modes,
    x: Float[Array, "x"] | np.ndarray,
    y: Float[Array, "y"] | np.ndarray,
) -> Pair:
    r"""$\sum v\, e^{-i (k_x x + k_y y)}$ of values on the points of a product grid, `(*n, k)`."""
    cy, sy = _waves(y, modes.axis_y)
    cx, sx = _waves(x, modes.axis_x)
    along_x_re = jnp.matmul(values, cx, precision=EXACT)
    along_x_im = -jnp.matmul(values, sx, precision=EXACT)
    re = jnp.matmul(cy.T, along_x_re, precision=EXACT) + jnp.matmul(
        sy.T, along_x_im, precision=EXACT
    )
    im = jnp.matmul(cy.T, along_x_im, precision=EXACT) - jnp.matmul(
        sy.T, along_x_re, precision=EXACT
    )
    return re.reshape(*re.shape[:-2], -1), im.reshape(*im.shape[:-2], -1)


def low_modes(values: Pair, grid: Grid, low: Grid) -> Pair:
    """The part of a grid's modes that lies on the grid of its lower frequencies."""
    rows, columns = 2 * low.modes_y + 1, low.modes_x + 1

    def part(v: Array) -> Array:
        v = v.reshape(*v.shape[:-1], 2 * grid.modes_y + 1, grid.modes_x + 1)
        return v[..., :rows, :columns].reshape(*v.shape[:-2], rows * columns)

    return part(values[0]), part(values[1])


def _waves(position: Array | np.ndarray, axis: Array | np.ndarray) -> Pair:
    """Cosine and sine of position times frequency, shape `(p, k)`."""
    if isinstance(position, np.ndarray) and isinstance(axis, np.ndarray):
        # Known when the program is traced: a constant of it, and better than float32 can do.
        angle = position[:, None] * axis
        dtype = jnp.result_type(float)
        return jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)
    angle = position[:, None] * axis
    return jnp.cos(angle), jnp.sin(angle)


def _horner(x: Array, *coefficients: float) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
