"""What `diffdeblend detect` does, once the command line is understood."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from diffdeblend.commands import inputs_of, read_exposure, warnings_in_a_line
from diffdeblend.deblend.catalog import versions
from diffdeblend.detect.detect import Detections, GaussianKernel, PSFKernel, detect
from diffdeblend.detect.methods import (
    Dbscan,
    Denclue,
    LogWatershed,
    MeshSky,
    MultiThreshold,
    NoSky,
    SkewnessSky,
    Threshold,
)
from diffdeblend.io.detections import write_detections, write_summary
from diffdeblend.io.fits import read_psf
from diffdeblend.io.results import make_directory
from diffdeblend.listing import closing_lines, table_of
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.segment import Validation

_SHOWN = 10


def run_detect(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend detect`: read, find, measure, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        files = [Path(name) for name in chosen.input]
        if not files:
            raise ValueError("INPUT is missing; give an image, before all options.")
        methods = methods_of(chosen)
        progress.begin("read")
        exposure = read_exposure(files, chosen, needs_psf=chosen.kernel == "psf")
        make_directory(chosen.output)
        found = detect(exposure, **methods, report=progress.begin)
        progress.end()
        summary = {
            "inputs": inputs_of(files, chosen),
            "settings": settings_of(chosen, found),
            "n_sources": found.n_sources,
            "n_parents": found.parents.n_labels,
            "background_median": [float(np.median(sky.level)) for sky in found.skies],
            "background_rms_median": [float(np.median(sky.rms)) for sky in found.skies],
            "versions": versions(),
        }
        progress.begin("write")
        written = write_detections(found, chosen.output, summary)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**summary, "seconds": progress.seconds}, written["summary.json"])
    print(_listing(found))
    print("\n".join(closing_lines(written)))


def methods_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `detect` that the command line means.

    **Raises:** `ValueError` for options that do not fit.
    """
    for name, least in (("threshold", 0.0), ("mesh", 1), ("n_pixels", 1), ("n_levels", 1)):
        value = getattr(chosen, name)
        if not (value > 0 and value >= least):
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} must be {f'at least {least}' if least else 'positive'}; got {value}."
            )
    mesh = {
        "box_size": chosen.mesh,
        "filter_size": chosen.filter_size,
        "exclude_percentile": chosen.exclude_percentile,
        "estimator": chosen.estimator,
    }
    skies = {
        "mesh": MeshSky(**mesh),
        "masked": MeshSky(**mesh, masked=True),
        "skewness": SkewnessSky(),
        "none": NoSky(),
    }
    segmentations = {
        "threshold": Threshold(chosen.n_pixels, chosen.connectivity),
        "dbscan": Dbscan(eps=chosen.dbscan_eps, K=chosen.dbscan_k, min_size=chosen.min_size),
    }
    validation = Validation() if chosen.validate else None
    denclue: dict[str, Any] = {"h_frac": chosen.h_frac, "validation": validation}
    deblendings = {
        "multithreshold": MultiThreshold(
            chosen.n_pixels, chosen.n_levels, chosen.contrast, chosen.mode, chosen.connectivity
        ),
        "denclue": Denclue(**denclue),
        "denclue_watershed": Denclue(**denclue, watershed=True),
        "log_watershed": LogWatershed(),
        "none": None,
    }
    return {
        "n_sigma": chosen.threshold,
        "kernel": _kernel(chosen),
        "sky": skies[chosen.background],
        "segmentation": segmentations[chosen.segmentation],
        "deblending": deblendings[chosen.deblending],
        "gain": chosen.gain,
        "local_bkg_width": chosen.local_background,
        "apertures": chosen.apertures,
    }


def _kernel(chosen: argparse.Namespace) -> Any:
    if chosen.kernel == "gaussian":
        return GaussianKernel(chosen.kernel_fwhm, chosen.kernel_size)
    if chosen.kernel == "none":
        return None
    if chosen.kernel == "psf":
        return PSFKernel()
    kernel = np.asarray(read_psf([chosen.kernel]), float)
    return kernel[0] if kernel.ndim == 3 else kernel


def settings_of(chosen: argparse.Namespace, found: Detections) -> dict[str, Any]:
    """Every option with its value, defaults included, and what they came to."""
    left_out = {"command", "input", "output", "quiet", "cache", "debug"}
    options = {key: value for key, value in vars(chosen).items() if key not in left_out}
    return options | {"methods": found.settings, "bands": list(found.header.bands)}


def _listing(found: Detections) -> str:
    """How many, and the brightest of them."""
    labels, parents = found.labels.n_labels, found.parents.n_labels
    head = f"{labels} sources" if labels != 1 else "1 source"
    if parents != labels:
        head += f", of {parents} before deblending"
    if not labels:
        return head
    table: Any = found.catalog
    flux = np.nan_to_num(np.asarray(table["kron_flux"], float), nan=-np.inf)
    order = np.argsort(-flux, kind="stable")[:_SHOWN]
    names = ("label", "x_centroid", "y_centroid", "area", "kron_flux", "kron_flux_err")
    rows = [[str(name) for name in names]]
    for row in order:
        values = [np.asarray(table[name], float)[row] for name in names]
        rows.append(
            [
                f"{v:.0f}" if n in ("label", "area") else f"{v:.2f}"
                for n, v in zip(names, values, strict=True)
            ]
        )
    more = f"the {len(order)} brightest:" if labels > len(order) else "by Kron flux:"
    return "\n".join([head, more, table_of(rows)])
