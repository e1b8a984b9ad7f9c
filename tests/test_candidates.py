"""Candidates of differences whose truth is known: points, hits, dipoles, fading, borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from scipy.ndimage import maximum_filter

from diffdeblend import make_exposure
from diffdeblend.subtract.difference import Difference
from diffdeblend.subtract.filters import centred_stamp, proper_filters
from diffdeblend.transients import (
    Pair,
    find_candidates,
    judge_places,
    judged_significance,
    peak_map,
    templates,
)

SHAPE = (150, 210)
BETA, SIGMA_NEW, SIGMA_REFERENCE = 0.8, 6.0, 4.0


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def moffat(fwhm, size=31, dx=0.0, dy=0.0):
    y, x = np.mgrid[:size, :size] - size // 2.0
    width = fwhm / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    image = (1 + ((x - dx) ** 2 + (y - dy) ** 2) / width**2) ** -3.5
    return image / image.sum()


NEW, REFERENCE = 3.4, 2.6


def star(image, flux, x, y, fwhm):
    ix, iy = round(x), round(y)
    image[iy - 15 : iy + 16, ix - 15 : ix + 16] += flux * moffat(fwhm, 31, x - ix, y - iy)


def filters_on(shape):
    psfs = (jnp.asarray(moffat(fwhm), jnp.result_type(float)) for fwhm in (NEW, REFERENCE))
    return proper_filters(*psfs, SIGMA_NEW, SIGMA_REFERENCE, BETA, shape)


def difference_of(new, reference, registered=(0.0, 0.0)):
    """The proper difference on a periodic plane, in numpy and double precision."""
    filters = filters_on(SHAPE)
    q_new, q_reference, p = (
        np.asarray(v, complex) for v in (filters.new, filters.reference, filters.psf)
    )
    flux_scale = float(filters.flux_scale)
    d = q_new * np.fft.rfft2(new) - q_reference * np.fft.rfft2(reference)
    score = np.fft.irfft2(flux_scale * p.conj() * d, SHAPE)
    norm = float(filters.score_scale)
    map_ = lambda v: jnp.asarray(v, jnp.float32)[None]  # noqa: E731
    one = jnp.ones(1, jnp.float32)
    stamp = np.asarray(centred_stamp(filters.psf, SHAPE, 31))
    found = Difference(
        make_exposure(np.fft.irfft2(d, SHAPE), 1.0, stamp / stamp.sum()),
        map_(score),
        map_(score / np.sqrt(norm)),
        map_(score / norm),
        map_(np.full(SHAPE, norm**-0.5)),
        jnp.zeros((1, *SHAPE), bool),
        *(one * v for v in (BETA, *registered, 0, flux_scale, norm)),
    )
    return (
        found,
        make_exposure(new, SIGMA_NEW**2, moffat(NEW)),
        make_exposure(reference, SIGMA_REFERENCE**2, moffat(REFERENCE)),
    )


@pytest.fixture(scope="module")
def scene():
    """Points, hits, tracks and a dipole on noise: what is where, and the three exposures."""
    rng = np.random.default_rng(1)
    new, reference = rng.normal(0, SIGMA_NEW, SHAPE), rng.normal(0, SIGMA_REFERENCE, SHAPE)
    truth = []
    sigma = 1 / np.sqrt(float(difference_of(new, reference)[0].F_S[0]))
    for k, snr in enumerate((8, 12, 20, 60)):
        x, y = 20.3 + 30 * k, 22.4 - 0.2 * k
        star(new, BETA * snr * sigma, x, y, NEW)
        truth.append(("transient", x, y, snr * sigma))
        x, y = 25.2 + 30 * k, 60.6
        star(reference, snr * sigma, x, y, REFERENCE)
        truth.append(("transient", x, y, -snr * sigma))
    new[100, 30] += 150
    new[100, 60:65] += 300
    new[[95, 96, 97], [90, 91, 92]] += 400
    truth += [("cosmic ray", 30, 100, 0), ("cosmic ray", 62, 100, 0), ("cosmic ray", 91, 96, 0)]
    reference[100, 130] += 200
    truth.append(("cosmic ray", 130, 100, 0))
    star(new, BETA * 9000, 170.0, 90.0, NEW)
    star(reference, 9000, 169.6, 90.0, REFERENCE)
    truth.append(("dipole", 170.0, 90.0, 0))
    return truth, *difference_of(new, reference)


def test_everything_is_found_and_called_by_its_name(scene):
    truth, *exposures = scene
    found = find_candidates(*exposures)
    x, y = np.asarray(found["x"]), np.asarray(found["y"])
    claimed = np.zeros(len(found), bool)
    for verdict, true_x, true_y, flux in truth:
        near = np.hypot(x - true_x, y - true_y) < (8 if flux == 0 else 2)
        assert near.any(), (verdict, true_x, true_y)
        claimed |= np.hypot(x - true_x, y - true_y) < 12
        assert set(found["verdict"][near]) == {verdict}, (verdict, true_x, true_y)
        if flux:
            row = found[near][0]
            assert row["flux"].value == pytest.approx(flux, abs=4 * row["flux_err"].value)
            assert np.sign(row["significance"]) == np.sign(flux)
            assert abs(row["x"] - true_x) < 4 * row["x_err"] + 0.01
            assert abs(row["y"] - true_y) < 4 * row["y_err"] + 0.01
            assert row["chi2"] == pytest.approx(1, abs=0.7)
    assert claimed.all()
    assert (np.diff(np.abs(found["significance"])) <= 0).all()


def test_what_is_no_transient_is_taken_from_the_significance(scene):
    truth, difference, new, reference = scene
    found = find_candidates(difference, new, reference)
    judged = judged_significance(difference, found)[0]
    before = np.asarray(difference.S_corr[0])
    for verdict, x, y, _ in truth:
        near = slice(round(y) - 2, round(y) + 3), slice(round(x) - 2, round(x) + 3)
        if verdict == "transient":
            np.testing.assert_array_equal(judged[near], before[near])
        else:
            assert np.abs(judged[near]).max() < 5


def test_without_noise_fluxes_and_places_are_exact():
    new = np.zeros(SHAPE)
    star(new, BETA * 5000, 80.37, 61.81, NEW)
    found = find_candidates(*difference_of(new, np.zeros(SHAPE)))
    row = found[0]
    assert row["flux"].value == pytest.approx(5000, rel=3e-3)
    assert row["x"] == pytest.approx(80.37, abs=0.01)
    assert row["y"] == pytest.approx(61.81, abs=0.01)
    assert row["verdict"] == "transient"


def test_errors_of_fluxes_and_places_are_those_of_many_draws():
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(8):
        new, reference = rng.normal(0, SIGMA_NEW, SHAPE), rng.normal(0, SIGMA_REFERENCE, SHAPE)
        places = [
            (x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5))
            for x in range(25, 190, 32)
            for y in (30, 75, 118)
        ]
        for x, y in places:
            star(new, BETA * 900, x, y, NEW)
        found = find_candidates(*difference_of(new, reference), negative=False)
        for x, y in places:
            near = np.hypot(found["x"] - x, found["y"] - y) < 2
            assert near.sum() == 1
            row = found[near][0]
            pulls.append(
                [
                    (row["flux"].value - 900) / row["flux_err"].value,
                    (row["x"] - x) / row["x_err"],
                    (row["y"] - y) / row["y_err"],
                ]
            )
        assert set(found["verdict"]) == {"transient"}
    n = len(pulls)
    np.testing.assert_allclose(np.std(pulls, axis=0), 1, atol=3.5 / np.sqrt(2 * n))
    np.testing.assert_allclose(np.mean(pulls, axis=0), 0, atol=0.35)


def test_peaks_are_those_of_scipy_and_masked_ones_are_none():
    rng = np.random.default_rng(3)
    values = rng.normal(0, 3, (2, 60, 83)).astype(np.float32)
    bad = rng.uniform(size=values.shape) < 0.1
    values[0, 5, 7] = np.nan
    got = np.asarray(peak_map(values, bad, 4.0, separation=3, border=5))
    for k in range(2):
        strength = np.where(bad[k] | np.isnan(values[k]), 0, np.abs(values[k]))
        want = (strength == maximum_filter(strength, 7)) & (strength > 4)
        want[:5] = want[-5:] = False
        want[:, :5] = want[:, -5:] = False
        np.testing.assert_array_equal(got[k], want)


def test_templates_are_white_norm_and_hits_are_what_filters_do(x64):
    numbers = (jnp.asarray(v, float) for v in (SIGMA_NEW, SIGMA_REFERENCE, BETA, 0.3, -1.4))
    made = templates(Pair(jnp.asarray(moffat(NEW)), jnp.asarray(moffat(REFERENCE)), *numbers))
    shape = (96, 96)
    for plane in made[:5]:
        image = np.fft.irfft2(plane, shape)
        # A shift by part of a pixel loses the real part of Nyquist.
        assert (image**2).sum() == pytest.approx(1, rel=1e-3)
    filters = filters_on(shape)
    hit = np.zeros(shape)
    hit[40, 33] = 1
    seen = np.fft.irfft2(np.fft.rfft2(hit) * np.asarray(filters.new), shape)
    again = np.roll(np.fft.irfft2(made.hit_new, shape), (40, 33), (0, 1))
    np.testing.assert_allclose(seen / np.sqrt((seen**2).sum()), again, atol=1e-12)
    assert float(made.norm) == pytest.approx(np.sqrt(float(filters.score_scale)), rel=1e-9)


def test_places_with_own_psfs_are_judged_as_those_with_one_and_compile_once(compilations):
    rng = np.random.default_rng(4)
    stamps = jnp.asarray(rng.normal(size=(16, 41, 41)), jnp.float32).at[:, 20, 20].add(9.0)
    one = Pair(
        *(jnp.asarray(moffat(f), jnp.float32) for f in (NEW, REFERENCE)),
        *(jnp.float32(v) for v in (SIGMA_NEW, SIGMA_REFERENCE, BETA, 0.2, 0.1)),
    )
    each = jax.tree.map(lambda v: jnp.broadcast_to(v, (16, *v.shape)), one)
    for a, b in zip(*(jax.tree.leaves(judge_places(stamps, p)) for p in (one, each)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
    other = stamps + 1
    before = len(compilations)
    judge_places(other, each)
    assert len(compilations) == before


def test_nothing_is_found_in_nothing(scene):
    _, difference, new, reference = scene
    found = find_candidates(difference, new, reference, threshold=1e4)
    assert len(found) == 0
    assert set(find_candidates(difference, new, reference).colnames) == set(found.colnames)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 0}, "`threshold`"),
        ({"separation": -1}, "`separation`"),
        ({"border": 1.5}, "`border`"),
        ({"new": make_exposure(np.ones((30, 30)), 1.0, moffat(2.0, 9))}, "`new` needs"),
    ],
)
def test_bad_input_is_named(scene, change, words):
    _, difference, new, reference = scene
    given = {"difference": difference, "new": new, "reference": reference} | change
    with pytest.raises(ValueError, match=words):
        find_candidates(**given)
