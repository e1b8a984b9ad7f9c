"""What other packages do for one who has them."""

import numpy as np
from jaxtyping import Bool, Float


def astroscrappy_rays(
    residual: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
    fwhm: float,
) -> Bool[np.ndarray, "y x"]:
    """Cosmic rays as L.A.Cosmic finds them, by the package astroscrappy with its own settings.

    - `residual`: image without its sky. `variance`: of its pixels. `bad`: not to be used.
    - `fwhm`: of a star, in pixels.

    **Raises:** `ImportError` that says what to install where the package is absent.

    ??? cite
        van Dokkum (2001), PASP 113, 1420.
    """
    try:
        from astroscrappy import detect_cosmics  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            '`cosmic_rays="astroscrappy"` needs the package astroscrappy: '
            'pip install "diffdeblend[interop]". `cosmic_rays="auto"` needs none.'
        ) from error
    found, _ = detect_cosmics(
        np.asarray(residual, np.float32),
        inmask=np.asarray(bad, bool),
        invar=np.asarray(variance, np.float32),
        satlevel=np.inf,
        psffwhm=float(fwhm),
    )
    return np.asarray(found, bool) & ~bad
