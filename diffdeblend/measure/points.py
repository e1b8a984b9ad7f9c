"""PSF photometry at given positions: the flux of a point that fits best, and its error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.fourier import multiply, sampled_modes, shift, to_image
from diffdeblend.grid import Quality, make_grid

_CHUNK = 256
# All modes of the pixels: a PSF that is sampled badly has light in the highest, too.
_WHOLE = Quality(padding=1.3, cut=1.0, corrections=False)


class PointFluxes(NamedTuple):
    """Fluxes of points.

    - `flux`, `error`: `(point,)`; NaN and infinity where no pixel is used.
    - `chi2`, `n_pixels`: of the stamp after the point is taken away, `(point,)`.
    - `share`: of the PSF's power that lies on used pixels.
    """

    flux: Float[np.ndarray, "point"]
    error: Float[np.ndarray, "point"]
    chi2: Float[np.ndarray, "point"]
    n_pixels: Float[np.ndarray, "point"]
    share: Float[np.ndarray, "point"]


def point_fluxes(
    image: Float[np.ndarray, "y x"],
    weight: Float[np.ndarray, "y x"],
    psf: Float[np.ndarray, "*point h w"],
    x: Float[np.ndarray, "point"],
    y: Float[np.ndarray, "point"],
) -> PointFluxes:
    """Flux of a point at each position, alone on its stamp: sum(P w d) / sum(P^2 w).

    - `weight`: one over the variance, 0 where a pixel is not used.
    - `psf`: one image for all, `(h, w)`, or one a point, `(point, h, w)`; odd, of unit sum.
    - `x`, `y`: in pixels; positions off the image have no flux.

    **Raises:** `ValueError` for shapes that do not go together.
    """
    image, weight, psf = np.asarray(image), np.asarray(weight), np.asarray(psf)
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if image.ndim != 2 or weight.shape != image.shape:
        raise ValueError(
            f"`image` and `weight` need one shape (y, x); got {image.shape} and {weight.shape}."
        )
    if psf.ndim not in (2, 3) or (psf.ndim == 3 and len(psf) != x.size) or x.shape != y.shape:
        raise ValueError(
            f"`psf` needs shape (h, w) or ({x.size}, h, w) for so many `x` and `y`; "
            f"got {psf.shape}."
        )
    height, width = psf.shape[-2:]
    dtype = np.float64 if jnp.result_type(float) == np.float64 else np.float32
    # Enough that a stamp around any position near the image lies on the padded one.
    pad = ((height, height), (width, width))
    data = np.pad(np.where(weight > 0, image, 0), pad)
    inverse = np.pad(np.where(np.isfinite(weight), weight, 0), pad)
    known = np.isfinite(x) & np.isfinite(y)
    near_x = np.clip(np.round(np.where(known, x, 0)), -width // 2, image.shape[1] + width // 2)
    near_y = np.clip(np.round(np.where(known, y, 0)), -height // 2, image.shape[0] + height // 2)
    rows = near_y.astype(int)[:, None] + height - height // 2 + np.arange(height)
    columns = near_x.astype(int)[:, None] + width - width // 2 + np.arange(width)
    found = []
    for start in range(0, x.size, _CHUNK):
        part = slice(start, min(start + _CHUNK, x.size))
        n = part.stop - part.start
        size = min(_CHUNK, 1 << max(n - 1, 7).bit_length())

        def padded(values: np.ndarray, n: int = n, size: int = size) -> np.ndarray:
            return np.concatenate([values, np.zeros((size - n, *values.shape[1:]))]).astype(dtype)

        places = rows[part, :, None], columns[part, None, :]
        stamps = psf if psf.ndim == 2 else padded(psf[part])
        offsets = (
            padded(np.where(known, x - near_x, 0)[part]),
            padded(np.where(known, y - near_y, 0)[part]),
        )
        values = _fluxes(
            padded(data[places]), padded(inverse[places]), stamps.astype(dtype), *offsets
        )
        found.append([np.asarray(v, float)[:n] for v in values])
    columns_ = [np.concatenate(v) for v in zip(*found, strict=True)] if found else [x[:0]] * 5
    flux, error, *rest = columns_
    inside = known & (np.abs(x - near_x) <= 1) & (np.abs(y - near_y) <= 1)
    return PointFluxes(np.where(inside, flux, np.nan), np.where(inside, error, np.inf), *rest)


def moved_stamps(
    psf: Float[Array, "*point h w"], dx: Float[Array, "point"], dy: Float[Array, "point"]
) -> Float[Array, "point h w"]:
    """Images of the PSF with its centre so far from the middle pixel, within a pixel; pure."""
    height, width = psf.shape[-2:]
    grid = make_grid((height, width), _WHOLE)
    modes = grid.modes
    y = jnp.arange(height, dtype=psf.dtype) - (height - 1) // 2
    x = jnp.arange(width, dtype=psf.dtype) - (width - 1) // 2
    # One period of the stamp is enough: what a shift by half a pixel wraps around is its rim.
    transfer = sampled_modes(psf, modes, x, y)
    return to_image(multiply(transfer, shift(modes, dx + width // 2, dy + height // 2)), grid)


@jax.jit
def _fluxes(data: Array, weight: Array, psf: Array, dx: Array, dy: Array) -> tuple[Array, ...]:
    stamps = moved_stamps(psf, dx, dy)
    top = jnp.sum(stamps * weight * data, axis=(1, 2))
    information = jnp.sum(stamps**2 * weight, axis=(1, 2))
    used = information > 0
    safe = jnp.where(used, information, 1)
    flux = jnp.where(used, top / safe, jnp.nan)
    left = data - jnp.where(used, top / safe, 0)[:, None, None] * stamps
    chi2 = jnp.sum(weight * left**2, axis=(1, 2))
    share = jnp.sum(jnp.where(weight > 0, stamps**2, 0), axis=(1, 2)) / jnp.sum(
        stamps**2, axis=(1, 2)
    )
    error = jnp.where(used, 1 / jnp.sqrt(safe), jnp.inf)
    return flux, error, chi2, jnp.sum(weight > 0, axis=(1, 2)), share


def vertex(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Place of the vertex of a parabola through three points at -1, 0, 1; 0 where it is no peak."""
    bend = left - 2 * middle + right
    return np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0.0)
