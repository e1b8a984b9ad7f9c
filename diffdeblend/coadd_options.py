"""The options of `diffdeblend coadd`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.epoch_options import ALIGNMENTS, add_output, add_preparation, add_stars

_DESCRIPTION = """\
Add several images of a piece of sky up such that nothing is lost.

Each image loses its sky and gets the noise of every pixel, masks and the PSF of its stars. The
proper coadd (Zackay & Ofek 2017) has white noise of unit variance and a PSF of its own, and is as
good as all epochs together for whatever comes next.
"""

_EPILOG = """\
examples:
  diffdeblend coadd night1.fits night2.fits night3.fits
  diffdeblend coadd *.fits --align stars -o deep

what is written to DIR:
  coadd.fits      the proper coadd, its mask, how many epochs see a pixel
  coadd_psf.fits  its PSF
  detection.fits  signal-to-noise of a point at each pixel: what to detect on; its flux and error
  figure.png      the three as pictures
  summary.json    scale and noise of each epoch, seconds by stage, and every setting

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""
_EACH = ", one for all or one each"


def add_coadd(commands: Any) -> None:
    """The grammar of `diffdeblend coadd`."""
    parser = commands.add_parser(
        "coadd",
        help="add several images up",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend coadd IMAGE IMAGE ... [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the images").add_argument
    add(
        "input",
        nargs="+",
        metavar="IMAGE",
        help="FITS or .npz files, the first of which says where pixels are; write them before the "
        "options",
    )
    add(
        "--align",
        choices=ALIGNMENTS,
        default="none",
        help="how the others are brought onto the pixels of the first: by the stars of both, by "
        "their WCS, by the package astroalign, or not. Default: %(default)s",
    )
    add_preparation(parser, _EACH)
    add_stars(parser, _EACH)
    add = parser.add_argument_group("the sum").add_argument
    add(
        "--scale",
        choices=("light", "zero_points"),
        default="light",
        help="flux of a star in each image over that in the first: by the light of both, or by the "
        "zero points of the headers. Default: %(default)s",
    )
    add(
        "--shift",
        choices=("fit", "none"),
        default="none",
        help="fit: measure what is left of a shift between each image and the first, and allow for "
        "it. Default: %(default)s",
    )
    add_output(parser, "coadded")
