"""Up to which brightness stars are of one size: beyond it the detector does not answer linearly."""

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.stars.backbone import Backbone, drawn
from diffdeblend.stars.equations import LOCAL, eliminate, noise_of, normal_equations
from diffdeblend.stars.profiles import N_TEMPLATES
from diffdeblend.stars.stamps import StarStack

# As many stars must be below the limit.
_FEWEST = 12
_SIGMAS, _ALIKE = 4.0, 9.0
# Least change of the size of the brightest, as a fraction, that is worth a limit.
_LEAST = 0.005


def size_errors(
    stack: StarStack, fit: Backbone, terms: Float[np.ndarray, "term n"], model_error: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """By which fraction each star is wider than the fit's profile, and the error of that."""
    n, size = stack.data.shape[:2]
    design = np.empty((n, N_TEMPLATES + 1, size * size), np.float32)
    residual, light = drawn(fit, stack, terms, design)
    noise = noise_of(stack, light, residual, model_error, robust=False)
    # Flux, place and sky of the star are free, the rest of its shape is that of the field.
    gram, vector = normal_equations(design, noise.weight, residual, fit.flux)
    reduced = eliminate(gram[:, : LOCAL + 1, : LOCAL + 1], vector[:, : LOCAL + 1])
    told = np.maximum(reduced.schur[:, 0, 0], 1e-12)
    fwhm = (fit.fields @ terms)[0]
    return reduced.vector[:, 0] / told / fwhm, 1 / np.sqrt(told) / fwhm


def linear_limit(
    peak: Float[np.ndarray, "n"],
    wider: Float[np.ndarray, "n"],
    error: Float[np.ndarray, "n"],
    use: Bool[np.ndarray, "n"],
) -> float:
    """Brightest pixel up to which stars have one size; infinite if all have. Host side.

    Where the light is no longer counted in full, and where charges push others away, bright stars
    are wider, the more the brighter they are. So many straight lines that begin at the peak of one
    star as there are stars are fitted to the sizes; the one that explains most is the limit, if it
    rises with four sigma, or a higher one that does about as well.

    - `peak`: brightest pixel of each star. `wider`, `error`: of `size_errors`. `use`: stars that
        count.
    """
    use = use & np.isfinite(wider) & np.isfinite(error) & (error < 0.1)
    peak, wider, error = peak[use], wider[use], error[use]
    if len(peak) <= _FEWEST:
        return np.inf
    # Sizes scatter by more than noise, as of pairs that were not seen as such.
    away = wider - np.median(wider)
    floor = MAD_TO_STD * np.median(np.abs(away))
    error = np.hypot(error, 0.5 * floor)
    away = np.clip(away, -4 * np.hypot(error, floor), None)
    error = error * max(1.0, MAD_TO_STD * float(np.median(np.abs(away) / error)))
    limits = np.sort(peak)[_FEWEST - 1 : -1]
    rise = np.maximum(peak - limits[:, None], 0) / limits[:, None]
    weight = 1 / error**2
    total = weight.sum()
    mean = (rise * weight).sum(1) / total
    about = rise - mean[:, None]
    told = np.maximum((weight * about**2).sum(1), 1e-30)
    slope = (weight * about * (away - (weight * away).sum() / total)).sum(1) / told
    sigmas = slope * np.sqrt(told)
    best = int(np.argmax(sigmas))
    if sigmas[best] < _SIGMAS or slope[best] * rise[best].max() < _LEAST:
        return np.inf
    # The highest that explains about as much: what is hardly above it does no harm.
    alike = (sigmas > 0) & (sigmas**2 >= sigmas[best] ** 2 - _ALIKE)
    return float(limits[np.flatnonzero(alike)[-1]])
