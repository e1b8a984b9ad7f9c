"""The PSF of simulated stars against the one they were drawn with."""

import galsim
import numpy as np
import pytest

from diffdeblend.stars import determine_psf, validate_psf

NY, NX, SKY = 420, 640, 100.0


def truth(x, y):
    u, v = 2 * x / NX - 1, 2 * y / NY - 1
    profile = galsim.Moffat(beta=3.0, fwhm=2.8 * (1 + 0.05 * u - 0.03 * v))
    return profile.shear(g1=0.03 + 0.02 * v, g2=-0.02 * u)


def draw(seed):
    """Ninety stars with Poisson noise on a sky that was taken away."""
    rng = np.random.default_rng(seed)
    image = galsim.ImageD(galsim.BoundsI(0, NX - 1, 0, NY - 1))
    for x, y, flux in zip(
        rng.uniform(3, NX - 4, 90),
        rng.uniform(3, NY - 4, 90),
        10 ** rng.uniform(3.6, 5.3, 90),
        strict=True,
    ):
        column, row = round(x), round(y)
        box = galsim.BoundsI(column - 25, column + 25, row - 25, row + 25)
        star = (truth(x, y) * flux).drawImage(
            bounds=box, scale=1.0, offset=(x - column, y - row), dtype=float
        )
        image[box & image.bounds] += star[box & image.bounds]
    data = rng.poisson(image.array + SKY) - SKY
    return data, np.maximum(data, 0) + SKY


@pytest.fixture(scope="module")
def field():
    data, variance = draw(1)
    mask = np.zeros(data.shape, bool)
    # A dead column.
    mask[:, 300] = True
    data[:, 300] = -500.0
    return data, variance, mask, determine_psf(data, variance, mask)


def test_the_truth_is_found_at_all_places(field):
    psf = field[3].psf
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(30, NX - 30, 5), [30, 200, NY - 30]))
    images = np.asarray(psf.images_at(x, y))[:, 0].astype(float)
    size = images.shape[-1]
    for image, at_x, at_y in zip(images, x, y, strict=True):
        right = truth(at_x, at_y).drawImage(nx=size, ny=size, scale=1.0, dtype=float).array
        right /= right.sum()
        assert np.abs(image - right).max() < 0.015 * right.max()
        ours, theirs = (galsim.hsm.FindAdaptiveMom(galsim.Image(i)) for i in (image, right))
        assert ours.moments_sigma == pytest.approx(theirs.moments_sigma, rel=0.007)
        assert ours.observed_shape.e1 == pytest.approx(theirs.observed_shape.e1, abs=0.01)
        assert ours.observed_shape.e2 == pytest.approx(theirs.observed_shape.e2, abs=0.01)


def test_unit_sum_everywhere_and_the_difference_of_two_places_has_none(field):
    images = np.asarray(field[3].psf.images_at(np.array([0.0, 639.0]), np.array([419.0, 0.0])))
    np.testing.assert_allclose(images.sum(axis=(2, 3)), 1, atol=1e-6)
    difference = images[0] - images[1]
    assert abs(difference.sum()) < 1e-6
    assert np.abs(difference).max() > 1e-3


def test_every_star_is_used_reserved_or_told_why_not(field):
    table = field[3].table
    assert not (table["used"] & table["reserved"]).any()
    assert (table["used"] <= table["is_star"]).all()
    assert (np.asarray(table["reason"] == "") == np.asarray(table["used"])).all()
    assert len(field[3].reserved) == round(0.2 * table["is_star"].sum())


def test_reserve_stars_leave_noise_alone(field):
    data, variance, mask, star_psf = field
    report = validate_psf(data, variance, mask, star_psf)
    assert 0.9 < report.chi2 < 1.15
    assert report.excess < 0.03
    assert abs(report.size_error) < 0.02
    assert report.stamps.shape == report.models.shape == (len(report), 21, 21)


def test_a_wrong_psf_is_seen_by_the_same_stars(field):
    data, variance, mask, star_psf = field
    blurred = np.asarray(star_psf.psf.images).copy()
    blurred += 0.5 * (np.roll(blurred, 1, -1) + np.roll(blurred, -1, -1))
    wrong = type(star_psf.psf)(
        blurred, star_psf.psf.coefficients, star_psf.psf.shape, star_psf.psf.degree
    )
    xy = np.stack([np.asarray(star_psf.reserved[name], float) for name in ("x", "y")], axis=1)
    report = validate_psf(data, variance, mask, wrong, positions=xy)
    assert report.chi2 > 1.5
    assert report.size_error < -0.05


def test_big_endian_images_of_a_constant_variance_are_taken(field):
    data, _, mask, star_psf = field
    found = determine_psf(data.astype(">f4"), 1.3 * SKY, mask)
    assert found.fwhm == pytest.approx(star_psf.fwhm, rel=0.01)


def test_bad_input_is_named():
    image = np.zeros((40, 50))
    with pytest.raises(ValueError, match="shape \\(y, x\\)"):
        determine_psf(np.zeros(5), np.ones(5))
    with pytest.raises(ValueError, match="`variance` needs the shape"):
        determine_psf(image, np.ones((50, 40)))
    with pytest.raises(ValueError, match="`variance` is needed"):
        determine_psf(image)
    with pytest.raises(ValueError, match="no pixel that is finite"):
        determine_psf(image, np.ones_like(image), np.ones_like(image))
    with pytest.raises(ValueError, match="no source stands out"):
        determine_psf(image, np.ones_like(image))
    with pytest.raises(ValueError, match="`method`"):
        determine_psf(image, np.ones_like(image), method="psfex")
    with pytest.raises(ValueError, match="`psf` must be"):
        validate_psf(image, np.ones_like(image), None, None)


def test_an_image_of_it_is_where_it_was_put_with_its_flux(field):
    psf = field[3].psf.at(200.0, 150.0)
    image = np.asarray(psf.image[0], float)
    size = image.shape[0]
    middle = np.arange(size) - size // 2
    for dx, dy in ((0.0, 0.0), (0.3, -0.4), (0.5, 0.5)):
        k = 2 * np.pi * np.fft.fftfreq(size)
        phase = np.exp(-1j * (k * dx + k[:, None] * dy))
        moved = np.fft.ifft2(np.fft.fft2(image) * phase).real
        weight = np.exp(-0.5 * ((middle - dx) ** 2 + (middle[:, None] - dy) ** 2) / 1.2**2)
        total = (moved * weight).sum()
        assert moved.sum() == pytest.approx(1, abs=1e-3)
        assert ((middle - dx) * moved * weight).sum() / total == pytest.approx(0, abs=0.005)
        assert ((middle[:, None] - dy) * moved * weight).sum() / total == pytest.approx(
            0, abs=0.005
        )
