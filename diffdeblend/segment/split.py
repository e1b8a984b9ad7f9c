"""How sources come apart: levels, markers, flood and contrast. Host side, all sources at once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffdeblend.segment.flood import flood
from diffdeblend.segment.levels import source_levels
from diffdeblend.segment.markers import find_markers
from diffdeblend.segment.pixel_list import PixelList, list_pixels

# More markers than this are mostly noise just above the lowest level: such a source is taken
# through linear levels. photutils' number.
MAX_MARKERS = 200


class Settings(NamedTuple):
    """What `deblend_sources` says of them."""

    n_pixels: int
    n_levels: int = 32
    contrast: float = 0.001
    mode: str = "exponential"
    connectivity: int = 8
    contrast_method: str = "basin"


class Parts(NamedTuple):
    """What sources came apart into.

    - `place`, `parent`: of the pixels of all sources that came apart; as in `PixelList`.
    - `part`: of each of them, from 0 within its parent.
    - `n_parts`: of each parent; 1 where it is whole.
    - `low_minimum`: "sinh" stood in for "exponential", as a pixel is not positive.
    - `many_markers`: "linear" stood in, as there were more than `MAX_MARKERS`.
    - `unreachable`: left whole, as its pixels do not all touch at this connectivity.
    """

    place: Int[np.ndarray, "pixel"]
    parent: Int[np.ndarray, "pixel"]
    part: Int[np.ndarray, "pixel"]
    n_parts: Int[np.ndarray, "parent"]
    low_minimum: Bool[np.ndarray, "parent"]
    many_markers: Bool[np.ndarray, "parent"]
    unreachable: Bool[np.ndarray, "parent"]


def split_sources(
    place: Int[np.ndarray, "pixel"],
    value: Float[np.ndarray, "pixel"],
    parent: Int[np.ndarray, "pixel"],
    n_parents: int,
    shape: tuple[int, int, int],
    settings: Settings,
) -> Parts:
    """Take sources apart, in an image or in a stack of shape `(stamp, y, x)`.

    - `place`: index into the flattened stack, rising.
    - `value`: what is not finite has no light, and goes to a part last of all.
    - `parent`: numbers from 0 to `n_parents - 1`.
    """
    finite = np.isfinite(value)
    light = value if finite.all() else np.where(finite, value, 0)
    total = np.bincount(parent, light, n_parents)
    low = np.full(n_parents, np.inf, value.dtype)
    high = np.full(n_parents, -np.inf, value.dtype)
    np.minimum.at(low, parent[finite], value[finite])
    np.maximum.at(high, parent[finite], value[finite])
    if light is not value:
        value = np.where(finite, value, np.finfo(value.dtype).min)
    uneven = low < high
    # No levels where there is no height; numbers that do no harm.
    low, high = np.where(uneven, low, 1), np.where(uneven, high, 2)
    levels, low_minimum = source_levels(low, high, settings.n_levels, settings.mode)
    low_minimum &= uneven
    pixels = list_pixels(place, value, parent, shape, settings.connectivity)
    if not uneven.all():
        pixels = pixels.select(uneven[pixels.parent])
    saddle = settings.contrast_method == "saddle"
    least = settings.contrast * total if saddle else None
    markers = find_markers(pixels, levels, settings.n_pixels, least)
    count = _markers_of_parent(markers, pixels.parent, n_parents)
    many = (count > MAX_MARKERS) & (settings.mode != "linear") & (not saddle)
    if many.any():
        markers = _linear_instead(pixels, markers, low, high, many, settings)
        count = _markers_of_parent(markers, pixels.parent, n_parents)
    split = (count > 1)[pixels.parent]
    pixels, markers = pixels.select(split), markers[split]
    regions = flood(pixels.value, pixels.neighbours, markers)
    # Never a failure of all for one: what is not in one piece stays whole, and is said to.
    unreachable = np.zeros(n_parents, bool)
    unreachable[pixels.parent[regions == 0]] = True
    if unreachable.any():
        reached = ~unreachable[pixels.parent]
        pixels, regions = pixels.select(reached), regions[reached]
    if not saddle:
        seen = np.where(pixels.value == np.finfo(pixels.value.dtype).min, 0, pixels.value)
        regions = drop_faint(pixels, seen, regions, total, low >= 0, settings.contrast)
    return _numbered(pixels, regions, low_minimum, many, unreachable)


def drop_faint(
    pixels: PixelList,
    light: Float[np.ndarray, "pixel"],
    regions: Int[np.ndarray, "pixel"],
    total: Float[np.ndarray, "parent"],
    positive: Bool[np.ndarray, "parent"],
    contrast: float,
) -> Int[np.ndarray, "pixel"]:
    """Give the faintest region of each parent to the others, until none is too faint.

    One at a time, since several may make up a bright one together. Only where no pixel is negative
    and the faintest together are fainter than the limit and than the next one, they go at once:
    whoever of them gets light from the others is still too faint and still the faintest.

    - `total`: the light of each parent; regions below `contrast` of it are too faint.
    - `positive`: parents without negative pixels.
    """
    while True:
        flux = np.bincount(regions, light)
        parent = np.zeros(len(flux), np.int64)
        parent[regions] = pixels.parent
        alive = np.zeros(len(flux), bool)
        alive[regions] = True
        rows = np.flatnonzero(alive)
        rows = rows[np.lexsort((flux[rows], parent[rows]))]
        of = parent[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = flux[rows] / total[of]
            faint = share < contrast
        if np.any(total <= 0):
            # A share of a negative total rises as the flux falls.
            order = np.lexsort((share, of))
            rows, of, share, faint = rows[order], of[order], share[order], faint[order]
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        size = np.diff(starts, append=len(of))
        of_start = np.repeat(starts, size)
        many = np.repeat(size > 1, size)
        drop = np.zeros(len(rows), bool)
        drop[starts] = faint[starts]
        summed = np.cumsum(np.nan_to_num(share))
        summed -= (summed - np.nan_to_num(share))[of_start]
        after = np.append(share[1:], np.inf)
        # The last of a parent stays.
        is_last = np.append(of[1:] != of[:-1], True)[: len(of)]
        ends = positive[of] & ~is_last & (summed < contrast) & (summed < after)
        if ends.any():
            last = np.full(len(rows), -1)
            np.maximum.at(last, of_start[ends], np.flatnonzero(ends))
            drop |= np.arange(len(rows)) <= last[of_start]
        drop &= many
        if not drop.any():
            return regions
        stays = np.ones(len(flux), regions.dtype)
        stays[rows[drop]] = 0
        regions = flood(pixels.value, pixels.neighbours, regions * stays[regions])


def _markers_of_parent(markers: np.ndarray, parent: np.ndarray, n_parents: int) -> np.ndarray:
    owner = np.full(int(markers.max(initial=0)) + 1, n_parents)
    owner[markers[markers > 0]] = parent[markers > 0]
    return np.bincount(owner[1:], minlength=n_parents)[:n_parents]


def _linear_instead(
    pixels: PixelList,
    markers: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    many: np.ndarray,
    settings: Settings,
) -> np.ndarray:
    """Other markers for some parents, from linear levels."""
    rows = np.flatnonzero(many[pixels.parent])
    levels, _ = source_levels(low, high, settings.n_levels, "linear")
    found = find_markers(pixels.select(many[pixels.parent]), levels, settings.n_pixels)
    markers = markers.copy()
    # Order counts within a parent only.
    markers[rows] = np.where(found > 0, found + markers.max(), 0)
    return markers


def _numbered(
    pixels: PixelList,
    regions: np.ndarray,
    low_minimum: np.ndarray,
    many: np.ndarray,
    unreachable: np.ndarray,
) -> Parts:
    """Numbers within each parent, in the order of regions; without what is whole after all."""
    n_parents = len(low_minimum)
    parent = np.full(int(regions.max(initial=0)) + 1, n_parents)
    parent[regions] = pixels.parent
    alive = np.flatnonzero(parent < n_parents)
    alive = alive[np.argsort(parent[alive], kind="stable")]
    starts = np.flatnonzero(np.diff(parent[alive], prepend=-1))
    size = np.diff(starts, append=len(alive))
    number = np.zeros(len(parent), np.int32)
    number[alive] = np.arange(len(alive)) - np.repeat(starts, size)
    n_parts = np.ones(n_parents, np.int32)
    n_parts[parent[alive[starts]]] = size
    apart = n_parts[pixels.parent] > 1
    return Parts(
        pixels.place[apart],
        pixels.parent[apart],
        number[regions[apart]],
        n_parts,
        low_minimum,
        many,
        unreachable,
    )
