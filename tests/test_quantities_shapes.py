"""Centroids and adaptive moments: where a source is, how large, and how sure that is."""

from functools import partial
from typing import Any

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend.quantities import adaptive_moments, centroid

# Not square: x and y must not be confused.


@pytest.fixture(autouse=True)
def hastily():
    """Programs that run once, soon compiled."""
    with hasty():
        yield


SHAPE = (36, 42)
moments_of = jax.jit(jax.vmap(adaptive_moments))
held_moments_of = jax.jit(jax.vmap(partial(adaptive_moments, recentre=False)))
centroids_of = jax.jit(jax.vmap(centroid))


def drawn(profile: Any, x, y, method="no_pixel"):
    """An image with its centre at (x, y) of the stamp."""
    offset = x - (SHAPE[1] - 1) / 2, y - (SHAPE[0] - 1) / 2
    image = profile.drawImage(nx=SHAPE[1], ny=SHAPE[0], scale=1, offset=offset, method=method)
    return image.array.astype(np.float32)


def galaxies(n, seed):
    """Elliptical Gaussians, and Sersic profiles behind a PSF, with their places."""
    rng = np.random.default_rng(seed)
    psf = galsim.Moffat(beta=3, fwhm=3.5)
    images, places, is_gaussian = [], [], []
    for k in range(n):
        x, y = 20 + rng.uniform(-0.7, 0.7), 17 + rng.uniform(-0.7, 0.7)
        q, angle = rng.uniform(0.5, 1), rng.uniform(0, 180) * galsim.degrees
        if k % 2:
            profile = galsim.Gaussian(sigma=rng.uniform(1.5, 2.8)).shear(q=q, beta=angle)
        else:
            index, radius = rng.uniform(0.5, 4), rng.uniform(0.8, 3)
            profile = galsim.Sersic(index, half_light_radius=radius).shear(q=q, beta=angle)
            profile = galsim.Convolve(profile, psf)
        images.append(drawn(profile, x, y, "no_pixel" if k % 2 else "auto"))
        places.append((x, y))
        is_gaussian.append(bool(k % 2))
    return np.array(images), np.array(places, np.float32), np.array(is_gaussian)


def hsm(image, place):
    """Centre, covariance, fourth moment and flux by GalSim."""
    guess = galsim.PositionD(*(place + 1.0))
    found = galsim.hsm.FindAdaptiveMom(galsim.Image(image), guess_centroid=guess)
    shape = found.observed_shape
    # Determinant and trace of the covariance by its radius and ellipticity.
    total = 2 * found.moments_sigma**2 / np.sqrt(1 - shape.e1**2 - shape.e2**2)
    xx, yy, xy = (1 + shape.e1) / 2, (1 - shape.e1) / 2, shape.e2 / 2
    centre = found.moments_centroid
    return [
        *(centre.x - 1, centre.y - 1, xx * total, yy * total, xy * total),
        *(found.moments_amp, found.moments_rho4),
    ]


def test_moments_are_those_of_galsim_from_the_nearest_pixel():
    images, places, _ = galaxies(60, seed=1)
    start = np.floor(places + 0.5)
    found = moments_of(images, np.ones_like(images), start[:, 0], start[:, 1])
    assert np.asarray(found.settled).all()
    assert np.asarray(found.n_steps).max() <= 20
    truth = np.array([hsm(*pair) for pair in zip(images, places, strict=True)])
    size = truth[:, 2] + truth[:, 3]
    for name, column in (("x", 0), ("y", 1)):
        np.testing.assert_allclose(getattr(found, name), truth[:, column], atol=2e-4)
    for name, column in (("xx", 2), ("yy", 3), ("xy", 4)):
        error = (np.asarray(getattr(found, name)) - truth[:, column]) / size
        assert np.abs(error).max() < 1e-4
    np.testing.assert_allclose(found.flux, truth[:, 5], rtol=1e-4)
    np.testing.assert_allclose(found.fourth, truth[:, 6], rtol=1e-3)


@pytest.mark.slow
def test_moments_about_a_centre_that_is_held():
    images, places, is_gaussian = galaxies(60, seed=2)
    free = moments_of(images, np.ones_like(images), *places.T)
    held = held_moments_of(images, np.ones_like(images), *places.T)
    np.testing.assert_allclose(held.xx, free.xx, rtol=3e-4)
    np.testing.assert_allclose(held.x, places[:, 0], atol=1e-6)
    # About the nearest pixel only, sources look larger: the reason to recentre.
    start = np.floor(places + 0.5)
    off = held_moments_of(images, np.ones_like(images), start[:, 0], start[:, 1])
    grown = np.asarray(off.xx + off.yy)[is_gaussian] / np.asarray(free.xx + free.yy)[is_gaussian]
    away = np.hypot(*(start - places).T)[is_gaussian]
    assert (grown > 1).all()
    assert grown[np.argmax(away)] > 1.03


def test_errors_of_moments_and_of_their_flux_are_those_of_noise():
    rng = np.random.default_rng(3)
    profile = galsim.Gaussian(sigma=2).shear(q=0.7, beta=30 * galsim.degrees)
    image = drawn(profile, 19.7, 17.2)
    # Not the same in all pixels.
    sigma = np.sqrt((image**2).sum()) / 150 * (1 + 5 * image / image.max())
    n = 2000
    noisy = (image + sigma * rng.normal(size=(n, *SHAPE))).astype(np.float32)
    noisy = np.concatenate([noisy, image[None]])
    variance = np.broadcast_to((sigma**2).astype(np.float32), noisy.shape)
    x, y = np.full(n + 1, 20, np.float32), np.full(n + 1, 17, np.float32)
    both = moments_of(noisy, variance, x, y)
    found, truth = (
        jax.tree.map(lambda v, part=part: v[part], both) for part in (slice(n), slice(n, None))
    )
    for k, name in enumerate(("x", "y", "xx", "xy", "yy")):
        error = np.sqrt(np.asarray(found.covariance)[:, k, k])
        pull = (np.asarray(getattr(found, name)) - np.asarray(getattr(truth, name))) / error
        assert 0.9 < pull.std() < 1.1, name
        assert abs(pull.mean()) < 0.15, name
    pull = (np.asarray(found.flux) - 1) / np.asarray(found.flux_err)
    assert abs(pull.mean()) < 0.1
    assert 0.95 < pull.std() < 1.05
    # The covariances too: those of x and y do not vanish for a tilted source.
    wanted = np.cov([found.xx, found.xy, found.yy])
    mean = np.asarray(truth.covariance)[0][2:, 2:]
    np.testing.assert_allclose(wanted, mean, atol=0.15 * mean.max())


@pytest.mark.slow
def test_moments_have_the_derivative_of_a_root(x64):
    images, places, _ = galaxies(3, seed=4)
    image = jnp.asarray(images[2], float)
    direction = jnp.asarray(np.random.default_rng(5).normal(size=SHAPE)) * image

    def values(step):
        found = adaptive_moments(
            image + step * direction, jnp.ones_like(image), *jnp.asarray(places[2], float)
        )
        return jnp.stack([found.x, found.y, found.xx, found.xy, found.yy, found.flux])

    by_step = jax.jit(values)
    h = 1e-4
    difference = (by_step(h) - by_step(-h)) / (2 * h)
    derivative = jax.jit(jax.jacfwd(values))(0.0)
    np.testing.assert_allclose(derivative, difference, rtol=2e-3, atol=1e-4)


def test_what_has_no_moments_is_nan_and_its_derivative_finite():
    def total(image):
        found = adaptive_moments(image, jnp.ones_like(image), jnp.float32(20), jnp.float32(17))
        return jnp.nansum(jnp.stack([found.xx, found.x, found.flux]))

    for image in (jnp.zeros(SHAPE), -jnp.asarray(drawn(galsim.Gaussian(sigma=2), 20, 17))):
        assert jax.jit(total)(image) == 0
        assert np.isfinite(jax.jit(jax.grad(total))(image)).all()
    blank, x = np.ones((60, *SHAPE), np.float32), np.full(60, np.nan, np.float32)
    nowhere = moments_of(blank, blank, x, np.full(60, 17, np.float32))
    assert not nowhere.settled.any()
    assert np.isnan(nowhere.xx).all()


@pytest.mark.parametrize(
    "psf", [galsim.Gaussian(sigma=1.6), galsim.Moffat(beta=3, fwhm=3.5)], ids=["gauss", "moffat"]
)
def test_centroids_of_stars_without_noise(psf):
    rng = np.random.default_rng(6)
    places = np.array([20, 17]) + rng.uniform(-0.5, 0.5, (40, 2))
    images = np.array([drawn(psf, *place, "auto") for place in places])
    start = np.floor(places + 0.5).astype(np.float32)
    width = np.full(40, 1.6, np.float32)
    found = centroids_of(images, np.ones_like(images), start[:, 0], start[:, 1], width)
    away = np.stack([found.x, found.y], axis=1) - places
    assert np.abs(away).max() < 1e-3


def test_centroids_of_stars_with_noise():
    rng = np.random.default_rng(7)
    n = 3000
    image = drawn(galsim.Gaussian(sigma=1.6), 19.6, 17.3)
    # SNR of the best possible flux: 20 to 100, and 500.
    snr = np.append(rng.uniform(20, 100, n), np.full(500, 500.0))
    sigma = np.sqrt((image**2).sum()) / snr[:, None, None]
    noisy = (image + sigma * rng.normal(size=(len(snr), *SHAPE))).astype(np.float32)
    variance = np.broadcast_to(sigma**2, noisy.shape).astype(np.float32)
    x, y = np.full(len(snr), 20, np.float32), np.full(len(snr), 17, np.float32)
    found = centroids_of(noisy, variance, x, y, np.full(len(snr), 1.6, np.float32))
    for name, truth in (("x", 19.6), ("y", 17.3)):
        away = np.asarray(getattr(found, name)) - truth
        pull = away / np.asarray(getattr(found, f"{name}_err"))
        assert np.std(away[n:]) < 0.01
        assert abs(pull[:n].mean()) < 0.1
        assert 0.9 < pull[:n].std() < 1.1
        # No estimator does better: Cramer and Rao's bound for this star.
        best = 1.6 * np.sqrt(2) / snr
        assert np.mean(np.asarray(getattr(found, f"{name}_err")) / best) == pytest.approx(
            1, abs=0.03
        )


@pytest.mark.slow
def test_a_centroid_has_the_derivative_of_a_root(x64):
    image = jnp.asarray(drawn(galsim.Moffat(beta=3, fwhm=3.5), 19.7, 17.4, "auto"), float)
    ends = [drawn(galsim.Moffat(beta=3, fwhm=3.5), 19.7 + h, 17.4, "auto") for h in (-0.02, 0.02)]
    change = jnp.asarray(ends[1] - ends[0], float) / 0.04

    def place(step):
        moved = image + step * change
        return centroid(moved, jnp.ones_like(image), jnp.asarray(20.0), jnp.asarray(17.0), 1.6).x

    # The image moves with the star.
    slope = float(jax.jit(jax.grad(place))(0.0))
    assert slope == pytest.approx(1, abs=0.02)
    difference = (place(1e-4) - place(-1e-4)) / 2e-4
    assert slope == pytest.approx(float(difference), rel=1e-4)
