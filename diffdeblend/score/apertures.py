"""The light in a circle."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Half the diagonal of a pixel, rounded up: farther from the edge of the circle no pixel is cut.
_HALF_DIAGONAL = 0.7072


@dataclass(frozen=True)
class Aperture:
    """Flux in a circle around a source, and its error: a target measure.

    - `radius`: in pixels. (In BlendingToolKit's first version the FWHM of the PSF in arcsec was
        taken for a number of pixels.)
    - `variance`: of a pixel, for the error.
    - `subpixels`: as in `circle_flux`.
    """

    radius: float
    variance: float = 0.0
    subpixels: int = 5

    def __post_init__(self):
        if not self.radius > 0:
            raise ValueError(f"`radius` must be positive; got {self.radius}.")
        if not self.variance >= 0:
            raise ValueError(f"`variance` must be at least 0; got {self.variance}.")
        if self.subpixels < 0:
            raise ValueError(f"`subpixels` must be at least 0; got {self.subpixels}.")

    def __call__(
        self, image: Float[np.ndarray, "y x"], psf: object, x: float, y: float
    ) -> tuple[float, float]:
        """The flux and its error; the PSF is not used."""
        flux, area = circle_flux(image, x, y, self.radius, self.subpixels)
        return flux, float(np.sqrt(self.variance * area))


def circle_flux(
    image: Float[np.ndarray, "y x"], x: float, y: float, radius: float, subpixels: int = 5
) -> tuple[float, float]:
    """Flux in a circle, and the area of the circle inside the image in pixels.

    - `x`, `y`: its middle, first pixel centred on 0; `radius`: in pixels.
    - `subpixels`: pixels on the edge of the circle are cut in so many parts along each axis, each
        in or out, as SEP and SExtractor do; 0 for the exact area.

    A middle that is not finite gives NaN.

    **Raises:** `ValueError` for another shape.
    """
    image = np.asarray(image)
    if image.ndim != 2:
        raise ValueError(f"`image` needs shape (y, x); got {image.shape}.")
    if not (np.isfinite(x) and np.isfinite(y)):
        return np.nan, np.nan
    columns, rows = (
        np.arange(max(int(np.floor(c - radius)), 0), min(int(np.ceil(c + radius)) + 1, n))
        for c, n in ((x, image.shape[1]), (y, image.shape[0]))
    )
    dx, dy = columns - x, rows[:, None] - y
    distance2 = dx * dx + dy * dy
    share = _exact_share(dx, dy, radius) if subpixels == 0 else _share(dx, dy, radius, subpixels)
    inner = max(radius - _HALF_DIAGONAL, 0)
    share = np.where(distance2 <= inner**2, 1.0, share)
    share = np.where(distance2 < (radius + _HALF_DIAGONAL) ** 2, share, 0.0)
    light = image[rows[:, None], columns]
    return float(np.sum(light * share, dtype=float)), float(share.sum())


def _share(dx: np.ndarray, dy: np.ndarray, radius: float, subpixels: int) -> np.ndarray:
    """Share of the parts of each pixel whose middle is in the circle."""
    step = 1 / subpixels

    def squares(d: np.ndarray) -> np.ndarray:
        # Step by step as SEP does: where a part lies just on the circle, rounding decides.
        parts = np.full((d.size, subpixels), step)
        parts[:, 0] = d.ravel() + 0.5 * (step - 1)
        return np.add.accumulate(parts, axis=1) ** 2

    inside = squares(dy)[:, None, :, None] + squares(dx)[None, :, None, :] < radius**2
    return np.count_nonzero(inside, axis=(2, 3)) * step**2


def _exact_share(dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Area of each pixel in the circle."""
    low, high = (dx - 0.5, dy - 0.5), (dx + 0.5, dy + 0.5)
    return (
        _corner_area(high[0], high[1], radius)
        - _corner_area(low[0], high[1], radius)
        - _corner_area(high[0], low[1], radius)
        + _corner_area(low[0], low[1], radius)
    )


def _corner_area(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Area of the part of the disc that lies left of x and below y."""
    x, y = np.clip(x, -radius, radius), np.clip(y, -radius, radius)
    disc = np.pi * radius**2

    def left(u: np.ndarray) -> np.ndarray:
        chord = u * np.sqrt(np.maximum(radius**2 - u * u, 0))
        return radius**2 * (np.pi / 2 + np.arcsin(u / radius)) + chord

    inside = (left(x) + left(y)) / 2 - disc / 4 + x * y
    # The corner outside the disc: nothing is below and left of it, or all that is cut off is.
    above = np.where(y >= 0, left(x), 0.0)
    outside = np.where(x >= 0, np.where(y >= 0, left(x) + left(y) - disc, left(y)), above)
    return np.where(x * x + y * y < radius**2, inside, outside)
