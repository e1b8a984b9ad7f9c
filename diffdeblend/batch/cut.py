"""A large image and a catalogue, cut into blends that can be fitted one by one."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import correlate1d, find_objects, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from diffdeblend.batch.blend import Blend, noise_of, used_pixels
from diffdeblend.batch.trim import nearest_pixel
from diffdeblend.detect.detect import Detections
from diffdeblend.detect.peaks import psf_images, sky_level
from diffdeblend.exposure import Exposure
from diffdeblend.positions import check_positions
from diffdeblend.psf import AbstractPSF
from diffdeblend.widths import FWHM_PER_SIGMA, equivalent_fwhm

# 98.7 % of the light of a Gaussian is within 2.5 half-light radii.
_LEAST_EXTENT = 2.5
_LEAST_MARGIN = 4.0
# A median of that many pixels knows the sky to 1/400 of the noise; of all, it takes a minute.
_SKY_PIXELS = 250_000
_CHUNK = 1024


def cut_blends(
    exposure: Exposure,
    positions: Any,
    *,
    radius: Any = None,
    threshold: float = 1.5,
    margin: float | None = None,
    max_sources: int = 12,
    max_size: int = 128,
) -> list[Blend]:
    """The blends of an image: sources whose extents meet, each on the smallest stamp with a margin.

    Every source is in exactly one blend; blends are in the order of their first rows. Pixels of
    the sources of other blends get weight 0, those within one half-light radius of the PSF from
    an own source excepted. Data are not altered otherwise: the sky stays in.

    The extent of a source is a disc of its `radius`; or, if that is not given, the isophote around
    it in the image of all bands, smoothed with a Gaussian of the width of the PSF, and at least a
    disc of 2.5 half-light radii of the PSF. It is that above the sky that `detect` found, or above
    one level for all of the image. Where isophotes meet, a pixel belongs to the nearest position. A
    group with more than `max_sources`, or on more than `max_size` pixels, is bisected along its
    longer axis at the widest gap between positions, until the parts fit; these are `crowded`, and
    so is the group of a source that is itself too large and has its stamp cut short.

    - `positions`: shape `(source, 2)`, x and y in pixels; or what `detect` found.
    - `radius`: of each source, in pixels, shape `(source,)`.
    - `threshold`: of the isophote, in standard deviations of the smoothed image.
    - `margin`: pixels around the extents; default twice the FWHM of the PSF, and at least 4.
    - `max_sources`: largest number of sources of a blend.
    - `max_size`: largest height and width of a stamp, in pixels.

    **Raises:** `ValueError` for positions that `check_positions` refuses, a `radius` that is not
    one finite positive number per source, or another argument out of its range.

    ??? cite
        Groups are friends of friends, as in DAOPHOT: Stetson (1987), PASP 99, 191.
        Width of the PSF from its noise-equivalent area: King (1983), PASP 95, 163.
    """
    sky = None
    if isinstance(positions, Detections):
        if not positions.n_sources:
            return []
        sky, positions = positions.background, positions.positions
    checked = check_positions(positions, exposure.shape)
    _check_number("threshold", threshold, least=0.0, open_end=True)
    _check_count("max_sources", max_sources)
    _check_count("max_size", max_size)
    middle = _psf_at(exposure.psf, exposure.shape[1] / 2, exposure.shape[0] / 2)
    fwhm = equivalent_fwhm(psf_images(middle, 101))
    if margin is None:
        margin = max(2 * float(fwhm.max()), _LEAST_MARGIN)
    _check_number("margin", margin, least=0.0)
    radii = None if radius is None else _radii(radius, len(checked), exposure.shape)

    data, weight = used_pixels(exposure)
    if radii is None:
        # A disc of at least a pixel holds the pixel that the position lies on.
        radii = np.full(len(checked), max(_LEAST_EXTENT * float(fwhm.max()) / 2, 1.0))
        if sky is None:
            sky = image_level(data, weight)
        sigma = float(fwhm.mean()) / FWHM_PER_SIGMA
        bright = _significance(data, weight, sky, sigma) > threshold
        largest = max_size - 2 * int(np.ceil(margin))
        owner, group, boxes = _isophotes(bright, checked, radii, max_sources, largest)
        boxes = _joined(_disc_boxes(checked, radii), boxes)
    else:
        owner, group = _discs(checked, radii, exposure.shape), _overlapping(checked, radii)
        boxes = _disc_boxes(checked, radii)
    boxes, cut_short = _stamp_boxes(boxes, checked, exposure.shape, float(margin), max_size)
    parts, divided = _parts(group, checked, boxes, max_sources, max_size)
    # Elsewhere no other group's pixel can be as near.
    core = np.where(divided | (radii < fwhm.max() / 2), fwhm.max() / 2, 0.0)
    crowded = divided | cut_short
    return list(_cut(exposure, data, weight, checked, owner, parts, boxes, crowded, core))


def image_level(
    data: Float[np.ndarray, "band y x"], weight: Float[np.ndarray, "band y x"]
) -> Float[np.ndarray, "band 1 1"]:
    """One sky for all of a band; 0 where nothing is used."""
    # A stride, not a cut: all parts of the image have their say.
    stride = max(1, int(np.sqrt(data[0].size / _SKY_PIXELS)))
    levels = np.zeros((len(data), 1, 1), data.dtype)
    for band, (values, inverse) in enumerate(zip(data, weight, strict=True)):
        if inverse.any():
            step = stride if inverse[::stride, ::stride].any() else 1
            few, few_inverse = values[None, ::step, ::step], inverse[None, ::step, ::step]
            levels[band] = sky_level(few, few_inverse > 0)[0]
    return levels


def _significance(
    data: Float[np.ndarray, "band y x"],
    weight: Float[np.ndarray, "band y x"],
    sky: Float[np.ndarray, "band #y #x"],
    sigma: float,
) -> Float[np.ndarray, "y x"]:
    """Smoothed inverse-variance sum of the bands in units of its noise; 0 where nothing is used."""
    reach = np.arange(-int(4 * sigma + 1), int(4 * sigma + 1) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    total, depth = np.zeros_like(data[0]), np.zeros_like(data[0])
    for values, inverse, level in zip(data, weight, sky, strict=True):
        if inverse.any():
            light = values - level.astype(data.dtype, copy=False)
            # Where nothing is used the sky may be unknown.
            total += np.where(inverse > 0, inverse * light, 0)
            depth += inverse
    for axis in (0, 1):
        total = correlate1d(total, kernel, axis=axis, mode="constant")
        depth = correlate1d(depth, kernel**2, axis=axis, mode="constant")
    return total / np.sqrt(np.maximum(depth, np.finfo(depth.dtype).tiny))


def _isophotes(
    bright: np.ndarray, positions: np.ndarray, radii: np.ndarray, max_sources: int, max_size: int
) -> tuple[Int[np.ndarray, "y x"], Int[np.ndarray, "source"], Int[np.ndarray, "source 4"]]:
    """Row of a source that each pixel belongs to, or -1; and of each source its group and its box.

    In groups of up to `max_sources` on up to `max_size` pixels, which stay whole, all pixels
    belong to the same one: to find the nearest for each took as long as all the rest.
    """
    labelled: Any = label(bright | (_discs(positions, radii, bright.shape) >= 0))
    places, n_places = labelled
    x, y = nearest_pixel(positions, bright.shape).T
    group = places[y, x]
    keeper = np.full(n_places + 1, -1, np.int32)
    keeper[group] = np.arange(len(group))
    owner = keeper[places]
    boxes = _owned_boxes(owner, len(group))
    inhabitants = np.bincount(group, minlength=n_places + 1)
    size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[keeper[group]]
    crowd = (inhabitants[group] > 1) & ((inhabitants[group] > max_sources) | (size > max_size))
    if crowd.any():
        is_crowd = np.zeros(n_places + 1, bool)
        is_crowd[group[crowd]] = True
        shared = np.flatnonzero(is_crowd[places])
        pixel_y, pixel_x = np.divmod(shared, bright.shape[1])
        # Groups lie on floors so far apart that the nearest position is one of the same group.
        floor = float(sum(bright.shape))
        tree = KDTree(np.column_stack([positions[crowd], floor * group[crowd]]))
        pixels = np.column_stack([pixel_x, pixel_y, floor * places.ravel()[shared]])
        owner.ravel()[shared] = np.flatnonzero(crowd)[tree.query(pixels)[1]]
        boxes = _owned_boxes(owner, len(group))
    return owner, group, boxes


def _discs(
    positions: np.ndarray, radii: np.ndarray, shape: tuple[int, ...]
) -> Int[np.ndarray, "y x"]:
    """Row of the source in whose disc a pixel is deepest in units of its radius, or -1."""
    owner = np.full(shape, -1, np.int32)
    depth = np.ones(shape, np.float32)
    columns, lines = np.arange(shape[1], dtype=float), np.arange(shape[0], dtype=float)[:, None]
    boxes = _clipped(_disc_boxes(positions, radii), shape)
    # Windows, one after the other: 10 us each, and no list of all pixels of all discs.
    rows = zip(positions.tolist(), radii.tolist(), boxes.tolist(), strict=True)
    for row, ((x, y), radius, (x0, y0, x1, y1)) in enumerate(rows):
        squared = (columns[x0:x1] - x) ** 2 + (lines[y0:y1] - y) ** 2
        share = squared / (radius * radius)
        window = depth[y0:y1, x0:x1]
        mine = share < window
        window[mine] = share[mine]
        owner[y0:y1, x0:x1][mine] = row
    return owner


def _overlapping(positions: np.ndarray, radii: np.ndarray) -> Int[np.ndarray, "source"]:
    """A number for each source, the same for those whose discs are linked by overlaps."""
    group = np.arange(len(positions))
    # By octaves of radius: one search radius for all would pair everything with the largest.
    octave = np.floor(np.log2(radii / radii.min())).astype(int)
    for level in np.unique(octave):
        smaller = np.flatnonzero(octave <= level)
        tree = KDTree(positions[smaller])
        members = np.flatnonzero(octave == level)
        reach = radii[members].max()
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            near: Any = KDTree(positions[chunk]).sparse_distance_matrix(
                tree, 2 * reach, output_type="ndarray"
            )
            first, second = chunk[near["i"]], smaller[near["j"]]
            linked = near["v"] < radii[first] + radii[second]
            first, second = group[first[linked]], group[second[linked]]
            links = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(group),) * 2)
            group = connected_components(links, directed=False)[1][group]
    return group


def _parts(
    group: np.ndarray,
    positions: np.ndarray,
    boxes: np.ndarray,
    max_sources: int,
    max_size: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of each blend, ascending; and of each source whether its group was divided."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    together = _union(boxes[order], starts)
    size = np.diff(np.append(starts, len(order)))
    fits = (size <= max_sources) & ((together[:, 2:] - together[:, :2]).max(axis=1) <= max_size)
    parts = []
    for rows, whole in zip(np.split(order, starts[1:]), fits.tolist(), strict=True):
        if whole:
            parts.append(rows)
        else:
            parts += map(np.sort, _divided(rows, positions, boxes, max_sources, max_size))
    divided = np.empty(len(order), bool)
    divided[order] = np.repeat(~fits, size)
    return sorted(parts, key=lambda rows: rows[0]), divided


def _divided(
    rows: np.ndarray, positions: np.ndarray, boxes: np.ndarray, max_sources: int, max_size: int
) -> Iterator[np.ndarray]:
    """The rows in parts that fit."""
    pending = [rows]
    while pending:
        rows = pending.pop()
        low, high = boxes[rows, :2].min(axis=0), boxes[rows, 2:].max(axis=0)
        # One source fits always: its box was cut to the largest stamp.
        if len(rows) == 1 or (len(rows) <= max_sources and (high - low).max() <= max_size):
            yield rows
            continue
        along = positions[rows, np.argmax(np.ptp(positions[rows], axis=0))]
        order = np.argsort(along, kind="stable")
        # A quarter on either side at least: single sources split off a crowd help nobody.
        least = max(1, len(rows) // 4)
        gaps = np.diff(along[order])[least - 1 : len(rows) - least]
        middle = least + int(np.argmax(gaps))
        pending += [rows[order[:middle]], rows[order[middle:]]]


def _cut(
    exposure: Exposure,
    data: np.ndarray,
    weight: np.ndarray,
    positions: np.ndarray,
    owner: np.ndarray,
    parts: list[np.ndarray],
    boxes: np.ndarray,
    crowded: np.ndarray,
    core: np.ndarray,
) -> Iterator[Blend]:
    """The blend of each part. Pixels within `core` of an own source are not hidden."""
    size = np.array([len(rows) for rows in parts])
    starts = np.cumsum(size) - size
    order = np.concatenate(parts)
    stamps = _union(boxes[order], starts)
    is_crowded = np.logical_or.reduceat(crowded[order], starts)
    # The last entry is for the owner -1: nobody.
    part_of = np.full(len(order) + 1, -1, np.int32)
    part_of[order] = np.repeat(np.arange(len(parts)), size)
    part = part_of[owner]
    noise = noise_of(exposure)
    places = zip(parts, stamps.tolist(), is_crowded.tolist(), strict=True)
    for number, (rows, (x0, y0, x1, y1), short) in enumerate(places):
        values, inverse = data[:, y0:y1, x0:x1].copy(), weight[:, y0:y1, x0:x1].copy()
        theirs = part[y0:y1, x0:x1]
        hidden = (theirs >= 0) & (theirs != number)
        local = positions[rows] - (x0, y0)
        if hidden.any():
            shown = core[rows] > 0
            if shown.any():
                _show(hidden, local[shown], core[rows[shown]])
            np.copyto(values, 0, where=hidden)
            np.copyto(inverse, 0, where=hidden)
        psf = _psf_at(exposure.psf, (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)
        yield Blend(values, inverse, psf, local, (x0, y0), rows, short, noise)


def _show(hidden: np.ndarray, positions: np.ndarray, radii: np.ndarray) -> None:
    """Takes from `hidden` the discs around positions, and the pixels that these lie on."""
    hidden &= _discs(positions, radii, hidden.shape) < 0
    x, y = nearest_pixel(positions, hidden.shape).T
    hidden[y, x] = False


# Boxes are rows (x0, y0, x1, y1) of integers; the last pixel is the one before (x1, y1).


def _disc_boxes(positions: np.ndarray, radii: np.ndarray) -> Int[np.ndarray, "source 4"]:
    low, high = positions - radii[:, None], positions + radii[:, None]
    return np.hstack([np.ceil(low), np.floor(high) + 1]).astype(np.int64)


def _owned_boxes(owner: np.ndarray, n_sources: int) -> Int[np.ndarray, "source 4"]:
    # What owns no pixel, as one of two sources on the same, gets a box that adds nothing.
    nothing = (np.iinfo(np.int32).max,) * 2 + (np.iinfo(np.int32).min,) * 2
    found = find_objects(owner + 1, max_label=n_sources)
    return np.array(
        [
            nothing if box is None else (box[1].start, box[0].start, box[1].stop, box[0].stop)
            for box in found
        ]
    )


def _joined(first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, "source 4"]:
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.hstack([low[:, :2], high[:, 2:]])


def _union(boxes: np.ndarray, starts: np.ndarray) -> Int[np.ndarray, "part 4"]:
    """The box around all boxes of each run that begins at `starts`."""
    return np.hstack(
        [
            np.minimum.reduceat(boxes[:, :2], starts, axis=0),
            np.maximum.reduceat(boxes[:, 2:], starts, axis=0),
        ]
    )


def _clipped(boxes: np.ndarray, shape: tuple[int, ...]) -> Int[np.ndarray, "source 4"]:
    return np.clip(boxes, 0, np.array([shape[1], shape[0]] * 2))


def _stamp_boxes(
    boxes: np.ndarray, positions: np.ndarray, shape: tuple[int, int], margin: float, max_size: int
) -> tuple[Int[np.ndarray, "source 4"], np.ndarray]:
    """Boxes with the margin, within the image and `max_size`; and whether they lost by the latter.

    Each has at least the pixel that the position lies on, in the middle where it can be.
    """
    around = int(np.ceil(min(margin, sum(shape))))
    pixel = nearest_pixel(positions, shape)
    wanted = _clipped(boxes + np.array([-around, -around, around, around]), shape)
    wanted = _joined(wanted, np.hstack([pixel, pixel + 1]))
    low, high = wanted[:, :2], wanted[:, 2:]
    large = high - low > max_size
    first = np.where(
        large, np.maximum(np.minimum(pixel - max_size // 2, high - max_size), low), low
    )
    last = np.where(large, first + max_size, high)
    return np.hstack([first, last]), large[:, 0] | large[:, 1]


def _psf_at(psf: AbstractPSF, x: float, y: float) -> AbstractPSF:
    """The PSF at a place; the same object wherever it does not vary."""
    if type(psf).at is AbstractPSF.at:
        return psf
    return psf.at(jnp.asarray(x), jnp.asarray(y))


def _radii(radius: Any, n_sources: int, shape: tuple[int, int]) -> Float[np.ndarray, "source"]:
    radii = np.asarray(radius)
    if radii.shape != (n_sources,) or radii.dtype.kind not in "fiu":
        raise ValueError(
            f"`radius` needs one number per source, shape ({n_sources},), or None; "
            f"got {radii.dtype} of shape {radii.shape}."
        )
    radii = radii.astype(float)
    wrong = np.flatnonzero(~(np.isfinite(radii) & (radii > 0)))
    if wrong.size:
        shown = ", ".join(f"row {row} ({radii[row]:g})" for row in wrong[:5])
        more = f" and {wrong.size - 5} more" if wrong.size > 5 else ""
        raise ValueError(f"`radius` must be finite and positive; not so are {shown}{more}.")
    # Smaller reaches no other source, larger covers the whole image: squares stay finite.
    return np.clip(radii, 1e-3, float(sum(shape)))


def _check_number(name: str, value: Any, least: float, open_end: bool = False) -> None:
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not known or not np.isfinite(float(value)) or value < least or (open_end and value == least):
        sign = "positive" if open_end else f"at least {least:g}"
        raise ValueError(f"`{name}` must be one finite number, {sign}; got {value!r}.")


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1; got {value!r}.")
