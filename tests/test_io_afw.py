"""Exposures as the LSST pipelines write them."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from diffdeblend.io import read, read_afw_origin, read_fits

NY, NX = 23, 37
X0, Y0 = 1200, 340
PLANES = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "CROSSTALK": 10,
    "UNMASKEDNAN": 13,
}
PSF = np.outer([1, 3, 1], [1, 4, 2]).astype(float)


def pixels(seed=0):
    random = np.random.default_rng(seed)
    image = random.normal(100, 5, (NY, NX)).astype(np.float32)
    variance = random.uniform(20, 30, (NY, NX)).astype(np.float32)
    mask = (1 << random.choice(list(PLANES.values()), (NY, NX))).astype(np.int32)
    return image, mask, variance


def sky():
    """A map with distortions, as it stands for the pixels of the file."""
    cards = fits.Header()
    cards.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CUNIT1": "deg"})
    cards.update({"CUNIT2": "deg", "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 2000.0 - X0})
    cards.update({"CRPIX2": 1000.0 - Y0, "CD1_1": -4.6e-5, "CD1_2": 1e-6, "CD2_1": 1e-6})
    cards.update({"CD2_2": 4.7e-5, "A_ORDER": 2, "A_2_0": 1e-6, "B_ORDER": 2, "B_0_2": -2e-6})
    # The same pixels by their numbers in the whole image.
    cards.update({"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRPIX2A": 1.0})
    cards.update({"CRVAL1A": X0, "CRVAL2A": Y0, "CUNIT1A": "PIXEL", "CUNIT2A": "PIXEL"})
    cards.update({"LTV1": -X0, "LTV2": -Y0})
    return cards


def table(extension, /, **columns):
    """One of the binary tables that follow the image."""
    made = [
        fits.Column(name=key, format=kind, array=np.array([value]))
        for key, (kind, value) in columns.items()
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=extension)
    hdu.header["AR_NAME"] = extension
    return hdu


def write_afw(path, compress=True, old=False, photo=(0.35, 0), bunit=None, label=True, **cards):
    """A calibrated exposure: primary header, three planes, and an archive of tables."""
    image, mask, variance = pixels()
    names = fits.Header()
    for plane, bit in PLANES.items():
        names[f"HIERARCH MP_{plane}" if len(plane) > 5 else f"MP_{plane}"] = bit
    primary = fits.PrimaryHDU()
    primary.header.update({"AR_HDU": 5, "EXPTIME": 30.0, "DATE-OBS": "2025-05-06T01:02:03"} | cards)
    kind = fits.CompImageHDU if compress else fits.ImageHDU
    hdus = [primary]
    for name, plane, own in (
        ("IMAGE", image, fits.Header()),
        ("MASK", mask, names),
        ("VARIANCE", variance, fits.Header()),
    ):
        header = sky()
        header.update(own)
        if name == "IMAGE" and bunit:
            header["BUNIT"] = bunit
        if old:
            header["EXTTYPE"] = name
        options = {"compression_type": "GZIP_2", "quantize_level": 0} if compress else {}
        hdu = kind(plane, header, **options)
        if not old:
            hdu.name = name
        hdus.append(hdu)
    hdus.append(table("ARCHIVE_INDEX", id=("J", 1), name=("20A", "PhotoCalib")))
    if photo is not None:
        mean, field = photo
        hdus.append(
            table(
                "PhotoCalib",
                calibrationMean=("D", mean),
                calibrationErr=("D", 0.01),
                field=("J", field),
            )
        )
    if label:
        hdus.append(table("FilterLabel", band=("5A", "r"), physical=("10A", "HSC-R")))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_an_exposure_comes_in_whole(tmp_path, compress, old):
    path = write_afw(tmp_path / "calexp.fits", compress, old)
    made = read(path, psf=PSF)
    image, mask, variance = pixels()
    np.testing.assert_array_equal(made.image[0], image)
    np.testing.assert_array_equal(made.variance[0], variance)
    np.testing.assert_array_equal(made.mask[0], mask)
    for plane, bit in PLANES.items():
        assert made.plane_bits[plane] == bit
        np.testing.assert_array_equal(made.flag(plane)[0], mask == 1 << bit)
    unused = np.isin(mask, [1 << PLANES[plane] for plane in ("BAD", "SAT", "CR", "NO_DATA")])
    np.testing.assert_array_equal(made.good[0], ~unused)
    assert made.bands == ("r",)
    assert made.header.exposure_time == 30
    np.testing.assert_allclose(made.psf.image[0], PSF / PSF.sum(), rtol=1e-6)


def test_its_map_is_that_of_the_pixels_of_the_file(tmp_path):
    made = read(write_afw(tmp_path / "calexp.fits"), psf=PSF)
    x, y = np.array([0.0, 30.0]), np.array([5.0, 20.0])
    wanted = WCS(sky()).pixel_to_world_values(x, y)
    np.testing.assert_allclose(made.header.wcs.pixel_to_world_values(x, y), wanted, atol=1e-12)


def test_positions_of_the_whole_image_begin_elsewhere(tmp_path):
    assert read_afw_origin(write_afw(tmp_path / "calexp.fits")) == (X0, Y0)
    plain = tmp_path / "plain.fits"
    fits.writeto(plain, np.ones((4, 5)))
    assert read_afw_origin(plain) == (0, 0)


def test_the_zero_point_is_that_of_the_archive(tmp_path):
    made = read(write_afw(tmp_path / "calexp.fits"), psf=PSF)
    # 1 nJy is 31.4 mag.
    np.testing.assert_allclose(made.header.zero_points, [31.4 - 2.5 * np.log10(0.35)], atol=1e-3)
    calibrated = read(write_afw(tmp_path / "b.fits", photo=(1.0, 0), bunit="nJy"), psf=PSF)
    np.testing.assert_allclose(calibrated.header.zero_points, [31.4], atol=1e-3)
    # What a card of the header says goes before.
    stated = read(write_afw(tmp_path / "c.fits", FLUXMAG0=1e11), psf=PSF)
    np.testing.assert_allclose(stated.header.zero_points, [27.5])
    assert read(write_afw(tmp_path / "d.fits", photo=None), psf=PSF).header.zero_points is None


def test_a_calibration_that_varies_is_told_of(tmp_path):
    path = write_afw(tmp_path / "calexp.fits", photo=(0.35, 7))
    with pytest.warns(UserWarning, match="varies over the image; its mean is used"):
        read(path, psf=PSF)


def test_the_filter_of_the_header_goes_before_that_of_the_archive(tmp_path):
    assert read(write_afw(tmp_path / "a.fits", FILTER="HSC-R2"), psf=PSF).bands == ("HSC-R2",)
    bare = read_fits(write_afw(tmp_path / "b.fits", label=False), psf=PSF, bands="r")
    assert bare.bands == ("r",)


def test_without_a_psf_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="PSF"):
        read(write_afw(tmp_path / "calexp.fits"))


def test_bands_of_several_files_are_one_exposure(tmp_path):
    paths = [write_afw(tmp_path / f"{band}.fits", FILTER=band) for band in "gri"]
    made = read(paths, psf=np.stack([PSF] * 3))
    assert made.bands == ("g", "r", "i")
    assert made.image.shape == (3, NY, NX)
    assert made.plane_bits["UNMASKEDNAN"] == 13
