import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "learned_prior"))
import blends as drawing
import score


def test_errors_are_relative_and_what_is_no_number_is_wrong():
    true = np.array([[2.0, 4.0], [1.0, 10.0]])
    error = score.relative(np.array([[2.2, 4.0], [np.nan, 5.0]]), true)
    np.testing.assert_allclose(error[:, 1], [0, -0.5])
    assert score.median_error(error[:1]) == pytest.approx(0.05)
    assert score.median_error(error) == pytest.approx(0.3)
    np.testing.assert_array_equal(score.faint_one(true, true), [2, 1])


def test_relative_error_of_an_image_is_that_of_its_scale():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(3, 2, 2, 5, 7))
    scale = np.array([1.0, 1.1, 0.5])
    wrong = score.image_error(truth * scale[:, None, None, None, None], truth)
    np.testing.assert_allclose(wrong, np.repeat(((scale - 1) ** 2)[:, None], 2, axis=1), atol=1e-12)


def test_paired_bootstrap_knows_what_unpaired_medians_hide():
    rng = np.random.default_rng(2)
    theirs = rng.lognormal(sigma=1.0, size=(60, 2))
    # A tenth lower everywhere, which is far less than the scatter of either median.
    found = score.reduction(0.9 * theirs, theirs, n=300)
    np.testing.assert_allclose(found, 0.1, atol=1e-9)
    noisy = score.reduction(rng.lognormal(sigma=1.0, size=(60, 2)), theirs, n=300)
    assert noisy.low < noisy.value < noisy.high
    assert noisy.high - noisy.low > 0.2
    assert score.wins(0.9 * theirs, theirs) == 1
    assert score.wins(theirs, theirs) == 0.5


def test_limits_of_the_bootstrap_hold_the_truth_nine_times_in_ten():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(120):
        found = score.reduction(
            0.7 * rng.lognormal(sigma=0.5, size=(80, 1)), rng.lognormal(sigma=0.5, size=(80, 1)),
            n=200,
        )  # fmt: skip
        inside += found.low <= 0.3 <= found.high
    # 108 expected, with a deviation of 3.3.
    assert 96 <= inside <= 118


def test_normal_errors_cover_what_they_say_and_small_ones_less():
    rng = np.random.default_rng(4)
    true, sigma = rng.uniform(5, 9, 20000), rng.uniform(0.5, 2, 20000)
    flux = true + sigma * rng.standard_normal(20000) + 0.1 * sigma
    found = score.coverage(flux - 0.1 * sigma, sigma, true)
    for share, inside in found.items():
        assert inside == pytest.approx(share, abs=0.012)
    assert score.coverage(flux, sigma / 2, true)[0.68] == pytest.approx(0.38, abs=0.02)
    middle, width = score.robust_pull(flux, sigma / 2, true)
    assert middle == pytest.approx(0.2, abs=0.05)
    assert width == pytest.approx(2, rel=0.03)


def test_weighted_draws_cover_as_the_density_they_stand_for():
    rng = np.random.default_rng(5)
    # Draws from a wide Gaussian with weights of a narrow one, which the truth is drawn from.
    draws = 2 * rng.standard_normal((1500, 600))
    weights = np.exp(-0.5 * draws**2 + 0.5 * (draws / 2) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    true = rng.standard_normal(1500)
    for share, inside in score.weighted_coverage(draws, weights, true).items():
        assert inside == pytest.approx(share, abs=0.04)
    rank = score.weighted_rank(draws, weights, true)
    assert score.uniform_chance(rank) > 1e-3
    assert score.uniform_chance(score.weighted_rank(draws, weights, 0.5 * true)) < 1e-6


def test_separability_is_the_statistic_of_mann_and_whitney():
    rng = np.random.default_rng(6)
    inside, outside = rng.normal(size=90), rng.normal(size=70) + 0.8
    outside[:5] = inside[:5]
    expected = mannwhitneyu(outside, inside).statistic / (90 * 70)
    assert score.separability(inside, outside) == pytest.approx(expected)


def test_bins_are_closed_below():
    value, by = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0.0, 1.0, 1.5, 2.0])
    assert score.binned(value, by, (0, 1, 2)) == [(1.0, 1), (4.0, 2)]
    assert np.isnan(score.binned(value, by, (3, 4))[0][0])


def test_blends_are_as_told():
    settings = drawing.Settings(
        population="star", n=3, seed=4, size=40, psf_sigma=(1.4, 1.6, 1.9), told=1.05
    )
    found = drawing.draw_blends(settings)
    assert found.image.shape == (3, 3, 40, 40)
    noise = found.image - found.truth.sum(axis=1)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert np.all((found.snr > 29) & (found.snr < 301))
    assert np.all((found.apart >= 3.5) & (found.apart <= 10))
    # Colours are those of the sources, and all light of points is in the frame.
    colour = found.total / found.total[..., 1:2]
    np.testing.assert_allclose(colour[:, 0], np.broadcast_to(drawing.RED, (3, 3)))
    np.testing.assert_allclose(colour[:, 1], np.broadcast_to(drawing.BLUE, (3, 3)))
    inside = found.flux / found.total
    np.testing.assert_allclose(inside, 1, atol=1e-3)
    # The light is where the centres say.
    y, x = np.mgrid[:40, :40]
    one = found.truth[1, 0, 0]
    assert np.sum(one * x) / one.sum() == pytest.approx(found.x[1, 0], abs=1e-3)
    assert np.sum(one * y) / one.sum() == pytest.approx(found.y[1, 0], abs=1e-3)
    # What is told of the PSF is wider.
    line = found.psf[1, 12]
    sigma = np.sqrt(0.5 / np.log(line[12] / line[13]))
    assert sigma == pytest.approx(1.05 * 1.6, rel=1e-3)


def test_some_light_of_galaxies_is_beyond_the_frame():
    found = drawing.draw_blends(drawing.Settings(n=3, seed=5, size=25))
    inside = found.flux / found.total
    assert np.all((inside > 0.5) & (inside < 1))


def test_a_population_needs_its_catalogue():
    with pytest.raises(ValueError, match="`cosmos`"):
        drawing.draw_blends(drawing.Settings(population="C", n=1))
    with pytest.raises(ValueError, match="`population`"):
        drawing.draw_blends(drawing.Settings(population="B", n=1))
