"""FITS files of every layout come in as one exposure, and go out and in again unchanged."""

import contextlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffdeblend.exposure import make_exposure
from diffdeblend.io import read, read_fits, read_psf, write_fits
from diffdeblend.io.noise import as_variance, background_noise, estimated_variance
from diffdeblend.io.stamps import psf_images
from diffdeblend.psf import GaussianPSF, MoffatPSF

DATA = Path(__file__).parents[2] / "shared" / "data"
NY, NX = 9, 14
PSF = np.stack([np.outer([1, 2, 1], [1, 3, 1]), np.outer([1, 4, 1], [2, 5, 1])]).astype(float)


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def sky(ny=NY, nx=NX, shift=0.0, **cards):
    """Cards of a map of 0.2 arcseconds a pixel, moved by `shift` pixels along x."""
    scale = 0.2 / 3600
    header = fits.Header()
    header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0})
    header.update({"CRPIX1": nx / 2 + shift, "CRPIX2": ny / 3, "CD1_1": -scale, "CD1_2": 0.0})
    header.update({"CD2_1": 0.0, "CD2_2": scale, "CUNIT1": "deg", "CUNIT2": "deg"} | cards)
    return header


def image(band=0, ny=NY, nx=NX):
    """No two pixels are the same, nor two bands."""
    return (100 * band + np.arange(ny * nx, dtype="f4") / 7).reshape(ny, nx)


def cube():
    return np.stack([image(0), image(1)])


def write(path, *hdus, **cards):
    """A file of `(data, name, cards)`; the cards given by name go to the first HDU."""
    parts = [fits.PrimaryHDU()] if hdus and hdus[0][1] else []
    for data, name, extra in hdus:
        kind = fits.ImageHDU if name or parts else fits.PrimaryHDU
        header = fits.Header()
        header.update(extra)
        parts.append(kind(data, header) if not name else kind(data, header, name=name))
    parts[0].header.update(cards)
    fits.HDUList(parts).writeto(path)
    return path


def same(a, b, psf_atol=0.0):
    for name in ("image", "variance", "mask", "good", "weight", "data"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype
    np.testing.assert_allclose(psf_images(a.psf), psf_images(b.psf), rtol=2e-7, atol=psf_atol)
    for name in a.header.__dataclass_fields__:
        if name != "wcs":
            assert getattr(a.header, name) == getattr(b.header, name), name
    if a.header.wcs is None:
        assert b.header.wcs is None
    else:
        x, y = np.array([0.0, 13.0, 4.2]), np.array([8.0, 0.0, 5.5])
        np.testing.assert_allclose(
            a.header.wcs.all_pix2world(x, y, 0), b.header.wcs.all_pix2world(x, y, 0), rtol=1e-13
        )


def full_exposure(**changes):
    """An exposure in which nothing is left at its default."""
    random = np.random.default_rng(3)
    values = random.normal(size=(2, NY, NX)).astype("f4")
    variance = random.uniform(0.5, 2, values.shape).astype("f4")
    values[0, 1, 2], variance[1, 3, 4], variance[1, 3, 5] = np.nan, np.nan, np.inf
    mask = random.integers(0, 2**11, values.shape)
    planes = ("CR", "BAD", "A_PLANE_WITH_A_LONG_NAME", "SAT", "P4", "DETECTED", "X", "Y", "Z9")
    given = {
        "mask": mask & ~np.int64(1 + 2 + 8) | (mask & 1) * (mask % 7 == 1),
        "mask_planes": planes,
        "excluded": ("CR", "X", "NO_DATA"),
        "bands": ("HSC-G", "r band"),
        "zero_points": (27.123456789, 31.25),
        "unit": "adu",
        "wcs": WCS(sky()),
        "gain": 2.125,
        "read_noise": 0.0,
        "saturation": 2.5,
        "exposure_time": 300.1,
        "date": "2021-03-04T05:06:07",
    } | changes
    return make_exposure(values, variance, PSF, **given)


SIP = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
SIP |= {"A_2_0": 2e-4, "B_0_2": -3e-4}
TPV = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV1_4": 30.0, "PV2_1": 1.0}
ROUND_TRIPS = {
    "everything": {},
    "nothing": {"bands": None, "zero_points": None, "unit": "", "wcs": None, "gain": None}
    | {"read_noise": None, "saturation": None, "exposure_time": None, "date": None},
    "a flux unit": {"unit": "nJy", "zero_points": None, "gain": 17.0},
    "counts a second": {"unit": "electron / s"},
    "pixel scale alone": {"wcs": None, "pixel_scale": 0.263},
    "SIP": {"wcs": WCS(sky(**SIP))},
    "TPV": {"wcs": WCS(sky(**TPV))},
    "nothing excluded": {"excluded": ()},
    "boolean mask": {"mask": np.arange(NX) % 3 * np.ones((2, NY, 1)) == 1, "mask_planes": None}
    | {"excluded": None},
    "an empty mask": {"mask": None, "mask_planes": None, "excluded": None},
    "the highest bit": {"mask": np.full((2, NY, NX), 2**31), "excluded": None},
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip(tmp_path, name):
    made = full_exposure(**ROUND_TRIPS[name])
    write_fits(made, tmp_path / "a.fits")
    same(read_fits(tmp_path / "a.fits"), made)
    # Again, so that nothing changes slowly.
    write_fits(read_fits(tmp_path / "a.fits"), tmp_path / "b.fits")
    same(read_fits(tmp_path / "b.fits"), made)


@pytest.mark.parametrize("suffix", [".fits.gz", ".fit", ".fits"])
def test_round_trip_by_suffix(tmp_path, suffix):
    made = full_exposure()
    path = tmp_path / f"a{suffix}"
    write_fits(made, path)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == suffix.endswith("gz")
    same(read(path), made)


def test_round_trip_of_a_map_with_tables(tmp_path):
    wcs = WCS(sky())
    from astropy.wcs import DistortionLookupTable

    bend = (np.arange(12, dtype="f4").reshape(3, 4) - 5) / 30
    table = DistortionLookupTable(bend, (1.0, 1.0), (1.0, 1.0), (5.0, 4.0))
    wcs.cpdis1, wcs.cpdis2 = table, table
    assert (
        np.abs(wcs.all_pix2world(4.2, 5.5, 0)[0] - WCS(sky()).all_pix2world(4.2, 5.5, 0)[0]) > 1e-6
    )
    made = full_exposure(wcs=wcs)
    write_fits(made, tmp_path / "a.fits")
    same(read_fits(tmp_path / "a.fits"), made)


@given(
    st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=90),
             min_size=2, max_size=2, unique_by=str.lower),
    st.lists(st.floats(-50, 50), min_size=2, max_size=2),
)  # fmt: skip
@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_round_trip_of_names_and_zero_points(tmp_path, bands, zero_points):
    made = full_exposure(bands=bands, zero_points=zero_points)
    path = tmp_path / "a.fits"
    try:
        write_fits(made, path)
    except ValueError:
        # astropy takes what follows '/ for a comment.
        assert any("'/" in band for band in bands)
        return
    back = read_fits(path)
    assert back.bands == made.bands
    assert back.header.zero_points == pytest.approx(made.header.zero_points, rel=1e-14)


@pytest.mark.slow
def test_analytic_psf_comes_back_as_pixels(tmp_path):
    psf = MoffatPSF(np.array([2.5, 4.0]), np.array([3.0, 4.0]))
    made = make_exposure(cube(), 1.0, psf)
    write_fits(made, tmp_path / "a.fits")
    back = read_fits(tmp_path / "a.fits")
    stamps = np.asarray(back.psf.image)
    assert stamps.shape[1] % 2 == 1
    np.testing.assert_allclose(stamps, psf_images(psf), atol=1e-7)
    # The width of a Moffat, before the pixel: at half the FWHM it is at half its height.
    middle = stamps.shape[1] // 2
    assert stamps[1, middle, middle + 2] / stamps[1, middle, middle] == pytest.approx(0.5, abs=0.03)


def test_sampled_psf_against_the_integral_over_pixels():
    """A narrow one, whose power beyond the Nyquist frequency folds back."""
    from scipy.stats import norm

    stamp = psf_images(GaussianPSF(np.array([1.2])))[0]
    edges = np.arange(-13, 13) + 0.5
    along = np.diff(norm.cdf(edges, scale=1.2 / np.sqrt(8 * np.log(2))))
    assert stamp.shape == (25, 25)
    np.testing.assert_allclose(stamp, np.outer(along, along), atol=1e-6)


def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.fits"
    write_fits(full_exposure(), path)
    before = path.read_bytes()

    def fail(self, file, *_args, **_options):
        Path(file).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_fits(full_exposure(bands=("u", "v")), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.fits"]


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("something else")
    write_fits(full_exposure(), path)
    assert read_fits(path).bands == ("HSC-G", "r band")
    assert os.listdir(tmp_path) == ["a.fits"]


@pytest.mark.parametrize("name", ["λ", "g ", "'/", "g\tr", "g\nr"])
def test_names_that_fits_cannot_hold(tmp_path, name):
    with pytest.raises(
        ValueError,
        match=rf"`bands` must be text that a FITS header can hold.*{re.escape(repr(name))}",
    ):
        write_fits(full_exposure(bands=("g", name)), tmp_path / "a.fits")
    assert os.listdir(tmp_path) == []


def test_a_file_per_band(tmp_path):
    paths = [
        write(tmp_path / f"{band}.fits", (image(k), "", {"FILTER": band} | dict(sky())))
        for k, band in enumerate("gr")
    ]
    noise = [
        write(tmp_path / f"{band}.var.fits", (np.full((NY, NX), k + 1.0), "", {}))
        for k, band in enumerate("gr")
    ]
    made = read_fits(paths, psf=PSF, variance=noise)
    assert made.bands == ("g", "r")
    np.testing.assert_array_equal(made.image, cube())
    np.testing.assert_array_equal(made.variance[:, 3, 4], [1, 2])
    assert made.header.pixel_scale == pytest.approx(0.2, rel=1e-6)
    # Other names than those of the headers, for the files in their order.
    other = read_fits([str(path) for path in paths], psf=PSF, variance=noise, bands=["a", "b"])
    assert other.bands == ("a", "b")
    np.testing.assert_array_equal(other.image, cube())


def test_bands_in_another_order_than_the_files(tmp_path):
    paths = [write(tmp_path / f"{b}.fits", (image(), "", {"FILTER": b})) for b in "gr"]
    with pytest.raises(ValueError, match=r"`bands` are \['r', 'g'\], but the files.*\['g', 'r'\]"):
        read_fits(paths, psf=PSF, bands=["r", "g"])


def test_two_files_of_one_filter_need_names(tmp_path):
    paths = [write(tmp_path / f"{k}.fits", (image(k), "", {"FILTER": "r"})) for k in range(2)]
    with pytest.raises(ValueError, match=r"`bands` must be all different.*\['r', 'r'\]"):
        read_fits(paths, psf=PSF, variance=1.0)
    assert read_fits(paths, psf=PSF, variance=1.0, bands=["r1", "r2"]).bands == ("r1", "r2")


LAYOUTS = {
    "cubes": [(cube(), "IMAGE", {}), (cube() + 1, "VARIANCE", {})],
    "SCI and VAR": [(cube(), "SCI", {}), (cube() + 1, "VAR", {})],
    "an image and ERR": [(cube(), "", {}), (np.sqrt(cube() + 1), "ERR", {})],
    "IVAR": [(cube(), "IMAGE", {}), (1 / (cube() + 1), "IVAR", {})],
    "an extension per band": [
        (image(1), "IMAGE_r", {}), (image(0), "IMAGE_g", {}),
        (image(0) + 1, "VARIANCE_G", {}), (image(1) + 1, "VARIANCE_R", {}),
        # As in files of JWST: no variance of the image.
        (np.ones((NY, NX)), "VAR_POISSON", {}),
    ],
    "versions": [
        (image(0), "SCI", {"EXTVER": 1}), (np.sqrt(image(0) + 1), "ERR", {"EXTVER": 1}),
        (image(1), "SCI", {"EXTVER": 2}), (np.sqrt(image(1) + 1), "ERR", {"EXTVER": 2}),
    ],
    "bands as names": [
        (image(0), "G", {}), (image(1), "R", {}),
        (image(0) + 1, "VARIANCE_G", {}), (image(1) + 1, "VARIANCE_R", {}),
    ],
    "a degenerate axis": [(cube()[None], "IMAGE", {}), (cube()[None] + 1, "VARIANCE", {})],
    "double and other byte order": [
        (cube().astype("f8"), "IMAGE", {}), (cube().astype("f8") + 1, "VARIANCE", {}),
    ],
    "the variance before WHT": [
        (cube(), "SCI", {}), (cube() * 0 + 5, "WHT", {}), (cube() + 1, "VARIANCE", {}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    path = write(tmp_path / "a.fits", *LAYOUTS[layout])
    made = read_fits(path, psf=PSF, bands=["g", "r"])
    assert made.bands == ("g", "r")
    np.testing.assert_array_equal(made.image, cube())
    np.testing.assert_allclose(made.variance, cube() + 1, rtol=1e-6)


def test_bands_choose_from_a_file(tmp_path):
    path = write(tmp_path / "a.fits", *LAYOUTS["an extension per band"])
    assert read_fits(path, psf=PSF).bands == ("R", "G")
    one = read_fits(path, psf=PSF[0], bands="G")
    assert one.bands == ("G",)
    np.testing.assert_array_equal(one.image[0], image(0))
    np.testing.assert_allclose(one.variance[0], image(0) + 1)
    write_fits(full_exposure(), tmp_path / "b.fits")
    chosen = read_fits(tmp_path / "b.fits", bands=["r band"])
    assert chosen.bands == ("r band",)
    np.testing.assert_array_equal(chosen.image[0], full_exposure().image[1])
    np.testing.assert_allclose(chosen.psf.image[0], full_exposure().psf.image[1], rtol=2e-7)
    assert chosen.header.zero_points == (31.25,)
    with pytest.raises(ValueError, match=r"`bands` has 1 names, \['z'\]; found are \['HSC-G'"):
        read_fits(tmp_path / "b.fits", bands=["z"])


def test_a_file_of_the_lsst_pipelines(tmp_path):
    """HDU 1 to 3 of an afw ExposureF, the primary header with the calibration, tables after."""
    mask = np.zeros((NY, NX), "i4")
    mask[1, 2], mask[3, 4], mask[5, 6] = 1 << 1, 1 << 5, 1 << 8
    variance = image() + 1
    variance[5, 6] = np.nan
    planes = {"MP_BAD": 0, "MP_SAT": 1, "MP_INTRP": 2, "MP_CR": 3, "HIERARCH MP_DETECTED": 5}
    planes |= {"HIERARCH MP_SENSOR_EDGE": 12, "HIERARCH MP_NO_DATA": 8}
    path = write(
        tmp_path / "calexp.fits",
        (image(), "IMAGE", {"BUNIT": "nJy"} | dict(sky())),
        (mask, "MASK", planes),
        (variance, "VARIANCE", {}),
        FILTER="HSC-I",
        FLUXMAG0=10 ** (0.4 * 31.4),
        EXPTIME=200.0,
    )
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.BinTableHDU.from_columns([fits.Column("id", "K", array=[1, 2])]))
    made = read_fits(path, psf=PSF[0])
    assert made.bands == ("HSC-I",)
    assert made.header.unit == "nJy"
    assert made.header.zero_points == pytest.approx((31.4,), abs=1e-6)
    assert made.header.exposure_time == 200
    assert made.header.mask_planes[:2] == ("BAD", "SAT")
    assert made.header.mask_planes[12] == "SENSOR_EDGE"
    assert made.header.mask_planes[4] == "BIT4"
    assert np.argwhere(~np.asarray(made.good)[0]).tolist() == [[1, 2], [5, 6]]
    assert np.argwhere(np.asarray(made.flag("DETECTED"))[0]).tolist() == [[3, 4]]


def test_a_file_of_nddata(tmp_path):
    data = CCDData(image(), unit="adu", uncertainty=StdDevUncertainty(image() + 1),
                   mask=image() == image()[4, 5], wcs=WCS(sky()))  # fmt: skip
    data.write(tmp_path / "a.fits")
    made = read_fits(tmp_path / "a.fits", psf=PSF[0])
    np.testing.assert_allclose(made.variance[0], (image() + 1) ** 2, rtol=1e-6)
    assert np.argwhere(~np.asarray(made.good)[0]).tolist() == [[4, 5]]
    assert made.header.unit == "adu"


def test_a_compressed_file(tmp_path):
    """As fpack makes it: nothing in the first HDU, the image without a name."""
    path = tmp_path / "a.fits.fz"
    values = np.arange(NY * NX, dtype="i2").reshape(NY, NX)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values, sky())]).writeto(path)
    made = read(path, psf=PSF[0], variance=1.0)
    np.testing.assert_array_equal(made.image[0], values)
    assert made.header.wcs is not None


def test_scaled_integers_and_blanks(tmp_path):
    values = np.arange(NY * NX, dtype="i2").reshape(NY, NX)
    hdu = fits.PrimaryHDU(values)
    hdu.header.update({"BSCALE": 0.5, "BZERO": 1000.0, "BLANK": 7})
    # Scale and offset stand in the header for numbers that are already so scaled.
    hdu._scale_back = lambda: None
    path = tmp_path / "a.fits"
    with path.open("wb") as file:
        header = hdu.header.copy()
        file.write(header.tostring().encode())
        raw = values.astype(">i2").tobytes()
        file.write(raw + b"\0" * (-len(raw) % 2880))
    made = read_fits(path, psf=PSF[0], variance=1.0)
    expected = values * 0.5 + 1000
    good = np.asarray(made.good)[0]
    assert np.argwhere(~good).tolist() == [[0, 7]]
    np.testing.assert_array_equal(np.asarray(made.image)[0][good], expected[good])


def test_unsigned_integers(tmp_path):
    values = np.arange(NY * NX, dtype="u2").reshape(NY, NX) + 40000
    path = write(tmp_path / "a.fits", (values, "", {}))
    np.testing.assert_array_equal(read_fits(path, psf=PSF[0], variance=1.0).image[0], values)


@pytest.mark.parametrize(
    ("cards", "zero_point"),
    [
        ({"MAGZERO": 27.5}, 27.5),
        ({"MAGZPT": "27.5"}, 27.5),
        ({"ZP": 27.5}, 27.5),
        ({"PHOTZP": 27.5}, 27.5),
        ({"FLUXMAG0": 1e11}, 27.5),
        ({"BUNIT": "Jy"}, 8.9),
        ({"BUNIT": "nJy"}, 31.4),
        ({"BUNIT": "nanomaggy"}, 22.5),
        ({"BUNIT": "nanomaggies", "MAGZERO": 22.5}, 22.5),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 1e-12}, 8.9 + 15),
        ({"MAGZERO": "unknown"}, None),
        ({"MAGZERO": ""}, None),
        ({"PHOTFLAM": 1e-19}, None),
        ({"BUNIT": "ADU"}, None),
        ({}, None),
    ],
)
def test_zero_points(tmp_path, cards, zero_point):
    made = read_fits(write(tmp_path / "a.fits", (image(), "", cards)), psf=PSF[0], variance=1.0)
    expected = None if zero_point is None else pytest.approx((zero_point,), abs=1e-8)
    assert made.header.zero_points == expected


def test_surface_brightness_with_the_pixel_of_the_map(tmp_path):
    path = write(tmp_path / "a.fits", (image(), "", {"BUNIT": "MJy/sr"} | dict(sky())))
    area = (0.2 / 3600 * np.pi / 180) ** 2
    made = read_fits(path, psf=PSF[0], variance=1.0)
    assert made.header.zero_points[0] == pytest.approx(8.9 - 2.5 * np.log10(1e6 * area), abs=1e-5)


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("ADU", "adu"),
        ("counts", "ct"),
        ("COUNTS/S", "ct / s"),
        ("ELECTRONS/S", "electron / s"),
        ("electrons", "electron"),
        ("nJy", "nJy"),
        ("DN/s", "DN/s"),
        ("   ", ""),
        ("1", ""),
    ],
)
def test_units(tmp_path, written, unit):
    path = write(tmp_path / "a.fits", (image(), "", {"BUNIT": written}))
    assert read_fits(path, psf=PSF[0], variance=1.0).header.unit == unit


def test_a_unit_that_is_none_is_said(tmp_path):
    path = write(tmp_path / "a.fits", (image(), "", {"BUNIT": "parrots"}))
    with pytest.warns(UserWarning, match="BUNIT 'parrots' is no unit"):
        assert read_fits(path, psf=PSF[0], variance=1.0).header.unit == ""


def test_a_requested_unit(tmp_path):
    """Image, variance, gain, saturation and zero point all follow."""
    cards = {"BUNIT": "uJy", "SATURATE": 11.0, "EFFGAIN": 3.0}
    path = write(tmp_path / "a.fits", (image(), "", cards), (image() + 1, "VARIANCE", {}))
    made = read_fits(path, psf=PSF[0], unit="nJy")
    np.testing.assert_allclose(made.image[0], image() * 1e3, rtol=1e-6)
    np.testing.assert_allclose(made.variance[0], (image() + 1) * 1e6, rtol=1e-6)
    np.testing.assert_array_equal(made.flag("SAT")[0], image() >= 11)
    assert made.header.saturation == pytest.approx(11e3)
    assert made.header.gain == pytest.approx(3e-3)
    assert made.header.zero_points == pytest.approx((31.4,))


@pytest.mark.parametrize(
    ("cards", "options"),
    [({"MAGZERO": 27.0, "BUNIT": "adu"}, {}), ({"BUNIT": "adu"}, {"zero_points": [27.0]})],
)
def test_a_requested_unit_through_the_zero_point(tmp_path, cards, options):
    path = write(tmp_path / "a.fits", (image(), "", cards))
    made = read_fits(path, psf=PSF[0], variance=1.0, unit="nJy", **options)
    factor = 10 ** (0.4 * (31.4 - 27.0))
    np.testing.assert_allclose(made.image[0], image() * factor, rtol=1e-6)
    np.testing.assert_allclose(made.variance[0], factor**2, rtol=1e-6)
    assert made.header.zero_points == pytest.approx((31.4,))


def test_bands_of_different_units(tmp_path):
    paths = [
        write(tmp_path / "g.fits", (image(), "", {"BUNIT": "nJy"})),
        write(tmp_path / "r.fits", (image(), "", {"BUNIT": "uJy"})),
    ]
    made = read_fits(paths, psf=PSF, variance=1.0)
    assert made.header.unit == "nJy"
    np.testing.assert_allclose(made.image[1], 1e3 * made.image[0], rtol=1e-6)
    np.testing.assert_allclose(made.variance[:, 0, 0], [1, 1e6])


@pytest.mark.parametrize(
    ("cards", "unit", "message"),
    [
        ({"BUNIT": "adu"}, "nJy", "`unit` 'nJy' cannot be made from .*'adu', as it has no zero"),
        ({}, "nJy", "`unit` 'nJy' cannot be made from .*'none'"),
        ({"BUNIT": "nJy"}, "electron", "`unit` 'electron' cannot be made from .*'nJy'"),
        ({"BUNIT": "nJy"}, "parrots", "`unit` must be a unit that astropy reads; got 'parrots'"),
        ({"BUNIT": "nJy", "MAGZERO": 27.0}, None, "zero point 27.0 contradicts its BUNIT 'nJy'"),
        ({"BUNIT": "mag"}, None, "`unit` must be linear in flux"),
    ],
)
def test_units_that_do_not_fit(tmp_path, cards, unit, message):
    path = write(tmp_path / "a.fits", (image(), "", cards))
    with pytest.raises(ValueError, match=message):
        read_fits(path, psf=PSF[0], variance=1.0, unit=unit)


def test_the_empty_unit_leaves_the_numbers(tmp_path):
    path = write(tmp_path / "a.fits", (image(), "", {"BUNIT": "nJy", "MAGZERO": 27.0}))
    made = read_fits(path, psf=PSF[0], variance=1.0, unit="")
    assert made.header.zero_points == (27.0,)
    np.testing.assert_array_equal(made.image[0], image())


@pytest.mark.parametrize(
    ("cards", "gain"),
    [
        ({"GAIN": 2.0}, 2.0),
        ({"GAIN": 2.0, "BUNIT": "adu"}, 2.0),
        ({"GAIN": 2.0, "BUNIT": "adu/s", "EXPTIME": 50.0}, 100.0),
        ({"GAIN": 2.0, "BUNIT": "adu/s", "EXPTIME": 1.0}, 2.0),
        ({"GAIN": 2.0, "BUNIT": "adu/s"}, None),
        ({"GAIN": 2.0, "BUNIT": "electron"}, 1.0),
        ({"BUNIT": "electron / s", "EXPTIME": 50.0}, 50.0),
        ({"GAIN": 2.0, "BUNIT": "nJy"}, None),
        ({"GAIN": 0.0}, None),
        ({}, None),
    ],
)
def test_gain_in_the_unit_of_the_image(tmp_path, cards, gain):
    made = read_fits(write(tmp_path / "a.fits", (image(), "", cards)), psf=PSF[0], variance=1.0)
    assert made.header.gain == gain


def test_numbers_of_the_header(tmp_path):
    cards = {"RDNOISE": 5.5, "EXPTIME": 30, "DATE-OBS": "2020-01-01", "PIXSCALE": 0.4}
    cards |= {"FILTER1": "CLEAR1L", "FILTER2": "F814W"}
    made = read_fits(write(tmp_path / "a.fits", (image(), "", cards)), psf=PSF[0], variance=1.0)
    header = made.header
    assert (header.read_noise, header.exposure_time, header.date) == (5.5, 30, "2020-01-01")
    assert header.pixel_scale == 0.4
    assert made.bands == ("F814W",)
    # The first HDU's hold for extensions, their own before.
    path = write(tmp_path / "b.fits", (image(), "IMAGE", {"EXPTIME": 7}), EXPTIME=30, RDNOISE=3.0)
    header = read_fits(path, psf=PSF[0], variance=1.0).header
    assert (header.read_noise, header.exposure_time) == (3, 7)


def test_numbers_on_which_bands_disagree_are_left_out(tmp_path):
    paths = [
        write(tmp_path / f"{b}.fits", (image(k), "", {"EXPTIME": 10 + k, "GAIN": 2, "SATURATE": s}))
        for k, b, s in ((0, "g", 16.0), (1, "r", 117.0))
    ]
    made = read_fits(paths, psf=PSF, variance=1.0)
    assert made.header.exposure_time is None
    assert made.header.saturation is None
    assert made.header.gain == 2
    # Each band by its own ceiling.
    ceilings = np.array([16.0, 117.0])[:, None, None]
    np.testing.assert_array_equal(made.flag("SAT"), cube() >= ceilings)
    assert np.asarray(made.flag("SAT")).sum(axis=(1, 2)).tolist() == [14, 7]


def test_zero_points_of_some_bands_only(tmp_path):
    paths = [
        write(tmp_path / "g.fits", (image(), "", {"MAGZERO": 27.0})),
        write(tmp_path / "r.fits", (image(), "", {})),
    ]
    with pytest.warns(UserWarning, match=r"no zero point in .*r\.fits"):
        assert read_fits(paths, psf=PSF, variance=1.0).header.zero_points is None


def noisy(sigma=3.0, level=50.0, seed=5, shape=(120, 150)):
    return np.random.default_rng(seed).normal(level, sigma, shape)


def test_noise_of_the_sky_past_bright_sources():
    values = noisy()
    values[20:40, 30:60] += 1000
    values[0, 0] = np.nan
    level, sigma = background_noise(values, np.ones(values.shape, bool))
    assert level == pytest.approx(50, abs=0.1)
    # 3 % of the pixels are sources; 18,000 pixels give sigma to 1 %.
    assert sigma == pytest.approx(3, rel=0.03)


def test_masked_pixels_do_not_count_for_the_noise():
    values = noisy()
    used = np.ones(values.shape, bool)
    used[:80] = False
    values[:80] = noisy(sigma=500)[:80]
    assert background_noise(values, used)[1] == pytest.approx(3, rel=0.03)


def test_estimated_variance(tmp_path):
    random = np.random.default_rng(8)
    y, x = np.mgrid[:120, :150]
    light = 4000 * np.exp(-((x - 90) ** 2 + (y - 40) ** 2) / (2 * 6**2))
    gain, sigma = 2.5, 4.0
    values = random.poisson(light * gain) / gain + random.normal(80, sigma, light.shape)
    truth = sigma**2 + light / gain
    made = read_fits(write(tmp_path / "a.fits", (values, "", {"GAIN": gain})), psf=PSF[0])
    bright = light > 100
    assert np.median(made.variance[0][~bright] / truth[~bright]) == pytest.approx(1, abs=0.05)
    assert np.median(made.variance[0][bright] / truth[bright]) == pytest.approx(1, abs=0.05)
    chi2 = (values - 80 - light) ** 2 * np.asarray(made.weight[0])
    assert chi2[bright].mean() == pytest.approx(1, abs=0.1)
    # Without a gain, the sky's alone, everywhere.
    path = write(tmp_path / "b.fits", (values, "", {}))
    flat = np.asarray(read_fits(path, psf=PSF[0]).variance)
    assert flat.min() == flat.max() == pytest.approx(16, rel=0.06)
    assert read_fits(path, psf=PSF[0], gain=gain).variance.max() > 1000


def test_estimated_variance_does_not_pull_fluxes_down():
    """Weights from the pixels themselves would favour those that are low: by 4 % here."""
    random = np.random.default_rng(4)
    values = random.normal(0, 2, (150, 200))
    values[40:100, 60:140] += random.poisson(20, (60, 80))
    variance = estimated_variance(values, np.ones(values.shape, bool), 1.0)
    inside = np.s_[45:95, 65:135]
    weighted = np.average(values[inside], weights=1 / variance[inside])
    assert weighted == pytest.approx(20, abs=0.3)
    assert np.average(values[inside], weights=1 / (4 + np.maximum(values[inside], 0))) < 19.3


def test_variance_that_cannot_be_estimated(tmp_path):
    values = noisy()
    values[:100] = 0
    path = write(tmp_path / "a.fits", (values, "", {}))
    with pytest.raises(ValueError, match=r"a\.fits\[0\]: `variance` is missing and cannot be"):
        read_fits(path, psf=PSF[0])
    mask = values == 0
    made = read_fits(path, psf=PSF[0], mask=mask)
    assert made.variance[0, 0, 0] == pytest.approx(9, rel=0.06)


def test_kinds_of_variance():
    used = np.ones((120, 150), bool)
    values = noisy(sigma=3.0)
    rms = np.linspace(1, 4, values.size).reshape(values.shape)
    for kind, given_map in (("variance", rms**2), ("rms", rms), ("ivar", rms**-2)):
        np.testing.assert_allclose(as_variance(given_map, kind, values, used), rms**2)
    scaled = as_variance(123.0 * rms**-2, "weight", values, used)
    assert np.median(scaled) == pytest.approx(9, rel=0.05)
    ratio = scaled / rms**2
    np.testing.assert_allclose(ratio, ratio[0, 0])


@pytest.mark.parametrize("kind", ["ivar", "weight"])
@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan])
def test_no_weight_is_no_data(tmp_path, kind, nothing):
    weight = np.full((120, 150), 4.0)
    weight[3, 5] = nothing
    path = write(tmp_path / "a.fits", (noisy(), "", {}))
    made = read_fits(path, psf=PSF[0], variance=weight, variance_kind=kind)
    assert np.argwhere(~np.asarray(made.good)[0]).tolist() == [[3, 5]]


def test_variance_refused(tmp_path):
    path = write(tmp_path / "a.fits", (noisy(), "", {}))
    with pytest.raises(ValueError, match=r"`variance_kind` must be one of .*got 'sigma'"):
        read_fits(path, psf=PSF[0], variance=1.0, variance_kind="sigma")
    with pytest.raises(ValueError, match="'weight' has no positive value"):
        read_fits(path, psf=PSF[0], variance=np.zeros((120, 150)), variance_kind="weight")
    with pytest.raises(ValueError, match="`variance` must be positive"):
        read_fits(path, psf=PSF[0], variance=np.full((120, 150), -2.0), variance_kind="rms")
    with pytest.raises(
        ValueError, match=r"`variance` of a\.fits\[0\] needs the shape of its image"
    ):
        read_fits(path, psf=PSF[0], variance=np.ones((150, 120)))
    with pytest.raises(ValueError, match="`variance` needs one plane for each of 1 bands"):
        read_fits(path, psf=PSF[0], variance=np.ones((2, 120, 150)))
    write(tmp_path / "v.fits", (np.ones((2, 120, 150)), "", {}))
    with pytest.raises(ValueError, match=r"`variance` needs one plane for each of 1.*hold 2"):
        read_fits(path, psf=PSF[0], variance=tmp_path / "v.fits")


def test_a_mask_without_names(tmp_path):
    """0 and 1 are false and true; anything else is bit planes that say nothing."""
    flags = np.zeros((2, NY, NX), "u1")
    flags[0, 1, 2] = 1
    layout = [(cube(), "IMAGE", {}), (cube() + 1, "VARIANCE", {})]
    path = write(tmp_path / "a.fits", *layout, (flags, "MASK", {}))
    assert np.argwhere(~np.asarray(read_fits(path, psf=PSF).good)).tolist() == [[0, 1, 2]]
    named = write(tmp_path / "n.fits", *layout, (flags, "MASK", {"MP_EDGE": 0}))
    assert np.asarray(read_fits(named, psf=PSF).good).all()
    floats = write(tmp_path / "f.fits", *layout, (flags.astype("f4"), "MASK", {}))
    assert np.argwhere(~np.asarray(read_fits(floats, psf=PSF).good)).tolist() == [[0, 1, 2]]
    # One band of bit planes, although the other holds only 0 and 1.
    flags[1, 3, 4] = 5
    path = write(tmp_path / "b.fits", *layout, (flags, "DQ", {}))
    made = read_fits(path, psf=PSF)
    assert np.asarray(made.good).all()
    assert np.argwhere(np.asarray(made.flag("BIT0"))).tolist() == [[0, 1, 2], [1, 3, 4]]
    named = read_fits(path, psf=PSF, mask_planes=["DO_NOT_USE"], excluded=["DO_NOT_USE"])
    assert np.argwhere(~np.asarray(named.good)).tolist() == [[0, 1, 2], [1, 3, 4]]


def test_one_mask_for_all_bands(tmp_path):
    flags = np.zeros((NY, NX), "i2")
    flags[1, 2] = 1
    path = write(tmp_path / "a.fits", (cube(), "IMAGE", {}), (flags, "MASK", {}))
    expected = [[0, 1, 2], [1, 1, 2]]
    for options in ({}, {"mask": np.broadcast_to(flags == 1, (2, NY, NX))}):
        made = read_fits(path, psf=PSF, variance=1.0, **options)
        assert np.argwhere(~np.asarray(made.good)).tolist() == expected
    alone = write(tmp_path / "m.fits", (flags, "", {}))
    bare = write(tmp_path / "i.fits", (cube(), "IMAGE", {}))
    made = read_fits(bare, psf=PSF, variance=1.0, mask=alone)
    assert np.argwhere(~np.asarray(made.good)).tolist() == expected


def test_planes_of_different_numbers_in_each_band(tmp_path):
    """SAT is bit 1 in one file and bit 4 in the other."""
    paths = []
    for band, bits in (("g", {"MP_BAD": 0, "MP_SAT": 1}), ("r", {"MP_SAT": 4, "MP_CR": 1})):
        mask = np.zeros((NY, NX), "i4")
        mask[1, 2], mask[3, 4] = 1 << bits["MP_SAT"], 1 << 1
        paths.append(write(tmp_path / f"{band}.fits", (image(), "IMAGE", {}), (mask, "MASK", bits)))
    made = read_fits(paths, psf=PSF, variance=1.0)
    where = {p: np.argwhere(np.asarray(made.flag(p))).tolist() for p in ("SAT", "CR", "BAD")}
    assert where == {"SAT": [[0, 1, 2], [0, 3, 4], [1, 1, 2]], "CR": [[1, 3, 4]], "BAD": []}


def test_mask_refused(tmp_path):
    path = write(tmp_path / "a.fits", (image(), "IMAGE", {}), (image(), "MASK", {}))
    with pytest.raises(ValueError, match=r"`mask` a\.fits\[MASK\] must hold whole numbers"):
        read_fits(path, psf=PSF[0], variance=1.0)
    write(tmp_path / "c.fits", (image(), "", {}))
    path = tmp_path / "c.fits"
    with pytest.raises(ValueError, match=r"`mask` of .* needs the shape of its image"):
        read_fits(path, psf=PSF[0], variance=1.0, mask=np.zeros((NX, NY), bool))
    path = write(tmp_path / "b.fits", (cube(), "IMAGE", {}), (np.ones((3, NY, NX)), "VARIANCE", {}))
    with pytest.raises(ValueError, match=r"`variance` .*VARIANCE.* needs 2 planes.*got 3"):
        read_fits(path, psf=PSF)


def test_bands_that_are_not_aligned(tmp_path):
    def at(shift, name, **options):
        return write(tmp_path / name, (image(**options), "", dict(sky(shift=shift))))

    first = at(0.0, "g.fits")
    assert read_fits([first, at(0.05, "near.fits")], psf=PSF, variance=1.0).n_bands == 2
    message = r"WCS of g\.fits\[0\] and far\.fits\[0\] disagree by 0\.3 pixels.*0\.1"
    with pytest.raises(ValueError, match=message):
        read_fits([first, at(0.3, "far.fits")], psf=PSF, variance=1.0)
    turned = write(tmp_path / "t.fits", (image(), "", dict(sky(CRVAL1=330.0, CRVAL2=-2.0))))
    with pytest.raises(ValueError, match="disagree by nan"):
        read_fits([first, turned], psf=PSF, variance=1.0)
    with pytest.raises(ValueError, match=r"one shape; g.fits\[0\] has \(9, 14\), .*\(14, 9\)"):
        read_fits([first, at(0.0, "s.fits", ny=NX, nx=NY)], psf=PSF, variance=1.0)
    # A band that does not know its place is believed.
    lost = write(tmp_path / "lost.fits", (image(), "", {}))
    assert read_fits([lost, first], psf=PSF, variance=1.0).header.wcs is not None


def test_bands_that_agree_on_one_side_only(tmp_path):
    """A scale 1 % off: 0.08 pixels at x = 8, 0.13 at the far end."""
    cards = sky(CRPIX1=1.0)
    other = sky(CRPIX1=1.0, CD1_1=cards["CD1_1"] * 1.01)
    paths = [
        write(tmp_path / f"{k}.fits", (image(), "", dict(c))) for k, c in enumerate((cards, other))
    ]
    with pytest.raises(ValueError, match=r"disagree by 0\.1[23]"):
        read_fits(paths, psf=PSF, variance=1.0)


def test_a_broken_map_is_said_and_left_out(tmp_path):
    path = write(
        tmp_path / "a.fits",
        (image(), "", dict(sky(CD1_1=1e-5, CD1_2=1e-5, CD2_1=2e-5, CD2_2=2e-5))),
    )
    with pytest.warns(UserWarning, match=r"the WCS of a\.fits cannot be used"):
        assert read_fits(path, psf=PSF[0], variance=1.0).header.wcs is None


def test_psf_from_files(tmp_path):
    expected = PSF / PSF.sum(axis=(1, 2), keepdims=True)
    path = write(tmp_path / "a.fits", (cube(), "", {}))
    forms = [
        write(tmp_path / "cube.fits", (PSF, "", {})),
        write(tmp_path / "parts.fits", (PSF[0], "PSF_G", {}), (PSF[1], "PSF_R", {})),
        write(tmp_path / "other.fits", (PSF[0], "G", {}), (PSF[1], "R", {})),
        [
            write(tmp_path / "g.psf.fits", (PSF[0], "", {})),
            str(write(tmp_path / "r.psf.fits", (PSF[1], "", {}))),
        ],
    ]
    for form in forms:
        made = read_fits(path, psf=form, variance=1.0)
        np.testing.assert_allclose(made.psf.image, expected, rtol=1e-6)
    both = write(tmp_path / "b.fits", (cube(), "IMAGE", {}), (PSF, "PSF", {}))
    np.testing.assert_allclose(read_fits(both, variance=1.0).psf.image, expected, rtol=1e-6)


def test_psfs_of_different_sizes_keep_their_centre(tmp_path):
    wide = np.pad(PSF[1], ((2, 2), (3, 3)))
    paths = [
        write(tmp_path / "g.fits", (PSF[0], "", {})),
        write(tmp_path / "r.fits", (wide, "", {})),
    ]
    stamps = read_psf(paths)
    assert stamps.shape == (2, 7, 9)
    np.testing.assert_array_equal(stamps[0], np.pad(PSF[0], ((2, 2), (3, 3))))
    even = write(tmp_path / "e.fits", (np.ones((4, 5)), "", {}))
    with pytest.raises(ValueError, match=r"`psf` needs odd height and width; got \(4, 5\)"):
        read_psf([paths[0], even])


def test_psf_refused(tmp_path):
    path = write(tmp_path / "a.fits", (cube(), "", {}))
    with pytest.raises(ValueError, match="`psf` is missing"):
        read_fits(path, variance=1.0)
    assert read_fits(path, variance=1.0, needs_psf=False).psf.n_bands == 2
    with pytest.raises(ValueError, match=r"`psf` needs shape \(2, h, w\)"):
        read_fits(path, variance=1.0, psf=PSF[0])
    even = write(tmp_path / "e.fits", (np.ones((2, 4, 4)), "", {}))
    with pytest.raises(ValueError, match="`psf` needs odd height and width"):
        read_fits(path, variance=1.0, psf=even)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.fits").write_bytes(b"")
    (tmp_path / "text.fits").write_text("not a FITS file" * 500)
    table = fits.BinTableHDU.from_columns([fits.Column("id", "K", array=[1, 2])])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    write(tmp_path / "line.fits", (np.ones(5), "", {}))
    write(tmp_path / "noise.fits", (np.ones((NY, NX)), "VARIANCE", {}))
    cases = {
        "absent.fits": "there is no file",
        "empty.fits": "cannot be read as FITS",
        "text.fits": "cannot be read as FITS",
        "table.fits": "holds no image of 2 or 3 axes",
        "line.fits": "holds no image of 2 or 3 axes",
        "noise.fits": r"holds no image, only \['noise\.fits\[VARIANCE\]'\]",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=rf"(?=.*{re.escape(name)}).*{message}"):
            read_fits(tmp_path / name, psf=PSF)
    with pytest.raises(ValueError, match="there is no file"):
        read_fits(tmp_path, psf=PSF)
    for paths in ([], 3, None):
        with pytest.raises((ValueError, TypeError), match="paths"):
            read_fits(paths, psf=PSF)


def test_a_url_is_not_downloaded():
    with pytest.raises(ValueError, match="there is no file"):
        read_fits("http://example.com/a.fits", psf=PSF)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_a_file_cut_anywhere_is_refused(tmp_path, place):
    """Anywhere but between two HDUs, where what is left is a file of its own."""
    whole = tmp_path / "whole.fits"
    if not whole.exists():
        layout = (image(ny=40, nx=60), "IMAGE", {}), (image(ny=40, nx=60) + 1, "VARIANCE", {})
        write(whole, *layout, (np.zeros((40, 60), "i2"), "MASK", {}))
    content = whole.read_bytes()
    with fits.open(whole) as hdus:
        starts = [hdu._header_offset for hdu in hdus]
    place %= len(content)
    cut = tmp_path / "cut.fits"
    cut.write_bytes(content[: place + (place in starts)])
    with pytest.raises(ValueError, match=r"cut\.fits"):
        read_fits(cut, psf=PSF[0])


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_refused_or_read(tmp_path, place, value):
    """No other exception than ValueError, whatever is wrong in a header."""
    whole = tmp_path / "whole.fits"
    if not whole.exists():
        write_fits(full_exposure(), whole)
    content = bytearray(whole.read_bytes())
    with fits.open(whole) as hdus:
        headers = [k for hdu in hdus for k in range(hdu._header_offset, hdu._data_offset)
                   if content[k] != 32]  # fmt: skip
    content[headers[place % len(headers)]] = value
    path = tmp_path / "damaged.fits"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        read_fits(path)


def test_cut_compressed_file(tmp_path):
    write_fits(full_exposure(), tmp_path / "a.fits.gz")
    content = (tmp_path / "a.fits.gz").read_bytes()
    (tmp_path / "b.fits.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"b\.fits\.gz"):
        read(tmp_path / "b.fits.gz")


def test_dispatch(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be one \.npz file, or FITS.*'a\.asdf'"):
        read("a.asdf")
    with pytest.raises(ValueError, match="`path` must be one"):
        read(["a.npz", "b.npz"])
    paths = [write(tmp_path / f"{b}.fit", (image(k), "", {})) for k, b in enumerate("gr")]
    np.testing.assert_array_equal(read(paths, psf=PSF, variance=1.0).image, cube())


def test_real_hsc_cube():
    made = read(real("Cut_HSC.fits"), psf=real("PSF_HSC.fits"), bands=["g", "r", "i", "z", "y"])
    assert made.image.shape == (5, 50, 50)
    assert made.psf.image.shape == (5, 31, 31)
    assert made.header.pixel_scale == pytest.approx(0.168, abs=1e-4)
    np.testing.assert_array_equal(made.image, fits.getdata(real("Cut_HSC.fits")).astype("f4"))
    assert np.asarray(made.good).all()


def test_real_hst_image():
    made = read(real("Cut_HST.fits"), psf=real("PSF_HST.fits"), bands="F814W")
    assert made.image.shape == (1, 250, 250)
    assert made.header.pixel_scale == pytest.approx(0.03, abs=1e-4)


def test_real_ccd_images():
    """Unsigned integers; 60 seconds unfiltered, so that two files need names."""
    paths = [real(f"aligned_eso085-030-{k}.fit") for k in ("004", "005")]
    made = read(paths, psf=np.ones((2, 3, 3)), bands=["reference", "new"])
    assert made.shape == (682, 1024)
    assert float(made.image.max()) > 2**15
    assert made.header.exposure_time == 60
    assert made.header.date == "2015-12-27T06:26:24"


def test_real_image_with_an_odd_header():
    """Cards that astropy finds wrong, and axes that are no sky."""
    made = read(real("sep_image.fits"), psf=np.ones((3, 3)))
    assert made.shape == (256, 256)
    assert made.header.wcs is None
    assert 40 < float(made.variance[0, 0, 0]) ** 0.5 < 100
