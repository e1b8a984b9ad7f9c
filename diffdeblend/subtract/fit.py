"""Flux ratio, registration and background between two exposures, measured from their stars."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from diffdeblend.exposure import Exposure
from diffdeblend.grow import grown
from diffdeblend.polynomials import chebyshev_design, chebyshev_terms, n_terms
from diffdeblend.psf.stamps import psf_stamp, psf_stamps
from diffdeblend.subtract.constant import default_border
from diffdeblend.subtract.filters import proper_filters, shift_plane
from diffdeblend.subtract.fit_stamps import bright_places, cut_stamps, stamp_plan
from diffdeblend.subtract.fit_steps import Outcome, Registration, Stamps, fit_stamps
from diffdeblend.subtract.inputs import BandPair, band_pair, check_pair
from diffdeblend.subtract.padding import pad, padded_shape, unpad

# Programs are compiled for so many stamps; what is not there is filled up.
_NUMBERS = (16, 64, 256)
# Stars for each polynomial of the shift, at least.
_STARS_PER_TERM = 4
# Filters carry a flaw that far.
_GROWN = 3
# Of the variance of empty sky: brighter pixels, and those beyond so many sigmas, say nothing of it.
_DARK, _OUTLIER = 1.1, 4.0


class SubtractionFit(eqx.Module):
    """What two exposures differ by, besides what is new on the sky.

    - `beta`: flux of a star in the new exposure over that in the reference, shape `(band,)`.
    - `shift_x`, `shift_y`: position of a star in the new exposure minus that in the reference, in
        pixels, as coefficients of Chebyshev products over the image, shape `(band, term)`; see
        `diffdeblend.polynomials`.
    - `gamma`: background of the new exposure less beta times that of the reference, `(band,)`.
    - `beta_err`: standard deviation of beta, shape `(band,)`.
    - `covariance`: of log beta and the coefficients of x and y, `(band, 1 + 2 term, 1 + 2 term)`.
    - `residual`: registration noise, by how much stars lie off the fit along an axis, beyond what
        their noise explains, in pixels rms, shape `(band,)`.
    - `residual_beta`: the same of their flux ratio, relative.
    - `residual_width`: the same of the width of either PSF, relative.
    - `n_stars`: places that were compared, shape `(band,)`.
    - `converged`: whether the last step was below a tenth of its error, shape `(band,)`.
    - `shape`: pixels of the image, (ny, nx); `degree`: of the shift. Both static.
    """

    beta: Float[Array, "band"]
    shift_x: Float[Array, "band term"]
    shift_y: Float[Array, "band term"]
    gamma: Float[Array, "band"]
    beta_err: Float[Array, "band"]
    covariance: Float[Array, "band k k"]
    residual: Float[Array, "band"]
    residual_beta: Float[Array, "band"]
    residual_width: Float[Array, "band"]
    n_stars: Float[Array, "band"]
    converged: Bool[Array, "band"]
    shape: tuple[int, int] = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def dx_at(self, x: ArrayLike, y: ArrayLike) -> Float[Array, "band *n"]:
        """Shift along x at positions of the new exposure, in pixels."""
        return self._field(self.shift_x, x, y)

    def dy_at(self, x: ArrayLike, y: ArrayLike) -> Float[Array, "band *n"]:
        """Shift along y at positions of the new exposure, in pixels."""
        return self._field(self.shift_y, x, y)

    def _field(self, coefficients: Array, x: ArrayLike, y: ArrayLike) -> Array:
        terms = chebyshev_terms(x, y, self.shape, self.degree)
        return jnp.tensordot(coefficients, terms, axes=1)


def fit_subtraction(
    new: Exposure,
    reference: Exposure,
    *,
    start: SubtractionFit | None = None,
    shift_degree: int = 3,
    n_stars: int = 256,
    psf_error: float = 0.01,
    fit_gamma: bool = True,
    pairs: list[BandPair] | None = None,
) -> SubtractionFit:
    """The flux ratio, the shift and the background that leave least in the proper difference.

    Compares the two exposures on stamps around bright sources, of whatever shape, that are not
    near flaws, each with the PSFs at its place. Robust: what varies or moves, and cosmic rays, has
    little say. Where fewer than 4 stars a term are found, the degree of the shift is lower.

    - `new`, `reference`: on the same pixels but for shifts of a pixel or two, without sky.
    - `start`: from where to begin; default a flux ratio from the brightest pixels and no shift.
    - `shift_degree`: of the polynomials of the shift, 0 to 3; 0 is one shift.
    - `n_stars`: places that are compared, at most.
    - `psf_error`: by how much PSFs may be wrong, relative to the light of a pixel.
    - `fit_gamma`: whether the background is compared; else gamma is 0.
    - `pairs`: what `band_pair` makes of each band, where that is known already.

    **Raises:** `ValueError` for exposures of different shapes or bands, a setting out of range, or
    no source to compare: then give `beta` and no fit.

    ??? cite
        Zackay, Ofek & Gal-Yam (2016), ApJ 830, 27, section 3.3.
    """
    check_pair(new, reference)
    if shift_degree not in (0, 1, 2, 3):
        raise ValueError(f"`shift_degree` must be 0, 1, 2 or 3; got {shift_degree!r}.")
    if not (isinstance(n_stars, int) and n_stars >= 1):
        raise ValueError(f"`n_stars` must be a positive integer; got {n_stars!r}.")
    if pairs is None:
        pairs = [band_pair(new, reference, band) for band in range(new.n_bands)]
    places = [_places(pair, n_stars) for pair in pairs]
    fewest = min(map(len, places))
    if not fewest:
        raise ValueError(
            "`new` and `reference` have no bright source away from flaws to compare in some "
            "band; give `beta` to `subtract` and no fit."
        )
    degree = shift_degree
    while degree and fewest < _STARS_PER_TERM * n_terms(degree):
        degree -= 1
    outcomes, gammas = [], []
    for band, (pair, place) in enumerate(zip(pairs, places, strict=True)):
        stamps = _stamps(pair, place, degree)
        begin = _start(pair, place, start, band, degree)
        outcome = fit_stamps(stamps, begin, jnp.asarray(psf_error, stamps.new.dtype))
        outcomes.append(outcome)
        gammas.append(background_left(pair, outcome.state) if fit_gamma else 0.0)
    return _joined(outcomes, gammas, [len(place) for place in places], new.shape, degree)


def background_left(pair: BandPair, state: Registration) -> float:
    """Background of the new image that the reference times beta does not have.

    The mean of the proper difference where both images are dark, without outliers: light of stars,
    faint ones and wings, has gone from it, and is not taken for background.
    """
    dtype = pair.new.dtype
    stamps = (
        psf_stamp(psf, pair.new.shape)[pair.band].astype(dtype)
        for psf in (pair.psf_new, pair.psf_reference)
    )
    difference, response = _difference(
        jnp.asarray(pair.new),
        jnp.asarray(pair.reference),
        *stamps,
        jnp.asarray(pair.sigma_new, dtype),
        jnp.asarray(pair.sigma_reference, dtype),
        state,
    )
    variance = pair.variance_new / pair.sigma_new**2
    dark = variance + pair.variance_reference / pair.sigma_reference**2 < 2 * _DARK
    flawed = pair.missing_new | pair.missing_reference
    if flawed.any():
        dark &= ~grown(flawed, int(np.ceil(pair.fwhm)))
    values = np.asarray(difference)[dark]
    if not len(values):
        return 0.0
    level = 0.0
    for _ in range(3):
        level = float(values[np.abs(values - level) < _OUTLIER].mean(dtype=float))
    return level / float(response)


@jax.jit
def _difference(
    new: Array,
    reference: Array,
    psf_new: Array,
    psf_reference: Array,
    sigma_new: Array,
    sigma_reference: Array,
    state: Registration,
) -> tuple[Float[Array, "y x"], Float[Array, ""]]:
    """The proper difference with one shift, and what it makes of a level of 1."""
    padded = padded_shape((new.shape[0], new.shape[1]), default_border(psf_new, psf_reference))
    filters = proper_filters(psf_new, psf_reference, sigma_new, sigma_reference, state.beta, padded)
    moved = shift_plane(state.x[0], state.y[0], padded)
    hats = (jnp.fft.rfft2(pad(image, padded)) for image in (new, reference))
    total = filters.new * next(hats) - filters.reference * moved * next(hats)
    image = unpad(jnp.fft.irfft2(total, s=padded), (new.shape[0], new.shape[1]))
    return image, jnp.real(filters.new[0, 0])


def _places(pair: BandPair, n_stars: int) -> np.ndarray:
    plan = stamp_plan(pair.fwhm, pair.new.shape)
    flawed = pair.missing_new | pair.missing_reference
    spoilt = grown(flawed, int(np.ceil(pair.fwhm)))
    # As bright in either, so that neither decides alone which of its noise peaks are compared.
    both = pair.new / pair.sigma_new + pair.reference / pair.sigma_reference
    return bright_places(both, float(np.sqrt(2)), np.logical_not(spoilt), plan, n_stars, least=20.0)


def _stamps(pair: BandPair, places: np.ndarray, degree: int) -> Stamps:
    plan = stamp_plan(pair.fwhm, pair.new.shape)
    number = next((n for n in _NUMBERS if n >= len(places)), len(places))
    # The rows that fill up repeat the first.
    rows = np.concatenate([places, np.repeat(places[:1], number - len(places), axis=0)])
    flawed = grown(pair.missing_new | pair.missing_reference, _GROWN, square=True)
    inside = slice((plan.side - plan.window) // 2, (plan.side + plan.window) // 2)
    known = np.logical_not(cut_stamps(flawed, rows, plan.side)[:, inside, inside])
    x, y = rows.T.astype(float)
    dtype = pair.new.dtype
    images = (pair.new, pair.reference, pair.variance_new, pair.variance_reference)
    return Stamps(
        *(jnp.asarray(cut_stamps(image, rows, plan.side)) for image in images),
        known=jnp.asarray(known),
        psf_new=jnp.asarray(psf_stamps(pair.psf_new, pair.band, x, y), dtype),
        psf_reference=jnp.asarray(psf_stamps(pair.psf_reference, pair.band, x, y), dtype),
        terms=jnp.asarray(chebyshev_design(x, y, pair.new.shape, degree), dtype),
        use=jnp.asarray(np.arange(number) < len(places), dtype),
        sigma_new=jnp.asarray(pair.sigma_new, dtype),
        sigma_reference=jnp.asarray(pair.sigma_reference, dtype),
    )


def _start(
    pair: BandPair, places: np.ndarray, start: SubtractionFit | None, band: int, degree: int
) -> Registration:
    dtype = pair.new.dtype
    count = n_terms(degree)
    scatter = jnp.asarray(0.02, dtype), jnp.asarray(0.05, dtype)
    if start is not None:
        x, y = (
            jnp.zeros(count, dtype).at[: min(count, c.shape[1])].set(c[band, :count])
            for c in (start.shift_x, start.shift_y)
        )
        return Registration(jnp.asarray(start.beta[band], dtype), x, y, *scatter)
    window = stamp_plan(pair.fwhm, pair.new.shape).window
    light_new, light_reference = (
        cut_stamps(image, places, window).sum(axis=(1, 2)) for image in (pair.new, pair.reference)
    )
    both = (light_new > 0) & (light_reference > 0)
    ratio = np.median(light_new[both] / light_reference[both]) if both.any() else 1.0
    nothing = jnp.zeros(count, dtype)
    return Registration(jnp.asarray(ratio, dtype), nothing, nothing, *scatter)


def _joined(
    outcomes: list[Outcome],
    gammas: list[float],
    counts: list[int],
    shape: tuple[int, int],
    degree: int,
) -> SubtractionFit:
    states = [outcome.state for outcome in outcomes]
    beta = jnp.stack([state.beta for state in states])
    covariance = jnp.stack([outcome.covariance for outcome in outcomes])
    return SubtractionFit(
        beta=beta,
        shift_x=jnp.stack([state.x for state in states]),
        shift_y=jnp.stack([state.y for state in states]),
        gamma=jnp.asarray(gammas, beta.dtype),
        beta_err=beta * jnp.sqrt(covariance[:, 0, 0]),
        covariance=covariance,
        residual=jnp.stack([state.scatter_position for state in states]),
        residual_beta=jnp.stack([state.scatter_beta for state in states]),
        # What is seen is that of both.
        residual_width=jnp.stack([outcome.scatter_width for outcome in outcomes]) / np.sqrt(2),
        n_stars=jnp.asarray(counts, beta.dtype),
        converged=jnp.stack([outcome.change < 0.1 for outcome in outcomes]),
        shape=shape,
        degree=degree,
    )
