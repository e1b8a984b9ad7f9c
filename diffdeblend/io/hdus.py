"""Which part of a FITS file is what: images, noise, masks and PSFs of its bands."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.exposure import Header
from diffdeblend.io import keywords
from diffdeblend.io.afw_archive import archive_cards
from diffdeblend.io.layers import Layer
from diffdeblend.sky import local_jacobian

_IMAGE = ("IMAGE", "SCI", "DATA")
_MASK = ("MASK", "DQ", "FLAGS")
_PSF = ("PSF",)
# In the order of preference: a weight map is only relative.
_NOISE = {
    "VARIANCE": "variance",
    "VAR": "variance",
    "IVAR": "ivar",
    "INVVAR": "ivar",
    "ERR": "rms",
    "ERROR": "rms",
    "RMS": "rms",
    "STD": "rms",
    "SIGMA": "rms",
    "UNCERT": "rms",
    "WHT": "weight",
    "WEIGHT": "weight",
}
# What astropy's NDData writes beside UNCERT.
_UNCERTAINTIES = {"StdDevUncertainty": "rms", "VarianceUncertainty": "variance"}
_UNCERTAINTIES["InverseVariance"] = "ivar"


@dataclass(frozen=True, eq=False)
class Part:
    """One HDU that holds an image or a cube: its role, its band, its numbers."""

    where: str
    role: str  # one of the names above, or empty
    key: tuple[str, int]  # band and version, which tie an image to its noise and mask
    band: str | None
    header: dict[str, Any]
    cards: Any  # the header as astropy has it, for the WCS
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class Opened:
    """The images of a FITS file, in memory, and its first header, which the others inherit.

    `archive`: what tables behind the images say, as cards; those of headers go before.
    """

    path: Path
    parts: tuple[Part, ...]
    primary: dict[str, Any]
    primary_cards: Any
    hdus: Any  # for the tables of a WCS with look-up distortion
    archive: dict[str, Any]


def open_fits(path: Path) -> Opened:
    """All images and cubes of a FITS file.

    **Raises:** `ValueError` that names the path if there is no such file, it is no FITS file, is
    cut short, or has no image.
    """
    from astropy.io import fits

    if not path.is_file():
        raise ValueError(f"`paths`: there is no file {str(path)!r}.")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # A Path, not a string: astropy would download a string that is a URL.
            with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
                parts = tuple(
                    _part(path, place, hdu)
                    for place, hdu in enumerate(hdus)
                    if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2
                )
                primary_cards: Any = hdus[0].header  # type: ignore[attr-defined]
                primary = _values(primary_cards)
                archive, concern = archive_cards(hdus)
    # Damaged bytes end in almost any exception inside astropy: all mean an unreadable file.
    except Exception as error:
        raise ValueError(f"`paths`: {str(path)!r} cannot be read as FITS: {error}") from error
    for warning in caught:
        # astropy goes on with the HDUs before the damage, and the noise may stand behind it.
        if re.search("truncated|Error validating header", str(warning.message)):
            raise ValueError(f"`paths`: {str(path)!r} is cut short: {warning.message}")
    if concern is not None:
        warnings.warn(f"{path.name}: {concern}", UserWarning, stacklevel=2)
    parts = tuple(part for part in parts if part.data.ndim in (2, 3) and part.data.size > 0)
    if not parts:
        raise ValueError(f"`paths`: {str(path)!r} holds no image of 2 or 3 axes.")
    return Opened(path, parts, primary, primary_cards, hdus, archive)


def layers_of(opened: Opened, bands: Sequence[str] | str | None = None) -> list[Layer]:
    """The bands of a file.

    Images are the extensions IMAGE, SCI or DATA, alone, numbered by EXTVER, or with the name of
    their band (IMAGE_G); or else those named as `bands`; or else the first image of the file. A
    cube has a band a plane. Noise, mask and PSF belong to the image of the same ending.
    """
    layers = []
    images = _images(opened, bands)
    for part in images:
        wcs = _wcs(part, opened)
        noise = next((n for role in _NOISE if (n := _partner(opened, part, (role,)))), None)
        mask = _partner(opened, part, _MASK)
        psf = _partner(opened, part, _PSF)
        cube = part.data if part.data.ndim == 3 else part.data[None]
        planes_of_noise = _split("variance", noise, cube)
        planes_of_mask = _split("mask", mask, cube)
        planes_of_psf = _split("psf", psf, cube)
        for k, image in enumerate(cube):
            own = _cards_of_band(part.header, k + 1)
            headers = (own, part.header, opened.primary, opened.archive)
            # A cube's FILTER cannot be the name of each of its bands.
            name = own.get("FILTER") if len(cube) > 1 else keywords.band_name(headers)
            layers.append(
                Layer(
                    image=image,
                    where=part.where + (f" band {k + 1}" if len(cube) > 1 else ""),
                    headers=headers,
                    name=part.band or name,
                    unit=keywords.unit(headers),
                    wcs=wcs,
                    noise=planes_of_noise[k],
                    noise_kind="variance" if noise is None else _noise_kind(noise),
                    mask=None if mask is None else as_bits(planes_of_mask[k], mask),
                    planes=None if mask is None else named_planes(mask.header),
                    psf=planes_of_psf[k],
                )
            )
    return layers


def flat_planes(opened: Opened, roles: Sequence[str]) -> list[tuple[np.ndarray, Part]]:
    """All planes of a file of noise, masks or PSFs: of the extensions so named, or else of all."""
    named = [part for part in opened.parts if part.role in roles]
    return [
        (plane, part)
        for part in named or opened.parts
        for plane in (part.data if part.data.ndim == 3 else part.data[None])
    ]


NOISE_ROLES, MASK_ROLES, PSF_ROLES = tuple(_NOISE), _MASK, _PSF


def as_bits(plane: np.ndarray, part: Part) -> np.ndarray:
    """A mask as integers, which some programs store as floats.

    **Raises:** `ValueError` if the values are not whole numbers.
    """
    if plane.dtype.kind != "f":
        return plane
    if not (np.isfinite(plane) & (plane == np.round(plane))).all():
        raise ValueError(f"`mask` {part.where} must hold whole numbers; got {plane.dtype}.")
    return plane.astype(np.int64)


def with_flags(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with masks of 0 and 1 taken as false and true, as FITS has no booleans.

    Only if no mask has names for its bits and all of them hold nothing else: a band whose bit
    planes happen to use bit 0 alone is known by the others.
    """
    masks = [layer.mask for layer in layers if layer.mask is not None]
    named = any(layer.planes is not None for layer in layers)
    if named or any(mask.min() < 0 or mask.max() > 1 for mask in masks):
        return list(layers)
    return [
        layer if layer.mask is None else replace(layer, mask=layer.mask.astype(bool))
        for layer in layers
    ]


def named_planes(header: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the mask's bits from its MP_<name> cards, as the LSST pipelines write them."""
    bits = {key[3:]: header[key] for key in header if key.startswith("MP_")}
    bits = {name: bit for name, bit in bits.items() if isinstance(bit, int) and 0 <= bit < 32}
    if not bits:
        return None
    names = {bit: name for name, bit in bits.items()}
    return tuple(names.get(bit, f"BIT{bit}") for bit in range(max(names) + 1))


def _part(path: Path, place: int, hdu: Any) -> Part:
    header = _values(hdu.header)
    # Old LSST files have EXTTYPE instead.
    written = str(header.get("EXTNAME", header.get("EXTTYPE", ""))).strip()
    roles = "|".join((*_IMAGE, *_MASK, *_PSF, *_NOISE))
    match = re.fullmatch(rf"({roles})(?:[_\-. ](.+))?", written, flags=re.IGNORECASE)
    role, band = ("", None) if match is None else (match[1].upper(), match[2])
    if not role and named_planes(header) is not None:
        role = "MASK"
    ending = (band or (written if not role and place else "")).upper()
    data = np.asarray(hdu.data)
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    return Part(
        where=f"{path.name}[{written or place}]",
        role=role,
        key=(ending, int(header.get("EXTVER", 1))),
        band=band,
        header=header,
        cards=hdu.header,
        data=data,
    )


def _images(opened: Opened, bands: Sequence[str] | str | None) -> list[Part]:
    named = [part for part in opened.parts if part.role in _IMAGE]
    if named:
        return named
    wanted = [bands] if isinstance(bands, str) else list(bands or ())
    by_name = {part.key[0]: part for part in opened.parts if not part.role}
    if wanted and all(str(band).upper() in by_name for band in wanted):
        return [replace(by_name[band.upper()], role="IMAGE", band=band) for band in wanted]
    unnamed = [part for part in opened.parts if not part.role]
    if not unnamed:
        found = [part.where for part in opened.parts]
        raise ValueError(f"`paths`: {str(opened.path)!r} holds no image, only {found}.")
    first = unnamed[0]
    # Its noise and mask are VARIANCE and MASK, whatever it is called itself.
    return [replace(first, role="IMAGE", key=("", 1))]


def _partner(opened: Opened, image: Part, roles: Sequence[str]) -> Part | None:
    for part in opened.parts:
        if part.role in roles and part.key == image.key:
            return part
    return None


def _split(name: str, part: Part | None, cube: np.ndarray) -> list[Any]:
    """A plane for each band of a cube; one mask may be for all."""
    n_bands = len(cube)
    if part is None:
        return [None] * n_bands
    planes = part.data if part.data.ndim == 3 else part.data[None]
    if len(planes) == 1 and name == "mask":
        return [planes[0]] * n_bands
    if len(planes) != n_bands:
        raise ValueError(
            f"`{name}` {part.where} needs {n_bands} planes, one per band of the image; "
            f"got {len(planes)}."
        )
    return list(planes)


def _cards_of_band(header: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Cards of one band of a cube, in the names that they have alone."""
    cards = {"MAGZERO": f"MAGZP{number}", "FILTER": f"BAND{number}"}
    return {key: header[card] for key, card in cards.items() if card in header}


def _noise_kind(part: Part) -> str:
    if part.role == "UNCERT" and "UTYPE" in part.header:
        kind = str(part.header["UTYPE"])
        if kind not in _UNCERTAINTIES:
            raise ValueError(f"`variance` {part.where} is of unknown kind {kind!r}.")
        return _UNCERTAINTIES[kind]
    return _NOISE[part.role]


def _wcs(part: Part, opened: Opened) -> Any:
    """The celestial map of an image, its own or inherited; None, with a warning, if broken."""
    from astropy.wcs import WCS, FITSFixedWarning

    for cards in (part.cards, opened.primary_cards):
        # Without a type of axis astropy would make a map of pixels to pixels.
        if not str(_values(cards).get("CTYPE1", "")).strip():
            continue
        plane = cards.copy()
        # Of a cube only the sky: with a third axis astropy refuses distortions.
        plane.remove("NAXIS3", ignore_missing=True)
        plane["NAXIS"] = 2
        try:
            with warnings.catch_warnings():
                # Dates put in standard form and the like: of no use to the reader.
                warnings.simplefilter("ignore", FITSFixedWarning)
                wcs = WCS(plane, opened.hdus, naxis=2)
                if not wcs.has_celestial:
                    continue
                if not abs(np.linalg.det(local_jacobian(Header((), wcs=wcs), 0.0, 0.0))) > 0:
                    raise ValueError("its pixels have no area on the sky")
                return wcs
        # wcslib has an exception for each way of being wrong.
        except Exception as error:
            warnings.warn(
                f"the WCS of {opened.path.name} cannot be used and is left out: {error}",
                UserWarning,
                stacklevel=2,
            )
            return None
    return None


def _values(cards: Any) -> dict[str, Any]:
    """Keywords and values, without the cards that nobody can read."""
    from astropy.io.fits import VerifyError

    values = {}
    for card in cards.cards:
        try:
            values[card.keyword.upper()] = card.value
        except VerifyError:
            continue
    return values
