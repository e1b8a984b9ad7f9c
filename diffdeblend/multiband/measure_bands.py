"""One list of sources for all bands: detected in each, merged, deblended, measured, forced."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from astropy.table import QTable

from diffdeblend.allocate import allocate_models, deblend_footprints
from diffdeblend.deblend.clock import Clock
from diffdeblend.detect.detect_footprints import detect_footprints
from diffdeblend.detect.footprint_detections import FootprintDetections
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import FootprintSet, SourceRecords
from diffdeblend.multiband.band_table import band_table
from diffdeblend.multiband.cull import cull_peaks
from diffdeblend.multiband.fit_scene import SceneModels, fit_scene
from diffdeblend.multiband.forced import forced_photometry
from diffdeblend.multiband.merge import merge_detections
from diffdeblend.multiband.reference import reference_band, signal_to_noise
from diffdeblend.quantities.measure_sources import SIZES, Columns, measure_sources
from diffdeblend.quantities.standard import WITH_CMODEL, Measurement

Deblending = Literal["scene", "symmetric"]


@dataclass(frozen=True, eq=False)
class BandCatalog:
    """Sources of all bands, each the same row everywhere. Host side.

    - `catalog`: a row a source: what all bands share, its columns in the reference band, fluxes of
        the same place and shape in each band as `<column>_<band>`, magnitudes and colours.
    - `measured`: of each band the columns measured there with places and shapes of its own.
    - `forced`: of each band the columns at the places and with the shapes of the reference.
    - `reference`: place of each source's reference band in `priority`.
    - `records`: of each band parents and children with the pixels that they have there.
    - `footprints`: merged. `detections`: of each band.
    - `models`: the fits that the light of blends was shared out by; None for other deblending.
    - `exposure`: what was measured: without the sky that was found.
    - `priority`: bands, the most trusted first. `summary`: settings, numbers, seconds by stage.
    """

    catalog: QTable
    measured: Mapping[str, Columns] = field(repr=False)
    forced: Mapping[str, Columns] = field(repr=False)
    reference: np.ndarray = field(repr=False)
    records: Mapping[str, SourceRecords] = field(repr=False)
    footprints: FootprintSet = field(repr=False)
    detections: Mapping[str, FootprintDetections] = field(repr=False)
    models: SceneModels | None = field(repr=False)
    exposure: Exposure = field(repr=False)
    priority: tuple[str, ...]
    summary: dict[str, Any]


def measure_bands(
    exposure: Exposure,
    *,
    priority: Sequence[str] | None = None,
    deblending: Deblending | None = "scene",
    measurements: Mapping[str, Measurement] = WITH_CMODEL,
    same: float = 0.3,
    new: float = 1.0,
    model: str = "sersic",
    noise: str | float = "measure",
    seed: int = 1,
    sizes: Sequence[int] = SIZES,
    detection: Mapping[str, Any] | None = None,
    symmetric: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> BandCatalog:
    """From the images of all bands to one catalogue with fluxes and colours. Host side.

    Footprints are detected in each band and made one list; blends are taken apart; every source is
    measured in every band, all others replaced by noise; the band that shows it best gives place
    and shape, with which fluxes are measured again in all bands.

    - `exposure`: all bands on one grid of pixels, without their sky.
    - `priority`: bands, the most trusted first; default their order in the exposure.
    - `deblending`: "scene" fits the sources of blends in all bands at once, and shares out the
        light of each pixel by the models; "symmetric" by templates of each band; None leaves blends
        whole.
    - `measurements`: by name; with one called `"cmodel"`, forced fluxes have it too. By default
        there is one, and `ref_extendedness_value` tells stars (0) from galaxies (1).
    - `same`, `new`: as of `merge_detections`, in arcseconds (in units of 0.2 pixels where the
        exposure has no pixel scale).
    - `model`: of the sources of a blend, as of `fit_batch`; shares ask for a rough one only.
    - `noise`, `seed`: of what replaces sources, as of `measure_sources`.
    - `sizes`: sides of stamps, as of `measure_sources`; a program is compiled for each that occurs.
    - `detection`, `symmetric`: settings of `detect_footprints` and `deblend_footprints`.
    - `report`: called with a line of text as each stage begins.

    **Raises:** `ValueError` for bands in `priority` that are not those of the exposure, an unknown
    deblending, or as the steps do.
    """
    names = _priority(exposure, priority)
    if deblending not in ("scene", "symmetric", None):
        raise ValueError(f'`deblending` must be "scene", "symmetric" or None; got {deblending!r}.')
    clock = Clock(report)
    clock.stage("detect")
    detections: dict[str, FootprintDetections] = {}
    for band in exposure.bands:
        detections[band] = detect_footprints(exposure, band=band, **(detection or {}))
        exposure = detections[band].exposure
    clock.stage("merge")
    scale = exposure.header.pixel_scale or 0.2
    sets = {band: found.positive for band, found in detections.items()}
    merged = cull_peaks(merge_detections(sets, names, pixel_scale=scale, same=same, new=new))
    top = SourceRecords.from_footprints(merged)
    clock.stage("deblend")
    records, models = _taken_apart(exposure, top, merged, deblending, model, symmetric)
    clock.stage("measure")
    fill: dict[str, Any] = {"noise": noise, "seed": seed, "sizes": tuple(sizes)}
    measured = {
        band: measure_sources(exposure, records[band], band=band, measurements=measurements, **fill)
        for band in exposure.bands
    }
    clock.stage("reference")
    seen = _seen(records[names[0]], merged, names)
    ratio = {band: _ratio(measured[band]) for band in names}
    reference = reference_band(seen, ratio, names)
    held = _of_reference(measured, reference, names)
    clock.stage("forced")
    forced = forced_photometry(exposure, held, records=records, **fill)
    clock.stage("table")
    catalog = band_table(exposure.header, records[names[0]], held, forced, reference, seen, names)
    clock.stage(None)
    own = records[names[0]]
    summary = {
        "settings": {
            "priority": names,
            "deblending": deblending,
            "model": model,
            "same": same,
            "new": new,
            "detection": dict(detection or {}),
            "symmetric": dict(symmetric or {}),
        },
        "n_footprints": {band: len(one) for band, one in sets.items()},
        "n_merged": len(merged),
        "n_peaks": int(merged.n_peaks.sum()),
        "n_children": int((own.parent > 0).sum()),
        "n_sources": int(own.is_leaf.sum()),
        "seconds": {k: round(s, 3) for k, s in {**clock.seconds, "total": clock.total}.items()},
    }
    return BandCatalog(
        catalog,
        measured,
        forced,
        reference,
        records,
        merged,
        detections,
        models,
        exposure,
        names,
        summary,
    )


def _priority(exposure: Exposure, priority: Sequence[str] | None) -> tuple[str, ...]:
    names = exposure.bands if priority is None else tuple(priority)
    if sorted(names) != sorted(exposure.bands):
        raise ValueError(
            f"`priority` must name each of the bands {exposure.bands} once; got {names}."
        )
    return names


def _taken_apart(
    exposure: Exposure,
    top: SourceRecords,
    merged: FootprintSet,
    deblending: Deblending | None,
    model: str,
    symmetric: Mapping[str, Any] | None,
) -> tuple[dict[str, SourceRecords], SceneModels | None]:
    """Of each band the records with their children, the same in all bands; and the models."""
    if deblending is None or not len(top):
        return dict.fromkeys(exposure.bands, top), None
    if deblending == "symmetric":
        # What a band lacks is no reason to leave its blends whole: rows are those of all bands.
        settings = {"max_no_data": 1.0, **(symmetric or {})}
        return {
            band: deblend_footprints(exposure, top, band=band, **settings)
            for band in exposure.bands
        }, None
    alone = merged.n_peaks < 2
    if alone.all():
        return dict.fromkeys(exposure.bands, top), None
    blended = ~alone[merged.peak_owner]
    positions = np.stack([merged.peaks.x, merged.peaks.y], axis=1)[blended].astype(float)
    hidden = np.zeros(exposure.shape, bool)
    for number in np.flatnonzero(alone):
        hidden[merged[int(number)].spans.indices()] = True
    models = fit_scene(exposure, positions, hidden=hidden, model=model)
    return {
        band: allocate_models(exposure, top, models.of_band(k), band=band)
        for k, band in enumerate(exposure.bands)
    }, models


def _seen(
    records: SourceRecords, merged: FootprintSet, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Which bands saw each source: a parent's footprint, or a child's peak."""
    top = np.flatnonzero(records.is_parent)
    peak = {
        (int(owner), int(x), int(y)): k
        for k, (owner, x, y) in enumerate(
            zip(merged.peak_owner, merged.peaks.x, merged.peaks.y, strict=True)
        )
    }
    above = records.parent_rows()
    row_of_parent = {int(row): number for number, row in enumerate(top)}
    seen = {band: np.zeros(len(records), bool) for band in names}
    for row in range(len(records)):
        parent = above[row]
        number = row_of_parent[row if parent < 0 else int(parent)]
        place = None
        if parent >= 0:
            place = peak.get((number, int(records.peak_x[row]), int(records.peak_y[row])))
        for band in names:
            bands = merged.bands if place is None else merged.peaks.bands
            seen[band][row] = bands[band][number if place is None else place]
    return seen


def _ratio(columns: Columns) -> np.ndarray:
    """S/N of the PSF flux, 0 where anything of it is amiss."""
    flags = [
        columns[name]
        for name in ("pixel_flag_interpolated_center", "psf_flag", "kron_flag", "cmodel_flag")
        if name in columns
    ]
    return signal_to_noise(columns["psf_flux"], columns["psf_flux_err"], *flags)


def _of_reference(
    measured: Mapping[str, Columns], reference: np.ndarray, names: tuple[str, ...]
) -> Columns:
    """The columns of each source in its reference band."""
    rows = np.arange(len(reference))
    return {
        name: np.stack([measured[band][name] for band in names])[reference, rows]
        for name in measured[names[0]]
    }
