"""What an image is smoothed with before sources are looked for."""

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import erf

from diffdeblend.widths import FWHM_PER_SIGMA


def make_2dgaussian_kernel(
    fwhm: float,
    size: Any,
    mode: Literal["oversample", "center", "linear_interp", "integrate"] = "oversample",
    oversampling: int = 10,
) -> Float[np.ndarray, "y x"]:
    """A round Gaussian in pixels, of sum 1.

    - `fwhm`: full width at half maximum, in pixels.
    - `size`: odd, in pixels: one number, or height and width.
    - `mode`: what a pixel has: the mean over `oversampling` points along each axis, the value at
        its centre, the mean of those at its corners, or the integral.

    **Raises:** `ValueError` for a `fwhm` that is not positive, a `size` that is not odd, or
    another `mode` or `oversampling`.

    ??? cite
        As `make_2dgaussian_kernel` of photutils 3 and `Gaussian2DKernel` of astropy.
    """
    if not isinstance(fwhm, Real) or not np.isfinite(float(fwhm)) or fwhm <= 0:
        raise ValueError(f"`fwhm` must be one finite positive number; got {fwhm!r}.")
    sides = (size, size) if isinstance(size, Integral) else tuple(np.ravel(size).tolist())
    odd = [isinstance(n, Integral) and int(n) > 0 and int(n) % 2 for n in sides]
    if len(sides) != 2 or not all(odd):
        raise ValueError(f"`size` must be one or two odd positive integers; got {size!r}.")
    if not isinstance(oversampling, Integral) or oversampling < 1:
        raise ValueError(f"`oversampling` must be an integer of at least 1; got {oversampling!r}.")
    rows, columns = (_gaussian(int(n), float(fwhm), mode, int(oversampling)) for n in sides)
    kernel = np.outer(rows, columns)
    return kernel / kernel.sum()


def psf_kernel(psf: Any, size: int | None = None) -> Float[np.ndarray, "y x"]:
    """The kernel that finds points best in even noise: the PSF, turned by half a turn, of sum 1.

    Turned, as smoothing convolves and a matched filter correlates.

    - `psf`: image of a point at its middle pixel, shape `(y, x)`, both odd.
    - `size`: odd; keep so many pixels of the middle along each axis.

    **Raises:** `ValueError` for a shape that is not odd, values that are not finite, a sum that is
    not positive, or a `size` that is not odd.

    ??? cite
        Zackay & Ofek (2017), ApJ 836, 187, eq. 10.
    """
    image = np.asarray(psf, dtype=float)
    if image.ndim != 2 or not all(n % 2 for n in image.shape):
        raise ValueError(f"`psf` needs shape (y, x), both odd; got {image.shape}.")
    if size is not None:
        if not isinstance(size, Integral) or size < 1 or size % 2 == 0:
            raise ValueError(f"`size` must be an odd positive integer; got {size!r}.")
        cut = [slice(max((n - size) // 2, 0), (n + min(size, n)) // 2) for n in image.shape]
        image = image[cut[0], cut[1]]
    if not np.isfinite(image).all() or not image.sum() > 0:
        raise ValueError("`psf` must be finite and of a positive sum.")
    return image[::-1, ::-1] / image.sum()


def factors(
    kernel: Float[np.ndarray, "y x"],
) -> tuple[Float[np.ndarray, "y"], Float[np.ndarray, "x"]] | None:
    """A column and a row whose product a kernel is, or None if it is no such product."""
    peak_y, peak_x = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    peak = kernel[peak_y, peak_x]
    if peak == 0:
        return None
    column, row = kernel[:, peak_x], kernel[peak_y] / peak
    error = np.abs(np.outer(column, row) - kernel).max()
    # Of kernels in float32, too, whose own rounding is that.
    return (column, row) if error <= 1e-7 * abs(peak) else None


def _gaussian(n: int, fwhm: float, mode: str, oversampling: int) -> Float[np.ndarray, "pixel"]:
    sigma = fwhm / FWHM_PER_SIGMA
    middle = np.arange(n) - n // 2
    if mode == "integrate":
        edges = erf((np.arange(n + 1) - n / 2) / (np.sqrt(2) * sigma))
        return np.diff(edges)
    if mode == "oversample":
        points = (np.arange(oversampling) - (oversampling - 1) / 2) / oversampling
    elif mode == "linear_interp":
        points = np.array([-0.5, 0.5])
    elif mode == "center":
        points = np.zeros(1)
    else:
        accepted = '"oversample", "center", "linear_interp" or "integrate"'
        raise ValueError(f"`mode` must be {accepted}; got {mode!r}.")
    return np.exp(-0.5 * ((middle[:, None] + points) / sigma) ** 2).mean(axis=1)
