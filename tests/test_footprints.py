"""Footprints, with values or without, one by one and all of an image together."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import Footprint, FootprintSet, HeavyFootprint, Peaks, SpanSet
from diffdeblend.psf import GaussianPSF
from diffdeblend.segment import LabelImage

SHAPE = (40, 61)


def blobs(seed=0, share=0.3, shape=SHAPE):
    """A mask of clumps, some at the borders, and a peak on every seventh of its pixels."""
    random = np.random.default_rng(seed)
    smoothed = scipy.ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    mask = smoothed > np.quantile(smoothed, 1 - share)
    y, x = np.nonzero(mask)
    chosen = random.permutation(len(y))[: len(y) // 7]
    peaks = Peaks(x[chosen], y[chosen], random.normal(size=len(chosen)))
    return mask, peaks


def exposure(seed=0, bands=1):
    random = np.random.default_rng(seed)
    shape = (bands, *SHAPE)
    return make_exposure(
        random.normal(size=shape).astype(np.float32),
        random.uniform(1, 2, shape).astype(np.float32),
        GaussianPSF([2.0] * bands),
        mask=random.integers(0, 512, shape).astype(np.int32),
        bands=["g", "r", "i"][:bands],
        mask_planes=[f"P{k}" for k in range(9)],
        excluded=(),
    )


def one(seed=0):
    """A footprint of some parts, on a set of its own."""
    mask, peaks = blobs(seed)
    spans = SpanSet.from_mask(mask)
    return Footprint(spans, peaks.sorted()), mask


def places(peaks):
    return list(zip(peaks.x.tolist(), peaks.y.tolist(), strict=True))


def same(a, b):
    """Whether two footprints are equal in pixels and peaks."""
    assert a.spans == b.spans
    assert places(a.peaks) == places(b.peaks)
    np.testing.assert_array_equal(a.peaks.value, b.peaks.value)


@pytest.mark.parametrize("stencil", ["circle", "manhattan", "box"])
def test_erosion_drops_the_peaks_outside_and_no_others(stencil):
    made, mask = one()
    counts = []
    for radius in range(6):
        left = made.erode(radius, stencil)
        window = SpanSet.from_stencil(radius, stencil).to_mask()
        inner = scipy.ndimage.binary_erosion(mask, window)
        wanted = [(x, y) for x, y in places(made.peaks) if inner[y, x]]
        assert places(left.peaks) == wanted
        counts.append(len(left.peaks))
        assert places(made.dilate(radius, stencil).peaks) == places(made.peaks)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] == len(made.peaks)


def test_two_squares_that_share_a_corner_are_one_detection_and_two_parts():
    mask = np.zeros((9, 12), bool)
    mask[1:4, 2:5] = mask[4:7, 5:9] = True
    peaks = Peaks([3, 6], [2, 5], [4.0, 9.0])
    (found,) = FootprintSet.from_mask(mask, peaks)
    assert places(found.peaks) == [(6, 5), (3, 2)]
    parts = found.split()
    assert [part.area for part in parts] == [9, 12]
    assert [places(part.peaks) for part in parts] == [[(3, 2)], [(6, 5)]]
    assert len(found.split(8)) == 1
    assert len(FootprintSet.from_mask(mask, connectivity=4)) == 2


def test_parts_and_clips_keep_the_peaks_on_them():
    made, mask = one(3)
    box = (5, 40, 3, 30)
    cut = made.clipped(box)
    x0, x1, y0, y1 = box
    wanted = [(x, y) for x, y in places(made.peaks) if x0 <= x < x1 and y0 <= y < y1]
    assert places(cut.peaks) == wanted
    assert cut.area == mask[3:30, 5:40].sum()
    inside = made.intersect(SpanSet.from_box(box))
    same(inside, cut)
    rest = made.subtract(inside)
    assert rest.area + inside.area == made.area
    assert sorted(places(rest.peaks) + places(inside.peaks)) == sorted(places(made.peaks))
    assert not rest.overlaps(inside)
    moved = made.shifted(4, -2)
    assert places(moved.peaks) == [(x + 4, y - 2) for x, y in places(made.peaks)]
    assert moved.contains(moved.peaks.x, moved.peaks.y).all()


def test_the_same_map_of_the_sky_changes_nothing():
    made, _ = one(5)
    keep = lambda x, y: (x, y)  # noqa: E731
    same(made.transformed(keep, keep), made)


def test_another_grid_takes_the_pixels_whose_middle_falls_on_it():
    made, mask = one(6)
    c, s = np.cos(0.5) / 0.7, np.sin(0.5) / 0.7
    forward = lambda x, y: (c * x - s * y + 30.2, s * x + c * y - 4.1)  # noqa: E731

    def backward(x, y):
        x, y = x - 30.2, y + 4.1
        return (c * x + s * y) / (c * c + s * s), (c * y - s * x) / (c * c + s * s)

    moved = made.transformed(forward, backward)
    y, x = np.mgrid[-60:200, -60:200]
    bx, by = backward(x, y)
    ix, iy = np.floor(bx + 0.5).astype(int), np.floor(by + 0.5).astype(int)
    on = (ix >= 0) & (iy >= 0) & (ix < SHAPE[1]) & (iy < SHAPE[0])
    on[on] = mask[iy[on], ix[on]]
    assert moved.spans == SpanSet.from_mask(on, (-60, -60))
    px, py = forward(made.peaks.x, made.peaks.y)
    np.testing.assert_array_equal(moved.peaks.x, np.floor(px + 0.5))
    np.testing.assert_array_equal(moved.peaks.y, np.floor(py + 0.5))


def test_peaks_go_down_in_absolute_value():
    peaks = Peaks([5, 4, 3, 3, 3], [0, 0, 9, 8, 0], [1.0, -3.0, 2.0, 2.0, -2.5]).sorted()
    assert places(peaks) == [(4, 0), (3, 0), (3, 8), (3, 9), (5, 0)]


def test_peaks_of_other_bands_are_joined():
    a = Peaks([1], [2], [3.0], bands={"g": [True]})
    b = Peaks([4, 5], [6, 7], [8.0, 9.0], significance=[1.0, 2.0], bands={"r": [True, False]})
    made = a.joined(b)
    assert {k: v.tolist() for k, v in made.bands.items()} == {
        "g": [True, False, False],
        "r": [False, True, False],
    }
    assert made.significance.tolist() == [0, 1, 2]
    assert places(made[[2, 0]]) == [(5, 7), (1, 2)]
    assert places(made[-1]) == [(5, 7)]


def test_values_come_out_as_they_went_in():
    made, mask = one(1)
    seen = exposure(bands=2)
    heavy = HeavyFootprint.from_exposure(made, seen, "r")
    image = np.asarray(seen.image[1])
    assert heavy.is_heavy
    assert not made.is_heavy
    np.testing.assert_array_equal(heavy.image, image[mask])
    np.testing.assert_array_equal(heavy.to_image(-7.0, SHAPE), np.where(mask, image, -7))
    box = heavy.bbox
    np.testing.assert_array_equal(heavy.to_image(np.nan), np.where(mask, image, np.nan)[box.slices])
    np.testing.assert_array_equal(heavy.unflatten(heavy.mask, 0, SHAPE)[mask], seen.mask[1][mask])
    part = (10, 50, -5, 20)
    wide = np.pad(np.where(mask, image, 0), ((5, 0), (0, 0)))
    np.testing.assert_array_equal(heavy.to_image(0.0, part), wide[:25, 10:50])
    assert heavy.mask_bits == np.bitwise_or.reduce(np.asarray(seen.mask[1])[mask])


def test_values_go_into_an_image_or_an_exposure():
    made, mask = one(2)
    heavy = HeavyFootprint.from_exposure(made, exposure(1))
    image = np.zeros(SHAPE, np.float32)
    filled = heavy.insert(image)
    assert not image.any()
    np.testing.assert_array_equal(filled, heavy.to_image(0.0, SHAPE))
    other = exposure(2, bands=3)
    changed = heavy.insert(other, "i")
    for name in ("image", "variance", "mask"):
        mine, before = np.asarray(getattr(changed, name)), np.asarray(getattr(other, name))
        np.testing.assert_array_equal(mine[:2], before[:2])
        np.testing.assert_array_equal(mine[2][~mask], before[2][~mask])
        np.testing.assert_array_equal(mine[2][mask], getattr(heavy, name))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(-25, 25), st.integers(-25, 25))
def test_products_and_unions_are_those_of_images(seed, dx, dy):
    (first, _), (second, _) = one(seed), one(seed + 1)
    seen = exposure(seed)
    a = HeavyFootprint.from_exposure(first, seen)
    b = HeavyFootprint.from_exposure(second, exposure(seed + 1)).shifted(dx, dy)
    box = (-30, 100, -30, 100)

    def on_box(footprint, name):
        return footprint.unflatten(getattr(footprint, name).astype(float), 0.0, box)

    product = (on_box(a, "image") * on_box(b, "image")).sum()
    np.testing.assert_allclose(a.dot(b), product, rtol=1e-6, atol=1e-6)
    both = a.union(b)
    for name in ("image", "variance"):
        added = on_box(a, name) + on_box(b, name)
        np.testing.assert_allclose(on_box(both, name), added, rtol=1e-6, atol=1e-6)
    bits = on_box(a, "mask").astype(int) | on_box(b, "mask").astype(int)
    np.testing.assert_array_equal(on_box(both, "mask"), bits)
    assert len(both.peaks) == len(a.peaks) + len(b.peaks)


def test_footprints_apart_have_no_product():
    seen = exposure()
    a, b = (
        HeavyFootprint.from_exposure(Footprint(SpanSet.from_stencil(2, origin=xy)), seen)
        for xy in ((5, 5), (20, 20))
    )
    assert a.dot(b) == 0
    assert a.dot(a) == pytest.approx(float(np.sum(a.image.astype(float) ** 2)))


def test_a_heavy_footprint_is_not_grown():
    heavy = HeavyFootprint.from_exposure(one()[0], exposure())
    with pytest.raises(ValueError, match=r"light\(\).dilate"):
        heavy.dilate(2)
    with pytest.raises(ValueError, match=r"light\(\).erode"):
        heavy.erode(2)
    part = heavy.on(heavy.spans.erode(1))
    np.testing.assert_array_equal(part.image, heavy.to_image(0.0, SHAPE)[part.spans.to_mask(SHAPE)])
    assert not heavy.light().dilate(2).is_heavy


@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_labels_become_footprints_and_labels_again(share):
    mask, peaks = blobs(7, share)
    labels, n = scipy.ndimage.label(mask, np.ones((3, 3)))
    made = FootprintSet.from_labels(labels, peaks)
    assert len(made) == n
    np.testing.assert_array_equal(made.to_labels().data, labels)
    np.testing.assert_array_equal(made.to_mask(), mask)
    assert SpanSet.from_mask(made.to_mask()) == made.spans.union()
    again = FootprintSet.from_mask(mask, peaks)
    for k in range(n):
        same(made[k], again[k])
        assert made[k].spans == SpanSet.from_mask(labels == k + 1)
        on = labels[peaks.y, peaks.x] == k + 1
        same(made[k], Footprint(made[k].spans, peaks[on].sorted()))
    np.testing.assert_array_equal(made.areas, [one.area for one in made])
    np.testing.assert_array_equal(made.boxes, [one.bbox for one in made])
    np.testing.assert_allclose(made.centroids, [one.centroid for one in made], atol=1e-12)
    rebuilt = FootprintSet.from_footprints(list(made))
    np.testing.assert_array_equal(rebuilt.to_labels().data, labels)
    assert places(rebuilt.peaks) == places(made.peaks)


def test_labels_that_touch_interleave_or_are_missing():
    random = np.random.default_rng(8)
    data = random.choice([0, 3, 4, 9], size=(23, 31)).astype(np.int32)
    made = FootprintSet.from_labels(LabelImage(data), Peaks([0], [0], [1.0]))
    assert len(made) == 3
    for footprint, label in zip(made, (3, 4, 9), strict=True):
        assert footprint.spans == SpanSet.from_mask(data == label)
        assert len(footprint.peaks) == (data[0, 0] == label)


def test_some_footprints_of_a_set_are_a_set():
    mask, peaks = blobs(9)
    made = FootprintSet.from_mask(mask, peaks).make_heavy(exposure())
    chosen = [4, 0, 2]
    for part, k in zip(made[chosen], chosen, strict=True):
        same(part, made[k])
        np.testing.assert_array_equal(part.image, made[k].image)
    assert len(made[1:3]) == 2
    assert len(made[made.areas > 1000]) == 0
    same(made[-1], made[len(made) - 1])
    with pytest.raises(IndexError, match="There are"):
        made[len(made)]


def test_heavy_sets_hold_the_pixels_of_each():
    mask, peaks = blobs(10)
    seen = exposure(3, bands=3)
    made = FootprintSet.from_mask(mask, peaks)
    heavy = made.make_heavy(seen, "i")
    for light, full in zip(made, heavy, strict=True):
        wanted = HeavyFootprint.from_exposure(light, seen, "i")
        for name in ("image", "mask", "variance"):
            np.testing.assert_array_equal(getattr(full, name), getattr(wanted, name))
    again = FootprintSet.from_footprints(list(heavy))
    assert again.is_heavy
    empty = np.full(SHAPE, -1.0, np.float32)
    wanted = np.where(mask, np.asarray(seen.image[2]), -1)
    np.testing.assert_array_equal(again.insert(empty), wanted)
    other = exposure(4, bands=3)
    changed = again.insert(other, "g")
    np.testing.assert_array_equal(changed.mask[0], np.where(mask, seen.mask[2], other.mask[0]))
    np.testing.assert_array_equal(changed.image[1:], other.image[1:])


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_growing_together_is_labelling_the_grown_mask(radius, connectivity):
    mask, peaks = blobs(11, 0.1)
    made = FootprintSet.from_mask(mask, peaks)
    seen = np.arange(len(made)) % 3 == 0
    made = FootprintSet.from_footprints(list(made), SHAPE, {"g": seen})
    grown = made.dilate(radius, connectivity=connectivity)
    window = SpanSet.from_stencil(radius).to_mask()
    wide = scipy.ndimage.binary_dilation(mask, window)
    labels, n = scipy.ndimage.label(wide, np.ones((3, 3)) if connectivity == 8 else None)
    np.testing.assert_array_equal(grown.to_labels().data, labels)
    for k in range(n):
        on = labels[peaks.y, peaks.x] == k + 1
        assert places(grown[k].peaks) == places(peaks[on].sorted())
        members = [seen[j] for j, one in enumerate(made) if one.overlaps(grown[k])]
        if connectivity == 8:  # else what was one may be several now
            assert grown.bands["g"][k] == any(members)


def test_growing_and_shrinking_each_by_itself():
    mask, peaks = blobs(12, 0.15)
    made = FootprintSet.from_mask(mask, peaks)
    grown, shrunk = made.dilate(3, "manhattan", combined=False, clip=False), made.erode(1)
    clipped = made.dilate(3, "manhattan", combined=False)
    for k, footprint in enumerate(made):
        same(grown[k], footprint.dilate(3, "manhattan"))
        same(clipped[k], footprint.dilate(3, "manhattan").clipped(SHAPE))
        same(shrunk[k], footprint.erode(1))
    assert not clipped.spans.union().subtract(SpanSet.from_box((0, 61, 0, 40)))
    with pytest.raises(ValueError, match="reach beyond the image"):
        grown.to_labels()


def test_a_set_of_no_footprint():
    none = FootprintSet.from_labels(np.zeros(SHAPE, int))
    assert len(none) == len(list(none)) == len(none.dilate(2)) == len(none.erode(2)) == 0
    assert len(none.make_heavy(exposure())) == 0
    assert not none.to_mask().any()
    assert none.boxes.shape == (0, 4)
    assert len(FootprintSet.from_footprints([], SHAPE)) == 0


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda f, e: f.clipped(), "`box` is missing"),
        (
            lambda f, e: HeavyFootprint(f.spans, f.peaks, None, np.ones(3)),
            "`image` needs one value",
        ),
        (lambda f, e: HeavyFootprint.from_exposure(f.shifted(-9, 0), e, "g"), "reach beyond"),
        (lambda f, e: HeavyFootprint.from_exposure(f, e), "`band` must be one of"),
        (lambda f, e: HeavyFootprint.from_exposure(f, e, "z"), "must be one of the bands"),
        (
            lambda f, e: HeavyFootprint.from_arrays(f, np.ones(SHAPE), np.ones((2, 2))),
            "`variance` needs the shape of `image`",
        ),
        (
            lambda f, e: HeavyFootprint.from_exposure(f, e, "g").on(f.spans.dilate(1)),
            "`spans` must be pixels of the footprint",
        ),
        (lambda f, e: FootprintSet.from_footprints([f]), "`region` is missing"),
        (lambda f, e: FootprintSet.from_footprints([f], SHAPE).insert(e, "g"), "make them heavy"),
        (
            lambda f, e: FootprintSet.from_footprints([f], SHAPE).make_heavy(e, "g").dilate(1),
            "heavy footprints have no values beyond",
        ),
        (
            lambda f, e: FootprintSet.from_footprints([f], SHAPE).with_peaks(f.peaks, [3]),
            "`owner` needs a footprint",
        ),
        (lambda f, e: Peaks([0.5], [1], [2.0]), "`x` and `y` must be integers"),
        (lambda f, e: Peaks([1, 2], [1], [2.0]), "need one shape"),
    ],
)
def test_what_cannot_be_is_refused(act, message):
    with pytest.raises((ValueError, TypeCheckError), match=message):
        act(one()[0], exposure(bands=2))
