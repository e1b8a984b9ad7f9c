"""One exposure brought onto the pixels of another, by stars or by the sky."""

import numpy as np
import pytest
from astropy.wcs import WCS
from test_prepare import drawn

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.prepare import align, bright_points, find_alignment, match_stars

SHAPE = 300, 380
FWHM_NEW, FWHM = 3.4, 2.6


def matrix(shift, degrees, scale=1.0):
    c, s = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def exposure(light, seed, wcs=None, mask=None):
    rng = np.random.default_rng(seed)
    noise = 100 + light
    image = light + rng.normal(size=light.shape) * np.sqrt(noise)
    return make_exposure(image, noise, GaussianPSF(np.float32([3.0])), wcs=wcs, mask=mask)


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(21)
    # Beyond the borders, too: rotation brings other stars in.
    x, y = rng.uniform(-60, SHAPE[1] + 60, 150), rng.uniform(-60, SHAPE[0] + 60, 150)
    return x, y, 10 ** rng.uniform(3, 4.8, 150)


def moved(x, y, m):
    return m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]


@pytest.mark.parametrize(
    ("shift", "degrees", "scale"),
    [((2.64, -1.98), 0.2, 1.0), ((31.0, -22.5), 14.0, 1.02), ((370.0, 295.0), 180.0, 1.0)],
)
def test_stars_give_the_map_between_two_images(sky, shift, degrees, scale):
    x, y, flux = sky
    truth = matrix(shift, degrees, scale)
    onto = exposure(drawn(x, y, flux, SHAPE, FWHM_NEW), 1)
    other = exposure(drawn(*moved(x, y, truth), flux, SHAPE), 2)
    found = find_alignment(other, onto)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tx, ty = moved(xx, yy, truth)
    rms = np.sqrt(np.mean((found.x - tx) ** 2 + (found.y - ty) ** 2))
    assert rms < 0.05


def test_an_aligned_image_is_that_of_the_sky(sky):
    x, y, flux = sky
    truth = matrix((3.3, -1.7), 0.2)
    light = drawn(*moved(x, y, truth), flux, SHAPE, 3.0)
    mask = np.zeros(SHAPE, bool)
    mask[100:102, 200:230] = True
    other = exposure(light, 2, mask=mask)
    onto = exposure(drawn(x, y, flux, SHAPE, FWHM_NEW), 1)
    found = align(other, onto)
    wanted = drawn(x, y, flux, SHAPE, 3.0)
    good = np.asarray(found.good)[0]
    pull = (np.asarray(found.image[0]) - wanted) / np.sqrt(np.asarray(found.variance[0]))
    # Resampling averages noise a little, and no star is left over.
    assert 0.8 < pull[good].std() < 1.1
    assert np.abs(pull[good]).max() < 6
    assert found.shape == onto.shape
    assert 0.97 < good.mean() < 0.999
    # The flaw has gone along, and what was not seen is without data.
    assert not good[101:103, 210].any()
    assert np.asarray(found.flag("NO_DATA"))[0, :, -1].all()


def test_the_sky_gives_the_map_too(sky):
    x, y, flux = sky
    truth = matrix((12.3, -7.4), 3.0)
    maps = []
    for place in (np.eye(2, 3), truth):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.crval = 150.0, 2.2
        px, py = moved(200.0, 150.0, place)
        wcs.wcs.crpix = px + 1, py + 1
        wcs.wcs.cd = np.diag([-0.2, 0.2]) / 3600 @ np.linalg.inv(place[:, :2])
        maps.append(wcs)
    onto = exposure(drawn(x, y, flux, SHAPE, FWHM_NEW), 1, maps[0])
    other = exposure(drawn(*moved(x, y, truth), flux, SHAPE), 2, maps[1])
    found = find_alignment(other, onto, method="wcs")
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tx, ty = moved(xx, yy, truth)
    np.testing.assert_allclose(found.x, tx, atol=1e-3)
    np.testing.assert_allclose(found.y, ty, atol=1e-3)
    by_stars = find_alignment(other, onto)
    assert np.abs(found.x - by_stars.x).max() < 0.15
    assert align(other, onto, method=found, order=3).header.wcs is maps[0]
    maps[1].wcs.crval = 151.0, 2.2
    with pytest.raises(ValueError, match="do not overlap"):
        find_alignment(other, onto, method="wcs")


def test_light_is_kept_where_pixels_are_smaller(sky):
    x, y, flux = (v[:25] for v in sky)
    # All of them well inside of both.
    x, y = 60 + 0.5 * (x + 60), 50 + 0.45 * (y + 60)
    truth = matrix((20.0, 10.0), 5.0, 0.8)
    light = drawn(*moved(x, y, truth), flux, SHAPE, 3.0)
    other = make_exposure(light, np.full(SHAPE, 1.0), GaussianPSF(np.float32([3.0])))
    onto = make_exposure(
        drawn(x, y, flux, SHAPE, 4.0), np.full(SHAPE, 1.0), GaussianPSF(np.float32([4.0]))
    )
    found = align(other, onto)
    total, expected = np.asarray(found.image).sum(), light.sum()
    assert total == pytest.approx(expected, rel=0.01)


def test_centroids_are_those_of_the_stars(sky):
    x, y, flux = (v[:40] for v in sky)
    light = drawn(x, y, flux, SHAPE)
    cx, cy, _ = bright_points(light.astype("f4"), np.zeros(SHAPE, bool), 1.0, fwhm=FWHM)
    apart = np.hypot(cx[:, None] - x, cy[:, None] - y).min(1)
    assert np.median(apart) < 0.02


def test_lists_without_stars_in_common_give_nothing():
    rng = np.random.default_rng(0)
    assert match_stars(rng.uniform(0, 100, (3, 2)), rng.uniform(0, 100, (30, 2))) is None
    empty = exposure(np.zeros(SHAPE), 0)
    with pytest.raises(ValueError, match="share too few stars"):
        find_alignment(empty, exposure(np.zeros(SHAPE), 1))


def test_bad_settings_are_named(monkeypatch, sky):
    import sys

    one = exposure(drawn(*sky, SHAPE), 0)
    with pytest.raises(ValueError, match="`method` must be"):
        find_alignment(one, one, method="luck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`exposure` has no WCS"):
        find_alignment(one, one, method="wcs")
    with pytest.raises(ValueError, match="`order` must be"):
        align(one, one, order=7)
    monkeypatch.setitem(sys.modules, "astroalign", None)
    with pytest.raises(ImportError, match=r"diffdeblend\[interop\]"):
        find_alignment(one, one, method="astroalign")


def test_astroalign_agrees(sky):
    pytest.importorskip("astroalign", reason="astroalign is not installed")
    x, y, flux = sky
    truth = matrix((3.3, -1.7), 0.2)
    onto = exposure(drawn(x, y, flux, SHAPE, FWHM_NEW), 1)
    other = exposure(drawn(*moved(x, y, truth), flux, SHAPE), 2)
    ours, theirs = (find_alignment(other, onto, method=m) for m in ("stars", "astroalign"))
    assert np.abs(ours.x - theirs.x).max() < 0.3
