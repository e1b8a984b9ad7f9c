"""The options of `diffdeblend psf`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.epoch_options import add_output, add_preparation, add_stars

_DESCRIPTION = """\
Take the PSF of an image from its stars.

The sky is taken away, flaws and cosmic rays are masked; stars are told from other sources by the
size that they share at all magnitudes; a profile that varies smoothly over the image is fitted to
all of them at once. A part of the stars is kept out to judge the result by.
"""

_EPILOG = """\
examples:
  diffdeblend psf image.fits
  diffdeblend psf image.fits --method basis --inf-loss 0.1 -o kl
  diffdeblend detect image.fits --psf psf/psf.fits --kernel psf

what is written to DIR:
  psf.fits      images of the basis, coefficients of their fields, maps of these; every command
                takes it as --psf DIR/psf.fits
  stars.ecsv    all sources looked at: size, magnitude, used or not, and why not
  figure.png    magnitude and size, shape over the image, basis, fields, what is left of stars
  summary.json  width, number of stars, errors on the stars kept out, and every setting

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_psf(commands: Any) -> None:
    """The grammar of `diffdeblend psf`."""
    parser = commands.add_parser(
        "psf",
        help="take the PSF of an image from its stars",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend psf IMAGE [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the image").add_argument
    add("input", metavar="IMAGE", help="a FITS or .npz file, with its sky or without")
    add_preparation(parser)
    add_stars(parser)
    add = parser.add_argument_group("the judgement").add_argument
    add(
        "--reserve",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the stars that are kept out to judge the PSF by; 0 for none. Default: %(default)s",
    )
    add("--seed", type=int, default=0, metavar="N", help="draws them. Default: %(default)s")
    add_output(parser, "psf")
