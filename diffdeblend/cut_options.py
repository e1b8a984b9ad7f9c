"""The options of `diffdeblend cut`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.image_options import add_image

_DESCRIPTION = """\
Cut an image into a store of stamps, for `diffdeblend fit-survey`.

Sources whose light meets are a blend; every blend gets a stamp, every source is in exactly one.
Pixels of other blends, and those beyond a blend's own, are masked. With --append, the stamps of one
image after the other go into one store.
"""

_EPILOG = """\
examples:
  diffdeblend cut g.fits r.fits i.fits --bands g,r,i --psf-fwhm 0.7arcsec -o stamps.zarr
  diffdeblend cut coadd.fits --positions catalog.fits --size 96 -o stamps.zarr
  for tile in tiles/*.fits; do diffdeblend cut $tile --append -o stamps.zarr; done

An image that was cut into the store before is left as it is, and one that was interrupted is cut
anew: the same loop goes on where it stopped.

what is written to the Zarr folder: image, variance, mask, psf, position, source_id, ra, dec, cd
and crowded of every stamp; see STORE.md in diffdeblend/stamps

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_cut(commands: Any) -> None:
    """The grammar of `diffdeblend cut`."""
    parser = commands.add_parser(
        "cut",
        help="cut images into a store of stamps",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend cut INPUT ... [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image(parser)
    add = parser.add_argument_group("the stamps").add_argument
    add(
        "--positions",
        metavar="TABLE",
        help="where the sources are: ECSV, CSV or FITS table with columns x, y (first pixel 0), "
        "X_IMAGE, Y_IMAGE (first pixel 1), or ra, dec in degrees; those off the image are left "
        "out; whole numbers in a column source_id or id are kept. Default: those in an .npz input, "
        "or else sources at 5 sigma are detected",
    )
    add("--size", type=int, default=64, metavar="PIXELS", help="of a stamp. Default: %(default)s")
    add(
        "--max-sources",
        type=int,
        default=12,
        metavar="N",
        help="a larger group is divided, and its stamps are crowded. Default: %(default)s",
    )
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default="stamps.zarr", metavar="ZARR", help="Default: ./%(default)s")
    add("--append", action="store_true", help="add to the store, if there is one")
    add("--overwrite", action="store_true", help="replace what is there")
    add("--quiet", action="store_true", help="no progress, only what came out")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")
