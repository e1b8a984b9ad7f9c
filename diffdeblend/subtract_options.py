"""The options of `diffdeblend subtract`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.epoch_options import ALIGNMENTS, add_output, add_preparation, add_stars

_DESCRIPTION = """\
Find what changed between two images of a piece of sky.

Each image loses its sky and gets the noise of every pixel, masks and the PSF of its stars. Flux
ratio, registration and background between the two are measured, and the proper difference is made
(Zackay, Ofek & Gal-Yam 2016): white noise, and for each pixel how sure it is that a point changed
there, with its flux. Peaks are listed with a verdict: transient, cosmic ray, dipole, misfit.
"""

_EPILOG = """\
examples:
  diffdeblend subtract new.fits ref.fits
  diffdeblend subtract new.fits ref.fits --align stars --gain 1.6 1.5 -o night2
  diffdeblend subtract new.fits ref.fits --psf psf_new/psf.fits psf_ref/psf.fits
  diffdeblend subtract new.fits ref.fits --psf basis --inf-loss 0.1 --beta 1 --shift none

beside ProperImage's subtract, whose defaults are beta=True, shift=True, fitted_psf=True,
inf_loss=0.25, smooth_psf=False:
  fitted_psf=True               --psf gaussian      (here: moffat)
  fitted_psf=False, inf_loss=P  --psf basis --inf-loss P
  smooth_psf=True               --psf basis --smooth 0.5
  beta=False, shift=False       --beta 1, --shift none
  align=True                    --align astroalign, or stars

what is written to DIR:
  difference.fits  the difference D, in standard deviations of its noise, and where it says nothing
  scorr.fits       significance of a point at each pixel, its flux in the reference's unit, error
  psf.fits         PSF of the difference
  candidates.ecsv  peaks: position, significance, flux, verdict
  figure.png       both images, difference, significance with candidates, histogram
  summary.json     beta, dx, dy, scorr_robust_sigma, fraction_beyond_5_sigma, n_candidates, seconds

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""
_EACH = ", one for both or one each, NEW's first"


def add_subtract(commands: Any) -> None:
    """The grammar of `diffdeblend subtract`."""
    parser = commands.add_parser(
        "subtract",
        help="find what changed between two images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend subtract NEW REF [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the images").add_argument
    add("new", metavar="NEW", help="a FITS or .npz file, with its sky or without")
    add("reference", metavar="REF", help="the same field, as it was; write both before the options")
    add(
        "--align",
        choices=ALIGNMENTS,
        default="none",
        help="how REF is brought onto the pixels of NEW: by the stars of both, by their WCS, by "
        "the package astroalign, or not, as they are but for a pixel or two. Default: %(default)s",
    )
    add_preparation(parser, _EACH)
    add_stars(parser, _EACH)
    add = parser.add_argument_group("what the images differ by").add_argument
    add(
        "--beta",
        type=_or_number("fit"),
        default="fit",
        metavar="RATIO",
        help="flux of a star in NEW over that in REF: fit, or a number. Default: %(default)s",
    )
    add(
        "--shift",
        type=_shift,
        default="fit",
        metavar="DX,DY",
        help="position in NEW minus that in REF in pixels: fit, none, or two numbers, as "
        "--shift=-0.3,0.1. Default: %(default)s",
    )
    add(
        "--background",
        choices=("fit", "none"),
        default="fit",
        help="what is left of the sky of NEW less beta times that of REF. Default: %(default)s",
    )
    add(
        "--shift-degree",
        type=int,
        choices=(0, 1, 2, 3),
        default=3,
        help="of the shift's change over the image. Default: %(default)s",
    )
    add(
        "--registration-noise",
        type=_or_number("fit"),
        default="fit",
        metavar="PIXELS",
        help="by how much positions are uncertain: fit, or a number. Default: %(default)s",
    )
    add = parser.add_argument_group("the difference").add_argument
    add(
        "--varying",
        choices=("auto", "tiles", "constant"),
        default="auto",
        help="tiles: PSFs of each place; constant: those in the middle; auto: tiles if a PSF "
        "varies. Default: %(default)s",
    )
    add("--tile", type=int, default=256, metavar="PIXELS", help="Default: %(default)s")
    add(
        "--threshold",
        type=float,
        default=5.0,
        metavar="SIGMA",
        help="least |significance| of a candidate. Default: %(default)s",
    )
    add_output(parser, "subtracted")


def _or_number(word: str) -> Any:
    """A word, or a number that is not negative."""

    def read(text: str) -> float | str:
        if text == word:
            return text
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is neither {word} nor a number")
        return number

    return read


def _shift(text: str) -> tuple[float, float] | str:
    if text in ("fit", "none"):
        return "fit" if text == "fit" else (0.0, 0.0)
    try:
        dx, dy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no shift; write fit, none or 0.3,-0.1"
        ) from error
    return dx, dy
