"""Footprints and peaks: thresholds, peaks, growth, mask planes and what is left of the sky."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from diffdeblend.background import SurfaceFit
from diffdeblend.detect import (
    Threshold,
    connected_above,
    detect_footprints,
    determinant_radius,
    gaussian_kernel,
    peaks_of_labels,
    smooth_image,
    threshold_level,
)
from diffdeblend.exposure import make_exposure

EIGHT = np.ones((3, 3))
PLAIN: dict[str, Any] = {"background": None, "local_background": None}


def gaussian(sigma, size=25):
    at = np.arange(size) - size // 2
    image = np.exp(-0.5 * (at[:, None] ** 2 + at**2) / sigma**2)
    return image / image.sum()


def with_sources(shape, sources, seed=0, noise=1.0):
    """Gaussians (x, y, flux, sigma) on noise."""
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    image = noise * np.random.default_rng(seed).normal(size=shape)
    for cx, cy, flux, sigma in sources:
        shape_ = np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / sigma**2)
        image += flux * shape_ / (2 * np.pi * sigma**2)
    return image.astype(np.float32)


def exposure_of(image, variance=1.0, sigma=1.8, **settings):
    return make_exposure(image, variance, gaussian(sigma), **settings)


def grid_of_stars(n=20, step=32, flux=400.0, seed=1):
    image = np.random.default_rng(seed).normal(size=(n * step, n * step))
    star = gaussian(1.8, 31)
    for j, i in itertools.product(range(n), range(n)):
        image[j * step : j * step + 31, i * step : i * step + 31] += flux * star
    return image.astype(np.float32)


def slow_components(values, threshold, min_pixels, multiplier):
    """scipy's labels, in its order, without those that are too small or too faint."""
    with np.errstate(invalid="ignore"):
        labels, n = ndimage.label(values >= threshold, EIGHT)
        bright = values >= multiplier * threshold
    out = np.zeros_like(labels)
    count = 0
    for label in range(1, n + 1):
        here = labels == label
        if here.sum() >= min_pixels and bright[here].any():
            count += 1
            out[here] = count
    return out


def slow_peaks(values, labels):
    """(label, x, y) pixel by pixel; the first by x, then y, of equal ones is first."""
    found = []
    ny, nx = values.shape
    for label in range(1, labels.max() + 1):
        pixels = np.argwhere(labels == label)
        mine = []
        for y, x in pixels:
            if 0 < y < ny - 1 and 0 < x < nx - 1:
                around = values[y - 1 : y + 2, x - 1 : x + 2]
                if not (around > values[y, x]).any():
                    mine.append((-values[y, x], x, y))
        if not mine:
            mine = [min((-values[y, x], x, y) for y, x in pixels)]
        found += [(label, x, y) for _, x, y in sorted(mine)]
    return found


@pytest.mark.parametrize("kind", ["pixel_stdev", "stdev", "variance", "value"])
@pytest.mark.parametrize("sign", [1, -1])
def test_components_and_peaks_are_those_of_a_slow_loop(kind, sign):
    cases = itertools.product((1, 5, 20), (1, 2, 10))
    for seed, (min_pixels, multiplier) in enumerate(itertools.islice(itertools.cycle(cases), 13)):
        random = np.random.default_rng(100 + seed)
        image = ndimage.gaussian_filter(random.normal(size=(37, 52)), 1.5)
        image = (image / image.std()).astype(np.float32)
        image[random.random(image.shape) < 0.02] *= 12
        variance = random.uniform(0.5, 2, image.shape).astype(np.float32)
        smoothed = smooth_image(image, variance, None, None)
        smoothed.image[random.random(image.shape) < 0.02] = np.nan
        level = threshold_level(smoothed, 0.9, kind)
        values = sign * smoothed.image
        full = np.broadcast_to(level.threshold, values.shape)
        rule = {"min_pixels": min_pixels, "include_multiplier": multiplier}
        found = connected_above(values, level.threshold, **rule)
        assert np.array_equal(found.labels, slow_components(values, full, min_pixels, multiplier))
        assert found.areas.tolist() == np.bincount(found.labels.ravel())[1:].tolist()
        peaks = peaks_of_labels(values, found.labels)
        expected = slow_peaks(values, found.labels)
        assert list(zip(peaks.label, peaks.x, peaks.y, strict=True)) == expected
        assert np.array_equal(peaks.value, values[peaks.y, peaks.x])


def test_thresholds_of_scatter():
    random = np.random.default_rng(2)
    image = random.normal(size=(200, 150)).astype(np.float32)
    image[:40] += 50
    hidden = np.zeros(image.shape, bool)
    hidden[:40] = True

    def number(kind, image=image, hidden=hidden):
        smoothed = smooth_image(image, np.ones_like(image), None, None)
        return float(threshold_level(smoothed, 5.0, kind, hidden).threshold[0, 0])

    assert number("stdev") == pytest.approx(5 * 0.985, rel=0.02)
    assert number("stdev", hidden=None) == number("variance", hidden=None)
    # The masks of "stdev" have no say in "variance".
    assert number("variance") == number("stdev", hidden=None)
    assert number("stdev", 3 * image) == pytest.approx(3 * number("stdev"), rel=1e-5)
    assert number("value", 3 * image) == number("value") == 5
    with pytest.raises(ValueError, match="`threshold_type` must be"):
        number("sigma")
    with pytest.raises(ValueError, match="none is left"):
        number("stdev", hidden=np.ones_like(hidden))


def test_scatter_does_not_care_for_the_unit_and_a_value_does():
    image = with_sources((150, 130), [(40, 50, 900, 1.8), (90, 100, 300, 1.8)])

    def found(kind, scale):
        made = exposure_of(scale * image, scale**2)
        return detect_footprints(made, threshold=6.0, threshold_type=kind, **PLAIN).positive

    masks = {k: found(k, 1).to_mask() for k in ("stdev", "variance", "pixel_stdev", "value")}
    assert np.array_equal(masks["stdev"], masks["variance"])
    for kind in ("stdev", "pixel_stdev"):
        assert len(found(kind, 100)) == 2
        assert np.array_equal(found(kind, 128).to_mask(), masks[kind])
    assert found("value", 128).areas.sum() > 2 * masks["value"].sum()


def test_a_plateau_has_one_peak():
    values = np.zeros((20, 30))
    values[3:6, 4:9] = 5  # its middle is a pixel
    values[10:12, 10:14] = 3
    values[11, 14] = 4  # above the plateau: that one is no peak
    values[15, 20:23] = 2
    labels = (values > 0).astype(np.int32)
    labels[9:] *= 2
    labels[14:] = 3 * (values[14:] > 0)
    found = peaks_of_labels(values, labels)
    assert list(zip(*found[:3], strict=True)) == [(1, 4, 6), (2, 11, 14), (3, 15, 21)]


def test_at_the_border_the_brightest_pixel_is_the_peak():
    values = np.zeros((9, 12))
    values[0, 3:6] = 1, 7, 3
    values[4, 11] = 2
    values[6, 0:2] = 5, 4
    labels = ndimage.label(values > 0)[0]
    found = peaks_of_labels(values, labels)
    assert list(zip(found.y, found.x, strict=True)) == [(0, 4), (4, 11), (6, 0)]
    # Of a region, its own border.
    inner = peaks_of_labels(values, labels, (slice(0, 8), slice(0, 11)))
    assert list(zip(inner.y, inner.x, strict=True)) == [(0, 4), (4, 11), (6, 0)]


def test_equal_stars_are_all_found():
    made = exposure_of(grid_of_stars())
    found = detect_footprints(made)
    assert found.n_positive == found.n_positive_peaks == 400
    assert found.n_negative == 0
    assert found.sigma == pytest.approx(1.8, abs=1e-3)
    assert found.n_grow == int(2.4 * found.sigma + 0.5)
    at = np.arange(20) * 32 + 15
    assert (
        np.abs(np.sort(np.unique(found.positive.peaks.x)) - at.repeat(1)[:, None]).min(1).max() <= 1
    )
    noise = np.sqrt(np.sum(gaussian_kernel(found.sigma) ** 2))
    assert found.positive.peaks.significance == pytest.approx(
        found.positive.peaks.value / noise, rel=1e-4
    )
    # Its true signal-to-noise ratio: a matched filter of a star of this flux.
    assert np.median(found.positive.peaks.significance) == pytest.approx(
        400 / np.sqrt(4 * np.pi) / 1.8, rel=0.03
    )
    assert np.array_equal(np.asarray(found.exposure.flag("DETECTED"))[0], found.positive.to_mask())


def test_the_kernel_and_where_it_does_not_fit():
    image = with_sources((180, 140), [(70, 90, 3000, 4.0), (40, 45, 300, 1.5)])
    made = exposure_of(image, sigma=1.5)
    blob, star = [], []
    for sigma, width in ((5, 35), (7, 49), (10, 71)):
        kernel = gaussian_kernel(sigma)
        taps = np.exp(-0.5 * (np.arange(width) - width // 2) ** 2 / sigma**2)
        taps /= taps.sum()
        assert kernel == pytest.approx(np.outer(taps, taps), abs=1e-9)
        found = detect_footprints(made, sigma=sigma, **PLAIN)
        half = width // 2
        assert found.smoothed.middle.shape == (180 - width + 1, 140 - width + 1)
        slow = ndimage.correlate1d(ndimage.correlate1d(image, taps, 0), taps, 1)
        assert found.smoothed.middle == pytest.approx(slow[half:-half, half:-half], abs=1e-4)
        edge = np.ones(image.shape, bool)
        edge[half:-half, half:-half] = False
        assert np.array_equal(np.asarray(found.exposure.flag("EDGE"))[0], edge)
    for sigma in (1.5, 2.5, 4.0):
        found = detect_footprints(made, sigma=sigma, **PLAIN)
        significance = found.smoothed.image / found.smoothed.noise
        blob.append(significance[90, 70])
        star.append(significance[45, 40])
    assert blob == sorted(blob)
    assert star == sorted(star, reverse=True)


def test_faint_wide_light_needs_a_wide_kernel():
    made = exposure_of(with_sources((200, 220), [(120, 90, 200, 7.0)], seed=5))
    assert detect_footprints(made, **PLAIN).n_positive == 0
    found = detect_footprints(made, sigma=7, **PLAIN)
    assert found.n_positive == 1
    assert np.hypot(found.positive.peaks.x[0] - 120, found.positive.peaks.y[0] - 90) < 5


def test_a_psf_for_a_kernel():
    y, x = np.mgrid[-12:13, -12:13]
    psf = (1 + (x**2 / 4 + (x + 2 * y) ** 2 / 30)) ** -2.5
    image = with_sources((120, 100), [], seed=6)
    image[20:45, 30:55] += 20 * psf
    made = make_exposure(image, 1.0, psf)
    taps = psf / psf.sum()
    found = detect_footprints(made, kernel="psf", grow=0, **PLAIN)
    peak = found.positive.peaks[0]
    matched = np.sum(image[20:45, 30:55] * taps) / np.sqrt(np.sum(taps**2))
    # A correlation, not a convolution: the PSF is not the same upside down.
    assert found.smoothed.image[32, 42] / np.sqrt(np.sum(taps**2)) == pytest.approx(matched)
    assert abs(peak.x[0] - 42) <= 1
    assert abs(peak.y[0] - 32) <= 1
    narrower = detect_footprints(made, **PLAIN).positive.peaks[0].significance
    assert 0.9 * matched < narrower[0] < matched * 1.05


def test_the_width_of_a_psf():
    galsim = pytest.importorskip("galsim")
    for beta, shear in ((2.5, 0.0), (3.5, 0.2)):
        profile = galsim.Moffat(beta, fwhm=3.7).shear(g1=shear, g2=-shear / 2)
        image = profile.drawImage(nx=41, ny=35, scale=1)
        moments = galsim.hsm.FindAdaptiveMom(image)
        assert determinant_radius(image.array) == pytest.approx(moments.moments_sigma, rel=2e-5)
    with pytest.raises(ValueError, match="no core"):
        determinant_radius(-np.ones((9, 9)))


def test_bright_ones_alone():
    sources = [(40, 40, 5000, 1.8), (90, 50, 300, 1.8), (60, 90, 1200, 1.8)]
    made = exposure_of(with_sources((130, 120), sources))
    every = detect_footprints(made, grow=0, **PLAIN)
    bright = detect_footprints(made, include_multiplier=10, grow=0, **PLAIN)
    assert (every.n_positive, bright.n_positive) == (3, 2)
    areas = dict(zip(every.positive.peaks.value, every.positive.areas, strict=True))
    for footprint in bright.positive:
        assert footprint.peaks.significance[0] >= 50
        assert footprint.area == areas[footprint.peaks.value[0]]


def test_light_above_and_below():
    sources = [(30, 40, 600, 1.8), (80, 50, -400, 1.8), (84, 57, -900, 1.8)]
    made = exposure_of(with_sources((100, 120), sources))
    both = detect_footprints(made, polarity="both", **PLAIN)
    assert (both.n_positive, both.n_negative, both.n_negative_peaks) == (1, 1, 2)
    # The deepest first.
    assert both.negative.peaks.value[0] < both.negative.peaks.value[1] < 0
    assert (both.negative.peaks.significance > 5).all()
    below = detect_footprints(made, polarity="negative", **PLAIN)
    assert (below.n_positive, below.n_negative) == (0, 1)
    flags = {p: np.asarray(below.exposure.flag(p))[0] for p in ("DETECTED", "DETECTED_NEGATIVE")}
    assert not flags["DETECTED"].any()
    assert flags["DETECTED_NEGATIVE"][57, 84]
    turned = detect_footprints(exposure_of(-np.asarray(made.image)[0]), **PLAIN)
    assert np.array_equal(turned.positive.to_mask(), below.negative.to_mask())


@pytest.mark.parametrize("stencil", ["circle", "manhattan"])
def test_growth(stencil):
    sources = [(30, 40, 600, 1.8), (46, 41, 600, 1.8), (90, 9, 600, 1.8)]
    made = exposure_of(with_sources((90, 110), sources))
    small = detect_footprints(made, grow=0, combined=False, **PLAIN)
    assert small.n_positive == 3
    grown = detect_footprints(made, stencil=stencil, **PLAIN)
    r = grown.n_grow
    dy, dx = np.mgrid[-r : r + 1, -r : r + 1]
    window = {"circle": dy**2 + dx**2 <= r**2, "manhattan": abs(dy) + abs(dx) <= r}[stencil]
    slow = ndimage.binary_dilation(small.positive.to_mask(), window)
    assert np.array_equal(grown.positive.to_mask(), slow)
    assert len(grown.positive) == ndimage.label(slow, EIGHT)[1] == 2
    assert sorted(grown.positive.n_peaks) == [1, 2]
    each = detect_footprints(made, stencil=stencil, combined=False, **PLAIN)
    assert len(each.positive) == 3
    assert (each.positive.n_peaks == 1).all()


def test_peaks_on_a_slope_are_found_without_it():
    # A ripple on the light of a wide source: many peaks, but few that stand out by themselves.
    image = with_sources((256, 256), [(128, 128, 4e5, 30.0), (150, 128, 300, 1.8)], seed=9)
    made = exposure_of(image)
    plain = detect_footprints(made, **PLAIN)
    local = detect_footprints(made, background=None)
    assert np.array_equal(plain.positive.to_mask(), local.positive.to_mask())
    assert 1 <= local.n_positive_peaks < 0.5 * plain.n_positive_peaks
    inside = local.positive.to_mask()[local.positive.peaks.y, local.positive.peaks.x]
    assert inside.all()


def test_what_is_left_of_the_sky_goes():
    y, x = np.mgrid[:300, :256]
    sky = 0.1 + 0.1 * np.sin(x / 150) + 0.0003 * y
    places = np.random.default_rng(11).uniform(10, 240, (25, 2))
    image = with_sources((300, 256), [(*at, 2000, 1.8) for at in places], seed=11)
    clean = detect_footprints(exposure_of(image))
    made = exposure_of(image + sky)
    found = detect_footprints(made, background=SurfaceFit(64))
    assert len(found.background) == 1
    assert np.sqrt(np.mean((found.background_image - sky) ** 2)) < 0.05
    again = np.asarray(found.exposure.image)[0] + found.background_image
    assert again == pytest.approx(np.asarray(made.image)[0], abs=1e-4)
    assert detect_footprints(made, background=None).background == ()
    assert len(clean.positive) <= 25


def test_a_wide_background_goes_for_a_while():
    n = 512
    _y, x = np.mgrid[:n, :n]
    image = grid_of_stars(16, 32, 100.0, seed=3)
    tilt = (20 * x / 1000).astype(np.float32)
    wide = SurfaceFit(128, "akima", ignored=("BAD", "EDGE", "NO_DATA"))
    flat = detect_footprints(exposure_of(image), wide_background=wide, **PLAIN)
    made = exposure_of(image + tilt)
    found = detect_footprints(made, wide_background=wide, **PLAIN)
    assert flat.n_positive == pytest.approx(256, abs=8)
    assert abs(found.n_positive - flat.n_positive) <= 0.01 * 256
    assert np.array_equal(np.asarray(found.exposure.image), np.asarray(made.image))
    assert detect_footprints(made, **PLAIN).n_positive != flat.n_positive


def test_planes_of_one_band_alone():
    image = with_sources((80, 90), [(40, 40, 900, 1.8)])
    cube = np.stack([image, np.zeros_like(image)])
    made = make_exposure(cube, 1.0, np.stack([gaussian(1.8)] * 2), bands=("g", "r"))
    made = made.with_mask("DETECTED", np.ones((80, 90), bool)).with_mask("CR", cube > 30)
    found = detect_footprints(made, band="g", sigma=1.8)
    flags = np.asarray(found.exposure.flag("DETECTED"))
    assert flags[1].all()
    assert 20 < flags[0].sum() < 400
    assert np.array_equal(np.asarray(found.exposure.flag("CR")), np.asarray(made.flag("CR")))
    assert np.array_equal(np.asarray(found.exposure.image)[1], cube[1])
    with pytest.raises(ValueError, match="`band` must be one of"):
        detect_footprints(made)


def test_pixels_that_are_not_used():
    image = with_sources((90, 100), [(50, 40, 900, 1.8)])
    spoiled = image.copy()
    spoiled[:, 51] = 1e6
    spoiled[10:20, 10:20] = np.nan
    variance = np.random.default_rng(1).uniform(0.8, 1.2, image.shape)
    made = make_exposure(spoiled, variance, gaussian(1.8)).with_mask("CR", spoiled > 1e5)
    found = detect_footprints(made, **PLAIN)
    assert found.n_positive == 1
    assert len(found.positive[0].peaks) == 1
    peak = found.positive[0].peaks
    assert abs(peak.x[0] - 50) <= 1
    assert abs(peak.y[0] - 40) <= 1
    # Against sums over the pixels in use alone.
    kernel = gaussian_kernel(found.sigma)
    half = len(kernel) // 2
    part = np.s_[40 - half : 41 + half, 50 - half : 51 + half]
    weight = kernel * (spoiled[part] < 1e5)
    value = (weight * image[part]).sum() / weight.sum()
    noise = np.sqrt((weight**2 * variance[part]).sum()) / weight.sum()
    assert found.smoothed.image[40, 50] == pytest.approx(value, rel=1e-4)
    assert found.smoothed.noise[40, 50] == pytest.approx(noise, rel=1e-4)
    small = detect_footprints(made, grow=0, combined=False, **PLAIN)
    flagged = made.with_mask("SUSPECT", image > 5)
    avoided = detect_footprints(flagged, avoid=["SUSPECT"], grow=0, combined=False, **PLAIN)
    assert not (avoided.positive.to_mask() & (image > 5)).any()
    assert np.array_equal(avoided.positive.to_mask() | (image > 5), small.positive.to_mask())
    assert small.positive[0].contains(51, 40)
    with pytest.raises(ValueError, match="`excluded` and `avoid`"):
        detect_footprints(made, avoid=["MOON"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"threshold": 0}, "`threshold` must be"),
        ({"min_pixels": 0}, "`min_pixels` must be"),
        ({"polarity": "up"}, "`polarity` must be"),
        ({"kernel": "box"}, "`kernel` must be"),
        ({"sigma": -1}, "`sigma` must be"),
        ({"sigma": 20}, "`kernel` of"),
        ({"grow": np.nan}, "`grow` must be"),
        ({"stencil": "star"}, "`stencil` must be"),
    ],
)
def test_wrong_settings_are_named(setting, said):
    with pytest.raises(ValueError, match=said):
        detect_footprints(exposure_of(with_sources((60, 50), [])), **setting)


def test_nothing_is_found_in_nothing():
    found = detect_footprints(exposure_of(np.zeros((60, 50), np.float32)))
    assert (found.n_positive, found.n_positive_peaks, found.n_negative) == (0, 0, 0)
    assert not found.positive.to_mask().any()
    assert "0 positive" in repr(found)


def test_false_positives_of_white_noise():
    image = np.random.default_rng(101).normal(size=(1024, 1024)).astype(np.float32)
    at_three = {}
    for sigma, expected in ((1.6, 1460 / 4), (2.0, 999 / 4)):
        made = exposure_of(image, sigma=sigma)
        plain = {"grow": 0, "combined": False, **PLAIN}
        at_three[sigma] = detect_footprints(made, threshold=3.0, **plain).n_positive
        # 1,460 and 999 on 2,048 x 2,048 pixels; a quarter of it scatters by 5 to 6 %.
        assert at_three[sigma] == pytest.approx(expected, rel=0.15)
        assert detect_footprints(made, **plain).n_positive <= 2
    assert at_three[1.6] > at_three[2.0]


def test_pixels_just_at_the_threshold():
    image = np.zeros((20, 30))
    image[5:8, 6:9], image[12:14, 20:23] = 2.0, 3.0
    level, nothing = np.full(image.shape, 2.0), np.zeros(image.shape, bool)
    arguments = image, level, nothing, np.zeros_like(image)
    assert Threshold(1)(*arguments).n_labels == 1
    found = Threshold(1, inclusive=True)(*arguments)
    assert np.array_equal(found.data, connected_above(image, level).labels)
    assert found.n_labels == 2


def completeness_at_five(seed):
    """Share of Gaussians of a signal-to-noise ratio of 5 that have a pixel in a footprint."""
    random = np.random.default_rng(seed)
    sigma, step, n = 1.8, 36, 32
    image = random.normal(size=(n * step + 40, n * step + 40))
    flux = 5 * np.sqrt(4 * np.pi) * sigma
    at = np.arange(-12, 13)
    places = []
    for j, i in itertools.product(range(n), range(n)):
        y, x = 35 + j * step, 35 + i * step
        dx, dy = random.uniform(-0.5, 0.5, 2)
        star = np.exp(-0.5 * ((at[:, None] - dy) ** 2 + (at - dx) ** 2) / sigma**2)
        image[y - 12 : y + 13, x - 12 : x + 13] += flux * star / (2 * np.pi * sigma**2)
        places.append((y, x))
    found = detect_footprints(exposure_of(image, sigma=sigma), grow=0, combined=False, **PLAIN)
    mask = found.positive.to_mask()
    return [mask[y - 2 : y + 3, x - 2 : x + 3].any() for y, x in places]


def test_some_stars_at_the_threshold_are_found():
    # The noise moves half of them above it; the best pixel of several a few more.
    assert np.mean(completeness_at_five(120)) == pytest.approx(0.57, abs=0.06)


@pytest.mark.slow
def test_stars_at_the_threshold():
    found = np.concatenate([completeness_at_five(seed) for seed in range(121, 125)])
    assert len(found) >= 4000
    assert found.mean() == pytest.approx(0.57, abs=0.03)


@pytest.mark.parametrize("beta", [2.5, 3.5, 4.8])
def test_a_gaussian_loses_little_of_a_moffat(beta):
    galsim = pytest.importorskip("galsim")
    psf = galsim.Moffat(beta, fwhm=3.5).drawImage(nx=41, ny=41, scale=1).array
    kernel = gaussian_kernel(determinant_radius(psf))
    cut = 20 - len(kernel) // 2
    part = psf[cut : 41 - cut, cut : 41 - cut]
    ratio = (part * kernel).sum() / np.sqrt((kernel**2).sum() * (psf**2).sum())
    assert 0.99 < ratio < 1


@pytest.mark.slow
def test_false_positives_of_large_fields():
    counts = {}
    for seed, sigma in itertools.product((100, 101, 102), (1.6, 2.0)):
        image = np.random.default_rng(seed).normal(size=(2048, 2048)).astype(np.float32)
        made = exposure_of(image, sigma=sigma)
        for threshold in (3.0, 5.0):
            settings = {"threshold": threshold, "grow": 0, "combined": False, **PLAIN}
            n = detect_footprints(made, **settings).n_positive
            counts.setdefault((sigma, threshold), []).append(n)
    assert np.mean(counts[1.6, 3.0]) == pytest.approx(1460, rel=0.1)
    assert np.mean(counts[2.0, 3.0]) == pytest.approx(999, rel=0.1)
    assert max(counts[1.6, 5.0] + counts[2.0, 5.0]) <= 4
