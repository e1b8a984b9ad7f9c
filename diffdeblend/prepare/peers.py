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


def astroalign_matrix(
    xy: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "m 2"]
) -> Float[np.ndarray, "2 3"] | None:
    """The similarity that takes `(x, y, 1)` of `onto` to `xy`, by the package astroalign.

    **Raises:** `ImportError` that says what to install where the package is absent.

    ??? cite
        Beroiz, Cabral & Sanchez (2020), Astronomy and Computing 32, 100384.
    """
    try:
        import astroalign  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            '`method="astroalign"` needs the package astroalign: '
            'pip install "diffdeblend[interop]". `method="stars"` needs none.'
        ) from error
    try:
        found, _ = astroalign.find_transform(onto, xy)
    except (astroalign.MaxIterError, ValueError, TypeError):
        return None
    return np.asarray(found.params)[:2]
