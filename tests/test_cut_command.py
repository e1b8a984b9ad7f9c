"""`diffdeblend cut`: from images to a store of stamps, one image after the other."""

import shutil

import numpy as np
import pytest
import zarr
from astropy.table import Table
from astropy.wcs import WCS

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.cli import main
from diffdeblend.io.fits import write_fits
from diffdeblend.io.npz import write_npz
from diffdeblend.sky import sky_positions
from diffdeblend.stamps import open_store
from diffdeblend.stamps.cut_stamps import on_shape

SHAPE = 90, 110
POSITIONS = np.array([[20.3, 30.1], [25.0, 33.5], [70.2, 60.7], [95.5, 15.0], [3.0, 80.0]])
FLUX = np.array([900.0, 600.0, 800.0, 1000.0, 700.0])


def exposure(seed=0, ra=150.0):
    lines, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    image = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    for (x, y), flux in zip(POSITIONS, FLUX, strict=True):
        squared = (columns - x) ** 2 + (lines - y) ** 2
        image += flux * np.exp(-0.5 * squared / 1.6**2) / (2 * np.pi * 1.6**2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, 2.0], [55, 45]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    mask = np.zeros(SHAPE, bool)
    mask[60, 70] = True
    options = {"bands": ("g", "r"), "zero_points": 27.0, "wcs": wcs, "mask": mask}
    return make_exposure(image, np.ones_like(image), GaussianPSF([2.5, 3.0]), **options)


def run(*arguments):
    return main([str(argument) for argument in ("cut", "--quiet", *arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of one survey, and where their sources are."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(2):
        write_fits(exposure(number, ra=150.0 + number), folder / f"{number}.fits")
    off = np.array([[-40.0, 3.0]])
    x, y = np.concatenate([POSITIONS, off]).T
    Table({"x": x, "y": y, "id": 50 + np.arange(6)}).write(folder / "where.ecsv")
    Table({"x": x[:5], "y": y[:5]}).write(folder / "plain.ecsv")
    Table({"x": off[:, 0], "y": off[:, 1]}).write(folder / "off.ecsv")
    return folder


def test_stamps_are_the_image_around_its_sources(folder, tmp_path, capsys):
    path = tmp_path / "stamps.zarr"
    assert (
        run(folder / "0.fits", "--positions", folder / "where.ecsv", "--size", 48, "-o", path) == 0
    )
    said = capsys.readouterr().out
    assert "4 stamps of 48 x 48 pixels with 5 sources in g,r; 0 are crowded" in said
    assert "1 position is off the image" in said
    store = open_store(path)
    header = store.header
    assert (header.bands, header.shape, header.n_stamps) == (("g", "r"), (48, 48), 4)
    assert header.pixel_scale == pytest.approx(0.2)
    assert header.zero_points == (27.0, 27.0)
    found = store.read(0, 4)
    assert sorted(found.source_id[found.source_id > 0].tolist()) == [50, 51, 52, 53, 54]
    whole = exposure()
    image = np.asarray(whole.image)
    for k in range(4):
        rows = found.source_id[k][found.source_id[k] > 0] - 50
        corner = POSITIONS[rows] - found.position[k, : len(rows)]
        np.testing.assert_allclose(corner, np.rint(corner), atol=1e-9)
        x0, y0 = np.rint(corner[0]).astype(int)
        used = np.argwhere(found.mask[k] == 0)
        assert len(used) > 300
        theirs = image[used[:, 0], used[:, 1] + y0, used[:, 2] + x0]
        np.testing.assert_array_equal(found.image[k][found.mask[k] == 0], theirs)
        assert (found.variance[k][found.mask[k] == 0] == 1).all()
        # A stamp's place on the sky is that of its middle.
        ra, dec = sky_positions(whole.header, x0 + 23.5, y0 + 23.5)
        assert (found.ra[k], found.dec[k]) == pytest.approx((float(ra), float(dec)), abs=1e-10)
        np.testing.assert_allclose(found.cd[k], np.diag([-0.2, 0.2]) / 3600, atol=1e-8)
    bad = int(np.flatnonzero((found.source_id == 52).any(axis=1))[0])
    x0, y0 = np.rint(POSITIONS[2] - found.position[bad, 0]).astype(int)
    assert (found.mask[bad][:, 60 - y0, 70 - x0] == 1).all()
    # One PSF for all, of the light of one.
    assert found.psf.shape[0] == 1
    np.testing.assert_allclose(found.psf.sum(axis=(2, 3)), 1, rtol=1e-3)
    assert not found.crowded.any()


def test_images_are_added_one_after_the_other(folder, tmp_path, capsys):
    path = tmp_path / "stamps.zarr"
    rest = ["--positions", folder / "plain.ecsv", "--size", 48, "--append", "-o", path]
    assert run(folder / "0.fits", *rest) == 0
    first = open_store(path)
    assert run(folder / "1.fits", *rest) == 0
    assert "which has 8 stamps" in capsys.readouterr().out
    both = open_store(path)
    assert both.fingerprint() != first.fingerprint()
    found = both.read(0, 8)
    assert found.id.tolist() == list(range(8))
    assert sorted(found.source_id[found.source_id > 0].tolist()) == list(range(1, 11))
    assert (np.abs(found.ra[:4] - 150) < 0.1).all()
    assert (np.abs(found.ra[4:] - 151) < 0.1).all()
    assert len(found.psf) == 1
    # An image that is there is left as it is.
    assert run(folder / "0.fits", *rest) == 0
    assert "already" in capsys.readouterr().out
    assert open_store(path).fingerprint() == both.fingerprint()
    # One that was interrupted is cut anew.
    root = zarr.open_group(str(path), mode="r+")
    root.attrs.update({"finished": 6, "images": root.attrs["images"][:1], "whole": 4})
    assert run(folder / "1.fits", *rest) == 0
    again = open_store(path)
    assert again.fingerprint() == both.fingerprint()
    np.testing.assert_array_equal(again.read(0, 8).image, found.image)
    assert run(folder / "1.fits", *rest[:3], 32, *rest[4:]) == 2
    assert run(folder / "1.fits", *rest[:2], "-o", path) == 2
    said = capsys.readouterr().err
    assert "--size must be 48, as in the store; got 32" in said
    assert "see --append and --overwrite" in said


def test_an_interrupted_first_image_begins_anew(folder, tmp_path):
    path = tmp_path / "stamps.zarr"
    rest = ["--positions", folder / "plain.ecsv", "--append", "-o", path]
    assert run(folder / "0.fits", *rest, "--size", 40) == 0
    zarr.open_group(str(path), mode="r+").attrs.update({"finished": 2, "images": [], "whole": 0})
    assert run(folder / "0.fits", *rest, "--size", 48) == 0
    assert open_store(path).header.shape == (48, 48)
    assert open_store(path).header.n_stamps == 4


@pytest.mark.slow
def test_sources_are_detected(folder, tmp_path):
    path = tmp_path / "stamps.zarr"
    assert run(folder / "0.fits", "-o", path) == 0
    found = open_store(path).read(0, open_store(path).header.n_stamps)
    assert found.n_sources().sum() == 5
    assert found.source_id.max() == 5


def test_what_is_there_stays_until_there_is_something_else(folder, tmp_path, capsys):
    path = tmp_path / "stamps.zarr"
    assert run(folder / "0.fits", "--positions", folder / "plain.ecsv", "-o", path) == 0
    before = open_store(path).fingerprint()
    again = ["--overwrite", "-o", path, "--positions"]
    assert run(folder / "absent.fits", *again, folder / "plain.ecsv") == 2
    assert run(folder / "0.fits", *again, folder / "off.ecsv") == 0
    assert "no sources in" in capsys.readouterr().out
    assert open_store(path).fingerprint() == before
    assert run(folder / "0.fits", *again, folder / "plain.ecsv", "--size", 40) == 0
    assert open_store(path).header.shape == (40, 40)


def test_an_archive_has_its_own_positions(tmp_path):
    path = tmp_path / "stamps.zarr"
    write_npz(exposure(), tmp_path / "a.npz", positions=POSITIONS[:2])
    assert run(tmp_path / "a.npz", "--max-sources", 1, "-o", path) == 0
    found = open_store(path).read(0, 2)
    assert found.crowded.all()
    assert found.n_sources().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "INPUT is missing"),
        (["absent.fits"], "absent.fits"),
        (["0.fits", "--append", "--overwrite"], "contradict each other"),
        (["0.fits", "--size", "4"], "--size must be at least 8; got 4"),
        (["0.fits", "--positions", "absent.ecsv"], "there is no file"),
    ],
)
def test_cut_says_what_is_wrong(folder, tmp_path, capsys, arguments, words):
    given = [folder / a if str(a).endswith(".fits") else a for a in arguments]
    assert run(*given, "-o", tmp_path / "stamps.zarr") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "stamps.zarr").exists()


def test_a_folder_of_something_else_is_refused(folder, tmp_path, capsys):
    path = tmp_path / "other"
    shutil.copytree(folder, path)
    assert run(folder / "0.fits", "--append", "-o", path) == 2
    assert "is no Zarr folder" in capsys.readouterr().err


def test_images_of_psfs_are_padded_and_cut_around_their_middle():
    image = np.zeros((1, 5, 7))
    image[0, 2, 3], image[0, 2, 2] = 1, 0.5
    wide = on_shape(image, (9, 5))
    assert wide.shape == (1, 9, 5)
    assert (wide[0, 4, 2], wide[0, 4, 1]) == (1, 0.5)
    with pytest.raises(ValueError, match=r"has 66.7% of its light on the 5 x 1 pixels"):
        on_shape(image, (5, 1))
