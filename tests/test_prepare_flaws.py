"""Cosmic rays are found, stars are not; and what is masked is filled."""

import numpy as np
import pytest
from astropy.convolution import Box2DKernel, interpolate_replace_nans
from test_prepare import FWHM, drawn, stars

from diffdeblend.prepare import Sharpness, fill_masked, find_cosmic_rays, prepare, star_sharpness

SHAPE = 300, 380


@pytest.fixture(scope="module")
def scene():
    """A field up to 5e5 electrons a star, without sky, and a variance of each pixel."""
    rng = np.random.default_rng(8)
    *places, light = stars(rng, 90, SHAPE, low=3.0, high=5.7)
    variance = (300 + light).astype(np.float32)
    image = (light + rng.normal(0, 1, SHAPE) * np.sqrt(variance)).astype(np.float32)
    return image, variance, light, places


def with_rays(image, rng, n=40):
    """Tracks of 2 to 15 pixels, 300 to 3000 electrons a step, as a detector sees them."""
    hit, mask = image.copy(), np.zeros(image.shape, bool)
    for _ in range(n):
        y, x = (rng.uniform(0, size) for size in image.shape)
        angle = rng.uniform(0, np.pi)
        for step in np.arange(0, rng.uniform(2, 15), 0.5):
            row, column = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                hit[row, column] += rng.uniform(300, 3000)
                mask[row, column] = True
    return hit, mask


def test_no_star_is_a_cosmic_ray(scene):
    image, variance, _, _ = scene
    none = np.zeros(SHAPE, bool)
    sharp = star_sharpness(image, variance, none)
    assert sharp is not None
    assert sharp.n_stars > 40
    assert sharp.fwhm == pytest.approx(FWHM, abs=0.25)
    assert find_cosmic_rays(image, variance, none, sharp).sum() <= 2
    # Nor if it is narrow.
    x, y, flux = scene[3]
    narrow = drawn(x, y, flux, SHAPE, 2.0)
    noise = (300 + narrow).astype(np.float32)
    narrow = (narrow + np.random.default_rng(3).normal(size=SHAPE) * np.sqrt(noise)).astype("f4")
    sharp = star_sharpness(narrow, noise, none)
    assert find_cosmic_rays(narrow, noise, none, sharp).sum() <= 2


def test_nearly_all_light_of_cosmic_rays_is_found(scene):
    image, variance, _, _ = scene
    hit, truth = with_rays(image, np.random.default_rng(4))
    none = np.zeros(SHAPE, bool)
    found = find_cosmic_rays(hit, variance, none, star_sharpness(hit, variance, none))
    seen = truth & (hit - image > 5 * np.sqrt(variance))
    light = hit - image
    assert light[seen & found].sum() > 0.95 * light[seen].sum()
    assert (found & ~truth).sum() < 12


def test_masked_pixels_are_neither_found_nor_looked_at(scene):
    image, variance, _, _ = scene
    hit, truth = with_rays(image, np.random.default_rng(4))
    dead = np.zeros(SHAPE, bool)
    dead[:, 150:152] = True
    hit[dead] = -1e4
    found = find_cosmic_rays(hit, variance, dead, Sharpness.of_fwhm(FWHM))
    assert not found[dead].any()
    # A dead column makes no rays of the pixels beside it; not masked, none of the sky's.
    assert not (found & ~truth)[:, [149, 152]].any()
    unsaid = np.zeros(SHAPE, bool)
    found = find_cosmic_rays(hit, variance, unsaid, Sharpness.of_fwhm(FWHM))
    assert (found & ~truth & (scene[2] < 30))[:, [149, 152]].sum() <= 2


def test_too_few_stars_say_nothing():
    noise = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    assert star_sharpness(noise, np.ones((50, 60), "f4"), np.zeros((50, 60), bool)) is None


def test_prepare_puts_rays_on_their_plane_and_fills_them(scene):
    image, variance, light, _ = scene
    hit, truth = with_rays(image, np.random.default_rng(11))
    exposure = prepare(hit + 300, gain=1.0, psf=None).exposure
    found = np.asarray(exposure.flag("CR"))[0]
    assert found[truth & (hit - image > 300)].mean() > 0.95
    assert not np.asarray(exposure.good)[0][found].any()
    off = (np.asarray(exposure.image[0]) - light)[found] / np.sqrt(variance[found])
    assert np.median(np.abs(off)) < 1.5
    assert not np.asarray(prepare(hit + 300, cosmic_rays=None, psf=None).exposure.flag("CR")).any()
    given = np.asarray(prepare(hit + 300, cosmic_rays=truth, psf=None).exposure.flag("CR"))[0]
    assert given[truth].mean() > 0.9


def test_lacosmic_finds_the_same_rays(scene):
    pytest.importorskip("astroscrappy", reason="astroscrappy is not installed")
    image, *_ = scene
    hit, truth = with_rays(image, np.random.default_rng(4))
    strong = truth & (hit - image > 600)
    planes = [
        np.asarray(prepare(hit + 300, gain=1.0, psf=None, cosmic_rays=how).exposure.flag("CR"))[0]
        for how in ("auto", "astroscrappy")
    ]
    assert planes[0][strong].mean() > planes[1][strong].mean() - 0.02


def test_absent_peers_are_named(monkeypatch, scene):
    import sys

    monkeypatch.setitem(sys.modules, "astroscrappy", None)
    with pytest.raises(ImportError, match=r"diffdeblend\[interop\]"):
        prepare(scene[0] + 300, psf=None, cosmic_rays="astroscrappy")


def test_stars_are_filled_as_stars(scene):
    image, _, light, _ = scene
    masked = np.zeros(SHAPE, bool)
    masked[:, 77:79] = True
    masked[130] = True
    masked[np.random.default_rng(6).random(SHAPE) < 0.01] = True
    filled = fill_masked(image, masked, fwhm=FWHM)
    np.testing.assert_array_equal(filled[~masked], image[~masked])
    holes = np.where(masked, np.nan, image)
    other = interpolate_replace_nans(holes, Box2DKernel(5))
    off, off_other = (np.sqrt(np.mean((v - light)[masked] ** 2)) for v in (filled, other))
    # Five times nearer to the light than a mean of the neighbours.
    assert off < 0.2 * off_other
    empty = masked & (light < 5)
    assert np.std((filled - light)[empty]) < 1.3 * np.sqrt(300)


def test_a_level_goes_on_into_a_hole_and_deep_holes_become_sky():
    image = np.full((60, 80), 12.5, np.float32)
    masked = np.zeros(image.shape, bool)
    masked[:13, 30:44] = True
    image[masked] = np.nan
    np.testing.assert_allclose(fill_masked(image, masked), 12.5, rtol=1e-4)
    shallow = fill_masked(image, masked, layers=2)
    assert shallow[0, 37] == 0
    assert np.isfinite(shallow).all()
    nothing = np.zeros(image.shape, bool)
    assert fill_masked(np.ones((9, 9), "f4"), np.zeros((9, 9), bool)).sum() == 81
    assert np.isfinite(fill_masked(np.ones((60, 80), "f4"), ~nothing)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"masked": np.zeros((3, 4), bool)}, "`masked` needs booleans"),
        ({"masked": np.zeros((9, 9))}, "`masked` needs booleans"),
        ({"fwhm": 0.0}, "`fwhm` must be positive"),
        ({"noise": np.nan}, "`noise` must be positive"),
    ],
)
def test_bad_settings_of_filling(change, says):
    settings = {"image": np.ones((9, 9), "f4"), "masked": np.zeros((9, 9), bool)} | change
    with pytest.raises(ValueError, match=says):
        fill_masked(**settings)
