"""`diffdeblend detect`, and `diffdeblend deblend` on an image larger than a blend."""

import json
import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from quick import hasty, one_size

from diffdeblend.cli import main
from diffdeblend.io import fits as fits_io

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "shared", "data")
FILES = {
    "catalog.ecsv",
    "catalog.fits",
    "labels.fits",
    "background.fits",
    "figure.png",
    "summary.json",
}


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Few programs, and soon compiled."""
    with hasty(), one_size():
        yield


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A file with a dozen stars on a slope, with a WCS; and where they are."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:140, :160].astype(float)
    image = 100 + 0.005 * x + rng.normal(size=x.shape)
    at = np.stack([rng.uniform(8, 152, 12), rng.uniform(8, 132, 12)], axis=1)
    # Two that touch.
    at[1] = at[0] + [6.0, 1.5]
    flux = rng.uniform(400, 2000, 12)
    for (x0, y0), total in zip(at, flux, strict=True):
        image += (
            total * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 1.5**2) / (2 * np.pi * 1.5**2)
        )
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt, wcs.wcs.crpix, wcs.wcs.crval = (-1e-4, 1e-4), (80, 70), (10.0, -5.0)
    path = tmp_path_factory.mktemp("field") / "image.fits"
    fits.PrimaryHDU(image.astype(np.float32), wcs.to_header()).writeto(path)
    return path, at, flux


@pytest.fixture(scope="module")
def detected(field, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detected")
    arguments = ["detect", str(field[0]), "-o", str(folder), "--quiet", "--threshold", "3"]
    assert main(arguments) == 0
    return folder


def test_writes_all_that_was_found(field, detected):
    _, at, flux = field
    assert {file.name for file in detected.iterdir()} == FILES
    table = QTable.read(detected / "catalog.ecsv")
    place = np.stack([table["x_centroid"], table["y_centroid"]], axis=1)
    distance = np.hypot(*(place[:, None] - at).transpose(2, 0, 1))
    assert distance.min(axis=0).max() < 0.6
    assert len(table) == len(at)
    alone = slice(2, None)
    nearest = distance.argmin(axis=0)[alone]
    near = np.array(table["aperture_flux_5"])[nearest] / flux[alone]
    assert np.median(near) == pytest.approx(1, abs=0.03)
    again = QTable.read(detected / "catalog.fits")
    assert again.colnames == table.colnames
    assert again["ra"].unit == table["ra"].unit == "deg"
    with fits.open(detected / "labels.fits") as hdus:
        assert hdus["LABELS"].data.max() == len(table)
        assert hdus["PARENTS"].data.max() == len(table) - 1
        assert WCS(hdus["LABELS"].header).has_celestial
    with fits.open(detected / "background.fits") as hdus:
        assert np.median(hdus["BACKGROUND"].data) == pytest.approx(100.4, abs=0.2)
        assert np.median(hdus["BACKGROUND_RMS"].data) == pytest.approx(1, abs=0.05)


def test_summary_repeats_every_setting(field, detected):
    summary = json.loads((detected / "summary.json").read_text())
    assert summary["n_sources"] == 12
    assert summary["seconds"]["total"] > 0
    settings = summary["settings"]
    assert settings["threshold"] == 3
    assert settings["n_levels"] == 32
    assert settings["mesh"] == 64
    assert settings["methods"]["kernel"] == {"name": "GaussianKernel", "fwhm": 2.0, "size": 3}


def test_help_shows_every_default(capsys):
    with pytest.raises(SystemExit) as end:
        main(["detect", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Default: 1.5", "Default: 64", "Default: 0.001", "Default: threshold"):
        assert words in text


def test_the_psf_of_the_input_is_a_kernel(field, tmp_path):
    u, v = np.mgrid[-12:13, -12:13]
    stamp = np.exp(-0.5 * (u**2 + v**2) / 1.5**2)
    with fits.open(field[0]) as hdus:
        image = hdus[0].data
    path = tmp_path / "with_psf.fits"
    parts = [fits.ImageHDU(image, name="IMAGE"), fits.ImageHDU(stamp, name="PSF")]
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(path)
    fits.PrimaryHDU(stamp).writeto(tmp_path / "psf.fits")
    tables = []
    for name, options in ((path, []), (field[0], ["--psf", str(tmp_path / "psf.fits")])):
        out = str(tmp_path / f"out{len(options)}")
        arguments = ["--threshold", "5", "--kernel", "psf", "--quiet", "-o", out, *options]
        assert main(["detect", str(name), *arguments]) == 0
        tables.append(QTable.read(f"{out}/catalog.ecsv"))
    assert len(tables[0]) > 0
    np.testing.assert_array_equal(tables[0]["x_centroid"], tables[1]["x_centroid"])


def test_an_image_without_a_psf_is_read_once(field, tmp_path, monkeypatch):
    read, reads = fits_io.hdus.open_fits, []
    monkeypatch.setattr(fits_io.hdus, "open_fits", lambda path: reads.append(path) or read(path))
    assert main(["detect", str(field[0]), "-o", str(tmp_path), "--quiet"]) == 0
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "-1"], "--threshold"),
        (["--kernel", "nothing.fits"], "nothing.fits"),
        (["--mesh", "0"], "--mesh"),
        (["--kernel-size", "4"], "size"),
        (["--contrast", "3"], "contrast"),
        (["--apertures", "0"], "radii"),
        (["--segmentation", "magic"], "magic"),
    ],
)
def test_wrong_options_are_one_line(field, tmp_path, capsys, options, words):
    arguments = ["detect", str(field[0]), "-o", str(tmp_path / "out"), "--quiet", *options]
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("diffdeblend: error:")
    assert "\n" not in said
    assert words in said


@pytest.mark.filterwarnings("ignore:No sources")
def test_nothing_found_is_an_empty_catalogue(field, tmp_path, capsys):
    arguments = ["detect", str(field[0]), "-o", str(tmp_path), "--quiet", "--threshold", "9999"]
    assert main(arguments) == 0
    assert "0 sources" in capsys.readouterr().out
    assert len(QTable.read(tmp_path / "catalog.ecsv")) == 0
    assert len(QTable.read(tmp_path / "catalog.fits")) == 0


@pytest.mark.slow
def test_a_large_image_is_cut_into_blends(field, tmp_path):
    path, at, flux = field
    v, u = np.mgrid[-12:13, -12:13]
    psf = path.with_name("psf.fits")
    fits.PrimaryHDU(np.exp(-0.5 * (u**2 + v**2) / 1.5**2)).writeto(psf)
    arguments = ["deblend", str(path), "--psf", str(psf), "-o", str(tmp_path), "--quiet"]
    assert main([*arguments, "--model", "point", "--split", "always"]) == 0
    names = {"catalog.ecsv", "catalog.fits", "labels.fits", "models.fits", "figure.png"}
    assert {file.name for file in tmp_path.iterdir()} == names | {"summary.json"}
    table = QTable.read(tmp_path / "catalog.ecsv")
    place = np.stack([table["x"].value, table["y"].value], axis=1)
    distance = np.hypot(*(place[:, None] - at).transpose(2, 0, 1))
    assert distance.min(axis=0).max() < 0.3
    assert len(table) == len(at)
    rows = distance.argmin(axis=0)
    pull = (np.asarray(table["flux_0"]) - flux[np.argsort(rows)]) / np.asarray(table["flux_err_0"])
    assert np.abs(pull).max() < 4
    assert len(np.unique(table["blend"])) < len(table)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n_sources"] == len(table)
    with fits.open(tmp_path / "models.fits") as hdus:
        parts = [hdus[name].data for name in ("MODEL", "BACKGROUND", "RESIDUAL")]
        with fits.open(path) as given:
            np.testing.assert_allclose(sum(parts)[0], given[0].data, atol=1e-2)
        assert parts[2].std() < 1.6


needs_data = pytest.mark.skipif(
    not os.path.exists(os.path.join(DATA, "sep_image.fits")), reason="sep_image.fits is not there"
)


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_a_real_image_as_sep_has_it(tmp_path):
    sep = pytest.importorskip("sep")
    path = os.path.join(DATA, "sep_image.fits")
    assert main(["detect", path, "-o", str(tmp_path), "--quiet"]) == 0
    table = QTable.read(tmp_path / "catalog.ecsv")
    image = fits.getdata(path).astype(np.float32)
    background = sep.Background(image)
    data = image - background.back()
    rms = background.globalrms
    found = sep.extract(data, 1.5, err=rms, minarea=5, clean=False)
    flux, error, _ = sep.sum_circle(data, found["x"], found["y"], 5.0, err=rms)
    place = np.stack([table["x_centroid"], table["y_centroid"]], axis=1)
    other = np.stack([found["x"], found["y"]], axis=1)
    distance = np.hypot(*(place[:, None] - other).transpose(2, 0, 1))
    bright = flux > 10 * error
    assert np.mean(distance.min(axis=0)[bright] < 0.5) >= 0.95
    assert len(table) == pytest.approx(len(found), rel=0.1)
    ours = np.array(table["aperture_flux_5"])[distance.argmin(axis=0)]
    assert np.median(ours[bright] / flux[bright]) == pytest.approx(1, abs=0.01)
