"""NumPy archives come in without running anyone's code, and go out and in again unchanged."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS, DistortionLookupTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffdeblend.exposure import make_exposure
from diffdeblend.io import read, read_npz, read_npz_positions, write_npz
from diffdeblend.psf import GaussianPSF

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPE = (2, 6, 9)
PSF = np.stack([np.outer([1, 2, 1], [1, 3, 1]), np.outer([1, 4, 1], [2, 5, 1])]).astype(float)


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def arrays():
    image = np.arange(np.prod(SHAPE), dtype="f4").reshape(SHAPE) / 7
    return {"images": image, "variance": image + 1, "psfs": PSF, "filters": np.array(["g", "r"])}


def save(path, **changes):
    """An archive; a key given as None is left out."""
    kept = {key: value for key, value in (arrays() | changes).items() if value is not None}
    np.savez(path, **kept)
    return path


def sky(projection="TAN", **cards):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [3.0, 1.5]
    wcs.wcs.cd = np.array([[-5e-5, 1e-5], [1e-5, 5e-5]])
    wcs.wcs.set_pv([(1, 1, 1.0), (1, 4, 30.0), (2, 1, 1.0)] if projection == "TPV" else [])
    return wcs


def full_exposure(**changes):
    """An exposure in which nothing is left at its default."""
    random = np.random.default_rng(3)
    values = random.normal(size=SHAPE).astype("f4")
    variance = random.uniform(0.5, 2, SHAPE).astype("f4")
    values[0, 1, 2], variance[1, 3, 4], variance[1, 3, 5] = np.nan, np.nan, np.inf
    given = {
        "mask": random.integers(0, 2**6, SHAPE) * (random.random(SHAPE) < 0.3),
        "mask_planes": ("CR", "BAD", "A_PLANE", "SAT"),
        "excluded": ("CR", "A_PLANE"),
        "bands": ("λ", "r band"),
        "zero_points": (27.123456789, 31.25),
        "unit": "adu",
        "wcs": sky("TPV"),
        "gain": 2.1,
        "read_noise": 0.0,
        "saturation": 2.5,
        "exposure_time": 300.1,
        "date": "2021-03-04",
        "pixel_scale": 0.7,
    } | changes
    return make_exposure(values, variance, given.pop("psf", PSF), **given)


def same(a, b):
    for name in ("image", "variance", "mask", "good"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype
    np.testing.assert_allclose(a.psf.image, b.psf.image, rtol=2e-7)
    for name in a.header.__dataclass_fields__:
        if name != "wcs":
            assert getattr(a.header, name) == getattr(b.header, name), name
    x, y = np.array([0.0, 8.0, 4.2]), np.array([5.0, 0.0, 2.5])
    if a.header.wcs is None:
        assert b.header.wcs is None
    else:
        np.testing.assert_allclose(
            a.header.wcs.all_pix2world(x, y, 0), b.header.wcs.all_pix2world(x, y, 0), rtol=1e-13
        )


ROUND_TRIPS = {
    "everything": {},
    "nothing": {"mask": None, "mask_planes": None, "excluded": None, "bands": None, "wcs": None}
    | {"zero_points": None, "gain": None, "read_noise": None, "saturation": None, "unit": ""}
    | {"exposure_time": None, "date": None, "pixel_scale": None},
    "a flux unit": {"unit": "nJy", "zero_points": None},
    "a plain map": {"wcs": sky()},
    "nothing excluded": {"excluded": ()},
    "the highest bit": {"mask": np.full(SHAPE, 2**31), "mask_planes": None, "excluded": None}
    | {"saturation": None},
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip(tmp_path, name):
    made = full_exposure(**ROUND_TRIPS[name])
    write_npz(made, tmp_path / "a.npz")
    same(read(tmp_path / "a.npz"), made)
    assert os.listdir(tmp_path) == ["a.npz"]
    assert read_npz_positions(tmp_path / "a.npz").shape == (0, 2)


def test_round_trip_of_positions(tmp_path):
    positions = np.array([[1.5, 4.25], [8.0, 0.0]])
    write_npz(full_exposure(), tmp_path / "a.npz", positions)
    np.testing.assert_array_equal(read_npz_positions(tmp_path / "a.npz"), positions)
    same(read_npz(tmp_path / "a.npz"), full_exposure())


def test_analytic_psf_comes_back_as_pixels(tmp_path):
    write_npz(full_exposure(psf=GaussianPSF(np.array([2.0, 3.0]))), tmp_path / "a.npz")
    stamps = np.asarray(read_npz(tmp_path / "a.npz").psf.image)
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1, rtol=1e-6)
    assert stamps[0].max() > 1.5 * stamps[1].max()


def test_one_band_under_the_short_names(tmp_path):
    given = arrays()
    path = tmp_path / "a.npz"
    np.savez(path, image=given["images"][1], variance=given["variance"][1], psf=PSF[1], bands="r")
    made = read_npz(path)
    assert made.bands == ("r",)
    np.testing.assert_array_equal(made.image[0], given["images"][1])


def test_masks(tmp_path):
    flags = np.zeros(SHAPE, bool)
    flags[1, 2, 3] = True
    assert np.argwhere(~np.asarray(read_npz(save(tmp_path / "a.npz", mask=flags)).good)).tolist() \
        == [[1, 2, 3]]  # fmt: skip
    bits = read_npz(save(tmp_path / "b.npz", mask=flags * 9))
    assert np.asarray(bits.good).all()
    assert bits.header.mask_planes == ("BIT0", "BIT1", "BIT2", "BIT3")
    named = read_npz(tmp_path / "b.npz", mask_planes=["X", "Y", "Z", "CR"])
    assert np.argwhere(~np.asarray(named.good)).tolist() == [[1, 2, 3]]
    chosen = read_npz(tmp_path / "b.npz", mask_planes=["X", "Y", "Z", "CR"], excluded=["Y"])
    assert np.asarray(chosen.good).all()


def test_zero_points(tmp_path):
    path = save(tmp_path / "a.npz", zero_points=np.array([27.0, 28.0]))
    assert read_npz(path).header.zero_points == (27, 28)
    assert read_npz(path, zero_points=30.0).header.zero_points == (30, 30)


def test_bands_choose_or_rename(tmp_path):
    path = save(tmp_path / "a.npz", mask=np.arange(108).reshape(SHAPE), zero_points=[27.0, 28.0])
    turned = read_npz(path, bands=["r", "g"])
    for name in ("images", "variance"):
        attribute = {"images": "image"}.get(name, name)
        np.testing.assert_array_equal(getattr(turned, attribute), arrays()[name][::-1])
    np.testing.assert_array_equal(turned.mask[1], np.arange(54).reshape(SHAPE[1:]))
    np.testing.assert_allclose(turned.psf.image[0], PSF[1] / PSF[1].sum(), rtol=1e-6)
    assert turned.header.zero_points == (28, 27)
    assert read_npz(path, bands="r", psf=PSF[1]).bands == ("r",)
    renamed = read_npz(path, bands=["a", "b"])
    assert renamed.bands == ("a", "b")
    np.testing.assert_array_equal(renamed.image, arrays()["images"])
    with pytest.raises(ValueError, match=r"`bands` has 1 names, \['z'\]; found are \['g', 'r'\]"):
        read_npz(path, bands=["z"])


def test_a_psf_of_ones_own(tmp_path):
    path = save(tmp_path / "a.npz", psfs=None)
    assert isinstance(read_npz(path, psf=GaussianPSF(np.array([2.0, 3.0]))).psf, GaussianPSF)
    with pytest.raises(ValueError, match="`psf` is missing"):
        read_npz(path)
    assert read_npz(path, needs_psf=False).psf.n_bands == 2
    assert read_npz(path, needs_psf=False, bands=["r"]).psf.n_bands == 1


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ({"positions": [[1.0, 2.0], [3.0, 4.0]]}, [[1, 2], [3, 4]]),
        ({"catalog": np.array([(2.0, 1.0)], [("y", "f8"), ("x", "f8")])}, [[1, 2]]),
        ({"catalog": np.array([(5, 1, 2)], [("id", "i8"), ("x", "i8"), ("y", "i8")])}, [[1, 2]]),
        ({"positions": np.zeros((0, 2))}, np.zeros((0, 2))),
        ({"positions": np.zeros(0)}, np.zeros((0, 2))),
        ({}, np.zeros((0, 2))),
    ],
)
def test_positions(tmp_path, positions, expected):
    found = read_npz_positions(save(tmp_path / "a.npz", **positions))
    assert found.dtype == float
    np.testing.assert_array_equal(found, expected)
    assert found.shape == np.shape(expected)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            {"catalog": np.zeros(3, [("ra", "f8"), ("dec", "f8")])},
            "needs columns x and y; has .*ra",
        ),
        ({"positions": np.zeros((2, 3))}, r"need shape \(n, 2\); got float64, \(2, 3\)"),
        ({"positions": np.array([["a", "b"]])}, r"need shape \(n, 2\)"),
    ],
)
def test_positions_refused(tmp_path, positions, message):
    with pytest.raises(ValueError, match=message):
        read_npz_positions(save(tmp_path / "a.npz", **positions))


class Bomb:
    """Leaves a trace where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["images", "filters", "catalog", "mask"])
def test_pickles_are_never_loaded(tmp_path, key):
    trace = tmp_path / "trace"
    path = save(tmp_path / "a.npz", **{key: np.array([Bomb(trace)], dtype=object)})
    read_it = read_npz_positions if key == "catalog" else read_npz
    with pytest.raises(ValueError, match=f"'{key}' holds Python objects.*never loaded"):
        read_it(path)
    assert not trace.exists()


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("not an archive")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("images.npy", b"nothing")
        archive.writestr("variance.npy", b"nothing")
    for name in ("empty", "text", "array"):
        with pytest.raises(ValueError, match=rf"{name}\.npz' is no NumPy archive"):
            read_npz(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match=r"there is no file .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="`path`"):
        read_npz(tmp_path / "zip.npz")


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_a_file_cut_anywhere_is_refused(tmp_path, place):
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        write_npz(full_exposure(), whole)
    content = whole.read_bytes()
    # The last bytes are the comment's length; without them it is no archive either.
    (tmp_path / "cut.npz").write_bytes(content[: place % len(content)])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        read_npz(tmp_path / "cut.npz")


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_refused_or_read(tmp_path, place, change):
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        write_npz(full_exposure(), whole)
    content = bytearray(whole.read_bytes())
    content[place % len(content)] ^= change
    (tmp_path / "a.npz").write_bytes(content)
    try:
        back = read_npz(tmp_path / "a.npz")
    except ValueError:
        return
    # The archive has checksums: what is read is what was written, but for a name in its index.
    np.testing.assert_array_equal(back.image, full_exposure().image)


@pytest.mark.parametrize("key", ["images", "variance"])
def test_missing_keys(tmp_path, key):
    with pytest.raises(ValueError, match=f"needs the key '{key}'; has .*'psfs'"):
        read_npz(save(tmp_path / "a.npz", **{key: None}))


def test_wrong_contents(tmp_path):
    with pytest.raises(ValueError, match=r"`image` of .* needs shape \(band, y, x\)"):
        read_npz(save(tmp_path / "a.npz", images=np.ones((1, *SHAPE)), filters=None))
    with pytest.raises(ValueError, match="`variance` needs the shape"):
        read_npz(save(tmp_path / "a.npz", variance=np.ones((2, 9, 6))))
    with pytest.raises(ValueError, match=r"`bands` of .* needs 2 names; has \['g'\]"):
        read_npz(save(tmp_path / "a.npz", filters=np.array(["g"])))
    with pytest.raises(ValueError, match=r"`wcs` must be a celestial|its key 'wcs' cannot be read"):
        read_npz(save(tmp_path / "a.npz", wcs=np.array("nonsense")))
    cards = "CTYPE1  = 'RA---TAN'\nCTYPE2  = 'DEC--AIT'"
    with pytest.raises(ValueError, match="its key 'wcs' cannot be read"):
        read_npz(save(tmp_path / "a.npz", wcs=np.array(cards)))
    with pytest.raises(ValueError, match="`gain` must be one number"):
        read_npz(save(tmp_path / "a.npz", gain=np.array([1.0, 2.0])))


def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_npz(full_exposure(), path)
    before = path.read_bytes()

    def fail(file, **_arrays):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_npz(full_exposure(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_map_that_only_fits_can_hold(tmp_path):
    wcs = sky()
    table = DistortionLookupTable(np.ones((3, 4), "f4") / 9, (1.0, 1.0), (1.0, 1.0), (5.0, 4.0))
    wcs.cpdis1, wcs.cpdis2 = table, table
    with pytest.raises(ValueError, match="look-up tables of distortion; use `write_fits`"):
        write_npz(full_exposure(wcs=wcs), tmp_path / "a.npz")


def test_real_hsc_blend():
    """Its mask is bit planes of the survey, not flags: every pixel is in use."""
    path = real("hsc_cosmos_35.npz")
    made = read(path)
    assert made.bands == ("g", "r", "i", "z", "y")
    assert made.image.shape == (5, 58, 48)
    assert made.psf.image.shape == (5, 43, 43)
    assert np.asarray(made.good).all()
    assert 0.8 < np.mean(np.asarray(made.mask) != 0) < 0.9
    positions = read_npz_positions(path)
    assert positions.shape == (7, 2)
    np.testing.assert_array_equal(positions[0], [14, 33])
    # x before y: there is far more light at the sources than at their mirror images.
    total = np.asarray(made.image).sum(axis=0)
    x, y = positions.astype(int).T
    assert total[y, x].mean() > 3 * total[x, np.minimum(y, 47)].mean()


def test_real_blends_of_many_scenes_are_said_to_be_so():
    with pytest.raises(ValueError, match=r"`image` of .* needs shape .*\(40, 6, 120, 120\)"):
        read_npz(real("btk_blends_40.npz"), psf=PSF)
