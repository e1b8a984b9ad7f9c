"""Every figure against another code, a slow loop, or a case that can be done by hand."""

import numpy as np
import pytest

from diffdeblend.score import fluxes, images
from diffdeblend.score.apertures import Aperture, circle_flux
from diffdeblend.score.detection import (
    Counts,
    average_precision,
    count,
    efficiency_matrix,
    precision_recall,
)
from diffdeblend.score.matching import match
from diffdeblend.score.shapes import adaptive_moments, ksb_ellipticity
from diffdeblend.score.uncertainty import Bootstrap


def galaxies(n, shape=(31, 37), seed=0):
    """Smooth blobs off the middle, brighter and fainter, wider than high."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    found = []
    for _ in range(n):
        cx, cy = rng.uniform(8, shape[1] - 8), rng.uniform(8, shape[0] - 8)
        width, height = rng.uniform(2, 4), rng.uniform(1.5, 3)
        found.append(
            rng.uniform(50, 500)
            * np.exp(-0.5 * ((x - cx) / width) ** 2 - 0.5 * ((y - cy) / height) ** 2)
        )
    return np.array(found)


# Detection


def test_ratios_are_of_sums():
    # 1 of 1 and 0 of 9: the mean of the two recalls would be 0.5.
    blends = [match([[0, 0]], [[0, 0]]), match(np.zeros((9, 2)), np.zeros((0, 2)))]
    total = count(blends)
    assert total == Counts(1, 1, 10)
    assert (total.recall, total.precision) == (0.1, 1.0)
    assert total.f1 == pytest.approx(2 / 11)


@pytest.mark.parametrize(
    ("counts", "precision", "recall", "f1"),
    [
        (Counts(0, 0, 0), 1, 1, 1),
        (Counts(0, 0, 4), 0, 0, 0),
        (Counts(0, 4, 0), 0, 1, 0),
        (Counts(0, 2, 3), 0, 0, 0),
        (Counts(2, 4, 3), 1 / 2, 2 / 3, 4 / 7),
    ],
)
def test_ratios_are_defined_for_every_count(counts, precision, recall, f1):
    assert (counts.precision, counts.recall) == (precision, recall)
    assert counts.f1 == pytest.approx(f1)


@pytest.mark.parametrize("numbers", [(3, 2, 5), (3, 5, 2), (-1, 2, 2)])
def test_impossible_counts_are_refused(numbers):
    with pytest.raises(ValueError, match="`matched` must be between 0 and"):
        Counts(*numbers)


def test_efficiency_matrix():
    matched, truth = np.array([0, 1, 2, 2, 1]), np.array([1, 1, 3, 2, 3])
    matrix = efficiency_matrix(matched, truth)
    assert matrix.tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]]
    shares = efficiency_matrix(matched, truth, normalized=True)
    assert shares.tolist() == [[0, 0.5, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0.5]]
    assert efficiency_matrix([], []).tolist() == [[0]]
    with pytest.raises(ValueError, match="`matched` needs integers of at least 0"):
        efficiency_matrix(np.array([0.5]), np.array([1]))


def test_precision_and_recall_agree_with_cutting_at_every_rank():
    rng = np.random.default_rng(3)
    for _ in range(50):
        n = int(rng.integers(1, 12))
        # Ties, too.
        rank, matched = rng.integers(0, 6, n).astype(float), rng.random(n) < 0.6
        n_truth = int(matched.sum() + rng.integers(0, 4))
        precision, recall = precision_recall(rank, matched, n_truth)
        thresholds = np.unique(rank)[::-1]
        kept = [rank >= threshold for threshold in thresholds]
        np.testing.assert_allclose(precision, [matched[k].mean() for k in kept])
        if n_truth:
            np.testing.assert_allclose(recall, [matched[k].sum() / n_truth for k in kept])


def test_average_precision():
    # By hand: 1 x 1/4, 1 x 1/4, 3/4 x 1/4; the fourth source is never found.
    precision, recall = precision_recall([9, 8, 7, 6], [True, True, False, True], 4)
    assert average_precision(precision, recall) == pytest.approx(0.25 + 0.25 + 0.75 * 0.25)
    # Settings of a detector, in any order.
    assert average_precision(precision[::-1], recall[::-1]) == pytest.approx(0.6875)
    assert average_precision([], []) == 0
    with pytest.raises(ValueError, match="`recall` must be between 0 and 1"):
        average_precision([1.0], [1.5])
    with pytest.raises(ValueError, match="`matched` has 2 matches for 1 sources"):
        precision_recall([1, 2], [True, True], 1)


# Images


def test_residuals_by_hand():
    truth, found = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    truth[0, 1, 2], found[0, 1, 2], found[0, 0, 0] = 4, 1, 4
    assert images.msr(truth, found).tolist() == [25 / 12, 0]
    assert images.rmse(truth, found).tolist() == [np.sqrt(25 / 12), 0]
    np.testing.assert_allclose(images.relative_residual(truth, found), [5 / 4, np.nan])
    np.testing.assert_allclose(images.psnr(truth, found), [10 * np.log10(16 * 12 / 25), np.nan])
    np.testing.assert_allclose(
        images.cosine_similarity(truth, found), [4 / (4 * np.sqrt(17)), np.nan]
    )


def test_padded_slots_do_not_shift_later_sources():
    # An image without light in the middle: a code that keeps the first of each would compare
    # the third source with nothing.
    truth = galaxies(3)
    found = np.array([truth[0], np.zeros_like(truth[0]), truth[2]])
    assert images.rmse(truth, found)[[0, 2]].tolist() == [0, 0]
    assert images.rmse(truth, found)[1] > 1
    seg = truth > 20
    assert images.iou(seg, np.array([seg[0], np.zeros_like(seg[0]), seg[2]])).tolist() == [1, 0, 1]
    assert images.iou(seg[:2] & False, np.array([seg[0], seg[0] & False]))[0] == 0
    assert np.isnan(images.iou(seg[:1] & False, seg[:1] & False)[0])


def test_half_the_flux_is_seen():
    truth = galaxies(1)
    assert images.psnr(truth, truth / 2, mode="btk")[0] == np.inf
    assert images.ssim(truth, truth / 2, mode="btk")[0] == pytest.approx(1)
    # mean (t/2)^2 against max(t)^2.
    expected = 10 * np.log10(4 * truth.max() ** 2 / np.mean(truth**2))
    np.testing.assert_allclose(images.psnr(truth, truth / 2), [expected])
    assert images.ssim(truth, truth / 2)[0] < 0.95
    assert images.ssim(truth, truth)[0] == 1
    assert images.psnr(truth, truth)[0] == np.inf


@pytest.mark.parametrize("mode", ["flux", "btk"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ssim_and_psnr_agree_with_scikit_image(mode, dtype):
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(4)
    truth = galaxies(6, (64, 51))
    found = np.maximum(truth * rng.uniform(0.5, 1.5, (6, 1, 1)), 0)
    found[1] += np.roll(truth[1], 3, axis=1) * 0.4
    # Alike but for a corner; unlike everywhere; dark where the truth is bright, as a mask cuts.
    found[2], found[2, :4, :4] = truth[2], 9
    found[3] += np.abs(rng.normal(0, 30, found[3].shape))
    found[4] *= truth[4] > 40
    # A faint veil: no part of it may be left out.
    found[5] = truth[5] + 2e-4 * truth[5].max()
    truth, found = truth.astype(dtype), found.astype(dtype)
    for t, p in zip(truth, found, strict=True):
        a = t.astype(float) / t.max()
        b = p.astype(float) / (t.max() if mode == "flux" else p.max())
        expected = metrics.structural_similarity(a, b, data_range=1)
        assert images.ssim(t, p, mode=mode) == pytest.approx(expected, abs=1e-6)
        eleven = metrics.structural_similarity(a, b, data_range=1, win_size=11)
        assert images.ssim(t, p, mode=mode, window=11) == pytest.approx(eleven, abs=1e-6)
        if not np.allclose(a, b, rtol=0, atol=1e-6):
            expected = metrics.peak_signal_noise_ratio(a, b, data_range=1)
            assert images.psnr(t, p, mode=mode) == pytest.approx(expected, abs=1e-6)


def test_all_at_once_is_one_by_one():
    truth, rng = galaxies(4), np.random.default_rng(5)
    found = truth * 0.9 + rng.normal(0, 2, truth.shape)
    both = images.compare(truth, found, btk=True)
    one = {
        "msr": images.msr(truth, found),
        "rmse": images.rmse(truth, found),
        "relative_residual": images.relative_residual(truth, found),
        "psnr": images.psnr(truth, found),
        "ssim": images.ssim(truth, found),
        "cosine": images.cosine_similarity(truth, found),
        "psnr_btk": images.psnr(truth, found, mode="btk"),
        "ssim_btk": images.ssim(truth, found, mode="btk"),
    }
    assert set(both) == set(one)
    for name, values in one.items():
        np.testing.assert_allclose(both[name], values, rtol=1e-12, err_msg=name)
    # One image or none, of any axes in front.
    assert np.shape(images.ssim(truth[0], found[0])) == ()
    shape = (2, 2, *truth.shape[1:])
    assert images.ssim(truth.reshape(shape), found.reshape(shape)).shape == (2, 2)
    assert all(values.shape == (0,) for values in images.compare(truth[:0], found[:0]).values())


def test_dark_or_spoilt_images_give_nan():
    truth, found = galaxies(3), galaxies(3)
    truth[0], found[1] = 0, 0
    found[2, 0, 0] = np.nan
    columns = images.compare(truth, found)
    assert np.isnan(columns["ssim"]).tolist() == [True, False, True]
    assert np.isnan(columns["psnr"]).tolist() == [True, False, True]
    assert np.isnan(columns["cosine"]).tolist() == [True, True, True]
    assert np.isfinite(columns["rmse"]).tolist() == [True, True, False]
    assert np.isnan(images.ssim(truth[1], found[1], mode="btk"))


def test_blendedness_and_snr_agree_with_loops():
    sources = galaxies(3)
    sources[1] *= 10
    own = images.blendedness(sources)
    for k in range(3):
        assert own[k] == pytest.approx(
            1 - np.sum(sources[k] ** 2) / np.sum(sources.sum(axis=0) * sources[k])
        )
    assert images.blendedness(sources[:1]) == pytest.approx(0)
    assert images.blendedness(np.concatenate([sources, 0 * sources[:1]]))[3] == 0
    assert images.blendedness(sources[:0]).shape == (0,)
    for image, value in zip(sources, images.snr(sources, 40.0), strict=True):
        terms = [pixel**2 / (pixel + 40) for pixel in image.ravel()]
        assert value == pytest.approx(np.sqrt(sum(terms)))
    # No sky: the square root of all electrons.
    assert images.snr(sources[0], 0.0) == pytest.approx(np.sqrt(sources[0].sum()))
    bands = np.stack([sources[0], sources[0]])
    assert images.snr(bands, [40.0, 4.0])[1] == images.snr(sources[0], 4.0)


def test_residual_images():
    sources = galaxies(3)
    noise = np.random.default_rng(6).normal(size=sources.shape[1:])
    residual = images.residual_images(sources.sum(axis=0) + noise, sources)
    np.testing.assert_allclose(residual, sources + noise, atol=1e-10)
    with pytest.raises(ValueError, match=r"`isolated` needs shape \(source, 31, 37\)"):
        images.residual_images(sources[0], sources[:, :5])


def test_true_segmentation():
    image = np.array([[11.0, 12.0], [12.1, -50.0]])
    assert images.true_segmentation(image, 16.0).tolist() == [[False, False], [True, False]]
    assert images.true_segmentation(image, 16.0, 2.9)[0, 1]
    with pytest.raises(ValueError, match="`noise_factor` and `sky` must be at least 0"):
        images.true_segmentation(image, -1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: images.msr(a, a[:, :-1]), "`found` needs the shape of `truth`"),
        (lambda a: images.msr(a[0, 0], a[0, 0]), r"`truth` needs shape \(..., y, x\); got \(37,\)"),
        (lambda a: images.psnr(a, a, mode="own"), "`mode` must be one of"),
        (lambda a: images.ssim(a, a, window=6), "`window` must be odd"),
        (lambda a: images.ssim(a, a, window=33), "`window` must be odd"),
        (lambda a: images.iou(a > 1, a), "`found` needs booleans, true on the source; got float64"),
        (lambda a: images.blendedness(a[0]), r"`isolated` needs shape \(..., source, y, x\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(galaxies(2))


# Apertures


@pytest.mark.parametrize("subpixels", [5, 1, 0])
def test_aperture_agrees_with_sep(subpixels):
    sep = pytest.importorskip("sep")
    rng = np.random.default_rng(7)
    # SEP sums single-precision pixels.
    image = rng.normal(10, 5, (41, 33)).astype(np.float32)
    for _ in range(100):
        # Also circles cut by the edge of the image.
        x, y, radius = rng.uniform(-3, 36), rng.uniform(-3, 44), rng.uniform(0.4, 9)
        flux, error, _ = sep.sum_circle(image, [x], [y], radius, var=7.0, subpix=subpixels)
        own = Aperture(radius, 7.0, subpixels)(image, None, x, y)
        np.testing.assert_allclose(own, [flux[0], error[0]], rtol=1e-12, atol=1e-12)
    # The middle of pixels' parts on the circle itself, where rounding decides.
    for radius in (3, 5, 6.5):
        flux, _, _ = sep.sum_circle(image, [16.0], [20.0], radius, subpix=subpixels)
        assert circle_flux(image, 16, 20, radius, subpixels)[0] == pytest.approx(flux[0], rel=1e-12)


def test_exact_aperture_is_a_disc():
    flat = np.full((30, 40), 2.0)
    flux, area = circle_flux(flat, 17.3, 12.9, 6.25, subpixels=0)
    assert area == pytest.approx(np.pi * 6.25**2, rel=1e-12)
    assert flux == pytest.approx(2 * area)
    # Half of it beyond the edge, which is half a pixel before the first centre.
    assert circle_flux(flat, -0.5, 12.9, 6.25, 0)[1] == pytest.approx(np.pi * 6.25**2 / 2)
    assert np.isnan(circle_flux(flat, np.nan, 1, 2)).all()
    assert circle_flux(flat, -20, 1, 2) == (0, 0)
    with pytest.raises(ValueError, match="`radius` must be positive; got 0"):
        Aperture(0)


# Shapes


@pytest.mark.parametrize("survey", ["LSST r", "HSC g"])
def test_ksb_with_the_psf_at_the_pixel_scale(survey):
    galsim = pytest.importorskip("galsim")
    fwhm, wavelength, mirror, obscured, pixel = {
        "LSST r": (0.81, 624.976, 8.36, 0.3926, 0.2),
        "HSC g": (0.79, 484.37, 8.3, 0.0209, 0.168),
    }[survey]
    airy = galsim.Airy(lam=wavelength, diam=mirror, obscuration=np.sqrt(obscured))
    psf = galsim.Convolve(galsim.Kolmogorov(fwhm=fwhm), airy)
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=1e5).shear(g1=0.30)
    image = galsim.Convolve(galaxy, psf).shift(0.07, -0.05).drawImage(nx=75, ny=81, scale=pixel)
    seen = psf.drawImage(nx=61, ny=61, scale=pixel).array
    middle = 37 + 0.07 / pixel, 40 - 0.05 / pixel
    g1, g2, g = ksb_ellipticity(image.array, seen, *middle)
    # KSB itself is 3 % above the true 0.3 here.
    assert g1 == pytest.approx(0.3, abs=0.012)
    assert abs(g2) < 1e-5
    assert g == pytest.approx(np.hypot(g1, g2))
    # The mistake to fear is a PSF at the scale that GalSim takes if it is not told one.
    if survey == "HSC g":
        wrong = psf.drawImage(nx=61, ny=61).array
        assert ksb_ellipticity(image.array, wrong, *middle)[0] < 0.27


def test_adaptive_moments_of_a_gaussian():
    galsim = pytest.importorskip("galsim")
    model = galsim.Gaussian(sigma=3.0, flux=50.0).shear(g1=0.2, g2=-0.1).shift(1.3, 0.4)
    image = model.drawImage(nx=61, ny=55, scale=1.0, method="no_pixel").array
    g1, g2, sigma = adaptive_moments(image, None, 31.0, 27.0)
    np.testing.assert_allclose([g1, g2, sigma], [0.2, -0.1, 3.0], atol=1e-4)


def test_shapes_of_nothing_are_nan():
    pytest.importorskip("galsim")
    psf = galaxies(1)[0]
    assert np.isnan(ksb_ellipticity(np.zeros((31, 37)), psf)).all()
    assert np.isnan(adaptive_moments(np.zeros((31, 37)))).all()
    with pytest.raises(ValueError, match=r"`image` needs shape \(y, x\); got \(1, 31, 37\)"):
        ksb_ellipticity(np.zeros((1, 31, 37)), psf)


# Fluxes


def test_flux_and_colour_errors():
    truth, found = np.array([100.0, 200, 0, 50]), np.array([110.0, np.nan, 5, -5])
    error = fluxes.flux_error(truth, found)
    np.testing.assert_allclose(error, [0.1, np.nan, np.nan, -1.1])
    np.testing.assert_allclose(fluxes.with_lost(error), [0.1, -1, -1, -1.1])
    other = np.array([50.0, 50, 50, 50])
    colour = fluxes.colour_error(truth, found, other, other)
    np.testing.assert_allclose(colour, [-2.5 * np.log10(1.1), np.nan, np.nan, np.nan])


def test_pulls_and_coverage_of_right_errors():
    rng = np.random.default_rng(8)
    truth, error = rng.uniform(10, 1000, 20000), rng.uniform(1, 50, 20000)
    found = truth + error * rng.normal(size=20000)
    pull = fluxes.pulls(truth, found, error)
    assert fluxes.coverage(pull, 1) == pytest.approx(fluxes.ONE_SIGMA, abs=0.012)
    assert fluxes.coverage(pull, 2) == pytest.approx(fluxes.TWO_SIGMA, abs=0.006)
    assert fluxes.bias(pull) == pytest.approx(0, abs=0.03)
    assert fluxes.scatter(pull) == pytest.approx(1, abs=0.03)
    assert np.isnan(fluxes.pulls([1.0, 1, 1], [1.0, np.nan, 1], [0.0, 1, np.nan])).all()
    for figure in (fluxes.coverage, fluxes.bias, fluxes.scatter):
        assert np.isnan(figure([np.nan]))


# Intervals


def test_quantiles_of_draws_are_numpys():
    rng = np.random.default_rng(9)
    blend = np.sort(rng.integers(0, 12, 40))
    values = rng.normal(size=40)
    values[3] = np.nan
    boot = Bootstrap(12, draws=50)
    own = boot.quantiles(values, blend, [0.0, 0.16, 0.5, 1.0])
    assert boot.times.sum(axis=1).tolist() == [12] * 50
    for draw, times in enumerate(boot.times):
        again = np.repeat(values, times[blend])
        again = again[np.isfinite(again)]
        np.testing.assert_allclose(own[:, draw], np.quantile(again, [0.0, 0.16, 0.5, 1.0]))
    # The slow way, with any function, has the same draws.
    slow = boot.statistic(lambda rows: float(np.nanmedian(values[rows])), blend)
    assert boot.quantile(values, blend) == pytest.approx(slow)


def test_interval_of_a_mean_has_its_standard_error():
    rng = np.random.default_rng(10)
    values = rng.normal(5, 2, 400)
    low, high = Bootstrap(400, draws=4000).mean(values, np.arange(400))
    assert (high - low) / 2 == pytest.approx(np.std(values) / 20, rel=0.06)
    assert low < np.mean(values) < high


def test_sources_of_a_blend_are_drawn_together():
    # Four alike in every blend are worth one.
    values = np.random.default_rng(11).normal(size=100)
    boot = Bootstrap(100, draws=2000)
    one = boot.mean(values, np.arange(100))
    assert boot.mean(np.repeat(values, 4), np.repeat(np.arange(100), 4)) == pytest.approx(one)


def test_ratio_of_the_same_code_is_one():
    rng = np.random.default_rng(12)
    values, blend = rng.exponential(size=60), np.repeat(np.arange(20), 3)
    boot = Bootstrap(20)
    assert boot.median_ratio(2 * values, values, blend) == pytest.approx((2, 2))
    missing = np.where(np.arange(60) % 5 == 0, np.nan, values)
    assert boot.median_ratio(2 * values, missing, blend) == pytest.approx((2, 2))


def test_intervals_of_nothing_are_nan():
    boot = Bootstrap(3, draws=10)
    none = np.zeros(0)
    assert np.isnan(boot.quantile(none, none.astype(int))).all()
    assert np.isnan(boot.mean([np.nan], [1])).all()
    assert np.isnan(Bootstrap(0).ratio(none, none)).all()
    assert np.isnan(Bootstrap(3, draws=0).scatter([1.0, 2.0], [0, 1])).all()
    with pytest.raises(ValueError, match="`blend` needs integers from 0 to 2"):
        boot.mean([1.0], [3])
    with pytest.raises(ValueError, match="`confidence` must be between 0 and 1"):
        Bootstrap(3, confidence=1.0)
    with pytest.raises(ValueError, match="`blend` needs one entry a value"):
        boot.mean([1.0, 2.0], [0])
    with pytest.raises(ValueError, match="`above` and `below` need shape"):
        boot.ratio([1.0], [2.0])
