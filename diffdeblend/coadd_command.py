"""What `diffdeblend coadd` does, once the command line is understood."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.coadd.coadd import Coadd, coadd
from diffdeblend.commands import warnings_in_a_line
from diffdeblend.deblend.catalog import versions
from diffdeblend.epoch_inputs import options_of, psf_choice, settings_of_each
from diffdeblend.exposure import Exposure
from diffdeblend.io.coadds import coadd_summary, write_coadd
from diffdeblend.io.raw_images import read_raw
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.listing import closing_lines, table_of
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.subtract.fit import fit_subtraction
from diffdeblend.transients.epoch import make_epoch

# Epochs are kept between the passes if their pixels are fewer; else they are prepared again.
_KEPT_PIXELS = 2e8


def run_coadd(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend coadd`: read and prepare one image after the other, add, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        if len(chosen.input) < 2:
            raise ValueError("IMAGE must be at least two files; write them before all options.")
        for path in chosen.input:
            if not Path(path).is_file():
                raise ValueError(f"there is no file {path!r}.")
        epochs = _Epochs(chosen, progress)
        make_directory(chosen.output)
        first = epochs.first
        shift = None
        if chosen.shift == "fit":
            shift = [(0.0, 0.0)] + [_shift(one, first) for one in epochs.others()]
        progress.begin("add")
        found = coadd(epochs, scale=chosen.scale, shift=shift)
        summary = {
            "inputs": {"images": [str(path) for path in chosen.input]},
            "settings": options_of(chosen),
            **coadd_summary(found),
            **({} if shift is None else {"shift": [list(one) for one in shift]}),
            "versions": versions(),
        }
        progress.begin("write")
        written = write_coadd(found, chosen.output, summary, cards=epochs.cards)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**summary, "seconds": progress.seconds}, written["summary.json"])
    print(_listing(found, chosen.input))
    print("\n".join(closing_lines(written)))


class _Epochs:
    """The epochs, made ready when they are asked for, one at a time; few are kept for later."""

    def __init__(self, chosen: argparse.Namespace, progress: Progress):
        self._chosen, self._progress = chosen, progress
        self._settings = settings_of_each(chosen, len(chosen.input))
        self._kept: dict[int, Exposure] = {}
        self.cards: Any = None
        self.first = self._get(0)

    def __call__(self) -> Iterator[Exposure]:
        yield self.first
        yield from self.others()

    def others(self) -> Iterator[Exposure]:
        """All but the first."""
        for k in range(1, len(self._chosen.input)):
            yield self._get(k)

    def _get(self, k: int) -> Exposure:
        if k in self._kept:
            return self._kept[k]
        chosen = self._chosen
        self._progress.begin("prepare")
        image = read_raw(chosen.input[k])
        if k == 0:
            self.cards = image.cards
        psf = psf_choice(chosen, image, k, len(chosen.input))
        align = None if chosen.align == "none" or k == 0 else chosen.align
        made = make_epoch(
            image.source,
            psf=psf,
            onto=None if align is None else self.first,
            align=align,
            **self._settings[k],
        ).exposure
        if made.image.size * len(chosen.input) <= _KEPT_PIXELS:
            self._kept[k] = made
        return made


def _shift(exposure: Exposure, first: Exposure) -> tuple[float, float]:
    """Position in an exposure minus that in the first, over the bands."""
    fit = fit_subtraction(exposure, first, shift_degree=0)
    middle = (exposure.shape[1] - 1) / 2, (exposure.shape[0] - 1) / 2
    return float(np.mean(fit.dx_at(*middle))), float(np.mean(fit.dy_at(*middle)))


def _listing(found: Coadd, paths: list[str]) -> str:
    """Scale and noise of each epoch, in the first band."""
    rows = [["image", "scale", "noise", "share of information"]]
    scale, sigma = (np.asarray(v, float)[:, 0] for v in (found.scale, found.sigma))
    share = (scale / sigma) ** 2
    for k, path in enumerate(paths):
        rows.append(
            [
                os.path.basename(path),
                f"{scale[k]:.4f}",
                f"{sigma[k]:.4g}",
                f"{share[k] / share.sum():.3f}",
            ]
        )
    return table_of(rows)
