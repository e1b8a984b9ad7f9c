"""A raw image becomes an exposure: sky, noise, flaws, whatever it comes as."""

from pathlib import Path

import astropy.io.fits as fits
import numpy as np
import pytest

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.prepare import gain_of_sky, measure_sky, pixel_variance, prepare, saturation_level

NY, NX = 260, 330
FWHM = 2.6
GAIN = 2.0
PAIR = Path(__file__).parents[2] / "shared" / "data"


def stars(rng, n=60, shape=(NY, NX), fwhm=FWHM, low=3.0, high=4.7):
    """Light of Moffat stars (beta 3.5), and their places; three of them at the borders."""
    ny, nx = shape
    x, y = rng.uniform(0, nx - 1, n), rng.uniform(0, ny - 1, n)
    x[0], y[1], x[2] = 0.3, ny - 1.2, nx - 1.0
    flux = 10 ** rng.uniform(low, high, n)
    return x, y, flux, drawn(x, y, flux, shape, fwhm)


def drawn(x, y, flux, shape, fwhm=FWHM):
    a = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for sx, sy, f in zip(x, y, flux, strict=True):
        r2 = (xx - sx) ** 2 + (yy - sy) ** 2
        image += f * 2.5 / (np.pi * a**2) * (1 + r2 / a**2) ** -3.5
    return image


@pytest.fixture(scope="module")
def field():
    """Electrons through a gain of 2, sky of 400 with a slope, no read noise, in ADU."""
    rng = np.random.default_rng(5)
    yy, xx = np.mgrid[:NY, :NX]
    sky = 400 * (1 + 0.06 * (xx / NX - 0.5) - 0.04 * (yy / NY - 0.5))
    x, y, flux, light = stars(rng)
    raw = rng.poisson((light + sky) * GAIN) / GAIN
    return raw.astype(np.float32), sky, x, y, flux, light


def test_the_sky_is_measured_to_hundredths_of_its_noise(field):
    raw, sky, _, _, _, light = field
    found = measure_sky(raw, np.zeros(raw.shape, bool), box_size=64)
    sigma = np.sqrt(sky / GAIN)
    off = (found.level - sky) / sigma
    # Sixteen boxes of which stars leave half: each knows its mean to 0.022 sigma.
    assert abs(off.mean()) < 0.025
    assert off.std() < 0.05
    # The slope goes on to the border, where a spline of boxes alone is off by 0.15 sigma.
    edge = np.r_[off[:8].ravel(), off[-8:].ravel(), off[:, :8].ravel(), off[:, -8:].ravel()]
    assert np.sqrt(np.mean(edge**2)) < 0.06
    assert np.median(found.rms / sigma) == pytest.approx(1, abs=0.015)
    # Stars are seen as such.
    assert found.sources[light > 3 * sigma].mean() > 0.98


def test_variance_is_that_of_repeated_draws(field):
    sky, light = field[1][:130, :165], field[5][:130, :165]
    rng = np.random.default_rng(1)
    draws = rng.poisson((light + sky) * GAIN, (200, *sky.shape)) / GAIN
    truth = draws.var(axis=0, ddof=1)
    found = pixel_variance(light.astype(np.float32), np.sqrt(sky / GAIN), GAIN)
    bright = (light > 200) & (light < 2000)
    assert np.median(truth[bright] / found[bright]) == pytest.approx(1, abs=0.06)
    empty = light < 5
    assert np.mean(truth[empty] / found[empty]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("level", "noise"), [(900.0, 8.0), (300.0, 0.0)])
def test_gain_from_the_sky_gives_the_noise_back(level, noise):
    gain = 1.7
    rms = np.sqrt(level / gain + (noise / gain) ** 2)
    assert gain_of_sky(level, rms, noise or None) == pytest.approx(gain, rel=1e-9)
    # A frame that has lost its sky says nothing.
    assert gain_of_sky(0.1, rms) is None
    assert gain_of_sky(-5.0, rms) is None


def test_prepared_exposure_has_unit_pulls_and_says_where_its_numbers_are_from(field):
    raw, _, _, _, _, light = field
    done = prepare(raw, psf=None, box_size=64)
    exposure, record = done.exposure, done.record[0]
    pull = (np.asarray(exposure.image[0]) - light) / np.sqrt(np.asarray(exposure.variance[0]))
    good = np.asarray(exposure.good[0])
    assert good.mean() > 0.999
    assert pull[good].std() == pytest.approx(1, abs=0.02)
    assert abs(pull[good].mean()) < 0.02
    assert record.gain == pytest.approx(GAIN, rel=0.03)
    assert (record.gain_from, record.saturation_from, record.n_no_data) == ("sky", "none", 0)
    # Pixels widen a star of 2.6.
    assert record.fwhm == pytest.approx(2.65, abs=0.15)
    np.testing.assert_allclose(exposure.image[0] + done.background[0], raw, atol=1e-3)


@pytest.mark.parametrize("kind", ["uint16", "big-endian", "HDU", "file", "masked", "float64"])
def test_every_kind_of_source_gives_the_same(field, kind, tmp_path):
    counts = np.round(field[0])
    expected = prepare(counts.astype(np.float32), psf=None, gain=GAIN)
    card = fits.Header([("GAIN", GAIN), ("FILTER", "r"), ("EXPTIME", 30.0)])
    hdu = fits.PrimaryHDU(counts.astype(np.uint16), card)
    if kind == "file":
        hdu.writeto(tmp_path / "raw.fits")
    source = {
        "uint16": counts.astype(np.uint16),
        "big-endian": counts.astype(">i4"),
        "HDU": hdu,
        "file": tmp_path / "raw.fits",
        "masked": np.ma.masked_array(counts.astype(np.float32), np.zeros(counts.shape, bool)),
        "float64": counts,
    }[kind]
    found = prepare(source, psf=None, gain=None if kind in ("HDU", "file") else GAIN)
    assert found.exposure.image.dtype == np.float32
    np.testing.assert_allclose(found.exposure.image, expected.exposure.image, atol=2e-3)
    np.testing.assert_allclose(found.exposure.variance, expected.exposure.variance, rtol=1e-5)
    np.testing.assert_array_equal(found.exposure.mask, expected.exposure.mask)
    if kind in ("HDU", "file"):
        assert found.exposure.bands == ("r",)
        assert found.record[0].gain_from == "header"
        assert found.exposure.header.exposure_time == 30


def test_an_exposure_keeps_its_variance_psf_and_planes(field):
    raw = field[0]
    mask = np.zeros((NY, NX), bool)
    mask[10:12] = True
    psf = GaussianPSF(np.float32([2.5]))
    given = make_exposure(raw, np.full((NY, NX), 321.0), psf, mask=mask, bands="g")
    done = prepare(given).exposure
    assert done.bands == ("g",)
    assert done.psf is psf
    np.testing.assert_allclose(done.variance, 321.0)
    assert np.asarray(done.flag("BAD"))[0, 10:12].all()
    measured = prepare(given, variance="measure", psf=None).exposure
    assert np.median(measured.variance) == pytest.approx(400 / GAIN, rel=0.05)


def test_a_frame_without_sky_is_not_masked_by_value(field):
    raw, sky, *_ = field
    done = prepare((raw - sky).astype(np.float32), psf=None, gain=GAIN)
    assert np.asarray(done.exposure.good).mean() > 0.999
    left = prepare((raw - sky).astype(np.float32), psf=None, gain=GAIN, box_size=None)
    np.testing.assert_allclose(left.exposure.image[0], raw - sky, atol=1e-3)
    assert prepare((raw - sky).astype(np.float32), psf=None).record[0].gain_from == "none"


def test_clipped_and_dead_pixels_and_those_without_data_are_masked_and_filled(field):
    raw = np.minimum(field[0], 1500).copy()
    raw[40:60, 100:130] = np.nan
    raw[:, 200] = 0
    done = prepare(raw, psf=None)
    exposure, record = done.exposure, done.record[0]
    full, bad = np.asarray(exposure.flag("SAT"))[0], np.asarray(exposure.flag("BAD"))[0]
    assert record.saturation == 1500
    assert (record.saturation_from, record.n_no_data) == ("image", 600)
    assert full[raw == 1500].all()
    # One pixel around, no more.
    assert full.sum() < 4 * (raw == 1500).sum()
    column = np.isfinite(raw[:, 200])
    assert (bad[:, 200] | np.asarray(exposure.flag("SAT"))[0, :, 200])[column].mean() > 0.99
    assert bad.sum() < 1.1 * NY
    assert np.isfinite(exposure.image).all()
    assert np.asarray(exposure.flag("INTRP"))[0, 45, 110]
    assert not np.asarray(exposure.good)[0][~np.isfinite(raw)].any()


def test_saturation_is_not_seen_where_there_is_none(field):
    raw = field[0]
    assert saturation_level(raw, 400.0, 14.0) is None
    # Counts of a faint image repeat, too.
    faint = np.random.default_rng(2).poisson(2.0, (100, 130)).astype(np.float32)
    assert saturation_level(faint, 2.0, 1.4) is None
    assert saturation_level(np.full((4, 5), np.nan), 0.0, 1.0) is None


def test_several_bands_are_prepared_each_by_itself(field):
    raw = field[0]
    done = prepare(np.stack([raw, 3 * raw]), psf=None, bands=("g", "r"))
    assert done.exposure.image.shape == (2, NY, NX)
    np.testing.assert_allclose(done.background[1], 3 * done.background[0], rtol=1e-4)
    assert done.record[0].gain == pytest.approx(3 * done.record[1].gain, rel=1e-3)


@pytest.mark.parametrize("shape", [(64, 300), (101, 40)])
def test_odd_and_long_images(shape):
    rng = np.random.default_rng(0)
    done = prepare(rng.normal(100, 5, shape), psf=None)
    assert done.exposure.shape == shape
    assert np.isfinite(done.exposure.image).all()
    assert done.record[0].n_cosmic_rays is None
    assert np.median(done.background_rms) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": np.ones((NY, NX), bool)}, "`mask` leaves no pixel"),
        ({"mask": np.zeros((NX, NY), bool)}, "`mask` needs the shape"),
        ({"source": np.full((NY, NX), 7.0)}, "sky without noise"),
        ({"source": np.full((NY, NX), np.nan)}, "leaves no pixel"),
        ({"source": "nowhere.fits"}, "`source`: there is no file"),
        ({"source": np.zeros(7)}, "`source` needs shape"),
        ({"source": np.array([["a"]])}, "`source` must be a path"),
        ({"gain": -1.0}, "`gain` must be finite and positive"),
        ({"saturation": "high"}, "`saturation` must be one positive number"),
        ({"box_size": 3}, "`box_size` must be"),
        ({"grow_saturated": -1}, "`grow_saturated` must be"),
        ({"psf": "airy"}, '`psf` must be "auto"'),
        ({"variance": np.zeros((NY, NX))}, "`variance` must be positive"),
        ({"variance": np.ones((3, 3))}, "`variance` needs the shape"),
        ({"variance": "guess"}, "`variance` must be an array"),
        ({"cosmic_rays": "sometimes"}, "`cosmic_rays` must be"),
    ],
)
def test_bad_input_is_named(field, change, says):
    with pytest.raises(ValueError, match=says):
        prepare(**({"source": field[0], "psf": None} | change))


@pytest.mark.slow
def test_the_psf_comes_from_the_stars(field):
    done = prepare(field[0], bands="r")
    assert done.stars is not None
    # Moffat of 2.6 pixels drawn at the middles of pixels.
    assert done.stars[0].fwhm == pytest.approx(2.45, abs=0.2)
    np.testing.assert_array_equal(done.exposure.psf.images, done.stars[0].psf.images)


@pytest.mark.skipif(
    not (PAIR / "aligned_eso085-030-004.fit").exists(),
    reason="shared/data/aligned_eso085-030-004.fit is not beside the project",
)
def test_hot_pixels_of_a_real_pair_are_found_in_both():
    pair = [prepare(PAIR / f"aligned_eso085-030-00{k}.fit", psf=None) for k in (4, 5)]
    rays = [np.asarray(one.exposure.flag("CR"))[0] for one in pair]
    # The telescope did not move between them: what is sharp in both is the detector's.
    assert (rays[0] & rays[1]).sum() > 0.6 * min(rays[0].sum(), rays[1].sum())
    assert max(one.sum() for one in rays) < 1500
    for one in pair:
        assert one.record[0].saturation == 65535
        assert one.record[0].gain == pytest.approx(1.52, abs=0.2)
        assert np.asarray(one.exposure.good).mean() > 0.99
