"""How far fluxes and colours are from the true ones, and whether their errors say so."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

# Share of a normal distribution within one and within two standard deviations.
ONE_SIGMA, TWO_SIGMA = 0.6826894921, 0.9544997361


def flux_error(truth: ArrayLike, found: ArrayLike) -> Float[np.ndarray, "..."]:
    """Relative error, found / truth - 1; NaN where not measured or the truth is not positive."""
    t, f = np.asarray(truth, float), np.asarray(found, float)
    return _divided(f, np.where(t > 0, t, np.nan)) - 1


def with_lost(error: ArrayLike) -> Float[np.ndarray, "..."]:
    """The same errors, with what was not measured counted as a flux of 0: an error of -1."""
    error = np.asarray(error, float)
    return np.where(np.isfinite(error), error, -1.0)


def colour_error(
    truth: ArrayLike, found: ArrayLike, truth_other: ArrayLike, found_other: ArrayLike
) -> Float[np.ndarray, "..."]:
    """Error of a colour in magnitudes, of fluxes in one band and in another.

    For g - r the fluxes in g come first. NaN where one of them is not positive.
    """
    fluxes = [np.asarray(f, float) for f in (truth, found, truth_other, found_other)]
    t, f, t_other, f_other = (np.where(flux > 0, flux, np.nan) for flux in fluxes)
    return -2.5 * np.log10((f / f_other) / (t / t_other))


def pulls(truth: ArrayLike, found: ArrayLike, error: ArrayLike) -> Float[np.ndarray, "..."]:
    """(found - truth) / error; NaN where an error is not positive or something is missing."""
    t, f, e = (np.asarray(values, float) for values in (truth, found, error))
    return _divided(f - t, np.where((e > 0) & np.isfinite(e), e, np.nan))


def coverage(pull: ArrayLike, sigmas: float = 1.0) -> float:
    """Share of the pulls, of those that exist, within so many errors; NaN of none.

    Right errors give 0.683 within one and 0.954 within two.
    """
    pull = _finite(pull)
    return float(np.mean(np.abs(pull) <= sigmas)) if pull.size else float("nan")


def bias(values: ArrayLike) -> float:
    """Median of what is finite; NaN of nothing."""
    values = _finite(values)
    return float(np.median(values)) if values.size else float("nan")


def scatter(values: ArrayLike) -> float:
    """Half the distance from the 16th to the 84th percentile of what is finite; NaN of nothing.

    The standard deviation where errors are normal, and no outlier moves it.
    """
    values = _finite(values)
    if not values.size:
        return float("nan")
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2


def _finite(values: ArrayLike) -> np.ndarray:
    """What is finite, in a row."""
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b where b is not 0; it may be NaN, and then so is the result."""
    a, b = np.broadcast_arrays(a, b)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
