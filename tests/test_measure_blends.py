"""Measure functions over blends: what they find, what they are given, and how they fail."""

import os
import pickle
from dataclasses import dataclass, replace
from functools import partial

import astropy.wcs
import galsim
import numpy as np
import pytest
from astropy import units
from astropy.table import Table
from quick import hasty

from diffdeblend.deblend.catalog import Flag
from diffdeblend.exposure import Exposure, make_exposure
from diffdeblend.score import processes
from diffdeblend.score.load_measure import MEASURES, load_measure
from diffdeblend.score.measured import Measure, Measured, all_surveys, batched, offsets
from diffdeblend.score.measurers.find import find_sources
from diffdeblend.score.measurers.ours import fit_blends
from diffdeblend.score.measurers.peaks import peaks
from diffdeblend.score.measurers.photutils import photutils
from diffdeblend.score.measurers.segments import segments
from diffdeblend.score.measurers.sep import sep, sep_multiband
from diffdeblend.score.run import measure_blends
from diffdeblend.score.stamps import stamps_of

BANDS = ("g", "r")
SHAPE = (60, 64)  # Not square: x and y must not be confused.
NOISE = np.array([1.0, 0.8], np.float32)
SCALE = 0.2
# Two bright sources, three with a close pair, none.
TRUTH = (
    np.array([[20.3, 31.8], [44.6, 25.1]]),
    np.array([[30.2, 22.9], [35.9, 25.4], [18.7, 45.5]]),
    np.zeros((0, 2)),
)
FLUX = (
    np.array([[800.0, 1200.0], [500.0, 400.0]]),
    np.array([[2500.0, 2000.0], [1200.0, 1500.0], [600.0, 900.0]]),
    np.zeros((0, 2)),
)


@dataclass(frozen=True, eq=False)
class Blends:
    """A stand-in with what measures need of a set of blends."""

    images: np.ndarray
    variance: np.ndarray
    psf_images: np.ndarray
    psf_index: np.ndarray
    places: tuple
    wcs: astropy.wcs.WCS
    bands: tuple = BANDS

    @property
    def n_blends(self):
        return len(self.images)

    def positions(self, number):
        return self.places[number]

    def exposure(self, number) -> Exposure:
        psf = self.psf_images[self.psf_index[number]]
        kept = {"bands": self.bands, "wcs": self.wcs}
        return make_exposure(self.images[number], self.variance[number], psf, **kept)


def seen(psf, places, fluxes, radius=2.0):
    """Sheared discs at these places, by GalSim."""
    shape = {"nx": SHAPE[1], "ny": SHAPE[0], "scale": 1.0}
    image = np.zeros((2, *SHAPE))
    for (x, y), flux in zip(places, fluxes, strict=True):
        disc = galsim.Exponential(half_light_radius=radius).shear(g1=0.2, g2=-0.1)
        disc = disc.shift(x - (SHAPE[1] - 1) / 2, y - (SHAPE[0] - 1) / 2)
        for band, star in enumerate(psf):
            drawn = galsim.Convolve(disc, star).withFlux(flux[band]).drawImage(**shape)
            image[band] += drawn.array
    return image


def stars(*fwhm):
    """A Gaussian PSF a band, and its image."""
    psf = [galsim.Gaussian(fwhm=f) for f in fwhm]
    return psf, np.stack([p.drawImage(nx=21, ny=21, scale=1.0).array for p in psf])


def plane(scale=SCALE, shape=SHAPE):
    """The sky around (0, 0), +x to the east."""
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [scale / 3600] * 2
    wcs.wcs.crval = [0, 0]
    return wcs


@pytest.fixture(scope="module")
def blends():
    psfs = [stars(3.6, 3.2), stars(3.2, 3.4)]
    index = np.array([0, 1, 0])
    rng = np.random.default_rng(3)
    images = rng.normal(size=(3, 2, *SHAPE)) * NOISE[:, None, None]
    for image, k, places, fluxes in zip(images, index, TRUTH, FLUX, strict=True):
        image += seen(psfs[k][0], places, fluxes)
    variance = np.broadcast_to((NOISE**2)[:, None, None], images.shape).astype(np.float32)
    psf_images = np.stack([p for _, p in psfs])
    return Blends(images.astype(np.float32), variance, psf_images, index, TRUTH, plane())


def nearest(found, truth):
    """Distance from each true source to the nearest that was found, and which it is."""
    apart = np.hypot(*(truth[:, None] - found).transpose(2, 0, 1))
    return apart.min(axis=1), apart.argmin(axis=1)


# --- those of others ---


@pytest.mark.parametrize("band", ["r", None])
def test_sep_is_sep(blends, band):
    direct = pytest.importorskip("sep")
    for number in range(blends.n_blends):
        cube = blends.images[number]
        image = cube[1].copy() if band else cube.mean(axis=0)
        rms = direct.Background(image).globalrms
        found, segments = direct.extract(image, 1.5, err=rms, minarea=5, segmentation_map=True)
        ours = sep(blends.exposure(number), band=band)
        assert ours.n_sources == len(found)
        for name in found.dtype.names:
            np.testing.assert_array_equal(ours.catalog[name], found[name])
        for k in range(len(found)):
            np.testing.assert_array_equal(ours.segmentation[k], segments == k + 1)
            np.testing.assert_array_equal(ours.images[k], cube * (segments == k + 1))


def test_sep_fluxes_are_those_of_kron_apertures(blends):
    direct = pytest.importorskip("sep")
    image = blends.images[0].mean(axis=0)
    found = direct.extract(image, 1.5, err=direct.Background(image).globalrms)
    ellipse = [found[name] for name in ("x", "y", "a", "b", "theta")]
    kron, _ = direct.kron_radius(image, *ellipse, 6.0)
    var = blends.variance[0, 1].copy()
    flux, error, _ = direct.sum_ellipse(blends.images[0, 1], *ellipse, 2.5 * kron, var=var)
    table = sep(blends.exposure(0)).catalog
    # Apart from the few pixels of the other's segment.
    np.testing.assert_allclose(table["flux_r"], flux, rtol=0.01)
    np.testing.assert_allclose(table["flux_err_r"], error, rtol=0.03)
    _, which = nearest(np.stack([found["x"], found["y"]], axis=1), TRUTH[0])
    assert np.all(np.abs(flux[which] / FLUX[0][:, 1] - 1) < 0.15)


@pytest.mark.parametrize(
    "function",
    [sep, sep_multiband, photutils, peaks, pytest.param(segments, marks=pytest.mark.slow)],
)
def test_too_many_are_cut_by_flux_and_flagged(blends, function):
    own = function in (peaks, segments)
    pytest.importorskip("scipy" if own else function.__name__.split("_")[0])
    every = function(blends.exposure(1))
    assert every.n_sources > 1
    assert not np.any(every.catalog["truncated"])
    one = function(blends.exposure(1), most=1)
    assert one.n_sources == 1
    assert one.catalog["truncated"][0]
    brightest = TRUTH[1][np.argmax(FLUX[1].sum(axis=1))]
    # With its close neighbour, where they are not parted.
    assert np.hypot(*(one.positions[0] - brightest)) < 3
    if every.segmentation is not None:
        assert one.segmentation.shape == one.images[:, 0].shape == (1, *SHAPE)
    with pytest.raises(ValueError, match="`most`"):
        function(blends.exposure(1), most=0)


def test_bands_are_merged(blends):
    """A source that only one band sees is kept, one that both see is kept once."""
    pytest.importorskip("sep")
    images = blends.images.copy()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    spot = 40 * np.exp(-((x - 52.0) ** 2 + (y - 48.0) ** 2) / 6)
    images[0, 1] += spot
    only_r = Blends(images, blends.variance, blends.psf_images, blends.psf_index, TRUTH, plane())
    found = sep_multiband(only_r.exposure(0), threshold=3)
    expected = np.concatenate([TRUTH[0], [[52, 48]]])
    apart, which = nearest(found.positions, expected)
    assert found.n_sources == 3
    assert np.all(apart < 1)
    assert list(found.catalog["band"][which]) == ["g", "g", "r"]


def test_photutils_measures_fluxes_with_errors(blends):
    pytest.importorskip("photutils")
    found = photutils(blends.exposure(0), threshold=2)
    apart, which = nearest(found.positions, TRUTH[0])
    assert np.all(apart < 0.7)
    for k, band in enumerate(BANDS):
        flux = found.catalog[f"flux_{band}"][which]
        assert np.all(np.abs(flux / FLUX[0][:, k] - 1) < 0.15)
        assert np.all(found.catalog[f"flux_err_{band}"][which] > 0)
    segment = found.segmentation[which[0]]
    np.testing.assert_array_equal(found.images[which[0]], blends.images[0] * segment)


def test_peaks_are_those_of_skimage(blends):
    feature = pytest.importorskip("skimage.feature")
    image = blends.images[1].mean(axis=0)
    noise = np.sqrt((NOISE**2).sum()) / 2
    theirs = feature.peak_local_max(image, min_distance=2, threshold_abs=5 * noise)
    np.testing.assert_array_equal(peaks(blends.exposure(1)).positions, theirs[:, ::-1])


@pytest.mark.slow
def test_masked_pixels_are_not_seen(blends):
    """A hot pixel that is masked makes no source."""
    pytest.importorskip("sep")
    pytest.importorskip("photutils")
    image = blends.images[2].copy()
    y, x = np.mgrid[30:34, 12:16]
    image[:, 30:34, 12:16] = 1e4 / (1 + (y - 32) ** 2 + (x - 14) ** 2)
    bad = np.zeros(image.shape, bool)
    bad[:, 30:34, 12:16] = True
    args = image, blends.variance[2], blends.psf_images[0]
    seen = make_exposure(*args, bands=BANDS)
    masked = make_exposure(*args, bands=BANDS, mask=bad)
    for function in (sep, sep_multiband, photutils, peaks, segments):
        assert function(seen).n_sources == 1
        assert function(masked).n_sources == 0


@pytest.mark.parametrize("function", [sep, photutils, peaks])
def test_an_unknown_band_is_refused(blends, function):
    with pytest.raises(ValueError, match=r"`band` must be one of .*'g', 'r'.*got 'u'"):
        function(blends.exposure(0), band="u")


@pytest.mark.slow
def test_no_source_is_an_empty_catalogue_with_all_columns(blends):
    pytest.importorskip("sep")
    pytest.importorskip("photutils")
    for function in (sep, sep_multiband, photutils, peaks, segments):
        full, none = function(blends.exposure(0)), function(blends.exposure(2), threshold=9)
        assert none.n_sources == 0
        assert none.catalog.colnames == full.catalog.colnames
        assert none.positions.shape == (0, 2)


# --- ours ---


@pytest.fixture(scope="module")
def ours(blends):
    with hasty():
        return measure_blends(
            blends,
            [Measure(fit_blends, name="ours", settings={"model": "sersic", "sizes": (64, 128)})],
        )


def test_ours_finds_and_measures(ours):
    assert not ours.errors["ours"]
    for measured, places, fluxes in zip(ours.measured["ours"], TRUTH, FLUX, strict=True):
        assert measured.n_sources == len(places)
        if not len(places):
            continue
        apart, which = nearest(measured.positions, places)
        table = measured.catalog[which]
        assert np.all(apart < 0.5)
        for k, band in enumerate(BANDS):
            off = (table[f"flux_{band}"] - fluxes[:, k]) / table[f"flux_err_{band}"]
            assert np.all(np.abs(off) < 4)
            assert np.all(np.abs(table[f"flux_{band}"] / fluxes[:, k] - 1) < 0.1)
        assert np.all(np.abs(table["g1"] - 0.2) < 4 * table["g1_err"] + 0.02)


def test_images_of_ours_are_the_models(ours, blends):
    """With all of them taken away, noise is left."""
    for number, measured in enumerate(ours.measured["ours"]):
        assert measured.images.shape == (measured.n_sources, 2, *SHAPE)
        left = (blends.images[number] - measured.images.sum(axis=0)) / NOISE[:, None, None]
        assert abs(left.std() - 1) < 0.03
        for image, row in zip(measured.images, measured.catalog, strict=True):
            assert image[1].sum() == pytest.approx(row["flux_r"], rel=0.03)


def test_light_beyond_the_stamp_of_the_psf_is_counted(blends):
    """A PSF image that holds 0.9 of the light, as blends say it: fluxes are of all of it."""
    less = replace(blends, psf_images=0.9 * blends.psf_images)
    with hasty():
        whole, part = (
            fit_blends(b, TRUTH, model="sersic", sizes=(64, 128), images=False)
            for b in (blends, less)
        )
    np.testing.assert_allclose(
        part[0].catalog["flux_r"], np.asarray(whole[0].catalog["flux_r"]) / 0.9, rtol=1e-4
    )


def test_positions_that_cannot_be_fitted_keep_their_rows(blends):
    given = [
        np.concatenate([[[-7.0, 3.0]], TRUTH[0], TRUTH[0][:1] + 0.05]),
        TRUTH[1],
        np.zeros((0, 2)),
    ]
    with hasty():
        found = fit_blends(blends, given, model="sersic", sizes=(64, 128))
    table = found[0].catalog
    lost = np.array([True, False, False, True])
    np.testing.assert_array_equal(np.isnan(table["flux_r"]), lost)
    np.testing.assert_array_equal((table["flags"] & int(Flag.NON_FINITE)) > 0, lost)
    np.testing.assert_array_equal(found[0].images.any(axis=(1, 2, 3)), ~lost)
    np.testing.assert_allclose(found[0].positions[lost], given[0][lost])
    assert nearest(found[0].positions[1:3], TRUTH[0])[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "`rounds` must be at least 1; got 0"),
        ({"kinds": []}, "`settings` may not have kinds"),
        ({"threshold": -1.0}, "`threshold` must be positive; got -1"),
        ({"positions": [np.zeros((1, 2))]}, "`positions` needs an entry a blend, 3; got 1"),
        ({"model": "disk"}, "`model` must be one of"),
    ],
)
def test_wrong_settings_of_ours_are_refused(blends, change, message):
    with pytest.raises(ValueError, match=message):
        fit_blends(blends, **change)


def test_what_the_first_search_missed_is_found_in_the_residual(blends):
    """A faint source on the flank of a bright one."""
    places = np.array([[30.2, 30.8], [34.4, 31.7]])
    psf, _ = stars(3.6, 3.2)
    noise = np.random.default_rng(0).normal(size=(1, 2, *SHAPE)) * NOISE[:, None, None]
    image = noise + seen(psf, places, [(9e3, 9e3), (1500, 1500)], radius=1.5)
    one = Blends(
        image.astype(np.float32),
        blends.variance[:1],
        blends.psf_images,
        np.array([0]),
        (places,),
        plane(),
    )
    options = {"model": "sersic", "sizes": (64, 128), "sharp_threshold": None, "restarts": 0}
    with hasty():
        (once,) = fit_blends(one, rounds=1, **options)
        (twice,) = fit_blends(one, rounds=2, **options)
    assert once.n_sources == 1
    assert twice.n_sources == 2
    assert np.all(nearest(twice.positions, places)[0] < [0.5, 2])


def test_a_source_is_found_through_its_own_psf(blends):
    places = find_sources(blends.images, blends.variance, blends.psf_images, blends.psf_index)
    for found, truth in zip(places, TRUTH, strict=True):
        assert len(found) == len(truth)
        if len(truth):
            assert np.all(nearest(found, truth)[0] < 1)


def test_noise_alone_holds_few_sources():
    """A search at 5 standard deviations in 60 x 64 pixels: less than one in a hundred stamps."""
    rng = np.random.default_rng(0)
    shape = (60, 2, *SHAPE)
    # Not of the same variance everywhere, and partly unused.
    variance = np.broadcast_to(np.linspace(0.5, 3, SHAPE[1]), shape).copy()
    variance[:, :, :10, :10] = 0
    images = rng.normal(size=shape) * np.sqrt(variance)
    images[:, :, :10, :10] = 1e3
    found = find_sources(images, variance, stars(3.2, 3.0)[1][None], np.zeros(60, int))
    assert sum(len(f) for f in found) <= 1


# --- running them ---


def one_source(exposure, positions, *, x=1.0, fail=None):
    """A function of a user."""
    if fail is not None and float(np.asarray(exposure.image)[0, 0, 0]) == fail:
        raise RuntimeError("this one is bad")
    return Measured(Table({"x": [x], "y": [2.0], "extra": [3.0]}))


def test_names_and_settings_side_by_side(blends):
    found = measure_blends(
        blends,
        [
            one_source,
            Measure(one_source, settings={"x": 4.0}),
            Measure(one_source, name="one_source1", settings={"x": 5.0}),
            Measure(one_source, name="other"),
        ],
    )
    assert found.names == ("one_source0", "one_source2", "one_source1", "other")
    assert [found.measured[name][0].catalog["x"][0] for name in found.names] == [1, 4, 5, 1]
    assert all(len(found.measured[name]) == 3 for name in found.names)
    assert all(found.seconds[name] >= found.first_seconds[name] > 0 for name in found.names)
    assert list(found.table()["sources"]) == [3, 3, 3, 3]


def test_a_failure_is_noted_and_the_others_go_on(blends):
    bad = float(blends.images[1, 0, 0, 0])
    measure = Measure(one_source, settings={"fail": bad})
    found = measure_blends(blends, [measure, peaks])
    assert found.errors == {"one_source": {1: "RuntimeError: this one is bad"}, "peaks": {}}
    assert [m.n_sources for m in found.measured["one_source"]] == [1, 0, 1]
    assert found.measured["one_source"][1].catalog.colnames == ["x", "y", "extra"]
    assert found.measured["peaks"][1].n_sources > 0


def test_what_is_no_measured_is_an_error(blends):
    found = measure_blends(blends, [lambda exposure, positions: {"catalog": None}])
    assert found.errors["<lambda>"][0] == "it returned dict, not Measured"
    assert found.measured["<lambda>"][0].n_sources == 0


def test_a_missing_package_ends_it(blends):
    def needs(exposure, positions):
        raise ImportError("the measure `needs` needs what is not there")

    with pytest.raises(ImportError, match="not there"):
        measure_blends(blends, needs)


def test_positions_are_handed_on(blends):
    def told(exposure, positions):
        places = np.zeros((0, 2)) if positions is None else positions
        return Measured(Table({"x": places[:, 0], "y": places[:, 1]}))

    @batched
    def told_all(blends, positions, *, factor=1):
        return [Measured(Table({"x": factor * p[:, 0], "y": p[:, 1]})) for p in positions]

    own = [p + 1 for p in TRUTH]
    for given, expected in (("truth", TRUTH), (own, own)):
        found = measure_blends(blends, [told, told_all], positions=given)
        for name in ("told", "told_all"):
            for measured, places in zip(found.measured[name], expected, strict=True):
                np.testing.assert_array_equal(measured.positions, places)
    assert measure_blends(blends, told).measured["told"][0].n_sources == 0
    assert np.isnan(found.first_seconds["told_all"])
    failed = measure_blends(blends, told_all)
    assert set(failed.errors["told_all"]) == {0, 1, 2}


def test_several_surveys(blends):
    """One-survey functions see the first and keep the catalogue; others see all."""
    pytest.importorskip("sep")
    half = (30, 32)
    binned = blends.images.reshape(3, 2, 30, 2, 32, 2).sum(axis=(3, 5))
    coarse = Blends(
        binned,
        np.full(binned.shape, 4.0, np.float32),
        blends.psf_images[:, :, ::2, ::2],
        blends.psf_index,
        tuple((p - 0.5) / 2 for p in TRUTH),
        plane(2 * SCALE, half),
        ("i", "z"),
    )

    @all_surveys
    def both(exposures, positions):
        assert list(exposures) == list(positions) == ["fine", "coarse"]
        assert exposures["coarse"].bands == ("i", "z")
        x, y = positions["coarse"].T
        return Measured(Table({"x": x, "y": y}), np.zeros((len(x), *half), bool))

    found = measure_blends({"fine": blends, "coarse": coarse}, [sep, both], positions="truth")
    assert not any(found.errors.values())
    alone = sep(blends.exposure(1))
    np.testing.assert_array_equal(found.measured["sep"][1].catalog["x"], alone.catalog["x"])
    assert found.measured["sep"][1].images is None
    assert found.measured["sep"][1].segmentation is None
    np.testing.assert_array_equal(found.measured["both"][1].positions, (TRUTH[1] - 0.5) / 2)
    assert found.measured["both"][1].segmentation is not None


def test_progress_is_told(blends):
    told = []
    measure_blends(blends, [peaks, one_source], report=lambda *counts: told.append(counts))
    assert told[-1] == (6, 6)
    done = [count for count, _ in told]
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": []}, "`measures` is empty"),
        ({"measures": 3}, "`function`"),
        ({"measures": Measure(peaks, settings={"treshold": 3})}, "`settings` .*treshold"),
        ({"positions": "guess"}, "`positions` must be detect, truth"),
        ({"positions": [np.zeros((1, 2))]}, "`positions` needs an entry a blend, 3; got 1"),
        ({"positions": [np.zeros((1, 3))] * 3}, r"`positions` of blend 0 .*\(1, 3\)"),
        ({"workers": 0}, "`workers` must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(blends, change, message):
    with pytest.raises(ValueError, match=message):
        measure_blends(blends, **{"measures": peaks, **change})


def test_other_processes_find_the_same(blends, monkeypatch, tmp_path):
    """With a function of a file, which no other process could import by its name."""
    file = tmp_path / "mine.py"
    # This process does all, were it not made to wait for the other.
    file.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from diffdeblend.score.measurers.peaks import peaks\n"
        f"HERE, BEGUN, CALLS = {os.getpid()}, Path({str(tmp_path / 'begun')!r}), []\n"
        "def mine(exposure, positions, threshold):\n"
        "    CALLS.append(None)\n"
        "    if os.getpid() != HERE:\n"
        "        BEGUN.touch()\n"
        "    end = time.monotonic() + 60\n"
        "    while len(CALLS) > 2 and not BEGUN.exists() and time.monotonic() < end:\n"
        "        time.sleep(0.01)\n"
        "    found = peaks(exposure, threshold=threshold)\n"
        "    found.catalog['process'] = os.getpid()\n"
        "    return found\n"
    )
    many = 40
    index = np.arange(many) % 3
    repeated = Blends(
        blends.images[index],
        blends.variance[index],
        blends.psf_images,
        blends.psf_index[index],
        tuple(TRUTH[k] for k in index),
        plane(),
    )
    # Otherwise so little work is done here alone.
    monkeypatch.setattr(processes, "_WORTH", 0.0)
    monkeypatch.setattr(processes, "_TRIAL", 0.0)
    monkeypatch.setattr(processes, "_CHUNK", 0.0)
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    measure = load_measure(f"{file}:mine", threshold=4.0)
    assert measure.name == "mine"
    jobs = processes.Jobs({"": stamps_of(repeated)}, None, False)
    advanced = []
    outcomes, first = processes.run_jobs(measure, jobs, workers=2, advance=advanced.append)
    assert first > 0
    assert advanced[-1] == many
    who = set()
    for number, measured in enumerate(outcomes):
        expected = peaks(repeated.exposure(number), threshold=4.0)
        assert isinstance(measured, Measured)
        assert measured.catalog.colnames == [*expected.catalog.colnames, "process"]
        np.testing.assert_array_equal(measured.positions, expected.positions)
        assert measured.catalog["x"].description == expected.catalog["x"].description
        who |= set(measured.catalog["process"])
    assert len(who) == 2


def test_outcomes_are_what_they_were_after_they_are_sent():
    """Tables of one make as slices of one; errors and other tables between them."""

    def table(x, **more):
        made = Table({"x": np.array(x), "y": np.array(x), **more}, meta={"of": len(x)})
        made["x"].description = "Centre"
        return made

    segments = np.ones((2, 3, 3), bool)
    sent = [
        Measured(table([1.0, 2.0]), segments),
        "it failed",
        Measured(table([])),
        Measured(table([3.0], more=np.array(["a"]))),
        Measured(table([4.0])),
        Measured(table([5.0] * units.arcsec)),
    ]
    got = processes._parted(pickle.loads(pickle.dumps(processes._stacked(sent))))
    assert got[1] == sent[1]
    for number in (0, 2, 3, 4, 5):
        before, after = sent[number].catalog, got[number].catalog
        assert after.colnames == before.colnames
        np.testing.assert_array_equal(after["x"], before["x"])
        assert (after["x"].unit, after["x"].description) == (before["x"].unit, "Centre")
        assert after.meta == before.meta
    np.testing.assert_array_equal(got[0].segmentation, segments)
    assert processes._parted(processes._stacked(["a", "b"])) == ["a", "b"]


def test_what_cannot_be_pickled_runs_here(blends, monkeypatch):
    monkeypatch.setattr(processes, "_WORTH", 0.0)
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    found = measure_blends(blends, lambda e, p: peaks(e), workers=2)
    assert not found.errors["<lambda>"]


# --- what they are made of ---


def test_words_mean_measures(tmp_path):
    for word in MEASURES:
        assert load_measure(word).name == word
    assert load_measure("diffdeblend").batched
    assert load_measure("sep", band="r").settings == {"band": "r"}
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    empty = tmp_path / "empty.py"
    empty.write_text("def other(exposure, positions): ...\n")
    for word, message in (
        ("scarlet3", "must be one of diffdeblend, sep, .*or file.py:function; got 'scarlet3'"),
        ("nowhere.py:f", "the file of the measure .* is not there"),
        (f"{broken}:f", "failed with ZeroDivisionError"),
        (f"{empty}:f", "has no function 'f'; it has other"),
    ):
        with pytest.raises(ValueError, match=message):
            load_measure(word)


def test_scarlet2_says_what_it_needs(blends, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scarlet2", None)
    with pytest.raises(ImportError, match="needs scarlet2 and numpyro: pip install"):
        load_measure("scarlet2").function(blends.exposure(0))


def test_a_catalogue_needs_positions():
    with pytest.raises(ValueError, match=r"`catalog` needs the columns x and y.* no y.*ra, x"):
        Measured(Table({"ra": [1.0], "x": [2.0]}))
    with pytest.raises(ValueError, match="`segmentation` needs 3 axes"):
        Measured(Table({"x": [1.0], "y": [1.0]}), np.zeros((2, 3, 3), bool))


def test_offsets_on_the_sky():
    """By the WCS wherever it points, as by the pixel scale alone."""
    places = np.array([[3.0, 50.0], [31.5, 29.5], [60.2, 7.7]])
    expected = (places - [31.5, 29.5]) * SCALE
    exposure = partial(make_exposure, np.zeros((1, *SHAPE)), 1.0, np.ones((1, 3, 3)))
    for ra, dec in ((0, 0), (359.9999, 0), (150.0, 70.0), (10.0, -89.9)):
        wcs = plane()
        wcs.wcs.crval = [ra, dec]
        got = offsets(places, exposure(wcs=wcs).header, SHAPE)
        np.testing.assert_allclose(np.stack(got, axis=1), expected, atol=1e-6)
    got = offsets(places, exposure(pixel_scale=SCALE).header, SHAPE)
    np.testing.assert_allclose(np.stack(got, axis=1), expected)
    assert offsets(places, exposure().header, SHAPE) is None


def test_stamps_are_exposures_without_their_checks(blends):
    stamps, alone = stamps_of(blends), blends.exposure(1)
    quick = stamps.part(1, 3).exposure(0)
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(alone, name))
    np.testing.assert_allclose(quick.psf.image, alone.psf.image, atol=1e-7)
    assert quick.bands == alone.bands
