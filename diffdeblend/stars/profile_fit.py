"""The smooth profile of an image's stars, of those that are not too bright to be linear."""

import numpy as np
from jaxtyping import Float

from diffdeblend.stars.backbone import Backbone, fit_backbone
from diffdeblend.stars.linearity import linear_limit, size_errors
from diffdeblend.stars.profiles import MOFFAT, Profile, TwoGaussians
from diffdeblend.stars.stamps import StarStack

# Stars too bright to be linear are looked for at most so often.
_ROUNDS = 2
_GAUSSIAN_T = 0.02
# Of the sizes of two Gaussians; the one that fits best is kept.
_RATIOS = (1.5, 1.8, 2.2, 2.7)


def fit_linear_stars(
    stack: StarStack,
    terms: Float[np.ndarray, "term n"],
    peak: Float[np.ndarray, "n"],
    fwhm: float,
    degree: int,
    method: str,
    model_error: float,
) -> tuple[Backbone, StarStack, float]:
    """The profile, the stars less those too bright, and the limit of the brightest pixel.

    - `peak`: brightest pixel of each star. `fwhm`: to begin with.
    """
    limit = np.inf
    fit = _fit(stack, terms, fwhm, degree, method, model_error)
    for _ in range(_ROUNDS):
        wider, error = size_errors(stack, fit, terms, model_error)
        found = linear_limit(peak, wider, error, np.asarray(stack.good.any((1, 2))))
        if not np.isfinite(found):
            break
        limit = found
        stack = stack._replace(good=stack.good & (peak <= limit)[:, None, None])
        fit = _fit(stack, terms, fwhm, degree, method, model_error, fit)
    return fit, stack, limit


def _fit(
    stack: StarStack,
    terms: np.ndarray,
    fwhm: float,
    degree: int,
    method: str,
    model_error: float,
    begin: Backbone | None = None,
) -> Backbone:
    gaussian = method == "gaussian"
    profiles: list[Profile] = [MOFFAT]
    if begin is not None:
        profiles = [begin.profile]
    elif method == "mixture":
        profiles = [TwoGaussians(ratio) for ratio in _RATIOS]
    start = np.array([fwhm, 0.0, 0.0, _GAUSSIAN_T if gaussian else 0.3])
    widths = _prior_widths(fwhm, degree, gaussian)
    fits = [
        fit_backbone(
            stack, terms, start, widths, model_error, degree=degree, profile=profile, begin=begin
        )
        for profile in profiles
    ]
    known = stack.good.any((1, 2))
    return min(fits, key=lambda fit: float(np.median(fit.chi2[known])))


def _prior_widths(fwhm: float, degree: int, gaussian: bool) -> np.ndarray:
    """How far each kind of field may go to begin with; what the stars say replaces it."""
    widths = np.zeros((4, degree + 1))
    widths[:, 0] = (fwhm, 0.3, 0.3, 0.2)
    widths[0, 1:] = 0.1 * fwhm
    widths[1:3, 1:] = 0.1
    # Steepness varies little, and is told by the faint wings alone.
    widths[3, 1:2] = 0.02
    if gaussian:
        widths[3] = 0
    return widths
