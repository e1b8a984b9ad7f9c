"""What `diffdeblend fit-survey` does, once the command line is understood."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffdeblend.commands import warnings_in_a_line
from diffdeblend.prior_inputs import check_options
from diffdeblend.progress import Progress, survey_bar
from diffdeblend.survey import FitSettings, fit_survey, in_process, on_cluster
from diffdeblend.survey.engine import Engine
from diffdeblend.survey.summary import write_summary

# Kinds of failures that are told.
_SHOWN = 5


def run_survey(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend fit-survey`: plan, fit what is missing, sum up.

    **Raises:** `ValueError`, `OSError` or `ImportError`, worded for a user.
    """
    with progress.listening(), warnings_in_a_line(progress):
        _run(chosen, progress)


def _run(chosen: argparse.Namespace, progress: Progress) -> None:
    out = Path(chosen.out)
    progress.begin("plan")
    bar = survey_bar(out=None if chosen.quiet else sys.stderr)

    def report(*told: Any) -> None:
        progress.end()
        bar(*told)

    found = fit_survey(
        chosen.store,
        out,
        settings_of(chosen),
        batch=chosen.batch,
        engine=engine_of(chosen),
        shard=chosen.shard,
        limit=chosen.limit,
        retry_failed=chosen.retry_failed,
        cache=chosen.cache or out / "programs",
        report=report,
    )
    bar(None)
    lines = [
        f"{found.done} of {found.planned} stamps fitted, {found.stamps_per_second:.0f} a second"
    ]
    lines += [f"  {status}: {n}" for status, n in sorted(found.status.items())]
    # Shards that each read all parts would together read them all as often as there are shards.
    if chosen.shard == (1, 1):
        progress.begin("summary")
        told = {**asdict(found), "stamps_per_second": found.stamps_per_second}
        lines += _whole(write_summary(out, {"last_run": told}))
        progress.end()
    print("\n".join([*lines, f"written to {out}"]))


def _whole(summary: Mapping[str, Any]) -> list[str]:
    """What became of all stamps of a run, for a terminal."""
    stamps, sources = summary["stamps"], summary["sources"]
    lines = [
        f"in all {stamps['finished']} of {stamps['planned']} stamps, {sources['fitted']} sources"
    ]
    if sources["fitted"]:
        flagged = summary["flags"]["any"]["sources"]
        lines[0] += f", {flagged} of them flagged"
        lines.append(f"reduced chi2 {summary['reduced_chi2']['median']:.3f} (median)")
    for error in summary["errors"][:_SHOWN]:
        lines.append(f"  {error['stamps']} {error['status']}: {error['error']}")
    return lines


def settings_of(chosen: argparse.Namespace) -> FitSettings:
    """How the command line wants stamps fitted.

    **Raises:** `ValueError` for options that do not go together.
    """
    check_options(chosen)
    return FitSettings(
        model=chosen.model,
        background=chosen.background,
        position_error=chosen.position_error,
        model_error=chosen.model_error,
        free_form=chosen.free_form,
        prior=chosen.prior,
        temperature=chosen.temperature,
        fallback=not chosen.no_fallback,
        robust=chosen.robust,
        covariance=not chosen.no_covariance,
    )


def engine_of(chosen: argparse.Namespace) -> Engine:
    """Where the command line wants stamps fitted.

    **Raises:** `ValueError` for options that do not go together.
    """
    asked = chosen.workers is not None or chosen.scheduler_file is not None
    if chosen.engine == "local" and asked:
        raise ValueError("--workers and --scheduler-file go with --engine dask.")
    if chosen.workers is not None and chosen.scheduler_file is not None:
        raise ValueError("--workers are started here, those of --scheduler-file are there already.")
    if chosen.engine == "dask" or asked:
        return on_cluster(chosen.workers, scheduler_file=chosen.scheduler_file)
    return in_process
