"""`diffdeblend subtract`, and what it leaves."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from quick import hasty
from star_pair import GAIN, SIGMAS, SKIES, gaussian_stamp, star_pair, write_image

from diffdeblend import make_exposure
from diffdeblend.cli import main
from diffdeblend.io import read_varying_psf
from diffdeblend.transients.find_transients import registered

FILES = {"difference.fits", "scorr.fits", "psf.fits", "candidates.ecsv", "figure.png"}


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty():
        yield


@pytest.fixture(scope="module")
def pair():
    return star_pair()


@pytest.fixture(scope="module")
def files(pair, tmp_path_factory):
    """The new image, the reference, and the options for their true PSFs."""
    folder = tmp_path_factory.mktemp("pair")
    new = write_image(folder / "new.fits", pair.new, OBSERVER="Ada")
    reference = write_image(folder / "reference.fits", pair.reference)
    options = ["--psf"]
    for name, sigma in zip(("new", "reference"), SIGMAS, strict=True):
        fits.PrimaryHDU(gaussian_stamp(sigma)).writeto(folder / f"psf_{name}.fits")
        options.append(str(folder / f"psf_{name}.fits"))
    return str(new), str(reference), options


@pytest.fixture(scope="module")
def subtracted(files, tmp_path_factory):
    new, reference, psf = files
    folder = tmp_path_factory.mktemp("subtracted")
    arguments = ["subtract", new, reference, *psf, "-o", str(folder), "--quiet"]
    assert main([*arguments, "--shift-degree", "0"]) == 0
    return folder


def test_finds_what_has_brightened(pair, subtracted):
    assert {file.name for file in subtracted.iterdir()} == FILES | {"summary.json"}
    table = QTable.read(subtracted / "candidates.ecsv")
    assert list(table["verdict"]) == ["transient"]
    x, y, flux = pair.transient
    assert float(table["x"][0]) == pytest.approx(x, abs=4 * float(table["x_err"][0]))
    assert float(table["y"][0]) == pytest.approx(y, abs=4 * float(table["y_err"][0]))
    assert float(table["flux"][0]) == pytest.approx(flux, abs=4 * float(table["flux_err"][0]))
    assert table.meta["inputs"]["new"].endswith("new.fits")


def test_summary_says_how_it_went(pair, subtracted):
    summary = json.loads((subtracted / "summary.json").read_text())
    assert summary["beta"] == pytest.approx(pair.beta, abs=5 * summary["beta_err"])
    assert summary["dx"] == pytest.approx(pair.shift[0], abs=0.02)
    assert summary["dy"] == pytest.approx(pair.shift[1], abs=0.02)
    assert summary["scorr_robust_sigma"] == pytest.approx(1, abs=0.06)
    assert summary["n_candidates"] == 1
    assert summary["seconds"]["total"] > 0
    assert summary["settings"]["threshold"] == 5
    # The same numbers, from the file.
    image = fits.getdata(subtracted / "scorr.fits")[15:-15, 15:-15]
    assert summary["fraction_beyond_5_sigma"] == pytest.approx(np.mean(np.abs(image) > 5), rel=1e-6)
    assert summary["scorr_std"] == pytest.approx(image.std(dtype=float), rel=1e-4)


def test_images_keep_the_header_of_the_new_one(pair, files, subtracted):
    given = fits.getheader(files[0])
    for name in ("difference.fits", "scorr.fits"):
        with fits.open(subtracted / name) as hdus:
            cards = hdus[0].header
            assert hdus[0].data.shape == pair.new.shape
            assert cards["OBSERVER"] == "Ada"
            assert "BZERO" not in cards
            assert "GAIN" not in cards
            assert cards["NEWIMAGE"] == "new.fits"
            assert cards["BETA"] == pytest.approx(pair.beta, abs=0.02)
            at = 100.0, 40.0
            for hdu in hdus:
                sky = WCS(hdu.header).pixel_to_world_values(*at)
                np.testing.assert_allclose(sky, WCS(given).pixel_to_world_values(*at), rtol=1e-12)
    with fits.open(subtracted / "scorr.fits") as hdus:
        np.testing.assert_allclose(
            hdus["FLUX"].data / hdus["FLUX_ERR"].data, hdus[0].data, rtol=1e-4, atol=1e-4
        )
    stamp = fits.getdata(subtracted / "psf.fits")
    assert stamp.sum() == pytest.approx(1, abs=1e-3)
    assert np.unravel_index(stamp.argmax(), stamp.shape) == tuple(n // 2 for n in stamp.shape)


def test_the_psf_of_a_difference_can_be_given_to_commands(subtracted):
    psf = read_varying_psf(subtracted / "psf.fits")
    assert float(psf.image.sum()) == pytest.approx(1, abs=1e-6)


def test_what_is_given_is_not_fitted(pair, files, tmp_path, capsys):
    new, reference, psf = files
    numbers = ["--beta", "0.8", "--shift=0.2,-0.15", "--background", "none"]
    numbers += ["--registration-noise", "0.01"]  # else another program
    arguments = [*psf, *numbers, "-o", str(tmp_path), "--quiet"]
    assert main(["subtract", new, reference, *arguments]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["beta"] == pytest.approx(0.8)
    assert summary["dx"] == pytest.approx(0.2)
    assert summary["gamma"] == 0
    assert "beta_err" not in summary
    said = capsys.readouterr().out
    assert "1 candidate, 1 of them transient" in said
    assert "beta 0.8000, shift (0.200, -0.150) px" in said


@pytest.mark.slow
def test_a_mask_hides(pair, files, tmp_path):
    new, reference, psf = files
    x, y, _ = pair.transient
    mask = np.zeros(pair.new.shape, np.uint8)
    mask[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7] = 1
    fits.PrimaryHDU(mask).writeto(tmp_path / "mask.fits")
    arguments = [*psf, "--mask", str(tmp_path / "mask.fits"), "none", "--shift-degree", "0"]
    out = tmp_path / "out"
    assert main(["subtract", new, reference, *arguments, "-o", str(out), "--quiet"]) == 0
    assert len(QTable.read(out / "candidates.ecsv")) == 0
    with fits.open(out / "difference.fits") as hdus:
        assert hdus["BAD"].data[round(y), round(x)] == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["fraction_beyond_5_sigma"] == 0
    assert summary["fraction_bad"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "-1"], "--threshold"),
        (["--psf", "nothing.fits"], "nothing.fits"),
        (["--gain", "1", "2", "3"], "--gain"),
        (["--gain", "-1"], "--gain"),
        (["--smooth", "1"], "--smooth"),
        (["--shift", "a,b"], "shift"),
        (["--beta", "much"], "beta"),
        (["--beta", "0"], "`beta`"),
        (["--mask", "nothing.fits"], "nothing.fits"),
        (["--align", "magic"], "magic"),
        (["--mesh", "2"], "box_size"),
    ],
)
def test_wrong_options_are_one_line(files, tmp_path, capsys, options, words):
    arguments = ["subtract", *files[:2], *(files[2] if "--psf" not in options else [])]
    try:
        code = main([*arguments, "-o", str(tmp_path / "out"), "--quiet", *options])
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("diffdeblend: error:")
    assert "\n" not in said
    assert words in said


def test_images_that_do_not_fit(files, tmp_path, capsys):
    small = tmp_path / "small.fits"
    with fits.open(files[0]) as hdus:
        fits.PrimaryHDU(hdus[0].data[:-10]).writeto(small)
    (tmp_path / "text.fits").write_text("not FITS")
    for new, words in (
        (small, "Align them"),
        (tmp_path / "text.fits", "text.fits"),
        ("no.fits", "no"),
    ):
        arguments = [str(new), files[1], *files[2], "-o", str(tmp_path / "out"), "--quiet"]
        assert main(["subtract", *arguments]) == 2
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert words in said
    assert not list((tmp_path / "out").glob("*"))


def test_help_shows_defaults_and_those_of_properimage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["subtract", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Default: 128", "Default: 5.0", "inf_loss=0.25", "--beta 1, --shift none"):
        assert words in text


@pytest.mark.slow
def test_everything_from_the_stars(tmp_path):
    """PSFs from the stars, a fitted registration field, an aligned reference: the defaults."""
    pair = star_pair(seed=3, n=150, shape=(400, 460))
    new = write_image(tmp_path / "new.fits", pair.new)
    moved = np.roll(pair.reference, (7, -4), axis=(0, 1))
    for reference, options in ((pair.reference, []), (moved, ["--align", "stars"])):
        path = write_image(tmp_path / f"reference{len(options)}.fits", reference)
        out = tmp_path / f"out{len(options)}"
        assert main(["subtract", str(new), str(path), *options, "-o", str(out), "--quiet"]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["beta"] == pytest.approx(0.8, abs=0.015)
        assert summary["scorr_robust_sigma"] == pytest.approx(1, abs=0.05)
        table = QTable.read(out / "candidates.ecsv")
        away = np.hypot(table["x"] - pair.transient[0], table["y"] - pair.transient[1])
        assert away.min() < 0.5
        assert table["verdict"][away.argmin()] == "transient"
        assert np.sum(table["verdict"] == "transient") <= 2


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"beta": 0.8}, {"shift": (0.2, -0.15)}, {"background": 0.0}])
def test_what_is_not_given_is_fitted(pair, given):
    new, reference = (
        make_exposure(image - sky, np.maximum(image, sky) / GAIN, gaussian_stamp(sigma), gain=GAIN)
        for image, sky, sigma in zip((pair.new, pair.reference), SKIES, SIGMAS, strict=True)
    )
    fit, numbers = registered(new, reference, shift_degree=0, **given)
    assert numbers == {}
    assert float(fit.beta[0]) == pytest.approx(0.8, abs=0.015)
    assert float(fit.dx_at(20.0, 30.0)[0]) == pytest.approx(0.2, abs=0.02)
    assert float(fit.dy_at(20.0, 30.0)[0]) == pytest.approx(-0.15, abs=0.02)
    assert abs(float(fit.gamma[0])) < 0.5
    if "background" in given:
        assert float(fit.gamma[0]) == 0
