"""What `diffdeblend psf` does, once the command line is understood."""

import argparse
from typing import Any

from diffdeblend.commands import warnings_in_a_line
from diffdeblend.deblend.catalog import versions
from diffdeblend.epoch_inputs import options_of, settings_of_each, star_method
from diffdeblend.io.psf_results import psf_summary, write_psf
from diffdeblend.io.raw_images import read_raw
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.listing import closing_lines, table_of
from diffdeblend.prepare.prepare import prepare
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.stars.exposure_psf import exposure_psf
from diffdeblend.stars.validate import PSFReport, validate_psf


def run_psf(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend psf`: read, prepare, fit stars, judge, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        how = star_method(chosen, chosen.method, reserve=chosen.reserve, seed=chosen.seed)
        if chosen.smooth and chosen.method != "basis":
            raise ValueError("--smooth is for --method basis; other PSFs are smooth already.")
        progress.begin("read")
        raw = read_raw(chosen.input)
        settings = settings_of_each(chosen, 1)[0]
        make_directory(chosen.output)
        progress.begin("prepare")
        made = prepare(raw.source, psf=None, **settings)
        progress.begin("stars")
        psf, stars = exposure_psf(made.exposure, how)
        progress.begin("judge")
        reports = tuple(_judged(made.exposure, band, star) for band, star in enumerate(stars))
        bands = made.exposure.bands
        summary = {
            "inputs": {"image": str(chosen.input)},
            "settings": options_of(chosen),
            "bands": psf_summary(stars, reports, bands),
            "versions": versions(),
        }
        progress.begin("write")
        written = write_psf(psf, stars, chosen.output, summary, bands=bands, reports=reports)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**summary, "seconds": progress.seconds}, written["summary.json"])
    print(_listing(summary["bands"]))
    print("\n".join(closing_lines(written)))


def _judged(exposure: Any, band: int, star: Any) -> PSFReport | None:
    """What the stars kept out say; None if there are none of use."""
    if not len(star.reserved):
        return None
    try:
        return validate_psf(
            exposure.image[band], exposure.variance[band], ~exposure.good[band], star
        )
    except ValueError:
        return None  # none of them is free of masks and neighbours


def _listing(bands: dict[str, Any]) -> str:
    head = ["band", "FWHM [px]", "beta", "stars", "used", "kept out", "images", "degree", "excess"]
    rows = [head]
    for band, found in bands.items():
        judged = found.get("reserved")
        rows.append(
            [
                band,
                f"{found['fwhm']:.3f}",
                f"{found['beta']:.2f}",
                *(str(found[name]) for name in ("n_stars", "n_used", "n_reserved", "n_basis")),
                str(found["degree"]),
                "-" if judged is None else f"{judged['residual_in_excess_of_noise']:.3f}",
            ]
        )
    return table_of(rows)
