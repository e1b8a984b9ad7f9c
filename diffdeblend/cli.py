"""The command `diffdeblend`: from files to files."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from diffdeblend import __version__
from diffdeblend.blend_options import add_score, add_simulate
from diffdeblend.catalog_options import add_catalog
from diffdeblend.coadd_options import add_coadd
from diffdeblend.cores import collect_seldom
from diffdeblend.cut_options import add_cut
from diffdeblend.deblend_options import add_deblend
from diffdeblend.detect_options import add_detect
from diffdeblend.measure_options import add_measure
from diffdeblend.progress import Progress, one_line
from diffdeblend.psf_options import add_psf
from diffdeblend.subtract_options import add_subtract
from diffdeblend.survey_options import add_survey
from diffdeblend.train_options import add_train

# Nothing heavy is imported here: `--help` answers at once. What a command needs, it imports.


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
    if getattr(chosen, "cache", None) is not None or chosen.command == "fit-survey":
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


def run() -> None:
    """`main` as a process of its own."""
    collect_seldom()
    code = main()
    if code == 130:
        # Threads of XLA that still compile cannot be stopped; to end the interpreter around them
        # is a crash. All files are closed by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(chosen: argparse.Namespace, progress: Progress) -> None:
    """What a command needs is imported here, when it is known which one it is."""
    if chosen.command == "simulate":
        from diffdeblend.simulate_command import run_simulate

        run_simulate(chosen, progress)
    elif chosen.command == "detect":
        from diffdeblend.detect_command import run_detect

        run_detect(chosen, progress)
    elif chosen.command == "measure":
        from diffdeblend.measure_command import run_measure

        run_measure(chosen, progress)
    elif chosen.command == "psf":
        from diffdeblend.psf_command import run_psf

        run_psf(chosen, progress)
    elif chosen.command == "subtract":
        from diffdeblend.subtract_command import run_subtract

        run_subtract(chosen, progress)
    elif chosen.command == "coadd":
        from diffdeblend.coadd_command import run_coadd

        run_coadd(chosen, progress)
    elif chosen.command == "fit-survey":
        from diffdeblend.survey_command import run_survey

        run_survey(chosen, progress)
    elif chosen.command == "catalog":
        from diffdeblend.catalog_command import run_catalog

        run_catalog(chosen, progress)
    elif chosen.command == "train-prior":
        from diffdeblend.train_command import run_train

        run_train(chosen, progress)
    elif chosen.command == "cut":
        from diffdeblend.cut_command import run_cut

        run_cut(chosen, progress)
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
    add_deblend(commands)
    add_detect(commands)
    add_measure(commands)
    add_psf(commands)
    add_subtract(commands)
    add_coadd(commands)
    add_cut(commands)
    add_simulate(commands)
    add_score(commands)
    add_train(commands)
    add_survey(commands)
    add_catalog(commands)
    return parser
