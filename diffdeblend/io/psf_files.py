"""PSFs that vary over the image, in and out of FITS files."""

import os
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.files import whole_file
from diffdeblend.io.fits import read_psf
from diffdeblend.polynomials import chebyshev_design, n_terms
from diffdeblend.psf import AbstractPSF, PixelPSF, PSFBasis, psf_basis_from_images

_COEFFICIENTS, _NODES, _PSFEX = "COEFFICIENTS", "NODES", "PSF_DATA"
# PSFEx resamples with this kernel: Bertin (2011), ASPC 442, 435.
_LANCZOS = 4


def read_varying_psf(path: str | os.PathLike, shape: tuple[int, int] | None = None) -> AbstractPSF:
    """A PSF from a FITS file, varying or not.

    Told apart by their extensions: what `write_psf_basis` wrote; a `.psf` file of PSFEx; images at
    nodes (the primary images, `(n, h, w)` or `(n, band, h, w)`, and a table NODES with columns x
    and y); or else, as `read_psf`, one image a band.

    - `shape`: pixels of the image (ny, nx) over which it varies; needed for PSFEx and nodes, whose
        files do not say.

    **Raises:** `ValueError` if the file is none of these, or `shape` is missing, or another one.
    """
    from astropy.io import fits

    path = os.fspath(path)
    try:
        with fits.open(path, memmap=False) as opened:
            hdus: Any = opened
            names = {hdu.name for hdu in hdus}
            for name, reader in (
                (_COEFFICIENTS, _from_basis),
                (_PSFEX, _from_psfex),
                (_NODES, _from_nodes),
            ):
                if name in names:
                    return reader(hdus, path, shape)
    except OSError as error:
        raise ValueError(f"`path` cannot be read as FITS: {path} ({error}).") from error
    return PixelPSF(read_psf(path))


def is_varying(path: str | os.PathLike) -> bool:
    """Whether a FITS file holds a PSF that varies; False for a file that cannot be read."""
    from astropy.io import fits

    try:
        with fits.open(os.fspath(path), memmap=False) as opened:
            hdus: Any = opened
            return any(hdu.name in (_COEFFICIENTS, _PSFEX, _NODES) for hdu in hdus)
    except OSError:
        return False


def write_psf_basis(psf: PSFBasis, path: str | os.PathLike) -> None:
    """Write a varying PSF: its images, `(band, basis, h, w)`, and extension COEFFICIENTS.

    `read_varying_psf` reads it back. The file appears whole or not at all, and replaces one that
    is there.
    """
    with whole_file(path) as temporary:
        basis_hdus(psf).writeto(temporary)


def basis_hdus(psf: PSFBasis) -> Any:
    """A varying PSF as a list of HDUs, as `write_psf_basis` writes it."""
    from astropy.io import fits

    images = fits.PrimaryHDU(np.asarray(psf.images))
    coefficients = fits.ImageHDU(np.asarray(psf.coefficients), name=_COEFFICIENTS)
    coefficients.header["IMSIZEX"] = psf.shape[1], "pixels of the image along x"
    coefficients.header["IMSIZEY"] = psf.shape[0], "pixels of the image along y"
    coefficients.header["DEGREE"] = psf.degree, "T_i(u) T_j(v), i + j <= DEGREE"
    coefficients.header.add_comment(
        "PSF(x, y) = sum_k a_k p_k / sum_k a_k sum(p_k); order of terms: (i, j) = (0, 0), (1, 0), "
        "(0, 1), (2, 0), (1, 1), (0, 2), ...; u, v run over -1..1 between the centres of the "
        "first and last pixel"
    )
    return fits.HDUList([images, coefficients])


def _from_basis(hdus: Any, path: str, shape: tuple[int, int] | None) -> PSFBasis:
    header = hdus[_COEFFICIENTS].header
    try:
        written = int(header["IMSIZEY"]), int(header["IMSIZEX"])
        degree = int(header["DEGREE"])
    except KeyError as error:
        raise ValueError(f"`path` lacks a keyword of a PSF basis: {path} ({error}).") from error
    if shape is not None and tuple(shape) != written:
        raise ValueError(f"`path` has a PSF for an image of {written} pixels, not {shape}: {path}.")
    return PSFBasis(hdus[0].data, hdus[_COEFFICIENTS].data, written, degree)


def _from_nodes(hdus: Any, path: str, shape: tuple[int, int] | None) -> PSFBasis:
    table = hdus[_NODES].data
    columns = {name.lower(): name for name in table.names}
    if not {"x", "y"} <= columns.keys() or hdus[0].data is None:
        raise ValueError(
            f"`path` needs images and, in {_NODES}, columns x and y; got {table.names}: {path}."
        )
    x, y = (np.asarray(table[columns[axis]], float) for axis in "xy")
    return psf_basis_from_images(hdus[0].data, x, y, _known(shape, path))


def _from_psfex(hdus: Any, path: str, shape: tuple[int, int] | None) -> PSFBasis:
    r"""PSFEx: $\sum_{ij} X^i Y^j \phi_{ij}$, $X = (x - x_0)/s_x$, positions from 1."""
    hdu = hdus[_PSFEX]
    cards = hdu.header
    degree = _psfex_degree(cards, path)
    try:
        step = float(cards["PSF_SAMP"])
        masks = np.asarray(hdu.data["PSF_MASK"][0], float)
    except KeyError as error:
        raise ValueError(f"`path` lacks a part of a PSFEx file: {path} ({error}).") from error
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3 or len(masks) != n_terms(degree) or not step > 0:
        raise ValueError(
            f"`path` has PSF_MASK of shape {masks.shape} for degree {degree} and PSF_SAMP {step}: "
            f"{path}."
        )
    shape = _known(shape, path)
    images = _at_pixels(masks, step)
    if degree == 0:
        return PSFBasis(images[None], np.ones((1, 1, 1)), shape, 0)
    origin, scale = (
        [float(cards[f"{key}{axis}"]) for axis in (1, 2)] for key in ("POLZERO", "POLSCAL")
    )
    # A polynomial is the same in either basis: solved at more points than it has terms.
    x, y = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape[::-1])))
    u, v = (x + 1 - origin[0]) / scale[0], (y + 1 - origin[1]) / scale[1]
    powers = [u**i * v**j for j in range(degree + 1) for i in range(degree + 1 - j)]
    design = chebyshev_design(x, y, shape, degree)
    coefficients = np.linalg.lstsq(design, np.stack(powers, axis=1), rcond=None)[0].T
    return PSFBasis(images[None], coefficients[None], shape, degree)


def _psfex_degree(cards: Any, path: str) -> int:
    if int(cards.get("POLNAXIS", 0)) == 0:
        return 0
    names = [str(cards.get(f"POLNAME{axis}", "")) for axis in (1, 2)]
    right = names[0].startswith("X") and names[1].startswith("Y")
    right = right and all(name.endswith("_IMAGE") for name in names)
    groups = [cards.get(key, 1) for key in ("POLNGRP", "POLGRP1", "POLGRP2")]
    if cards["POLNAXIS"] != 2 or not right or groups != [1, 1, 1]:
        raise ValueError(
            "`path` must be a PSFEx file whose PSF depends on X_IMAGE and Y_IMAGE, in one group; "
            f"got {cards['POLNAXIS']} axes {names} in {groups[0]} groups: {path}."
        )
    return int(cards["POLDEG1"])


def _at_pixels(
    masks: Float[np.ndarray, "term h w"], step: float
) -> Float[np.ndarray, "term h2 w2"]:
    """Images sampled every `step` pixels, at the pixels, by Lanczos interpolation."""
    if step == 1:
        return masks
    along = []
    for length in masks.shape[1:]:
        half = int(((length - 1) // 2) * step)
        # A pixel that is `offset` from the centre lies at this place among the samples.
        place = (length - 1) // 2 + np.arange(-half, half + 1) / step
        distance = place[:, None] - np.arange(length)
        kernel = np.sinc(distance) * np.sinc(distance / _LANCZOS)
        kernel = np.where(np.abs(distance) < _LANCZOS, kernel, 0)
        along.append(kernel / kernel.sum(axis=1, keepdims=True))
    return along[0] @ masks @ along[1].T


def _known(shape: tuple[int, int] | None, path: str) -> tuple[int, int]:
    if shape is None:
        raise ValueError(
            f"`shape` of the image, (ny, nx), is needed: the file of this PSF lacks it: {path}."
        )
    return int(shape[0]), int(shape[1])
