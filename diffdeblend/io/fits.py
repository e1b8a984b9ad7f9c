"""Exposures from FITS files and back."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Array, Real

from diffdeblend.exposure import Exposure, Numbers
from diffdeblend.files import are_paths, as_paths, whole_file
from diffdeblend.io import hdus
from diffdeblend.io.layers import Layer, chosen, combined, per_band
from diffdeblend.io.noise import VARIANCE_KINDS
from diffdeblend.io.stamps import psf_images, stacked_stamps
from diffdeblend.psf import AbstractPSF

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def read_fits(
    paths: Paths,
    *,
    psf: AbstractPSF | np.ndarray | Array | Paths | None = None,
    bands: Sequence[str] | str | None = None,
    variance: Any = None,
    variance_kind: str = "variance",
    mask: Any = None,
    mask_planes: Sequence[str] | None = None,
    excluded: Sequence[str] | None = None,
    unit: str | None = None,
    zero_points: Numbers | None = None,
    gain: SupportsFloat | None = None,
    needs_psf: bool = True,
) -> Exposure:
    """An exposure from FITS files.

    - `paths`: one file per band, or one file of all bands: a cube, or extensions IMAGE (or SCI),
        VARIANCE (or VAR, IVAR, ERR, WHT), MASK (or DQ) and PSF, each a cube or one per band
        (IMAGE_G, VARIANCE_G). Files of the LSST pipelines are of this form; where their
        pixels begin, `read_afw_origin` says.
    - `psf`: a PSF, its image in each band, or FITS files of it (see `read_psf`); needed unless
        the file has extensions PSF.
    - `bands`: names; those of one file choose from it. Default: from FILTER or BAND, or from a
        table FilterLabel.
    - `variance`: array or files, one plane per band, instead of the one in the file.
    - `variance_kind`: what `variance` holds, `"variance"`, `"rms"`, `"ivar"` or `"weight"`
        (Source Extractor's MAP_WEIGHT); see `as_variance`.
    - `mask`: array or files, booleans or bit planes, instead of the one in the file.
    - `mask_planes`, `excluded`: as in `make_exposure`; default: from MP_<name> cards. In a FITS
        mask without names that holds only 0 and 1, 1 is bad.
    - `unit`: to which the image is brought, through the zero point if need be. Default: as it
        is. Empty: numbers as they are, whatever BUNIT says.
    - `zero_points`: AB magnitude of one unit of the file's flux. Default: from MAGZERO, MAGZPT,
        MAGZP, ZP, PHOTZP or FLUXMAG0, or from a table PhotoCalib, or from BUNIT.
    - `gain`: electrons per unit of the file's flux. Default: from GAIN, where BUNIT allows.
    - `needs_psf`: whether it is an error if there is no PSF anywhere; else the exposure gets one as
        wide as a pixel, which only holds its place.

    Without any variance it is estimated: the sky's noise, constant over the image, and the
    photon noise of the sources where the gain is known (`estimated_variance`). Pixels at or above
    SATURATE are put on the plane SAT.

    **Raises:** `ValueError` if a file cannot be read or has no image, bands differ in shape or
    by more than 0.1 pixels on the sky, a unit does not convert, or `make_exposure` refuses.
    """
    files = as_paths(paths)
    if variance_kind not in VARIANCE_KINDS:
        raise ValueError(f"`variance_kind` must be one of {VARIANCE_KINDS}; got {variance_kind!r}.")
    # A file holds the bands of all names only if it is the only one.
    asked = bands if len(files) == 1 else None
    opened = [hdus.open_fits(path) for path in files]
    found = [layer for file in opened for layer in hdus.layers_of(file, asked)]
    places, names = chosen([layer.name for layer in found], bands, one_file=len(files) == 1)
    layers = [replace(found[k], name=name) for k, name in zip(places, names, strict=True)]
    if variance is not None:
        noise = _planes("variance", variance, hdus.NOISE_ROLES, len(layers))
        layers = [
            replace(layer, noise=_spread(plane, layer), noise_kind=variance_kind)
            for layer, (plane, _) in zip(layers, noise, strict=True)
        ]
    if mask is not None:
        flags = _planes("mask", mask, hdus.MASK_ROLES, len(layers))
        layers = [
            replace(
                layer,
                mask=plane if part is None else hdus.as_bits(plane, part),
                planes=None if part is None else hdus.named_planes(part.header),
            )
            for layer, (plane, part) in zip(layers, flags, strict=True)
        ]
    if mask_planes is None and (mask is None or are_paths(mask)):
        layers = hdus.with_flags(layers)
    if excluded is None:
        excluded = _excluded(opened)
    return combined(
        layers,
        psf=read_psf(psf) if are_paths(psf) else psf,  # type: ignore[arg-type]
        unit=unit,
        zero_points=zero_points,
        gain=gain,
        mask_planes=mask_planes,
        excluded=excluded,
        needs_psf=needs_psf,
    )


def read_psf(paths: Paths) -> Real[np.ndarray, "band h w"]:
    """Images of a PSF from FITS files: a file per band, or a cube, or an extension per band.

    Odd stamps of different sizes are padded with zeros to the largest.

    **Raises:** `ValueError` if a file cannot be read, or sizes differ and one is even.
    """
    planes = [
        plane
        for path in as_paths(paths)
        for plane, _ in hdus.flat_planes(hdus.open_fits(path), hdus.PSF_ROLES)
    ]
    return stacked_stamps(planes)


def write_fits(exposure: Exposure, path: str | os.PathLike) -> None:
    """Write an exposure as a FITS file of extensions IMAGE, VARIANCE, MASK and PSF.

    `read_fits` reads the same exposure back; a PSF that is not a `PixelPSF` comes back as one. The
    file appears whole or not at all, and replaces one that is there.

    **Raises:** `ValueError` if a name cannot stand in a FITS header, or the exposure has a
    `noise_correlation`, which only `write_npz` keeps.
    """
    from astropy.io import fits

    if exposure.noise_correlation is not None:
        # Left out in silence, errors would come out too small later.
        raise ValueError(
            "`exposure` has a `noise_correlation`, which a FITS file has no place for here; use "
            "`write_npz`, or write `exposure.with_noise_correlation(None)`."
        )
    header = exposure.header
    cards = fits.Header()
    tables: list[Any] = []
    if header.wcs is not None:
        maps = wcs_hdus(header.wcs)
        cards.update(maps[0].header)
        tables = list(maps[1:])
    values: dict[str, Any] = {"BUNIT": header.unit}
    for k, band in enumerate(exposure.bands, start=1):
        values[f"BAND{k}"] = _writable("bands", band)
        if header.zero_points is not None:
            values[f"MAGZP{k}"] = header.zero_points[k - 1]
    values |= {
        "EFFGAIN": header.gain,
        "RDNOISE": header.read_noise,
        "SATURATE": header.saturation,
        "EXPTIME": header.exposure_time,
        "DATE-OBS": None if header.date is None else _writable("date", header.date),
        "PIXSCALE": header.pixel_scale,
    }
    cards.update({key: value for key, value in values.items() if value is not None})
    planes = fits.Header()
    for bit, plane in enumerate(header.mask_planes):
        # HIERARCH said outright: astropy warns where it adds it to a long keyword.
        planes[f"MP_{plane}" if len(plane) <= 5 else f"HIERARCH MP_{plane}"] = bit
    planes["EXCLUDED"] = ",".join(header.excluded)
    parts = [
        fits.PrimaryHDU(),
        fits.ImageHDU(np.asarray(exposure.image), cards, name="IMAGE"),
        fits.ImageHDU(np.asarray(exposure.variance), name="VARIANCE"),
        fits.ImageHDU(np.asarray(exposure.mask), planes, name="MASK"),
        fits.ImageHDU(psf_images(exposure.psf), name="PSF"),
        *tables,
    ]
    with whole_file(path) as temporary:
        fits.HDUList(parts).writeto(temporary)


def wcs_hdus(wcs: Any) -> Any:
    """Header cards of a WCS, as the first of a list of HDUs; tables of distortion follow."""
    maps = wcs.to_fits(relax=True)
    # The keywords that describe the empty image they come with.
    for key in ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "DATE-OBS", "MJD-OBS"):
        maps[0].header.remove(key, ignore_missing=True)
    return maps


def _writable(name: str, value: str) -> str:
    """The text, if FITS gives it back: not beyond ASCII, with a space at its end, or '/ in it."""
    from astropy.io.fits import Card

    try:
        back = Card.fromstring(str(Card("TEXT", value))).value
    except ValueError:
        back = None
    if back != value:
        raise ValueError(f"`{name}` must be text that a FITS header can hold; got {value!r}.")
    return value


def _planes(
    name: str, value: Any, roles: Sequence[str], n_bands: int
) -> list[tuple[np.ndarray, hdus.Part | None]]:
    """An argument that is an array or files, as one plane per band, with its part of the file."""
    if not are_paths(value):
        return [(plane, None) for plane in per_band(name, value, n_bands)]
    planes = [
        plane for path in as_paths(value) for plane in hdus.flat_planes(hdus.open_fits(path), roles)
    ]
    if len(planes) == 1 and name == "mask":
        planes = planes * n_bands
    if len(planes) != n_bands:
        raise ValueError(
            f"`{name}` needs one plane for each of {n_bands} bands; the files hold {len(planes)}."
        )
    return list(planes)


def _spread(plane: np.ndarray, layer: Layer) -> np.ndarray:
    """One number as an image of it."""
    return np.broadcast_to(plane, layer.image.shape) if np.ndim(plane) == 0 else plane


def _excluded(opened: Sequence[hdus.Opened]) -> tuple[str, ...] | None:
    """The planes that `write_fits` noted as not used."""
    noted = [
        str(part.header["EXCLUDED"])
        for file in opened
        for part in file.parts
        if part.role in hdus.MASK_ROLES and "EXCLUDED" in part.header
    ]
    return tuple(name for name in noted[0].split(",") if name) if noted else None
