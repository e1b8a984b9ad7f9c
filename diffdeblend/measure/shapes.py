"""From moments to the ellipse of a source: the formulas, for numpy and for JAX alike."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

# The variance of a uniform pixel.
PIXEL_VARIANCE = 1 / 12


class Ellipse(NamedTuple):
    """The Gaussian with the second moments of a source; see `ellipse`.

    - `covariance_xx`, `covariance_xy`, `covariance_yy`: in pixels squared.
    - `semimajor_axis`, `semiminor_axis`: its standard deviations, in pixels.
    - `orientation`: of the major axis, in degrees from +x to +y, in [0, 360).
    - `eccentricity`, `elongation`, `ellipticity`: $\\sqrt{1 - b^2/a^2}$, $a/b$, $1 - b/a$.
    - `fwhm`: $2\\sqrt{\\ln 2 (a^2 + b^2)}$, in pixels.
    - `ellipse_cxx`, `ellipse_cyy`, `ellipse_cxy`: of $c_{xx} x^2 + c_{xy} x y + c_{yy} y^2 = 1$.
    """

    covariance_xx: Any
    covariance_xy: Any
    covariance_yy: Any
    semimajor_axis: Any
    semiminor_axis: Any
    orientation: Any
    eccentricity: Any
    elongation: Any
    ellipticity: Any
    fwhm: Any
    ellipse_cxx: Any
    ellipse_cyy: Any
    ellipse_cxy: Any


def regularize(
    xx: Shaped[Any, "*n"], xy: Shaped[Any, "*n"], yy: Shaped[Any, "*n"], xp: Any = np
) -> tuple[Any, Any]:
    """Variances along x and y that leave no source thinner than a pixel.

    1/12 is added to both as long as the determinant is below 1/144; NaN where that is negative by
    more than rounding, or not finite. This is the rule of SExtractor, and of photutils up to 3.0.
    """
    delta = xp.asarray(PIXEL_VARIANCE, xx.dtype)
    det = xx * yy - xy * xy
    # A line of pixels has the determinant 0; rounding makes it negative now and then.
    rounding = 16 * xp.finfo(xx.dtype).eps * (xx * yy + xy * xy)
    valid = det >= -rounding
    # After one step it can miss only by rounding, so two are enough.
    for _ in range(2):
        more = xp.where(xx * yy - xy * xy < delta * delta, delta, 0)
        xx, yy = xx + more, yy + more
    return xp.where(valid, xx, xp.nan), xp.where(valid, yy, xp.nan)


def ellipse(
    xx: Shaped[Any, "*n"], xy: Shaped[Any, "*n"], yy: Shaped[Any, "*n"], xp: Any = np
) -> Ellipse:
    """The shape of a source from its covariance: second central moments over the zeroth.

    NaN where the covariance is not finite or has no positive determinant. Derivatives are finite,
    that of the orientation of a round source too, where it is put to 0.

    - `xp`: `numpy`, or `jax.numpy`.

    ??? cite
        Bertin & Arnouts (1996), SExtractor's manual, section "Basic shape parameters".
    """
    xx, yy = regularize(xx, xy, yy, xp)
    valid = xp.isfinite(xx) & xp.isfinite(yy) & xp.isfinite(xy)
    # Round stands in where there is nothing to take the root of.
    xx, yy, xy = (xp.where(valid, c, d) for c, d in ((xx, 1), (yy, 1), (xy, 0)))
    middle, half = (xx + yy) / 2, (xx - yy) / 2
    square = half * half + xy * xy
    is_round = square == 0
    apart = xp.where(is_round, 0, xp.sqrt(xp.where(is_round, 1, square)))
    major = middle + apart
    # Less the major variance, the minor one loses digits; so does the determinant, but less.
    minor = (xx * yy - xy * xy) / major
    a, b = xp.sqrt(major), xp.sqrt(minor)
    angle = 0.5 * xp.arctan2(xp.where(is_round, 0, xy), xp.where(is_round, 1, half))
    # Twice the angle has these, without a sine.
    safe = xp.where(is_round, 1, apart)
    cos2, sin2 = xp.where(is_round, 1, half / safe), xp.where(is_round, 0, xy / safe)
    mean, difference = (1 / major + 1 / minor) / 2, (1 / major - 1 / minor) / 2
    flat = major > minor
    found = Ellipse(
        covariance_xx=xx,
        covariance_xy=xy,
        covariance_yy=yy,
        semimajor_axis=a,
        semiminor_axis=b,
        orientation=xp.mod(xp.rad2deg(angle), 360),
        eccentricity=xp.where(flat, xp.sqrt(xp.where(flat, 1 - minor / major, 1)), 0),
        elongation=a / b,
        ellipticity=1 - b / a,
        fwhm=2 * xp.sqrt(np.log(2) * (major + minor)),
        ellipse_cxx=mean + difference * cos2,
        ellipse_cyy=mean - difference * cos2,
        ellipse_cxy=2 * difference * sin2,
    )
    return Ellipse(*(xp.where(valid, value, xp.nan) for value in found))


def floor_variances(
    cov: Float[np.ndarray, "*n 2 2"], least: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n 2 2"]:
    """Covariances with no variance along a principal axis below `least`."""
    known = np.isfinite(cov).all(axis=(-2, -1)) & np.isfinite(least)
    value, vector = np.linalg.eigh(np.where(known[..., None, None], cov, 0))
    raised = np.maximum(value, np.where(known, least, 0)[..., None])
    floored = np.einsum("...ij,...j,...kj->...ik", vector, raised, vector)
    # Left as it is where nothing is to raise: not even rounding.
    same = ~known | (raised == value).all(axis=-1)
    return np.where(same[..., None, None], cov, floored)
