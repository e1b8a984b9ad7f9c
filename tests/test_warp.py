"""Moving an image by a field: against Fourier phases, and against stars drawn where they belong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend.subtract.warp import derivative, warp

SHAPE = (71, 96)


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def gaussian(x, y, sigma=1.6):
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.exp(-0.5 * ((u - x) ** 2 + (v - y) ** 2) / sigma**2)


def test_a_constant_shift_is_that_of_fourier_phases():
    """On a star in the middle, on unequal axes, by unequal shifts."""
    image, dx, dy = gaussian(47.3, 34.8, 1.2), 0.31, -0.47
    ky, kx = np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1])
    phases = np.exp(-2j * np.pi * (kx * dx + ky * dy))
    expected = np.fft.ifft2(np.fft.fft2(image) * phases).real
    np.testing.assert_allclose(warp(jnp.asarray(image), dx, dy), expected, atol=2e-3)


@pytest.mark.parametrize("place", [(20.2, 30.7), (70.5, 50.1), (10.0, 55.3)])
def test_a_field_moves_each_star_by_its_value(place):
    """By the definition: the value at x is that of the image at x - d(x)."""
    x, y = place
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    dx, dy = 0.3 - 0.004 * u + 2e-5 * v**2, 0.006 * v - 4e-5 * u * v
    moved = warp(jnp.asarray(gaussian(x, y)), jnp.asarray(dx), jnp.asarray(dy))
    expected = np.exp(-0.5 * ((u - dx - x) ** 2 + (v - dy - y) ** 2) / 1.6**2)
    np.testing.assert_allclose(moved, expected, atol=4e-3)
    assert np.abs(gaussian(x, y) - expected).max() > 0.02


def test_noise_stays_white():
    """Interpolation by half a pixel would leave two thirds of the variance, and correlate it."""
    noise = np.random.default_rng(0).normal(size=(400, 500))
    moved = np.asarray(warp(jnp.asarray(noise), 0.5, -0.4))[8:-8, 8:-8]
    before = noise[8:-8, 8:-8]
    assert moved.std() == pytest.approx(before.std(), rel=0.01)
    for shift in ((0, 1), (1, 0), (1, 1)):
        near = np.mean(moved * np.roll(moved, shift, (0, 1)))
        assert near == pytest.approx(np.mean(before * np.roll(before, shift, (0, 1))), abs=0.01)


def test_there_and_back():
    image = gaussian(30.2, 40.6)
    moved = warp(warp(jnp.asarray(image), 0.4, -0.3), -0.4, 0.3)
    np.testing.assert_allclose(moved, image, atol=2e-4)
    # But for numbers so small that they are taken as zero.
    np.testing.assert_allclose(warp(jnp.asarray(image), 0.0, 0.0), image, atol=1e-30, rtol=1e-6)


def test_slope_of_the_image_is_minus_that_along_the_shift():
    image = jnp.asarray(gaussian(30.2, 40.6))
    _, slope = jax.jvp(lambda dy: warp(image, 0.0, dy), (0.0,), (1.0,))
    np.testing.assert_allclose(slope, -derivative(image, 0), atol=1e-5)
    expected = -(np.arange(SHAPE[0])[:, None] - 40.6) / 1.6**2 * gaussian(30.2, 40.6)
    np.testing.assert_allclose(derivative(image, 0), expected, atol=2e-3)


def test_what_is_unknown_stays_near():
    image = np.ones(SHAPE)
    image[30, 50] = np.nan
    unknown = np.argwhere(np.isnan(warp(jnp.asarray(image), 0.2, 0.1)))
    reach = np.abs(unknown - [30, 50]).max()
    assert 0 < reach <= 30


@pytest.mark.parametrize("shape", [(1, 9), (3, 2), (7, 7)])
def test_small_images(shape):
    image = jnp.full(shape, 2.5)
    np.testing.assert_allclose(warp(image, 0.3, -0.2), image, rtol=1e-5)
