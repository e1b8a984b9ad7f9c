"""The columns of the table of all bands: their units, their words, their magnitudes."""

from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.wcs import WCS

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.footprints import FootprintSet, SourceRecords
from diffdeblend.header import Header
from diffdeblend.multiband.band_table import band_table
from diffdeblend.multiband.column_words import FLUX, column_words
from diffdeblend.multiband.forced import FORCED_CMODEL
from diffdeblend.quantities import STANDARD, WITH_CMODEL, measure_sources

BANDS = ("g", "r")
EXPOSURE = make_exposure(np.zeros((40, 50)), 1.0, GaussianPSF(np.array([3.0])))


@pytest.fixture(scope="module")
def measured():
    """What measurements of no source are called: nothing is compiled."""
    found = measure_sources(EXPOSURE, np.zeros((0, 2)), measurements=STANDARD)
    # That which takes long to trace.
    more = {"flux", "flux_err", "frac_dev", "exp_radius", "exp_xx", "dev_xy", "dev_chi2"}
    return found | {f"cmodel_{key}": np.zeros(0) for key in more}


@pytest.fixture(scope="module")
def table(measured) -> Any:
    footprints = FootprintSet.from_labels(np.array([[1, 1, 0, 2], [0, 0, 0, 2]]))
    records = SourceRecords.from_footprints(footprints)
    columns = {name: np.ones(2, v.dtype) for name, v in measured.items()}
    forced = {
        band: {
            name: values * np.asarray(flux, values.dtype)
            for name, values in columns.items()
            if name.startswith(("psf_", "aperture_", "kron_", "cmodel_", "pixel_"))
        }
        for band, flux in (("g", 100.0), ("r", 1000.0))
    }
    forced["r"]["aperture_flux_12"] = np.array([1e4, -1.0])
    header = Header(BANDS, zero_points=(31.4, 31.4), unit="nJy")
    seen = {band: np.array([True, False]) for band in BANDS}
    return band_table(header, records, columns, forced, np.array([0, 1]), seen, ("r", "g"))


def test_every_column_says_what_it_is(table):
    for name in table.colnames:
        said = table[name].info.description
        assert said, name
        # Better words than the name with spaces.
        assert said.partition(";")[0].partition(",")[0] != name.replace("_", " "), name
    assert len({table[name].info.description for name in table.colnames}) == len(table.colnames)


@pytest.mark.slow
def test_all_measurements_have_words():
    for name in measure_sources(EXPOSURE, np.zeros((0, 2)), measurements=WITH_CMODEL):
        assert column_words(name).description != name.replace("_", " ")
    assert set(FORCED_CMODEL) - set(WITH_CMODEL) == {"forced_kron", "forced_cmodel"}


def test_units_are_those_of_the_numbers(table):
    for name, unit in {
        "centroid_x": "pix",
        "centroid_x_err": "pix",
        "centroid_xy_cov": "pix2",
        "shape_xx": "pix2",
        "shape_xx_err": "pix2",
        "shape_xx_yy_cov": "pix4",
        "shape_radius_trace": "pix",
        "ref_psf_shape_xx": "pix2",
        "ref_kron_radius": "pix",
        "ref_cmodel_exp_radius": "pix",
        "ref_cmodel_dev_xy": "pix2",
        "ref_local_background_value": "nJy",
        "psf_flux_err_r": "nJy",
        "aperture_flux_4_5_g": "nJy",
        "shape_flux": "nJy",
        "kron_mag_err_r": "mag",
    }.items():
        assert table[name].unit == units.Unit(unit), name
    plain = ("id", "peak_x", "psf_chi2_g", "cmodel_frac_dev_r", "kron_flag_g", "psf_n_pixels_r")
    for name in plain:
        assert getattr(table[name], "unit", None) is None, name
    assert table["peak_x"].dtype.kind == table["psf_n_pixels_r"].dtype.kind == "i"


def test_circles_have_magnitudes(table):
    np.testing.assert_allclose(table["aperture_mag_12_r"].value, [21.4, np.nan])
    np.testing.assert_allclose(table["aperture_mag_4_5_g"].value, 26.4)
    wanted = 2.5 / np.log(10) * 1000 / 1e4
    np.testing.assert_allclose(table["aperture_mag_12_err_r"].value[0], wanted)
    np.testing.assert_allclose(table["kron_color_g_r"].value, 2.5)
    assert not [name for name in table.colnames if name.startswith("aperture_color")]


def test_measurements_of_ones_own_stand_for_themselves():
    assert column_words("mine_flux_err") == ("mine flux err", FLUX)
    assert column_words("mine_depth") == ("mine depth", None)
    assert column_words("mine_flag").description == "No number of mine is to be trusted"


def test_without_zero_points_there_are_no_magnitudes(measured):
    records = SourceRecords.from_footprints(FootprintSet.from_labels(np.array([[1, 0]])))
    columns = {name: np.ones(1, v.dtype) for name, v in measured.items()}
    header = Header(("r",), wcs=_wcs())
    made: Any = band_table(
        header, records, columns, {"r": columns}, np.array([0]), {"r": np.array([True])}, ("r",)
    )
    assert not [name for name in made.colnames if "_mag" in name]
    assert getattr(made["psf_flux_r"], "unit", None) is None
    assert made["centroid_x"].unit == units.pix
    assert made["ra"].unit == units.deg


def _wcs() -> WCS:
    made = WCS(naxis=2)
    made.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    made.wcs.crval, made.wcs.cdelt = [150.0, 2.0], [-5e-5, 5e-5]
    return made
