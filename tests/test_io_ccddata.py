"""astropy's CCDData in and out, with every kind of uncertainty."""

import numpy as np
import pytest
from astropy import units
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS

from diffdeblend.exposure import make_exposure
from diffdeblend.io import from_ccddata, to_ccddata
from diffdeblend.psf import GaussianPSF

NY, NX = 6, 9
PSF = np.stack([np.outer([1, 2, 1], [1, 3, 1]), np.outer([1, 4, 1], [2, 5, 1])]).astype(float)
VARIANCE = np.linspace(1, 3, NY * NX).reshape(NY, NX)
IMAGE = np.linspace(-5, 40, NY * NX).reshape(NY, NX)


def sky(shift=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [3.0 + shift, 1.5]
    wcs.wcs.cdelt = [-5e-5, 5e-5]
    return wcs


def ccd(band="g", unit="adu", **changes):
    given = {
        "uncertainty": VarianceUncertainty(VARIANCE),
        "meta": {"filter": band, "magzero": 27.0, "exptime": 30.0},
        "wcs": sky(),
    } | changes
    return CCDData(changes.pop("data", IMAGE), unit=unit, **{k: v for k, v in given.items()
                                                             if k != "data"})  # fmt: skip


@pytest.mark.parametrize(
    "uncertainty",
    [
        VarianceUncertainty(VARIANCE),
        StdDevUncertainty(np.sqrt(VARIANCE)),
        InverseVariance(1 / VARIANCE),
        # In a unit of its own.
        StdDevUncertainty(np.sqrt(VARIANCE) * 1e3, unit="nJy"),
        InverseVariance(1e-6 / VARIANCE, unit=units.nJy**-2),
    ],
)
def test_every_uncertainty(uncertainty):
    made = from_ccddata(ccd(unit="uJy", uncertainty=uncertainty, meta={}), psf=PSF[0])
    np.testing.assert_allclose(made.variance[0], VARIANCE, rtol=1e-6)
    np.testing.assert_allclose(made.image[0], IMAGE, rtol=1e-6)
    assert made.header.unit == "uJy"
    assert made.header.zero_points == pytest.approx((23.9,), abs=1e-8)


def test_several_bands():
    mask = IMAGE[4, 5] == IMAGE
    made = from_ccddata([ccd("g", mask=mask), ccd("r", data=IMAGE + 100)], psf=PSF)
    assert made.bands == ("g", "r")
    np.testing.assert_allclose(made.image[1], IMAGE + 100, rtol=1e-6)
    assert np.argwhere(~np.asarray(made.good)).tolist() == [[0, 4, 5]]
    assert made.header.zero_points == (27, 27)
    assert made.header.exposure_time == 30
    assert made.header.pixel_scale == pytest.approx(0.18, rel=1e-5)
    assert from_ccddata([ccd(), ccd()], psf=PSF, bands=["a", "b"]).bands == ("a", "b")


def test_its_own_psf():
    made = from_ccddata([ccd("g", psf=PSF[0]), ccd("r", psf=PSF[1])])
    np.testing.assert_allclose(made.psf.image[1], PSF[1] / PSF[1].sum(), rtol=1e-6)
    assert isinstance(
        from_ccddata(ccd(psf=PSF[0]), psf=GaussianPSF(np.array([2.0]))).psf, GaussianPSF
    )


def test_no_weight_is_no_data():
    inverse = 1 / VARIANCE
    inverse[2, 3] = 0
    made = from_ccddata(ccd(uncertainty=InverseVariance(inverse)), psf=PSF[0])
    assert np.argwhere(~np.asarray(made.good)[0]).tolist() == [[2, 3]]


def test_noise_is_estimated_where_it_is_not_given():
    values = np.random.default_rng(2).normal(10, 3, (90, 120))
    made = from_ccddata(CCDData(values, unit="adu"), psf=PSF[0])
    assert float(made.variance[0, 3, 4]) == pytest.approx(9, rel=0.06)


def test_units():
    bands = [ccd("g", unit="nJy", meta={}), ccd("r", unit="uJy", meta={})]
    made = from_ccddata(bands, psf=PSF)
    np.testing.assert_allclose(made.image[1], 1e3 * made.image[0], rtol=1e-5)
    np.testing.assert_allclose(made.variance[1], 1e6 * made.variance[0], rtol=1e-5)
    made = from_ccddata(bands, psf=PSF, unit="uJy")
    np.testing.assert_allclose(made.image[1], IMAGE, rtol=1e-5)
    assert from_ccddata(ccd(unit=""), psf=PSF[0]).header.unit == ""
    with pytest.raises(ValueError, match=r"`unit` 'adu' cannot be made from data\[1\]"):
        from_ccddata([ccd("g", meta={}), ccd("r", unit="electron", meta={})], psf=PSF)


def full_exposure(**changes):
    random = np.random.default_rng(3)
    values = random.normal(size=(2, NY, NX)).astype("f4")
    values[1, 2, 3] = np.nan
    mask = np.zeros(values.shape, bool)
    mask[0, 1, 2] = True
    given = {"bands": ("g", "r"), "zero_points": (27.0, 28.0), "wcs": sky(), "gain": 2.5}
    given |= {"unit": "adu / s", "exposure_time": 30.0, "date": "2020-01-01", "read_noise": 5.0}
    given |= {"saturation": 2.0} | changes
    variance = random.uniform(1, 2, values.shape).astype("f4")
    return make_exposure(values, variance, PSF, mask=mask, **given)


@pytest.mark.parametrize("changes", [{}, {"wcs": None, "pixel_scale": 0.3}, {"unit": ""},
                                     {"unit": "nJy", "zero_points": None}])  # fmt: skip
def test_round_trip(changes):
    made = full_exposure(**changes)
    bands = to_ccddata(made)
    assert [type(band) for band in bands] == [CCDData, CCDData]
    back = from_ccddata(bands)
    for name in ("good", "data", "weight"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    np.testing.assert_allclose(back.psf.image, made.psf.image, rtol=2e-7)
    for name in ("bands", "zero_points", "unit", "gain", "read_noise", "saturation", "date"):
        assert getattr(back.header, name) == pytest.approx(getattr(made.header, name)), name
    assert back.header.exposure_time == 30
    assert back.header.pixel_scale == pytest.approx(made.header.pixel_scale)
    np.testing.assert_array_equal(bands[1].mask, ~np.asarray(made.good[1]))


def test_what_comes_out_is_ones_own():
    """CCDData is changed in place by its users; the exposure must not change with it."""
    made = full_exposure()
    before = np.array(made.image)
    band = to_ccddata(made)[0]
    band.data[:] = 0
    band.uncertainty.array[:] = 0
    np.testing.assert_array_equal(made.image, before)
    assert np.asarray(made.variance).min() > 0


REFUSED = {
    "nothing": ([], "`data` must be a CCDData or a list of them"),
    "an array": (IMAGE, "`data` must be a CCDData.*ndarray"),
    "a list of arrays": ([IMAGE], "`data` must be a CCDData"),
    "three axes": (CCDData(np.ones((2, 3, 4)), unit="adu"), r"data\[0\].*2 axes; got.*\(2, 3, 4\)"),
    "unknown uncertainty": (ccd(uncertainty=UnknownUncertainty(VARIANCE)), "has no variance"),
    "bands of other shapes": (
        [ccd("g"), CCDData(np.ones((NX, NY)), unit="adu")], "bands must have one shape",
    ),
    "bands elsewhere": ([ccd("g"), ccd("r", wcs=sky(0.5))], r"disagree by 0\.5 pixels"),
    "one filter twice": ([ccd("g"), ccd("g")], "`bands` must be all different"),
    "no psf": (ccd(psf=None), "`psf` is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    data, message = REFUSED[name]
    psf = None if name == "no psf" else PSF[: len(data) if isinstance(data, list) else 1]
    with pytest.raises((ValueError, TypeError), match=message if name != "an array" else "data"):
        from_ccddata(data, psf=psf)
