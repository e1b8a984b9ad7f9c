"""What a subtraction leaves on disk: difference, significance, PSF, candidates, figure, summary."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdeblend.files import whole_file
from diffdeblend.io.fits_images import image_list, per_band
from diffdeblend.io.results import make_directory, with_provenance, write_figure, write_summary

if TYPE_CHECKING:
    from diffdeblend.subtract.difference import Difference
    from diffdeblend.transients.find_transients import Transients


def write_transients(
    found: "Transients",
    directory: str | os.PathLike,
    summary: Mapping[str, Any],
    *,
    cards: Any = None,
) -> dict[str, Path]:
    """Write what changed to a directory, which is made if it is not there.

    `difference.fits` (D, and BAD, 1 where nothing can be said), `scorr.fits` (S_corr, and FLUX and
    FLUX_ERR of a point at each pixel), `psf.fits` (of D), `candidates.ecsv`, `figure.png`,
    `summary.json`. Each appears whole or not at all, and replaces one that is there.

    - `summary`: what `summary.json` says besides the numbers of `difference_summary`.
    - `cards`: the header of the new image's file, which the images keep.

    Returns the files by name. Without matplotlib there is no figure, and one of an older run is
    removed: it would show something else.

    **Raises:** `ValueError` if the directory cannot be made.
    """
    folder = make_directory(directory)
    files: dict[str, Path] = {}

    def place(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    difference = found.difference
    header = difference.exposure.header
    told = difference_cards(difference, summary.get("inputs", {}))
    maps = {
        "difference.fits": {"D": difference.D, "BAD": difference.bad},
        "scorr.fits": {
            "S_CORR": difference.S_corr,
            "FLUX": difference.flux,
            "FLUX_ERR": difference.flux_err,
        },
    }
    for name, planes in maps.items():
        with whole_file(place(name)) as temporary:
            image_list(planes, header, cards=cards, extra=told).writeto(temporary)
    placeless = replace(header, wcs=None)
    with whole_file(place("psf.fits")) as temporary:
        image_list({"PSF": difference.P_D}, placeless, extra=told).writeto(temporary)
    table: Any = with_provenance(found.candidates, summary)
    with whole_file(place("candidates.ecsv")) as temporary:
        table.write(temporary, format="ascii.ecsv")

    def draw() -> Any:
        from diffdeblend.plot_subtraction import subtraction_figure

        new, reference = found.new.exposure, found.reference.exposure
        return subtraction_figure(difference, new, reference, found.candidates)

    write_figure(draw, folder, place)
    # Last: where it is, all else is.
    write_summary(summary, place("summary.json"))
    return files


def difference_cards(
    difference: "Difference", inputs: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """Cards that tell how a difference was made."""
    cards: dict[str, tuple[Any, str]] = {}
    for key, name in (("NEWIMAGE", "new"), ("REFIMAGE", "reference")):
        if name in inputs:
            cards[key] = (Path(str(inputs[name])).name, f"{name} image")
    for name, values, comment in (
        ("BETA", difference.beta, "flux in new over flux in reference"),
        ("DX", difference.dx, "[pix] position in new minus in reference"),
        ("DY", difference.dy, "[pix] position in new minus in reference"),
        ("GAMMA", difference.gamma, "background of new less beta reference's"),
        ("F_D", difference.F_D, "D of a point of unit flux of the reference"),
        ("F_S", difference.F_S, "its score"),
    ):
        cards |= per_band(name, values, comment)
    return cards


def difference_summary(found: "Transients") -> dict[str, Any]:
    """The numbers of `summary.json` on a difference; one number a band, or one for one band."""
    from diffdeblend.transients.statistics import difference_statistics

    difference, fit = found.difference, found.difference.fit
    numbers: dict[str, Any] = {
        name: one_or_list(getattr(difference, name)) for name in ("beta", "dx", "dy", "gamma")
    }
    if fit is not None:
        numbers |= {
            "beta_err": one_or_list(fit.beta_err),
            "registration_noise": one_or_list(fit.residual),
            "flux_ratio_noise": one_or_list(fit.residual_beta),
            "psf_noise": one_or_list(fit.residual_width),
            "n_stars_compared": one_or_list(fit.n_stars),
            "shift_degree": fit.degree,
            "converged": bool(np.asarray(fit.converged).all()),
        }
    numbers |= difference_statistics(difference)
    verdicts, counts = np.unique(np.asarray(found.candidates["verdict"]), return_counts=True)
    numbers |= {
        "fraction_bad": float(np.mean(np.asarray(difference.bad))),
        "n_candidates": len(found.candidates),
        "n_transients": len(found.transients),
        "verdicts": {str(word): int(n) for word, n in zip(verdicts, counts, strict=True)},
    }
    return numbers


def one_or_list(values: Any) -> float | list[float]:
    """A number of one band as it is, those of several as a list."""
    numbers = [float(v) for v in np.asarray(values, float).reshape(-1)]
    return numbers[0] if len(numbers) == 1 else numbers
