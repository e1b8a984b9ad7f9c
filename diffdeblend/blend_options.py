"""The options of `diffdeblend simulate` and `diffdeblend score`. Loads nothing heavy."""

import argparse
from typing import Any

SAMPLINGS = ("uniform", "poisson", "pair", "clustered", "one_bright")

_SIMULATE = """\
Simulate blends of stars and galaxies, with their truth.

Without a catalogue, galaxies are made up. The same seed gives the same blends on any machine.
"""

_SIMULATE_EPILOG = """\
examples:
  diffdeblend simulate --survey LSST --n 1000 --seed 1 -o blends.zarr
  diffdeblend simulate --survey LSST,HSC --bands g,r,i --most 5 --stars 0.1 -o two.zarr
  diffdeblend simulate --survey mine.yaml --catalog catsim.fits --noise background -o mine.zarr
  diffdeblend simulate --sampling my_file.py:function --stamp 16 -o own.zarr
  diffdeblend simulate --n 100000 --no-isolated --format stamps -o stamps.zarr

what is written into the Zarr folder:
  a group a survey  images, isolated, psf_images, psf_index, truth/*; attributes hold the rest
  summary.json      settings, versions, n_blends, blends_per_second
  figure.png        some of the blends with their true sources

The same command goes on where it was interrupted.

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""

_SCORE = """\
Run deblenders over simulated blends and compare what they find with the truth.
"""

_SCORE_EPILOG = """\
examples:
  diffdeblend score blends.zarr --measure diffdeblend,sep
  diffdeblend score blends.zarr --measure diffdeblend,my_file.py:function --positions truth
  diffdeblend score blends.zarr --measure sep --target ellipticity,aperture -o sep

what is written to DIR:
  summary.json  settings, and for each measure precision, recall, f1, flux_bias, flux_scatter,
                coverage_68, seconds_per_blend and all other figures
  table.ecsv    the same figures with their intervals
  scores.npz    a row a source and a row a detection, for `diffdeblend.score.read_scores`
  figure.png    the measures side by side
  parts/        what is finished: the same command goes on where it was interrupted

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_simulate(commands: Any) -> None:
    """The grammar of `diffdeblend simulate`."""
    parser = commands.add_parser(
        "simulate",
        help="simulate blends with known truth",
        description=_SIMULATE,
        epilog=_SIMULATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("the sky").add_argument
    add(
        "--catalog",
        metavar="FILE",
        help="galaxies of CatSim or COSMOS (FITS, ECSV or text), or a folder of real COSMOS "
        "galaxies. Default: 10000 galaxies are made up",
    )
    add(
        "--stars",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of the sources that are stars, made up. Default: none",
    )
    add(
        "--sampling",
        default="uniform",
        metavar="NAME",
        help=f"what makes a blend: {', '.join(SAMPLINGS)}, or file.py:name with a function "
        "(table, rng) -> Placed of your own. Default: %(default)s",
    )
    add("--most", type=int, metavar="N", help="largest number of sources of a blend")
    add("--fewest", type=int, metavar="N", help="smallest number of sources of a blend")
    add("--faintest", type=float, metavar="MAG", help="AB magnitude of the faintest source")
    add("--brightest", type=float, metavar="MAG", help="AB magnitude of the brightest source")
    add(
        "--max-shift",
        type=float,
        metavar="ARCSEC",
        help="centres lie at most so far from the middle, along x and along y. Default: a tenth "
        "of the stamp",
    )
    add("--density", type=float, metavar="N", help="of poisson: sources per square arcminute")
    add("--separation", type=_range, metavar="ARCSEC", help="of pair: one number, or a range 1,3")
    add("--flux-ratio", type=_range, metavar="R", help="of pair: one number, or a range 0.1,1")
    add = parser.add_argument_group("the survey").add_argument
    add(
        "--survey",
        default="LSST",
        metavar="NAMES",
        help="LSST, HSC, DES, Euclid_VIS, Roman_WFI, COSMOS, CFHTLS, ..., or a YAML file; several "
        "between commas see the same sky. Default: %(default)s",
    )
    add("--bands", metavar="g,r,i", help="those to draw. Default: all")
    add("--stamp", type=float, metavar="ARCSEC", help="side of a stamp. Default: 24")
    add("--psf", metavar="FILE", help="image of the PSF, or a folder of them; {band} is the band")
    add(
        "--noise",
        choices=("all", "background", "galaxy", "none"),
        default="all",
        help="of the sky, of the sources' light, of both or of none. Default: %(default)s",
    )
    add = parser.add_argument_group("the work").add_argument
    add("--n", type=int, default=100, metavar="N", help="number of blends. Default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="Default: %(default)s")
    add("--batch", type=int, default=100, metavar="N", help="blends that are written at a time")
    add("--no-isolated", action="store_true", help="only blends: a third of the time and less disk")
    add(
        "--renderer",
        choices=("fourier", "galsim"),
        default="fourier",
        help="galsim is the reference, and slower. Default: %(default)s",
    )
    add("--workers", type=int, default=1, metavar="N", help="processes of the galsim renderer")
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default="blends.zarr", metavar="ZARR", help="Default: ./%(default)s")
    add(
        "--format",
        choices=("blends", "stamps"),
        default="blends",
        help="stamps: a store for `diffdeblend fit-survey`, with the truth of every source, of one "
        "survey. Default: %(default)s, for `diffdeblend score`",
    )
    add("--overwrite", action="store_true", help="replace what is there")
    _add_common(add)


def add_score(commands: Any) -> None:
    """The grammar of `diffdeblend score`."""
    parser = commands.add_parser(
        "score",
        help="compare deblenders on simulated blends",
        description=_SCORE,
        epilog=_SCORE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what is measured").add_argument
    add("blends", metavar="ZARR", help="written by `diffdeblend simulate`, with isolated images")
    add(
        "--measure",
        default="diffdeblend",
        metavar="NAMES",
        help="diffdeblend, segments, sep, sep_multiband, photutils, peaks, scarlet2, or "
        "file.py:function of your own; several between commas. Default: %(default)s",
    )
    add(
        "--positions",
        choices=("detect", "truth"),
        default="detect",
        help="whether measures find the sources or are told where they are. Default: %(default)s",
    )
    add("--survey", metavar="NAME", help="which, if the set has several. Default: the first")
    add("--n", type=int, metavar="N", help="only the first so many blends")
    add = parser.add_argument_group("how it is judged").add_argument
    add("--band", metavar="NAME", help="of images and of the table. Default: r, or the middle one")
    add(
        "--max-distance",
        type=float,
        default=5.0,
        metavar="PIXELS",
        help="from a source to its detection. Default: %(default)s",
    )
    add(
        "--target",
        default="",
        metavar="NAMES",
        help="measured on found and on true images of single sources: ellipticity (KSB), moments, "
        "aperture, or file.py:function (image, psf, x, y) of your own; several between commas",
    )
    add = parser.add_argument_group("the work").add_argument
    add("--workers", type=int, default=1, metavar="N", help="processes for measures of one blend")
    add("--batch", type=int, default=256, metavar="N", help="blends that are in memory at a time")
    add = parser.add_argument_group("what comes out").add_argument
    add("-o", "--output", default="scores", metavar="DIR", help="Default: ./%(default)s")
    add("--cache", metavar="DIR", help="keep compiled programs there, to start sooner next time")
    _add_common(add)


def _add_common(add: Any) -> None:
    add("--quiet", action="store_true", help="no progress, only the table")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1")
    return value


def _range(text: str) -> float | tuple[float, float]:
    """A number, or two with a comma between them."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is no number and no range; write 1 or 1,3")
    return values[0] if len(values) == 1 else (values[0], values[1])
