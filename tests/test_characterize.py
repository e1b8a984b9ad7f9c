"""Sky, stars and PSF of an image in turns."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.characterize import characterize
from diffdeblend.detect.psf_width import determinant_radius
from diffdeblend.io.stamps import placeholder_psf
from diffdeblend.psf import GaussianPSF
from diffdeblend.simulate import make_field, moffat_basis
from diffdeblend.stars import validate_psf


def make(shape, n_stars, n_galaxies, seed):
    """A field on a sky with a slope, that knows no PSF; and the field as it is."""
    psf = moffat_basis(shape, lambda u, v: 0.7 * (1 + 0.05 * u), 3.0)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    field = make_field(
        shape,
        "r",
        n_stars=n_stars,
        n_galaxies=n_galaxies,
        star_magnitudes=(18.5, 22.0),
        galaxy_magnitudes=(19.0, 25.0),
        depth=26.0,
        psf=psf,
        sky=1000 + 20 * x + 10 * y,
        seed=seed,
    )
    blind = eqx.tree_at(lambda e: e.psf, field.exposure, GaussianPSF(np.array([1.5 * 2.355])))
    return field, blind


def check(field, found, level=0.02):
    """Width at nine places, level of the sky, and what each star is for."""
    ny, nx = field.exposure.shape
    x, y = map(np.ravel, np.meshgrid(np.linspace(0.1, 0.9, 3) * nx, np.linspace(0.1, 0.9, 3) * ny))
    true, got = (
        np.array([determinant_radius(np.asarray(stamp[0])) for stamp in psf.images_at(x, y)])
        for psf in (field.exposure.psf, found.exposure.psf)
    )
    assert np.abs(got / true - 1).max() < 0.01
    noise = np.sqrt(np.asarray(field.exposure.variance))
    assert abs(np.median((found.sky - field.sky) / noise)) < level
    catalog = found.catalog
    candidate, used, reserved = (
        np.asarray(catalog[f"calib_psf_{name}"]) for name in ("candidate", "used", "reserved")
    )
    assert candidate[used].all()
    assert candidate[reserved].all()
    assert not (used & reserved).any()
    assert abs(reserved.sum() - 0.2 * candidate.sum()) <= 1


@pytest.fixture(scope="module")
def small():
    field, blind = make((700, 800), 40, 40, 3)
    return field, characterize(blind)


def test_width_sky_and_stars_are_found_from_no_psf(small):
    field, found = small
    check(field, found)
    assert all(found.settled)
    assert len(found.history) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_a_field_of_2048_pixels_in_two_rounds(seed):
    field, blind = make((2048, 2048), 80, 150, seed)
    check(field, characterize(blind, rounds=2, max_rounds=2, measurements=None))


def test_the_catalog_shows_that_stars_have_one_size(small):
    _, found = small
    catalog = found.catalog
    trace = np.asarray(catalog["shape_xx"] + catalog["shape_yy"])
    psf = np.asarray(catalog["psf_shape_xx"] + catalog["psf_shape_yy"])
    used = np.asarray(catalog["calib_psf_used"]) & ~np.asarray(catalog["shape_flag"])
    assert used.sum() > 10
    assert np.median(trace[used] / psf[used]) == pytest.approx(1, abs=0.02)
    assert (np.asarray(catalog["size_extendedness_value"])[used] < 0.1).all()
    # All light but that in the wings of a Moffat of 3.
    whole = used & ~np.asarray(catalog["aperture_flag_12"])
    ratio = np.asarray(catalog["aperture_flux_12"] / catalog["psf_flux"])[whole]
    assert 0.9 < np.median(ratio) < 1.02


@pytest.mark.slow
def test_a_psf_that_only_holds_the_place_is_no_start(small):
    field, found = small
    blind = eqx.tree_at(lambda e: e.psf, field.exposure, placeholder_psf(1))
    one = characterize(blind, rounds=1, max_rounds=1, measurements=None)
    assert one.history["sigma"][0] == pytest.approx(found.history["sigma"][-1], rel=0.02)
    assert "shape_xx" not in one.catalog.colnames


def test_the_sky_and_what_is_left_are_the_image(small):
    field, found = small
    total = np.asarray(found.exposure.image) + found.sky
    np.testing.assert_allclose(total, np.asarray(field.exposure.image), atol=5e-4)


def test_reserve_stars_leave_noise_alone(small):
    _, found = small
    report = validate_psf(found.exposure, psf=found.stars[0], size=25)
    # RMS of what is left over the noise of a pixel, of stars that the PSF does not know.
    left = np.sqrt(np.asarray(report.table["chi2"], float))
    assert np.median(left) < 1.1
    assert 0.9 < report.chi2 < 1.15


@pytest.mark.slow
def test_cosmic_rays_are_filled_and_marked(small):
    field, _ = small
    image = np.array(field.exposure.image)
    at = np.random.default_rng(0).integers(20, 680, (40, 2))
    image[0, at[:, 0], at[:, 1]] += 300.0
    hit = eqx.tree_at(lambda e: e.image, field.exposure, jnp.asarray(image))
    found = characterize(hit, measurements=None)
    marked = np.asarray(found.exposure.flag("CR"))[0]
    assert marked[at[:, 0], at[:, 1]].mean() > 0.95
    assert marked.sum() < 3 * len(at)
    assert np.asarray(found.exposure.flag("INTRP"))[0][marked].all()
    check(field, found)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rounds": 3, "max_rounds": 2}, "`rounds`"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"sigma": -1.0}, "`sigma`"),
        ({"cosmic_rays": "some"}, "`cosmic_rays`"),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    _, blind = make((64, 64), 1, 1, 0)
    with pytest.raises(ValueError, match=named):
        characterize(blind, **wrong)
