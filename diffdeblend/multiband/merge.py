"""Footprints and peaks of several bands made one list."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from diffdeblend.footprints import FootprintSet, Peaks
from diffdeblend.footprints.peaks import concatenated
from diffdeblend.footprints.ragged import RaggedSpans, ends_of
from diffdeblend.multiband.priority import checked_priority

# As many pixels as may be equally near to a peak below a distance of 5 pixels.
_EQUALLY_NEAR = 12


class _Merged(NamedTuple):
    """What there is after some of the bands.

    - `spans`: of the footprints. `bands`: which bands saw each, `(footprint, band)`.
    - `owner`: footprint of each peak of the table of all peaks, -1 for one that has none.
    - `seen`: which bands saw each peak, `(peak, band)`.
    """

    spans: RaggedSpans
    bands: Bool[np.ndarray, "footprint band"]
    owner: Int[np.ndarray, "peak"]
    seen: Bool[np.ndarray, "peak band"]


def merge_detections(
    sets: Mapping[str, FootprintSet],
    priority: Sequence[str] | str,
    *,
    pixel_scale: float,
    same: float = 0.3,
    new: float = 1.0,
    sky: FootprintSet | None = None,
) -> FootprintSet:
    """One set of footprints and peaks from those found in each band.

    Bands are taken in the order of `priority`. A footprint that overlaps none of those so far is
    new. Else the first of those that it overlaps takes in its pixels, and with them all others that
    it overlaps: footprints of the first band that has any are joined by those of later bands alone.
    Of each peak that comes into a footprint, the distance to the nearest one already there decides,
    see `peak_rule`: it is that peak, seen in one more band; or a peak of its own; or dropped, as
    nobody can say which. Peaks that come in together, as all those of a band do, are not compared
    with one another. Where a footprint joins several, the first takes in their peaks before those
    of the band: the earlier bands have the say.

    The order matters: an early band gives a peak its position and value, and a late one loses
    peaks near to it. Begin with the deepest band.

    - `sets`: what was found in each band, on one grid of pixels.
    - `priority`: all bands, the most trusted first; `"irzyg"` is one letter a band.
    - `pixel_scale`: in arcseconds. `same`, `new`: in arcseconds.
    - `sky`: footprints of empty sky, which come last, as of a band `"sky"`; they join nothing.

    Returns a set whose `bands` say which bands saw a footprint, and whose `peaks.bands` say the
    same of peaks; those of a footprint go down in |value|.

    **Raises:** `ValueError` if `priority` is empty or does not name the bands of `sets`, their
    regions differ, `pixel_scale` is not positive, or not 0 <= `same` <= `new`.
    """
    names = _checked(sets, priority, sky)
    if not isinstance(pixel_scale, Real) or not 0 < pixel_scale < np.inf:
        raise ValueError(f"`pixel_scale` must be a positive number; got {pixel_scale!r}.")
    if not 0 <= same <= new:
        raise ValueError(f"`same` and `new` need 0 <= same <= new; got {same} and {new}.")
    several = [sets[name] for name in names]
    table = concatenated([one.peaks for one in several])
    xy = np.stack([table.x, table.y], axis=1) * float(pixel_scale)
    band = np.repeat(np.arange(len(names)), [len(one.peaks) for one in several])
    each = np.eye(len(names), dtype=bool)
    none = RaggedSpans.of_sets([])
    made = _Merged(none, each[:0], np.full(len(table), -1), each[band])
    for k, one in enumerate(several):
        own = np.flatnonzero(band == k)
        # The first band that has any is never merged with itself.
        made = _with_band(made, one, own, each[k], xy, (same, new), joins=len(made.spans) > 0)
    merged = _as_set(made, table, names, several[0])
    return merged if sky is None else _with_sky(merged, sky)


def peak_rule(
    distance: Float[np.ndarray, "peak"], same: float = 0.3, new: float = 1.0
) -> tuple[Bool[np.ndarray, "peak"], Bool[np.ndarray, "peak"]]:
    """Whether a peak is the nearest one known: below `same`; and whether it is new: above `new`.

    From `same` on to `new`, both in it, it is neither. Distances in the unit of the limits.
    """
    return distance < same, distance > new


def _with_band(
    made: _Merged,
    one: FootprintSet,
    own: np.ndarray,
    as_seen: np.ndarray,
    xy: np.ndarray,
    limits: tuple[float, float],
    joins: bool,
) -> _Merged:
    """With the footprints of one more band, and its peaks `own` of the table."""
    n = len(made.spans)
    group, n_groups = _groups(made.spans, one.spans, joins)
    owner = np.full(len(made.owner), -1)
    seen = made.seen.copy()
    peaks = np.flatnonzero(made.owner >= 0)
    # Known footprints of a group come in one by one, the first of them first.
    rank = _ranks(group[:n])[made.owner[peaks]]
    for turn in range(int(rank.max(initial=0)) + 1):
        incoming = peaks[rank == turn]
        _settle(incoming, group[made.owner[incoming]], owner, seen, xy, limits)
    _settle(own, group[n:][one.peak_owner], owner, seen, xy, limits)
    bands = np.zeros((n_groups, made.bands.shape[1]), bool)
    np.logical_or.at(bands, group[:n], made.bands)
    bands[group[n:]] |= as_seen
    y, x0, x1 = (
        np.concatenate(pair) for pair in zip(made.spans.arrays, one.spans.arrays, strict=True)
    )
    into = np.concatenate([group[:n][made.spans.owner], group[n:][one.spans.owner]])
    return _Merged(RaggedSpans.of_any(y, x0, x1, into, n_groups), bands, owner, seen)


def _groups(known: RaggedSpans, late: RaggedSpans, joins: bool) -> tuple[np.ndarray, int]:
    """The footprint that each of `known`, then each of `late`, becomes a part of."""
    n, total = len(known), len(known) + len(late)
    if not joins:
        return np.arange(total), total
    i, j = known.overlaps(late)
    k, m = late.overlaps(late)
    a, b = np.concatenate([i, k + n]), np.concatenate([j, m]) + n
    graph = csr_array((np.ones(len(a), np.int8), (a, b)), shape=(total, total))
    # Nodes are visited in order: footprints keep the order of the first of their members.
    count, group = connected_components(graph, directed=True, connection="weak")
    return group.astype(np.int64), int(count)


def _ranks(group: np.ndarray) -> np.ndarray:
    """How many before each are of the same group."""
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - first
    return rank


def _settle(
    incoming: np.ndarray,
    to: np.ndarray,
    owner: np.ndarray,
    seen: np.ndarray,
    xy: np.ndarray,
    limits: tuple[float, float],
) -> None:
    """Peaks come into footprints `to`, and into the arrays `owner` and `seen`."""
    there = np.flatnonzero(owner >= 0)
    there = there[np.isin(owner[there], to)]
    near, distance = _nearest(xy[incoming], to, xy[there], owner[there])
    is_same, is_new = peak_rule(distance, *limits)
    np.logical_or.at(seen, there[near[is_same]], seen[incoming[is_same]])
    owner[incoming[is_new]] = to[is_new]


def _nearest(
    points: np.ndarray, group: np.ndarray, among: np.ndarray, of_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each point the place of the nearest one in its group, and how far it is; inf if none is.

    Of several as near the first.
    """
    near, least = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
    if not len(points) or not len(among):
        return near, least
    if group.min() == group.max() and len(points) * len(among) < 1_000_000:
        apart = np.hypot(*(points[:, None] - among[None]).transpose(2, 0, 1))
        near = apart.argmin(axis=1)
        return near, apart[np.arange(len(points)), near]
    # Groups lie in planes so far apart that the nearest is in the same one, if there is any.
    gap = 4 * (np.ptp(np.concatenate([points, among]), axis=0).max() + 1)
    tree = KDTree(np.column_stack([among, of_group * gap]))
    k = min(_EQUALLY_NEAR, len(among))
    far, places = tree.query(np.column_stack([points, group * gap]), k=k)
    far, places = far.reshape(len(points), k), places.reshape(len(points), k)
    first = np.where(far <= far[:, :1], places, len(among)).min(axis=1)
    known = far[:, 0] < gap / 2
    return np.where(known, first, 0), np.where(known, far[:, 0], np.inf)


def _as_set(made: _Merged, table: Peaks, names: Sequence[str], first: FootprintSet) -> FootprintSet:
    kept = np.flatnonzero(made.owner >= 0)
    owner, found = made.owner[kept], table[kept]
    seen = {name: made.seen[kept, k] for k, name in enumerate(names)}
    peaks = Peaks(found.x, found.y, found.value, found.significance, seen)
    order = peaks.order(owner)
    bands = {name: made.bands[:, k] for k, name in enumerate(names)}
    ends = ends_of(np.bincount(owner, minlength=len(made.spans)))
    return FootprintSet(made.spans, peaks[order], ends, first.region, bands)


def _with_sky(made: FootprintSet, sky: FootprintSet) -> FootprintSet:
    """With footprints of empty sky behind all others."""
    n, n_sky = len(made), len(sky)
    y, x0, x1 = (
        np.concatenate(pair) for pair in zip(made.spans.arrays, sky.spans.arrays, strict=True)
    )
    spans = RaggedSpans(y, x0, x1, ends_of(np.concatenate([made.spans.counts, sky.spans.counts])))
    names = (*made.bands, "sky")
    of_sky = Peaks(
        *(sky.peaks.x, sky.peaks.y, sky.peaks.value, sky.peaks.significance),
        {name: np.full(len(sky.peaks), name == "sky") for name in names},
    )
    none = np.zeros(n, bool)
    bands = {
        name: np.concatenate([made.bands.get(name, none), np.full(n_sky, name == "sky")])
        for name in names
    }
    ends = ends_of(np.concatenate([made.n_peaks, sky.n_peaks]))
    return FootprintSet(spans, made.peaks.joined(of_sky), ends, made.region, bands)


def _checked(
    sets: Mapping[str, FootprintSet], priority: Sequence[str] | str, sky: FootprintSet | None
) -> tuple[str, ...]:
    names = checked_priority(priority, sets)
    if len(names) < len(sets):
        raise ValueError(f"`priority` must name all bands of `sets`, {tuple(sets)}; got {names}.")
    if sky is not None and "sky" in names:
        raise ValueError("`sky` cannot go with a band that is called 'sky'.")
    regions = {name: sets[name].region for name in names}
    if sky is not None:
        regions["sky"] = sky.region
    if len(set(regions.values())) > 1:
        raise ValueError(f"`sets` must be on one grid of pixels; their regions are {regions}.")
    return names
