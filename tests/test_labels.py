"""The label image: what it says of its labels, and how they change."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from diffdeblend.segment import BoundingBox, LabelImage
from diffdeblend.segment.dilate import dilate, footprint_of

SMALL = np.array(
    [
        [1, 1, 0, 0, 4, 4],
        [0, 0, 0, 0, 0, 4],
        [0, 0, 3, 3, 0, 0],
        [7, 0, 0, 0, 0, 5],
        [7, 7, 0, 5, 5, 5],
    ]
)


def random_labels(seed=0, shape=(40, 57), highest=30):
    """Blobs whose labels have gaps, some in two pieces, some at the border."""
    rng = np.random.default_rng(seed)
    seeds = np.where(rng.random(shape) < 0.02, rng.integers(1, highest, shape), 0)
    return ndimage.grey_dilation(seeds, size=(3, 4))


def reference(data):
    """The same in photutils."""
    return pytest.importorskip("photutils.segmentation").SegmentationImage(np.array(data))


@pytest.mark.parametrize("data", [SMALL, random_labels(), random_labels(1) * 1000])
def test_it_says_what_photutils_says(data):
    ours, theirs = LabelImage(data), reference(data)
    for name in ("labels", "areas", "missing_labels", "data_masked"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("n_labels", "max_label", "background_area", "is_consecutive", "shape", "slices"):
        assert getattr(ours, name) == getattr(theirs, name)
    for ours_box, box in zip(ours.bbox, theirs.bbox, strict=True):
        assert ours_box == (box.ixmin, box.ixmax, box.iymin, box.iymax)
        assert ours_box.shape == box.shape
    chosen = ours.labels[[3, 0]]
    np.testing.assert_array_equal(ours.get_indices(chosen), theirs.get_indices(chosen))
    np.testing.assert_array_equal(ours.get_areas(chosen), theirs.get_areas(chosen))
    assert ours.get_index(chosen[0]) == 3
    assert ours.get_area(chosen[0]) == theirs.get_area(chosen[0])
    image = np.random.default_rng(0).normal(size=data.shape)
    for mine, other in zip(ours.segments, theirs.segments, strict=True):
        assert (mine.label, mine.area, mine.slices) == (other.label, other.area, other.slices)
        np.testing.assert_array_equal(mine.data, other.data)
        np.testing.assert_array_equal(mine.data_masked.mask, other.data_masked.mask)
        np.testing.assert_array_equal(mine.make_cutout(image), other.make_cutout(image))
        masked = mine.make_cutout(image, masked_array=True)
        np.testing.assert_array_equal(masked.mask, np.asarray(ours)[mine.slices] != mine.label)
    np.testing.assert_array_equal(ours[2:9, 1:].data, theirs[2:9, 1:].data)


CHANGES = {
    "reassign": lambda image, data: image.reassign_label(3, 12),
    "reassign, relabel": lambda image, data: image.reassign_label(3, 12, relabel=True),
    "join": lambda image, data: image.reassign_labels([3, 5], 7, relabel=True),
    "consecutive": lambda image, data: image.relabel_consecutive(),
    "consecutive from 5": lambda image, data: image.relabel_consecutive(start_label=5),
    "keep": lambda image, data: image.keep_labels([4, 7]),
    "keep one": lambda image, data: image.keep_label(4, relabel=True),
    "remove": lambda image, data: image.remove_labels([7, 4], relabel=True),
    "remove one": lambda image, data: image.remove_label(5),
    "border": lambda image, data: image.remove_border_labels(2),
    "border, whole": lambda image, data: image.remove_border_labels(2, partial_overlap=False),
    "masked": lambda image, data: image.remove_masked_labels(data > 15, relabel=True),
    "masked, whole": lambda image, data: image.remove_masked_labels(
        np.indices(data.shape)[1] < 15, partial_overlap=False
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_labels_change_as_in_photutils(change):
    data = random_labels(2, highest=20)
    ours, theirs = LabelImage(data), reference(data)
    result = CHANGES[change](ours, data)
    CHANGES[change](theirs, data)
    np.testing.assert_array_equal(result.data, theirs.data)
    np.testing.assert_array_equal(result.labels, theirs.labels)
    # The old one is as it was.
    np.testing.assert_array_equal(ours.data, data)


def test_labels_are_made_dense_also_if_none_goes():
    # photutils 3.0 leaves them then, 3.1 does not.
    assert LabelImage(SMALL).keep_labels([1, 3, 4, 5, 7], relabel=True).is_consecutive
    assert LabelImage(SMALL).remove_border_labels(0, relabel=True).n_labels == 5


def test_merged_labels_are_one():
    merged = LabelImage(SMALL).merge_labels([7, 5])
    assert merged.labels.tolist() == [1, 3, 4, 5]
    assert merged.get_area(5) == 7


def test_labels_far_apart_cost_no_table():
    data = SMALL * 300_000_000
    image = LabelImage(np.where(SMALL == 7, 5, data))
    assert image.labels.tolist() == [5, 300_000_000, 900_000_000, 1_200_000_000, 1_500_000_000]
    assert image.relabel_consecutive().areas.tolist() == [3, 2, 2, 3, 4]
    assert image.slices[0] == (slice(3, 5), slice(0, 2))
    assert image.keep_label(900_000_000).get_area(900_000_000) == 2


def deblended():
    """Labels 3 and 4 of an image before are 3, 4 and 5, 7 here."""
    return LabelImage(
        SMALL, {3: np.array([4, 3]), 4: np.array([5, 7])}, {3: 32, 5: 96}, {"note": [3]}
    )


def test_family_and_flags_go_with_the_labels():
    image = deblended()
    assert image.deblended_labels.tolist() == [3, 4, 5, 7]
    assert image.deblended_label_to_parent == {3: 3, 4: 3, 5: 4, 7: 4}
    assert image.flags.tolist() == [0, 32, 0, 96, 0]
    dense = image.relabel_consecutive()
    assert {k: v.tolist() for k, v in dense.parent_to_deblended_labels.items()} == {
        3: [3, 2],
        4: [4, 5],
    }
    assert dense.flags.tolist() == [0, 32, 0, 96, 0]
    # A part that is gone is no part, and a parent without parts none; merged parts are one.
    fewer = image.remove_labels([3, 4])
    assert {k: v.tolist() for k, v in fewer.parent_to_deblended_labels.items()} == {4: [5, 7]}
    assert fewer.flags_by_label == {5: 96}
    merged = image.merge_labels([3, 5, 7])
    assert {k: v.tolist() for k, v in merged.parent_to_deblended_labels.items()} == {
        3: [4, 3],
        4: [3],
    }
    assert merged.flags_by_label == {3: 96}
    assert merged.info == {"note": [3]}


def test_to_photutils_and_back():
    pytest.importorskip("photutils")
    image = deblended()
    there = image.to_photutils()
    assert there.deblended_label_to_parent == image.deblended_label_to_parent
    there.data[0, 0] = 9  # a copy of its own
    assert image.data[0, 0] == 1
    back = LabelImage.from_photutils(image.to_photutils())
    np.testing.assert_array_equal(back.data, image.data)
    assert back.flags_by_label == image.flags_by_label
    assert back.info == image.info
    for parent, children in image.parent_to_deblended_labels.items():
        np.testing.assert_array_equal(back.parent_to_deblended_labels[parent], children)


def test_mapping_to_another_image():
    other = SMALL.copy()
    other[0, 1], other[4, 5], other[3, 0] = 9, 0, 11
    found = LabelImage(SMALL).get_label_mapping(LabelImage(other))
    assert {k: v.tolist() for k, v in found.items()} == {
        1: [1, 9],
        3: [3],
        4: [4],
        5: [0, 5],
        7: [7, 11],
    }
    assert list(LabelImage(SMALL).get_label_mapping(LabelImage(other), labels=7)) == [7]


@pytest.mark.parametrize("size", [1, 3, 4, (5, 2), (2, 7), 90])
def test_a_mask_grows_as_in_photutils(size):
    data = random_labels(3, highest=90) * (np.random.default_rng(3).random((40, 57)) < 0.2)
    expected = reference(data).make_source_mask(size=size)
    np.testing.assert_array_equal(LabelImage(data).make_source_mask(size=size), expected)


@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (4, 6), (1, 1)])
def test_a_mask_grows_by_any_window(shape):
    rng = np.random.default_rng(7)
    data = (rng.random((31, 22)) < 0.03).astype(int)
    footprint = rng.random(shape) < 0.6
    footprint[0, 0], footprint[-1, -1] = True, shape == (1, 1)
    expected = reference(data).make_source_mask(footprint=footprint)
    np.testing.assert_array_equal(LabelImage(data).make_source_mask(footprint=footprint), expected)
    assert not dilate(np.zeros((4, 5), bool), footprint_of(3)).any()


def test_nothing_in_an_image():
    empty = LabelImage(np.zeros((4, 6), int))
    assert (empty.n_labels, empty.max_label, empty.background_area) == (0, 0, 24)
    assert not empty.is_consecutive
    assert empty.slices == empty.bbox == empty.segments == []
    assert empty.boxes.shape == (0, 4)
    assert empty.flags.shape == empty.deblended_labels.shape == (0,)
    for same in (
        empty.relabel_consecutive(),
        empty.remove_border_labels(1),
        empty.keep_labels([]),
        empty.merge_labels([]),
    ):
        assert same.n_labels == 0
    assert empty.get_label_mapping(empty) == {}


def test_it_cannot_be_written_to_and_prints_short():
    image = LabelImage(np.arange(30).reshape(5, 6))
    with pytest.raises(ValueError, match="read-only"):
        image.data[0, 0] = 3
    lines = repr(image).splitlines()
    assert lines[1:] == [
        "shape: (5, 6)",
        "n_labels: 29",
        "labels: [ 1  2  3  4  5 ... 25 26 27 28 29]",
    ]
    assert "area: 1" in repr(image.get_segment(4))
    assert image.get_segments([4, 2])[1].bbox == BoundingBox(2, 3, 0, 1)
    assert image.get_segment(4).bbox.slices == image.slices[3]


@pytest.mark.parametrize(
    ("mistake", "match"),
    [
        (lambda: LabelImage(SMALL.astype(float)), "`data` needs integers"),
        (lambda: LabelImage(SMALL[0]), r"`data` needs shape \(y, x\)"),
        (lambda: LabelImage(SMALL - 1), "`data` must be from 0"),
        (lambda: LabelImage(SMALL * 10**9), "`data` must be from 0"),
        (lambda: LabelImage(SMALL, {1: np.array([0])}), "`parent_to_deblended_labels`"),
        (lambda: LabelImage(SMALL).check_label(2), "not so are 2"),
        (lambda: LabelImage(SMALL).keep_labels([1, 2, 6]), "not so are 2, 6"),
        (lambda: LabelImage(SMALL).reassign_label(1, -1), "`new_label`"),
        (lambda: LabelImage(SMALL).relabel_consecutive(0), "`start_label`"),
        (lambda: LabelImage(SMALL).relabel_consecutive(2**31 - 2), "below 2"),
        (lambda: LabelImage(SMALL).remove_border_labels(3), "`border_width`"),
        (lambda: LabelImage(SMALL).remove_masked_labels(SMALL[1:] > 0), "`mask` needs shape"),
        (lambda: LabelImage(SMALL).make_source_mask(size=0), "`size`"),
        (lambda: LabelImage(SMALL).make_source_mask(footprint=[1]), "`footprint`"),
        (lambda: LabelImage(SMALL)[3], "two slices"),
        (lambda: LabelImage(SMALL)[9:, :], "Nothing of an image"),
        (lambda: LabelImage(SMALL).get_segment(1).make_cutout(SMALL[1:]), "`data` needs shape"),
        (
            lambda: LabelImage(SMALL).get_label_mapping(LabelImage(SMALL[1:])),
            "`other` needs shape",
        ),
    ],
)
def test_what_cannot_be_is_refused(mistake, match):
    with pytest.raises(ValueError, match=match):
        mistake()


def area_of(ring):
    return 0.5 * np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1])


def inside(rings, shape):
    """Pixels whose middle the rings go around, by counting crossings to the left."""
    y, x = np.indices(shape)
    crossed = np.zeros(shape, int)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                crossed += (x > x0) & (y > min(y0, y1)) & (y < max(y0, y1))
    return crossed % 2 == 1


def test_rings_go_around_the_labels():
    image = LabelImage(random_labels(5))
    for label, rings in zip(image.labels, image.polygons, strict=True):
        np.testing.assert_array_equal(inside(rings, image.shape), image.data == label)
        assert sum(area_of(ring) for ring in rings) == image.get_area(label)
        for ring, alone in zip(rings, image.get_polygon(label), strict=True):
            np.testing.assert_array_equal(ring[0], ring[-1])
            np.testing.assert_array_equal(ring, alone)
            # Only corners, and sides along the axes.
            step = np.diff(ring, axis=0)
            assert ((step == 0).sum(axis=1) == 1).all()
            assert ((step[:-1] != 0) != (step[1:] != 0)).all()


def test_holes_and_corners_of_rings():
    ring = np.ones((3, 4), int)
    ring[1, 1:3] = 0
    outer, hole = LabelImage(ring).polygons[0]
    assert outer.tolist() == [[-0.5, -0.5], [3.5, -0.5], [3.5, 2.5], [-0.5, 2.5], [-0.5, -0.5]]
    assert (area_of(outer), area_of(hole)) == (12, -2)
    # Two pixels that share a corner are one source, and have one ring.
    (both,) = LabelImage(np.eye(2, dtype=int)).polygons[0]
    assert area_of(both) == 2
    assert LabelImage(np.zeros((2, 3), int)).polygons == []
