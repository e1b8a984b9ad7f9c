"""Blends taken apart by the symmetry of their sources."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from diffdeblend.allocate.apportion import shares
from diffdeblend.allocate.band_pixels import band_pixels
from diffdeblend.allocate.blends import OpenBlend, open_blend, take_from
from diffdeblend.allocate.children import Child, child_of
from diffdeblend.allocate.make_templates import Template, points_of, symmetric_of
from diffdeblend.allocate.points import Points, find_points
from diffdeblend.allocate.stray_flux import STRAY_FLUX, stray_shares
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import SourceRecords, SpanSet
from diffdeblend.one_band import band_of
from diffdeblend.psf.stamps import psf_stamps

# How noisy the share of a pixel is, see `child_of`.
_DOUBT = 2.0


def deblend_footprints(
    exposure: Exposure,
    records: SourceRecords,
    *,
    band: str | None = None,
    psf_chi2: float | None = 1.5,
    smooth: bool = True,
    monotonic: bool = True,
    stray_flux: str = "r_to_footprint",
    max_area: int | None = 10_000,
    max_peaks: int | None = None,
    max_no_data: float = 0.25,
) -> SourceRecords:
    """Take the blends of one band apart by templates, and share out their pixels. Host side.

    Each peak gets a template: a point where a point fits, else the lesser of the image and its
    mirror image about the peak, smoothed and made to fall outwards. Each pixel goes to the sources
    in proportion to their templates. A blend is a source with more than one peak.

    - `band`: name; None for the only one.
    - `psf_chi2`: chi2 per degree of freedom below which a point fits; None: no peak is a point.
    - `smooth`, `monotonic`: whether templates are, through a median of 5 x 5 pixels.
    - `stray_flux`: what becomes of light that no template claims, see `stray_shares`; with
        `"trim"` it is left out, and the parent's pixels become those of its children.
    - `max_area`: blends of more pixels are left alone and flagged; None: none are.
    - `max_peaks`: of a blend with more the strongest are used, and it is flagged; None: all are.
    - `max_no_data`: blends with a larger fraction of pixels without data are left alone, flagged.

    Returns the records with a child for each peak of each blend. Of its values, those of a child
    that a template was made for are `psf_chi2`, `psf_flux`, `psf_flux_err`, `psf_x` and `psf_y`, of
    the point that was tried. The variance of a child's pixels is that of the image times
    r^2 + 2 r (1 - r), r being its share: a share is as noisy as the pixels of its template. The 2
    was found on simulations, experiments/allocation.

    **Raises:** `ValueError` for an unknown band or rule, or limits that are none.

    ??? cite
        Lupton (2005), "SDSS Image Processing: the Deblender"; Bosch et al. (2018), PASJ 70, S5,
        section 4.8.
    """
    _check(stray_flux, psf_chi2, max_area, max_peaks, max_no_data)
    pixels = band_pixels(exposure, band)
    shape = pixels.image.shape
    wanted = records.is_parent & records.is_leaf & (records.n_peaks > 1)
    flags = {name: np.zeros(len(records), bool) for name in _PARENT_FLAGS}
    blends: list[OpenBlend] = []
    first = 0
    for row in np.flatnonzero(wanted):
        footprint = records.footprints[row]
        place = footprint.spans.clipped(shape).indices()
        flags["parent_too_big"][row] = max_area is not None and footprint.area > max_area
        flags["masked"][row] = not place[0].size or pixels.no_data[place].mean() > max_no_data
        flags["too_many_peaks"][row] = max_peaks is not None and records.n_peaks[row] > max_peaks
        if flags["parent_too_big"][row] or flags["masked"][row]:
            flags["skipped"][row] = True
            continue
        n = min(int(records.n_peaks[row]), max_peaks or int(records.n_peaks[row]))
        blends.append(open_blend(int(row), footprint, pixels.image, pixels.weight, n, first))
        first += n
    points, templates = _templates(
        exposure, band_of(exposure, band), blends, shape, psf_chi2, smooth, monotonic
    )
    children, spans = [], {}
    for blend in blends:
        mine = [templates.get(blend.first + n) for n in range(blend.n_peaks)]
        is_point = points.is_point[blend.first : blend.first + blend.n_peaks]
        share, stray = _shares(blend, mine, is_point, stray_flux)
        own = [
            child_of(
                records.footprints[blend.row], blend, n, share[n], stray[n], pixels, doubt=_DOUBT
            )
            for n in range(blend.n_peaks)
        ]
        children += own
        together = _union([one.footprint.spans for one in own])
        parent = records.footprints[blend.row].spans
        spans[int(records.id[blend.row])] = (
            together if stray_flux == "trim" else parent.union(together)
        )
    return _gathered(records.with_flags(**flags), blends, children, points, templates, spans)


_PARENT_FLAGS = ("skipped", "parent_too_big", "too_many_peaks", "masked")


def _templates(
    exposure: Exposure,
    band: int,
    blends: Sequence[OpenBlend],
    shape: tuple[int, int],
    psf_chi2: float | None,
    smooth: bool,
    monotonic: bool,
) -> tuple[Points, dict[int, Template]]:
    """What is a point, and the template of each peak."""
    n = sum(blend.n_peaks for blend in blends)
    points = Points(np.zeros(n, bool), *(np.full(n, np.nan) for _ in range(5)))
    made: dict[int, Template] = {}
    if psf_chi2 is not None and n:
        x = np.concatenate([blend.box.ixmin + blend.peak_x for blend in blends])
        y = np.concatenate([blend.box.iymin + blend.peak_y for blend in blends])
        psf = psf_stamps(exposure.psf, band, x.astype(float), y.astype(float))
        points = find_points(blends, psf, psf_chi2)
        rows = np.flatnonzero(points.is_point)
        drawn = points_of(psf[rows], points.flux[rows], points.dx[rows], points.dy[rows])
        made |= dict(zip(rows.tolist(), drawn, strict=True))
    made |= symmetric_of(blends, ~points.is_point, shape, smooth=smooth, decline=monotonic)
    return points, made


def _shares(
    blend: OpenBlend, templates: Sequence[Template | None], is_point: np.ndarray, rule: str
) -> tuple[Float[np.ndarray, "peak y x"], np.ndarray]:
    """What fraction of each pixel each peak has, and whether it has stray light."""
    stack = np.zeros((blend.n_peaks, *blend.inside.shape), np.float32)
    for n, one in enumerate(templates):
        if one is not None:
            take_from(stack[n], one.stamp, int(blend.peak_x[n]), int(blend.peak_y[n]))
    stack *= blend.inside
    share = shares(stack)
    claimed = share > 0
    # Dark pixels, too: with the bright ones alone their noise would add up to light.
    stray = blend.inside & ~claimed.any(axis=0)
    has = np.zeros(blend.n_peaks, bool)
    if rule != "trim" and stray.any():
        more = stray_shares(rule, stray.shape, blend.peak_x, blend.peak_y, claimed, is_point)
        more *= stray
        share, has = share + more, (more > 0).any(axis=(1, 2))
    return share, has


def _gathered(
    records: SourceRecords,
    blends: Sequence[OpenBlend],
    children: Sequence[Child],
    points: Points,
    templates: dict[int, Template],
    spans: dict[int, SpanSet],
) -> SourceRecords:
    parents = [int(records.id[blend.row]) for blend in blends for _ in range(blend.n_peaks)]
    x = np.array([b.box.ixmin + px for b in blends for px in b.peak_x], float)
    y = np.array([b.box.iymin + py for b in blends for py in b.peak_y], float)
    patched = [n in templates and templates[n].patched for n in range(len(parents))]
    flags = {
        "deblended_as_psf": points.is_point,
        "has_stray_flux": np.array([one.has_stray_flux for one in children], bool),
        "zero_flux": np.array([one.zero_flux for one in children], bool),
        "patched_template": np.array(patched, bool),
    }
    values = {
        "psf_chi2": points.chi2_per_dof,
        "psf_flux": points.flux,
        "psf_flux_err": points.flux_err,
        "psf_x": x + points.dx,
        "psf_y": y + points.dy,
    }
    footprints = [one.footprint for one in children]
    return records.with_children(parents, footprints, spans=spans, flags=flags, values=values)


def _union(several: Sequence[SpanSet]) -> SpanSet:
    arrays = zip(*((one.y, one.x0, one.x1) for one in several), strict=True)
    return SpanSet(*map(np.concatenate, arrays))


def _check(stray_flux: Any, psf_chi2: Any, max_area: Any, max_peaks: Any, no_data: Any) -> None:
    if stray_flux not in STRAY_FLUX:
        raise ValueError(
            f"`stray_flux` must be one of {', '.join(STRAY_FLUX)}; got {stray_flux!r}."
        )
    if psf_chi2 is not None and not psf_chi2 > 0:
        raise ValueError(f"`psf_chi2` must be positive or None; got {psf_chi2}.")
    for name, value in (("max_area", max_area), ("max_peaks", max_peaks)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1 or None; got {value}.")
    if not 0 <= no_data <= 1:
        raise ValueError(f"`max_no_data` must be a fraction between 0 and 1; got {no_data}.")
