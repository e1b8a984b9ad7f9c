"""Blends shared out in proportion to what a fit says of their sources."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from diffdeblend.allocate.apportion import shares
from diffdeblend.allocate.blends import OpenBlend
from diffdeblend.allocate.children import child_of
from diffdeblend.allocate.overlap import Overlap, overlap
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import Footprint, Peaks, SourceRecords, SpanSet
from diffdeblend.footprints.heavy import band_of


class ModelImage(NamedTuple):
    """A source as the camera would see it without noise.

    - `image`: shape `(y, x)`; `x0`, `y0`: place of its first pixel in the exposure, which it may
        leave.
    - `x`, `y`: where the source is, in pixels of the exposure.
    """

    image: Float[np.ndarray, "y x"]
    x0: int
    y0: int
    x: float
    y: float


def allocate_models(
    exposure: Exposure,
    records: SourceRecords,
    models: Sequence[ModelImage],
    *,
    band: str | None = None,
    grow: int = 0,
    doubt: float = 2.0,
) -> SourceRecords:
    """Share out the pixels of each source of the records among the models on it. Host side.

    Each pixel goes to the models in proportion to their absolute values. So the light is that of
    the image, its noise and what models do not explain included, and adds up to it.

    - `models`: each is part of the source whose pixels it lies on, or else of that with the nearest
        peak.
    - `band`: name; None for the only one.
    - `grow`: pixels by which the pixels of a source are widened, as far as they are on the image
        and of no other source.

    Returns the records with a child for each model of a source with several, in the order of the
    models; a source with one is its own. Values of both: `model_flux` (of the whole model),
    `blendedness`, `max_overlap`, `flux_overlap`, `flux_overlap_fraction` (see `Overlap`; of the
    models on the pixels of the source) and `data_coverage`, the fraction of these that have data.
    The variance of a child's pixels is that of the image times r^2 + `doubt` r (1 - r), r being its
    share: models that were fitted have the noise of the image in them. 0 for models that are known.

    **Raises:** `ValueError` for an unknown band, models that are not images, a `doubt` below 0, or
    records that have children already.
    """
    if not records.is_leaf.all():
        raise ValueError("`records` have children already; give them as detected.")
    for number, one in enumerate(models):
        if np.ndim(one.image) != 2:
            raise ValueError(
                f"`models` need images of shape (y, x); number {number} has {np.shape(one.image)}."
            )
    if not doubt >= 0:
        raise ValueError(f"`doubt` must be at least 0; got {doubt}.")
    k = band_of(exposure, band)
    image, variance, mask = (
        np.asarray(getattr(exposure, name)[k]) for name in ("image", "variance", "mask")
    )
    planes = exposure.header.mask_planes
    no_data = ~np.isfinite(image)
    if "NO_DATA" in planes:
        no_data |= (mask >> planes.index("NO_DATA")) & 1 == 1
    owner = _owners(records, image.shape)
    of_model = _parents(records, models, owner)
    names = ("model_flux", *Overlap._fields, "data_coverage")
    top = {name: np.full(len(records), np.nan) for name in names}
    values: dict[str, list[float]] = {name: [] for name in names}
    children, parents, spans, zero = [], [], {}, []
    order = np.argsort(of_model, kind="stable")
    starts = np.flatnonzero(np.diff(of_model[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else []:
        row = int(of_model[rows[0]])
        mine = [models[n] for n in rows]
        wide = _wide(records.footprints[row].spans, grow, owner, row)
        if not wide:
            continue
        box = wide.bbox
        inside = wide.to_mask(box)
        stack = np.stack([_on_box(one, box) for one in mine]) * inside
        measured = overlap(stack)._asdict() | {
            "model_flux": np.array([float(np.sum(one.image)) for one in mine]),
            "data_coverage": np.full(len(mine), 1 - no_data[wide.indices()].mean()),
        }
        if len(mine) == 1:
            for name in names:
                top[name][row] = measured[name][0]
            continue
        share = shares(np.abs(stack))
        at = [_pixel(one) for one in mine]
        x, y = np.array(at, np.int32).T
        level = np.array([float(one.max(initial=0)) for one in stack])
        source = Footprint(wide, Peaks(x, y, level), records.footprints[row].region)
        cut = np.where(np.isfinite(image[box.slices]), image[box.slices], 0)
        blend = OpenBlend(row, box, cut, cut, inside, x - box.ixmin, y - box.iymin, 0)
        for n in range(len(mine)):
            child = child_of(
                source, blend, n, share[n], False, image, variance, mask, planes, doubt=doubt
            )
            children.append(child.footprint)
            zero.append(child.zero_flux)
            parents.append(int(records.id[row]))
            for name in names:
                values[name].append(float(measured[name][n]))
        together = [one.spans for one in children[-len(mine) :]]
        joined = wide
        for one in together:
            joined = joined.union(one)
        spans[int(records.id[row])] = joined
    added = records.with_children(
        parents,
        children,
        spans=spans,
        flags={"zero_flux": np.array(zero, bool)},
        values={name: np.array(column) for name, column in values.items()},
    )
    for name in names:
        added.values[name][: len(records)] = top[name]  # type: ignore[index]
    return added


def _owners(records: SourceRecords, shape: tuple[int, ...]) -> Int[np.ndarray, "y x"]:
    """Row of the source that a pixel is of, -1 for none; the last of several."""
    owner = np.full(shape, -1, np.int64)
    for row, one in enumerate(records.footprints):
        owner[one.spans.clipped((shape[0], shape[1])).indices()] = row
    return owner


def _pixel(model: ModelImage) -> tuple[int, int]:
    return int(np.floor(model.x + 0.5)), int(np.floor(model.y + 0.5))


def _parents(
    records: SourceRecords, models: Sequence[ModelImage], owner: np.ndarray
) -> Int[np.ndarray, "model"]:
    """Row of the source that each model is part of."""
    if not len(records) or not models:
        if models:
            raise ValueError("`records` are empty; there is nothing to share out.")
        return np.zeros(0, np.int64)
    at = np.array([_pixel(one) for one in models])
    x, y = at[:, 0].clip(0, owner.shape[1] - 1), at[:, 1].clip(0, owner.shape[0] - 1)
    found = owner[y, x]
    peaks = [
        (px, py)
        for one in records.footprints
        for px, py in zip(one.peaks.x, one.peaks.y, strict=True)
    ]
    rows = np.repeat(np.arange(len(records)), [len(one.peaks) for one in records.footprints])
    if not peaks:
        peaks, rows = (
            list(zip(records.peak_x, records.peak_y, strict=True)),
            np.arange(len(records)),
        )
    nearest = rows[KDTree(np.array(peaks)).query(at)[1]]
    return np.where(found >= 0, found, nearest)


def _wide(spans: SpanSet, grow: int, owner: np.ndarray, row: int) -> SpanSet:
    """Its pixels with those around it that are of no other source."""
    wide = spans.dilate(grow) if grow else spans
    wide = wide.clipped((owner.shape[0], owner.shape[1]))
    if not grow or not wide:
        return wide
    box = wide.bbox
    theirs = (owner[box.slices] >= 0) & (owner[box.slices] != row)
    return SpanSet.from_mask(wide.to_mask(box) & ~theirs, (box.ixmin, box.iymin))


def _on_box(model: ModelImage, box) -> Float[np.ndarray, "y x"]:
    """The model on the pixels of a box."""
    out = np.zeros(box.shape)
    dx, dy = int(model.x0) - box.ixmin, int(model.y0) - box.iymin
    height, width = np.shape(model.image)
    x0, x1 = max(dx, 0), min(dx + width, box.shape[1])
    y0, y1 = max(dy, 0), min(dy + height, box.shape[0])
    if x0 < x1 and y0 < y1:
        out[y0:y1, x0:x1] = np.asarray(model.image)[y0 - dy : y1 - dy, x0 - dx : x1 - dx]
    return out
