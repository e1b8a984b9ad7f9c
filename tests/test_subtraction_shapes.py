"""Images of awkward shapes, and input that is bad: right or refused, never NaN."""

import equinox as eqx
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from quick import hasty
from subtraction_fields import SIGMA_NEW, SIGMA_REFERENCE, field, gaussian_stamp

from diffdeblend.exposure import make_exposure
from diffdeblend.prepare import prepare
from diffdeblend.subtract import subtract
from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.variance import SystematicNoise
from diffdeblend.transients.find_transients import find_transients

BETA, EDGE = 0.7, 40
PSFS = [gaussian_stamp(s, lean=0.2) for s in (SIGMA_NEW, SIGMA_REFERENCE)]
ROUND = [gaussian_stamp(s) for s in (SIGMA_NEW, SIGMA_REFERENCE)]
SHAPE, SKY = (150, 180), 500.0
POINT = (110, 60, 4000.0)


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def textbook(new, reference, variance_new, variance_reference):
    """D, S_corr, flux and its error by the letter of the paper, on images with mirrored edges."""
    images = [np.pad(a, EDGE, mode="symmetric") for a in (new, reference)]
    variances = [np.pad(a, EDGE, mode="symmetric") for a in (variance_new, variance_reference)]
    shape = images[0].shape
    planes = []
    for stamp in PSFS:
        padded = np.zeros(shape)
        padded[:17, :17] = stamp
        planes.append(np.fft.fft2(np.roll(padded, (-8, -8), axis=(0, 1))))
    p_n, p_r = planes
    sky_n, sky_r = np.median(variance_new), np.median(variance_reference)
    power = sky_n * abs(p_r) ** 2 + sky_r * BETA**2 * abs(p_n) ** 2
    power += 1e-8 * (sky_n + sky_r * BETA**2)
    n, r = map(np.fft.fft2, images)
    k_n = BETA * p_n.conj() * abs(p_r) ** 2 / power
    k_r = BETA**2 * p_r.conj() * abs(p_n) ** 2 / power
    d = np.fft.ifft2((p_r * n - BETA * p_n * r) / np.sqrt(power)).real
    s = np.fft.ifft2(k_n * n - k_r * r).real
    variance = sum(
        np.fft.ifft2(np.fft.fft2(v) * np.fft.fft2(np.fft.ifft2(k).real ** 2)).real
        for v, k in zip(variances, (k_n, k_r), strict=True)
    )
    f_s = np.mean(BETA**2 * abs(p_n * p_r) ** 2 / power)
    maps = d, s / np.sqrt(variance), s / f_s, np.sqrt(variance) / f_s
    return [a[EDGE:-EDGE, EDGE:-EDGE] for a in maps]


@pytest.mark.parametrize(
    "shape", [(400, 1024), (257, 255), pytest.param((681, 1023), marks=pytest.mark.slow)]
)
def test_awkward_shapes_equal_the_paper(shape):
    rng = np.random.default_rng(1)
    slope = np.linspace(1, 1.5, shape[1]) + 0 * np.arange(shape[0])[:, None]
    variances = 400 * slope, 200 * slope[::-1, ::-1]
    images = [np.sqrt(v) * rng.normal(size=shape) for v in variances]
    images[0][shape[0] // 2, 60] += 8e3
    images[1][3, shape[1] - 4] += 8e3
    arrays = [a.astype(np.float32) for a in (*images, *variances)]
    skies = (np.float32(np.sqrt(np.median(v))) for v in arrays[2:])
    pair = ImagePair(*arrays, None, None, *skies, *np.float32([BETA, 0, 0]), SystematicNoise())
    psfs = [p.astype(np.float32) for p in PSFS]
    got = eqx.filter_jit(subtract_constant)(pair, *psfs, systematics=False)
    expected = textbook(*(a.astype(float) for a in arrays))
    inside = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    for name, values, least in zip(
        ("D", "S_corr", "flux", "flux_err"), expected, (1e-4, 2e-3, 2e-4, 2e-4), strict=True
    ):
        found = np.asarray(getattr(got, name))
        assert found.shape == shape
        assert np.isfinite(found).all()
        scale = np.abs(values).max() if name.startswith("flux") else 1
        np.testing.assert_allclose(found[inside] / scale, values[inside] / scale, atol=least)
    # At the border, too: what lies beyond is the mirror image in both.
    np.testing.assert_allclose(got.D, expected[0], atol=3e-3)


@pytest.fixture(scope="module")
def raw():
    """Counts with a sky, of gain 1."""
    new, reference, *_ = field(SHAPE, 50, BETA, seed=5, extra=[POINT])
    return new + SKY, reference + SKY


def exposures(images, **given):
    return [
        make_exposure(image - SKY, np.full(SHAPE, SKY), psf, **given)
        for image, psf in zip(images, ROUND, strict=True)
    ]


def found(new, reference, **settings):
    settings = {
        "psf": tuple(ROUND),
        "beta": BETA,
        "shift": (0.0, 0.0),
        "background": 0.0,
        **settings,
    }
    return find_transients(new, reference, shift_degree=0, gain=1.0, **settings)


def check(result):
    """Maps are finite and the new star has its flux."""
    difference = result.difference
    for name in ("D", "S", "S_corr", "flux", "flux_err"):
        assert np.isfinite(np.asarray(getattr(difference, name))).all()
    x, y, flux = POINT
    pull = (float(difference.flux[0, y, x]) - flux) / float(difference.flux_err[0, y, x])
    assert abs(pull) < 5
    assert len(result.transients) >= 1
    first = result.transients[0]
    assert np.hypot(float(first["x"]) - x, float(first["y"]) - y) < 1


def with_nan(image):
    image = image.copy()
    image[20:40, 30:60] = np.nan
    image[:, 0] = np.inf
    return image


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.round(image).clip(0, 65535).astype(np.uint16),
        lambda image: image.astype(">f4"),
        lambda image: fits.PrimaryHDU(np.round(image).clip(0, 65535).astype(np.uint16)),
        with_nan,
    ],
    ids=["uint16", "big-endian", "HDU of uint16", "NaN"],
)
def test_numbers_of_all_kinds_give_the_same(raw, change):
    check(found(*map(change, raw)))


@pytest.mark.slow
def test_what_is_given_may_be_mixed_with_what_is_measured(raw):
    new, reference = raw
    moved = np.roll(new, 1, axis=1) + 20
    both = found(moved, reference, beta="fit", background="fit", shift=(1.0, 0.0), box_size=None)
    assert float(both.difference.beta[0]) == pytest.approx(BETA, rel=0.01)


def test_variances_that_are_not_positive_are_not_used(raw):
    _, reference = exposures(raw)
    variance = np.full(SHAPE, SKY)
    variance[50:60, 20:50] = np.nan
    holed = make_exposure(raw[0] - SKY, variance, ROUND[0])
    difference = subtract(holed, reference, fit=None, beta=BETA)
    for name in ("D", "S", "S_corr", "flux", "flux_err"):
        assert np.isfinite(np.asarray(getattr(difference, name))).all()
    assert bool(difference.bad[0, 55, 35])
    with pytest.raises(ValueError, match="no usable pixel"):
        make_exposure(raw[0] - SKY, np.full(SHAPE, np.nan), ROUND[0])
    for sigma in (0.0, -1.0):
        with pytest.raises(ValueError, match="`variance` must be positive"):
            make_exposure(raw[0] - SKY, np.full(SHAPE, sigma), ROUND[0])
    for sigma in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="pixel"):
            prepare(raw[0], variance=np.full(SHAPE, sigma))


@pytest.mark.slow
def test_a_psf_may_be_larger_than_the_image(raw):
    wide = [gaussian_stamp(s, 201) for s in (SIGMA_NEW, SIGMA_REFERENCE)]
    check(found(*raw, psf=tuple(wide)))


def test_pairs_that_do_not_go_together_are_refused(raw):
    new, reference = raw
    with pytest.raises(ValueError, match="`new` and `reference` need the same number"):
        found(new, reference[:-3])
    with pytest.raises(ValueError, match="odd"):
        found(new, reference, psf=np.full((12, 12), 1 / 144))
    nothing = np.random.default_rng(0).normal(SKY, SKY**0.5, SHAPE)
    with pytest.raises(ValueError, match="it has no star"):
        found(nothing, nothing, psf=None)
    with pytest.raises(ValueError, match="pixel"):
        found(new, reference, mask=np.ones(SHAPE, bool))
    with pytest.raises(ValueError, match="pixel"):
        prepare(np.full(SHAPE, np.nan))
    with pytest.raises(ValueError, match="without noise"):
        prepare(np.full(SHAPE, 7.0))
    with pytest.raises(ValueError, match="overlap"):
        found(*exposures_far_apart(raw), align="wcs")


def exposures_far_apart(images):
    pair = []
    for image, ra in zip(images, (10.0, 50.0), strict=True):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [ra, 5.0], [90, 75], [-1e-4, 1e-4]
        pair.append(fits.PrimaryHDU(image.astype(np.float32), wcs.to_header()))
    return pair
