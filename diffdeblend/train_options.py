"""The options of `diffdeblend train-prior`. Loads nothing heavy."""

import argparse
from typing import Any

from diffdeblend.image_options import names

FAMILIES = ("sersic", "bulge_disc", "multi_gaussian")
KINDS = ("decoder", "denoiser", "parametric")

_DESCRIPTION = """\
Learn what galaxies look like, for `diffdeblend deblend --prior`.

Galaxies are made up, or drawn from a catalogue, real images, or stamps of your own survey. A
network learns to draw them from a few numbers that are normal in the population. Or a mixture of
normal densities learns which sizes, shapes and profiles go together (--kind parametric).
"""

_EPILOG = """\
examples:
  diffdeblend train-prior -o prior.eqx
      from made-up galaxies: some minutes on two cores
  diffdeblend train-prior --population bulge_disc_knots=0.6,sersic=0.4 --steps 4000 -o quick.eqx
  diffdeblend train-prior --population cosmos:FOLDER=0.5,broad=0.5 --pixel-scale 0.168 -o hsc.eqx
  diffdeblend train-prior --population stamps:mine.npz --size 45 -o survey.eqx
  diffdeblend train-prior --kind denoiser -o denoiser.eqx
  diffdeblend train-prior --kind parametric -o shapes.eqx
      of Sersic galaxies, for `deblend --prior shapes.eqx --model auto`: seconds
  diffdeblend train-prior --kind parametric --population fits:out/catalog.ecsv --bands i,g
      from what `deblend` found in your own images; its errors are taken out

what is written, for -o prior.eqx:
  prior.eqx          the prior, for `--prior` and `diffdeblend.io.load_prior`
  prior.json         settings, losses, sha256 of all that decides the result, seconds by stage
  prior_loss.png     the losses on the way
  prior_samples.png  galaxies that were learnt from, and galaxies drawn from the prior
of the kind parametric, in place of both figures:
  prior_features.png features that were learnt from, and those drawn from the prior

The same command goes on where it was interrupted, and ends with the same prior.

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_train(commands: Any) -> None:
    """The grammar of `diffdeblend train-prior`."""
    parser = commands.add_parser(
        "train-prior",
        help="learn what galaxies look like",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the galaxies").add_argument
    add(
        "--population",
        metavar="WORDS",
        help="broad, bulge_disc, bulge_disc_knots, sersic, irregular, catalog:FILE (CatSim, "
        "COSMOS), cosmos:FOLDER (real images), or several between commas with shares, as "
        "sersic=0.3,cosmos:FOLDER=0.7; or stamps:FILE (.npz, .zarr) of a survey, which are "
        "learnt from through their noise and PSF. Of the kind parametric: synthetic, catalog:FILE, "
        "or fits:TABLE (a catalogue of `deblend`). Default: broad; of parametric synthetic",
    )
    add("--n", type=int, default=20_000, metavar="N", help="number of them. Default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="Default: %(default)s")
    add = parser.add_argument_group("the frame that they are drawn in").add_argument
    add(
        "--pixel-scale",
        type=float,
        metavar="ARCSEC",
        help="of the images to be fitted; of fits: the one that they were made with, where their "
        "table does not say. Default: 0.2",
    )
    add("--size", type=int, metavar="PIXELS", help="odd. Default: 33")
    add(
        "--psf-sigma",
        type=float,
        metavar="PIXELS",
        help="of a Gaussian narrower than any PSF to be met. Default: 0.8",
    )
    add = parser.add_argument_group("the network").add_argument
    add(
        "--kind",
        choices=KINDS,
        default="decoder",
        help="decoder: galaxies from numbers, for `deblend --prior`; denoiser: for free pixels, in "
        "Python; parametric: which shapes go together, for `deblend --prior`, too. "
        "Default: %(default)s",
    )
    add("--latents", type=int, metavar="N", help="numbers of a galaxy. Default: 16")
    add("--width", type=_widths, metavar="N,N", help="of hidden layers. Default: 256,256")
    add(
        "--photons",
        type=float,
        metavar="N",
        help="that a galaxy without noise is taken for; more of them are learnt in more detail, "
        "and with less for what is new. Default: 3000",
    )
    add("--flow", type=int, metavar="N", help="layers of a flow on the latents. Default: 0")
    add("--steps", type=int, metavar="N", help="Default: 12000; of a denoiser 8000")
    add("--batch", type=int, metavar="N", help="galaxies in a step. Default: 128")
    add("--rate", type=float, metavar="X", help="of Adam. Default: 0.002; of a denoiser 0.001")
    add = parser.add_argument_group("the mixture, of the kind parametric").add_argument
    add("--family", choices=FAMILIES, help="of models whose shapes are learnt. Default: sersic")
    add(
        "--bands",
        type=names,
        metavar="i,g",
        help="learn magnitude (in the first) and colours (others less the first) with the shapes; "
        "images need zero points then. Default: shapes alone",
    )
    add(
        "--components",
        type=_widths,
        metavar="N,N",
        help="numbers of normal densities to try. Default: up to 12",
    )
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default="prior.eqx", metavar="FILE", help="Default: ./%(default)s")
    add("--half", action="store_true", help="store weights as float16, in half of the space")
    add(
        "--checkpoint",
        metavar="DIR",
        help="where an interrupted training is kept. Default: beside the output",
    )
    add("--overwrite", action="store_true", help="replace what is there")
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")


def _widths(word: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in word.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"needs whole numbers between commas, as 256,256; got {word!r}"
        ) from None
