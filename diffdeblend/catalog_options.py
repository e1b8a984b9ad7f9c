"""The options of `diffdeblend catalog`. Loads nothing heavy."""

import argparse
from typing import Any

_DESCRIPTION = """\
One table of all that a survey run found.

Parts of the run are read one after the other, so that memory does not grow with the run. Every
stamp counts once; what became of it stands with each of its sources.
"""

_EPILOG = """\
examples:
  diffdeblend catalog run catalog.parquet
  diffdeblend catalog run stamps.parquet --rows stamps
  diffdeblend catalog run so_far.fits --partial --overwrite
  diffdeblend catalog run survey.hats

what is written:
  .parquet  for pyarrow, pandas, polars, and astropy if pandas is there; with units and descriptions
  .fits     the same for TOPCAT and astropy; a row a stamp goes without lists
  .hats     a folder for LSDB, divided by places on the sky; needs the package hats-import

exit codes: 0 done; 2 wrong input or options; 130 interrupted.
"""


def add_catalog(commands: Any) -> None:
    """The grammar of `diffdeblend catalog`."""
    parser = commands.add_parser(
        "catalog",
        help="make one table of a survey run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="diffdeblend catalog RUN FILE [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="folder that fit-survey wrote to")
    add("file", metavar="FILE", help="what to write, .parquet, .fits or .hats")
    add = parser.add_argument_group("the table").add_argument
    add(
        "--rows",
        choices=("sources", "stamps"),
        default="sources",
        help="what a row is; stamps without sources are among the stamps only. "
        "Default: %(default)s",
    )
    add("--hats", action="store_true", help="write HATS whatever FILE is called")
    add("--partial", action="store_true", help="write what is there, though stamps are missing")
    add("--overwrite", action="store_true", help="replace FILE if it is there")
    add = parser.add_argument_group("the run").add_argument
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--debug", action="store_true", help="on an error, say where in the code it came from")
