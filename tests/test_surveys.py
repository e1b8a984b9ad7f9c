"""Surveys: the numbers that they have, what follows from these, and files of them."""

import json
import pickle
from dataclasses import replace

import galsim
import numpy as np
import pytest
import surveycodex
from surveycodex.utilities import mag2counts, mean_sky_level

from diffdeblend.simulate.survey import Band, Survey, get_survey, get_surveys, survey_names
from diffdeblend.simulate.survey_file import (
    open_survey,
    read_survey,
    survey_from_dict,
    survey_to_dict,
    write_survey,
)
from diffdeblend.simulate.telescope import default_psf, delivered_psf, space_psf

ALL = (
    *("CFHTLS", "COSMOS", "DES", "Euclid_NISP", "Euclid_VIS", "HSC", "LSST"),
    *("PanSTARRS", "Roman_WFI", "Roman_WFI_Deep", "SDSS"),
)
OWN = Survey(
    "Own",
    0.25,
    (Band("g", 0.9, 28.0, 22.1, 300.0, 480.0), Band("r", 0.8, 28.1, 21.2, 400.0)),
    mirror_diameter=4.0,
    obscuration=0.2,
    gain=2.0,
)


def test_every_survey_is_known():
    assert survey_names() == ALL
    assert [survey.name for survey in get_surveys(ALL)] == list(ALL)


@pytest.mark.parametrize("name", ALL)
def test_numbers_are_those_of_surveycodex(name):
    ours, theirs = get_survey(name), surveycodex.get_survey(name)
    assert ours.band_names == tuple(theirs.available_filters)
    assert ours.pixel_scale == theirs.pixel_scale.value
    assert ours.mirror_diameter == theirs.mirror_diameter.value
    assert ours.obscuration == theirs.obscuration.value
    assert ours.gain == theirs.gain.value
    for k, band in enumerate(ours.bands):
        other = theirs.get_filter(band.name)
        assert band.psf_fwhm == other.psf_fwhm.value
        assert band.zero_point == other.zeropoint.value
        assert band.sky == other.sky_brightness.value
        assert band.exposure_time == other.full_exposure_time.value
        assert band.wavelength == other.effective_wavelength.value
        for magnitude in (24, 19.37):
            counts = mag2counts(magnitude, theirs, other).value
            assert ours.electrons(magnitude, floor=True)[k] == counts
        assert ours.sky_level(floor=True)[k] == mean_sky_level(theirs, other).value


# Literal, so that a change in surveycodex is seen: magnitude 24 and the sky, in electrons.
@pytest.mark.parametrize(
    ("name", "band", "values", "counts", "sky"),
    [
        ("LSST", "r", (0.81, 28.13, 21.2, 5520.0, 624.976), 247707, 130616.80),
        ("SDSS", "u", (1.55, 23.58, 22.01, 54.1, 361.437), 36, 35.91),
        ("Euclid_VIS", "IE", (0.17, 25.92, 22.3203, 565.0, 750.637), 3311, 155.57),
        ("DES", "Y", (0.9, 25.56, 17.96, 450.0, 989.297), 1893, 34310.94),
        ("Roman_WFI_Deep", "F146", (0.105, 27.54, 23.01, 5292.0, 1536.573), 137917, 4153.41),
        ("COSMOS", "f814w", (0.095, 25.94, 22.0, 2028.0, 807.343), 12107, 68.76),
    ],
)
def test_numbers_are_those_published(name, band, values, counts, sky):
    survey = get_survey(name).with_bands((band,))
    assert survey.bands == (Band(band, *values),)
    assert survey.electrons(24, floor=True)[0] == counts
    assert survey.sky_level(floor=True)[0] == pytest.approx(sky, abs=0.005)


def test_sky_of_lsst():
    sky = get_survey("LSST").sky_level(floor=True)
    wanted = [1612.00, 24789.68, 130616.80, 188798.72, 257810.84, 298745.40]
    np.testing.assert_allclose(sky, wanted, rtol=1e-12)


def test_sky_of_the_older_table():
    pytest.importorskip("galcheat")
    lsst = get_survey("LSST", "galcheat")
    noise = np.sqrt(lsst.with_bands("r").sky_level(floor=True))
    np.testing.assert_allclose(noise, 356.4507259075229, rtol=1e-12)
    assert survey_names("galcheat") == ("CFHTLS", "COSMOS", "DES", "Euclid_VIS", "HSC", "LSST")
    assert get_survey("DES", "galcheat").band_names == ("g", "r", "i", "z")


def test_electrons_are_exact_unless_floored():
    sdss = get_survey("SDSS").with_bands("ug")
    by_hand = 54.1 * 10 ** (-0.4 * (np.array([24.0, 23.0]) - [23.58, 25.73]))
    np.testing.assert_allclose(sdss.electrons([24.0, 23.0]), by_hand, rtol=1e-14)
    np.testing.assert_array_equal(sdss.electrons([24.0, 23.0], floor=True), np.floor(by_hand))
    magnitude = np.random.default_rng(0).uniform(15, 30, (3, 4, 2))
    assert sdss.electrons(magnitude).shape == (3, 4, 2)
    one_electron = sdss.electrons(sdss.zero_points)
    np.testing.assert_allclose(one_electron, 1, rtol=1e-12)


def test_bands_are_taken_by_name():
    lsst = get_survey("LSST")
    assert lsst.with_bands("gri").band_names == ("g", "r", "i")
    assert lsst.with_bands("z").bands == (lsst.band("z"),)
    assert get_survey("Euclid_VIS").with_bands("IE").band_names == ("IE",)
    assert get_survey("Roman_WFI").with_bands("F158, F106").band_names == ("F158", "F106")
    moffat = {name: galsim.Moffat(2.5, fwhm=w) for name, w in (("u", 0.9), ("g", 0.8), ("r", 0.7))}
    with_psfs = replace(lsst.with_bands("ugr"), psf=moffat).with_bands("ru")
    assert with_psfs.psf == (moffat["r"], moffat["u"])


def test_values_can_be_changed():
    lsst = get_survey("LSST")
    changed = lsst.with_band("r", sky=20.0, psf_fwhm=1.2)
    assert (changed.band("r").sky, changed.band("r").psf_fwhm) == (20.0, 1.2)
    assert changed.with_band("r", sky=21.2, psf_fwhm=0.81) == lsst
    assert hash(changed) != hash(lsst)
    wider = replace(lsst, pixel_scale=0.4)
    np.testing.assert_allclose(wider.sky_level(), 4 * lsst.sky_level(), rtol=1e-12)


PSFS = {
    "default": default_psf,
    "delivered": delivered_psf,
    "space": space_psf,
    "one": galsim.Moffat(beta=2.5, fwhm=0.81).shear(g1=0.1, g2=-0.03),
    "each": {"g": galsim.Gaussian(sigma=0.3), "r": space_psf},
}


@pytest.mark.parametrize("psf", PSFS.values(), ids=PSFS)
def test_survives_a_trip(psf, tmp_path):
    survey = replace(OWN, psf=psf)
    assert pickle.loads(pickle.dumps(survey)) == survey
    assert hash(pickle.loads(pickle.dumps(survey))) == hash(survey)
    written = survey_to_dict(survey, strict=True)
    # Sorted, as some stores do: bands must stay in their order.
    assert survey_from_dict(json.loads(json.dumps(written, sort_keys=True))) == survey
    write_survey(survey, tmp_path / "own.yaml")
    assert read_survey(tmp_path / "own.yaml") == survey
    assert open_survey(tmp_path / "own.yaml") == survey


@pytest.mark.parametrize("name", ALL)
def test_every_survey_survives_a_trip(name):
    survey = get_survey(name, psf=space_psf)
    assert survey_from_dict(json.loads(json.dumps(survey_to_dict(survey)))) == survey
    assert open_survey(name) == get_survey(name)


def test_a_function_that_is_not_ours_is_kept_as_what_it_gives():
    survey = replace(OWN, psf=lambda survey, band: galsim.Gaussian(fwhm=band.psf_fwhm))
    again = survey_from_dict(survey_to_dict(survey, strict=True))
    assert again.psf == (galsim.Gaussian(fwhm=0.9), galsim.Gaussian(fwhm=0.8))


def test_a_psf_that_varies_is_kept_by_name_only(tmp_path):
    def seeing(survey, band):
        return lambda rng: galsim.Gaussian(fwhm=rng.uniform(0.6, 0.9))

    survey = replace(OWN, psf=seeing)
    again = survey_from_dict(json.loads(json.dumps(survey_to_dict(survey))))
    assert again.bands == survey.bands
    with pytest.raises(ValueError, match=r"was the function .*seeing, which is not stored"):
        again.psf[0](again, again.bands[0])
    assert survey_from_dict(survey_to_dict(again)) == again
    with pytest.raises(ValueError, match=r"`psf` of Own, .*seeing, varies and cannot"):
        write_survey(survey, tmp_path / "own.yaml")


YAML = """
name: Shallow
base: LSST
pixel_scale: 0.25
only: gri
bands:
  r: {exposure_time: 30, sky: 20.8}
psf: {bands: {g: delivered_psf, r: {file: "psf_{band}.fits", pixel_included: true}, i: space_psf}}
"""


def test_a_file_may_say_only_what_changes(tmp_path):
    path = tmp_path / "shallow.yaml"
    path.write_text(YAML)
    survey, lsst = read_survey(path), get_survey("LSST")
    assert (survey.name, survey.pixel_scale, survey.gain) == ("Shallow", 0.25, lsst.gain)
    assert survey.band_names == ("g", "r", "i")
    assert survey.band("r") == replace(lsst.band("r"), exposure_time=30, sky=20.8)
    assert survey.band("g") == lsst.band("g")
    assert survey.psf[0] is delivered_psf
    assert survey.psf[1].path == str(tmp_path / "psf_{band}.fits")
    assert survey.psf[1].pixel_included


def test_a_file_may_add_a_band_or_take_the_older_table():
    pytest.importorskip("galcheat")
    w = {"psf_fwhm": 1.0, "zero_point": 29, "sky": 20, "exposure_time": 45}
    survey = survey_from_dict({"base": "LSST", "source": "galcheat", "bands": {"w": w}})
    assert survey.band_names == (*"ugrizy", "w")
    assert survey.band("w") == Band("w", 1.0, 29.0, 20.0, 45.0)
    assert survey.band("r").zero_point == 28.10


BAND = OWN.bands[0]
WRONG = {
    "unknown survey": (lambda: get_survey("Rubin"), "no survey 'Rubin', but .*'LSST'"),
    "unknown survey or file": (lambda: open_survey("Rubin"), "no survey 'Rubin', but .*YAML"),
    "unknown source": (lambda: get_survey("LSST", "codex"), "`source` must be .*got 'codex'"),
    "several as one": (lambda: get_surveys("LSST"), "`names` needs a list .*got 'LSST'"),
    "unknown band": (lambda: OWN.band("z"), r"Own has no band 'z', but \('g', 'r'\)"),
    "unknown bands": (lambda: OWN.with_bands("gz"), "no band 'z'"),
    "no bands": (lambda: OWN.with_bands(""), "`bands` needs at least one Band"),
    "unknown change": (lambda: OWN.with_band("g", fwhm=1), r"\['fwhm'\]; a band has .*'psf_fwhm'"),
    "same band twice": (lambda: replace(OWN, bands=(BAND, BAND)), "a name of its own for each"),
    "no width": (lambda: replace(BAND, psf_fwhm=0), "`psf_fwhm` of band 'g' .*positive.*got 0"),
    "text": (lambda: replace(BAND, sky="dark"), "`sky` of band 'g' must be a number; got 'dark'"),
    "unknown sky": (lambda: replace(BAND, sky=np.nan), "`sky` .*finite number; got nan"),
    "no pixel": (lambda: replace(OWN, pixel_scale=-1), "`pixel_scale` must be a positive"),
    "negative mirror": (lambda: replace(OWN, mirror_diameter=-1), "`mirror_diameter` must not"),
    "all obscured": (lambda: replace(OWN, obscuration=1), "`obscuration` is a share .*got 1"),
    "magnitudes": (lambda: OWN.electrons([24.0] * 3), r"`magnitude` needs .*got shape \(3,\)"),
    "psf lacks": (lambda: replace(OWN, psf={"g": default_psf}), r"`psf` has no band \['r'\]"),
    "psf of one": (lambda: replace(OWN, psf=(default_psf,)), "one entry for each .*got 1"),
    "unknown key": (lambda: survey_from_dict({"base": "LSST", "pixel": 1}), r"\['pixel'\].*unkn"),
    "unknown key of a band": (
        lambda: survey_from_dict({"base": "LSST", "bands": {"r": {"seeing": 1}}}),
        r"`band r` has \['seeing'\], which are unknown; known are .*'psf_fwhm'",
    ),
    "lacks": (lambda: survey_from_dict({"name": "Own"}), r"needs \['pixel_scale', 'mirror_di"),
    "lacks in a band": (
        lambda: survey_from_dict({"base": "LSST", "bands": {"w": {"sky": 20}}}),
        r"'w' needs \['psf_fwhm', 'zero_point', 'exposure_time'\]",
    ),
    "no mapping": (lambda: survey_from_dict([1]), r"must be a mapping .*got \[1\]"),
    "bands of another kind": (
        lambda: survey_from_dict({"base": "LSST", "bands": "gri"}),
        "`bands` must be a mapping .*got 'gri'",
    ),
    "source alone": (
        lambda: survey_from_dict({**survey_to_dict(OWN), "source": "galcheat"}),
        "`source` says where `base` is from",
    ),
    "unknown psf": (
        lambda: survey_from_dict({"base": "LSST", "psf": "airy"}),
        r"one of \['default_psf', .*got 'airy'",
    ),
    "psf of another kind": (
        lambda: survey_from_dict({"base": "LSST", "psf": {"fwhm": 1}}),
        "`psf` must be one of .*or have one of .*got {'fwhm': 1}",
    ),
    "psf with more": (
        lambda: survey_from_dict({"base": "LSST", "psf": {"file": "a", "scale": 1}}),
        r"`psf` has \['scale'\], which are unknown; known are \['file'",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"a: [", "is no YAML file"),
        (b"\xff\xfe\x00", "is no YAML file"),
        (b"", "must be a mapping"),
        (b"base: LSST\nbands: {r: {sky: dark}}", "`path`: .*`sky` of band 'r' .*got 'dark'"),
    ],
)
def test_a_wrong_file_is_named(content, message, tmp_path):
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_survey(path)
    assert str(path) in str(caught.value)
