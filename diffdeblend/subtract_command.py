"""What `diffdeblend subtract` does, once the command line is understood."""

import argparse
from typing import Any

import numpy as np

from diffdeblend.commands import warnings_in_a_line
from diffdeblend.deblend.catalog import versions
from diffdeblend.epoch_inputs import options_of, psf_choices, settings_of_each
from diffdeblend.io.differences import difference_summary, write_transients
from diffdeblend.io.raw_images import read_raw
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.listing import closing_lines, table_of, with_error
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.transients.find_transients import Transients, find_transients

_SHOWN = 10


def run_subtract(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend subtract`: read, prepare, subtract, judge, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        if not chosen.threshold > 0:
            raise ValueError(f"--threshold must be positive; got {chosen.threshold}.")
        progress.begin("read")
        images = [read_raw(path) for path in (chosen.new, chosen.reference)]
        settings = settings_of_each(chosen, 2)
        psfs = psf_choices(chosen, images)
        make_directory(chosen.output)
        found = find_transients(
            images[0].source,
            images[1].source,
            psf=(psfs[0], psfs[1]),
            align=None if chosen.align == "none" else chosen.align,
            beta=chosen.beta,
            shift=chosen.shift,
            background="fit" if chosen.background == "fit" else 0.0,
            shift_degree=chosen.shift_degree,
            registration_noise=chosen.registration_noise,
            varying=chosen.varying,
            tile=chosen.tile,
            threshold=chosen.threshold,
            new_settings=settings[0],
            reference_settings=settings[1],
            report=progress.begin,
        )
        progress.begin("write")
        summary = {
            "inputs": {"new": str(chosen.new), "reference": str(chosen.reference)},
            "settings": options_of(chosen),
            **difference_summary(found),
            "versions": versions(),
        }
        written = write_transients(found, chosen.output, summary, cards=images[0].cards)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**summary, "seconds": progress.seconds}, written["summary.json"])
    print(_listing(found, summary))
    print("\n".join(closing_lines(written)))


def _listing(found: Transients, summary: dict[str, Any]) -> str:
    """What the images differ by, and the brightest candidates."""
    lines = [
        f"beta {_few(summary['beta'], 4)}, shift ({_few(summary['dx'], 3)}, "
        f"{_few(summary['dy'], 3)}) px, robust sigma of S_corr "
        f"{summary['scorr_robust_sigma']:.3f}",
    ]
    n, n_points = len(found.candidates), len(found.transients)
    lines.append(f"{n} candidate{'' if n == 1 else 's'}, {n_points} of them transient")
    if not n:
        return "\n".join(lines)
    flux, error = (
        np.asarray(getattr(found.candidates[name], "value", found.candidates[name]), float)
        for name in ("flux", "flux_err")
    )
    order = np.argsort(-np.abs(flux), kind="stable")[:_SHOWN]
    sky = "ra" in found.candidates.colnames
    rows = [["x", "y", *(["ra", "dec"] if sky else []), "significance", "flux", "verdict"]]
    for k in map(int, order):
        row: Any = found.candidates[k]
        at = [f"{_plain(row['ra']):.6f}", f"{_plain(row['dec']):+.6f}"] if sky else []
        rows.append(
            [
                f"{_plain(row['x']):.2f}",
                f"{_plain(row['y']):.2f}",
                *at,
                f"{_plain(row['significance']):.1f}",
                with_error(float(flux[k]), float(error[k])),
                str(row["verdict"]),
            ]
        )
    if n > len(order):
        lines.append(f"the {len(order)} brightest:")
    return "\n".join([*lines, table_of(rows)])


def _plain(value: Any) -> float:
    return float(getattr(value, "value", value))


def _few(value: float | list[float], digits: int) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{one:.{digits}f}" for one in values)
