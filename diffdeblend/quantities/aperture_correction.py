"""What one flux has to be multiplied by to be another, over the image, from stars. Host side."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.polynomials import chebyshev_design, n_terms


@dataclass(frozen=True)
class ApertureCorrection:
    """A smooth field of ratios of fluxes, made by `fit_aperture_correction`.

    - `coefficients`: of the products of Chebyshev polynomials, `(term,)`; see `polynomials`.
    - `covariance`: of the coefficients, `(term, term)`.
    - `scatter`: of single stars about the field, beyond nothing: their own noise is in it.
    - `shape`: pixels of the image, (ny, nx); `degree`: of the polynomial.
    - `used`: which of the stars given were used, `(star,)`.
    """

    coefficients: Float[np.ndarray, "term"]
    covariance: Float[np.ndarray, "term term"]
    scatter: float
    shape: tuple[int, int]
    degree: int
    used: Bool[np.ndarray, "star"]

    def __call__(
        self, x: Float[np.ndarray, "*n"], y: Float[np.ndarray, "*n"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """The factor at positions in pixels, and its error. Beyond the image as at its border."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        design = chebyshev_design(x.ravel(), y.ravel(), self.shape, self.degree)
        factor = design @ self.coefficients
        variance = np.einsum("ni,ij,nj->n", design, self.covariance, design)
        return factor.reshape(x.shape), np.sqrt(np.maximum(variance, 0)).reshape(x.shape)

    def apply(
        self,
        flux: Float[np.ndarray, "*n"],
        flux_err: Float[np.ndarray, "*n"],
        x: Float[np.ndarray, "*n"],
        y: Float[np.ndarray, "*n"],
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """Corrected fluxes and errors; the error of the factor, common to neighbours, is added."""
        factor, error = self(x, y)
        flux, flux_err = np.asarray(flux, float), np.asarray(flux_err, float)
        return flux * factor, np.hypot(flux_err * factor, flux * error)


def fit_aperture_correction(
    x: Float[np.ndarray, "star"],
    y: Float[np.ndarray, "star"],
    flux: Float[np.ndarray, "star"],
    reference: Float[np.ndarray, "star"],
    shape: tuple[int, int],
    *,
    error: Float[np.ndarray, "star"] | None = None,
    degree: int = 2,
    clip: float = 3.0,
    rounds: int = 4,
) -> ApertureCorrection:
    """The field of `reference / flux` of stars: multiply a flux by it to be on the reference.

    - `x`, `y`: of the stars, in pixels; `shape`: of the image, (ny, nx).
    - `flux`: to be corrected; `reference`: of the same stars, as in a wide aperture.
    - `error`: of the ratio, for weights; without it all stars count alike. The errors of two
        fluxes of one star share their noise: the ratio's is smaller than both suggest.
    - `degree`: of the polynomial, lower where there are fewer than two stars a coefficient.
    - `clip`: stars farther off than so many robust standard deviations are left out, `rounds`
        times.

    The covariance is that of the scatter which is left, so that errors are right whatever `error`
    says of its scale.

    **Raises:** `ValueError` for shapes that disagree, a negative degree, or no star with two
    positive finite fluxes.
    """
    x, y, flux, reference = (np.asarray(v, float) for v in (x, y, flux, reference))
    if x.ndim != 1 or not x.shape == y.shape == flux.shape == reference.shape:
        raise ValueError(
            "`x`, `y`, `flux` and `reference` need one shape (star,); "
            f"got {x.shape}, {y.shape}, {flux.shape} and {reference.shape}."
        )
    if degree < 0:
        raise ValueError(f"`degree` must be at least 0; got {degree}.")
    sigma = np.ones_like(x) if error is None else np.asarray(error, float)
    if sigma.shape != x.shape:
        raise ValueError(f"`error` needs shape {x.shape}; got {sigma.shape}.")
    finite = np.isfinite(x + y + flux + reference + sigma)
    used = finite & (np.where(finite, np.minimum(flux, reference), 0) > 0) & (sigma > 0)
    if not used.any():
        raise ValueError("`flux` and `reference` have no star where both are positive and finite.")
    ratio = np.where(used, reference, 1) / np.where(used, flux, 1)
    found = _fitted(x, y, ratio, sigma, used, shape, degree)
    for _ in range(rounds):
        left = (ratio - found(x, y)[0]) / np.where(used, sigma, 1)
        spread = MAD_TO_STD * np.median(np.abs(left[used] - np.median(left[used])))
        near = used & (np.abs(left) <= clip * max(spread, 1e-12))
        if near.sum() < 2 or (near == found.used).all():
            break
        found = _fitted(x, y, ratio, sigma, near, shape, degree)
    return found


def _fitted(
    x: np.ndarray,
    y: np.ndarray,
    ratio: np.ndarray,
    sigma: np.ndarray,
    used: np.ndarray,
    shape: tuple[int, int],
    degree: int,
) -> ApertureCorrection:
    """Weighted least squares on the stars in use."""
    n = int(used.sum())
    while degree > 0 and 2 * n_terms(degree) > n:
        degree -= 1
    design = chebyshev_design(x[used], y[used], shape, degree) / sigma[used, None]
    # Stars on a line leave some coefficients open: the smallest are taken.
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    coefficients = inverse @ (design.T @ (ratio[used] / sigma[used]))
    left = ratio[used] / sigma[used] - design @ coefficients
    freedom = max(n - design.shape[1], 1)
    variance = float(left @ left) / freedom if n > design.shape[1] else 1.0
    one = ApertureCorrection(coefficients, inverse * variance, 0.0, shape, degree, used.copy())
    return replace(one, scatter=float(np.sqrt(variance) * np.median(sigma[used])))
