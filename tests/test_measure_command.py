"""`diffdeblend measure`: what it asks for, what it leaves, and what it says."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import QTable
from quick import hasty

from diffdeblend import GaussianPSF, make_exposure, measure_command
from diffdeblend.cli import main
from diffdeblend.io import write_fits, write_npz
from diffdeblend.plot_measured import (
    band_magnitudes,
    best_flux,
    good_sources,
    is_point,
    measured_figure,
)
from diffdeblend.simulate import make_field

SHAPE = (110, 120)
BANDS = ("g", "r", "i")
FILES = {"catalog.ecsv", "catalog.fits", "figure.png", "summary.json"}
ZERO_POINT = 31.4


@pytest.fixture(scope="module")
def exposure():
    """Sky and eight stars: here nothing is drawn that would have to be compiled."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = rng.normal(30.0, 5.0, (len(BANDS), *SHAPE))
    for at_x, at_y in zip(rng.uniform(14, 106, 8), rng.uniform(14, 96, 8), strict=True):
        image += 60 * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / 4.5)
    psf = GaussianPSF(np.full(len(BANDS), 3.53))
    zero_points = (ZERO_POINT,) * len(BANDS)
    return make_exposure(image, 25.0, psf, bands=BANDS, zero_points=zero_points, unit="nJy")


@pytest.fixture(scope="module")
def path(exposure, tmp_path_factory):
    file = tmp_path_factory.mktemp("field") / "coadd.npz"
    write_npz(exposure, file)
    return str(file)


def catalog(n=5, bands=BANDS):
    """As that of a measurement: a parent, and children of ever less light."""
    light = 1e4 * 0.5 ** np.arange(n)
    columns = {
        "id": np.arange(1, n + 1),
        "deblend_n_child": np.array([2] + [0] * (n - 1)),
        "centroid_x": np.linspace(10, 20, n),
        "centroid_y": np.linspace(30, 20, n),
        "ref_extendedness_value": np.arange(n) % 2.0,
    }
    for k, band in enumerate(bands):
        for kind, share in (("psf", 1.0), ("kron", 1.1), ("aperture", 0.9)):
            tail = "_12" if kind == "aperture" else ""
            flux = share * light * (1 + 0.2 * k)
            columns[f"{kind}_flux{tail}_{band}"] = flux * units.nJy
            columns[f"{kind}_flux{tail}_err_{band}"] = np.full(n, 50.0) * units.nJy
            columns[f"{kind}_flag_{band}"] = np.zeros(n, bool)
            if kind != "aperture":
                columns[f"{kind}_mag_{band}"] = (ZERO_POINT - 2.5 * np.log10(flux)) * units.mag
                columns[f"{kind}_mag_err_{band}"] = 1.0857 * 50 / flux * units.mag
    return QTable(columns, meta={"bands": list(bands)})


@pytest.fixture
def asked(monkeypatch):
    """What `measure_bands` was asked for; it answers at once."""
    calls = []

    def measure_bands(exposure, **settings):
        calls.append((exposure, settings))
        numbers = dict.fromkeys(exposure.bands, 3)
        return SimpleNamespace(
            catalog=catalog(bands=exposure.bands),
            exposure=exposure,
            footprints=[None] * 4,
            priority=tuple(settings["priority"]),
            summary={"n_footprints": numbers, "settings": {}, "seconds": {}},
        )

    monkeypatch.setattr(measure_command, "measure_bands", measure_bands)
    return calls


def test_options_reach_the_measurement(exposure, path, asked, tmp_path, capsys):
    options = ["--priority", "i,r,g", "--threshold", "6", "--min-pixels", "5", "--same", "0.2"]
    options += ["--dynamic", "calibrated", "--kernel", "none", "--deblending", "none"]
    assert main(["measure", path, *options, "--quiet", "-o", str(tmp_path)]) == 0
    ((given, settings),) = asked
    assert settings["priority"] == ("i", "r", "g")
    assert settings["deblending"] is None
    assert (settings["same"], settings["new"]) == (0.2, 1.0)
    detection = settings["detection"]
    assert (detection["threshold"], detection["min_pixels"]) == (6.0, 5)
    assert (detection["dynamic"], detection["kernel"]) == ("calibrated", None)
    # The sky is gone.
    taken = np.asarray(exposure.image - given.image)
    assert np.abs(taken - 30).max() < 0.5 * 5.0
    assert {file.name for file in tmp_path.iterdir()} == FILES
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["threshold"] == 6
    assert summary["settings"]["new"] == 1.0
    assert summary["settings"]["bands"] == list(BANDS)
    assert summary["n_footprints"] == {"g": 3, "r": 3, "i": 3}
    assert summary["seconds"]["total"] > 0
    text = capsys.readouterr().out
    assert "4 merged, 4 sources" in text
    # The brightest that was not taken apart: 5500 nJy in g.
    assert f"{ZERO_POINT - 2.5 * np.log10(5500):.3f}" in text.splitlines()[3]


def test_the_catalogue_is_read_back(path, asked, tmp_path):
    assert main(["measure", path, "--quiet", "-o", str(tmp_path), "--background", "none"]) == 0
    ((given, _),) = asked
    assert np.median(given.image) > 20
    wanted: Any = catalog()
    for name in ("catalog.ecsv", "catalog.fits"):
        table: Any = QTable.read(tmp_path / name)
        assert table.colnames == wanted.colnames
        assert table["kron_flux_r"].unit == "nJy"
        np.testing.assert_allclose(table["kron_mag_i"].value, wanted["kron_mag_i"].value)
        assert table["psf_flag_g"].dtype == bool


def test_columns_are_printed_by_wildcard(path, asked, tmp_path, capsys):
    arguments = ["measure", path, "--quiet", "-o", str(tmp_path), "--rows", "2"]
    assert main([*arguments, "--show", "id", "*KRON_flux_[gi]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["id", "kron_flux_g", "kron_flux_i"]
    assert lines[3].split() == ["2", "5500", "7700"]
    assert len(lines) == 6
    assert main([*arguments, "--show", "*petro*"]) == 2
    found = capsys.readouterr()
    assert "'*petro*' fits none" in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_some_bands_of_a_file(exposure, asked, tmp_path):
    path = tmp_path / "cube.fits"
    write_fits(exposure, path)
    arguments = ["measure", str(path), "--bands", "r,i", "--psf-fwhm", "3.5px"]
    assert main([*arguments, "--quiet", "-o", str(tmp_path / "out")]) == 0
    ((given, settings),) = asked
    assert given.bands == settings["priority"] == ("r", "i")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--priority", "i,r"], "--priority must name each of the bands g,r,i once; got i,r"),
        (["--threshold", "0"], "--threshold must be positive"),
        (["--grow", "-1"], "--grow must be at least 0"),
        (["--same", "2"], "--same must be at most --new"),
        (["--psf", "nothing.fits"], "nothing.fits"),
    ],
)
def test_bad_input_is_one_line(path, asked, tmp_path, capsys, options, words):
    arguments = ["measure", path, *options, "--quiet", "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not asked
    assert main(["measure", "--quiet"]) == 2
    assert "INPUT is missing" in capsys.readouterr().err


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit) as end:
        main(["measure", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Default: 5.0", "Default: 0.3", "Default: scene", "Default: pixel_stdev"):
        assert words in text


def test_colours_are_of_good_sources():
    table = catalog()
    assert best_flux(table) == "kron"
    values, errors = band_magnitudes(table, "aperture_12")
    # These have no magnitudes of their own: the zero point is that of the others.
    np.testing.assert_allclose(values["g"], ZERO_POINT - 2.5 * np.log10(9e3 * 0.5 ** np.arange(5)))
    np.testing.assert_allclose(errors["g"][0], 1.0857 * 50 / 9000, rtol=1e-4)
    table["kron_flag_r"][2] = True
    # A parent, a flag; the last has an S/N of 13.75 in g.
    np.testing.assert_array_equal(good_sources(table, "kron"), [False, True, False, True, True])
    np.testing.assert_array_equal(
        good_sources(table, "kron", 14), [False, True, False, True, False]
    )
    np.testing.assert_array_equal(is_point(table), [True, False, True, False, True])
    page = measured_figure(table)
    assert [axes.get_xlabel() for axes in page.axes] == ["g - r", "g - i"]
    points = page.axes[0].containers[0][0].get_xydata()
    np.testing.assert_allclose(points, [[2.5 * np.log10(1.2), 2.5 * np.log10(1.4 / 1.2)]] * 2)
    assert len(measured_figure(catalog(bands=("r", "z"))).axes) == 1
    single = measured_figure(catalog(bands=("r",))).axes[0].containers[0][0].get_ydata()
    np.testing.assert_allclose(single, 2.5 * np.log10(1.1))
    with pytest.raises(ValueError, match="no column 'gaussian_flux_g'"):
        band_magnitudes(table, "gaussian")
    with pytest.raises(ValueError, match="`bands` in `meta`"):
        measured_figure(QTable({"id": [1]}))


@pytest.mark.slow
def test_without_a_psf_it_is_that_of_the_stars(asked, tmp_path):
    field = make_field(
        (200, 220),
        "r",
        n_stars=40,
        n_galaxies=0,
        star_magnitudes=(19.0, 22.0),
        separation=18,
        border=14,
        sky=30.0,
        seed=8,
    )
    file = tmp_path / "image.fits"
    fits.PrimaryHDU(np.asarray(field.exposure.image[0])).writeto(file)
    arguments = ["measure", str(file), "--bands", "r", "--quiet", "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    ((exposure, _),) = asked
    stamp = np.asarray(exposure.psf.images_at(np.array([90.0]), np.array([80.0])))[0, 0]
    assert stamp.sum() == pytest.approx(1, abs=0.02)
    noise = float(np.sqrt(np.median(field.exposure.variance)))
    taken = np.asarray(field.exposure.image[0] - exposure.image[0])
    assert abs(np.median(taken) - 30) < 0.3 * noise


@pytest.mark.slow
def test_magnitudes_are_those_of_the_simulation(tmp_path):
    """All of it, the PSF from the file: stars apart from each other, so that each is one."""
    field = make_field(
        SHAPE,
        BANDS,
        n_stars=8,
        n_galaxies=0,
        star_magnitudes=(20.0, 22.0),
        separation=18,
        border=14,
        sky=30.0,
        seed=7,
    )
    path = tmp_path / "coadd.npz"
    write_npz(field.exposure, path)
    with hasty():
        arguments = ["measure", str(path), "--deblending", "symmetric", "--quiet"]
        assert main([*arguments, "-o", str(tmp_path)]) == 0
    table: Any = QTable.read(tmp_path / "catalog.fits")
    table = table[table["deblend_n_child"] == 0]
    truth = field.truth
    dx = np.asarray(truth["x"])[:, None] - np.asarray(table["centroid_x"])
    dy = np.asarray(truth["y"])[:, None] - np.asarray(table["centroid_y"])
    distance = np.hypot(dx, dy)
    assert distance.min(axis=1).max() < 0.5
    nearest = distance.argmin(axis=1)
    for band in BANDS:
        wanted = ZERO_POINT - 2.5 * np.log10(np.asarray(truth[f"flux_{band}"], float))
        off = table[f"psf_mag_{band}"].value[nearest] - wanted
        assert np.abs(np.median(off)) < 0.02
        kron = table[f"kron_mag_{band}"].value[nearest] - wanted
        # What Moffat wings have beyond the aperture is not in it.
        assert 0 < np.median(kron) < 0.12
