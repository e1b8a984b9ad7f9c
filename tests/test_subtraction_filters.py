"""The filters of proper subtraction against plain numpy, and the identities that they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend.subtract.filters import (
    centred_stamp,
    mean_over_modes,
    power_of,
    proper_filters,
    shift_plane,
    transfer_plane,
)

SHAPES = [(64, 50), (51, 64), (47, 33)]


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def stamp(size, sigma, lean, seed):
    """A PSF with a bit of everything: unequal axes and no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * ((x - lean * y) ** 2 + y**2) / sigma**2)
    image *= 1 + 0.2 * rng.uniform(size=image.shape)
    return image / image.sum()


def full_plane(image, shape):
    """The transform of a stamp by padding and rolling, all modes."""
    padded = np.zeros(shape)
    padded[: image.shape[0], : image.shape[1]] = image
    return np.fft.fft2(
        np.roll(padded, (-(image.shape[0] // 2), -(image.shape[1] // 2)), axis=(0, 1))
    )


def textbook(new, reference, psf_new, psf_reference, sigma_new, sigma_reference, f_n, f_r):
    """D, P_D, F_D, S and F_S by the letter of the paper, complex transforms of numpy."""
    shape = new.shape
    p_n, p_r = full_plane(psf_new, shape), full_plane(psf_reference, shape)
    n, r = np.fft.fft2(new), np.fft.fft2(reference)
    power = (sigma_new * f_r) ** 2 * abs(p_r) ** 2 + (sigma_reference * f_n) ** 2 * abs(p_n) ** 2
    power += 1e-8 * ((sigma_new * f_r) ** 2 + (sigma_reference * f_n) ** 2)
    d = (f_r * p_r * n - f_n * p_n * r) / np.sqrt(power)
    f_d = f_r * f_n / np.sqrt((sigma_new * f_r) ** 2 + (sigma_reference * f_n) ** 2)
    p_d = f_r * f_n * p_r * p_n / (f_d * np.sqrt(power))
    k_n = f_n * f_r**2 * p_n.conj() * abs(p_r) ** 2 / power
    k_r = f_r * f_n**2 * p_r.conj() * abs(p_n) ** 2 / power
    f_s = np.mean(f_n**2 * f_r**2 * abs(p_n) ** 2 * abs(p_r) ** 2 / power)
    images = [np.fft.ifft2(a).real for a in (d, p_d, k_n * n - k_r * r)]
    return *images, f_d, f_s


def ours(new, reference, *filters_of):
    filters = proper_filters(*filters_of, shape=new.shape)
    d = filters.new * jnp.fft.rfft2(new) - filters.reference * jnp.fft.rfft2(reference)
    images = [jnp.fft.irfft2(a, s=new.shape) for a in (d, filters.psf, filters.matched * d)]
    return [np.asarray(v) for v in (*images, filters.flux_scale, filters.score_scale)]


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *shape)), stamp(15, 1.9, 0.3, seed), stamp(11, 1.3, -0.2, seed + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_paper(shape):
    (new, reference), psf_new, psf_reference = pair(shape)
    got = ours(new, reference, psf_new, psf_reference, 1.7, 0.8, 0.6)
    expected = textbook(new, reference, psf_new, psf_reference, 1.7, 0.8, 0.6, 1.0)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_identities(shape):
    (new, reference), psf_new, psf_reference = pair(shape, 3)
    d, p_d, s, f_d, f_s = ours(new, reference, psf_new, psf_reference, 1.7, 0.8, 0.6)
    # Roles swapped: the other image's unit of flux, and the other sign.
    swapped = ours(reference, new, psf_reference, psf_new, 0.8, 1.7, 1 / 0.6)
    np.testing.assert_allclose(swapped[0], -d, atol=1e-10)
    assert p_d.sum() == pytest.approx(1, abs=1e-8)
    assert f_s == pytest.approx(f_d**2 * (p_d**2).sum(), rel=1e-12)
    correlated = np.fft.ifft2(np.fft.fft2(d) * np.fft.fft2(p_d).conj()).real
    np.testing.assert_allclose(s, f_d * correlated, atol=1e-12)
    same = ours(new, new, psf_new, psf_new, 1.3, 1.3, 1.0)
    assert np.abs(same[0]).max() < 1e-12
    # Counts of N in another unit change nothing but the unit.
    scaled = ours(3 * new, reference, psf_new, psf_reference, 3 * 1.7, 0.8, 3 * 0.6)
    np.testing.assert_allclose(scaled[0], d, atol=1e-10)
    np.testing.assert_allclose(scaled[2] / np.sqrt(scaled[4]), s / np.sqrt(f_s), atol=1e-10)
    moved = [np.roll(a, (5, -3), axis=(0, 1)) for a in (new, reference)]
    rolled = ours(*moved, psf_new, psf_reference, 1.7, 0.8, 0.6)[0]
    np.testing.assert_allclose(np.roll(rolled, (-5, 3), axis=(0, 1)), d, atol=1e-12)


def test_a_new_point_appears_with_its_flux_and_white_noise_stays_white():
    shape = (60, 48)
    psf_new, psf_reference = stamp(15, 1.9, 0.3, 0), stamp(11, 1.3, -0.2, 1)
    point = np.zeros(shape)
    point[20:35, 10:25] = 0.6 * 50.0 * psf_new  # its centre on (17, 27), as the new camera sees it
    d, p_d, s, f_d, f_s = ours(point, np.zeros(shape), psf_new, psf_reference, 1.7, 0.8, 0.6)
    assert s[27, 17] / f_s == pytest.approx(50, rel=1e-6)
    expected = 50 * f_d * np.roll(p_d, (27, 17), axis=(0, 1))
    np.testing.assert_allclose(d, expected, atol=1e-4 * np.abs(expected).max())
    filters = proper_filters(psf_new, psf_reference, 1.7, 0.8, 0.6, shape)
    spectrum = 1.7**2 * power_of(filters.new) + 0.8**2 * power_of(filters.reference)
    assert float(mean_over_modes(spectrum, shape)) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_planes(shape):
    image = stamp(13, 1.6, 0.2, 5)[:, 1:-1]
    plane = transfer_plane(jnp.asarray(image), shape)
    modes = shape[1] // 2 + 1
    np.testing.assert_allclose(plane, full_plane(image, shape)[:, :modes], atol=1e-13)
    np.testing.assert_allclose(centred_stamp(plane, shape, 13)[:, 1:-1], image, atol=1e-13)
    values = np.random.default_rng(1).normal(size=shape)
    by_parseval = mean_over_modes(power_of(jnp.fft.rfft2(values)), shape)
    assert float(by_parseval) == pytest.approx((values**2).sum(), rel=1e-12)
    moved = jnp.fft.irfft2(plane * shift_plane(3, -2, shape), s=shape)
    whole = jnp.fft.irfft2(plane, s=shape)
    np.testing.assert_allclose(moved, np.roll(whole, (-2, 3), axis=(0, 1)), atol=1e-13)
