"""Decoder priors: densities, draws, sources, and what they are refused for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from scipy import stats

from diffdeblend import GaussianPSF
from diffdeblend.components import Decoded, Decoder, Frame
from diffdeblend.priors import DecoderPrior, Training
from diffdeblend.priors.flow import make_flow


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


FRAME = Frame(size=15)
N_LATENT = 3


def make_prior(seed=0, frame=FRAME, warp=None):
    """A round galaxy whose width and direction a small random network changes."""
    y, x = np.mgrid[: frame.size, : frame.size] - frame.size // 2
    basis = np.stack([x, y, x * y, x**2 - y**2, x**2 + y**2]).reshape(5, -1) / 40.0
    random = np.random.default_rng(seed).uniform(-0.6, 0.6, (5, N_LATENT))
    layers = (dense(random, np.full(5, 0.1)), dense(basis.T, np.zeros(frame.size**2)))
    mean = jnp.asarray(-0.5 * (x**2 + y**2) / 2.0**2, jnp.float32)
    return DecoderPrior(Decoder(layers, mean, frame, warp), Training("round galaxies"))


def dense(weight, bias):
    values = jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
    empty = eqx.filter_eval_shape(eqx.nn.Linear, *weight.shape[::-1], key=jax.random.key(0))
    return eqx.tree_at(lambda one: (one.weight, one.bias), empty, values)


def moving_flow(n_latent=N_LATENT):
    """A flow that does move."""
    flow = make_flow(n_latent, 3, 8, jax.random.key(3))
    rng = np.random.default_rng(4)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), jnp.float32), flow
    )


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_density_is_normalised_and_its_gradient_consistent(temperature):
    prior = make_prior()
    latent = jnp.asarray([0.3, -1.2, 2.1])
    wanted = stats.norm(scale=np.sqrt(temperature)).logpdf(np.asarray(latent)).sum()
    assert float(prior.log_prob(latent, temperature)) == pytest.approx(wanted, rel=1e-6)
    slope = np.asarray(jax.jit(jax.grad(prior.log_prob))(latent, temperature))
    log_prob = jax.jit(lambda *given: prior.log_prob(*given))
    for k in range(N_LATENT):
        step = 0.05 * np.eye(N_LATENT, dtype=np.float32)[k]
        above, below = (float(log_prob(latent + s, temperature)) for s in (step, -step))
        assert slope[k] == pytest.approx((above - below) / 0.1, abs=1e-3)


def test_many_latents_at_once():
    prior = make_prior()
    latents = jax.random.normal(jax.random.key(1), (4, 2, N_LATENT))
    assert prior.log_prob(latents).shape == (4, 2)
    images = jax.jit(lambda: prior.decode(latents))()
    assert images.shape == (4, 2, 15, 15)
    np.testing.assert_allclose(
        np.asarray(images[3, 1]), np.asarray(prior.decoder(latents[3, 1])), rtol=1e-5
    )


def test_draws_are_normal():
    drawn = np.asarray(make_prior().sample(jax.random.key(2), 4000, temperature=4.0))
    assert drawn.shape == (4000, N_LATENT)
    assert stats.kstest(drawn.ravel() / 2, "norm").pvalue > 1e-3


def test_source_is_one_of_a_scene():
    prior = make_prior()
    latent = jnp.asarray([0.5, -0.4, 0.8])
    source = prior.source([50.0], 12.3, 9.6, latent)
    assert isinstance(source, Decoded)
    assert source.decoder is prior.decoder
    assert source.latent is latent
    np.testing.assert_array_equal(np.asarray(prior.source([50.0], 12, 9).latent), np.zeros(3))


def test_flow_is_inverted_and_its_density_normalised(x64):
    flow = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), moving_flow(2))
    # In two dimensions a grid can be summed.
    along = np.linspace(-12.0, 12.0, 301)
    points = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    density = np.exp(np.asarray(jax.jit(jax.vmap(flow.log_density))(points)))
    assert density.sum() * (24 / 300) ** 2 == pytest.approx(1.0, abs=1e-3)

    @jax.jit
    def there_and_back(normal):
        latent = flow(normal)
        return flow.inverse(latent), jax.jacfwd(flow)(normal)

    normal = np.array([0.7, -1.9])
    (back, log_determinant), slopes = there_and_back(normal)
    np.testing.assert_allclose(np.asarray(back), normal, atol=1e-10)
    wanted = -np.linalg.slogdet(np.asarray(slopes))[1]
    assert float(log_determinant) == pytest.approx(wanted, abs=1e-10)


def test_flow_of_odd_length_moves_every_number():
    flow = moving_flow(3)
    normal = jax.random.normal(jax.random.key(5), (3,))
    latent = jax.jit(flow.__call__)(normal)
    assert (np.asarray(latent) != np.asarray(normal)).all()
    image, wanted = jax.jit(
        lambda: (make_prior(warp=flow).decode(normal), make_prior().decode(latent))
    )()
    np.testing.assert_allclose(np.asarray(image), np.asarray(wanted), rtol=1e-5)


def test_flow_needs_two_numbers():
    with pytest.raises(ValueError, match="`n_latent` must be at least 2"):
        make_flow(1, 2, 4, jax.random.key(0))


def test_check_passes_what_fits():
    # 0.8 pixels are a FWHM of 1.9; with the pixel's response even a PSF of 1.7 is as wide.
    make_prior().check(pixel_scale=0.2009, psf=GaussianPSF([1.7, 3.5]), shape=(15, 15))
    y, x = np.mgrid[-9:10, -9:10]
    make_prior().check(psf=np.exp(-0.5 * (x**2 + y**2) / 1.5**2))
    make_prior(frame=Frame(15, pixel_scale=None)).check(pixel_scale=3.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixel_scale": 0.21}, "`pixel_scale` is 0.21 arcsec, and the prior was trained for 0.2"),
        ({"pixel_scale": float("nan")}, "`pixel_scale` is nan"),
        ({"shape": (15, 17)}, r"`shape` is \(15, 17\)"),
        ({"psf": GaussianPSF([1.2])}, "`psf` is narrower than the frame"),
        ({"psf": GaussianPSF([3.0, 1.2])}, "`psf` is narrower than the frame"),
        ({"psf": np.pad([[1.0]], 4)}, "`psf` is narrower than the frame"),
    ],
)
def test_check_refuses_what_does_not(given, message):
    with pytest.raises(ValueError, match=message):
        make_prior().check(**given)


def test_check_refuses_weights_that_are_not_finite():
    prior = make_prior()
    broken = eqx.tree_at(
        lambda p: p.decoder.layers[0].bias, prior, replace_fn=lambda b: b.at[1].set(jnp.nan)
    )
    with pytest.raises(ValueError, match="`prior` has weights that are not finite"):
        broken.check()
