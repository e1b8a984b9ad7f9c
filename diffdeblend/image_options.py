"""The options of commands that read images: files, noise, masks, PSFs. Loads nothing heavy."""

import argparse
import re
from typing import Any

VARIANCE_KINDS = ("variance", "rms", "ivar", "weight")


def add_image(parser: Any, default: str = "") -> None:
    """What the image is, its noise and its flaws.

    - `default`: what is said of INPUT when it is left out.
    """
    add = parser.add_argument_group("the image").add_argument
    add(
        "input",
        nargs="*",
        metavar="INPUT",
        help="one FITS file per band, blue to red; or one FITS file with all bands (a cube, or "
        "extensions IMAGE, VARIANCE, MASK and PSF); or one .npz file. Write it before the "
        f"options{default}",
    )
    add(
        "--bands",
        type=names,
        metavar="g,r,i",
        help="names of the bands in the order of the files; of one file, those to use. "
        "Default: from the headers",
    )
    add(
        "--psf",
        nargs="+",
        metavar="FILE",
        help="FITS image of the PSF at the image's pixels, odd in height and width: one file per "
        "band, or one with all. Default: from the input",
    )
    add(
        "--psf-fwhm",
        nargs="+",
        type=width,
        metavar="WIDTH",
        help="instead of an image of the PSF: seeing, one width for all bands or one per band, as "
        "0.7arcsec (needs a WCS) or 3.5px; a Kolmogorov profile",
    )
    noise = parser.add_argument_group("its noise and its flaws")
    add = noise.add_argument
    add(
        "--variance",
        nargs="+",
        metavar="FILE",
        help="FITS map of the noise: one file per band, or one with all. Default: from the input; "
        "where there is none either, estimated from the sky",
    )
    add(
        "--variance-kind",
        choices=VARIANCE_KINDS,
        default="variance",
        help="what --variance holds: the variance, its square root (rms), its inverse (ivar), or "
        "a relative weight as of SExtractor and SWarp (weight). Default: %(default)s",
    )
    add(
        "--weight",
        nargs="+",
        metavar="FILE",
        help="the same as --variance FILE --variance-kind weight",
    )
    add(
        "--mask",
        nargs="+",
        metavar="FILE",
        help="FITS mask: one file for all bands, or one per band. 1 is bad, or bits with "
        "names in MP_<name> cards",
    )
    add(
        "--exclude-planes",
        type=names,
        metavar="NAMES",
        help="mask planes whose pixels are not used, as BAD,SAT; '' for none. "
        "Default: BAD,SAT,CR,NO_DATA where the mask has them",
    )
    add(
        "--zero-points",
        nargs="+",
        type=float,
        metavar="MAG",
        help="AB magnitude of one unit of flux, one for all bands or one per band. "
        "Default: from the headers",
    )


def names(text: str) -> tuple[str, ...]:
    """Names between commas; none for an empty text."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def width(text: str) -> tuple[float, str]:
    """A number with `px` or `arcsec`."""
    found = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*(px|pix|pixels?|arcsec|as|\")\s*", text)
    try:
        number = float(found.group(1)) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no width; write 0.7arcsec or 3.5px")
    return number, "px" if found.group(2).startswith("p") else "arcsec"
