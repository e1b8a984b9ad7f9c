"""Free pixels by turns of data and denoiser, against closed forms of Gaussian galaxies."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend import ConstantBackground, GaussianPSF, PointSource, Scene, make_exposure
from diffdeblend.components import Frame, Stack
from diffdeblend.fit import PlugAndPlay, fit
from diffdeblend.fit.fit import fit_pixels
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.plug_and_play import plug_and_play
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import FIT
from diffdeblend.priors import DenoiserPrior


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


FRAME = Frame(15, 0.8)
SHAPE = (24, 31)
FWHM = 2 * np.sqrt(2 * np.log(2))
# Places near a border and off the middle; own widths without any PSF, fluxes in two bands.
X, Y, OWN = (9.0, 21.0), (6.0, 13.0), (1.2, 1.6)
FLUX = np.array([[800.0, 300.0], [500.0, 900.0]])
SKY = (2.0, -1.0)
NOISE = 0.1


def gaussian(x, y, variance, shape):
    yy, xx = np.indices(shape)
    squared = (xx - x) ** 2 + (yy - y) ** 2
    return np.exp(-0.5 * squared / variance) / (2 * np.pi * variance)


class RoundGaussians(eqx.Module):
    """Denoises to the round Gaussian of the width that the light has."""

    def __call__(self, value, sigma):
        transform = DenoiserPrior.__dataclass_fields__["transform"].default_factory()
        image = transform.inverse(value)
        squared = sum(axis**2 for axis in np.mgrid[:15, :15] - 7.0)
        # Slope of the logarithm against the squared radius, where there is light.
        weight = image / jnp.sum(image)
        away = squared - jnp.sum(weight * squared)
        slope = jnp.sum(weight * away * jnp.log(image + 1e-7)) / jnp.sum(weight * away**2)
        found = jnp.exp(jnp.minimum(slope, -0.01) * squared)
        return transform.forward(found / jnp.sum(found))


class Unchanged(eqx.Module):
    """No prior at all: only the length of the steps is bounded."""

    def __call__(self, value, sigma):
        return value


def prior_of(denoiser):
    mean = gaussian(7, 7, 2.5**2, (15, 15))
    return DenoiserPrior(denoiser, FRAME, jnp.asarray(mean / mean.sum(), jnp.float32))


METHOD = PlugAndPlay(prior_of(RoundGaussians()), rounds=8, last=0.3)


def data(psf_sigma, seed=0):
    # The library's PSF is seen through square pixels: the closed form is too, but for 1e-3.
    images = np.zeros((2, *SHAPE))
    for x, y, own, flux in zip(X, Y, OWN, FLUX, strict=True):
        images += flux[:, None, None] * gaussian(x, y, own**2 + psf_sigma**2 + 1 / 12, SHAPE)
    images += np.array(SKY)[:, None, None]
    noise = np.random.default_rng(seed).normal(size=images.shape)
    return (images + NOISE * noise).astype(np.float32)


def scene(prior, blur=0.0, padding=1):
    sources = [prior.source([1.0, 1.0], x, y, blur=blur) for x, y in zip(X, Y, strict=True)]
    made = Scene(sources, ConstantBackground(jnp.zeros(2)))
    stack = made.sources[0]
    more = [*sources, *[sources[0]] * padding]
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *more)
    rank = jnp.concatenate([stack.rank, jnp.full(padding, -1, stack.rank.dtype)])
    return Scene([Stack(members, jnp.arange(len(more)) < 2, rank)], made.background)


def fitted(psf_sigma, blur=0.0, method=METHOD, seed=0):
    """Without errors, which take longer to compile."""
    psf = GaussianPSF([FWHM * psf_sigma] * 2)
    exposure = make_exposure(data(psf_sigma, seed), NOISE**2, psf)
    return solved(scene(method.prior, blur), exposure, method)


@eqx.filter_jit
def solved(start, exposure, method):
    free = free_numbers(start, None)
    problem = make_problem(exposure.data, exposure.weight, exposure.psf, free, None, FIT)
    solution = plug_and_play(method, start, problem)
    return Found(scene_of(solution.unknowns, start), solution.history)


class Found(NamedTuple):
    scene: Scene
    history: jax.Array


@pytest.fixture(scope="module")
def found():
    return fitted(1.6)


def in_frame(found, k, blur=0.0):
    """By matrices of sampled Gaussians, what the frame's PSF shows of the fitted weights."""
    weights = np.asarray(found.scene.sources[0].members.morphology[k], float)
    variance = blur**2 + FRAME.psf_sigma**2
    return sum(w * gaussian(x, y, variance, (15, 15)) for (y, x), w in np.ndenumerate(weights))


def differ(one, other):
    """Largest difference in units of the denoiser's scale, a third of a logarithm, in the core."""
    bright = other > 0.1 * other.max()
    return np.max(np.abs(np.log(one[bright] / other[bright]))) / 3


def test_fluxes_sky_and_morphology_are_those_of_the_truth(found):
    flux = np.asarray(found.scene.sources[0].flux)[:2]
    np.testing.assert_allclose(flux, FLUX, rtol=0.03)
    np.testing.assert_allclose(found.scene.background.coefficients[:, 0], SKY, atol=0.1)
    # Half of chi2, with as many pixels as two bands have.
    n = 2 * SHAPE[0] * SHAPE[1]
    assert float(found.history[-1]) == pytest.approx(n / 2, rel=0.1)
    weights = np.asarray(found.scene.sources[0].members.morphology)
    assert (weights > 0).all()
    for k, own in enumerate(OWN):
        wanted = gaussian(7, 7, own**2 + FRAME.psf_sigma**2, (15, 15))
        assert differ(in_frame(found, k), wanted) < 0.1


@pytest.mark.slow
def test_what_the_denoiser_sees_is_free_of_psf_and_blur(found):
    # Another PSF and other Gaussians on the pixels: the same galaxy in the frame.
    other = fitted(1.1, blur=0.6)
    for k in range(2):
        one, two = in_frame(found, k), in_frame(other, k, blur=0.6)
        assert differ(two, one) < 0.1


def test_padding_shines_not_and_neither_moves(found):
    stack = found.scene.sources[0]
    np.testing.assert_array_equal(stack.flux[2], 1.0)
    start = np.asarray(METHOD.prior.mean)
    np.testing.assert_allclose(stack.members.morphology[2], start, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_fit_gives_the_same_and_its_errors(found):
    start = scene(METHOD.prior)
    exposure = make_exposure(data(1.6), NOISE**2, GaussianPSF([FWHM * 1.6] * 2))
    whole = fit(start, exposure, method=METHOD)
    assert bool(whole.finite)
    assert float(whole.reduced_chi2) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(
        whole.scene.sources[0].flux, found.scene.sources[0].flux, rtol=1e-3, atol=1e-3
    )
    errors = np.asarray(whole.errors.sources[0].flux)
    assert (errors[:2] > 0).all()
    np.testing.assert_array_equal(errors[2], 0.0)


@pytest.mark.slow
def test_without_a_denoiser_chi2_falls_from_round_to_round():
    method = PlugAndPlay(prior_of(Unchanged()), rounds=8, last=0.3)
    history = np.asarray(fitted(1.6, method=method).history)
    assert (np.diff(history) <= 1e-3 * history[:-1]).all()
    # As near to the data as the truth is: measured 0.6 % above it after these few rounds.
    noise = np.random.default_rng(0).normal(size=(2, *SHAPE))
    assert history[-1] < 1.02 * 0.5 * np.sum(noise**2)


@pytest.mark.slow
def test_many_at_once_and_another_level_compile_nothing(found, compilations):
    start = scene(METHOD.prior)
    images = jnp.stack([data(1.6), data(1.6, seed=1)])
    psf, free = GaussianPSF([FWHM * 1.6] * 2), free_numbers(start, None)

    @eqx.filter_jit
    def many(images, method):
        def one(image):
            weight = jnp.full_like(image, 1 / NOISE**2)
            return fit_pixels(start, image, weight, psf, free, None, method, FIT)

        return jax.vmap(one)(images)

    both = many(images, METHOD)
    np.testing.assert_allclose(
        both.scene.sources[0].members.flux[0], found.scene.sources[0].members.flux, rtol=2e-3
    )
    turned = images[::-1]
    weaker = PlugAndPlay(METHOD.prior, rounds=8, first=0.8, last=0.2)
    compilations.clear()
    again = many(turned, weaker)
    assert np.isfinite(again.scene.sources[0].members.flux).all()
    assert not compilations


@pytest.mark.slow
def test_held_weights_stay():
    start = scene(METHOD.prior)
    exposure = make_exposure(data(1.6), NOISE**2, GaussianPSF([FWHM * 1.6] * 2))
    found = fit(start, exposure, method=METHOD, free=lambda s: s.sources[0].members.flux)
    np.testing.assert_allclose(
        found.scene.sources[0].members.morphology,
        start.sources[0].members.morphology,
        rtol=1e-4,
        atol=1e-8,
    )


def test_bad_input_is_told():
    exposure = make_exposure(np.ones((9, 9), np.float32), 1.0, GaussianPSF([3.0]))
    with pytest.raises(ValueError, match=r"one stack of `Pixels`; got 0"):
        fit(Scene([PointSource([1.0], 4.0, 4.0)]), exposure, method=METHOD)
    other = DenoiserPrior(Unchanged(), Frame(9), jnp.full((9, 9), 1 / 81))
    with pytest.raises(ValueError, match=r"15 by 15 pixels.*got \(9, 9\)"):
        fit(Scene([other.source([1.0], 4.0, 4.0)]), exposure, method=METHOD)
    with pytest.raises(ValueError, match="`prior` must be a denoiser"):
        PlugAndPlay(Unchanged())
    with pytest.raises(ValueError, match="`rounds` must be at least 1"):
        PlugAndPlay(other, rounds=0)
