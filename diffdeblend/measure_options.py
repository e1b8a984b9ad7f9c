"""The options of `diffdeblend measure`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.image_options import add_image, names

DEBLENDINGS = ("scene", "symmetric", "none")
KERNELS = ("gaussian", "psf", "none")
THRESHOLDS = ("pixel_stdev", "stdev", "variance", "value")

_DESCRIPTION = """\
Measure the stars and galaxies of an image in all its bands.

Each band is searched by itself: smoothed, thresholded, its footprints grown. Footprints and peaks
of all bands become one list, by the order of the bands; blends are taken apart; each source is
measured alone, all others replaced by noise: centroid, moments, fluxes of the PSF, of apertures, of
Kron and of a model. The band that shows a source best says where it is and how it looks, and its
fluxes are measured with that in every band: the columns of all bands belong to the same sources.
"""

_EPILOG = """\
examples:
  diffdeblend measure coadd.fits --priority i,r,z,y,g -o measured
  diffdeblend measure g.fits r.fits i.fits --bands g,r,i --psf-fwhm 0.7arcsec
  diffdeblend measure coadd.npz --dynamic calibrated --show id '*kron*' '*psf_mag*'

what is written to DIR:
  catalog.ecsv  a row a source, columns of all bands; also as catalog.fits
  figure.png    colours of stars and galaxies
  summary.json  sources by band, seconds by stage, and every setting

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_measure(commands: Any) -> None:
    """The grammar of `diffdeblend measure`."""
    parser = commands.add_parser(
        "measure",
        help="find sources in several bands and measure them in all",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend measure INPUT ... [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image(parser)
    add = parser.add_argument_group("the bands together").add_argument
    add(
        "--priority",
        type=names,
        metavar="i,r,g",
        help="order in which the bands say what there is, the deepest first. Default: as they come",
    )
    add(
        "--same",
        type=float,
        default=0.3,
        metavar="ARCSEC",
        help="peaks of two bands nearer than this are one. Default: %(default)s",
    )
    add(
        "--new",
        type=float,
        default=1.0,
        metavar="ARCSEC",
        help="peaks farther than this from all others are added; between the two, dropped. "
        "Default: %(default)s",
    )
    add = parser.add_argument_group("what is found").add_argument
    add(
        "--background",
        choices=("measure", "none"),
        default="measure",
        help="the sky: measured and taken away, or taken away already. Default: %(default)s",
    )
    add(
        "--threshold",
        type=float,
        default=5.0,
        metavar="SIGMA",
        help="of pixels that are found, after smoothing. Default: %(default)s",
    )
    add(
        "--threshold-type",
        choices=THRESHOLDS,
        default="pixel_stdev",
        help="unit of the threshold: noise of each pixel, of the image, or that of the image "
        "itself. Default: %(default)s",
    )
    add(
        "--include-multiplier",
        type=float,
        default=1.0,
        metavar="N",
        help="a source needs one pixel at N times the threshold. Default: %(default)s",
    )
    add("--min-pixels", type=int, default=1, metavar="N", help="least area. Default: %(default)s")
    add(
        "--kernel",
        choices=KERNELS,
        default="gaussian",
        help="to smooth with: a Gaussian of the PSF's width, the PSF, or none. Default: "
        "%(default)s",
    )
    add("--sigma", type=float, metavar="PIXELS", help="of the Gaussian, in place of the PSF's")
    add(
        "--grow",
        type=float,
        default=2.4,
        metavar="SIGMA",
        help="margin around what is found, in widths of the PSF. Default: %(default)s",
    )
    add(
        "--dynamic",
        choices=("calibrated", "lsst", "none"),
        default="none",
        help="measure the noise on empty sky and scale the threshold by it, for coadds with "
        "correlated noise; lsst: in the direction of LSST's pipelines. Default: %(default)s",
    )
    add(
        "--deblending",
        choices=DEBLENDINGS,
        default="scene",
        help="how blends share their light: by models fitted to all bands at once, by symmetric "
        "templates of each band, or not at all. Default: %(default)s",
    )
    add = parser.add_argument_group("what comes out").add_argument
    add(
        "--show",
        nargs="+",
        metavar="PATTERN",
        help="columns that are printed, as '*kron*'; all are written. Quote them, or the shell "
        "takes them for files. Default: place and magnitudes",
    )
    add("--rows", type=int, default=10, metavar="N", help="rows printed. Default: %(default)s")
    add("--seed", type=int, default=1, help="of the noise in place of sources. Default: 1")
    add("-o", "--output", default="measured", metavar="DIR", help="Default: ./%(default)s")
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")
