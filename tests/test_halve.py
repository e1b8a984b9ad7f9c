"""Pixels twice as wide: the same sources at the same places, with the same light and errors."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import hasty, quick_jit

from diffdeblend import MoffatPSF, PixelPSF, Scene, Sersic, render
from diffdeblend.batch import Blend, blend_of_arrays, fit_batch
from diffdeblend.batch.halve import halved, worth_halving
from diffdeblend.batch.prepare import own_light
from diffdeblend.batch.task import Task, first_guess
from diffdeblend.detect.peaks import psf_images
from diffdeblend.grid import fine

PSF = MoffatPSF(jnp.asarray([3.6, 4.2]), jnp.asarray([3.5, 3.5]))
PIXELS = PixelPSF(psf_images(PSF, 41))


def a_task(data, weight, psf=PSF, positions=((20.3, 17.8),)):
    n = len(positions)
    blend = Blend(data, weight, psf, np.array(positions), (5, 7), np.arange(n))
    kind = np.ones(n, int)
    guess = first_guess(blend.positions, np.full(n, 3.0), np.full(n, 2.0), kind, 1.5, (2, 1))
    return Task(blend, np.ones(2), guess, (64, 128))


@partial(quick_jit, static_argnames="shape")
def galaxy(x, y, radius, psf, shape):
    scene = Scene([Sersic([900.0, 700.0], x, y, radius, 1.2, [0.2, -0.1])])
    return render(scene, psf, shape, quality=fine())


@pytest.mark.parametrize("psf", [PSF, PIXELS])
def test_a_galaxy_looks_the_same_in_wide_pixels(psf):
    shape = (40, 44)
    image = np.asarray(galaxy(20.3, 17.8, 4.0, psf, shape))
    (coarse,) = halved([a_task(image, np.ones_like(image), psf)])
    guess = coarse.guess
    half = (shape[0] // 2, shape[1] // 2)
    drawn = np.asarray(galaxy(guess.x[0], guess.y[0], 4.0 / 2, coarse.blend.psf, half))
    # Undersampled, but for little of the light.
    assert np.abs(drawn - coarse.blend.data).max() < 0.01 * drawn.max()
    np.testing.assert_allclose(coarse.blend.data.sum(), image.sum(), rtol=1e-5)
    assert guess.radius[0] == 1.5
    assert guess.home_radius[0] == 1.0
    assert coarse.scale == 2


@settings(deadline=None, max_examples=40)
@given(ny=st.integers(1, 9), nx=st.integers(1, 9), seed=st.integers(0, 99))
def test_wide_pixels_keep_sums_and_variances(ny, nx, seed):
    random = np.random.default_rng(seed)
    data = random.normal(size=(2, ny, nx)).astype(np.float32)
    weight = random.choice([0.0, 0.5, 2.0], size=data.shape, p=[0.1, 0.5, 0.4]).astype(np.float32)
    coarse = halved([a_task(data, weight)])[0].blend
    assert coarse.shape == (-(-ny // 2), -(-nx // 2))
    for b, j, i in np.ndindex(2, *coarse.shape):
        four = (b, slice(2 * j, 2 * j + 2), slice(2 * i, 2 * i + 2))
        if weight[four].size == 4 and (weight[four] > 0).all():
            np.testing.assert_allclose(coarse.data[b, j, i], data[four].sum(), atol=1e-5)
            np.testing.assert_allclose(1 / coarse.weight[b, j, i], (1 / weight[four]).sum())
        else:
            assert coarse.weight[b, j, i] == 0


def test_only_large_stamps_of_uneven_noise_are_worth_it():
    even = np.ones((2, 70, 66), np.float32)
    uneven = even.copy()
    uneven[1, 20:30, 20:30] = 0.1
    unused = np.where(uneven == 1, even, 0)
    assert worth_halving(a_task(even, uneven))
    assert not worth_halving(a_task(even, even))
    assert not worth_halving(a_task(even, unused))
    assert not worth_halving(a_task(even[:, :40, :40], uneven[:, :40, :40]))


def test_a_psf_that_blends_share_is_still_one_object():
    data = np.zeros((2, 8, 8), np.float32)
    one, two = halved([a_task(data, data), replace(a_task(data, data), exact=True)])
    assert one.blend.psf is two.blend.psf


def test_light_of_a_bright_neighbour_is_not_a_faint_sources_own():
    y, x = np.mgrid[:50, :50]
    bright = 100 * np.exp(-0.5 * ((x - 25) ** 2 + (y - 25) ** 2) / 6**2)
    faint = 5 * np.exp(-0.5 * ((x - 30) ** 2 + (y - 25) ** 2) / 2**2)
    own = own_light(bright + faint, np.array([[25.0, 25.0], [30.0, 25.0]]))
    np.testing.assert_allclose(own, [100, 5], rtol=0.05)


@pytest.mark.slow
def test_a_large_stamp_ends_where_its_truth_is():
    """First in wide pixels, then in its own: the result is that of its own."""
    random = np.random.default_rng(3)
    shape = (70, 70)
    image = 20 * np.asarray(galaxy(33.4, 36.1, 5.0, PSF, shape))
    variance = 1 + np.maximum(image, 0)
    data = image + random.normal(size=image.shape) * np.sqrt(variance)
    blend = blend_of_arrays(data, variance, PSF, [[33.0, 36.5]])
    with hasty():
        found = fit_batch([blend], model="sersic", model_error=0.0, trim=False, sizes=(64, 128))
    pulls = (found.flux[0] - 20 * np.array([900.0, 700.0])) / found.flux_err[0]
    assert found.converged.all()
    assert np.abs(pulls).max() < 4
    assert abs(found.x[0] - 33.4) < 4 * found.x_err[0]
    assert abs(found.radius[0] - 5.0) < 4 * found.radius_err[0]
    # All of its pixels, and not a quarter.
    assert found.n_pixels.sum() == 2 * 70 * 70
    assert 0.9 < found.reduced_chi2[0] < 1.1
