"""Fluxes as AB magnitudes and in nanojanskys. Host side."""

from typing import Any

import numpy as np
from jaxtyping import Float

# Errors of magnitudes for relative errors of flux.
MAGNITUDE = 2.5 / np.log(10)
# AB magnitude of one nanojansky, to which LSST calibrates: 8.9 + 22.5.
NANOJANSKY = 31.4


def magnitudes(
    flux: Float[Any, "*s"], error: Float[Any, "*s"], zero_point: float
) -> tuple[np.ndarray, np.ndarray]:
    """AB magnitudes and their errors to first order; NaN where the flux is not positive."""
    safe = np.where(flux > 0, flux, np.nan).astype(float)
    return zero_point - 2.5 * np.log10(safe), MAGNITUDE * error / safe


def nanojanskys(
    flux: Float[Any, "*s"], error: Float[Any, "*s"], zero_point: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes and their errors in nanojanskys, also where they are negative.

    - `zero_point`: AB magnitude of one unit of `flux`.

    ??? cite
        Oke & Gunn (1983), ApJ 266, 713.
    """
    scale = 10 ** (0.4 * (NANOJANSKY - zero_point))
    return np.asarray(flux, float) * scale, np.asarray(error, float) * scale
