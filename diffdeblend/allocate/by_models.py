"""Blends shared out in proportion to what a fit says of their sources."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from diffdeblend.allocate.apportion import shares
from diffdeblend.allocate.band_pixels import BandPixels, band_pixels
from diffdeblend.allocate.blends import OpenBlend
from diffdeblend.allocate.children import Child, child_of
from diffdeblend.allocate.overlap import Overlap, overlap
from diffdeblend.exposure import Exposure
from diffdeblend.footprints import Footprint, Peaks, SourceRecords, SpanSet

_VALUES = ("model_flux", *Overlap._fields, "data_coverage")


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
    pixels = band_pixels(exposure, band)
    owner = _owners(records, pixels.image.shape)
    of_model = _parents(records, models, owner)
    top = {name: np.full(len(records), np.nan) for name in _VALUES}
    values: dict[str, list[float]] = {name: [] for name in _VALUES}
    children: list[Child] = []
    parents, spans = [], {}
    order = np.argsort(of_model, kind="stable")
    starts = np.flatnonzero(np.diff(of_model[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else []:
        row, mine = int(of_model[rows[0]]), [models[n] for n in rows]
        wide = _wide(records.footprints[row].spans, grow, owner, row)
        if not wide:
            continue
        stack = np.stack([_on_box(one, wide.bbox) for one in mine]) * wide.to_mask(wide.bbox)
        measured = _measured(mine, stack, float(pixels.no_data[wide.indices()].mean()))
        if len(mine) == 1:
            for name in _VALUES:
                top[name][row] = measured[name][0]
            continue
        source = _source(mine, stack, wide, records.footprints[row])
        own = _children(row, source, stack, pixels, doubt)
        children += own
        parents += [int(records.id[row])] * len(mine)
        for name in _VALUES:
            values[name] += measured[name].tolist()
        for one in own:
            wide = wide.union(one.footprint.spans)
        spans[int(records.id[row])] = wide
    added = records.with_children(
        parents,
        [one.footprint for one in children],
        spans=spans,
        flags={"zero_flux": np.array([one.zero_flux for one in children], bool)},
        values={name: np.array(column) for name, column in values.items()},
    )
    for name in _VALUES:
        added.values[name][: len(records)] = top[name]  # type: ignore[index]
    return added


def _measured(
    models: Sequence[ModelImage], stack: Float[np.ndarray, "model y x"], no_data: float
) -> dict[str, Float[np.ndarray, "model"]]:
    """Values of the models of a source, by their images in its box."""
    return overlap(stack)._asdict() | {
        "model_flux": np.array([float(np.sum(one.image)) for one in models]),
        "data_coverage": np.full(len(models), 1 - no_data),
    }


def _source(
    models: Sequence[ModelImage],
    stack: Float[np.ndarray, "model y x"],
    wide: SpanSet,
    footprint: Footprint,
) -> Footprint:
    """A source with a peak for each of its models."""
    x, y = np.array([_pixel(one) for one in models], np.int32).T
    level = stack.max(axis=(1, 2), initial=0).astype(float)
    return Footprint(wide, Peaks(x, y, level), footprint.region)


def _children(
    row: int,
    source: Footprint,
    stack: Float[np.ndarray, "model y x"],
    pixels: BandPixels,
    doubt: float,
) -> list[Child]:
    """What each model of a source gets."""
    box = source.bbox
    cut = pixels.image[box.slices]
    cut = np.where(np.isfinite(cut), cut, 0)
    x, y = source.peaks.x - box.ixmin, source.peaks.y - box.iymin
    blend = OpenBlend(row, box, cut, cut, source.spans.to_mask(box), x, y, 0)
    share = shares(np.abs(stack))
    return [
        child_of(source, blend, n, share[n], False, pixels, doubt=doubt) for n in range(len(stack))
    ]


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
