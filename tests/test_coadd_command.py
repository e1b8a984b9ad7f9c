"""`diffdeblend coadd`, and what it leaves."""

import json

import numpy as np
import pytest
from astropy.io import fits
from quick import hasty
from star_pair import SHAPE, SIGMAS, draw, gaussian_stamp, star_pair, write_image

from diffdeblend.cli import main
from diffdeblend.io import read_varying_psf

SKY = 300.0


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four epochs of the same stars, of two seeings and transparencies, and options for PSFs."""
    folder = tmp_path_factory.mktemp("epochs")
    pair = star_pair()
    rng = np.random.default_rng(5)
    images, stamps = [], []
    for k in range(4):
        sigma, scale = SIGMAS[k % 2], (1.0, 0.7)[k % 2]
        light = scale * draw(SHAPE, pair.x, pair.y, pair.flux, sigma)
        raw = rng.poisson(2.0 * (light + SKY)) / 2.0
        images.append(str(write_image(folder / f"{k}.fits", raw, EPOCH=k)))
        stamps.append(str(folder / f"psf{k}.fits"))
        fits.PrimaryHDU(gaussian_stamp(sigma)).writeto(stamps[-1])
    return pair, images, ["--psf", *stamps]


def test_adds_up(files, tmp_path):
    pair, images, psf = files
    assert main(["coadd", *images, *psf, "-o", str(tmp_path), "--quiet"]) == 0
    names = {"coadd.fits", "coadd_psf.fits", "detection.fits", "figure.png", "summary.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n_epochs"] == 4
    np.testing.assert_allclose(np.ravel(summary["scale"]), [1, 0.7, 1, 0.7], rtol=0.02)
    with fits.open(tmp_path / "coadd.fits") as hdus:
        image, cards = hdus[0].data, hdus[0].header
        assert (hdus["N_EPOCHS"].data == 4).all()
        assert cards["OBJECT"] == "a field"
        assert cards["NEPOCHS"] == 4
    # Far from stars it is white noise of unit variance.
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = np.hypot(x[..., None] - pair.x, y[..., None] - pair.y)[..., pair.flux > 0].min(axis=-1)
    empty = (near > 11) & (x > 8) & (x < SHAPE[1] - 9) & (y > 8) & (y < SHAPE[0] - 9)
    assert image[empty].std() == pytest.approx(1, abs=4 / np.sqrt(2 * empty.sum()))
    stamp = read_varying_psf(tmp_path / "coadd_psf.fits").image[0]
    star = np.argmax(np.where(near.shape == (0,), 0, pair.flux))
    with fits.open(tmp_path / "detection.fits") as hdus:
        at = round(pair.y[star]), round(pair.x[star])
        assert hdus["FLUX"].data[at] == pytest.approx(pair.flux[star], rel=0.1)
        np.testing.assert_array_less(5, hdus[0].data[at])
    assert float(stamp.sum()) == pytest.approx(1, abs=1e-5)


def test_epochs_that_are_prepared_again_add_up_to_the_same(files, tmp_path, monkeypatch):
    _, images, psf = files
    mask = tmp_path / "mask.fits"
    flaws = np.zeros(SHAPE, np.uint8)
    flaws[60:64, 20:90] = 1
    fits.PrimaryHDU(flaws).writeto(mask)
    found = []
    for limit in (1e9, 0):
        monkeypatch.setattr("diffdeblend.coadd_command._KEPT_PIXELS", limit)
        arguments = ["--mask", str(mask), *["none"] * 3, "-o", str(tmp_path / f"{limit}")]
        assert main(["coadd", *images, *psf, *arguments, "--quiet"]) == 0
        found.append(fits.getdata(tmp_path / f"{limit}" / "coadd.fits"))
        with fits.open(tmp_path / f"{limit}" / "coadd.fits") as hdus:
            assert hdus["N_EPOCHS"].data[61, 50] == 3
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images, psf: [images[0], *psf[:2]], "at least two"),
        (lambda images, psf: [images[0], "none.fits", *psf[:2]], "none.fits"),
        (lambda images, psf: [*images, *psf[:3]], "--psf"),
        (lambda images, psf: [*images, *psf, "--gain", "1", "2"], "--gain"),
    ],
)
def test_wrong_input_is_one_line(files, tmp_path, capsys, change, words):
    _, images, psf = files
    assert main(["coadd", *change(images, psf), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("diffdeblend: error:")
    assert "\n" not in said
    assert words in said


@pytest.mark.slow
def test_what_is_left_of_shifts_is_measured(tmp_path):
    pair = star_pair(n=60)
    images = [write_image(tmp_path / "a.fits", pair.reference)]
    images.append(write_image(tmp_path / "b.fits", pair.new))
    for name, sigma in zip("ab", SIGMAS[::-1], strict=True):
        fits.PrimaryHDU(gaussian_stamp(sigma)).writeto(tmp_path / f"psf_{name}.fits")
    psf = [str(tmp_path / f"psf_{name}.fits") for name in "ab"]
    arguments = ["--psf", *psf, "--shift", "fit", "-o", str(tmp_path / "out"), "--quiet"]
    assert main(["coadd", *map(str, images), *arguments]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    np.testing.assert_allclose(summary["shift"][1], pair.shift, atol=0.02)
