"""Training: bounds that are right, weights that a seed decides, and trainings that were killed."""

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from scipy.signal import fftconvolve

from diffdeblend.components import Decoder, Frame
from diffdeblend.io import load_prior, save_prior
from diffdeblend.train import CleanLoss, DecoderSettings, Galaxies, NoisyLoss, train_decoder
from diffdeblend.train.augment import all_turns, augment
from diffdeblend.train.checkpoint import load_checkpoint, save_checkpoint
from diffdeblend.train.learn import random_batch
from diffdeblend.train.learning_set import learning_set
from diffdeblend.train.loss import negative_elbo, seen_through
from diffdeblend.train.network import make_decoder, make_encoder, mean_log_image


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


FRAME = Frame(size=11)
THROUGH = eqx.filter_jit(seen_through)
TINY = DecoderSettings(n_latent=2, widths=(8,), steps=12, batch=8, chunk=4, warmup=2)


def hills(n=60, seed=0, frame=FRAME):
    """Elliptical Gaussians."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: frame.size, : frame.size] - frame.size // 2
    a, b = rng.uniform(1.0, 2.5, (2, n, 1, 1))
    angle = rng.uniform(0, np.pi, (n, 1, 1))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    images = np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
    return Galaxies.of_images(images, frame, "hills")


@dataclass(frozen=True)
class Stamps:
    """Stamps as a survey has them."""

    data: np.ndarray
    variance: np.ndarray
    psf: np.ndarray
    frame: Frame = FRAME
    source: str = "hills seen"
    sha256: str = "0"

    def split(self, held_out, seed):
        n = int(len(self.data) * held_out)
        return self.some(slice(n, None)), self.some(slice(None, n))

    def some(self, rows):
        psf = self.psf if self.psf.ndim == 2 else self.psf[rows]
        return replace(self, data=self.data[rows], variance=self.variance[rows], psf=psf)


def gaussian(sigma, size=15):
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return image / image.sum()


def weights(trained):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trained.prior)]


def same(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def undisturbed():
    return train_decoder(hills(), TINY, seed=5)


def test_misfit_is_the_divergence_of_photons():
    p, q = hills(2).images
    got = CleanLoss(300.0, jnp.zeros((11, 11))).misfit(jnp.asarray(q), (jnp.asarray(p),))
    wanted = 300 * np.sum(p * np.log(p.astype(float) / q))
    assert float(got) == pytest.approx(wanted, rel=1e-4)


def test_misfit_is_finite_where_there_is_no_light():
    image = np.zeros((11, 11), np.float32)
    image[5, 5] = 1
    slope = jax.jit(jax.grad(CleanLoss(300.0, jnp.zeros((11, 11))).misfit))(
        jnp.asarray(image), (jnp.full((11, 11), 1 / 121.0),)
    )
    assert np.isfinite(np.asarray(slope)).all()


def test_seen_through_a_psf_as_a_long_sum_says():
    # Not square, off the middle; the frame's Gaussian of 0.8 within a PSF of 1.7 leaves 1.5.
    image = np.zeros((17, 23), np.float32)
    image[4:12, 9:20] = np.add.outer(np.arange(8.0), np.arange(11.0) ** 2)
    got = THROUGH(image, np.asarray(gaussian(1.7, 21), np.float32), 0.8)
    # What is wide enough is its own samples: Gaussians of pixels here are.
    wanted = fftconvolve(image, gaussian(1.5, 21), mode="same")
    np.testing.assert_allclose(np.asarray(got), wanted, atol=2e-3 * wanted.max())


def test_flux_is_eliminated():
    """No other flux has a smaller chi2, and the scale of the data is of no account."""
    rng = np.random.default_rng(2)
    galaxy, psf = hills(1).images[0], gaussian(1.6)
    seen = np.asarray(THROUGH(galaxy, np.asarray(psf, np.float32), 0.8))
    weight = rng.uniform(0.5, 2, galaxy.shape) * (rng.uniform(size=galaxy.shape) > 0.1)
    data = 7 * seen + 0.05 * rng.normal(size=galaxy.shape)
    loss = NoisyLoss(jnp.zeros((11, 11)), 0.8)
    observed = tuple(jnp.asarray(v, jnp.float32) for v in (data, weight, psf))
    misfit = jax.jit(lambda *given: loss.misfit(*given))
    got = float(misfit(jnp.asarray(galaxy), observed))
    best = min(0.5 * np.sum(weight * (data - flux * seen) ** 2) for flux in np.linspace(6, 8, 2001))
    assert got == pytest.approx(best, rel=1e-3)
    dark = (jnp.zeros((11, 11)), jnp.zeros((11, 11)), observed[2])
    assert float(misfit(jnp.asarray(galaxy), dark)) == 0
    assert np.isfinite(np.asarray(loss.features(dark))).all()


@pytest.mark.slow
def test_bound_is_above_minus_the_log_likelihood():
    """In one latent the integral over it can be done; the bound is above it, by no wide margin."""
    frame = Frame(size=5)
    y, x = np.mgrid[:5, :5] - 2
    layer = eqx.filter_eval_shape(eqx.nn.Linear, 1, 25, key=jax.random.key(0))
    tilt = jnp.asarray(x.reshape(25, 1), jnp.float32)
    layer = eqx.tree_at(lambda one: (one.weight, one.bias), layer, (0.3 * tilt, jnp.zeros(25)))
    decoder = Decoder((layer,), jnp.asarray(-0.3 * (x**2 + y**2), jnp.float32), frame)
    loss = CleanLoss(20.0, decoder.mean)
    galaxy = (decoder(jnp.asarray([0.8])),)
    encoder = make_encoder(25, (4,), 1, jax.random.key(1))
    # An encoder that says 0.7 +- 0.5 whatever it sees.
    last = encoder.layers[-1]
    said = jnp.asarray([0.7, np.log(0.5)], jnp.float32)
    encoder = eqx.tree_at(
        lambda e: (e.layers[-1].weight, e.layers[-1].bias), encoder, (0 * last.weight, said)
    )
    keys = jax.random.split(jax.random.key(2), 4000)
    draw = jax.jit(jax.vmap(lambda key: negative_elbo(encoder, decoder, loss, galaxy, key)))
    misfit, information = draw(keys)
    latents = np.linspace(-6, 6, 601)
    values = jax.jit(jax.vmap(lambda z: loss.misfit(decoder(z[None]), galaxy)))(latents)
    prior = np.exp(-0.5 * latents**2) / np.sqrt(2 * np.pi)
    exact = -np.log(np.sum(prior * np.exp(-np.asarray(values))) * 0.02)
    bound = float(jnp.mean(misfit + information))
    # KL between normals in closed form.
    assert float(information[0]) == pytest.approx(0.5 * (0.7**2 + 0.25 - 1) - np.log(0.5), rel=1e-5)
    assert exact - 0.02 < bound < exact + 0.5


def test_turns_are_the_eight_of_a_square():
    image = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    many = np.broadcast_to(image, (200, 5, 5))
    got = {one.tobytes() for one in np.asarray(augment(jax.random.key(0), jnp.asarray(many)))}
    assert got == {np.ascontiguousarray(one).tobytes() for one in all_turns(image)}
    assert len(got) == 8


def test_decoder_starts_near_the_mean():
    mean = mean_log_image(hills().images)
    np.testing.assert_allclose(mean, np.rot90(mean), rtol=1e-5)
    assert np.exp(mean).sum() == pytest.approx(1, abs=1e-5)
    decoder = make_decoder(jnp.asarray(mean), (8,), 2, FRAME, jax.random.key(0))
    ratio = np.log(np.asarray(jax.jit(lambda: decoder(jnp.zeros(2)))())) - mean
    assert np.abs(ratio).max() < 0.2


def test_same_seed_same_weights(undisturbed, compilations):
    again = train_decoder(hills(), TINY, seed=5)
    same(undisturbed, again)
    np.testing.assert_array_equal(undisturbed.validation_loss, again.validation_loss)
    before = len(compilations)
    other = train_decoder(hills(seed=9), TINY, seed=6)
    # Other numbers compile nothing anew.
    assert len(compilations) == before
    assert any((a != b).any() for a, b in zip(weights(undisturbed), weights(other), strict=True))


def test_what_a_training_tells(undisturbed):
    np.testing.assert_array_equal(undisturbed.step, [4, 8, 12])
    training = undisturbed.prior.training
    assert training.population == "hills"
    assert training.n_galaxies == 60
    assert training.loss == pytest.approx(undisturbed.loss[-1])
    assert training.validation_loss == pytest.approx(undisturbed.validation_loss[-1])
    assert len(training.settings_hash) == 64
    assert {name for name, _ in training.versions} >= {"jax", "diffdeblend"}
    said = []
    train_decoder(hills(), TINY, seed=5, report=said.append)
    assert [(one.step, one.steps) for one in said] == [(4, 12), (8, 12), (12, 12)]
    assert said[-1].validation_loss == pytest.approx(training.validation_loss)


class Stopped(Exception):
    """Raised by a report, in place of a kill."""


def test_a_training_goes_on_where_it_was(undisturbed, tmp_path):
    path = tmp_path / "state"

    def stop(progress):
        if progress.step == 8:
            raise Stopped

    with pytest.raises(Stopped):
        train_decoder(hills(), TINY, seed=5, checkpoint=path, report=stop)
    steps = []
    found = train_decoder(
        hills(), TINY, seed=5, checkpoint=path, report=lambda one: steps.append(one.step)
    )
    assert steps == [12]
    same(undisturbed, found)
    np.testing.assert_array_equal(undisturbed.loss, found.loss)
    # What is done is done.
    same(found, train_decoder(hills(), TINY, seed=5, checkpoint=path))
    for other in (
        {"seed": 6},
        {"settings": replace(TINY, rate=1e-3)},
        {"galaxies": hills(seed=1)},
    ):
        given = {"galaxies": hills(), "settings": TINY, "seed": 5, **other}
        with pytest.raises(ValueError, match="of a training with other galaxies, settings or seed"):
            train_decoder(**given, checkpoint=path)
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_checkpoints_that_are_none(tmp_path):
    path, state = tmp_path / "state", (jnp.arange(3.0), np.zeros((2, 5), np.float32))
    assert load_checkpoint(path, state, "abc") is None
    save_checkpoint(path, state, "abc")
    back = load_checkpoint(path, (jnp.zeros(3), np.zeros((0, 5), np.float32)), "abc")
    for a, b in zip(state, back, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="has other arrays"):
        load_checkpoint(path, (jnp.zeros((3, 2)), np.zeros((0, 5), np.float32)), "abc")
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path, state, "abc")
    path.write_bytes(b"something else\n")
    with pytest.raises(ValueError, match="is no checkpoint"):
        load_checkpoint(path, state, "abc")


def observed(n=40):
    """Stamps of hills, the last with a pixel that is masked."""
    rng = np.random.default_rng(3)
    sigma, psf = 0.02, jnp.asarray(gaussian(1.6), jnp.float32)
    through = jax.jit(jax.vmap(lambda image: seen_through(image, psf, 0.8)))
    seen = np.asarray(through(jnp.asarray(hills(n).images)))
    data = 1e4 * (seen + sigma * rng.normal(size=seen.shape))
    # A masked pixel may hold anything.
    data[-1, 2, 2] = np.nan
    return Stamps(data, np.full(data.shape, (1e4 * sigma) ** 2), np.asarray(psf))


@pytest.mark.slow
def test_stamps_with_noise_are_learnt_from(tmp_path):
    stamps = observed()
    stamps = replace(stamps, psf=np.broadcast_to(stamps.psf, (40, 15, 15)))
    found = train_decoder(stamps, replace(TINY, flow=2, flow_steps=3), seed=1)
    # Half of chi2 is about half of the number of pixels.
    assert 30 < found.validation_misfit[-1] < 200
    assert found.prior.decoder.warp is not None
    save_prior(found.prior, tmp_path / "prior.eqx")
    same(found, replace(found, prior=load_prior(tmp_path / "prior.eqx")))


@pytest.mark.slow
def test_one_psf_for_all_stamps_is_kept_once():
    stamps = observed()
    one = learning_set(stamps, 1.0, 0.25, 0)
    many = learning_set(replace(stamps, psf=np.stack([stamps.psf] * 40)), 1.0, 0.25, 0)
    assert [array.shape[0] for array in one.learnt_from] == [30, 30, 1]
    batches = [random_batch(data.learnt_from, 16, jax.random.key(1)) for data in (one, many)]
    for a, b in zip(*batches, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    data, weight, _ = one.learnt_from
    assert float(weight[-1, 2, 2]) == float(data[-1, 2, 2]) == 0
    # Whatever the unit of the data, the arrays are of order one.
    scaled = replace(stamps, data=1e-20 * stamps.data, variance=1e-40 * stamps.variance)
    for a, b in zip(one.learnt_from, learning_set(scaled, 1.0, 0.25, 0).learnt_from, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_latent": 0}, "`n_latent` must be a whole number from 1"),
        ({"steps": 2.5}, "`steps` must be a whole number"),
        ({"widths": ()}, "`widths` must be a tuple"),
        ({"widths": (8, 0)}, "`widths` must be a whole number"),
        ({"photons": float("nan")}, "`photons` must be positive"),
        ({"rate": -1.0}, "`rate` must be positive"),
        ({"held_out": 1.0}, "`held_out` must be between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        DecoderSettings(**given)


def test_what_is_no_galaxy_is_refused():
    with pytest.raises(
        ValueError, match="`galaxies` must be `Galaxies` or `NoisyStamps`; got list"
    ):
        train_decoder([1, 2], TINY)


_CHILD = """
    import sys
    from test_train import TINY, hasty, hills, replace, train_decoder
    # Compiled as it is here: other code rounds otherwise.
    with hasty():
        train_decoder(hills(), replace(TINY, steps=4000), seed=5, checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(tmp_path):
    path, long = tmp_path / "state", replace(TINY, steps=4000)
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), str(path)]
    child = subprocess.Popen(command, cwd=__file__.rsplit("/", 1)[0])
    first = None
    # Killed at a moment of its own choice, after a few checkpoints.
    while child.poll() is None:
        if path.exists():
            first = first or path.read_bytes()
            if path.read_bytes() != first:
                child.send_signal(signal.SIGKILL)
                child.wait()
        time.sleep(0.01)
    assert child.returncode == -signal.SIGKILL
    steps = []
    resumed = train_decoder(
        hills(), long, seed=5, checkpoint=path, report=lambda one: steps.append(one.step)
    )
    assert 4 < steps[0] <= 4000
    same(train_decoder(hills(), long, seed=5), resumed)


@pytest.mark.slow
def test_training_learns_what_there_is():
    """Galaxies of three numbers are described by latents to within their noise."""
    settings = DecoderSettings(n_latent=4, widths=(32, 64), steps=3000, batch=64, photons=1000.0)
    found = train_decoder(hills(2000), settings)
    assert found.validation_misfit[-1] < 0.05 * found.validation_misfit[0] + 4
    assert found.validation_loss[-1] < 14
    # Unseen galaxies, as they are on average: sizes of draws are those of the population.
    drawn = np.asarray(found.prior.decode(found.prior.sample(jax.random.key(1), 500)), float)
    y, x = np.mgrid[:11, :11] - 5
    sizes = [
        np.sum(images * (x**2 + y**2), axis=(1, 2)) for images in (drawn, hills(500, 7).images)
    ]
    assert np.mean(sizes[0]) == pytest.approx(np.mean(sizes[1]), rel=0.05)
    assert np.std(sizes[0]) == pytest.approx(np.std(sizes[1]), rel=0.2)
