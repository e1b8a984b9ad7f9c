"""Sources injected into an image: where, how bright, how noisy, and what counts as found."""

from dataclasses import replace
from typing import Any

import galsim
import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.score.inject import inject, photon_gain, place_pixels, place_sky
from diffdeblend.score.injections import injection_test, sort_detections
from diffdeblend.score.measured import Measure, Measured
from diffdeblend.simulate.catalog import Catalog, Parts, standard_columns
from diffdeblend.simulate.keys import stream
from diffdeblend.simulate.noise import draw_noise

BANDS, ZERO_POINTS = ("g", "r"), (27.0, 26.0)
SHAPE, SCALE = (48, 60), 0.2
TIGHT = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-4, maximum_fft_size=16384)
KOLMOGOROV = galsim.Kolmogorov(fwhm=0.8)


def psf_stamps(side=41):
    return np.stack(
        [
            galsim.Kolmogorov(fwhm=fwhm).drawImage(nx=side, ny=side, scale=SCALE).array
            for fwhm in (0.8, 0.7)
        ]
    )


def exposure(image=None, *, seed=1, **options):
    rng = stream(seed, "sky")
    options = {"pixel_scale": SCALE, "zero_points": ZERO_POINTS, "bands": BANDS} | options
    noise = rng.normal(0, 0.2, (2, *SHAPE))
    return make_exposure(
        noise if image is None else image + noise,
        np.full((2, *SHAPE), 0.04),
        psf_stamps(),
        **options,
    )


# A disc with a bulge, a star, and a round exponential.
PARTS = Parts(
    index=np.array([[1.0, 4.0], [1.0, 1.0], [1.0, 1.0]]),
    radius=np.array([[0.7, 0.3], [0.0, 0.0], [0.5, 0.0]]),
    g1=np.array([[0.3, 0.1], [0, 0], [0, 0]]),
    g2=np.array([[-0.1, 0.05], [0, 0], [0, 0]]),
    share=np.array([[0.6, 0.4], [1, 0], [1, 0]]),
)
CATALOG = Catalog(
    standard_columns(
        Table(
            {"g_ab": [22.0, 21.0, 23.0], "HSC_g": [20.0, 20.0, 20.0], "r_ab": [21.0, 20.5, 22.5]}
        ),
        magnitude=np.array([21.0, 20.5, 22.5]),
        size=PARTS.half_light_radius(),
    ),
    PARTS,
)


def by_galsim(x, y, turn=0.0):
    """The first source of the catalogue in r, through the PSF's stamp."""
    flux, psf = 10 ** (-0.4 * (21.0 - 26.0)), psf_stamps()[1]
    psf = galsim.InterpolatedImage(
        galsim.Image(psf / psf.sum(), scale=SCALE), x_interpolant="lanczos15", gsparams=TIGHT
    )
    disc, bulge = (
        galsim.Sersic(n, half_light_radius=r).shear(g1=g1, g2=g2) * share
        for n, r, g1, g2, share in zip(*(getattr(PARTS, k)[0] for k in
            ("index", "radius", "g1", "g2", "share")), strict=True)
    )  # fmt: skip
    turned = galsim.Add(disc, bulge).rotate(turn * galsim.radians) * flux
    ny, nx = SHAPE
    offset = x - (nx - 1) / 2, y - (ny - 1) / 2
    seen: Any = galsim.Convolve(turned, psf, gsparams=TIGHT)
    return seen.drawImage(nx=nx, ny=ny, scale=SCALE, offset=offset, method="no_pixel").array


def test_drawn_as_galsim_draws_it():
    blank = exposure()
    placed = place_pixels(blank, [0], [22.3], [30.6], turn=0.7)
    drawn = inject(blank, CATALOG, placed, noise="none")
    expected = by_galsim(22.3, 30.6, turn=0.7)
    assert np.abs(drawn.light[1] - expected).max() < 1e-3 * expected.max()
    added = np.asarray(drawn.exposure.image) - np.asarray(blank.image)
    assert np.allclose(added, drawn.light, atol=1e-5)
    # Without noise there is none in the variance.
    assert np.array_equal(drawn.exposure.variance, blank.variance)


def test_a_large_source_and_a_window_of_a_large_image():
    small, row = exposure(), [2]
    # Semi-major axis above a quarter of the stamp: drawn on a window beyond it.
    huge = replace(CATALOG, parts=replace(PARTS, radius=np.where(PARTS.radius > 0.45, 3.0, 0)))
    light = inject(small, huge, place_pixels(small, row, [30.0], [20.0]), noise="none").light[0]
    profile = galsim.Exponential(half_light_radius=3.0, flux=10 ** (-0.4 * (23.0 - 27.0)))
    seen: Any = galsim.Convolve(profile, KOLMOGOROV)
    expected = seen.drawImage(nx=60, ny=48, scale=SCALE, offset=(0.5, -3.5))
    # But for the PSF's light beyond its stamp.
    assert np.abs(light - expected.array).max() < 0.02 * expected.array.max()
    wide = make_exposure(
        np.zeros((2, 300, 310)), 1.0, psf_stamps(), zero_points=ZERO_POINTS, bands=BANDS,
        pixel_scale=SCALE,
    )  # fmt: skip
    far = inject(wide, CATALOG, place_pixels(wide, [1], [290.2], [280.7]), noise="none").light
    near = inject(small, CATALOG, place_pixels(small, [1], [40.2], [28.7]), noise="none").light
    part = far[:, 252:300, 250:310]
    assert np.abs(part - near).max() < 1e-3 * near.max()
    assert far.sum() == pytest.approx(part.sum(), rel=1e-3)


def test_truth_says_what_was_added():
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval = ("RA---TAN", "DEC--TAN"), (150.0, 2.0)
    sky.wcs.cd, sky.wcs.crpix = np.diag([-SCALE, SCALE]) / 3600, (30.5, 24.5)
    given = exposure(wcs=sky, pixel_scale=None)
    placed = place_sky(given, [1, 0], [150.0, 150.0], [2.0, 2.0 + 3 / 3600], dim=[0, 1.0])
    truth: Any = inject(given, CATALOG, placed, noise="none").truth
    assert np.allclose(truth["x"], 29.5, atol=1e-6)
    assert np.allclose(truth["y"], [23.5, 38.5], atol=1e-4)
    assert np.allclose(truth["dec"], [0, 3], atol=1e-3)
    assert np.allclose(truth["magnitude_g"], [21.0, 23.0])
    assert np.allclose(truth["flux_r"], 10 ** (-0.4 * (np.array([20.5, 22.0]) - 26.0)))
    star = inject(given, CATALOG, place_sky(given, [1], [150.0], [2.0]), noise="none").light
    assert truth["snr_r"][0] == pytest.approx(np.sqrt((star[1] ** 2).sum() / 0.04), rel=1e-4)
    # Magnitudes of the survey go before.
    named: Any = inject(given, CATALOG, placed, noise="none", survey="HSC").truth
    assert np.allclose(named["magnitude_g"], [20.0, 21.0])


def test_photons_have_noise_and_variance():
    bright = np.zeros((2, *SHAPE)) + np.array([0.3, 0.6])[:, None, None]
    given = make_exposure(
        bright, 1e-12, psf_stamps(), bands=BANDS, zero_points=(28.0, 28.0), pixel_scale=SCALE
    )
    placed = place_pixels(given, [0, 1], [20.0, 40.0], [20.0, 30.0])
    gain = np.array([0.5, 4.0])
    deviates = []
    for k in range(30):
        drawn = inject(given, CATALOG, placed, gain=gain, rng=stream(k, "photons"))
        noise = np.asarray(drawn.exposure.image, float) - bright - drawn.light
        expected = drawn.light / gain[:, None, None]
        lit = drawn.light * gain[:, None, None] > 20
        deviates.append((noise**2 / expected)[lit].mean())
        assert np.allclose(np.asarray(drawn.exposure.variance)[lit], expected[lit], rtol=1e-3)
    assert np.mean(deviates) == pytest.approx(1, abs=0.03)


def test_a_measured_correlation_may_dip():
    """Cut short, its power is negative somewhere; the noise has its variance all the same."""
    stamp = np.ones((1, 1, 3)) * [0.6, 1.0, 0.6]
    rate = np.full((1, 60, 2000), 4.0)
    with pytest.raises(ValueError, match="none of any noise"):
        draw_noise(rate, stream(1, "noise"), stamp)
    noise = draw_noise(rate, stream(1, "noise"), stamp, dip=0.2)
    assert noise.std() == pytest.approx(2, rel=0.02)


def test_noise_is_correlated_as_the_exposure_says():
    stamp = np.array([[0.0, 0.2, 0.0], [0.4, 1.0, 0.4], [0.0, 0.2, 0.0]]) * 1.3
    given = exposure(noise_correlation=stamp)
    flat = replace(CATALOG, parts=replace(PARTS, radius=np.where(PARTS.radius > 0.45, 20.0, 0)))
    placed = place_pixels(given, [2], [30.0], [24.0], dim=-8.0)
    drawn = inject(given, flat, placed, gain=1.0, rng=stream(2, "photons"))
    noise = np.asarray(drawn.exposure.image, float) - np.asarray(given.image) - drawn.light
    unit = noise / np.sqrt(drawn.light)
    assert unit.std() == pytest.approx(1, abs=0.05)
    assert np.mean(unit[:, :, 1:] * unit[:, :, :-1]) == pytest.approx(0.4, abs=0.06)
    assert np.mean(unit[:, 1:] * unit[:, :-1]) == pytest.approx(0.2, abs=0.06)


def test_pixels_that_are_not_used_stay_so():
    image = np.zeros((2, *SHAPE))
    image[0, 20, 20] = np.nan
    mask = np.zeros(SHAPE, bool)
    mask[24, 30] = True
    given = exposure(image, mask=mask, saturation=8.0)
    placed = place_pixels(given, [1, 1], [30.0, 20.0], [24.0, 20.0], dim=[0, 9])
    drawn = inject(given, CATALOG, placed, gain=1.0, rng=stream(1, "photons"))
    assert not (np.asarray(drawn.exposure.good) & ~np.asarray(given.good)).any()
    truth: Any = drawn.truth
    assert not truth["used"].any()
    full = np.asarray(drawn.exposure.flag("SAT"))
    assert full.any()
    assert np.array_equal(full, np.asarray(drawn.exposure.image) >= 8)
    # A hidden peak takes signal.
    whole: Any = inject(exposure(), CATALOG, placed, noise="none").truth
    assert truth["snr_r"][0] < 0.95 * whole["snr_r"][0]


def test_gain_is_read_from_the_variance():
    light = np.stack([by_galsim(20, 20), 3 * by_galsim(40, 30)])
    gain = np.array([2.0, 50.0])[:, None, None]
    given = make_exposure(light, 0.04 + light / gain, psf_stamps())
    assert np.allclose(photon_gain(given), [2.0, 50.0], rtol=1e-3)
    with pytest.raises(ValueError, match="does not rise with its light in band 'g'"):
        photon_gain(exposure(light))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"zero_points": None}, {}, "no zero points"),
        ({"pixel_scale": None}, {}, "`pixel_scale`"),
        ({}, {"noise": "all"}, "`noise` must be one of galaxy, none; got 'all'"),
        ({}, {"noise": "galaxy"}, "`rng` is missing"),
        ({}, {"noise": "galaxy", "rng": stream(0)}, "`gain` is missing"),
        ({}, {"noise": "galaxy", "rng": stream(0), "gain": [1, -1]}, "`gain` needs one positive"),
    ],
)
def test_what_is_refused(change, options, message):
    placed = place_pixels(exposure(), [0], [20.0], [20.0])
    with pytest.raises(ValueError, match=message):
        inject(exposure(**change), CATALOG, placed, **({"noise": "none"} | options))


def test_sources_that_are_refused():
    given = exposure()
    for x, row, message in ((60.2, 0, "centre outside the image"), (20.0, 7, "asks for rows")):
        with pytest.raises(ValueError, match=message):
            inject(given, CATALOG, place_pixels(given, [row], [x], [20.0]), noise="none")
    steep = replace(CATALOG, parts=replace(PARTS, index=np.full((3, 2), 8.0)))
    with pytest.raises(ValueError, match=r"indices outside 0\.5 to 6\.2"):
        inject(given, steep, place_pixels(given, [0], [20.0], [20.0]), noise="none")
    fewer = CATALOG.table.copy()
    fewer.remove_column("r_ab")
    fewer, placed = replace(CATALOG, table=fewer), place_pixels(given, [0], [20.0], [20.0])
    with pytest.raises(ValueError, match="HSC_r or r_ab"):
        inject(given, fewer, placed, noise="none", survey="HSC")


# What counts as found.


def test_what_was_there_before_does_not_count():
    before = np.array([[10.0, 10.0], [30.0, 30.0]])
    # Injected next to a source that is seen as ever; elsewhere; and nothing there.
    faint = sort_detections(np.array([[11.0, 10.0]]), before, before + 0.05, 3.0)
    assert len(faint.pairs) == 0
    assert faint.before.tolist() == [True]
    assert faint.distance == pytest.approx(1.0)
    assert len(faint.new) == 0
    own = np.concatenate([before + 0.05, [[20.3, 20.0], [5.0, 40.0]]])
    seen = sort_detections(np.array([[20.0, 20.0], [50.0, 10.0]]), before, own, 3.0)
    assert seen.pairs.truth_index.tolist() == [0]
    assert seen.new[seen.pairs.found_index].tolist() == [2]
    assert seen.new.tolist() == [2, 3]
    assert seen.before.tolist() == seen.replaced.tolist() == [False, False]
    assert seen.lost == 0
    # Brighter than its neighbour, it takes the place of it.
    taken = sort_detections(
        np.array([[12.0, 10.0]]), before, np.array([[11.9, 10.0], [30.0, 30.0]]), 3.0
    )
    assert taken.replaced.tolist() == [True]
    assert taken.lost == 1
    assert taken.before.tolist() == [False]


def peak(exposure, positions, *, threshold=5.0, worth=1.0):
    """Finds the highest pixels of all, once a 13 x 13 box; flux by the light in that box."""
    image = np.asarray(exposure.image, float)
    left, rows = image.sum(axis=0), []
    while left.max() > threshold:
        y, x = np.unravel_index(np.argmax(left), left.shape)
        box = slice(max(y - 6, 0), y + 7), slice(max(x - 6, 0), x + 7)
        light = image[(slice(None), *box)].sum(axis=(1, 2)) * worth
        rows.append((float(x), float(y), *light, *(0.2 * np.sqrt([169.0, 169.0]))))
        left[box] = 0
    names = ("x", "y", "flux_g", "flux_r", "flux_err_g", "flux_err_r")
    return Measured(Table(rows=rows or None, names=names, dtype=[float] * 6))


def broken(exposure, positions):
    if np.asarray(exposure.image).sum() > 700:
        raise RuntimeError("too bright for me")
    return peak(exposure, positions)


REAL = np.array([[15.0, 14.0], [44.0, 30.0]])


def real_image():
    given = exposure()
    light = inject(given, CATALOG, place_pixels(given, [1, 1], *REAL.T, dim=0.5), noise="none")
    return light.exposure


STARS = CATALOG.select(np.array([1]))


def test_a_test_of_two_measures():
    measures = [Measure(peak, name="good"), Measure(peak, name="low", settings={"worth": 0.8})]
    options: dict[str, Any] = {
        "seed": 3,
        "magnitudes": (18.5, 24.0),
        "noise": "none",
        "known": REAL,
    }
    both = injection_test(real_image(), STARS, measures, 40, avoid=9.0, edge=6.0, **options)
    good, low = both["good"], both["low"]
    assert len(good.baseline.catalog) == 2
    rows = good.per_source
    assert np.hypot(*(rows["x"] - REAL[:, :1], rows["y"] - REAL[:, 1:])).min() >= 9
    assert rows["x"].min() >= 5.5
    assert rows["y"].max() <= 41.5
    assert rows["magnitude_r"].min() < 19.5 < 23 < rows["magnitude_r"].max()
    assert np.array_equal(rows["magnitude"], rows["magnitude_r"])
    # A star this bright has a peak above the threshold, and is found; a faint one is not.
    table: Any = good.binned([18.5, 19.5, 23, 24], columns=["flux_error_r", "pull_r"])
    assert table["recall"][0] == 1
    assert table["recall"][2] == 0
    assert table["n"].sum() == 40
    # The box leaves out as much light for both.
    ratio = (1 + np.array(low.per_source["flux_error_r"])) / (1 + rows["flux_error_r"])
    assert np.nanmedian(ratio) == pytest.approx(0.8)
    images: Any = good.images
    assert (images["extra"] == 0).all()
    assert (images["lost"] == 0).all()
    assert good.scores.value("recall") == pytest.approx(np.mean(rows["detected"]))
    # Each image is what it is, however many there are.
    fewer = injection_test(real_image(), STARS, peak, 3, avoid=9.0, edge=6.0, **options)["peak"]
    assert np.array_equal(fewer.per_source["flux_r"], rows["flux_r"][:3])
    assert np.array_equal(
        fewer.per_source["found_flux_r"], rows["found_flux_r"][:3], equal_nan=True
    )
    other = injection_test(real_image(), STARS, peak, 3, **{**options, "seed": 4})["peak"]
    assert not np.isin(other.per_source["x"], rows["x"]).any()


@pytest.mark.slow
def test_invisible_sources_are_not_found_in_the_light_of_others():
    """All stars are far too faint; the real ones are seen in all images, and nothing is."""
    given = real_image()
    found = injection_test(
        given, STARS, peak, 200, seed=1, magnitudes=(29.0, 30.0), noise="none", max_distance=6.0
    )["peak"]
    assert not found.per_source["detected"].any()
    near = np.asarray(found.per_source["distance_before"]) <= 6
    assert near.any()
    assert np.array_equal(near, np.asarray(found.per_source["before"]))
    images: Any = found.images
    assert (images["detections"] == 2).all()


def test_a_flux_of_something_else_is_no_detection():
    """A star seen ten times too bright is not found, however near."""
    options: dict[str, Any] = {
        "seed": 3,
        "magnitudes": (18.5, 19.0),
        "noise": "none",
        "known": REAL,
        "avoid": 9.0,
    }
    many = Measure(peak, settings={"worth": 10.0})
    one = injection_test(real_image(), STARS, many, 3, max_flux_error=2.0, **options)["peak"]
    assert one.per_source["gross"].all()
    assert not one.per_source["detected"].any()
    assert np.isnan(one.per_source["found_flux_r"]).all()
    images: Any = one.images
    assert (images["extra"] == 1).all()
    all_in = injection_test(real_image(), STARS, many, 3, **options)["peak"]
    assert all_in.per_source["detected"].all()


def test_positions_are_told_and_errors_are_kept():
    told = []

    def listens(exposure, positions):
        told.append(positions)
        return peak(exposure, positions)

    options: dict[str, Any] = {
        "seed": 2,
        "noise": "none",
        "known": REAL,
        "sources": 2,
        "apart": 15.0,
    }
    tests = injection_test(
        real_image(), STARS, [listens, broken], 4, positions="known", magnitudes=(19, 24), **options
    )
    rows = tests["listens"].per_source
    assert np.array_equal(told[0], REAL)
    assert np.array_equal(told[2], np.concatenate([REAL, np.c_[rows["x"], rows["y"]][2:4]]))
    assert rows["blend"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (rows["distance_closest_galaxy"] >= 15).all()
    failed = np.asarray(tests["broken"].images["failed"])
    assert 0 < failed.sum() < 4
    assert "too bright for me" in tests["broken"].errors[int(np.argmax(failed))]
    table: Any = tests["broken"].binned(1)
    assert table["lost"][0] >= 2 * failed.sum()


def test_tests_that_are_refused():
    given = real_image()
    options: dict[str, Any] = {"noise": "none"}
    change: Any
    for change, message in (
        ({"band": "i"}, "`band` must be one of"),
        ({"avoid": 3.0}, "`known` is missing"),
        ({"known": REAL, "avoid": 90.0}, "room for 0 of 1 sources"),
        ({"edge": 30.0}, "`edge` of 30.0 leaves nothing"),
        ({"magnitudes": (24, 20)}, "`magnitudes` needs two that rise"),
        ({"positions": "truth"}, "`positions` must be detect or known"),
        ({"sources": 0}, "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            injection_test(given, STARS, peak, 1, **{**options, **change})


@pytest.mark.slow
def test_another_psf_and_real_measures():
    """A PSF that is no image; galaxies with photon noise; and measures that are there for all."""
    pytest.importorskip("sep")
    from diffdeblend.score.load_measure import load_measure

    given = make_exposure(
        stream(5, "sky").normal(0, 0.2, (1, 48, 48)), 0.04, GaussianPSF(np.array([4.0])), bands="r",
        zero_points=26.0, pixel_scale=SCALE, gain=5.0,
    )  # fmt: skip
    galaxies = CATALOG.select(np.array([0, 2]))
    found = injection_test(
        given, galaxies, load_measure("sep", images=False), 12, seed=1, magnitudes=(21, 22), edge=10
    )["sep"]
    assert found.scores.value("recall") == 1
    # Kron apertures leave out some of the light, sep's segments some more.
    assert -0.25 < found.scores.value("flux_bias_r") < 0
