"""Flux ratio, shifts and background from stars, and whole exposures subtracted."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from subtraction_fields import SIGMA_NEW, SIGMA_REFERENCE, field, gaussian_stamp

from diffdeblend.exposure import make_exposure
from diffdeblend.psf import PixelPSF
from diffdeblend.subtract import fit_subtraction, subtract
from diffdeblend.subtract.fit_steps import fit_stamps

SHAPE, BETA = (190, 250), 0.7
POINT = (120, 60, 2500.0)


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def shift(x, y):
    """Up to a third of a pixel, other along x than along y."""
    u, v = 2 * x / (SHAPE[1] - 1) - 1, 2 * y / (SHAPE[0] - 1) - 1
    return 0.12 + 0.1 * u * v, -0.2 + 0.08 * u


def exposures(images, mask=None, level=0.0):
    new, reference, variance_new, variance_reference = images
    return (
        make_exposure(new + level, variance_new, gaussian_stamp(SIGMA_NEW), mask=mask),
        make_exposure(reference, variance_reference, gaussian_stamp(SIGMA_REFERENCE)),
    )


@pytest.fixture(scope="module")
def images():
    return field(SHAPE, 120, BETA, shift, seed=3, extra=[POINT])[:4]


@pytest.fixture(scope="module")
def fitted(images):
    return fit_subtraction(*exposures(images, level=3.0), shift_degree=2)


def test_fit_finds_the_truth(fitted):
    assert bool(fitted.converged[0])
    assert abs(float(fitted.beta[0]) - BETA) < 4 * float(fitted.beta_err[0])
    assert float(fitted.beta_err[0]) < 0.004
    y, x = np.mgrid[10:180:20, 10:240:20].astype(float)
    for got, expected in zip((fitted.dx_at(x, y), fitted.dy_at(x, y)), shift(x, y), strict=True):
        assert np.sqrt(np.mean((np.asarray(got[0]) - expected) ** 2)) < 0.02
    assert float(fitted.residual[0]) < 0.02
    # The level of N is known to its noise over the root of the number of pixels: 0.1.
    assert float(fitted.gamma[0]) == pytest.approx(3.0, abs=0.5)


def test_width_of_a_wrong_psf_is_noticed(images, fitted):
    new, reference = exposures(images, level=3.0)
    # 3 % too wide.
    wide = eqx.tree_at(
        lambda e: e.psf, reference, PixelPSF(gaussian_stamp(1.03 * SIGMA_REFERENCE)[None])
    )
    off = fit_subtraction(new, wide, shift_degree=2)
    assert float(fitted.residual_width[0]) < 0.004
    assert float(off.residual_width[0]) == pytest.approx(0.03 / np.sqrt(2), rel=0.35)


def test_start_does_not_matter(images, fitted):
    pair = exposures(images, level=3.0)
    for beta, x, y in ((0.5, 0.5, -0.5), (1.2, -0.6, 0.4)):
        start = jax.tree.map(lambda leaf: leaf, fitted)
        zero = jnp.zeros_like(fitted.shift_x)
        start = type(fitted)(
            fitted.beta * 0 + beta,
            zero.at[:, 0].set(x),
            zero.at[:, 0].set(y),
            fitted.gamma,
            fitted.beta_err,
            fitted.covariance,
            fitted.residual,
            fitted.residual_beta,
            fitted.residual_width,
            fitted.n_stars,
            fitted.converged,
            fitted.shape,
            fitted.degree,
        )
        other = fit_subtraction(*pair, start=start, shift_degree=2)
        np.testing.assert_allclose(other.beta, fitted.beta, atol=5e-4)
        np.testing.assert_allclose(other.shift_x, fitted.shift_x, atol=3e-3)
        np.testing.assert_allclose(other.shift_y, fitted.shift_y, atol=3e-3)


def test_stars_that_brighten_do_not_change_the_flux_ratio():
    rng = np.random.default_rng(8)
    *_, places, fluxes = field(SHAPE, 120, BETA, seed=6)
    changed = rng.permutation(120)[:20]
    extra = [(*places[k], 0.3 * fluxes[k]) for k in changed]
    images = field(SHAPE, 120, BETA, seed=6, extra=extra)[:4]
    fitted = fit_subtraction(*exposures(images), shift_degree=0)
    assert float(fitted.beta[0]) == pytest.approx(BETA, rel=0.01)


def test_subtract_end_to_end(images):
    mask = np.zeros(SHAPE, bool)
    mask[:, 40:42] = True
    new, reference = exposures(images, mask=mask, level=3.0)
    compiled = fit_stamps._cached._cache_size()
    difference = subtract(new, reference, shift_degree=2)
    again = subtract(new, reference, shift_degree=2)
    assert fit_stamps._cached._cache_size() <= compiled + 1
    np.testing.assert_array_equal(difference.S_corr, again.S_corr)
    x, y, flux = POINT
    sig = np.asarray(difference.S_corr[0])
    pull = (float(difference.flux[0, y, x]) - flux) / float(difference.flux_err[0, y, x])
    assert abs(pull) < 4
    assert sig[y, x] > 8
    rest = ~np.asarray(difference.bad[0])
    assert rest.mean() > 0.98
    rest[y - 10 : y + 11, x - 10 : x + 11] = False
    assert np.std(sig[rest]) == pytest.approx(1, abs=0.05)
    assert np.abs(sig[rest]).max() < 5.5
    assert abs(np.mean(sig[rest])) < 0.05
    assert difference.D.shape == (1, *SHAPE)
    fit = difference.fit
    told = subtract(
        new,
        reference,
        fit=fit,
        flux_ratio_noise=float(fit.residual_beta[0]),
        psf_noise=float(fit.residual_width[0]),
    )
    np.testing.assert_array_equal(difference.flux_err, told.flux_err)
    sure = subtract(new, reference, fit=fit, flux_ratio_noise=0.0, psf_noise=0.0)
    assert (sure.flux_err <= difference.flux_err).all()
    assert (sure.flux_err < difference.flux_err).any()
    np.testing.assert_allclose(difference.P_D.sum(axis=(1, 2)), 1, atol=1e-5)
    swapped = subtract(new, reference, fit=None, beta=BETA, dx=0.12, dy=-0.2, gamma=3.0)
    assert swapped.fit is None
    # What is left of the field of shifts shows at bright stars.
    assert np.std(np.asarray(swapped.S_corr[0])[rest]) > np.std(sig[rest])


def test_bad_input(images):
    new, reference = exposures(images)
    with pytest.raises(ValueError, match="`new` and `reference` need the same number"):
        subtract(new, exposures([a[:-1] for a in images])[1])
    with pytest.raises(ValueError, match="`varying`"):
        subtract(new, reference, varying="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`beta` is measured"):
        subtract(new, reference, beta=1.0)
    with pytest.raises(ValueError, match="`beta` must be positive"):
        subtract(new, reference, fit=None, beta=-1.0)
    with pytest.raises(ValueError, match="`registration_noise`"):
        subtract(new, reference, registration_noise=-0.1)
    with pytest.raises(ValueError, match="`shift_degree`"):
        fit_subtraction(new, reference, shift_degree=5)
    with pytest.raises(ValueError, match="`reference` must be an Exposure"):
        subtract(new, images[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no pixel in use"):
        subtract(new.with_mask("BAD", np.ones(SHAPE, bool)), reference)
    empty = [np.zeros_like(a) for a in images[:2]]
    with pytest.raises(ValueError, match="no bright source"):
        subtract(*exposures((*empty, *images[2:])))
