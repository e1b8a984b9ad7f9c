"""Pixels that are not known, filled from those around them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.widths import FWHM_PER_SIGMA

# Of the window a pixel is filled from.
_REACH = 3
# So many layers of a large hole are filled from its border; the rest is sky.
_LAYERS = 12
_CHUNK = 2048


def fill_masked(
    image: Float[np.ndarray, "y x"],
    masked: Bool[np.ndarray, "y x"],
    *,
    fwhm: float = 3.0,
    noise: float = 0.05,
    layers: int = _LAYERS,
) -> Float[np.ndarray, "y x"]:
    r"""The image with its masked pixels filled as its PSF lets light vary from pixel to pixel.

    Each is the sum of the known pixels within 3 of it whose weights have the least expected
    error and add up to 1 (ordinary kriging), for light with the autocorrelation of a Gaussian PSF,
    $\exp(-r^2 / 4 \sigma^2)$, and some noise. So a column through a star is filled as a star. Holes
    that are wider are filled layer by layer from their border inwards; what is more than so many
    layers from a known pixel becomes 0, the sky.

    - `image`: without its sky; what is masked may be NaN, and is not looked at.
    - `fwhm`: of the PSF, in pixels.
    - `noise`: variance of a pixel's noise, in units of the variance of the light.
    - `layers`: most layers that are filled.

    Known pixels stay as they are. Finite where the known pixels are.

    **Raises:** `ValueError` for another shape, or a `fwhm` or `noise` that is not positive.

    ??? cite
        Cressie (1993), Statistics for Spatial Data, section 3.2.
    """
    if masked.shape != image.shape or masked.dtype != bool:
        raise ValueError(
            f"`masked` needs booleans of shape {image.shape}; got {masked.dtype} of shape "
            f"{masked.shape}."
        )
    for name, value in (("fwhm", fwhm), ("noise", noise)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be positive; got {value!r}.")
    out = np.where(masked, image.dtype.type(0), image)
    if not masked.any():
        return out
    padded = np.pad(out, _REACH)
    known = np.pad(~masked, _REACH)
    y, x = (places + _REACH for places in np.nonzero(masked))
    for _ in range(layers):
        # Only pixels that touch a known one: farther in, it would be guessed from one side.
        edge = known[y - 1, x] | known[y + 1, x] | known[y, x - 1] | known[y, x + 1]
        if not edge.any():
            break
        here = y[edge], x[edge]
        padded[here] = _kriged(padded, known, *here, fwhm, noise)
        known[here] = True
        y, x = y[~edge], x[~edge]
    return padded[_REACH:-_REACH, _REACH:-_REACH]


def _kriged(
    image: np.ndarray, known: np.ndarray, y: np.ndarray, x: np.ndarray, fwhm: float, noise: float
) -> np.ndarray:
    size = 2 * _REACH + 1
    dy, dx = (np.arange(size**2) // size - _REACH, np.arange(size**2) % size - _REACH)
    near = known[y[:, None] + dy, x[:, None] + dx]
    values = image[y[:, None] + dy, x[:, None] + dx]
    # Columns and rows have few patterns: one system for each, not for each pixel.
    packed = np.packbits(near, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    weights = np.concatenate([_weights(near[part], dy, dx, fwhm, noise) for part in _chunks(first)])
    return np.einsum("ij,ij->i", weights[which.ravel()], values).astype(image.dtype)


def _weights(
    near: np.ndarray, dy: np.ndarray, dx: np.ndarray, fwhm: float, noise: float
) -> np.ndarray:
    width = 2 * (fwhm / FWHM_PER_SIGMA) ** 2
    apart = (dy[:, None] - dy) ** 2 + (dx[:, None] - dx) ** 2
    light = np.exp(-0.5 * apart / width) + noise * np.eye(dy.size)
    to_centre = np.exp(-0.5 * (dy**2 + dx**2) / width)
    # A pixel that is not known has no say: its row says that its weight is 0.
    both = near[:, :, None] & near[:, None, :]
    system = np.where(both, light, np.eye(dy.size))
    sides = np.stack([near * to_centre, near.astype(float)], -1)
    solved = np.linalg.solve(system, sides)
    total = solved.sum(1)
    # Weights that add up to 1: a level goes on into the hole.
    share = (1 - total[:, 0]) / np.where(total[:, 1] > 0, total[:, 1], 1)
    return solved[..., 0] + share[:, None] * solved[..., 1]


def _chunks(which: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(which), _CHUNK):
        yield which[start : start + _CHUNK]
