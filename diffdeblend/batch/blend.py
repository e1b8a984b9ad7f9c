"""One stamp of many, with the places of its sources: what a batch is made of."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffdeblend.exposure import Exposure
from diffdeblend.noise import checked_noise_correlation
from diffdeblend.planes import as_int32, excluded_bits
from diffdeblend.positions import check_positions
from diffdeblend.psf import AbstractPSF


# Compared by identity: arrays have no single truth value.
@dataclass(frozen=True, eq=False)
class Blend:
    """A stamp with the places of its sources. Lives on the host, in numpy arrays.

    Made by `make_blend`, `blend_of_arrays` or `cut_blends`, which check the values.

    - `data`: shape `(band, y, x)`, linear flux a pixel; 0 where a pixel is not used.
    - `weight`: same shape, inverse variance; 0 where a pixel is not used. A band, or the whole
        stamp, may be without any used pixel.
    - `psf`: how a point is seen, in the same bands; one object for all blends that share it.
    - `positions`: shape `(source, 2)`, x and y of each source in pixels of the stamp.
    - `origin`: `(x0, y0)` of the stamp's first pixel in the image that it was cut from.
    - `rows`: shape `(source,)`, row of each source in the caller's catalogue.
    - `crowded`: whether the group of these sources was larger than allowed, and was divided or
        cut short: there is light in the stamp that its sources do not explain.
    - `noise_correlation`: as in `Exposure`, `(band, h, w)`; None where pixels are independent.
    """

    data: Float[np.ndarray, "band y x"]
    weight: Float[np.ndarray, "band y x"]
    psf: AbstractPSF
    positions: Float[np.ndarray, "source 2"]
    origin: tuple[int, int]
    rows: Int[np.ndarray, "source"]
    crowded: bool = False
    noise_correlation: Float[np.ndarray, "band h w"] | None = None

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return self.data.shape[0]

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return len(self.positions)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.data.shape[1], self.data.shape[2]


def make_blend(exposure: Exposure, positions: Any) -> Blend:
    """A whole exposure as one blend.

    - `positions`: shape `(source, 2)`, x and y in pixels.

    **Raises:** `ValueError` for positions that `check_positions` refuses.
    """
    checked = check_positions(positions, exposure.shape)
    data, weight = used_pixels(exposure)
    rows = np.arange(len(checked))
    noise = noise_of(exposure)
    return Blend(data, weight, exposure.psf, checked, (0, 0), rows, noise_correlation=noise)


def blend_of_arrays(
    data: Any,
    variance: Any,
    psf: AbstractPSF,
    positions: Any,
    mask: Any = None,
    noise_correlation: Any = None,
) -> Blend:
    """A blend from plain arrays, where making an `Exposure` of each stamp would cost too much.

    - `data`: shape `(band, y, x)`, or `(y, x)` for one band. Linear flux; what is not finite is
        not used. Kept as float32, or as float64 if it is given so and JAX has float64 switched on.
    - `variance`: same shape, or one number per band, or one number. What is not finite is not
        used; zero or negative variance of a pixel that is not masked is an error.
    - `psf`: in the same bands. Give one object to all blends that share it.
    - `positions`: shape `(source, 2)`, x and y in pixels.
    - `mask`: booleans, true where a pixel is bad, shape of the data, or `(y, x)` for all bands.
    - `noise_correlation`: as in `make_exposure`.

    **Raises:** `ValueError` that names the argument, what it was and what is accepted.
    """
    cube = _real("data", data)
    cube = cube[None] if cube.ndim == 2 else cube
    if cube.ndim != 3 or 0 in cube.shape:
        raise ValueError(f"`data` needs shape (band, y, x) or (y, x); got {np.shape(data)}.")
    if not isinstance(psf, AbstractPSF) or psf.n_bands != len(cube):
        got = psf.n_bands if isinstance(psf, AbstractPSF) else type(psf).__name__
        raise ValueError(
            f"`psf` must be a PSF, such as GaussianPSF(fwhm), of {len(cube)} bands; got {got}."
        )
    noise = _variance(variance, cube.shape)
    used = np.isfinite(cube) & np.isfinite(noise)
    if mask is not None:
        used &= ~_mask(mask, cube.shape)
    wrong = used & (noise <= 0)
    if wrong.any():
        raise ValueError(
            "`variance` must be positive where a pixel is used; "
            f"{np.count_nonzero(wrong)} pixels are not masked and have zero or negative variance."
        )
    double = cube.dtype == np.float64 and jnp.result_type(float) == np.float64
    dtype = np.float64 if double else np.float32
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        kept = np.where(used, cube, 0).astype(dtype, copy=False)
        weight = np.divide(1, noise, where=used, out=np.zeros(cube.shape, noise.dtype))
        weight = weight.astype(dtype, copy=False)
        chi2 = np.vdot(kept, kept * weight) + weight.sum()
    if not np.isfinite(chi2) or np.count_nonzero(weight) != np.count_nonzero(used):
        raise ValueError(
            f"`data` and `variance` do not fit {np.dtype(dtype).name}: the largest pixel is "
            f"{np.abs(cube[used]).max():.3g}, variances lie between {noise[used].min():.3g} and "
            f"{noise[used].max():.3g}. Give them in a unit in which they are nearer to 1."
        )
    checked = check_positions(positions, cube.shape[1:])
    rows, noise = np.arange(len(checked)), None
    if noise_correlation is not None:
        noise = checked_noise_correlation(noise_correlation, len(cube)).astype(dtype)
    return Blend(kept, weight, psf, checked, (0, 0), rows, noise_correlation=noise)


def used_pixels(
    exposure: Exposure,
) -> tuple[Float[np.ndarray, "band y x"], Float[np.ndarray, "band y x"]]:
    """`exposure.data` and `exposure.weight` as numpy arrays of their own memory.

    In numpy throughout: JAX outside jit compiles each step anew for every shape of stamp.
    """
    image = np.asarray(exposure.image)
    variance = np.asarray(exposure.variance)
    header = exposure.header
    excluded = as_int32(excluded_bits(header))
    used = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    used &= (np.asarray(exposure.mask) & excluded) == 0
    weight = np.divide(1, variance, where=used, out=np.zeros_like(variance))
    return np.where(used, image, np.zeros((), image.dtype)), weight


def noise_of(exposure: Exposure) -> Float[np.ndarray, "band h w"] | None:
    """`exposure.noise_correlation` as a numpy array."""
    noise = exposure.noise_correlation
    return None if noise is None else np.asarray(noise)


def _real(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` must be real numbers; got {array.dtype}.")
    # Native byte order too: FITS has the other one, which JAX refuses.
    double = array.dtype.kind == "f" and array.dtype.itemsize >= 8
    array = array.astype(np.float64 if double else np.float32, copy=False)
    return np.ma.filled(np.ma.asarray(value, array.dtype), np.nan) if _masked(value) else array


def _masked(value: Any) -> bool:
    return isinstance(value, np.ma.MaskedArray)


def _variance(variance: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Of the shape of the data."""
    array = _real("variance", variance)
    if array.shape == shape:
        return array
    if array.shape == (shape[0],):
        return np.broadcast_to(array[:, None, None], shape)
    if array.ndim == 0 or (shape[0] == 1 and array.shape == shape[1:]):
        return np.broadcast_to(array, shape)
    raise ValueError(
        f"`variance` needs the shape of `data`, {shape}, or one number per band, or one number; "
        f"got {array.shape}."
    )


def _mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(np.ma.filled(mask, True) if _masked(mask) else mask)
    if array.dtype.kind != "b" or array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"`mask` needs booleans, true where a pixel is bad, of shape {shape} or {shape[1:]}; "
            f"got {array.dtype} of shape {array.shape}."
        )
    return array
