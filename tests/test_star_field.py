"""Fields of stars with a known PSF."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from diffdeblend import PointSource, Scene, Sersic, render
from diffdeblend.detect import score_image
from diffdeblend.psf import PSFBasis
from diffdeblend.simulate import elliptical_psf, elliptical_stamp, star_field

SHAPE = (90, 140)


def varying(shape=SHAPE):
    return elliptical_psf(shape, lambda u, v: 3.6 + 0.4 * u, 3.2, lambda u, v: 40 + 20 * v)


def test_an_ellipse_has_its_widths_and_angle():
    stamp = elliptical_stamp(5.0, 3.0, 30.0, 41)
    assert stamp.sum() == pytest.approx(1, abs=1e-6)
    y, x = np.mgrid[-20:21, -20:21]
    moments = [np.sum(stamp * one) for one in (x * x, y * y, x * y)]
    a, b = np.array([5.0, 3.0]) ** 2 / (8 * np.log(2))
    # The pixel adds 1/12 along each axis.
    wanted = [a * 0.75 + b * 0.25 + 1 / 12, a * 0.25 + b * 0.75 + 1 / 12, (a - b) * np.sqrt(3) / 4]
    np.testing.assert_allclose(moments, wanted, rtol=1e-4)


def test_it_is_galsims():
    galsim = pytest.importorskip("galsim")
    sigma = 3.2 / np.sqrt(8 * np.log(2))
    gaussian = galsim.Gaussian(sigma=sigma).transform(4.0 / 3.2, 0, 0, 1)
    wanted = gaussian.rotate(50 * galsim.degrees).withFlux(1).drawImage(nx=31, ny=31, scale=1).array
    np.testing.assert_allclose(elliptical_stamp(4.0, 3.2, 50.0, 31), wanted, atol=2e-5)


def test_scenes_through_a_varying_psf_are_as_galsim_draws_them():
    galsim = pytest.importorskip("galsim")
    psf = varying()
    x, y = 111.3, 20.6
    u, v = 2 * x / (SHAPE[1] - 1) - 1, 2 * y / (SHAPE[0] - 1) - 1
    sigma = 3.2 / np.sqrt(8 * np.log(2))
    there = galsim.Gaussian(sigma=sigma).transform((3.6 + 0.4 * u) / 3.2, 0, 0, 1).withFlux(1)
    there = there.rotate((40 + 20 * v) * galsim.degrees)
    galaxy = galsim.Exponential(half_light_radius=2.5, flux=300).shear(g1=0.2, g2=-0.1)
    star = galsim.Gaussian(sigma=1e-6, flux=200).shift(-7.4, 5.1)
    sources = galsim.Convolve(there, galsim.Sum(galaxy, star))
    centre = galsim.PositionD(x - 90 + 1, y + 1)
    frame = galsim.ImageD(50, 45)
    image = sources.drawImage(frame, scale=1, center=centre).array
    scene = Scene(
        [
            Sersic([300.0], x - 90, y, 2.5, 1.0, [0.2, -0.1]),
            PointSource([200.0], x - 97.4, y + 5.1),
        ]
    )
    draw = quick_jit(partial(render, shape=(45, 50)))
    ours = draw(scene, psf.at(jnp.asarray(x), jnp.asarray(y)))[0]
    np.testing.assert_allclose(ours, image, atol=3e-3 * image.max())
    # The PSF of the middle is another one.
    other = draw(scene, psf.middle)[0]
    assert np.abs(other - image).max() > 0.02 * image.max()


def test_the_same_seed_gives_the_same_field():
    one, again = (star_field(SHAPE, 12, psf=varying(), seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.exposure.image, again.exposure.image)
    assert np.any(one.exposure.image != star_field(SHAPE, 12, psf=varying(), seed=5).exposure.image)
    assert isinstance(one.exposure.psf, PSFBasis)


@pytest.mark.parametrize("noise", ["poisson", "gaussian"])
def test_noise_is_as_said(noise):
    sky = np.linspace(50, 200, SHAPE[1]) * np.ones(SHAPE)
    field = star_field(SHAPE, 14, psf=varying(), sky=sky, noise=noise, snr=(50, 400))
    noise_of = np.asarray(field.exposure.image[0]) - field.noiseless
    pull = noise_of / np.sqrt(np.asarray(field.exposure.variance[0]))
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert pull.mean() == pytest.approx(0, abs=0.03)
    np.testing.assert_allclose(field.raw - sky, field.exposure.image[0], atol=1e-3)
    bright = field.noiseless > 500
    variance = np.asarray(field.exposure.variance[0])
    wanted = sky[bright] + (field.noiseless[bright] if noise == "poisson" else 0)
    np.testing.assert_allclose(variance[bright], wanted, rtol=1e-4)


def test_stars_have_the_significance_that_they_were_given():
    field = star_field(SHAPE, 1, psf=varying(), snr=(80, 80), noise="gaussian", seed=2)
    x, y = (int(np.rint(field.truth[axis][0])) for axis in "xy")
    found = score_image(field.exposure)
    # At the nearest pixel a few percent are lost; the noise of S/N is 1.
    assert found.score[0, y - 1 : y + 2, x - 1 : x + 2].max() == pytest.approx(80, abs=8)
    assert field.noiseless.sum() == pytest.approx(field.truth["flux"][0], rel=1e-3)


def test_a_field_without_stars_is_sky():
    field = star_field(SHAPE, 0, psf=varying(), sky=9.0)
    assert len(field.truth) == 0
    assert np.all(field.noiseless == 0)


WRONG = {
    "shape": (lambda: star_field((50, 60), psf=varying()), r"\(50, 60\) pixels; got 1 and \(90"),
    "snr": (lambda: star_field(SHAPE, snr=(5, 2)), "`snr` two positive numbers in order"),
    "border": (lambda: star_field(SHAPE, border=45), "`border` less than half of the image"),
    "sky": (lambda: star_field(SHAPE, sky=0.0), "`sky` must be positive"),
    "noise": (lambda: star_field(SHAPE, noise="none"), "`noise` must be 'poisson' or 'gaussian'"),
    "width": (lambda: elliptical_psf(SHAPE, -1.0), "the widths positive"),
    "size": (lambda: elliptical_psf(SHAPE, size=20), "`size` must be odd"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
