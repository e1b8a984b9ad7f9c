"""FITS cubes as stores of stamps: every form they come in, and what is wrong with them."""

import os
import shutil

import numpy as np
import pytest
from astropy.io import fits

from diffdeblend.stamps import open_store

N, BANDS, SIZE = 7, 2, 6
RNG = np.random.default_rng(2)
IMAGE = RNG.normal(size=(N, BANDS, SIZE, 5))
VARIANCE = RNG.uniform(1, 2, IMAGE.shape)
PSF = RNG.uniform(0.1, 1, (N, BANDS, 3, 3))
X = np.where(np.arange(3) < (np.arange(N) % 4)[:, None], RNG.uniform(0, 4, (N, 3)), np.nan)


def columns(**change):
    """Of the table; None leaves a column out."""
    known = {
        "ID": (np.arange(N) + 2**40, "K"),
        "X": (X, "3D"),
        "Y": (X + 1, "3D"),
        "SOURCE_ID": (np.arange(3 * N).reshape(N, 3) + 2**60 + 1, "3K"),
        "RA": (np.linspace(10, 11, N), "D"),
        "DEC": (np.linspace(-1, 1, N), "D"),
        "TRUE_flux_r": (100 * X, "3E"),
    }
    known |= change
    return [
        fits.Column(name, form[1], array=form[0])
        for name, form in known.items()
        if form is not None
    ]


def write(path, *, drop=(), cards=None, table=None, **arrays):
    """A file with all there can be; what is given replaces."""
    arrays = {
        "IMAGE": IMAGE,
        "VARIANCE": VARIANCE,
        "MASK": np.zeros((N, SIZE, 5), "u1"),
        "PSF": PSF,
    } | arrays
    hdus = [fits.PrimaryHDU()]
    for name, values in arrays.items():
        if name not in drop:
            values = values.astype(values.dtype.newbyteorder(">"))
            hdus.append(fits.ImageHDU(values, name=name))
    known = {"BANDS": "g,r", "PIXSCALE": 0.2, "ZP_g": 27.0, "ZP_r": 28.0, "BUNIT": "adu"}
    for key, value in (known | (cards or {})).items():
        if value is not None:
            hdus[1].header[key] = value
    if "STAMPS" not in drop:
        hdus.append(fits.BinTableHDU.from_columns(table or columns(), name="STAMPS"))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "stamps.fits")


def test_a_fits_file_is_a_store(sound):
    store = open_store(sound)
    header = store.header
    assert (header.bands, header.shape, header.n_stamps) == (("g", "r"), (SIZE, 5), N)
    assert (header.most_sources, header.pixel_scale, header.unit) == (3, 0.2, "adu")
    assert header.zero_points == (27.0, 28.0)
    found = store.read(2, 6)
    assert found.first == 2
    assert found.image.dtype.isnative
    np.testing.assert_array_equal(found.image, IMAGE[2:6].astype("f4"))
    np.testing.assert_array_equal(found.variance, VARIANCE[2:6].astype("f4"))
    np.testing.assert_array_equal(found.psf[found.psf_index], PSF[2:6].astype("f4"))
    np.testing.assert_array_equal(found.position, np.stack([X, X + 1], -1)[2:6])
    np.testing.assert_array_equal(found.truth["flux_r"], (100 * X)[2:6].astype("f4"))
    assert found.n_sources().tolist() == [2, 3, 0, 1]
    assert found.id.tolist() == [2**40 + k for k in range(2, 6)]
    # Whole numbers of all 63 bits.
    assert found.source_id[0].tolist() == [2**60 + 7, 2**60 + 8, 0]
    np.testing.assert_allclose(found.ra, np.linspace(10, 11, N)[2:6])
    keys, images = store.psfs_at([4, 1, 4])
    assert keys.tolist() == [1, 4]
    np.testing.assert_array_equal(images, PSF[[1, 4]].astype("f4"))
    assert len(store.read(3, 3)) == 0
    with pytest.raises(ValueError, match="must be in order between 0 and 7"):
        store.read(0, 8)


def test_one_band_numbers_and_a_table_of_psfs(tmp_path):
    which = np.arange(N) % 2
    table = columns(
        X=(np.arange(N, dtype=float) / 2, "D"),
        Y=(np.ones(N), "D"),
        PSF_INDEX=(which, "J"),
        SOURCE_ID=None,
        TRUE_flux_r=None,
    )
    path = write(
        tmp_path / "one.fits",
        IMAGE=(1000 * IMAGE[:, 0]).astype("i2"),
        VARIANCE=VARIANCE[:, :1, 0, 0],
        PSF=PSF[:2, 0],
        drop=("MASK",),
        table=table,
        cards={"BANDS": "r", "ZP_r": None, "ZEROPNT": 30.0},
    )
    found = open_store(path).read(0, N)
    assert found.image.shape == (N, 1, SIZE, 5)
    np.testing.assert_array_equal(found.image[:, 0], (1000 * IMAGE[:, 0]).astype("i2"))
    np.testing.assert_array_equal(found.variance, VARIANCE[:, :1, 0, 0].astype("f4"))
    np.testing.assert_array_equal(found.psf[found.psf_index][:, 0], PSF[which, 0].astype("f4"))
    assert found.position[:, 0, 0].tolist() == [k / 2 for k in range(N)]
    assert found.source_id.ravel().tolist() == list(range(1, N + 1))
    assert found.mask is None
    assert open_store(path).header.zero_points == (30.0,)


def test_one_psf_and_columns_of_variable_length(tmp_path):
    ragged = np.empty(N, object)
    ragged[:] = [np.arange(k % 4, dtype=float) for k in range(N)]
    table = columns(X=(ragged, "PD()"), Y=(ragged, "PD()"), SOURCE_ID=None, TRUE_flux_r=None)
    path = write(tmp_path / "s.fits", PSF=PSF[0], table=table, cards={"ZP_g": None, "BUNIT": "nJy"})
    store = open_store(path)
    assert store.header.most_sources == 3
    assert store.header.zero_points == pytest.approx((31.4, 31.4), abs=0.001)
    found = store.read(1, 6)
    assert found.n_sources().tolist() == [1, 2, 3, 0, 1]
    assert found.position[2, :, 0].tolist() == [0, 1, 2]
    assert found.psf.shape == (1, BANDS, 3, 3)
    assert found.psf_index.tolist() == [0] * 5


def test_the_fingerprint_is_of_the_content(sound, tmp_path):
    before = open_store(sound).fingerprint()
    assert open_store(shutil.copy(sound, tmp_path / "moved.fits")).fingerprint() == before
    image = IMAGE.copy()
    image[3, 0, 0, 0] += 1
    assert open_store(write(tmp_path / "other.fits", IMAGE=image)).fingerprint() != before


BREAKS = {
    "image": ({"drop": ("IMAGE",), "cards": {}}, "lacks an HDU IMAGE"),
    "variance": ({"drop": ("VARIANCE",)}, "lacks an HDU VARIANCE"),
    "psf": ({"drop": ("PSF",)}, "lacks an HDU PSF"),
    "table": ({"drop": ("STAMPS",)}, "lacks an HDU STAMPS"),
    "bands": ({"cards": {"BANDS": None}}, "lacks the keyword BANDS"),
    "same bands": ({"cards": {"BANDS": "g,g"}}, "BANDS 'g,g'; it needs different names"),
    "more bands": ({"cards": {"BANDS": "g,r,i"}}, "with the 3 bands of the keyword"),
    "variance shape": ({"VARIANCE": VARIANCE[:3]}, r"VARIANCE of shape \(3, 2, 6, 5\); it needs"),
    "mask shape": ({"MASK": np.zeros((N, 3, 3), "u1")}, "has MASK of shape"),
    "psf number": ({"PSF": PSF[:3]}, r"PSF of shape \(3, 2, 3, 3\); it needs"),
    "even psf": ({"PSF": PSF[..., :2]}, "h and w odd"),
    "dark psf": ({"PSF": 0 * PSF}, "no image that is finite and not all zero"),
    "no x": ({"table": columns(X=None)}, "lacks a column X in the table STAMPS"),
    "no id": ({"table": columns(ID=None)}, "lacks a column ID"),
    "ids": ({"table": columns(ID=(np.arange(N) // 2, "K"))}, "has the same ID 0"),
    "float ids": ({"table": columns(ID=(np.arange(N), "D"))}, "ID that holds no whole numbers"),
    "xy": ({"table": columns(Y=(X[:, :2], "2D"))}, "columns X and Y of 3 and 2 sources"),
    "index": ({"table": columns(PSF_INDEX=(np.arange(N) + 1, "K"))}, "1 to 7 in PSF_INDEX"),
    "rows": ({"IMAGE": IMAGE[:3], "VARIANCE": VARIANCE[:3], "drop": ("MASK",)}, "has 7 rows"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_file_is_refused_in_one_line(kind, tmp_path):
    change, words = BREAKS[kind]
    path = write(tmp_path / "broken.fits", **change)
    with pytest.raises(ValueError, match=words) as caught:
        open_store(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("`store`: ")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(share, sound, tmp_path):
    path = shutil.copy(sound, tmp_path / "short.fits")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ValueError, match=r"`store`: .* (is cut short|lacks an HDU|is damaged)"):
        open_store(path)


def test_the_last_image_may_be_cut_short(sound, tmp_path):
    with fits.open(sound) as hdus:
        names = ["PRIMARY", "STAMPS", "PSF", "VARIANCE", "MASK", "IMAGE"]
        fits.HDUList([hdus[name] for name in names]).writeto(tmp_path / "s.fits")
    path = tmp_path / "s.fits"
    open_store(path)
    os.truncate(path, path.stat().st_size - 2880)
    with pytest.raises(ValueError, match="is cut short: HDU IMAGE is not all there"):
        open_store(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    with pytest.raises(ValueError, match="is compressed"):
        open_store(tmp_path / "a.gz")
    (tmp_path / "a.txt").write_text("x,y\n")
    with pytest.raises(ValueError, match="no FITS; a store is a Zarr folder or a FITS file"):
        open_store(tmp_path / "a.txt")
