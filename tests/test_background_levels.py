"""Other measures of the sky: most symmetric, around a source, and without the sources."""

import warnings

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.stats import biweight_location, biweight_scale, mad_std, sigma_clip
from crowded import crowded_field
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew

from diffdeblend.background import (
    SplineBackground,
    estimate_background,
    local_background,
    skewness_background,
    source_free_background,
    source_masked,
    stamp_skewness_background,
    statistics,
)
from diffdeblend.background.sorted_rows import clip_rows
from diffdeblend.grid import STANDARD, make_grid


def sparse(seed=0, shape=(99, 120)):
    """A sky of 0.25 with one bright source."""
    random = np.random.default_rng(seed)
    image = random.normal(0.25, 0.0594, shape)
    image[40:60, 40:70] += random.exponential(1, (20, 30))
    return image


# -- statistics -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([1.1, 2.1, 3.0]),
    st.sampled_from([1, 3, None]),
    st.integers(0, 10**6),
)
def test_clipping_is_astropys(n, sigma, iterations, seed):
    random = np.random.default_rng(seed)
    rows = np.round(random.standard_t(1.5, (4, n)), random.integers(0, 4))
    theirs = sigma_clip(rows, sigma, maxiters=iterations, axis=1, masked=False)
    ours = clip_rows(rows.copy(), sigma, iterations)
    np.testing.assert_array_equal(
        np.sort(ours.with_nan(), axis=1), np.sort(np.asarray(theirs), axis=1)
    )
    np.testing.assert_allclose(ours.mean, np.nanmean(theirs, axis=1), atol=1e-10)
    np.testing.assert_allclose(ours.std, np.nanstd(theirs, axis=1), atol=1e-7)


@jax.jit
def with_gradients(values, good):
    """Of these two the other statistics are parts."""
    kept = statistics.clip(values, good).good
    clean = jnp.where(kept, values, 0)
    return {
        f.__name__: jax.value_and_grad(f)(clean, kept)
        for f in (statistics.sextractor_mode, statistics.biweight_scale)
    } | {
        "mad_std": (statistics.mad_std(clean, kept), jnp.zeros(())),
        "biweight_location": (statistics.biweight_location(clean, kept), jnp.zeros(())),
    }


def test_statistics_of_no_one_and_equal_values(x64):
    values = np.array([3.0, np.nan, 3.0, 7.0, 3.0])
    for good, level, scatter in (
        ([0, 0, 0, 0, 0], np.nan, np.nan),
        ([1, 1, 1, 0, 1], 3, 0),
        ([0, 0, 0, 1, 0], 7, 0),
    ):
        found = with_gradients(values, np.array(good, bool))
        for name, (value, gradient) in found.items():
            expected = scatter if name in ("mad_std", "biweight_scale") else level
            np.testing.assert_array_equal(value, expected, err_msg=name)
            assert np.isfinite(gradient).all(), name
    values = np.array([3.0, 2.0, 3.5, 2.9, 4.0])
    found = with_gradients(values, np.ones(5, bool))
    np.testing.assert_allclose(found["biweight_location"][0], biweight_location(values), rtol=1e-12)
    np.testing.assert_allclose(found["biweight_scale"][0], biweight_scale(values), rtol=1e-12)
    np.testing.assert_allclose(found["mad_std"][0], mad_std(values), rtol=1e-12)


# -- the darkest and most symmetric block ---------------------------------------------------------


def test_skewness_is_less_and_its_parts_are_consistent():
    for seed in range(5):
        image = sparse(seed)
        found = skewness_background(image)
        assert found.block_side == (31, 37)
        assert found.n_blocks == 9
        # The darkest block, by a loop.
        sums = {
            (y, x): image[y : y + 31, x : x + 37].sum()
            for y in range(0, 93, 31)
            for x in range(0, 111, 37)
        }
        assert found.corner == min(sums, key=lambda corner: sums[corner])
        assert list(sums)[found.block] == found.corner
        y, x = found.corner
        block = image[y : y + 31, x : x + 37]
        np.testing.assert_array_equal(found.pixels, block.ravel())
        chosen = found.pixels[found.selected]
        np.testing.assert_allclose(found.first_skewness, skew(block.ravel()), rtol=1e-9)
        np.testing.assert_allclose(found.skewness, skew(chosen), atol=1e-9)
        assert abs(found.skewness) <= abs(found.first_skewness)
        np.testing.assert_allclose(found.level, chosen.mean(), rtol=1e-12)
        np.testing.assert_allclose(found.size_ratio, chosen.size / 1147, rtol=1e-12)
        assert found.size_ratio >= 0.1
        near = np.abs(found.pixels - found.centre) <= found.half_width * (1 + 1e-12)
        np.testing.assert_array_equal(near, found.selected)
        assert abs(found.centre - found.mean) <= 0.1 * found.std * (1 + 1e-12)
        np.testing.assert_allclose([found.mean, found.std], [block.mean(), block.std()], rtol=1e-12)
        mad = np.median(np.abs(block - np.median(block)))
        np.testing.assert_allclose(found.sigma, mad, rtol=1e-12)
        np.testing.assert_allclose(found.threshold, found.level + 3 * found.sigma, rtol=1e-15)
        assert abs(found.level - 0.25) < 0.01


def test_skewness_options():
    image = sparse()
    plain = skewness_background(image)
    assert "skewness" in repr(plain)
    all_ = skewness_background(image, skewness_range=None)
    assert all_.selected.all()
    assert all_.level == all_.mean
    assert all_.skewness == all_.first_skewness
    whole = skewness_background(image, sub_block_frac_size=None)
    assert whole.pixels.size == image.size
    assert whole.n_blocks == 1
    # As skewed as this, the window matters: the source is cut off.
    assert abs(whole.skewness) < 0.01 < whole.first_skewness
    assert abs(whole.level - 0.25) < 0.005 < whole.mean - 0.25
    few = skewness_background(image, sub_block_frac_size=None, resampling_size=500, seed=3)
    assert few.pixels.size == 500
    again = skewness_background(image, sub_block_frac_size=None, resampling_size=500, seed=3)
    np.testing.assert_array_equal(few.pixels, again.pixels)
    std = skewness_background(image, sigma="std", n_std_th=2)
    np.testing.assert_allclose(std.threshold, plain.level + 2 * plain.std)
    robust = skewness_background(image, sigma="mad_std")
    np.testing.assert_allclose(robust.sigma, mad_std(robust.pixels))
    wide = skewness_background(image, min_size_ratio=0.9)
    assert wide.size_ratio >= 0.9


def test_skewness_without_some_pixels():
    image = sparse()
    mask = np.zeros(image.shape, bool)
    y, x = skewness_background(image).corner
    # The darkest block, for the most part hidden, is not taken.
    mask[y : y + 31, x : x + 30] = True
    image[~mask & (image < 0.1)] = np.nan
    found = skewness_background(image, mask=mask)
    assert found.corner != (y, x)
    assert np.isfinite(found.pixels).all()
    flat = skewness_background(np.ones((40, 40)))
    assert (flat.level, flat.sigma, flat.skewness) == (1, 0, 0)
    with pytest.raises(ValueError, match="`data`"):
        skewness_background(image, mask=np.ones(image.shape, bool))
    for arguments, name in (
        ({"sub_block_frac_size": 0}, "`sub_block_frac_size`"),
        ({"skewness_range": -1}, "`skewness_range`"),
        ({"min_size_ratio": 2}, "`min_size_ratio`"),
        ({"sigma": "iqr"}, "`sigma`"),
        ({"resampling_size": 0}, "`resampling_size`"),
        ({"mask": np.ones(3, bool)}, "`mask`"),
    ):
        with pytest.raises(ValueError, match=name):
            skewness_background(image, **arguments)
    with pytest.raises(ValueError, match="`data`"):
        skewness_background(image[0])


def test_skewness_of_stamps_in_jax(compilations):
    images = np.stack([sparse(seed, (60, 71)) for seed in range(4)])
    images[3] = np.nan
    # As the device sees them.
    images = images.astype(np.float32)
    good = np.ones(images.shape, bool)
    good[1, :9] = False
    run = jax.jit(jax.vmap(stamp_skewness_background))
    level, sigma, threshold = run(images, good)
    for stamp in range(3):
        host = skewness_background(images[stamp], mask=~good[stamp])
        # Another of nearly equal windows in single precision at most.
        assert abs(level[stamp] - host.level) < 0.05 * host.std
        np.testing.assert_allclose(sigma[stamp], host.sigma, rtol=1e-5)
        np.testing.assert_allclose(threshold[stamp], level[stamp] + 3 * sigma[stamp], rtol=1e-5)
    assert np.isnan([level[3], sigma[3], threshold[3]]).all()
    compilations.clear()
    run(images[::-1], good)
    assert not compilations


# -- rings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["median", "sextractor"])
def test_rings_are_photutils(estimator):
    peers = pytest.importorskip("photutils.background")
    random = np.random.default_rng(5)
    image = random.normal(10, 1, (60, 83))
    image[random.random(image.shape) < 0.05] += 30
    mask = random.random(image.shape) < 0.1
    x = np.concatenate([random.uniform(-3, 86, 40), [20, 20.5, 82, 0, 400]])
    y = np.concatenate([random.uniform(-3, 63, 40), [30, 30.5, 59, 0, -500]])
    level = {"median": peers.MedianBackground, "sextractor": peers.SExtractorBackground}[
        estimator
    ]()
    with warnings.catch_warnings():
        # photutils clips empty rings too.
        warnings.simplefilter("ignore")
        theirs = peers.LocalBackground(5, 10.3, level)(image, x, y, mask=mask)
    ours = local_background(image, x, y, 5, 10.3, mask=mask, estimator=estimator)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert np.isnan(ours[-1])
    assert np.isfinite(ours[:-1]).all()
    one = local_background(image * u.Jy, x[3], y[3], 5, 10.3, mask=mask, estimator=estimator)
    assert one.shape == ()
    assert one == ours[3] * u.Jy
    assert local_background(image, [], [], 5, 10.3).shape == (0,)


def test_rings_name_bad_input():
    image = np.ones((20, 30))
    for arguments, name in (
        ((image[0], 1.0, 2.0, 3, 4), "`data`"),
        ((image, 1.0, 2.0, 4, 4), "`inner_radius`"),
        ((image, [1.0], [2.0, 3.0], 3, 4), "`x` and `y`"),
    ):
        with pytest.raises(ValueError, match=name):
            local_background(*arguments)
    with pytest.raises(ValueError, match="`estimator`"):
        local_background(image, 1.0, 2.0, 3, 4, estimator="std")
    assert np.isnan(local_background(image, np.nan, 2.0, 3, 4))


# -- without sources ------------------------------------------------------------------------------


def test_masked_sources_leave_little_bias():
    image = crowded_field((512, 480), seed=11)
    plain = estimate_background(image, 64, exclude_percentile=50)
    found = source_free_background(image, 64)
    bias = np.median(found.background.background) - 1000
    assert np.median(plain.background) - 1000 > 1.5
    assert abs(bias) < 0.5
    # Poisson noise of 31.6, less what clipping takes.
    np.testing.assert_allclose(found.background.background_rms_median, 31.6, rtol=0.03)
    assert 0.2 < found.mask.mean() < 0.6
    assert not np.isnan(found.background.background).any()


def test_masking_is_symmetric():
    """Of noise alone as much is masked above as below: turned over, all is the same."""
    noise = np.random.default_rng(2).normal(0, 1, (200, 230))
    up = source_free_background(noise, 50)
    down = source_free_background(-noise, 50)
    np.testing.assert_array_equal(up.mask, down.mask)
    np.testing.assert_allclose(up.background.background, -down.background.background, atol=1e-12)
    assert abs(np.mean(up.background.background)) < 0.02


def test_masks_of_stacks_are_those_of_stamps():
    image = crowded_field((128, 192), n_sources=60, seed=4)
    stamps = image.reshape(2, 64, 3, 64).swapaxes(1, 2).reshape(6, 64, 64)
    known = np.zeros(stamps.shape, bool)
    known[2, 5:20] = True
    # A stamp that stands out everywhere is measured nevertheless.
    stamps[5] = 1000 + 500 * np.random.default_rng(0).choice([-1, 1], (8, 8)).repeat(8, 0).repeat(
        8, 1
    )
    stack = source_free_background(stamps, 32, mask=known)
    for stamp in (0, 2):
        single = source_free_background(stamps[stamp], 32, mask=known[stamp])
        np.testing.assert_array_equal(stack.mask[stamp], single.mask)
        np.testing.assert_array_equal(
            stack.background.background[stamp], single.background.background
        )
    assert stack.mask[2, 5:20].all()
    assert np.isfinite(stack.background.background).all()


def test_large_images_are_masked_in_parts(monkeypatch):
    """Rows are smoothed a block at a time: no seam."""
    image = crowded_field((230, 151), n_sources=90, seed=5)
    whole = source_free_background(image, 50)
    monkeypatch.setattr(source_masked, "_BLOCK", 1)
    parts = source_free_background(image, 50)
    np.testing.assert_array_equal(parts.mask, whole.mask)


def test_holes_and_settings_of_the_mask():
    image = crowded_field((128, 130), n_sources=40)
    image[60, 70] = np.nan
    with pytest.warns(UserWarning, match="not finite"):
        found = source_free_background(image, 32)
    assert found.mask[60, 70]
    assert np.isfinite(found.background.background).all()
    image[60, 70] = 1000
    none = source_free_background(image * u.ct, 32, rounds=0, estimator="sextractor")
    plain = estimate_background(image, 32, exclude_percentile=90)
    np.testing.assert_array_equal(none.background.background.value, plain.background)
    assert not none.mask.any()
    for name, value in (("n_sigma", 0), ("fwhm", -1), ("grow", 1.5), ("rounds", -1)):
        with pytest.raises(ValueError, match=f"`{name}`"):
            source_free_background(image, 32, **{name: value})


# -- for a fit ------------------------------------------------------------------------------------


def test_the_spline_model_is_the_measured_map():
    random = np.random.default_rng(1)
    stamps = random.normal(100, 2, (2, 47, 62)).astype(np.float32)
    sky = estimate_background(stamps, (12, 16))
    model = SplineBackground.from_map(sky)
    drawn = np.asarray(model(make_grid((47, 62), STANDARD)))
    low = sky.background_mesh.min(axis=(1, 2), keepdims=True)
    high = sky.background_mesh.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(np.clip(drawn, low, high), sky.background, rtol=2e-6)
    with pytest.raises(ValueError, match="`nodes`"):
        model(make_grid((47, 80), STANDARD))
    with pytest.raises(ValueError, match="`nodes`"):
        SplineBackground(jnp.ones((3, 3)), (4, 4))
    with pytest.raises(ValueError, match="`box_size`"):
        SplineBackground(jnp.ones((1, 3, 3)), (4, 0))
