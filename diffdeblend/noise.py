"""How the noise of a pixel goes with that of its neighbours, as in coadds and drizzled images."""

import numpy as np
from jaxtyping import Float

from diffdeblend.header import Numbers

# A measured stamp is cut short and noisy: its power may dip this far below zero, in units of its
# peak. Modes there lie near Nyquist, where a PSF passes next to nothing.
_DIP = 0.2


def checked_noise_correlation(value: Numbers, n_bands: int) -> Float[np.ndarray, "band h w"]:
    """A stamp a band, from what a user may give; see `make_exposure`.

    **Raises:** `ValueError` for another shape, or values that no noise has.
    """
    stamp = np.asarray(value)
    if stamp.dtype.kind not in "fiu":
        raise ValueError(f"`noise_correlation` must be real numbers; got {stamp.dtype}.")
    stamp = stamp.astype(float)
    if stamp.shape in ((), (n_bands,)):
        stamp = np.broadcast_to(stamp.reshape(-1, 1, 1), (n_bands, 1, 1))
    if stamp.ndim == 2:
        stamp = np.broadcast_to(stamp, (n_bands, *stamp.shape))
    if stamp.ndim != 3 or len(stamp) != n_bands or not (stamp.shape[1] % 2 and stamp.shape[2] % 2):
        raise ValueError(
            f"`noise_correlation` needs shape ({n_bands}, h, w) or (h, w) with h and w odd, or one "
            f"number per band, or one number; got {np.shape(value)}."
        )
    centre = stamp[:, stamp.shape[1] // 2, stamp.shape[2] // 2, None, None]
    if not np.isfinite(stamp).all() or not (centre > 0).all():
        raise ValueError("`noise_correlation` must be finite, and positive at the centre.")
    if (np.abs(stamp) > 1.001 * centre).any():
        raise ValueError("`noise_correlation` must be largest at the centre.")
    if (np.abs(stamp - stamp[:, ::-1, ::-1]) > 0.01 * centre).any():
        raise ValueError(
            "`noise_correlation` must be the same at (y, x) and (-y, -x) from the centre."
        )
    power = _power(stamp)
    if (power.min(axis=(1, 2)) < -_DIP * power.max(axis=(1, 2))).any():
        raise ValueError(
            "`noise_correlation` has negative power: no noise is correlated like that."
        )
    return stamp


def _power(stamp: np.ndarray) -> np.ndarray:
    _, ny, nx = stamp.shape
    wide = np.pad(stamp, ((0, 0), (0, ny), (0, nx)))
    return np.fft.fft2(np.roll(wide, (-(ny // 2), -(nx // 2)), (1, 2))).real


def correlated_noise(
    shape: tuple[int, ...],
    correlation: Float[np.ndarray, "band h w"],
    rng: np.random.Generator,
    *,
    dip: float = 1e-3,
) -> Float[np.ndarray, "band y x"]:
    """Gaussian noise of unit variance with this autocovariance.

    - `shape`: (band, y, x); `correlation`: a stamp a band, 1 in the middle.
    - `dip`: how far its power may fall below zero, in units of its peak; what does is taken for
        nothing.

    **Raises:** `ValueError` for another shape, or power that falls lower.
    """
    stamp = np.asarray(correlation, dtype=float)
    n_bands, ny, nx = shape
    if stamp.ndim != 3 or len(stamp) != n_bands or not (stamp.shape[1] % 2 and stamp.shape[2] % 2):
        raise ValueError(
            f"`correlation` needs shape ({n_bands}, h, w) with odd h and w; got {stamp.shape}."
        )
    height, width = stamp.shape[1:]
    if not np.allclose(stamp[:, height // 2, width // 2], 1):
        raise ValueError("`correlation` must be 1 in the middle of every band.")
    # Wide enough that the far sides of the stamp do not know of each other.
    wide = np.zeros((n_bands, ny + height, nx + width))
    wide[:, :height, :width] = stamp
    wide = np.roll(wide, (-(height // 2), -(width // 2)), axis=(1, 2))
    power = np.fft.rfft2(wide).real
    if (power < -dip * power.max(axis=(1, 2), keepdims=True)).any():
        raise ValueError(
            "`correlation` is none of any noise: its power spectrum is negative at some frequency."
        )
    power = np.maximum(power, 0)
    # Without what was below zero there would be too much of it.
    full = np.fft.fft2(wide).real
    power /= np.maximum(full, 0).mean(axis=(1, 2), keepdims=True)
    white = rng.standard_normal(wide.shape)
    drawn = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(power), s=wide.shape[1:], axes=(1, 2))
    return drawn[:, :ny, :nx].astype(np.float32)
