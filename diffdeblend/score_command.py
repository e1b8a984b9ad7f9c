"""What `diffdeblend score` does, once the command line is understood."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend import __version__
from diffdeblend.own_code import load_own
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress, bar
from diffdeblend.score import (
    Scores,
    adaptive_moments,
    ksb_ellipticity,
    load_measure,
    score_parts,
    scores_table,
    write_scores,
)
from diffdeblend.score.apertures import Aperture
from diffdeblend.simulate import Blends, count_blends, read_blends, read_surveys

# Of the aperture among the target measures, in pixels.
_APERTURE = 5.0
# The first of these that a set has is that of the table.
_BANDS = ("r", "i", "IE", "f814w", "F129")


def run_score(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend score`: read blends, measure, score, print, write.

    **Raises:** `ValueError`, `OSError` or `ImportError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    if chosen.batch < 1 or (chosen.n is not None and chosen.n < 1):
        raise ValueError(f"--n and --batch must be at least 1; got {chosen.n} and {chosen.batch}.")
    progress.begin("read")
    measures = [load_measure(word.strip()) for word in chosen.measure.split(",")]
    survey = chosen.survey or next(iter(read_surveys(chosen.blends, 0, 0)))
    total = count_blends(chosen.blends)
    n = total if chosen.n is None else min(chosen.n, total)
    if not n:
        raise ValueError(f"{chosen.blends!r} has no blends.")
    first = read_blends(chosen.blends, survey, start=0, stop=1)
    if first.isolated is None:
        raise ValueError(
            f"{chosen.blends!r} has no isolated images, which scores need; simulate it without "
            "--no-isolated."
        )
    band = chosen.band or band_of(first.bands)
    targets = targets_of(chosen.target)
    progress.end()
    folder = Path(chosen.output)
    report = bar(n * len(measures), None if chosen.quiet else sys.stderr)
    done = {measure.name: 0 for measure in measures}

    def advance(name: str, finished: int, failures: int) -> None:
        done[name] = finished
        report(sum(done.values()))

    scores = score_parts(
        _batches(chosen.blends, survey, n, chosen.batch),
        measures,
        folder / "parts",
        positions=chosen.positions,
        workers=chosen.workers,
        report=advance,
        band=band,
        max_distance=chosen.max_distance,
        target_measures=targets,
    )
    report(None)
    progress.begin("write")
    write_scores(scores, folder / "scores.npz")
    table = scores_table(scores, sorted_metrics(scores))
    table.write(folder / "table.ecsv", overwrite=True)
    written = ["scores.npz", "summary.json", "table.ecsv", *_figure(scores, folder)]
    progress.end()
    summary = {
        "blends": str(chosen.blends),
        "survey": survey,
        "n_blends": n,
        "band": band,
        "positions": chosen.positions,
        "max_distance": chosen.max_distance,
        "version": __version__,
        "measures": {name: figures(one, band) for name, one in scores.items()},
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(listing(summary["measures"], band))
    for name, one in scores.items():
        if one.settings.get("failures"):
            progress.say(
                f"diffdeblend: warning: {name} failed for {one.settings['failures']} of {n} "
                f"blends; {one.settings['failed']}"
            )
    print(f"written to {folder}: {', '.join(sorted(written))}")


def _batches(path: str, survey: str, n: int, batch: int) -> Iterator[Blends]:
    for start in range(0, n, batch):
        yield read_blends(path, survey, start=start, stop=min(n, start + batch))


def band_of(bands: tuple[str, ...]) -> str:
    """The band of the table where none is named."""
    return next((band for band in _BANDS if band in bands), bands[len(bands) // 2])


def targets_of(words: str) -> dict[str, Callable[..., Any]]:
    """Target measures by the words of the command line.

    **Raises:** `ValueError` for an unknown one.
    """
    known = {
        "ellipticity": ksb_ellipticity,
        "moments": adaptive_moments,
        "aperture": Aperture(_APERTURE),
    }
    found = {}
    for word in (part.strip() for part in words.split(",") if part.strip()):
        if word in known:
            found[word] = known[word]
        elif ".py:" in word:
            found[word.rpartition(":")[2]] = load_own(word, "--target")
        else:
            raise ValueError(
                f"--target must be of {', '.join(known)}, or file.py:function; got {word!r}."
            )
    return found


def figures(scores: Scores, band: str) -> dict[str, float | None]:
    """The figures of one measure by name; None where there is none, as JSON has no NaN."""
    every = {name: scores.value(name) for name in np.asarray(scores.summary["metric"]).tolist()}
    chosen = {name: every.get(name) for name in ("precision", "recall", "f1")}
    for name, metric in (
        ("flux_bias", f"flux_bias_{band}"),
        ("flux_scatter", f"flux_scatter_{band}"),
        ("coverage_68", f"coverage1_{band}"),
    ):
        chosen[name] = every.get(metric)
    chosen["seconds_per_blend"] = scores.settings["seconds"] / scores.n_blends
    chosen["failures"] = scores.settings["failures"]
    return {
        name: None if value is None or not math.isfinite(value) else value
        for name, value in (chosen | every).items()
    }


def sorted_metrics(scores: Mapping[str, Scores]) -> list[str]:
    """All figures that any measure has, in their order."""
    names = [m for one in scores.values() for m in np.asarray(one.summary["metric"]).tolist()]
    return list(dict.fromkeys(names))


def listing(measures: Mapping[str, Mapping[str, float | None]], band: str) -> str:
    """A line a measure."""
    columns = [
        ("precision", "precision", "{:.3f}"),
        ("recall", "recall", "{:.3f}"),
        ("f1", "F1", "{:.3f}"),
        ("flux_bias", f"bias {band}", "{:+.4f}"),
        ("flux_scatter", f"scatter {band}", "{:.4f}"),
        ("coverage_68", "in 1 sigma", "{:.3f}"),
        ("rmse", "RMSE", "{:.4g}"),
        ("ssim", "SSIM", "{:.4f}"),
        ("iou", "IoU", "{:.3f}"),
        ("seconds_per_blend", "s/blend", "{:.4f}"),
    ]
    rows = [["measure", *(title for _, title, _ in columns)]]
    for name, values in measures.items():
        cells = (values.get(key) for key, _, _ in columns)
        shown = [
            "-" if value is None else form.format(value)
            for value, (_, _, form) in zip(cells, columns, strict=True)
        ]
        rows.append([name, *shown])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _figure(scores: Mapping[str, Scores], folder: Path) -> list[str]:
    """The measures side by side, if matplotlib is there."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        return []
    from diffdeblend.plot_scores import plot_summary

    plot_summary(scores).savefig(folder / "figure.png", dpi=120)
    return ["figure.png"]
