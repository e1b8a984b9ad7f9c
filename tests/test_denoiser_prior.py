"""Denoisers: what they take off, what they refuse, and how they are learnt."""

from importlib.util import find_spec

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import hasty

from diffdeblend import GaussianPSF, Scene, make_exposure
from diffdeblend.components import Frame
from diffdeblend.fit import FirstOrder, fit, sample_posterior, weighted_samples
from diffdeblend.io import load_prior, save_prior
from diffdeblend.priors import Denoiser, DenoiserPrior, LogTransform, ScoreDenoiser
from diffdeblend.train import DenoiserSettings, Galaxies, train_denoiser


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


FRAME = Frame(9, 0.8, 0.2)
DENOISED = eqx.filter_jit(lambda denoiser, value, sigma: denoiser(value, sigma))
SETTINGS = DenoiserSettings(
    widths=(16,), components=20, steps=60, batch=32, rate=3e-3, chunk=20, held_out=0.2
)


def galaxies(n=300, seed=0):
    """Elliptical Gaussians of all sizes: one number each for size, axis ratio and angle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:9, :9] - 4
    size, ratio, angle = rng.uniform(1, 2.5, n), rng.uniform(0.4, 1, n), rng.uniform(0, np.pi, n)
    c, s = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    along, across = c * x + s * y, c * y - s * x
    squared = along**2 + (across / ratio[:, None, None]) ** 2
    images = np.exp(-0.5 * squared / size[:, None, None] ** 2)
    return Galaxies.of_images(images, FRAME, "elliptical Gaussians")


@pytest.fixture(scope="module")
def trained():
    return train_denoiser(galaxies(), SETTINGS, seed=3)


def linear_denoiser(seed=0):
    """A filter with no network beside it, and the covariance that it is for."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(81, 81)))[0][:, :30].T
    variance = np.linspace(0.02, 2, 30)
    mean = rng.normal(1.5, 0.2, (9, 9))
    # No weight of theirs is of account where the last are nought.
    *layers, condition = (
        jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            eqx.filter_eval_shape(eqx.nn.Linear, a, b, key=jax.random.key(0)),
        )
        for a, b in ((81, 4), (4, 81), (6, 4))
    )
    made = Denoiser(
        *(jnp.asarray(v, jnp.float32) for v in (mean, basis, variance)), tuple(layers), condition
    )
    return made, mean, basis.T * variance @ basis


def test_transform_and_back():
    transform = LogTransform(floor=1e-4, scale=3.0)
    image = np.array([0.0, 1e-5, 1e-3, 0.5], np.float32)
    value = transform.forward(image)
    np.testing.assert_allclose(value, np.log(1 + image / 1e-4) / 3, rtol=1e-5)
    np.testing.assert_allclose(transform.inverse(value), image, rtol=1e-5, atol=1e-9)
    # Whatever a network says: no pixel has negative light, or more than all.
    assert np.asarray(transform.inverse(jnp.array([-3.0, 50.0]))) == pytest.approx([0, 1])


def test_without_a_network_it_is_the_mean_of_a_normal_posterior():
    made, mean, covariance = linear_denoiser()
    rng = np.random.default_rng(1)
    value = (mean + rng.normal(size=(9, 9))).astype(np.float32)
    for sigma in np.array([0.1, 0.9], np.float32):
        gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(81))
        wanted = mean + (gain @ (value - mean).reshape(-1)).reshape(9, 9)
        np.testing.assert_allclose(DENOISED(made, value, sigma), wanted, atol=2e-5)


def test_a_score_gives_the_same_denoiser():
    made, mean, covariance = linear_denoiser()

    def score(u, sigma):
        # Of normal galaxies with normal noise.
        total = jnp.asarray(covariance) + sigma**2 * jnp.eye(81)
        return -jnp.linalg.solve(total, (u - mean).reshape(-1)).reshape(9, 9)

    value = jnp.asarray(mean + np.random.default_rng(2).normal(size=(9, 9)), jnp.float32)
    by_score = jax.jit(lambda u, sigma: ScoreDenoiser(score)(u, sigma))
    for sigma in np.array([0.3, 1.0], np.float32):
        np.testing.assert_allclose(by_score(value, sigma), DENOISED(made, value, sigma), atol=1e-4)


def test_prox_is_positive_of_unit_sum_and_free_of_the_norm():
    prior = DenoiserPrior(linear_denoiser()[0], FRAME, jnp.full((9, 9), 1 / 81))
    image = jnp.asarray(np.random.default_rng(3).exponential(size=(9, 9)), jnp.float32)
    prox = jax.jit(lambda image: prior.prox(image, 0.5))
    found = np.asarray(prox(image))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(prox(100 * image), found, rtol=1e-4, atol=1e-7)
    assert np.isfinite(prox(jnp.zeros((9, 9)))).all()


def test_bad_input_is_told():
    made = linear_denoiser()[0]
    with pytest.raises(ValueError, match="`mean` needs shape"):
        DenoiserPrior(made, FRAME, jnp.ones((7, 7)))
    with pytest.raises(ValueError, match="`layers` must lead from 81 pixels"):
        eqx.tree_at(lambda d: d.layers, made, made.layers[:1]).__check_init__()
    with pytest.raises(ValueError, match="`basis` needs shape"):
        eqx.tree_at(lambda d: d.basis, made, made.basis[:3]).__check_init__()
    with pytest.raises(ValueError, match="`floor` must be positive"):
        LogTransform(floor=0.0)
    with pytest.raises(ValueError, match=r"`pixel_scale` is 0.3 arcsec"):
        DenoiserPrior(made, FRAME, jnp.full((9, 9), 1 / 81)).check(0.3)
    for wrong in ({"steps": 0}, {"widths": ()}, {"least_noise": 2.0}, {"held_out": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            DenoiserSettings(**wrong)


def refused():
    return pytest.raises(TypeError, match=r"no log-probability.*PlugAndPlay.*DecoderPrior")


def refusing():
    prior = DenoiserPrior(linear_denoiser()[0], FRAME, jnp.full((9, 9), 1 / 81))
    exposure = make_exposure(np.ones((9, 9), np.float32), 1.0, GaussianPSF([3.0]))
    return prior, Scene([prior.source([10.0], 4.0, 4.0)]), exposure


def test_what_needs_a_probability_refuses_it():
    prior, scene, exposure = refusing()
    assert not hasattr(prior, "log_prob")
    with refused():
        fit(scene, exposure, prior=prior)
    with refused():
        fit(scene, exposure, prior=prior, method=FirstOrder(optax.adam(0.1)))


@pytest.mark.slow
def test_samplers_refuse_it():
    prior, scene, exposure = refusing()
    found = fit(scene, exposure, prior=None)
    with refused():
        weighted_samples(found, exposure, prior, jax.random.key(0), 4)
    if find_spec("blackjax") is None:
        return
    with refused():
        sample_posterior(found, exposure, prior, jax.random.key(0), 4, warmup=4)


def test_training_learns_more_than_the_linear_filter(trained):
    assert trained.step.tolist() == [20, 40, 60]
    assert trained.validation_loss[-1] < trained.validation_loss[0]
    prior = trained.prior
    clean = jnp.asarray(prior.transform.forward(galaxies(200, seed=9).images))
    noise = np.random.default_rng(5).normal(size=clean.shape).astype(np.float32)
    nothing = jax.tree.map(jnp.zeros_like, prior.denoiser.layers[-1])
    linear = eqx.tree_at(lambda d: d.layers[-1], prior.denoiser, nothing)

    @jax.jit
    def error(denoiser, sigma):
        found = jax.vmap(lambda u: denoiser(u, sigma))(clean + sigma * noise)
        return jnp.mean((found - clean) ** 2)

    for sigma in np.array([0.1, 0.3, 0.8], np.float32):
        left, by_filter = (float(error(d, sigma)) for d in (prior.denoiser, linear))
        assert left < by_filter < 0.5 * sigma**2
    assert prior.training.population == "elliptical Gaussians"
    assert prior.training.n_galaxies == 300
    assert prior.frame == FRAME


def test_a_training_that_was_cut_off_ends_the_same(trained, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 40:
            raise Stop

    where = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        train_denoiser(galaxies(), SETTINGS, seed=3, report=stop, checkpoint=where)
    again = train_denoiser(galaxies(), SETTINGS, seed=3, checkpoint=where)
    np.testing.assert_array_equal(again.validation_loss, trained.validation_loss)
    for one, other in zip(*(jax.tree.leaves(t.prior) for t in (again, trained)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"`checkpoint`.*other galaxies"):
        train_denoiser(galaxies(), SETTINGS, seed=4, checkpoint=where)


def test_a_file_gives_the_same_prior(trained, tmp_path):
    save_prior(trained.prior, tmp_path / "prior.eqx")
    again = load_prior(tmp_path / "prior.eqx")
    assert eqx.tree_equal(again, trained.prior)
    own = DenoiserPrior(ScoreDenoiser(lambda u, sigma: -u), FRAME, trained.prior.mean)
    with pytest.raises(ValueError, match="`prior` holds a function"):
        save_prior(own, tmp_path / "own.eqx")
