"""Thresholds in units of the noise that there is, and places of empty sky."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from diffdeblend.detect import (
    InsufficientSourcesError,
    detect_footprints,
    forced_psf_fluxes,
    sky_objects,
)
from diffdeblend.exposure import make_exposure

PLAIN: dict[str, Any] = {"background": None, "local_background": None}


def gaussian(sigma, size=25):
    at = np.arange(size) - size // 2
    image = np.exp(-0.5 * (at[:, None] ** 2 + at**2) / sigma**2)
    return image / image.sum()


def starry(seed, n_stars=150, shape=(800, 1000)):
    random = np.random.default_rng(seed)
    image = random.normal(size=shape)
    star = gaussian(1.8)
    for flux in 10 ** random.uniform(1.5, 4.5, n_stars):
        y, x = (random.integers(0, n - 25) for n in shape)
        image[y : y + 25, x : x + 25] += flux * star
    return image.astype(np.float32)


def dynamic(image, variance, direction, **settings):
    made = make_exposure(image, variance, gaussian(1.8))
    return detect_footprints(made, dynamic=direction, **{**PLAIN, **settings})


@pytest.mark.parametrize("seed", [100, 101])
def test_the_factor_is_the_noise_over_what_the_variance_says(seed):
    image = starry(seed)
    for variance, true in ((1.0, 1.0), (0.5, np.sqrt(2)), (4.0, 0.5)):
        found = dynamic(image, variance, "calibrated")
        assert found.factor == pytest.approx(true, rel=0.02)
        assert found.sky.noise_ratio == found.factor
        noise = found.smoothed.noise * found.factor * 5
        assert found.threshold == pytest.approx(noise, rel=1e-6)
        assert dynamic(image, variance, "lsst").factor == pytest.approx(1 / true, rel=0.1)


def test_the_right_variance_changes_nothing():
    image = starry(102)
    plain = detect_footprints(make_exposure(image, 1.0, gaussian(1.8)), **PLAIN)
    found = dynamic(image, 1.0, "calibrated")
    assert plain.factor == 1
    assert plain.sky is None
    assert found.n_positive == pytest.approx(plain.n_positive, abs=3)
    # Whatever unit the variance is in.
    half = dynamic(image, 0.5, "calibrated")
    assert np.array_equal(half.positive.to_mask(), found.positive.to_mask())
    wrong = detect_footprints(make_exposure(image, 0.5, gaussian(1.8)), **PLAIN)
    assert wrong.n_positive > 1.3 * found.n_positive


@pytest.mark.slow
def test_the_level_of_the_sky_is_found_before_anything_else():
    image = starry(103)
    for direction in ("calibrated", "lsst"):
        found = dynamic(image + np.float32(0.2), 1.0, direction)
        assert len(found.background) == 1
        assert found.background_image == pytest.approx(0.2, abs=0.02)
        clean = np.asarray(found.exposure.image)[0] + found.background_image
        assert clean == pytest.approx(image + 0.2, abs=1e-3)
    without = dynamic(image, 1.0, "calibrated")
    assert np.mean(found.positive.to_mask() != without.positive.to_mask()) < 1e-3
    left = dynamic(image + np.float32(0.2), 1.0, "calibrated", tweak=False)
    assert left.background == ()
    assert left.sky.level == pytest.approx(0.2, abs=0.03)


@pytest.mark.slow
def test_false_positives_of_correlated_noise():
    counts = {"calibrated": 0, None: 0, "white": 0}
    for seed in range(100, 112):
        random = np.random.default_rng(seed)
        noise = gaussian_filter(random.normal(size=(1024, 1024)), 1.0, mode="wrap")
        # The variance of pixels is right, that of sums over them not.
        made = make_exposure(noise / noise.std(), 1.0, gaussian(1.8))
        settings = {"threshold": 4.0, "grow": 0, "combined": False, **PLAIN}
        for direction in ("calibrated", None):
            counts[direction] += detect_footprints(made, dynamic=direction, **settings).n_positive
        white = make_exposure(random.normal(size=(1024, 1024)), 1.0, gaussian(1.8))
        counts["white"] += detect_footprints(white, sigma=np.hypot(1.8, 1), **settings).n_positive
    assert counts["white"] / 2 < counts["calibrated"] < counts["white"] * 2
    assert counts[None] > 10 * counts["white"]


def test_false_positives_of_correlated_noise_on_one_field():
    random = np.random.default_rng(112)
    noise = gaussian_filter(random.normal(size=(600, 600)), 1.0, mode="wrap")
    made = make_exposure(noise / noise.std(), 1.0, gaussian(1.8))
    settings = {"threshold": 4.0, "grow": 0, "combined": False, **PLAIN}
    few = detect_footprints(made, dynamic="calibrated", **settings)
    many = detect_footprints(made, **settings)
    # Of smoothed white noise, in closed form: the scatter after 1 and 1.8 pixels over that of
    # pixels after 1 and what their independence would leave after 1.8.
    expected = np.sqrt(1 / (1 + 1.8**2)) / (1 / (np.sqrt(4 * np.pi) * 1.8)) / np.sqrt(4 * np.pi)
    expected *= np.sqrt(4 * np.pi)
    assert few.factor == pytest.approx(expected, rel=0.03)
    assert few.n_positive < 12
    assert many.n_positive > 10 * 12


def test_sky_objects_lie_in_empty_sky():
    random = np.random.default_rng(104)
    seeds = random.random((1024, 1024)) < 1.2e-5 * 16
    hidden = maximum_filter(seeds, footprint=np.hypot(*np.mgrid[-18:19, -18:19]) <= 18)
    assert 0.1 < hidden.mean() < 0.3
    places = sky_objects(hidden, n=250, seed=3)
    assert np.array_equal(places, sky_objects(hidden, n=250, seed=3))
    assert not np.array_equal(places, sky_objects(hidden, n=250, seed=4))
    assert 0.9 * 250 <= len(places) <= 250
    used = np.zeros(hidden.shape, int)
    for x, y in places:
        disc = (np.arange(1024)[:, None] - y) ** 2 + (np.arange(1024) - x) ** 2 <= 64
        assert disc.sum() == 197
        used += disc
    assert used.max() == 1
    assert not (used.astype(bool) & hidden).any()
    # Evenly: no quarter without its share.
    counts = np.histogram2d(*places.T, bins=2)[0]
    assert counts.min() > 0.7 * 250 / 4


@pytest.mark.slow
def test_a_thousand_sky_objects():
    random = np.random.default_rng(105)
    seeds = random.random((4096, 4096)) < 4e-5
    hidden = maximum_filter(maximum_filter(seeds, (75, 1)), (1, 75))
    assert 0.15 < hidden.mean() < 0.25
    assert len(sky_objects(hidden)) >= 900


def test_sky_objects_where_there_is_no_room():
    assert sky_objects(np.ones((200, 200), bool)).shape == (0, 2)
    assert sky_objects(np.zeros((12, 200), bool)).shape == (0, 2)
    assert len(sky_objects(np.zeros((19, 19), bool), n=5)) == 1
    with pytest.raises(ValueError, match="`radius` must be"):
        sky_objects(np.zeros((50, 50), bool), radius=0)
    with pytest.raises(ValueError, match="`hidden` needs"):
        sky_objects(np.zeros((50, 50)))


def test_forced_fluxes_are_sums_under_the_psf():
    random = np.random.default_rng(106)
    psf = gaussian(1.6, 15)[:, 1:14]
    psf = psf / psf.sum()
    image, variance = random.normal(size=(40, 50)), random.uniform(0.5, 2, (40, 50))
    image[20:35, 30:43] += 70 * psf
    places = np.array([[36, 27], [10, 12], [0, 39]])
    hidden = np.zeros(image.shape, bool)
    hidden[11, 9] = True
    flux, error, area = forced_psf_fluxes(image, variance, psf, places, hidden)
    assert area == pytest.approx(1 / np.sum(psf**2))
    part = np.s_[20:35, 30:43]
    assert flux[0] == pytest.approx(np.sum(psf * image[part]) / np.sum(psf**2))
    assert error[0] == pytest.approx(np.sqrt(np.sum(psf**2 * variance[part])) / np.sum(psf**2))
    part = np.s_[5:20, 4:17]
    weight = psf * ~hidden[part]
    assert flux[1] == pytest.approx(np.sum(weight * image[part]) / np.sum(weight**2))
    # Only a corner of the PSF is on the image.
    assert np.isnan(flux[2])
    assert np.isnan(error[2])


def test_no_sky_is_an_error():
    image = starry(107, shape=(200, 200))
    made = make_exposure(image, 1.0, gaussian(1.8))
    hidden = np.zeros(image.shape, bool)
    hidden[::12] = True
    with pytest.raises(InsufficientSourcesError, match="sky objects"):
        detect_footprints(made.with_mask("NO_DATA", hidden), dynamic="calibrated", **PLAIN)
    hidden[:] = True
    hidden[:8, :8] = False
    with pytest.raises(ValueError, match="pixels in use"):
        detect_footprints(made.with_mask("NO_DATA", hidden), dynamic="calibrated", **PLAIN)


def test_a_crowded_field_has_its_masks_shrunk():
    random = np.random.default_rng(108)
    image = random.normal(size=(300, 300))
    star = gaussian(1.8)
    for y, x in itertools.product(range(0, 276, 22), repeat=2):
        image[y : y + 25, x : x + 25] += 3000 * star
    found = dynamic(image.astype(np.float32), 1.0, "calibrated")
    assert 20 <= len(found.sky.places) < 500
    assert found.factor == pytest.approx(1, abs=0.25)
