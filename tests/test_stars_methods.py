"""Other ways to a PSF from stars: components, two Gaussians, refinement; stars too bright."""

import galsim
import numpy as np
import pytest

from diffdeblend.stars import determine_psf, validate_psf
from diffdeblend.stars.linearity import linear_limit
from diffdeblend.stars.profiles import (
    MOFFAT,
    Shape,
    TwoGaussians,
    profile_images,
    profile_templates,
    width_at_half,
)

NY, NX, SKY = 300, 420, 100.0


def draw(seed, profile, n=60):
    rng = np.random.default_rng(seed)
    image = galsim.ImageD(galsim.BoundsI(0, NX - 1, 0, NY - 1))
    for x, y, flux in zip(
        rng.uniform(3, NX - 4, n),
        rng.uniform(3, NY - 4, n),
        10 ** rng.uniform(4, 5.3, n),
        strict=True,
    ):
        column, row = round(x), round(y)
        box = galsim.BoundsI(column - 20, column + 20, row - 20, row + 20)
        star = (profile * flux).drawImage(
            bounds=box, scale=1.0, offset=(x - column, y - row), dtype=float
        )
        image[box & image.bounds] += star[box & image.bounds]
    return rng.poisson(image.array + SKY) - SKY


SKEWED = galsim.Moffat(beta=3.0, fwhm=3.0) + 0.3 * galsim.Gaussian(fwhm=3.0).shift(1.5, 0.8)


@pytest.fixture(scope="module")
def skewed():
    data = draw(3, SKEWED.withFlux(1.0))
    return data, np.maximum(data, 0) + SKY


def peak_error(star_psf, truth):
    image = np.asarray(star_psf.psf.middle.image[0], float)
    size = image.shape[-1]
    right = truth.withFlux(1.0).shift(-truth.centroid).drawImage(nx=size, ny=size, scale=1.0).array
    return np.abs(image - right / right.sum()).max() / right.max()


@pytest.mark.parametrize("profile", [MOFFAT, TwoGaussians(2.0)])
def test_templates_are_the_derivatives(profile):
    values = np.array([0.2, -0.3, 3.0, 0.1, -0.05, 0.3])
    found = profile_templates(*rows(values), 15, profile)[:, 0]
    for k in range(6):
        step = np.zeros(6)
        step[k] = 0.02
        high, low = (profile_images(*rows(values + s), 15, profile)[0] for s in (step, -step))
        slope = (high - low) / 0.04
        np.testing.assert_allclose(found[k + 1], slope, atol=0.01 * np.abs(slope).max())


def rows(values):
    x, y, *shape = values[:, None]
    return x, y, Shape(*shape)


def test_profiles_are_those_of_galsim():
    shape = Shape(*(np.array([v]) for v in (3.0, 0.1, -0.05, 0.3)))
    two = TwoGaussians(2.0)
    inner, outer = (galsim.Gaussian(fwhm=f, flux=a) for f, a in ((3.0, 0.7), (6.0, 0.3)))
    for profile, truth in (
        (MOFFAT, galsim.Moffat(beta=1 / 0.3, fwhm=3.0)),
        (two, inner + outer),
    ):
        right = truth.shear(g1=0.1, g2=-0.05).drawImage(nx=31, ny=31, scale=1.0, dtype=float).array
        zero = np.zeros(1)
        ours = profile_images(zero, zero, shape, 31, profile)[0]
        assert np.abs(ours - right).max() < 2e-3 * right.max()
        wanted = truth.calculateFWHM()
        assert width_at_half(shape, profile)[0] == pytest.approx(wanted, rel=5e-3)


def test_what_a_mixture_is_of_it_finds():
    truth = galsim.Gaussian(fwhm=2.8, flux=0.75) + galsim.Gaussian(fwhm=5.04, flux=0.25)
    data = draw(5, truth)
    found = determine_psf(data, np.maximum(data, 0) + SKY, method="mixture", degree=1)
    assert peak_error(found, truth) < 0.02
    assert found.fwhm == pytest.approx(truth.calculateFWHM(), rel=0.02)
    assert np.isnan(found.beta)


def test_components_keep_more_with_less_loss_and_smoothing_widens(skewed):
    one, many = (determine_psf(*skewed, method="kl", inf_loss=loss) for loss in (0.2, 0.002))
    assert one.psf.n_basis < many.psf.n_basis
    assert peak_error(one, SKEWED) < 0.05
    smooth = determine_psf(*skewed, method="kl", inf_loss=0.2, smooth=1.0)
    assert np.max(smooth.psf.images_at(9.0, 9.0)) < 0.9 * np.max(one.psf.images_at(9.0, 9.0))
    with pytest.raises(ValueError, match="`smooth` is for"):
        determine_psf(*skewed, smooth=1.0)


def test_a_star_in_a_hollow_is_no_component(skewed):
    data, variance = skewed[0].copy(), skewed[1]
    found = determine_psf(data, variance, method="moffat", reserve=0.0)
    dim = found.used[-1]
    y, x = np.indices(data.shape)
    distance = np.hypot(x - dim["x"], y - dim["y"])
    # Beyond the pixels that are fitted, within those of the images.
    data[(distance > 13) & (distance < 20)] -= 0.004 * dim["flux"]
    kept = determine_psf(data, variance, method="kl", reserve=0.0)
    assert peak_error(kept, SKEWED) < 0.05


@pytest.mark.slow
def test_refinement_finds_what_the_profile_lacks(skewed):
    plain, refined = (
        determine_psf(*skewed, method="gaussian", degree=0, refine=r) for r in (False, True)
    )
    before, after = (validate_psf(*skewed, None, p) for p in (plain, refined))
    assert refined.settings["refine_width"] > 0
    assert before.chi2 > 1.2
    assert 0.9 < after.chi2 < 1.1


def test_bright_stars_that_are_wide_set_a_limit():
    rng = np.random.default_rng(4)
    peak = 10 ** rng.uniform(2, 4.5, 80)
    error = np.clip(3 / np.sqrt(peak), 0.003, None)
    noise = error * rng.normal(size=80)
    use = np.ones(80, bool)
    assert linear_limit(peak, noise, error, use) == np.inf
    wide = noise + 0.1 * np.maximum(peak / 1e4 - 1, 0)
    assert 0.5e4 < linear_limit(peak, wide, error, use) < 2e4
    # Narrow ones, as of cosmic rays, set none.
    assert linear_limit(peak, 2 * noise - wide, error, use) == np.inf


def test_stars_beyond_the_limit_are_told(skewed):
    data = np.where(skewed[0] > 4000, 4000 + 0.6 * (skewed[0] - 4000), skewed[0])
    found = determine_psf(data, skewed[1])
    limit = found.settings["linear_limit"]
    assert 3000 < limit < 7000
    assert (found.table["reason"] == "not linear").sum() > 2
    assert peak_error(found, SKEWED) < 0.03
