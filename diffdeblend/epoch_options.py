"""The options of commands that take raw images: sky, noise, flaws, PSF. Loads nothing heavy."""

import argparse
from typing import Any

STAR_METHODS = ("moffat", "gaussian", "mixture", "basis")
ALIGNMENTS = ("none", "stars", "wcs", "astroalign")


def add_preparation(parser: Any, each: str = "") -> None:
    """What is known of raw images.

    - `each`: said of options of which there may be one an image; empty where there is one image.
    """
    many: dict[str, Any] = {"nargs": "+"} if each else {}
    add = parser.add_argument_group("sky, noise and flaws").add_argument
    add(
        "--mask",
        metavar="FILE",
        help=f"FITS mask{each}: what is not 0 is bad, or bits with names in MP_<name> cards; "
        "'none' for an image without one",
        **many,
    )
    add(
        "--gain",
        type=_number,
        metavar="E",
        help=f"electrons per unit of the image{each}. Default: from the header, or the one that "
        "the noise of the sky asks for",
        **many,
    )
    add(
        "--read-noise",
        type=_number,
        metavar="E",
        help=f"electrons{each}. Default: from the header",
        **many,
    )
    add(
        "--saturation",
        type=_saturation,
        metavar="LEVEL",
        help=f"in the unit of the raw image{each}; 'none' if nothing is saturated. Default: from "
        "the header, or the value at which the image looks clipped",
        **many,
    )
    add(
        "--mesh",
        type=_mesh,
        default=128,
        metavar="PIXELS",
        help="of a box in which the sky is measured; 'none' where it is taken off already. "
        "Default: %(default)s",
    )
    add(
        "--cosmic-rays",
        choices=("auto", "astroscrappy", "none"),
        default="auto",
        help="auto: by their sharpness against that of the stars; astroscrappy: L.A.Cosmic, by the "
        "package of that name; none: do not look. Default: %(default)s",
    )


def add_stars(parser: Any, each: str = "") -> None:
    """How the PSF is taken from stars, or which file it is in.

    - `each`: as in `add_preparation`.
    """
    add = parser.add_argument_group("the PSF").add_argument
    words: dict[str, Any] = {"choices": STAR_METHODS, "default": "moffat", "dest": "method"}
    option, default, also = "--method", "Default: %(default)s", ""
    if each:
        words = {"nargs": "+", "metavar": "PSF"}
        option, also = "--psf", "; or a FITS file, as psf.fits of `diffdeblend psf`"
        default = "Default: that in the image's file, else moffat"
    add(
        option,
        help=f"moffat: a Moffat profile whose shape varies smoothly, with what it misses of the "
        "stars; gaussian: an elliptical Gaussian; mixture: two of them; basis: principal "
        f"components of the stars' images{also}{each}. {default}",
        **words,
    )
    add(
        "--inf-loss",
        type=float,
        metavar="SHARE",
        help="of power that the images of the basis may lack. Default: 1e-6; 0.25 of --"
        f"{'psf' if each else 'method'} basis",
    )
    add(
        "--refine",
        action="store_true",
        help="fit the PSF anew, pixel by pixel, to all stars at once; takes seconds",
    )
    add(
        "--smooth",
        type=float,
        default=0.0,
        metavar="PIXELS",
        help="sigma of a Gaussian over the images of basis. Default: %(default)s, none",
    )
    add(
        "--degree",
        type=int,
        choices=(0, 1, 2, 3),
        default=3,
        help="of the PSF's change over the image; 0 for none. Default: %(default)s",
    )
    add("--min-snr", type=float, default=30.0, metavar="SNR", help="of a star. Default: 30")


def add_output(parser: Any, folder: str) -> None:
    """Where results go, and what is said on the way."""
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default=folder, metavar="DIR", help="Default: ./%(default)s")
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return number


def _saturation(text: str) -> float | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    return _number(text)


def _mesh(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels, nor none") from error
