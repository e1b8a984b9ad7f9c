"""Simulated blends: the same on any machine, in any batch; noise and truth as promised."""

import os
import subprocess
import sys
from dataclasses import replace

import galsim
import numpy as np
import pytest
from astropy.table import Table

from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.components import Kind
from diffdeblend.psf import SampledPSF
from diffdeblend.simulate.blends import join
from diffdeblend.simulate.catalog import Catalog, Parts, concatenate, with_bands
from diffdeblend.simulate.fourier_renderer import FourierRenderer
from diffdeblend.simulate.galsim_renderer import GalSimRenderer
from diffdeblend.simulate.keys import stream
from diffdeblend.simulate.noise import NOISES, draw_noise, noise_rate
from diffdeblend.simulate.sampling import Given, Placed, Uniform
from diffdeblend.simulate.simulate import (
    draw_placed,
    sample,
    simulate,
    simulate_surveys,
    stream_blends,
)
from diffdeblend.simulate.survey import Band, Survey, get_survey
from diffdeblend.simulate.synthetic import star_catalog, synthetic_catalog

CATALOG = concatenate(
    [synthetic_catalog(50, stream(1, "galaxies")), star_catalog(10, stream(1, "stars"))]
)
SAMPLING = Uniform(most=3, stamp=8.0, max_shift=2.0)
LSST = get_survey("LSST").with_bands("gr")


def jittered(survey, band):
    """A PSF that varies."""
    return lambda rng: galsim.Kolmogorov(fwhm=band.psf_fwhm * rng.uniform(0.9, 1.1))


VARYING = replace(LSST, psf=jittered)


def small(n=7, **options):
    return simulate(CATALOG, SAMPLING, VARYING, n, seed=3, psf_every=2, **options)


@pytest.fixture(scope="module")
def blends():
    return small()


def test_what_is_in_a_set(blends):
    assert blends.images.shape == (7, 2, 40, 40)
    assert blends.images.dtype == blends.isolated.dtype == np.float32
    assert blends.bands == ("g", "r")
    assert len(blends.isolated) == len(blends.truth) == blends.n_sources.sum()
    assert (blends.n_sources >= 1).all()
    assert (blends.n_sources <= 3).all()
    assert blends.psf_images.shape == (4, 2, 39, 39)
    assert blends.psf_index.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert blends.padded_isolated().shape == (7, 3, 2, 40, 40)
    # Each PSF is one of its own.
    widths = blends.psf_images.max(axis=(2, 3))
    assert len(np.unique(widths)) == 8


def test_arrays_for_networks(blends):
    first, last = blends.arrays(), blends.arrays(channels_last=True)
    assert last["images"].shape == (7, 40, 40, 2)
    assert last["isolated"].shape == (7, 3, 40, 40, 2)
    assert np.array_equal(first["isolated"][4, 0], blends.isolated_of(4)[0])
    assert np.array_equal(last["psf_images"][2, :, :, 1], blends.psf_images[1, 1])


def same(one, other):
    assert np.array_equal(one.images, other.images)
    assert np.array_equal(one.isolated, other.isolated)
    for name in one.truth.colnames:
        assert np.array_equal(one.truth[name], other.truth[name]), name


def test_the_same_for_any_batch_size_and_order(blends):
    same(
        join(list(stream_blends(CATALOG, SAMPLING, VARYING, n=7, batch=4, seed=3, psf_every=2))),
        blends,
    )
    same(small(2, start=3), blends.select([3, 4]))


def test_a_renderer_may_give_arrays_of_its_own(blends):
    same(small(renderer=lambda drawing: FourierRenderer()(replace(drawing, into=None))), blends)


def test_other_seeds_and_blends_differ(blends):
    other = simulate(CATALOG, SAMPLING, VARYING, 2, seed=4)
    assert not np.array_equal(other.images, blends.images[:2])
    noise = blends.images[0] - blends.isolated_of(0).sum(axis=0)
    others = blends.images[1] - blends.isolated_of(1).sum(axis=0)
    assert abs(np.corrcoef(noise[0].ravel(), others[0].ravel())[0, 1]) < 0.1


def test_without_isolated_images(blends):
    alone = small(isolated=False)
    assert alone.isolated is None
    assert "snr_r" not in alone.truth.colnames
    # Sums of other order: the same to rounding.
    assert np.abs(alone.images - blends.images).max() < 1e-6 * np.abs(blends.images).max() + 1e-2
    with pytest.raises(ValueError, match="`isolated` images were not drawn"):
        alone.isolated_of(0)


@pytest.mark.slow
def test_another_process_draws_the_same_bits(blends, tmp_path):
    script = (
        "import numpy as np, sys; sys.path.insert(0, sys.argv[1]); import test_simulate as t;"
        "np.save(sys.argv[2], t.small(3).images)"
    )
    out = tmp_path / "images.npy"
    # One thread instead of all.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    start = ["taskset", "-c", "0"] if hasattr(os, "sched_setaffinity") else []
    subprocess.run(
        [*start, sys.executable, "-c", script, os.path.dirname(__file__), str(out)],
        check=True,
        env=environment,
    )
    assert np.array_equal(np.load(out), blends.images[:3])


def test_truth_is_true(blends):
    truth, scale = blends.truth, LSST.pixel_scale
    for k in range(len(truth)):
        image = blends.isolated[k, 1]
        assert image.sum() == pytest.approx(truth["flux_r"][k], rel=0.1)
        y, x = np.indices(image.shape)
        # Symmetric profiles, cut off by the stamp's edge on one side.
        assert (image * x).sum() / image.sum() == pytest.approx(truth["x"][k], abs=0.7)
        assert (image * y).sum() / image.sum() == pytest.approx(truth["y"][k], abs=0.7)
        expected = 10 ** (-0.4 * (truth["magnitude_r"][k] - 28.13)) * 5520
        assert truth["flux_r"][k] == pytest.approx(expected)
        snr = np.sqrt((image.astype(float) ** 2 / (image + blends.sky[1])).sum())
        assert truth["snr_r"][k] == pytest.approx(snr, rel=1e-4)
        own = blends.isolated_of(int(truth["blend"][k])).sum(axis=0)[1].astype(float)
        blendedness = 1 - (image.astype(float) ** 2).sum() / (image * own).sum()
        assert truth["blendedness_r"][k] == pytest.approx(blendedness, abs=1e-5)
    ra, dec = blends.wcs.pixel_to_world_values(truth["x"], truth["y"])
    ra = (np.asarray(ra) + 180) % 360 - 180
    assert ra * 3600 == pytest.approx(np.asarray(truth["ra"]), abs=1e-6)
    assert np.asarray(dec) * 3600 == pytest.approx(np.asarray(truth["dec"]), abs=1e-6)
    assert blends.wcs.wcs.crpix.tolist() == [20.5, 20.5]
    assert truth["ra"][0] == pytest.approx((truth["x"][0] - 19.5) * scale)


def test_shear_turn_and_dimming_are_applied():
    one = Parts(*(np.array([[v]]) for v in (1.0, 0.8, 0.3, 0.0, 1.0)))
    table = Table({"row": [0], "magnitude": [20.0], "size": [0.8], "is_star": [False]})
    table["g_ab"], table["r_ab"] = [20.0], [20.0]
    catalog = Catalog(table, one)
    placed = [
        Placed.of([0], 0.0, 0.0),
        Placed.of([0], 0.0, 0.0, turn=np.pi / 2, dim=1.0),
        Placed.of([0], 0.0, 0.0, g1=0.1, g2=-0.05),
    ]
    drawn = draw_placed(catalog, placed, LSST, noise="none", stamp=16.0)
    assert drawn.truth["g1"][1] == pytest.approx(-0.3)
    assert drawn.truth["flux_r"][1] == pytest.approx(drawn.truth["flux_r"][0] * 10**-0.4)
    whole = galsim.Shear(g1=0.1, g2=-0.05) + galsim.Shear(g1=0.3, g2=0)
    assert drawn.truth["g1"][2] == pytest.approx(whole.g1)
    assert drawn.truth["g2"][2] == pytest.approx(whole.g2)
    reference = draw_placed(
        catalog, placed, LSST, noise="none", stamp=16.0, renderer=GalSimRenderer()
    )
    assert np.abs(drawn.images - reference.images).max() < 1e-3 * drawn.images.max()


def test_a_centre_outside_warns_and_is_flagged():
    with pytest.warns(UserWarning, match="1 sources have their centre outside"):
        found = simulate(CATALOG, Given((0.0, 5.0), (0.0, 0.0), (0, 1), stamp=8.0), LSST, 1)
    assert found.truth["outside"].tolist() == [False, True]


def test_no_sources_at_all():
    found = simulate(CATALOG, lambda table, rng: Placed.of([], [], []), LSST, 2, stamp=6.0)
    assert len(found.truth) == 0
    assert found.isolated.shape == (0, 2, 30, 30)
    assert found.images.std() == pytest.approx(np.sqrt(found.sky).mean(), rel=0.3)
    assert simulate(CATALOG, SAMPLING, VARYING, 0).n_blends == 0


def test_a_second_call_compiles_nothing(blends, compilations):
    small(9, start=20)
    assert not compilations


# Several surveys.


@pytest.mark.slow
def test_surveys_see_the_same_sky():
    surveys = [get_survey("LSST"), get_survey("HSC"), get_survey("Euclid_VIS")]
    surveys = [survey.with_bands(survey.band_names[:1]) for survey in surveys]
    catalog = CATALOG
    for survey in surveys:
        catalog = with_bands(catalog, survey)
    found = simulate_surveys(catalog, Uniform(most=2), surveys, 2, seed=5)
    assert [b.shape for b in found.values()] == [(120, 120), (142, 142), (240, 240)]
    first = found["LSST"].truth
    for survey, blends in zip(surveys, found.values(), strict=True):
        assert np.array_equal(blends.truth["row"], first["row"])
        ra = np.asarray(first["ra"]) / 3600
        x, y = blends.wcs.world_to_pixel_values(ra, np.asarray(first["dec"]) / 3600)
        assert x == pytest.approx(np.asarray(blends.truth["x"]), abs=1e-6)
        assert y == pytest.approx(np.asarray(blends.truth["y"]), abs=1e-6)
        assert blends.survey == survey
        # Noise of its own.
        assert blends.sky == pytest.approx(survey.sky_level())
    with pytest.raises(ValueError, match="different names"):
        simulate_surveys(catalog, SAMPLING, [LSST, LSST], 1)


# Noise.

RATES = {"dark": 3.0, "bright": 5e4}


@pytest.mark.parametrize("sky", RATES.values(), ids=RATES)
@pytest.mark.parametrize("noise", [n for n in NOISES if n != "none"])
def test_noise_has_its_mean_and_variance(noise, sky):
    light = np.full((1, 1000, 1000), 20.0, dtype=np.float32)
    rate = noise_rate(light, np.array([sky]), noise)
    drawn = draw_noise(rate, stream(1, "noise", noise))
    variance = (sky if noise != "galaxy" else 0) + (20 if noise != "background" else 0)
    assert drawn.var(dtype=float) == pytest.approx(variance, rel=0.01)
    assert abs(drawn.mean(dtype=float)) < 5 * np.sqrt(variance / drawn.size)
    if variance < 1000:
        # Counts: whole numbers of electrons, none below zero.
        counts = drawn + rate
        assert np.allclose(counts, np.round(counts), atol=1e-4)
        assert counts.min() > -1e-4


def test_no_noise_and_wrong_words():
    light = np.ones((2, 3, 4), dtype=np.float32)
    assert (noise_rate(light, np.ones(2), "none") == 0).all()
    with pytest.raises(ValueError, match="`noise` must be one of all, background, galaxy, none"):
        noise_rate(light, np.ones(2), "some")
    with pytest.raises(ValueError, match="`noise` must be one of"):
        simulate(CATALOG, SAMPLING, LSST, 1, noise="some")


def test_bands_and_blends_have_noise_of_their_own():
    found = simulate(CATALOG, SAMPLING, LSST, 2, noise="all", seed=8)
    left = found.images - np.stack([found.isolated_of(k).sum(axis=0) for k in range(2)])
    flat = left.reshape(4, -1)
    others = np.corrcoef(flat)[~np.eye(4, dtype=bool)]
    assert np.abs(others).max() < 5 / np.sqrt(flat.shape[1])


def test_correlated_noise_has_its_correlation():
    stamp = np.zeros((1, 3, 3))
    stamp[0] = np.outer([0.3, 1, 0.3], [0.4, 1, 0.4])
    rate = np.full((1, 600, 600), 100.0, dtype=np.float32)
    noise = draw_noise(rate, stream(2, "noise"), stamp)[0]
    assert noise.var() == pytest.approx(100, rel=0.02)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(40, abs=1.5)
    assert (noise[1:] * noise[:-1]).mean() == pytest.approx(30, abs=1.5)
    assert (noise[:, 2:] * noise[:, :-2]).mean() == pytest.approx(0, abs=1.5)
    with pytest.raises(ValueError, match="negative at some frequency"):
        draw_noise(rate, stream(2, "noise"), np.array([[[0.9, 1.0, 0.9]]]))
    with pytest.raises(ValueError, match="must be 1 in the middle"):
        draw_noise(rate, stream(2, "noise"), np.array([[[0.1, 0.9, 0.1]]]))


# What a measurement gets.


def test_exposures_tell_all(blends):
    exposure = blends.exposure(4)
    assert np.array_equal(exposure.image, blends.images[4])
    assert exposure.psf is blends.exposure(5).psf
    assert isinstance(exposure.psf, SampledPSF)
    light = blends.isolated_of(4).sum(axis=0)
    expected = blends.sky[:, None, None] + np.maximum(light, 0)
    assert np.asarray(exposure.variance) == pytest.approx(expected, rel=1e-5)
    zero_point = exposure.header.zero_points[1]
    truth = blends.truth[blends.rows(4)]
    assert -2.5 * np.log10(truth["flux_r"]) + zero_point == pytest.approx(truth["magnitude_r"])


@pytest.mark.slow
def test_fluxes_come_back():
    """The whole way: made up, drawn, and fitted where it was drawn."""
    stars = star_catalog(20, stream(2, "stars"), brightest=18.0, faintest=21.0)
    found = simulate(stars, Uniform(most=1, stamp=8.0), LSST, 8, seed=2)
    blends = [
        blend_of_arrays(found.images[k], found.variance_of(k), found.psf(k), found.positions(k))
        for k in range(8)
    ]
    fitted = fit_batch(blends, kinds=[np.array([int(Kind.POINT)])] * 8, model_error=0.0)
    table = fitted.table(found.bands)
    pull = (table["flux_r"] - found.truth["flux_r"]) / table["flux_r_err"]
    assert np.abs(pull).max() < 4
    # No light is lost: the PSF says how much of it its image holds.
    assert np.mean(table["flux_r"] / found.truth["flux_r"] - 1) == pytest.approx(0, abs=2e-3)


def test_own_surveys_and_wrong_arguments():
    own = Survey("mine", 0.5, (Band("r", 1.0, 26.0, 20.0, 100.0, 620.0),), 0.0)
    found = simulate(CATALOG, SAMPLING, own, 1)
    assert found.shape == (16, 16)
    with pytest.raises(ValueError, match="`stamp` must hold a pixel"):
        simulate(CATALOG, SAMPLING, own, 1, stamp=0.1)
    with pytest.raises(ValueError, match="`psf_every` must be at least 1"):
        simulate(CATALOG, SAMPLING, own, 1, psf_every=0)
    with pytest.raises(ValueError, match="`n` and `start` must be at least 0"):
        sample(CATALOG, SAMPLING, -1)
    with pytest.raises(ValueError, match="`batch` must be at least 1"):
        next(stream_blends(CATALOG, SAMPLING, own, batch=0))
    with pytest.raises(ValueError, match=r"`numbers` must be below 1"):
        found.select([1])
    with pytest.raises(ValueError, match="`batches` is empty"):
        join([])
