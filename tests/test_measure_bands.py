"""One catalogue of all bands, and fluxes forced at one place in each."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from diffdeblend.multiband import forced_photometry, measure_bands
from diffdeblend.quantities.magnitudes import magnitudes
from diffdeblend.quantities.psf_flux import measure_psf_flux
from diffdeblend.simulate import draw_field

BANDS = "gri"
PSF_ONLY = {"psf": measure_psf_flux}
SHAPE = (360, 420)


def stars_of_one_snr(seed, snr=100.0, step=30):
    """Stars on a grid, off the middles of pixels, of S/N about 100 in each band."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[step // 2 : SHAPE[0] - 10 : step, step // 2 : SHAPE[1] - 10 : step]
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, axis.size) for axis in (x, y))
    limit = 10 ** (-0.4 * (26.0 - 31.4))
    columns = {"x": x, "y": y}
    for band in BANDS:
        columns[f"flux_{band}"] = snr / 5 * limit * rng.uniform(0.8, 1.25, x.size)
    return draw_field(columns, SHAPE, BANDS, depth=26.0, fwhm=[0.8, 0.7, 0.65], seed=seed)


def colour_errors(field, columns):
    """Measured less true colours and their standard deviations, both neighbours of bands."""
    found = {
        band: magnitudes(
            np.asarray(columns[band]["psf_flux"], float),
            np.asarray(columns[band]["psf_flux_err"], float),
            31.4,
        )
        for band in BANDS
    }
    away, error = [], []
    for one, two in pairwise(BANDS):
        true = np.asarray(field.truth[f"mag_{one}"] - field.truth[f"mag_{two}"])
        away.append(found[one][0] - found[two][0] - true)
        error.append(np.hypot(found[one][1], found[two][1]))
    return np.concatenate(away), np.concatenate(error)


@pytest.mark.slow
def test_forced_colours_are_true_and_as_noisy_as_said():
    away, error = [], []
    for seed in range(100, 104):
        field = stars_of_one_snr(seed)
        truth = field.truth
        reference = {"centroid_x": np.asarray(truth["x"]), "centroid_y": np.asarray(truth["y"])}
        made = forced_photometry(field.exposure, reference, measurements=PSF_ONLY, sizes=(48,))
        one, two = colour_errors(field, made)
        away.append(one)
        error.append(two)
        # Given flags stay flags.
        assert made["g"]["psf_flag"].dtype == bool
    away, error = np.concatenate(away), np.concatenate(error)
    assert abs(np.median(away)) < 0.01
    assert abs(away.mean()) < 4 * error.mean() / np.sqrt(len(away))
    assert np.std(away / error) == pytest.approx(1, abs=0.1)


def test_places_are_taken_over_from_another_wcs():
    field = stars_of_one_snr(7)
    x, y = (np.asarray(field.truth[axis]) for axis in "xy")
    header = field.exposure.header
    wcs = header.wcs.deepcopy()
    # The reference's pixels are twice as large, and its image is turned over.
    wcs.wcs.cdelt = -2 * wcs.wcs.cdelt
    other = replace(header, wcs=wcs)
    centre = header.wcs.wcs.crpix - 1
    there = {
        "centroid_x": centre[0] - (x - centre[0]) / 2,
        "centroid_y": centre[1] - (y - centre[1]) / 2,
    }
    here = {"centroid_x": x, "centroid_y": y}
    options = {"measurements": PSF_ONLY, "sizes": (48,)}
    own = forced_photometry(field.exposure, here, **options)
    taken = forced_photometry(field.exposure, there, header=other, **options)
    for band in BANDS:
        np.testing.assert_allclose(taken[band]["psf_flux"], own[band]["psf_flux"], rtol=1e-3)


@pytest.mark.parametrize(
    ("reference", "named"),
    [({"x": [1.0]}, "centroid_x"), ({"centroid_x": [1.0]}, "centroid_x")],
)
def test_missing_columns_are_named(reference, named):
    field = stars_of_one_snr(7)
    with pytest.raises(ValueError, match=named):
        forced_photometry(field.exposure, reference)


def test_wrong_settings_are_named():
    field = stars_of_one_snr(7)
    with pytest.raises(ValueError, match="`priority`"):
        measure_bands(field.exposure, priority="gz")
    with pytest.raises(ValueError, match="`deblending`"):
        measure_bands(field.exposure, deblending="magic")


@pytest.mark.slow
def test_rows_are_those_of_all_bands_and_colours_are_true():
    field = stars_of_one_snr(105)
    made = measure_bands(field.exposure, priority="irg", deblending=None)
    catalog = made.catalog
    assert len(catalog) == len(field.truth)
    x, y = (np.asarray(field.truth[axis]) for axis in "xy")
    found = np.stack([np.asarray(catalog["centroid_x"]), np.asarray(catalog["centroid_y"])], 1)
    apart = np.hypot(found[:, :1] - x, found[:, 1:] - y)
    row = apart.argmin(axis=1)
    assert apart.min(axis=1).max() < 0.3
    away = np.asarray(catalog["psf_color_g_r"].value)
    away = away - np.asarray(field.truth["mag_g"] - field.truth["mag_r"])[row]
    error = np.asarray(catalog["psf_color_g_r_err"].value)
    assert abs(np.median(away)) < 0.01
    assert np.std(away / error) == pytest.approx(1, abs=0.2)
    assert str(catalog["psf_flux_g"].unit) == "nJy"
    assert catalog["psf_flux_g"].info.description
    for band in BANDS:
        np.testing.assert_array_equal(made.forced[band]["id"], catalog["id"])
