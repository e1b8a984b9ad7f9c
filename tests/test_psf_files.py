"""PSFs that vary over the image, in files."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from diffdeblend.io import read_varying_psf, write_psf_basis
from diffdeblend.psf import PixelPSF, PSFBasis

SHAPE = (120, 210)


def write_psfex(path, masks, step, degree, **cards):
    """The format of PSFEx, after its manual: one row, terms 1, x, x^2, y, xy, y^2 for degree 2."""
    column = fits.Column(
        "PSF_MASK", f"{masks.size}E", dim=str(masks.shape[::-1]), array=masks[None].astype("f4")
    )
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(
        {
            "POLNAXIS": 2,
            "POLGRP1": 1,
            "POLNAME1": "X_IMAGE",
            "POLZERO1": 103.0,
            "POLSCAL1": 190.0,
            "POLGRP2": 1,
            "POLNAME2": "Y_IMAGE",
            "POLZERO2": 66.0,
            "POLSCAL2": 101.0,
            "POLNGRP": 1,
            "POLDEG1": degree,
            "PSF_SAMP": step,
            "PSFNAXIS": 3,
            "PSFAXIS1": masks.shape[2],
            "PSFAXIS2": masks.shape[1],
            "PSFAXIS3": masks.shape[0],
            **cards,
        }
    )
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def masks(step, size=(41, 51)):
    """A Gaussian that widens along x and y, and turns; samples at `step` pixels."""
    y, x = (np.mgrid[: size[0], : size[1]] - np.array([s // 2 for s in size])[:, None, None]) * step
    base = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    terms = (1.0, 0.1 * x**2, 0.01 * y**2, -0.05 * y**2, 0.08 * x * y, 0.02 * (x**2 - y**2))
    return np.stack([base * term for term in terms])


@pytest.mark.parametrize("step", [1.0, 0.5, 0.7])
def test_psfex_is_read_as_galsim_reads_it(tmp_path, step):
    galsim = pytest.importorskip("galsim")
    des = pytest.importorskip("galsim.des")
    path = write_psfex(tmp_path / "stars.psf", masks(step), step, 2)
    psf = read_varying_psf(path, SHAPE)
    assert isinstance(psf, PSFBasis)
    theirs = des.DES_PSFEx(str(path))
    height, width = psf.images.shape[2:]
    for x, y in [(0.0, 0.0), (209.0, 3.0), (77.3, 111.9)]:
        wanted = theirs.getPSF(galsim.PositionD(x + 1, y + 1))
        # Counts of pixels from 1, as the keywords have them.
        image = wanted.drawImage(nx=width, ny=height, scale=1.0, method="no_pixel").array
        ours = psf.images_at(x, y)[0]
        # GalSim interpolates with a narrower kernel.
        np.testing.assert_allclose(ours, image / image.sum(), atol=5e-3 * ours.max())
        u, v = (x + 1 - 103) / 190, (y + 1 - 66) / 101
        truth = np.tensordot([1, u, u * u, v, u * v, v * v], masks(1.0, (height, width)), 1)
        np.testing.assert_allclose(ours, truth / truth.sum(), atol=2e-3 * ours.max())


def test_psfex_without_variation(tmp_path):
    path = write_psfex(tmp_path / "one.psf", masks(1.0)[:1], 1.0, 0, POLNAXIS=0)
    psf = read_varying_psf(path, SHAPE)
    wanted = masks(1.0)[0] / masks(1.0)[0].sum()
    np.testing.assert_allclose(psf.images_at(3.0, 100.0)[0], wanted, atol=1e-6)


def test_a_basis_comes_back(tmp_path):
    images = np.random.default_rng(0).uniform(0.1, 1, size=(2, 3, 5, 7))
    coefficients = np.random.default_rng(1).uniform(-0.1, 0.1, size=(2, 3, 6))
    coefficients[:, 0, 0] = 2.0
    psf = PSFBasis(images, coefficients, SHAPE, 2)
    path = tmp_path / "basis.fits"
    path.write_text("replaced")
    write_psf_basis(psf, path)
    back = read_varying_psf(path)
    assert (back.shape, back.degree) == (SHAPE, 2)
    np.testing.assert_array_equal(back.images, psf.images)
    np.testing.assert_array_equal(back.coefficients, psf.coefficients)
    with pytest.raises(ValueError, match=r"for an image of \(120, 210\) pixels, not \(9, 9\)"):
        read_varying_psf(path, (9, 9))


def test_images_at_nodes(tmp_path):
    terms = masks(1.0, (15, 17))
    x, y = (v.ravel() for v in np.meshgrid([5.0, 100, 200], [3.0, 60, 110]))
    stamps = np.stack([terms[0] + a / 400 * terms[1] for a in x])
    path = tmp_path / "nodes.fits"
    nodes = fits.BinTableHDU(Table({"X": x, "Y": y}), name="NODES")
    fits.HDUList([fits.PrimaryHDU(stamps), nodes]).writeto(path)
    psf = read_varying_psf(path, SHAPE)
    np.testing.assert_allclose(
        psf.images_at(200.0, 60.0)[0], stamps[5] / stamps[5].sum(), atol=2e-3 * 0.07
    )
    with pytest.raises(ValueError, match="`shape` of the image"):
        read_varying_psf(path)


def test_one_image(tmp_path):
    fits.PrimaryHDU(masks(1.0)[0]).writeto(tmp_path / "psf.fits")
    assert isinstance(read_varying_psf(tmp_path / "psf.fits"), PixelPSF)


def test_what_is_no_psf_is_refused(tmp_path):
    path = write_psfex(tmp_path / "a.psf", masks(1.0), 1.0, 2, POLNAME1="MAG_AUTO")
    with pytest.raises(ValueError, match=r"X_IMAGE and Y_IMAGE.*got 2 axes \['MAG_AUTO'"):
        read_varying_psf(path, SHAPE)
    path = write_psfex(tmp_path / "b.psf", masks(1.0), 1.0, 1)
    with pytest.raises(ValueError, match=r"PSF_MASK of shape \(6, 41, 51\) for degree 1"):
        read_varying_psf(path, SHAPE)
    (tmp_path / "c.psf").write_text("no FITS")
    with pytest.raises(ValueError, match="cannot be read as FITS"):
        read_varying_psf(tmp_path / "c.psf")
