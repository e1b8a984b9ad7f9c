"""`diffdeblend psf`, what it leaves, and commands that take a PSF from there or from the stars."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from quick import hasty
from star_pair import SIGMAS, gaussian_stamp, star_pair, write_image

from diffdeblend import make_exposure
from diffdeblend.cli import main
from diffdeblend.epoch_inputs import psf_of_stars
from diffdeblend.io import read_varying_psf
from diffdeblend.io.psf_results import field_maps, write_psf
from diffdeblend.psf import PSFBasis
from diffdeblend.stars import StarMethod, StarPSF
from diffdeblend.stars.exposure_psf import joined_bases


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty():
        yield


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return str(write_image(tmp_path_factory.mktemp("image") / "image.fits", star_pair().new))


@pytest.fixture(scope="module")
def determined(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("psf")
    arguments = ["psf", image, "--method", "gaussian", "--degree", "0", "--reserve", "0"]
    assert main([*arguments, "-o", str(folder), "--quiet"]) == 0
    return folder


def varying_basis(seed=0, shape=(60, 90)):
    rng = np.random.default_rng(seed)
    images = np.stack([gaussian_stamp(s, 15) for s in (1.3, 1.8)])
    images[1] -= images[0]
    coefficients = np.zeros((1, 2, 6))
    coefficients[0, 0, 0] = 1
    coefficients[0, 1] = 0.1 * rng.normal(size=6)
    return PSFBasis(images[None], coefficients, shape, 2)


def test_the_psf_of_the_stars_is_written(determined):
    names = {"psf.fits", "stars.ecsv", "figure.png", "summary.json"}
    assert {file.name for file in determined.iterdir()} == names
    psf = read_varying_psf(determined / "psf.fits")
    stamp = np.asarray(psf.images_at(90.0, 70.0))[0]
    half = stamp.shape[0] // 2
    truth = gaussian_stamp(SIGMAS[0], stamp.shape[0])
    assert np.abs(stamp - truth).max() < 0.01 * truth[half, half]
    summary = json.loads((determined / "summary.json").read_text())
    table = Table.read(determined / "stars.ecsv")
    assert summary["bands"]["r"]["n_used"] == table["used"].sum() > 10
    assert summary["bands"]["r"]["fwhm"] == pytest.approx(2.355 * SIGMAS[0], rel=0.02)
    assert summary["settings"]["method"] == "gaussian"
    # What is not used says why.
    assert all(table["reason"][~table["used"]] != "")


def test_components_of_star_images_come_by_share_of_power(image, tmp_path):
    counts = []
    for share in ("0.5", "0.02"):
        arguments = ["--method", "basis", "--inf-loss", share, "--degree", "0", "--reserve", "0"]
        assert main(["psf", image, *arguments, "-o", str(tmp_path), "--quiet"]) == 0
        psf = read_varying_psf(tmp_path / "psf.fits")
        counts.append(psf.n_basis)
        assert float(psf.images_at(50.0, 40.0).sum()) == pytest.approx(1, abs=1e-5)
    assert 1 <= counts[0] < counts[1]


def test_a_basis_comes_back_as_it_was(tmp_path):
    basis = varying_basis()
    table = Table({"x": [1.0], "mag": [-8.0], "size": [1.3], "is_star": [True], "used": [True]})
    table["reserved"] = [False]
    star = StarPSF(basis, table, 3.1, 3.0, np.zeros((4, 6)), np.ones(2), {})
    files = write_psf(basis, [star], tmp_path, {"settings": {"seed": 3}})
    back = read_varying_psf(files["psf.fits"], basis.shape)
    np.testing.assert_array_equal(back.images, basis.images)
    np.testing.assert_array_equal(back.coefficients, basis.coefficients)
    assert (back.shape, back.degree) == (basis.shape, basis.degree)
    with fits.open(files["psf.fits"]) as hdus:
        maps, step = hdus["FIELDS"].data, int(hdus["FIELDS"].header["STEP"])
    assert maps.shape == (1, 2, *basis.shape)
    np.testing.assert_allclose(
        maps[0, :, 20, 70], basis.fields(70.0 * step, 20.0 * step)[0], rtol=1e-5, atol=1e-6
    )
    assert Table.read(files["stars.ecsv"]).meta["settings"] == {"seed": 3}


def test_maps_of_a_large_image_are_coarse():
    maps, step = field_maps(varying_basis(shape=(300, 600)))
    assert step == 3
    assert maps.shape == (1, 2, 100, 200)


def test_bands_are_joined(tmp_path):
    one = varying_basis()
    two = PSFBasis(gaussian_stamp(1.1, 11)[None, None], np.ones((1, 1, 1)), one.shape, 0)
    both = joined_bases([one, two])
    for band, alone in enumerate((one, two)):
        drawn = np.asarray(both.images_at(70.0, 11.0))[band]
        cut = (drawn.shape[0] - alone.images.shape[2]) // 2
        inner = drawn[cut : drawn.shape[0] - cut, cut : drawn.shape[1] - cut]
        np.testing.assert_allclose(inner, alone.images_at(70.0, 11.0)[0], atol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        joined_bases([one, varying_basis(shape=(61, 90))])


def test_detect_takes_the_written_psf(image, determined, tmp_path):
    arguments = ["--psf", str(determined / "psf.fits"), "--kernel", "psf", "--threshold", "8"]
    assert main(["detect", image, *arguments, "-o", str(tmp_path), "--quiet"]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["n_sources"] > 10


def test_an_image_of_another_shape_refuses_the_psf(determined, tmp_path, capsys):
    other = write_image(tmp_path / "other.fits", star_pair(shape=(100, 120)).new)
    arguments = ["--psf", str(determined / "psf.fits"), "--kernel", "psf", "--quiet"]
    assert main(["detect", str(other), *arguments, "-o", str(tmp_path / "out")]) == 2
    assert "not (100, 120)" in capsys.readouterr().err


def test_too_few_stars_are_said(tmp_path, capsys):
    few = write_image(tmp_path / "few.fits", star_pair(n=1, shape=(80, 90)).new)
    assert main(["deblend", str(few), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    said = capsys.readouterr().err.strip()
    assert "too few stars" in said
    assert "--psf-fwhm" in said
    assert "\n" not in said


def test_a_missing_psf_is_that_of_the_stars():
    pair = star_pair(n=60)
    exposure = make_exposure(pair.new, np.full(pair.new.shape, 150.0), np.ones((1, 3, 3)))
    with pytest.warns(UserWarning, match="taken from .* stars"):
        psf = psf_of_stars(exposure)
    truth = gaussian_stamp(SIGMAS[0], psf.images.shape[-1])
    stamp = np.asarray(psf.images_at(90.0, 70.0))[0]
    assert np.abs(stamp - truth).max() < 0.03 * truth.max()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "magic"}, "`method`"),
        ({"smooth": 1.0}, "`smooth`"),
        ({"inf_loss": 0.1, "n_basis": 2}, "same thing"),
        ({"inf_loss": 1.5}, "`inf_loss`"),
    ],
)
def test_methods_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        StarMethod(**settings)
