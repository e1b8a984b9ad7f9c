"""The options of `diffdeblend deblend`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.image_options import add_image

MODELS = (
    "auto",
    "point",
    "gaussian",
    "sersic",
    "exponential",
    "de_vaucouleurs",
    "bulge_disc",
    "multi_gaussian",
    "free_form",
)
BACKGROUNDS = ("none", "constant", "linear")

_DESCRIPTION = """\
Take a blend of stars and galaxies apart.

All sources are modelled at once, in all bands, through the PSF of each band. The result is the
position, the flux in each band, the shape and the image of each source, with errors that include
what the neighbours and the sky leave open.
"""

_EPILOG = """\
examples:
  diffdeblend deblend
      takes the bundled blend apart: a first look, without any data of your own
  diffdeblend deblend blend.npz -o result
  diffdeblend deblend g.fits r.fits i.fits --psf psf_g.fits psf_r.fits psf_i.fits \\
      --variance wht_g.fits wht_r.fits wht_i.fits --variance-kind weight --positions stars.csv
  diffdeblend deblend cube.fits --bands g,r,i --psf-fwhm 0.7arcsec --model sersic
  diffdeblend deblend blend.npz --prior tiny

what is written to DIR:
  figure.png    data, model, residual, and each source alone
  catalog.ecsv  positions, fluxes, magnitudes, shapes, errors and flags; also as catalog.fits
  models.fits   image of each source in each band, the sky and the residual
  scene.eqx     the fitted model, for `diffdeblend.load_scene`
  summary.json  settings, versions, goodness of fit, seconds by stage

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_deblend(commands: Any) -> None:
    """The grammar of `diffdeblend deblend`."""
    parser = commands.add_parser(
        "deblend",
        help="take a blend of stars and galaxies apart",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend deblend [INPUT ...] [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image(parser, ". Default: the bundled blend")
    add = parser.add_argument_group("the sources").add_argument
    add(
        "--positions",
        metavar="TABLE",
        help="where the sources are, to half a pixel: ECSV, CSV or FITS table with columns x, y "
        "(first pixel 0), X_IMAGE, Y_IMAGE (first pixel 1), or ra, dec in degrees. Default: those "
        "in an .npz input, or else the peaks found in the image",
    )
    add(
        "--model",
        choices=MODELS,
        metavar="MODEL",
        help="of each source's light: " + ", ".join(MODELS) + ". auto takes the simplest of "
        "point, sersic, bulge_disc and multi_gaussian that explains the source (BIC). "
        "Default: auto, or what --prior says",
    )
    add(
        "--no-free-form",
        action="store_true",
        help="with auto: never refine a source with free pixels, even where its residuals ask "
        "for it",
    )
    add(
        "--prior",
        metavar="FILE",
        help="sources are galaxies as a learned prior draws them, of `diffdeblend train-prior`; "
        "with one of its kind parametric, --model as usual, with shapes as likely as it says; "
        "tiny: the one that comes with the package, of made-up galaxies, for pixels of 0.2 arcsec",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="with --prior: above 1 the prior is trusted less. Default: %(default)s",
    )
    add(
        "--no-fallback",
        action="store_true",
        help="with --prior: keep sources that are out of its domain decoded, only flagged; without "
        "this they become the most probable of point, sersic and bulge_disc where that explains "
        "them better",
    )
    add(
        "--robust",
        action="store_true",
        help="with --prior: mean fluxes of it and of sersic galaxies, errors that hold both",
    )
    add(
        "--background",
        choices=BACKGROUNDS,
        default="constant",
        help="the sky below the sources, fitted with them: a level per band, a plane per band "
        "(linear), or none. Default: %(default)s",
    )
    add(
        "--split",
        choices=("auto", "always", "never"),
        default="auto",
        help="find the sources, cut the image into blends and fit these in batches; auto does so "
        "above 256 pixels on a side, or with more than 32 positions. Default: %(default)s",
    )
    add = parser.add_argument_group("what comes out").add_argument
    add(
        "-o",
        "--output",
        default="deblended",
        metavar="DIR",
        help="where the results go. Default: ./%(default)s",
    )
    add("--quiet", action="store_true", help="no progress, only the table")
    add(
        "--cache",
        metavar="DIR",
        help="keep compiled programs there, so that the next blend of a like size starts sooner",
    )
    add("--debug", action="store_true", help="on an error, say where in the code it came from")
