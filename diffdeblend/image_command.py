"""What `diffdeblend deblend` does with an image that is larger than a blend."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from diffdeblend.batch.image import DeblendedImage, deblend_image
from diffdeblend.exposure import Exposure
from diffdeblend.io.deblended_image import write_deblended_image
from diffdeblend.io.results import write_summary
from diffdeblend.listing import closing_lines
from diffdeblend.prior_inputs import prior_lines, shapes_of
from diffdeblend.priors import DecoderPrior
from diffdeblend.progress import Progress, blend_bar

# Larger than the largest stamp, or with more sources than a blend is fitted with at once.
LARGEST, MOST = 256, 32


def is_large(exposure: Exposure, positions: Float[ndarray, "source 2"] | None, split: str) -> bool:
    """Whether an image is to be cut into blends: by its size, or as the user says."""
    if split != "auto":
        return split == "always"
    return max(exposure.shape) > LARGEST or (positions is not None and len(positions) > MOST)


def run_image(
    exposure: Exposure,
    positions: Float[ndarray, "source 2"] | None,
    inputs: dict[str, Any],
    chosen: argparse.Namespace,
    progress: Progress,
    prior: Any = None,
) -> None:
    """Detect, cut, fit in batches, write one catalogue, print.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.model == "multi_gaussian":
        raise ValueError(
            f"--model multi_gaussian is for one blend; an image of {exposure.shape[1]} x "
            f"{exposure.shape[0]} pixels is fitted in many (--split never fits it as one)."
        )
    decodes = isinstance(prior, DecoderPrior)
    bar = None if chosen.quiet or not sys.stderr.isatty() else blend_bar(out=sys.stderr)
    found = deblend_image(
        exposure,
        positions,
        background=chosen.background,
        free_form=not decodes and chosen.model in (None, "auto") and not chosen.no_free_form,
        **shapes_of(chosen, prior),
        report=progress.begin,
        progress=bar,
    )
    progress.begin("write")
    summary = {
        "inputs": inputs,
        **found.summary,
        "n_flagged": int((found.sources.flags != 0).sum()),
    }
    written = write_deblended_image(found, chosen.output, summary)
    progress.end()
    summary["seconds"] = progress.seconds
    write_summary(summary, written["summary.json"])
    print(_closing(found, written))


def _closing(found: DeblendedImage, written: dict[str, Path]) -> str:
    summary = found.summary
    by_band = ", ".join(f"{b} {v:.3f}" for b, v in summary["reduced_chi2_by_band"].items())
    lines = [
        f"{summary['n_sources']} sources in {summary['n_blends']} blends",
        f"reduced chi2 {summary['reduced_chi2']:.3f} ({by_band})",
        *prior_lines(summary),
        *closing_lines(written),
    ]
    return "\n".join(lines)
