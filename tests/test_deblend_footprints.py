"""Blends taken apart: who gets which light, and what the table says of it."""

import sys
from pathlib import Path

import galsim
import numpy as np
import pytest

from diffdeblend.allocate import (
    ModelImage,
    allocate_models,
    apportion,
    deblend_footprints,
    overlap,
    stray_shares,
)
from diffdeblend.allocate.make_templates import _made
from diffdeblend.allocate.psf_test import fit_points
from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import Footprint, FootprintSet, Peaks, SourceRecords, SpanSet
from diffdeblend.psf import PixelPSF, PSFBasis
from diffdeblend.replace_noise import replace_noise

FWHM = 4.0
PSF = galsim.Moffat(3.5, fwhm=FWHM)
IMAGE = PSF.drawImage(nx=31, ny=31, scale=1, method="no_pixel", dtype=float).array
IMAGE /= IMAGE.sum()
AREA = 1 / np.sum(IMAGE**2)


def drawn(light, x, y, shape):
    offset = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
    return light.drawImage(
        nx=shape[1], ny=shape[0], scale=1, offset=offset, method="no_pixel", dtype=float
    ).array


def pairs(apart, snr, second=None, n=(3, 4), seed=0):
    """Blends of a star and a second source on a field that is not square; noise of variance 1.

    Returns the exposure, records, and flux and place of all sources.
    """
    rng = np.random.default_rng(seed)
    cell, flux = 44, snr * np.sqrt(AREA)
    shape = (n[0] * cell, n[1] * cell)
    image = rng.standard_normal(shape)
    footprints, truth = [], []
    for row in range(n[0]):
        for column in range(n[1]):
            angle = rng.uniform(0, 2 * np.pi)
            middle = np.array([column, row]) * cell + cell / 2 + rng.uniform(-0.5, 0.5, 2)
            places = [
                middle + s * apart * np.array([np.cos(angle), np.sin(angle)]) for s in (-0.5, 0.5)
            ]
            for number, place in enumerate(places):
                light = PSF if number == 0 or second is None else galsim.Convolve(PSF, second)
                part = drawn(light * flux, *(place - np.array([column, row]) * cell), (cell, cell))
                image[row * cell :, column * cell :][:cell, :cell] += part
                truth.append((flux, *place))
            x, y = np.floor(np.array(places) + 0.5).astype(np.int32).T
            spans = SpanSet.from_stencil(14).shifted(*np.floor(middle).astype(int))
            footprints.append(Footprint(spans, Peaks(x, y, np.array([2.0, 1.0]))))
    exposure = make_exposure(image, 1.0, PixelPSF(IMAGE[None]))
    return exposure, SourceRecords.from_footprints(footprints), np.array(truth)


def test_two_stars_are_two_stars():
    for apart, most in ((2.0, 0.01), (1.0, 0.05)):
        exposure, records, truth = pairs(apart * FWHM, 200)
        found = deblend_footprints(exposure, records)
        children = found.parent > 0
        assert found.flags["deblended_as_psf"][children].all()
        error = found.values["psf_flux"][children] / truth[:, 0] - 1
        assert np.median(np.abs(error)) < most
        assert (
            np.abs(error).max() < 3.5 * found.values["psf_flux_err"][children].max() / truth[0, 0]
        )
        offset = found.values["psf_x"][children] - truth[:, 1]
        assert np.sqrt(np.mean(offset**2)) < 0.05


def test_a_galaxy_beside_a_star_is_no_star():
    exposure, records, truth = pairs(2 * FWHM, 200, galsim.Exponential(half_light_radius=3))
    found = deblend_footprints(exposure, records)
    children = np.flatnonzero(found.parent > 0)
    assert not found.flags["deblended_as_psf"][children[1::2]].any()
    light = np.array([found.footprints[row].image.sum() for row in children])
    assert np.median(np.abs(light / truth[:, 0] - 1)) < 0.1


@pytest.mark.parametrize("rule", ["trim", "r_to_peak", "r_to_footprint", "nearest"])
def test_the_children_add_up_to_their_parent(rule):
    exposure, records, _ = pairs(9.0, 60, galsim.Gaussian(sigma=2))
    found = deblend_footprints(exposure, records, stray_flux=rule)
    image = np.asarray(exposure.image[0])
    together = np.zeros_like(image)
    claimed = np.zeros(image.shape, bool)
    for row in np.flatnonzero(found.parent > 0):
        one = found.footprints[row]
        together += one.to_image(box=image.shape)
        claimed[one.spans.indices()] = True
    inside = np.zeros(image.shape, bool)
    for one in records.footprints:
        inside[one.spans.indices()] = True
    assert np.abs(together - image)[claimed].max() <= 1e-6 * image.max()
    assert not (claimed & ~inside).any()
    # Without stray light pixels stay behind; with it none does.
    assert (rule == "trim") == (inside & ~claimed).any()


def test_the_table_tells_parents_from_children():
    exposure, records, _ = pairs(9.0, 60)
    alone = Footprint(SpanSet.from_box((0, 5, 0, 4)), Peaks([2], [2], [1.0]))
    records = SourceRecords.from_footprints([alone, *records.footprints])
    found = deblend_footprints(exposure, records, stray_flux="trim")
    n = len(records)
    assert found.n_child[:n].tolist() == [0] + [2] * (n - 1)
    assert found.n_child[n:].sum() == 0
    assert found.id.tolist() == list(range(1, len(found) + 1))
    assert found.parent[n:].tolist() == np.repeat(np.arange(2, n + 1), 2).tolist()
    assert (found.n_peaks[n:] == 1).all()
    assert found.n_peaks[:n].tolist() == records.n_peaks.tolist()
    for row in range(1, n):
        first, second = found.children(int(found.id[row])).footprints
        assert found.footprints[row].spans == first.spans.union(second.spans)
        assert (first.peaks.x[0], second.peaks.x[0]) == tuple(records.footprints[row].peaks.x)
    # Replaced and ended, the exposure is what it was.
    end = replace_noise(exposure, found).insert(int(found.id[-1])).end()
    np.testing.assert_array_equal(end.image, exposure.image)


def test_the_errors_are_those_of_noise():
    clean, records, _ = pairs(8.0, 40, galsim.Gaussian(sigma=2), seed=5)
    image = np.asarray(clean.image[0])
    rng = np.random.default_rng(4)
    fluxes, errors = [], []
    for _ in range(24):
        noisy = make_exposure(image + rng.standard_normal(image.shape), 1.0, PixelPSF(IMAGE[None]))
        found = deblend_footprints(noisy, records, psf_chi2=None)
        children = [found.footprints[row] for row in np.flatnonzero(found.parent > 0)]
        fluxes.append([one.image.sum() for one in children])
        errors.append([np.sqrt(one.variance.sum()) for one in children])
    ratio = np.std(fluxes, axis=0, ddof=1) / np.mean(errors, axis=0)
    assert 0.75 < np.median(ratio) < 1.3


def test_a_second_field_compiles_nothing():
    exposure, records, _ = pairs(9.0, 60, galsim.Gaussian(sigma=2))
    deblend_footprints(exposure, records)
    before = fit_points._cache_size(), _made._cache_size()
    exposure, records, _ = pairs(8.0, 50, galsim.Gaussian(sigma=2), n=(4, 2), seed=3)
    deblend_footprints(exposure, records)
    assert (fit_points._cache_size(), _made._cache_size()) == before


def test_blends_too_large_or_without_data_are_left_alone():
    exposure, records, _ = pairs(9.0, 60)
    none = np.zeros(exposure.shape, bool)
    y, x = records.footprints[1].spans.indices()
    none[y[: len(y) // 2], x[: len(y) // 2]] = True
    exposure = exposure.with_mask("NO_DATA", none)
    found = deblend_footprints(exposure, records, psf_chi2=None, max_peaks=1)
    assert found.flags["masked"][:12].tolist() == [False, True] + [False] * 10
    assert found.flags["skipped"][1]
    assert found.n_child[:3].tolist() == [1, 0, 1]
    assert found.flags["too_many_peaks"][:12].sum() == 11 + 1
    area = records.footprints[0].area
    small = deblend_footprints(exposure, records, max_area=area - 1)
    assert small.flags["parent_too_big"][:12].all()
    assert len(small) == 12
    assert not deblend_footprints(exposure, records, psf_chi2=None).flags["too_many_peaks"].any()


def test_a_source_at_the_border_keeps_the_side_that_is_there():
    shape = (40, 30)
    light = galsim.Convolve(PSF, galsim.Exponential(half_light_radius=3))
    truth = [drawn(light * 1e4, 2, 20, shape), drawn(light * 1e4, 16, 24, shape)]
    image = sum(truth)
    whole = Footprint(SpanSet.from_box((0, 30, 0, 40)), Peaks([2, 16], [20, 24], [2.0, 1.0]))
    exposure = make_exposure(image, 1.0, PixelPSF(IMAGE[None]))
    found = deblend_footprints(exposure, SourceRecords.from_footprints([whole]), psf_chi2=None)
    for one, true in zip(found.footprints[1:], truth, strict=True):
        assert abs(one.image.sum() / true.sum() - 1) < 0.2
    assert found.flags["patched_template"].tolist() == [False, True, True]


def test_a_peak_without_light_gets_a_dark_pixel():
    image = np.full((20, 24), -1.0)
    image[4:15, 1:12] = 100
    whole = Footprint(SpanSet.from_box((0, 24, 0, 20)), Peaks([6, 20], [9, 3], [2.0, 1.0]))
    exposure = make_exposure(image, 1.0, PixelPSF(IMAGE[None]))
    records = SourceRecords.from_footprints([whole])
    found = deblend_footprints(exposure, records, stray_flux="trim", psf_chi2=None)
    assert found.flags["zero_flux"].tolist() == [False, False, True]
    dark = found.footprints[2]
    assert (dark.area, dark.image.tolist(), dark.bbox[:3]) == (1, [0.0], (20, 21, 3))


def test_the_psf_may_vary():
    wide = drawn(galsim.Moffat(3.5, fwhm=5), 15, 15, (31, 31))
    images = np.stack([IMAGE, wide / wide.sum() - IMAGE])[None]
    # Narrow on the left, wide on the right.
    exposure, records, _ = pairs(9.0, 120)
    shape = exposure.shape
    psf = PSFBasis(images, np.array([[[1, 0, 0], [0.5, 0.5, 0]]]), shape, 1)
    varying = make_exposure(np.asarray(exposure.image), 1.0, psf)
    found = deblend_footprints(varying, records)
    children = found.parent > 0
    points = found.flags["deblended_as_psf"][children]
    left = found.peak_x[children] < shape[1] / 4
    assert points[left].mean() > 0.8
    assert points[found.peak_x[children] > 3 * shape[1] / 4].mean() < 0.2


def test_stray_light_goes_to_the_near_and_not_to_points():
    claimed = np.zeros((2, 5, 20), bool)
    claimed[0, 2, 2:5] = claimed[1, 2, 14:18] = True
    x, y = np.array([3, 16]), np.array([2, 2])
    none = np.zeros(2, bool)
    given = (5, 20), x, y, claimed
    peak = stray_shares("r_to_peak", *given, none)
    np.testing.assert_allclose(peak[0, 2, 8], (1 / 26) / (1 / 26 + 1 / 65), rtol=1e-5)
    near = stray_shares("r_to_footprint", *given, none)
    np.testing.assert_allclose(near[0, 2, 8], (1 / 17) / (1 / 17 + 1 / 37), rtol=1e-5)
    all_of_it = stray_shares("nearest", *given, none)
    assert all_of_it[:, 0, 8].tolist() == [1, 0]
    assert all_of_it[:, 0, 12].tolist() == [0, 1]
    np.testing.assert_allclose(peak.sum(axis=0), 1, rtol=1e-6)
    assert stray_shares("r_to_peak", *given, np.array([True, False]))[0].max() == 0
    assert stray_shares("r_to_peak", *given, np.array([True, True]))[0].max() > 0.9
    with pytest.raises(ValueError, match="`stray_flux` must be one of trim"):
        stray_shares("all", *given, none)


def test_light_is_shared_out_in_proportion():
    rng = np.random.default_rng(2)
    image, templates = rng.normal(size=(6, 9)), rng.normal(size=(3, 6, 9))
    lit = np.clip(templates, 0, None)
    some = lit.sum(axis=0) > 0
    part = apportion(image, templates)
    np.testing.assert_allclose(part.sum(axis=0)[some], image[some], rtol=1e-12)
    np.testing.assert_array_equal(part[:, ~some], 0)
    np.testing.assert_allclose(part * lit.sum(axis=0), image * lit, atol=1e-12)


@pytest.mark.slow
def test_blended_galaxies_have_their_light_better_than_by_symmetry_alone():
    # Of the recipe of the experiment, which has the figures of more blends.
    sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "allocation"))
    import measure

    blends = measure.draw_blends(measure.Settings(seed=7, n_blends=80))
    true = blends.truth.sum(axis=(2, 3))
    symmetry = np.median(np.abs(measure.by_symmetry(blends) / true - 1))
    _, models = measure.fitted(blends)
    scene = np.median(np.abs(measure.by_models(blends, models) / true - 1))
    assert symmetry < 0.096
    assert scene < 0.07
    assert scene < symmetry


def models_of(truth, images):
    return [ModelImage(one, 0, 0, x, y) for one, (x, y) in zip(images, truth, strict=True)]


def test_allocation_by_the_true_models_has_the_errors_of_noise():
    shape, places = (41, 53), ((20.3, 18.1), (29.6, 22.7))
    light = (PSF * 3000, galsim.Convolve(PSF, galsim.Exponential(half_light_radius=3)) * 5000)
    truth = np.stack([drawn(one, *place, shape) for one, place in zip(light, places, strict=True)])
    x, y = np.round(places).astype(np.int32).T
    spans = SpanSet.from_box((4, 50, 2, 39))
    records = SourceRecords.from_footprints([Footprint(spans, Peaks(x, y, np.array([2.0, 1.0])))])
    rng = np.random.default_rng(6)
    variance = 1 + truth.sum(axis=0) / 10
    pulls = []
    for _ in range(200):
        image = truth.sum(axis=0) + rng.standard_normal(shape) * np.sqrt(variance)
        exposure = make_exposure(image, variance, PixelPSF(IMAGE[None]))
        found = allocate_models(exposure, records, models_of(places, truth), doubt=0.0)
        for one, true in zip(found.footprints[1:], truth, strict=True):
            expected = true[one.spans.indices()].sum()
            pulls.append((one.image.sum() - expected) / np.sqrt(one.variance.sum()))
    assert abs(np.mean(pulls)) < 0.1
    assert 0.9 < np.std(pulls) < 1.1
    assert found.n_child.tolist() == [2, 0, 0]
    blend = truth * spans.to_mask(shape)
    own = 1 - (blend**2).sum(axis=(1, 2)) / (blend * blend.sum(axis=0)).sum(axis=(1, 2))
    np.testing.assert_allclose(found.values["blendedness"][1:], own, rtol=1e-9)
    np.testing.assert_allclose(found.values["max_overlap"][1], blend[1].max(), rtol=1e-9)
    np.testing.assert_allclose(found.values["model_flux"][1:], truth.sum(axis=(1, 2)))


def test_a_model_alone_is_its_source_and_not_blended():
    shape = (30, 44)
    one = drawn(PSF * 100, 10, 12, shape)
    records = SourceRecords.from_footprints(
        [
            Footprint(SpanSet.from_box((3, 18, 5, 20)), Peaks([10], [12], [1.0])),
            Footprint(SpanSet.from_box((30, 40, 5, 20)), Peaks([35], [9], [1.0])),
        ]
    )
    exposure = make_exposure(one, 1.0, PixelPSF(IMAGE[None]))
    # Its place is off all pixels, next to the second; the stamp leaves the image.
    stamp = ModelImage(IMAGE * 50, 26, -6, 41.0, 9.0)
    found = allocate_models(exposure, records, [ModelImage(one, 0, 0, 10.0, 12.0), stamp], grow=3)
    assert len(found) == 2
    np.testing.assert_allclose(found.values["blendedness"], 0, atol=1e-6)
    np.testing.assert_allclose(found.values["flux_overlap_fraction"], 0, atol=1e-6)
    np.testing.assert_allclose(found.values["model_flux"], [one.sum(), 50])
    np.testing.assert_allclose(found.values["data_coverage"], 1)


def test_overlap_of_equal_sources_is_a_half():
    one = np.outer([0.0, 1, 2, 1], [1.0, 3, 1, 0, 0])
    found = overlap(np.stack([one, one, 0 * one]))
    np.testing.assert_allclose(found.blendedness, [0.5, 0.5, 1])
    np.testing.assert_allclose(found.flux_overlap_fraction, [1, 1, 0])
    np.testing.assert_allclose(found.max_overlap[:2], one.max())


def test_no_blend_is_no_change():
    exposure = make_exposure(np.zeros((9, 12)), 1.0, PixelPSF(IMAGE[None]))
    none = SourceRecords.from_footprints([])
    assert len(deblend_footprints(exposure, none)) == 0
    assert len(allocate_models(exposure, none, [])) == 0
    labels = np.zeros((9, 12), np.int32)
    labels[2:5, 3:7] = 1
    peaks = Peaks([4], [3], [1.0])
    single = SourceRecords.from_footprints(FootprintSet.from_labels(labels, peaks))
    assert len(deblend_footprints(exposure, single)) == 1


def test_settings_that_cannot_be_are_refused():
    exposure, records, _ = pairs(9.0, 60, n=(1, 1))
    for setting, message in (
        ({"stray_flux": "all"}, "`stray_flux` must be one of trim"),
        ({"psf_chi2": 0.0}, "`psf_chi2` must be positive or None; got 0.0"),
        ({"max_area": 0}, "`max_area` must be at least 1 or None; got 0"),
        ({"max_no_data": 2.0}, "`max_no_data` must be a fraction"),
        ({"band": "z"}, "`name` must be one of the bands"),
    ):
        with pytest.raises(ValueError, match=message):
            deblend_footprints(exposure, records, **setting)
    with pytest.raises(ValueError, match="`models` need images of shape"):
        allocate_models(exposure, records, [ModelImage(np.zeros(3), 0, 0, 1.0, 1.0)])
