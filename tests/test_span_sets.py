"""Sets of pixels as spans, against scipy on masks."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffdeblend.footprints import SpanSet

STENCILS = ("circle", "manhattan", "box")
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=15))
ORIGINS = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


def structure(radius, stencil):
    """The window of scipy, from the definition of the stencil."""
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return {
        "circle": dx**2 + dy**2 <= radius**2,
        "manhattan": abs(dx) + abs(dy) <= radius,
        "box": np.ones_like(dx, bool),
    }[stencil]


def noisy(seed, shape=(40, 61), share=0.5, smooth=1.5):
    """A mask of clumps, some at the borders."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smoothed = scipy.ndimage.gaussian_filter(noise, smooth)
    return smoothed > np.quantile(smoothed, 1 - share)


@settings(max_examples=60, deadline=None)
@given(MASKS, ORIGINS)
def test_area_box_centroid_and_shape_are_those_of_the_pixels(mask, origin):
    spans = SpanSet.from_mask(mask, origin)
    y, x = np.nonzero(mask)
    x, y = x + origin[0], y + origin[1]
    assert spans.area == mask.sum()
    assert bool(spans) == mask.any()
    if not mask.any():
        assert spans.bbox == (0, 0, 0, 0)
        assert np.isnan(spans.centroid).all()
        assert np.isnan(spans.shape).all()
        return
    assert spans.bbox == (x.min(), x.max() + 1, y.min(), y.max() + 1)
    np.testing.assert_allclose(spans.centroid, (x.mean(), y.mean()), rtol=0, atol=1e-12)
    dx, dy = x - x.mean(), y - y.mean()
    moments = (dx * dx).mean(), (dy * dy).mean(), (dx * dy).mean()
    np.testing.assert_allclose(spans.shape, moments, rtol=0, atol=1e-12)


def test_moments_of_a_large_image_do_not_overflow():
    n = 100_000
    spans = SpanSet.from_box((0, n, 5, 5 + n))
    assert spans.area == n * n
    assert spans.centroid == (49_999.5, 50_004.5)
    assert spans.shape == ((n**2 - 1) / 12, (n**2 - 1) / 12, 0)


@settings(max_examples=60, deadline=None)
@given(MASKS, ORIGINS)
def test_masks_come_back_the_same(mask, origin):
    spans = SpanSet.from_mask(mask, origin)
    x, y = origin
    box = (x, x + mask.shape[1], y, y + mask.shape[0])
    np.testing.assert_array_equal(spans.to_mask(box), mask)
    assert SpanSet.from_mask(spans.to_mask(), (spans.bbox.ixmin, spans.bbox.iymin)) == spans
    rows, columns = spans.indices()
    np.testing.assert_array_equal(np.stack([rows - y, columns - x]), np.nonzero(mask))
    order = np.random.default_rng(0).permutation(len(spans))
    assert SpanSet(*(one[order] for one in spans.arrays)) == spans


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-9, 9), st.integers(0, 6))))
def test_any_spans_are_brought_to_order(given_spans):
    y, x0, n = np.array(given_spans, int).reshape(-1, 3).T
    made = SpanSet(y, x0, x0 + n)
    pixels = {(a, b + k) for a, b, c in given_spans for k in range(c + 1)}
    rows, columns = made.indices()
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(pixels)
    same_row = made.y[1:] == made.y[:-1]
    # A gap of at least a pixel between spans of a row.
    assert (made.x0[1:][same_row] > made.x1[:-1][same_row] + 1).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), MASKS, ORIGINS, ORIGINS)
def test_algebra_is_that_of_masks(data, mask, origin, other_origin):
    other = data.draw(MASKS)
    a, b = SpanSet.from_mask(mask, origin), SpanSet.from_mask(other, other_origin)
    box = (-60, 60, -60, 60)
    in_a, in_b = a.to_mask(box), b.to_mask(box)

    def spans(m):
        return SpanSet.from_mask(m, (-60, -60))

    assert a.union(b) == spans(in_a | in_b)
    assert a.intersect(b) == spans(in_a & in_b)
    assert a.subtract(b) == spans(in_a & ~in_b)
    assert a.overlaps(b) == (in_a & in_b).any()
    assert a.shifted(3, -5) == SpanSet.from_mask(mask, (origin[0] + 3, origin[1] - 5))
    shape = (7, 20)
    assert a.clipped(shape) == SpanSet.from_mask(a.to_mask(shape))
    assert a.intersect(np.ones(shape, bool)) == a.clipped(shape)
    assert a.subtract(np.ones(shape, bool)) == a.subtract(SpanSet.from_box((0, 20, 0, 7)))
    y, x = np.mgrid[-60:60, -60:60]
    np.testing.assert_array_equal(a.contains(x, y), in_a)


@pytest.mark.parametrize(("radius", "area"), [(0, 1), (1, 5), (2, 13), (3, 29), (5, 81)])
def test_areas_of_discs(radius, area):
    assert SpanSet.from_stencil(radius).area == area
    assert SpanSet.from_stencil(radius, "manhattan").area == 2 * radius * (radius + 1) + 1
    assert SpanSet.from_stencil(radius, "box").area == (2 * radius + 1) ** 2
    assert SpanSet.from_stencil(radius, origin=(7, -2)).centroid == (7, -2)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("radius", range(11))
def test_dilation_and_erosion_are_scipys(radius, stencil):
    window = structure(radius, stencil)
    for seed in range(3):
        mask = noisy(seed, share=(0.05, 0.5, 0.97)[seed])
        wide = np.pad(mask, radius)
        spans = SpanSet.from_mask(mask)
        grown = SpanSet.from_mask(scipy.ndimage.binary_dilation(wide, window), (-radius, -radius))
        left = SpanSet.from_mask(scipy.ndimage.binary_erosion(wide, window), (-radius, -radius))
        assert spans.dilate(radius, stencil) == grown
        assert spans.erode(radius, stencil) == left


@settings(max_examples=40, deadline=None)
@given(MASKS, st.integers(0, 6), st.sampled_from(STENCILS))
def test_closing_holds_the_set_and_the_set_holds_its_opening(mask, radius, stencil):
    spans = SpanSet.from_mask(mask)
    closed = spans.dilate(radius, stencil).erode(radius, stencil)
    opened = spans.erode(radius, stencil).dilate(radius, stencil)
    assert not spans.subtract(closed)
    assert not opened.subtract(spans)


def test_the_edge_is_what_an_erosion_takes():
    mask = noisy(4)
    inner = scipy.ndimage.binary_erosion(mask)
    assert SpanSet.from_mask(mask).edge() == SpanSet.from_mask(mask & ~inner)


@settings(max_examples=60, deadline=None)
@given(MASKS, ORIGINS, st.sampled_from([4, 8]))
def test_parts_are_those_of_scipy(mask, origin, connectivity):
    labels, n = scipy.ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    parts = SpanSet.from_mask(mask, origin).split(connectivity)
    assert len(parts) == n
    for k, part in enumerate(parts, start=1):
        assert part == SpanSet.from_mask(labels == k, origin)


def test_nothing_is_a_set_too():
    none = SpanSet.empty()
    assert not none
    assert none == SpanSet.from_mask(np.zeros((3, 4), bool)) == SpanSet([], [], [])
    assert none.dilate(3) == none.erode(3) == none.shifted(1, 1) == none.clipped((5, 5)) == none
    assert none.split() == []
    assert not none.overlaps(SpanSet.from_stencil(3))
    assert none.union(SpanSet.from_stencil(3)) == SpanSet.from_stencil(3)
    assert SpanSet.from_stencil(2).erode(3) == none
    assert not none.contains(0, 0)
    assert SpanSet.from_box((4, 4, 0, 9)) == none


def test_positions_are_on_the_pixel_that_they_round_to():
    spans = SpanSet.from_box((2, 4, 1, 2))
    x = [1.49, 1.5, 3.49, 3.5]
    np.testing.assert_array_equal(spans.contains(x, 1.2), [False, True, True, False])
    assert bool(spans.contains(2, 0.5))
    assert not spans.contains(2, 1.5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: SpanSet([0], [3], [2]), "`x1` must be at least `x0`; got 3 to 2"),
        (lambda s: SpanSet([0, 1], [3], [4]), "`y`, `x0` and `x1` need one shape"),
        (lambda s: SpanSet([0.5], [3], [4]), "must be integers; got"),
        (lambda s: SpanSet.from_mask(np.full((2, 2), 3)), "`mask` needs booleans"),
        (lambda s: SpanSet.from_mask(np.ones(4, bool)), "`mask` needs booleans"),
        (lambda s: s.dilate(-1), "`radius` must be an integer of at least 0; got -1"),
        (lambda s: s.dilate(1.5), "`radius` must be an integer"),
        (lambda s: s.erode(2, "star"), '`stencil` must be "circle", "manhattan" or "box"'),
        (lambda s: s.split(6), "`connectivity` must be 4 or 8; got 6"),
        (lambda s: s.indices((3, 3)), "reach beyond the image of shape"),
        (lambda s: s.clipped((1, 2, 3)), "`box` must be"),
    ],
)
def test_what_cannot_be_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act(SpanSet.from_stencil(3, origin=(3, 3)))
