"""Parents, children and what is known of them."""

import numpy as np
import pytest

from diffdeblend.footprints import Footprint, HeavyFootprint, Peaks, SourceRecords, SpanSet


def footprint(x, y, *peaks):
    px, py = (np.array(v, np.int32) for v in (peaks or [(), ()]))
    return Footprint(
        SpanSet.from_box((x, x + 6, y, y + 4)), Peaks(px, py, np.arange(len(px), 0, -1.0))
    )


@pytest.fixture
def records():
    several = [footprint(0, 0, (1, 4), (1, 2)), footprint(10, 2, (12,), (3,)), footprint(20, 9)]
    return SourceRecords.from_footprints(several, first=5)


@pytest.fixture
def deblended(records):
    image = np.arange(400.0).reshape(16, 25)
    children = [
        HeavyFootprint.from_arrays(
            Footprint(SpanSet.from_box((x, x + 3, 0, 5)), peak), image, image
        )
        for x, peak in ((0, records.footprints[0].peaks[0]), (3, records.footprints[0].peaks[1]))
    ]
    whole = records.footprints[0].spans.union(children[1].spans)
    return records.with_children(
        [5, 5],
        children,
        spans={5: whole},
        flags={"failed": np.array([False, True])},
        values={"psf_flux": np.array([3.0, 4.0])},
    )


def test_detected_sources_are_parents(records):
    assert records.id.tolist() == [5, 6, 7]
    assert records.n_peaks.tolist() == [2, 1, 0]
    # Without a peak it is the pixel at the centroid, halves going up.
    assert list(zip(records.peak_x, records.peak_y, strict=True)) == [(1, 1), (12, 3), (23, 11)]
    assert records.is_parent.all()
    assert records.is_leaf.all()
    assert records.heavy_row().tolist() == [0, 1, 2]


def test_children_know_their_parent(deblended):
    assert deblended.id.tolist() == [5, 6, 7, 8, 9]
    assert deblended.parent.tolist() == [0, 0, 0, 5, 5]
    assert deblended.n_child.tolist() == [2, 0, 0, 0, 0]
    assert deblended.n_peaks.tolist() == [2, 1, 0, 1, 1]
    assert deblended.parent_rows().tolist() == [-1, -1, -1, 0, 0]
    assert deblended.is_leaf.tolist() == [False, True, True, True, True]
    assert deblended.children(5).id.tolist() == [8, 9]
    assert len(deblended.children(6)) == 0
    assert deblended.footprints[0].spans.contains(5, 4)
    assert deblended.flags["failed"].tolist() == [False] * 4 + [True]
    assert deblended.values["psf_flux"][3:].tolist() == [3.0, 4.0]
    assert np.isnan(deblended.values["psf_flux"][:3]).all()


def test_pixels_of_a_light_grandchild_are_its_heavy_ancestors(deblended):
    light = Footprint(SpanSet.from_box((0, 2, 0, 2)), Peaks([1], [1], [1.0]))
    more = deblended.with_children([8], [light])
    assert more.heavy_row()[-1] == 3
    assert more.n_child[3] == 1
    assert more.children(8).id.tolist() == [10]


def test_the_table_has_a_row_a_source(deblended):
    table = deblended.table()
    assert table["id"].tolist() == [5, 6, 7, 8, 9]
    assert table["deblend_n_child"].tolist() == [2, 0, 0, 0, 0]
    assert table["deblend_parent_n_peaks"].tolist() == [0, 0, 0, 2, 2]
    assert table["footprint_area"].tolist() == [27, 24, 24, 15, 15]
    assert table["deblend_flag_failed"][4]


def test_some_of_the_sources(deblended):
    chosen = deblended.select([0, 3, 4])
    assert chosen.id.tolist() == [5, 8, 9]
    with pytest.raises(ValueError, match="`parent` must be 0 or one of `id`"):
        deblended.select(deblended.parent > 0)


def test_no_source_is_an_empty_table():
    none = SourceRecords.from_footprints([])
    assert len(none) == 0
    assert len(none.table()) == 0
    assert none.heavy_row().size == 0
    assert none.parent_rows().size == 0


def test_what_cannot_be_is_refused(records):
    with pytest.raises(ValueError, match="`id` must be one of the 3 sources; got 99"):
        records.children(99)
    with pytest.raises(ValueError, match="`parent` must be ids"):
        records.with_children([99], [footprint(0, 0)])
    with pytest.raises(ValueError, match="`failed` needs one entry"):
        records.with_children([5], [footprint(0, 0)], flags={"failed": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="`first` must be at least 1"):
        SourceRecords.from_footprints([], first=0)
