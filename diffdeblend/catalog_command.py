"""What `diffdeblend catalog` does, once the command line is understood."""

import argparse
from pathlib import Path

from diffdeblend.progress import Progress
from diffdeblend.survey.catalog import Merged, merge_parts
from diffdeblend.survey.hats import write_hats
from diffdeblend.survey.status import RETRIED


def run_catalog(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend catalog`: read the parts of a run, write one table, say what is in it.

    **Raises:** `ValueError`, `OSError` or `ImportError`, worded for a user.
    """
    progress.begin("merge")
    how = {"allow_missing": chosen.partial, "overwrite": chosen.overwrite}
    if chosen.hats or Path(chosen.file).suffix.lower() == ".hats":
        if chosen.rows != "sources":
            raise ValueError(f"--rows of HATS must be sources; got {chosen.rows}.")
        merged = write_hats(chosen.run, chosen.file, **how)
    else:
        merged = merge_parts(chosen.run, chosen.file, chosen.rows, **how)
    progress.end()
    print(listing(merged, chosen.rows))


def listing(merged: Merged, rows: str) -> str:
    """What a catalogue holds, in a few lines."""
    n_found = merged.n_stamps - merged.n_missing
    what = (
        f"{merged.rows} sources of {n_found} stamps" if rows == "sources" else f"{n_found} stamps"
    )
    lines = [f"{merged.path}: {what}"]
    counts = sorted(merged.status.items(), key=lambda item: -item[1])
    lines.append("  " + ", ".join(f"{word} {count}" for word, count in counts))
    if merged.n_missing:
        lines.append(f"  not fitted yet: {merged.n_missing} of {merged.n_stamps} stamps")
    failed = sum(count for word, count in merged.status.items() if word in RETRIED)
    if failed:
        lines.append(f"  {failed} stamps failed: NaN in the table, the reason in its column error")
    return "\n".join(lines)
