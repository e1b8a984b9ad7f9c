"""The command `diffdeblend`: from files to files."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from diffdeblend import __version__
from diffdeblend.blend_options import add_score, add_simulate
from diffdeblend.progress import Progress, one_line

# Nothing heavy is imported here: `--help` answers at once. What a command needs, it imports.

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
VARIANCE_KINDS = ("variance", "rms", "ivar", "weight")

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

what is written to DIR:
  figure.png    data, model, residual, and each source alone
  catalog.ecsv  positions, fluxes, magnitudes, shapes, errors and flags; also as catalog.fits
  models.fits   image of each source in each band, the sky and the residual
  scene.eqx     the fitted model, for `diffdeblend.load_scene`
  summary.json  settings, versions, goodness of fit, seconds by stage

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"diffdeblend: error: {message} (`{self.prog} --help` says more)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for a user's error, 130 for Ctrl-C.

    - `arguments`: what stands after the command's name; by default that of this process.
    """
    # OpenBLAS's threads spin against XLA's: small factorisations took 20 times as long on a busy
    # machine. To be set before numpy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 0
    if getattr(chosen, "cache", None) is not None:
        # XLA reports an error for every program that it takes from its cache, as of processor
        # features that are none ("+prefer-no-gather"). To be set before JAX is loaded.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    progress = Progress(None if chosen.quiet else sys.stderr)
    try:
        progress.begin("load")
        _run(chosen, progress)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except KeyboardInterrupt:
        progress.say("diffdeblend: interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our table went away, as `head` does: nothing more to say, and Python must
        # not try to when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        if chosen.debug:
            raise
        progress.say(f"diffdeblend: error: {one_line(error)}")
        return 2
    return 0


def _run(chosen: argparse.Namespace, progress: Progress) -> None:
    """What a command needs is imported here, when it is known which one it is."""
    if chosen.command == "simulate":
        from diffdeblend.simulate_command import run_simulate

        run_simulate(chosen, progress)
    elif chosen.command == "score":
        from diffdeblend.score_command import run_score

        run_score(chosen, progress)
    else:
        from diffdeblend.commands import run_deblend

        run_deblend(chosen, progress)


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = _Parser(
        prog="diffdeblend",
        description="Differentiable modelling of astronomical images.",
        epilog="`diffdeblend deblend` without any argument takes the bundled blend apart.",
    )
    parser.add_argument("--version", action="version", version=f"diffdeblend {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_deblend(commands)
    add_simulate(commands)
    add_score(commands)
    return parser


def _add_deblend(commands: Any) -> None:
    parser = commands.add_parser(
        "deblend",
        help="take a blend of stars and galaxies apart",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend deblend [INPUT ...] [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the image").add_argument
    add(
        "input",
        nargs="*",
        metavar="INPUT",
        help="one FITS file per band, blue to red; or one FITS file with all bands (a cube, or "
        "extensions IMAGE, VARIANCE, MASK and PSF); or one .npz file. Write it before the "
        "options. Default: the bundled blend",
    )
    add(
        "--bands",
        type=_names,
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
        type=_width,
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
        type=_names,
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
        default="auto",
        metavar="MODEL",
        help="of each source's light: " + ", ".join(MODELS) + ". auto takes the simplest of "
        "point, sersic, bulge_disc and multi_gaussian that explains the source (BIC). "
        "Default: %(default)s",
    )
    add(
        "--no-free-form",
        action="store_true",
        help="with auto: never refine a source with free pixels, even where its residuals ask "
        "for it",
    )
    add(
        "--background",
        choices=BACKGROUNDS,
        default="constant",
        help="the sky below the sources, fitted with them: a level per band, a plane per band "
        "(linear), or none. Default: %(default)s",
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


def _names(text: str) -> tuple[str, ...]:
    """Names between commas; none for an empty text."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _width(text: str) -> tuple[float, str]:
    """A number with `px` or `arcsec`."""
    found = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*(px|pix|pixels?|arcsec|as|\")\s*", text)
    try:
        number = float(found.group(1)) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no width; write 0.7arcsec or 3.5px")
    return number, "px" if found.group(2).startswith("p") else "arcsec"
