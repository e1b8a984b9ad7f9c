"""What `diffdeblend measure` does, once the command line is understood."""

import argparse
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from diffdeblend.background.source_masked import source_free_background
from diffdeblend.background.surface_fit import SurfaceFit
from diffdeblend.characterize import characterize
from diffdeblend.column_names import select_columns
from diffdeblend.commands import inputs_of, read_exposure, warnings_in_a_line
from diffdeblend.deblend.catalog import versions
from diffdeblend.detect.psf_width import determinant_radius
from diffdeblend.epoch_inputs import options_of
from diffdeblend.exposure import Exposure
from diffdeblend.io.measured_bands import write_measured
from diffdeblend.io.results import make_directory, write_summary
from diffdeblend.listing import closing_lines, table_of, with_error
from diffdeblend.multiband.measure_bands import BandCatalog, measure_bands
from diffdeblend.plot_measured import best_flux
from diffdeblend.programs import keep_programs
from diffdeblend.progress import Progress
from diffdeblend.psf import KolmogorovPSF
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.quantities.standard import WITH_CMODEL
from diffdeblend.widths import FWHM_PER_SIGMA

_BOX = 128
# Of a star, in pixels, as long as nothing is known.
_FIRST_SIGMA = 1.5


def run_measure(chosen: argparse.Namespace, progress: Progress) -> None:
    """`diffdeblend measure`: read, take the sky off, find, measure, print, write.

    **Raises:** `ValueError` or `OSError`, worded for a user.
    """
    if chosen.cache is not None:
        keep_programs(chosen.cache)
    with progress.listening(), warnings_in_a_line(progress):
        files = [Path(name) for name in chosen.input]
        if not files:
            raise ValueError("INPUT is missing; give images, before all options.")
        _check(chosen)
        progress.begin("read")
        exposure = read_exposure(files, chosen, needs_psf=False)
        priority = _priority(chosen, exposure)
        # Whether results can be written is better known before the work than after.
        make_directory(chosen.output)
        exposure = _prepared(exposure, chosen, progress)
        found = measure_bands(
            exposure,
            priority=priority,
            deblending=None if chosen.deblending == "none" else chosen.deblending,
            same=chosen.same,
            new=chosen.new,
            measurements=WITH_CMODEL,
            seed=chosen.seed,
            detection=detection_of(chosen),
            report=progress.begin,
        )
        summary = {
            "inputs": inputs_of(files, chosen),
            # Elsewhere `new` is an image and no option.
            "settings": {**options_of(chosen), "new": chosen.new, "bands": list(exposure.bands)},
            **{key: value for key, value in found.summary.items() if key != "settings"},
            "versions": versions(),
        }
        progress.begin("write")
        written = write_measured(found, chosen.output, summary)
        progress.end()
    # Once more, as only now it is known how long all took.
    write_summary({**summary, "seconds": progress.seconds}, written["summary.json"])
    # A pattern that fits no column is found out now, when nothing is lost by it.
    print(_listing(found, chosen))
    print("\n".join(closing_lines(written)))


def detection_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """The settings of `detect_footprints` that the command line means."""
    return {
        "threshold": chosen.threshold,
        "threshold_type": chosen.threshold_type,
        "include_multiplier": chosen.include_multiplier,
        "min_pixels": chosen.min_pixels,
        "kernel": None if chosen.kernel == "none" else chosen.kernel,
        "sigma": chosen.sigma,
        "grow": chosen.grow,
        "dynamic": None if chosen.dynamic == "none" else chosen.dynamic,
    }


def _check(chosen: argparse.Namespace) -> None:
    positive = ("threshold", "include_multiplier", "min_pixels", "sigma", "new")
    for name in (*positive, "same", "grow", "rows", "seed"):
        value = getattr(chosen, name)
        strict = name in positive
        if value is not None and not ((value > 0 or (value == 0 and not strict)) and value < 1e9):
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} must be {'positive' if strict else 'at least 0'}; got {value}."
            )
    if chosen.same > chosen.new:
        raise ValueError(
            f"--same must be at most --new; got {chosen.same} and {chosen.new} arcseconds."
        )


def _priority(chosen: argparse.Namespace, exposure: Exposure) -> tuple[str, ...]:
    names = exposure.bands if chosen.priority is None else chosen.priority
    if sorted(names) != sorted(exposure.bands):
        raise ValueError(
            f"--priority must name each of the bands {','.join(exposure.bands)} once; "
            f"got {','.join(names)}."
        )
    return tuple(names)


def _prepared(exposure: Exposure, chosen: argparse.Namespace, progress: Progress) -> Exposure:
    """Without its sky, and with a PSF."""
    measures_sky = chosen.background == "measure"
    # Files hold images of PSFs: an analytic one only holds the place.
    if isinstance(exposure.psf, KolmogorovPSF) and not chosen.psf_fwhm:
        progress.begin("stars")
        sky = SurfaceFit(_BOX) if measures_sky else None
        found = characterize(
            exposure, background=sky, cosmic_rays=None, sigma=_FIRST_SIGMA, measurements=None
        )
        return found.exposure
    if not measures_sky:
        return exposure
    progress.begin("sky")
    image = np.array(exposure.image)
    for k in range(exposure.n_bands):
        hidden = ~np.asarray(exposure.good[k])
        known = np.where(hidden, np.float32(0), image[k])
        fwhm = FWHM_PER_SIGMA * determinant_radius(psf_stamp(exposure.psf, exposure.shape)[k])
        sky = source_free_background(
            known,
            min(_BOX, *exposure.shape),
            mask=hidden,
            fwhm=fwhm,
            grow=max(3, round(1.5 * fwhm)),
        )
        image[k] = sky.background.subtract_from(image[k])
    return eqx.tree_at(lambda e: e.image, exposure, jnp.asarray(image))


def _listing(found: BandCatalog, chosen: argparse.Namespace) -> str:
    """How many there are, and the brightest of them."""
    table: Any = found.catalog
    numbers = found.summary["n_footprints"]
    lines = [
        ", ".join(f"{band} {numbers[band]}" for band in found.exposure.bands) + " footprints; "
        f"{len(found.footprints)} merged, {np.count_nonzero(table['deblend_n_child'] == 0)} sources"
    ]
    flux = best_flux(table)
    first = f"{flux}_flux_{found.priority[0]}"
    leaf = np.asarray(table["deblend_n_child"]) == 0
    bright = np.nan_to_num(_plain(table[first]), nan=-np.inf)
    order = np.lexsort((-bright, ~leaf))[: min(chosen.rows, np.count_nonzero(leaf))]
    if chosen.show is None:
        rows = _usual_rows(table[order], found, flux)
    else:
        shown = select_columns(table[order], *chosen.show)
        rows = [list(shown.colnames)]
        rows += [[_word(row[name]) for name in shown.colnames] for row in shown]
    if len(rows) > 1:
        lines += [f"the {len(order)} brightest:", table_of(rows)]
    return "\n".join(lines)


def _usual_rows(table: Any, found: BandCatalog, flux: str) -> list[list[str]]:
    bands = found.exposure.bands
    sky = "ra" in table.colnames
    kind = "mag" if f"{flux}_mag_{bands[0]}" in table.colnames else "flux"
    rows = [["id", "x", "y", *(["ra", "dec"] if sky else []), *(f"{b} {kind}" for b in bands)]]
    for row in table:
        at = [f"{_plain(row['ra']):.6f}", f"{_plain(row['dec']):+.6f}"] if sky else []
        fluxes = [
            with_error(
                float(_plain(row[f"{flux}_{kind}_{band}"])),
                float(_plain(row[f"{flux}_{kind}_err_{band}"])),
                most=4,
            )
            for band in bands
        ]
        place = [f"{_plain(row[name]):.2f}" for name in ("centroid_x", "centroid_y")]
        rows.append([str(row["id"]), *place, *at, *fluxes])
    return rows


def _word(value: Any) -> str:
    value = getattr(value, "value", value)
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _plain(values: Any) -> Any:
    return np.asarray(getattr(values, "value", values), float)
