"""Shapes of single images, by GalSim's moments."""

from typing import Any

import numpy as np
from jaxtyping import Float

# What GalSim returns in place of a value.
_NOTHING = -10.0


def ksb_ellipticity(
    image: Float[np.ndarray, "y x"],
    psf: Float[np.ndarray, "h w"],
    x: float | None = None,
    y: float | None = None,
) -> tuple[float, float, float]:
    """Reduced shear (g1, g2) of a galaxy, corrected for the PSF, and its length; NaN on failure.

    - `image`: of one source in one band.
    - `psf`: image of the PSF at the same pixels: KSB corrects by its moments in pixels, and one
        that is drawn at another pixel scale spoils the result by up to a tenth and more.
    - `x`, `y`: where to begin, first pixel centred on 0; the middle if None.

    **Raises:** `ValueError` for another shape; `ImportError` without GalSim.

    ??? cite
        Kaiser, Squires & Broadhurst (1995), ApJ 449, 460; Hirata & Seljak (2003), MNRAS 343, 459.
    """
    import galsim

    start = _start(galsim, image, x, y)
    found = galsim.hsm.EstimateShear(
        _as_image(galsim, "image", image),
        _as_image(galsim, "psf", psf),
        shear_est="KSB",
        strict=False,
        guess_centroid=start,
    )
    if found.error_message or found.corrected_g1 == _NOTHING:
        return np.nan, np.nan, np.nan
    g1, g2 = float(found.corrected_g1), float(found.corrected_g2)
    return g1, g2, float(np.hypot(g1, g2))


def adaptive_moments(
    image: Float[np.ndarray, "y x"],
    psf: Any = None,
    x: float | None = None,
    y: float | None = None,
) -> tuple[float, float, float]:
    """Reduced shear (g1, g2) and size (pixels) as seen, of the best elliptical Gaussian.

    NaN on failure. The PSF is left in: `psf` is taken only so that this can be a target measure.
    The rest as in `ksb_ellipticity`. The size is the fourth root of the determinant of the moments.

    ??? cite
        Bernstein & Jarvis (2002), AJ 123, 583, section 3; Hirata & Seljak (2003).
    """
    import galsim

    found = galsim.hsm.FindAdaptiveMom(
        _as_image(galsim, "image", image),
        strict=False,
        guess_centroid=_start(galsim, image, x, y),
    )
    if found.error_message:
        return np.nan, np.nan, np.nan
    shape = found.observed_shape
    return float(shape.g1), float(shape.g2), float(found.moments_sigma)


def _as_image(galsim: Any, name: str, values: np.ndarray) -> Any:
    """An image whose first pixel is (0, 0)."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"`{name}` needs shape (y, x); got {array.shape}.")
    return galsim.Image(array, xmin=0, ymin=0)


def _start(galsim: Any, image: np.ndarray, x: float | None, y: float | None) -> Any:
    """Where the search for the centre begins."""
    ny, nx = np.shape(image)[-2:]
    return galsim.PositionD(
        (nx - 1) / 2 if x is None else float(x), (ny - 1) / 2 if y is None else float(y)
    )
