"""Mixtures learnt by EM, against closed forms, densities of scipy and what was drawn from."""

import equinox as eqx
import jax
import numpy as np
import pytest
from quick import hasty
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from diffdeblend.priors.mixture import gaussian_mixture
from diffdeblend.train.mixture import MixtureSettings, fit_mixture


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[-2.0, 1.0], [1.5, -0.5]])
COVARIANCES = np.array([[[0.5, 0.3], [0.3, 0.4]], [[1.0, -0.2], [-0.2, 0.2]]])


def drawn(n=4000, seed=5):
    rng = np.random.default_rng(seed)
    which = rng.random(n) < WEIGHTS[1]
    root = np.linalg.cholesky(COVARIANCES)[which.astype(int)]
    return MEANS[which.astype(int)] + np.einsum("nij,nj->ni", root, rng.standard_normal((n, 2)))


def log_density(x, weights=WEIGHTS, means=MEANS, covariances=COVARIANCES):
    parts = [
        np.log(w) + multivariate_normal(m, c).logpdf(x)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return logsumexp(parts, axis=0)


@pytest.fixture(scope="module")
def mixture():
    return gaussian_mixture(WEIGHTS, MEANS, COVARIANCES)


def test_density_is_that_of_scipy_and_so_is_its_gradient(mixture):
    x = np.random.default_rng(0).normal(0, 3, (20, 2))
    own = jax.jit(jax.vmap(mixture.log_prob))(x.astype(np.float32))
    np.testing.assert_allclose(own, log_density(x), rtol=2e-5, atol=2e-5)
    slope = jax.jit(jax.vmap(jax.grad(mixture.log_prob)))(x.astype(np.float32))
    step = 1e-4
    for axis in range(2):
        move = step * np.eye(2)[axis]
        expected = (log_density(x + move) - log_density(x - move)) / (2 * step)
        np.testing.assert_allclose(slope[:, axis], expected, rtol=1e-3, atol=1e-3)


def test_far_away_all_is_finite(mixture):
    value, slope = jax.jit(jax.value_and_grad(mixture.log_prob))(np.array([1e6, -1e6], np.float32))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_temperature_widens_and_keeps_the_sum(mixture):
    x = np.random.default_rng(1).normal(0, 3, (10, 2))
    own = jax.jit(jax.vmap(lambda v: mixture.log_prob(v, 2.5)))(x.astype(np.float32))
    expected = log_density(x, covariances=2.5 * COVARIANCES)
    np.testing.assert_allclose(own, expected, rtol=2e-5, atol=2e-5)


def test_parts_of_a_mixture(mixture):
    grid = np.linspace(-12, 12, 4801)
    both = np.stack(np.broadcast_arrays(0.7, grid), axis=1)
    joint = np.exp(log_density(both))
    total = joint.sum() * (grid[1] - grid[0])
    first = mixture.marginal([0])
    np.testing.assert_allclose(first.log_prob(np.array([0.7])), np.log(total), rtol=1e-4)
    rest = mixture.given([0], [0.7])
    own = jax.jit(jax.vmap(rest.log_prob))(both[2000:2800:100, 1:].astype(np.float32))
    np.testing.assert_allclose(own, np.log(joint[2000:2800:100] / total), rtol=1e-3, atol=1e-4)


def test_draws_have_the_moments(mixture):
    draw = jax.jit(lambda key: mixture.sample(key, 20000))
    x = np.asarray(draw(jax.random.key(3)), dtype=float)
    mean = WEIGHTS @ MEANS
    away = MEANS - mean
    spread = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + away[:, :, None] * away[:, None, :])
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), spread, atol=0.08)


def test_one_component_is_mean_and_covariance_with_weights():
    x = drawn(300)
    share = np.random.default_rng(2).uniform(0, 2, 300)
    found = fit_mixture(x, weights=share, settings=MixtureSettings(n_components=1))
    mean = share @ x / share.sum()
    expected = np.einsum("n,ni,nj->ij", share / share.sum(), x - mean, x - mean)
    np.testing.assert_allclose(found.mixture.means[0], mean, atol=1e-5)
    np.testing.assert_allclose(found.mixture.covariances[0], expected, atol=1e-5)
    assert found.converged


def test_the_truth_is_found_and_so_is_the_number():
    x = drawn()
    settings = MixtureSettings(n_components=(1, 2), seed=4)
    found = fit_mixture(x, settings=settings)
    assert found.losses[2] < found.losses[1] - 0.1
    assert found.bic[2] < found.bic[1]
    order = np.argsort(found.mixture.means[:, 0])
    np.testing.assert_allclose(np.exp(found.mixture.log_weights)[order], WEIGHTS, atol=0.02)
    np.testing.assert_allclose(found.mixture.means[order], MEANS, atol=0.06)
    np.testing.assert_allclose(found.mixture.covariances[order], COVARIANCES, atol=0.06)
    # Nearly as likely as the truth on points that nobody has seen.
    fresh = drawn(3000, seed=9)
    own = jax.jit(jax.vmap(found.mixture.log_prob))(fresh.astype(np.float32))
    assert np.mean(log_density(fresh) - np.asarray(own)) < 0.01
    assert (np.diff(found.history) > -1e-9).all()
    again = fit_mixture(x, settings=settings)
    assert eqx.tree_equal(found.mixture, again.mixture)
    other = fit_mixture(3 * x, settings=settings)
    # Density in other units: less by the Jacobian.
    np.testing.assert_allclose(other.losses[2], found.losses[2] + 2 * np.log(3), atol=1e-6)


def test_one_component_less_equal_errors_is_a_difference_of_covariances():
    x = drawn(2000)
    noise = np.array([[0.4, 0.1], [0.1, 0.1]])
    errors = np.broadcast_to(noise, (2000, 2, 2))
    found = fit_mixture(x, errors=errors, settings=MixtureSettings(1, tolerance=1e-12))
    expected = np.cov(x.T, bias=True) - noise
    np.testing.assert_allclose(found.mixture.covariances[0], expected, atol=2e-3)
    np.testing.assert_allclose(found.mixture.means[0], x.mean(axis=0), atol=1e-4)


def test_errors_of_all_sizes_are_taken_out():
    rng = np.random.default_rng(7)
    true = drawn(3000)
    sigma = np.exp(rng.uniform(np.log(0.1), np.log(1.5), true.shape))
    seen = true + sigma * rng.standard_normal(true.shape)
    settings = MixtureSettings(n_components=2, seed=1, starts=2, tolerance=1e-6)
    clean = fit_mixture(seen, errors=sigma, settings=settings)
    plain = fit_mixture(seen, settings=settings)
    fresh = drawn(3000, seed=11)

    def lost(found):
        own = jax.jit(jax.vmap(found.mixture.log_prob))(fresh.astype(np.float32))
        return float(np.mean(log_density(fresh) - np.asarray(own)))

    assert lost(clean) < 0.03
    assert lost(plain) > 0.15
    assert (np.diff(clean.history) > -1e-9).all()


def test_isotropic_pairs_have_no_direction_and_the_floor_holds():
    rng = np.random.default_rng(3)
    size = rng.standard_normal(2000)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    length = np.exp(0.3 * size) * rng.rayleigh(0.5, 2000)
    x = np.stack([size, length * np.cos(angle), length * np.sin(angle), 0 * size], axis=1)
    settings = MixtureSettings(n_components=3, isotropic=((1, 2),), floor=0.1)
    found = fit_mixture(x, settings=settings)
    covariances = np.asarray(found.mixture.covariances)
    np.testing.assert_allclose(found.mixture.means[:, 1:3], 0, atol=1e-7)
    np.testing.assert_allclose(covariances[:, 1, 1], covariances[:, 2, 2], rtol=1e-4)
    np.testing.assert_allclose(covariances[:, 1, [0, 2, 3]], 0, atol=1e-6)
    np.testing.assert_allclose(covariances[:, 3, 3], 0.01, rtol=1e-3)
    turned = x @ np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    own = jax.jit(jax.vmap(found.mixture.log_prob))
    np.testing.assert_allclose(own(x[:50]), own(turned[:50]), rtol=1e-4, atol=1e-4)
    assert (np.diff(found.history) > -1e-9).all()


def test_outliers_leave_the_middle_and_make_heavy_tails():
    clean = fit_mixture(drawn(1000), settings=MixtureSettings(2, outliers=0.02))
    own = jax.jit(lambda x: clean.mixture.log_prob(x))
    assert clean.mixture.n_components == 3
    far = np.array([12.0, 12.0])
    assert own(far) > log_density(far[None]) + 50
    assert abs(own(MEANS[1]) - log_density(MEANS[1][None])) < 0.1
    assert np.exp(clean.mixture.log_weights).max() < 0.75


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"points": np.zeros(30)}, "points"),
        ({"points": np.full((30, 2), np.nan)}, "points"),
        ({"points": np.zeros((9, 2))}, "points"),
        ({"errors": np.ones((30, 3))}, "errors"),
        ({"errors": -np.ones((30, 2))}, "errors"),
        ({"weights": np.zeros(30)}, "weights"),
        ({"weights": -np.ones(30)}, "weights"),
    ],
)
def test_bad_points_are_refused(given, name):
    points = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=f"`{name}`"):
        fit_mixture(**{"points": points, "settings": MixtureSettings(1)} | given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_components", 0), ("starts", 0), ("floor", 0.0), ("outliers", 1.0), ("held_out", 0.0)],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        MixtureSettings(**{name: value})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((WEIGHTS[:1], MEANS, COVARIANCES), "weights"),
        ((2 * WEIGHTS, MEANS, COVARIANCES), "weights"),
        ((WEIGHTS, MEANS, -COVARIANCES), "covariances"),
    ],
)
def test_bad_moments_are_refused(given, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        gaussian_mixture(*given)
