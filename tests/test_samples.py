"""Scenes drawn from a fit: they scatter as its errors say, and weigh as the posterior does."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend import (
    ConstantBackground,
    GaussianPSF,
    PointSource,
    Scene,
    Sersic,
    make_exposure,
    render,
)
from diffdeblend.fit import fit, sample_posterior, samples, shape_prior, weighted_samples
from diffdeblend.fit.arrow import linear_vector
from diffdeblend.fit.unknowns import unknowns_of
from diffdeblend.grid import FIT

SHAPE = (31, 36)
PSF = GaussianPSF(np.array([3.1, 2.8]))
NAMES = ("flux", "x", "y", "radius", "index", "ellipticity")


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def scene(light: float = 1.0) -> Scene:
    return Scene(
        [
            Sersic([900.0 * light, 700.0 * light], 13.3, 16.8, 2.6, 1.3, [0.15, -0.1]),
            PointSource([550.0 * light, 420.0 * light], 20.6, 14.1),
        ],
        ConstantBackground([0.7, -0.4]),
    )


def observe(truth: Scene, seed: int = 0):
    image = np.asarray(render(truth, PSF, SHAPE, quality=FIT))
    noise = np.random.default_rng(seed).normal(size=image.shape)
    return make_exposure(image + noise, np.ones(image.shape), PSF)


def fitted(light: float = 1.0):
    exposure, prior = observe(scene(light)), shape_prior(scene(light))
    return fit(scene(light), exposure, prior=prior), exposure, prior


def in_errors(drawn: Scene, found, weights=None):
    """Mean and scatter of each number, off the fit and in units of its errors."""
    for stack, best, sigma in zip(
        drawn.sources, found.scene.sources, found.errors.sources, strict=True
    ):
        for name in NAMES:
            if not hasattr(stack.members, name):
                continue
            values, centre, error = (
                np.asarray(getattr(s.members, name), float) for s in (stack, best, sigma)
            )
            mean = np.average(values, axis=0, weights=weights)
            scatter = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
            yield name, (mean - centre) / error, scatter / error


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
def test_samples_have_the_covariance_of_the_fit(precision):
    found, _, _ = fitted(10.0)
    n = 4000
    drawn = jax.jit(samples, static_argnums=2)(found, jax.random.key(0), n)
    unknowns = jax.vmap(unknowns_of)(drawn)
    linear = jax.vmap(linear_vector)(unknowns).reshape(n, -1)
    shape = jax.vmap(lambda u: u.flat_shape)(unknowns)
    vectors = np.concatenate([linear, shape], axis=1).astype(float)
    wanted = np.asarray(found.covariance.dense(), float)
    free = np.diag(wanted) > 0
    np.testing.assert_array_equal(np.ptp(vectors[:, ~free], axis=0), 0)
    sigma = np.sqrt(np.diag(wanted)[free])
    have = np.cov(vectors[:, free].T) / sigma / sigma[:, None]
    # Of so many samples correlations are known to 1 / sqrt(n); of some 190, the worst at 4 sigma.
    np.testing.assert_allclose(
        have, wanted[np.ix_(free, free)] / sigma / sigma[:, None], atol=4.5 * np.sqrt(2 / n)
    )
    for name, off, ratio in in_errors(drawn, found):
        np.testing.assert_allclose(off, 0, atol=0.1, err_msg=name)
        np.testing.assert_allclose(ratio, 1, atol=0.06, err_msg=name)


@pytest.mark.slow
def test_samples_are_scenes():
    found, _, _ = fitted()
    drawn = samples(found, jax.random.key(0), 5)
    images = jax.vmap(lambda s: render(s, PSF, SHAPE, quality=FIT))(drawn)
    assert images.shape == (5, 2, *SHAPE)
    assert bool(jnp.isfinite(images).all())
    again = samples(found, jax.random.key(0), 5)
    np.testing.assert_array_equal(drawn.sources[0].members.x, again.sources[0].members.x)
    np.testing.assert_array_equal(drawn.dx, 0)


@pytest.mark.slow
def test_weights_are_even_where_the_posterior_is_gaussian():
    bright = weighted_samples(*fitted(10.0), jax.random.key(1), 300)
    faint = weighted_samples(*fitted(0.15), jax.random.key(1), 300)
    assert float(bright.effective_size) > 0.8 * 300
    assert 1 <= float(faint.effective_size) < 0.5 * 300
    np.testing.assert_allclose(bright.weights.sum(), 1, rtol=1e-5)


@pytest.mark.slow
def test_weights_bring_back_what_is_off_centre():
    found, exposure, prior = fitted(10.0)

    def place(of):
        return of.sources[1].members.x

    sigma = float(place(found.errors)[0])
    moved = eqx.tree_at(lambda f: place(f.scene), found, place(found.scene) + 0.7 * sigma)
    drawn = weighted_samples(moved, exposure, prior, jax.random.key(2), 1000)
    values = np.asarray(place(drawn.scenes), float)[:, 0]
    assert values.mean() > float(place(found.scene)[0]) + 0.55 * sigma
    mean = np.average(values, weights=drawn.weights)
    assert abs(mean - float(place(found.scene)[0])) < 0.2 * sigma


@pytest.mark.slow
def test_correlated_noise_has_samples_but_no_weights():
    found, exposure, prior = fitted()
    told = exposure.with_noise_correlation(2.0)
    for sampler in (weighted_samples, sample_posterior):
        with pytest.raises(ValueError, match="correlated noise"):
            sampler(found, told, prior, jax.random.key(0), 10)


def test_sampler_says_what_it_lacks(monkeypatch):
    found, exposure, prior = fitted()
    with pytest.raises(ValueError, match="`n` must be at least 4"):
        sample_posterior(found, exposure, prior, jax.random.key(0), 2)
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ImportError, match=r"diffdeblend\[sample\]"):
        sample_posterior(found, exposure, prior, jax.random.key(0), 10)


@pytest.mark.slow
def test_posterior_of_a_bright_blend_is_what_the_fit_says():
    pytest.importorskip("blackjax", reason="the extra `sample` is not installed")
    found, exposure, prior = fitted(10.0)
    drawn = sample_posterior(found, exposure, prior, jax.random.key(3), 400, warmup=150, chains=2)
    assert drawn.scenes.sources[0].members.x.shape[0] == 800
    assert int(drawn.divergences.sum()) == 0
    assert (np.asarray(drawn.acceptance) > 0.6).all()
    assert float(drawn.effective_size) > 200
    assert float(drawn.r_hat) < 1.03
    for name, off, ratio in in_errors(drawn.scenes, found):
        np.testing.assert_allclose(off, 0, atol=0.25, err_msg=name)
        np.testing.assert_allclose(ratio, 1, atol=0.15, err_msg=name)
