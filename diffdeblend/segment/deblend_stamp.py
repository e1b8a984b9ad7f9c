"""Sources of one stamp that touch, taken apart on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.segment.around import follow, shifted, touching
from diffdeblend.segment.bits import DEBLENDED, LOW_MINIMUM, MANY_MARKERS, NOT_CONNECTED
from diffdeblend.segment.split import MAX_MARKERS, Settings
from diffdeblend.segment.watershed import flood_stamp, highest


class DeblendedStamp(NamedTuple):
    """Labels of a stamp after deblending.

    - `labels`: from 1; whole sources first, in their old order, then the parts of the others.
    - `n_labels`: how many there are.
    - `bits`: of each pixel, the flags of its source.
    """

    labels: Int[Array, "y x"]
    n_labels: Int[Array, ""]
    bits: Int[Array, "y x"]


def deblend_stamp(
    data: Float[Array, "y x"], labels: Int[Array, "y x"], settings: Settings
) -> DeblendedStamp:
    """`deblend_sources` for one stamp. For `jit` and `vmap`; there is no limit to be exceeded.

    Steps and partition are those of the host, with arrays over all pixels in place of lists; what
    is per source or per hill stands at its label or at the index of one of its pixels.

    - `labels`: from 0 to at most the number of pixels.
    - `settings`: `n_pixels` and `contrast` may be traced, others not.
    """
    source = _Source(data, labels, settings)
    linear = jnp.zeros(source.size + 1, bool)
    linear |= settings.mode == "linear"

    def mark(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, many, _ = state
        markers = _markers(source, linear | many)
        crowd = (_count_regions(source, markers) > MAX_MARKERS) & ~linear & ~many
        crowd &= settings.contrast_method == "basin"
        return markers, many | crowd, jnp.any(crowd)

    none = jnp.zeros(source.shape, jnp.int32), jnp.zeros_like(linear)
    markers, many, _ = jax.lax.while_loop(lambda state: state[2], mark, (*none, jnp.array(True)))
    source_splits = (_count_regions(source, markers) > 1)[source.labels]
    markers = jnp.where(source_splits, markers, 0)
    flooded = jnp.where(source_splits, source.labels, 0)
    regions, unreachable = _regions(source, markers, flooded)
    return _numbered(source, regions, many, unreachable)


class _Source:
    """A stamp's pixels and what is per source: arrays by label, and the same on the pixels."""

    def __init__(self, data: Array, labels: Array, settings: Settings):
        self.settings, self.shape, self.size = settings, data.shape, data.size
        # A label costs an entry; so 0 stands for those of too few pixels, too.
        self.before = labels.astype(jnp.int32)
        area = self.sum_by_label(jnp.ones(data.shape, jnp.int32), self.before)
        large = (area >= 2 * settings.n_pixels).at[0].set(False)
        self.labels = jnp.where(large[self.before], self.before, 0)
        finite = jnp.isfinite(data)
        lowest = jnp.finfo(data.dtype).min
        self.light = jnp.where(finite, data, 0)
        self.value = jnp.where(finite, data, lowest)
        rows = jnp.where(finite, self.labels, self.size + 1).reshape(-1)
        flat = data.reshape(-1)
        low = jnp.full(self.size + 1, jnp.inf, data.dtype).at[rows].min(flat, mode="drop")
        high = jnp.full(self.size + 1, -jnp.inf, data.dtype).at[rows].max(flat, mode="drop")
        self.uneven = low < high
        self.low, self.high = jnp.where(self.uneven, low, 1), jnp.where(self.uneven, high, 2)
        self.total = self.sum_by_label(self.light, self.labels)
        self.index = jnp.arange(self.size, dtype=jnp.int32)
        self.touches = touching(self.labels, settings.connectivity)

    def sum_by_label(self, values: Array, labels: Array) -> Array:
        sums = jnp.zeros(self.size + 1, values.dtype)
        return sums.at[labels.reshape(-1)].add(values.reshape(-1))

    def level(self, number: Array, linear: Bool[Array, "label"]) -> Float[Array, "label"]:
        """That level of each source, from 1; rounded as on the host but for the powers."""
        n_levels, mode = self.settings.n_levels, self.settings.mode
        height = self.high - self.low
        straight = self.low + number * (height / (n_levels + 1))
        if mode == "linear":
            return straight
        u = (straight - self.low) / height
        bent = self.low + height * jnp.sinh(4 * u) / jnp.sinh(4.0).astype(u.dtype)
        if mode == "exponential":
            start = jnp.where(self.low > 0, self.low, 1)
            power = start * (jnp.where(self.low > 0, self.high, 2) / start) ** u
            bent = jnp.where(self.low > 0, power, bent)
        return jnp.where(linear, straight, bent)


def _markers(source: _Source, linear: Bool[Array, "label"]) -> Int[Array, "y x"]:
    """As `find_markers`: one more than the index of each marker's first pixel."""
    settings, size, shape = source.settings, source.size, source.shape
    connectivity, n_levels = settings.connectivity, settings.n_levels
    labels = source.labels.reshape(-1)
    grid = source.index.reshape(shape)
    seen = shifted(source.value, connectivity), shifted(grid, connectivity)
    near = list(zip(source.touches, *seen, strict=True))
    part = follow(highest(source.value, near).reshape(-1))

    def count(number: Array, above: Array) -> Array:
        return above + (source.value > source.level(number, linear)[source.labels])

    above = jnp.zeros(shape, jnp.int32)
    above = jax.lax.fori_loop(1, n_levels + 1, count, above)
    passes = [
        jnp.where(touches, jnp.minimum(above, other), -1)
        for touches, other in zip(source.touches, shifted(above, connectivity), strict=True)
    ]
    flat_above = above.reshape(-1)
    first = jnp.full(size + 1, size, jnp.int32).at[labels].min(part)
    saddle = settings.contrast_method == "saddle"

    def join(part: Array, at: Array) -> Array:
        def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
            part, _ = state
            least = part.reshape(shape)
            for height, other in zip(passes, shifted(least, connectivity), strict=True):
                least = jnp.minimum(least, jnp.where(height >= at, other, size))
            hooked = follow(part.at[part].min(least.reshape(-1)))
            return hooked, jnp.any(hooked != part)

        return jax.lax.while_loop(lambda state: state[1], step, (part, jnp.array(True)))[0]

    def descend(turn: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        part, area, flux, has_split, marker, base = state
        at = n_levels - turn
        # In the end the source as a whole is one, however its pixels touch.
        joined = jnp.where(at == 0, first[labels], join(part, jnp.maximum(at, 1)))
        head = (part == source.index) & (labels > 0)
        stands = head & (area >= settings.n_pixels)
        if saddle:
            level = source.level(at + 1, linear)[labels]
            least = settings.contrast * source.total[labels]
            stands &= (flux - level * area > least) & (at < n_levels)
        to = jnp.where(head, joined, size)

        def gather(values: Array) -> Array:
            zeros = jnp.zeros(size, values.dtype)
            return zeros.at[to].add(jnp.where(head, values, 0), mode="drop")

        splits = gather(stands.astype(jnp.int32)) >= 2
        chosen = stands & splits[joined] & ~has_split
        new = chosen[part]
        marker, base = jnp.where(new, part, marker), jnp.where(new, at, base)
        has_split = splits | (gather(has_split.astype(jnp.int32)) > 0)
        here = (flat_above == at) & (labels > 0)
        area = gather(area).at[joined].add(here.astype(jnp.int32))
        if saddle:
            flux = gather(flux).at[joined].add(jnp.where(here, source.light.reshape(-1), 0))
        return joined, area, flux, has_split, marker, base

    state = (
        part,
        jnp.zeros(size, jnp.int32),
        jnp.zeros(size, source.value.dtype),
        jnp.zeros(size, bool),
        jnp.full(size, size, jnp.int32),
        jnp.full(size, n_levels, jnp.int32),
    )
    *_, marker, base = jax.lax.fori_loop(0, n_levels + 1, descend, state)
    inside = (flat_above > base) & source.uneven[labels] & (labels > 0)
    name = jnp.where(inside, marker, size)
    start = jnp.full(size, size, jnp.int32).at[name].min(source.index, mode="drop")
    found = jnp.where(inside, start[jnp.minimum(name, size - 1)] + 1, 0)
    return found.reshape(shape)


def _count_regions(source: _Source, regions: Int[Array, "y x"]) -> Int[Array, "label"]:
    """Regions of each source: a region is named after a pixel of its source."""
    alive = jnp.zeros(source.size + 1, bool).at[regions.reshape(-1)].set(True)[1:]
    return source.sum_by_label(alive.astype(jnp.int32), source.labels)


def _regions(
    source: _Source, markers: Int[Array, "y x"], flooded: Int[Array, "y x"]
) -> tuple[Int[Array, "y x"], Bool[Array, "label"]]:
    """The flood, and again for as long as a region is too faint; sources that it cannot fill."""
    settings, size = source.settings, source.size
    owner = source.labels.reshape(-1)
    basin = settings.contrast_method == "basin"

    def fill(markers: Array) -> Array:
        return flood_stamp(source.value, markers, flooded, settings.connectivity)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        regions = fill(state[0])
        flux = source.sum_by_label(source.light, regions)[1:]
        alive = jnp.zeros(size + 1, bool).at[regions.reshape(-1)].set(True)[1:]
        total = source.total[owner]
        share = jnp.where(alive, flux / jnp.where(total == 0, 1, total), jnp.inf)
        least = jnp.full(size + 1, jnp.inf, share.dtype).at[owner].min(share)[owner]
        faint = alive & (share == least) & (share < settings.contrast)
        faint &= _count_regions(source, regions)[owner] > 1
        # One at a time of each source: several may make up a bright one together.
        first = jnp.full(size + 1, size, jnp.int32)
        first = first.at[jnp.where(faint, owner, size + 1)].min(source.index, mode="drop")
        drop = faint & (first[owner] == source.index)
        stays = jnp.concatenate([jnp.zeros(1, bool), ~drop])
        return jnp.where(stays[regions], regions, 0), jnp.any(drop)

    if basin:
        regions, _ = jax.lax.while_loop(
            lambda state: state[1], step, (markers, jnp.any(flooded > 0))
        )
    else:
        regions = fill(markers)
    missed = ((flooded > 0) & (regions == 0)).astype(jnp.int32)
    return regions, source.sum_by_label(missed, flooded) > 0


def _numbered(
    source: _Source,
    regions: Int[Array, "y x"],
    many: Bool[Array, "label"],
    unreachable: Bool[Array, "label"],
) -> DeblendedStamp:
    size, before = source.size, source.before.reshape(-1)
    count = jnp.where(unreachable, 0, _count_regions(source, regions))
    splits = (count > 1).at[0].set(False)
    present = jnp.zeros(size + 1, bool).at[before].set(True).at[0].set(False)
    whole = present & ~splits
    n_whole = jnp.sum(whole, dtype=jnp.int32)
    count = jnp.where(splits, count, 0)
    start = n_whole + jnp.cumsum(count, dtype=jnp.int32) - count
    label_of_whole = jnp.cumsum(whole, dtype=jnp.int32)
    alive = jnp.zeros(size + 1, bool).at[regions.reshape(-1)].set(True)[1:] & splits[before]
    # By source, and within one by the first pixel of the marker, after which it is named.
    order = jnp.argsort(jnp.where(alive, before, size + 1), stable=True)
    rank = jnp.zeros(size, jnp.int32).at[order].set(source.index)
    earlier = jnp.cumsum(count, dtype=jnp.int32) - count
    number = start[before] + rank - earlier[before] + 1
    region = jnp.maximum(regions.reshape(-1) - 1, 0)
    labels = jnp.where(splits[before], number[region], label_of_whole[before])
    labels = jnp.where(before > 0, labels, 0).reshape(source.shape)
    fell_back = source.uneven & (source.low <= 0) & (source.settings.mode == "exponential")
    bits = (
        DEBLENDED * splits
        + LOW_MINIMUM * fell_back
        + MANY_MARKERS * many
        + NOT_CONNECTED * unreachable
    ).astype(jnp.int32)
    # Sources too small to split had no levels.
    bits = jnp.where(source.before > 0, bits.at[0].set(0)[source.labels], 0)
    return DeblendedStamp(labels, n_whole + jnp.sum(count), bits)
