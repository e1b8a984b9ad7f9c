"""Images as telescopes leave them, read once, with the cards that their results keep."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from diffdeblend.io import hdus
from diffdeblend.io.fits import read_fits
from diffdeblend.io.npz import read_npz
from diffdeblend.planes import excluded_planes


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image to be prepared.

    - `source`: what `diffdeblend.prepare.prepare` takes.
    - `cards`: of its FITS header; None for another kind of file.
    - `has_psf`: whether `source` has a PSF of its own.
    """

    source: Any
    cards: Any
    has_psf: bool


def read_raw(path: str | os.PathLike) -> RawImage:
    """An image of a FITS file, or an `.npz` file.

    A FITS file of one image is taken as a raw one; one with extensions for variance, mask or PSF
    is read by `read_fits`.

    **Raises:** `ValueError` if there is no such file, or it cannot be read.
    """
    from astropy.io import fits

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}.")
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            has_psf = bool({"psf", "psfs"} & set(archive.files))
        return RawImage(read_npz(path, needs_psf=False), None, has_psf)
    try:
        # Kept in memory: a map of the file would be read again at each use.
        with fits.open(path, memmap=False) as hdu_list:
            opened: Any = hdu_list
            images: list[Any] = [
                hdu
                for hdu in opened
                if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2
            ]
            if len(images) == 1:
                images[0].data  # noqa: B018 - read while the file is open
                return RawImage(images[0], images[0].header, False)
            cards = opened[0].header.copy()
    # Damaged bytes end in almost any exception inside astropy: all mean an unreadable file.
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as FITS: {error}") from error
    if not images:
        raise ValueError(f"{str(path)!r} holds no image of 2 or 3 axes.")
    cards.update(images[0].header)
    roles = {part.role for part in hdus.open_fits(path).parts}
    return RawImage(read_fits(path, needs_psf=False), cards, "PSF" in roles)


def read_mask(path: str | os.PathLike) -> Bool[np.ndarray, "*band y x"]:
    """Which pixels a FITS mask says are bad: those that are not 0, or, where its bits have names
    (MP_ cards), those on the planes BAD, SAT, CR and NO_DATA.

    **Raises:** `ValueError` if the file cannot be read, or does not hold whole numbers.
    """
    planes = []
    for plane, part in hdus.flat_planes(hdus.open_fits(Path(path)), hdus.MASK_ROLES):
        bits = hdus.as_bits(plane, part).astype(np.int64)
        names = hdus.named_planes(part.header)
        if names is not None:
            spoils = excluded_planes(None, names)
            bits = bits & sum(1 << k for k, name in enumerate(names) if name in spoils)
        planes.append(bits != 0)
    return planes[0] if len(planes) == 1 else np.stack(planes)
