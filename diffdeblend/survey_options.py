"""The options of `diffdeblend fit-survey`. Loads nothing heavy."""

import argparse
import re
from typing import Any

from diffdeblend.deblend_options import BACKGROUNDS, MODELS

ENGINES = ("local", "dask")

_DESCRIPTION = """\
Fit all stamps of a survey: a store of stamps in, a part of the catalogue for every batch out.

Stamps are fitted each as if it were alone, so the numbers do not depend on batches, workers or
what was interrupted. The same command again goes on where it was stopped.
"""

_EPILOG = """\
examples:
  diffdeblend fit-survey stamps.zarr out --model sersic
      on this machine, in this process
  diffdeblend fit-survey stamps.zarr out --engine dask --workers 8
      one pinned process a core, or one a GPU where there are GPUs
  diffdeblend fit-survey stamps.zarr out --scheduler-file scheduler.json
      on a Dask cluster that is there already
  diffdeblend fit-survey stamps.zarr out --shard 3/100
      the third of a hundred jobs of an array, which need nothing but the same disk
  diffdeblend catalog out catalog.parquet
      the parts as one catalogue

STORE is a Zarr folder of `diffdeblend cut`, of `diffdeblend simulate --format stamps` or of
`diffdeblend.survey.write_stamps`, or a FITS file of cubes.

what is written to OUT:
  parts/         a Parquet file a batch: a row for every stamp, whatever became of it
  manifest.json  hashes of the store and of the settings, versions; other ones are refused
  programs/      compiled programs, for the next process (see --cache)
  summary.json   stamps by status, sources by flag, residuals, stamps a second
  figure.png     residuals, flags by position, pulls where the truth is known

exit codes: 0 done; 2 wrong input or options, or a disk that is full; 130 interrupted.
"""


def add_survey(commands: Any) -> None:
    """The grammar of `diffdeblend fit-survey`."""
    parser = commands.add_parser(
        "fit-survey",
        help="fit all stamps of a survey, on one machine or many",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", help="the stamps")
    parser.add_argument("out", metavar="OUT", help="folder of the results, made if need be")
    _add_sources(parser.add_argument_group("the sources").add_argument)
    add = parser.add_argument_group("the work").add_argument
    add(
        "--batch",
        type=_count,
        default=256,
        metavar="N",
        help="stamps of a part. Default: %(default)s",
    )
    add(
        "--engine",
        choices=ENGINES,
        help="local: in this process, on all of its cores or GPUs; dask: in workers of Dask "
        "(pip install 'diffdeblend[survey]'). Default: local, or dask with the two options below",
    )
    add("--workers", type=_count, metavar="N", help="of Dask, on this machine. Default: one a core")
    add("--scheduler-file", metavar="FILE", help="of a Dask cluster that is there already")
    add(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="only share I of N, from 1: for arrays of jobs that share OUT; the same command "
        "without this sums up at the end",
    )
    add("--limit", type=_count, metavar="N", help="stop after N stamps, rounded up to a batch")
    add(
        "--retry-failed",
        action="store_true",
        help="fit those stamps again, too, which could not be read or fitted",
    )
    add(
        "--cache",
        metavar="DIR",
        help="keep compiled programs there, for all runs that are alike. Default: OUT/programs",
    )
    add = parser.add_argument_group("what is told").add_argument
    add("--quiet", action="store_true", help="no progress, only how it ended")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")


def _add_sources(add: Any) -> None:
    models = [name for name in MODELS if name != "multi_gaussian"]
    add(
        "--model",
        choices=models,
        metavar="MODEL",
        help="of each source's light: " + ", ".join(models) + ". Default: auto, the simplest of "
        "point, sersic and bulge_disc that explains the source, or what --prior says",
    )
    add(
        "--free-form",
        action="store_true",
        help="refine with free pixels the sources whose residuals ask for it",
    )
    add("--prior", metavar="FILE", help="learned galaxies, as for `deblend`; or tiny")
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="with --prior: above 1 the prior is trusted less. Default: %(default)s",
    )
    add("--no-fallback", action="store_true", help="with --prior: keep all sources decoded")
    add("--robust", action="store_true", help="with --prior: mean fluxes of it and of sersic")
    add(
        "--background",
        choices=BACKGROUNDS,
        default="constant",
        help="the sky below the sources, fitted with them. Default: %(default)s",
    )
    add(
        "--position-error",
        type=_positive,
        default=0.5,
        metavar="PIXELS",
        help="standard deviation of the positions in the store, each way. Default: %(default)s",
    )
    add(
        "--model-error",
        type=_share,
        default=0.02,
        metavar="SHARE",
        help="by which models may be wrong, of the local light; 0 for simulations with the same "
        "models. Default: %(default)s",
    )
    add("--no-covariance", action="store_true", help="no covariance of the fluxes: less disk")


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no integer from 1")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no I/N with I from 1 to N")
    return int(match[1]), int(match[2])


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to below 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
