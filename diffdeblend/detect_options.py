"""The options of `diffdeblend detect`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.image_options import add_image

SKIES = ("mesh", "masked", "skewness", "none")
ESTIMATORS = ("sextractor", "mean", "median", "mode", "mmm", "biweight_location")
SEGMENTATIONS = ("threshold", "dbscan")
DEBLENDINGS = ("multithreshold", "denclue", "denclue_watershed", "log_watershed", "none")
MODES = ("exponential", "linear", "sinh")

_DESCRIPTION = """\
Find the stars and galaxies of an image and measure them.

The sky is measured and taken away, the image smoothed; connected pixels above a threshold are a
source; one with several peaks is split. Several bands are searched as one image, and measured each.
"""

_EPILOG = """\
examples:
  diffdeblend detect image.fits -o found
  diffdeblend detect g.fits r.fits i.fits --threshold 2 --mask mask.fits --gain 2.5
  diffdeblend detect stamp.fits --background skewness --threshold 3 --kernel none \\
      --segmentation dbscan --deblending denclue

what is written to DIR:
  catalog.ecsv     positions, shapes, fluxes with errors, flags; also as catalog.fits
  labels.fits      which pixel belongs to which source
  background.fits  the sky and the scatter of its noise
  figure.png       the image with Kron apertures, and the labels
  summary.json     n_sources, seconds by stage, and every setting

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_detect(commands: Any) -> None:
    """The grammar of `diffdeblend detect`."""
    parser = commands.add_parser(
        "detect",
        help="find the sources of an image and measure them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend detect INPUT ... [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image(parser)
    add = parser.add_argument_group("the sky").add_argument
    add(
        "--background",
        choices=SKIES,
        default="mesh",
        help="mesh: clipped statistics in boxes; masked: the same with sources masked in turns, "
        "for crowded fields; skewness: one level, where |skewness| is least, for a stamp with few "
        "sources; none: it is taken away already. Default: %(default)s",
    )
    add("--mesh", type=int, default=64, metavar="PIXELS", help="of a box. Default: %(default)s")
    add("--filter-size", type=int, default=3, metavar="BOXES", help="median. Default: %(default)s")
    add(
        "--estimator",
        choices=ESTIMATORS,
        help="of the level of a box. Default: sextractor; of masked boxes the mean",
    )
    add(
        "--exclude-percentile",
        type=float,
        metavar="P",
        help="boxes that lose more of their pixels take the sky of others. Default: 10; of masked "
        "ones 90",
    )
    add = parser.add_argument_group("the sources").add_argument
    add(
        "--threshold",
        type=float,
        default=1.5,
        metavar="SIGMA",
        help="in standard deviations of the sky's noise in a pixel. Default: %(default)s",
    )
    add("--n-pixels", type=int, default=5, metavar="N", help="least area. Default: %(default)s")
    add(
        "--connectivity",
        type=int,
        choices=(4, 8),
        default=8,
        help="whether pixels that share only a corner touch. Default: %(default)s",
    )
    add(
        "--kernel",
        default="gaussian",
        metavar="KERNEL",
        help="to smooth with: gaussian, psf (the threshold is then the significance of a point; "
        "needs one in the input, --psf or --psf-fwhm), none, or a FITS image. Default: %(default)s",
    )
    add("--kernel-fwhm", type=float, default=2.0, metavar="PIXELS", help="Default: %(default)s")
    add("--kernel-size", type=int, default=3, metavar="PIXELS", help="odd. Default: %(default)s")
    add(
        "--segmentation",
        choices=SEGMENTATIONS,
        default="threshold",
        help="what a source is: pixels above a threshold that touch, or a DBSCAN cluster weighted "
        "by light. Default: %(default)s",
    )
    add("--dbscan-eps", type=float, default=1.5, metavar="PIXELS", help="Default: %(default)s")
    add(
        "--dbscan-k",
        type=float,
        default=1.5,
        metavar="K",
        help="least light around a core pixel, in units of the threshold. Default: %(default)s",
    )
    add("--min-size", type=int, default=25, metavar="N", help="dbscan: least area. Default: 25")
    add(
        "--deblending",
        choices=DEBLENDINGS,
        default="multithreshold",
        help="how sources with several peaks are split. Default: %(default)s",
    )
    add("--n-levels", type=int, default=32, metavar="N", help="thresholds. Default: %(default)s")
    add(
        "--contrast",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="of its parent's light that a part has at least. Default: %(default)s",
    )
    add("--mode", choices=MODES, default="exponential", help="of levels. Default: %(default)s")
    add(
        "--h-frac",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="denclue: width of the kernel over the size of the source. Default: %(default)s",
    )
    add(
        "--validate",
        action="store_true",
        help="denclue: parts that are too small or too faint join the nearest",
    )
    add = parser.add_argument_group("what is measured").add_argument
    add(
        "--gain",
        type=float,
        metavar="E",
        help="electrons in a unit of the image, for the photon noise of the sources. Default: "
        "errors are those of the variance",
    )
    add(
        "--local-background",
        type=int,
        default=0,
        metavar="PIXELS",
        help="width of an annulus whose level is taken from fluxes. Default: %(default)s, none",
    )
    add(
        "--apertures",
        type=_radii,
        default=(5.0,),
        metavar="PIXELS",
        help="radii of circular apertures, with commas between them. Default: 5",
    )
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default="detected", metavar="DIR", help="Default: ./%(default)s")
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")


def _radii(text: str) -> tuple[float, ...]:
    """Positive numbers between commas; none for an empty text."""
    try:
        radii = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        radii = (0.0,)
    if not all(0 < radius < float("inf") for radius in radii):
        raise argparse.ArgumentTypeError(f"{text!r} are no radii; write 3,5")
    return radii
