"""Footprints of several bands merged, culled, and given a reference band."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffdeblend.footprints import Footprint, FootprintSet, Peaks, SpanSet
from diffdeblend.multiband import (
    cull_peaks,
    merge_detections,
    peak_rule,
    reference_band,
    signal_to_noise,
)
from diffdeblend.multiband.cull import worth_keeping

SHAPE = (60, 90)
SCALE = 0.168


def box(x, y, half=4, value=1.0, peaks=None):
    """A square about a pixel, with a peak in its middle, or at (x, y) of `peaks`."""
    spans = SpanSet.from_box((x - half, x + half + 1, y - half, y + half + 1))
    px, py = np.array([(x, y)] if peaks is None else peaks, int).reshape(-1, 2).T
    return Footprint(spans, Peaks(px, py, np.full(len(px), value)))


def of(*footprints):
    return FootprintSet.from_footprints(footprints, SHAPE)


def places(footprint, band=None):
    peaks = footprint.peaks if band is None else footprint.peaks[footprint.peaks.bands[band]]
    return set(zip(peaks.x.tolist(), peaks.y.tolist(), strict=True))


def merged(priority="ir", **sets):
    return merge_detections(sets, priority, pixel_scale=SCALE)


def test_the_rule_of_distances():
    is_same, is_new = peak_rule(np.array([0.05, 0.29, 0.30, 0.31, 0.7, 1.0, 1.01, 2.0]))
    assert is_same.tolist() == [True, True, *[False] * 6]
    assert is_new.tolist() == [*[False] * 6, True, True]


@pytest.mark.parametrize(
    ("offset", "outcome"),
    [
        ((0, 0), "same"),
        ((1, 1), "same"),
        ((2, 0), "drop"),
        ((0, 5), "drop"),
        ((6, 0), "new"),
        ((4, 5), "new"),
    ],
)
def test_peaks_on_pixels(offset, outcome):
    x, y = 40 + offset[0], 30 + offset[1]
    (made,) = merged(i=of(box(40, 30, value=2.0)), r=of(box(x, y)))
    assert places(made, "i") == {(40, 30)}
    expected = {"same": {(40, 30)}, "drop": set(), "new": {(x, y)}}[outcome]
    assert places(made, "r") == expected
    assert places(made) == {(40, 30)} | expected
    pixels = box(40, 30).spans.union(box(x, y).spans)
    assert made.spans == pixels


def test_footprints_apart_stay_apart_in_order():
    made = merged(i=of(box(40, 30), box(10, 10)), r=of(box(70, 40), box(11, 10), box(80, 10)))
    assert [one.centroid for one in made] == [(40, 30), (10.5, 10), (70, 40), (80, 10)]
    assert made.bands["i"].tolist() == [True, True, False, False]
    assert made.bands["r"].tolist() == [False, True, True, True]


def test_touching_is_not_overlapping():
    assert len(merged(i=of(box(40, 30)), r=of(box(49, 30)))) == 2
    assert len(merged(i=of(box(40, 30)), r=of(box(48, 30)))) == 1


def test_a_chain_over_three_bands_is_one_footprint():
    sets = {"i": of(box(20, 30)), "r": of(box(34, 30)), "z": of(box(27, 30))}
    (made,) = merge_detections(sets, "irz", pixel_scale=SCALE)
    assert places(made) == {(20, 30), (34, 30), (27, 30)}
    assert made.area == 9 * 23
    assert all(merge_detections(sets, "irz", pixel_scale=SCALE).bands[b].all() for b in "irz")
    # The same without the link are two.
    assert len(merge_detections({b: sets[b] for b in "ir"}, "ir", pixel_scale=SCALE)) == 2


def test_the_order_of_bands_matters():
    sets = {"i": of(box(40, 30)), "r": of(box(43, 30))}
    assert places(merge_detections(sets, "ir", pixel_scale=SCALE)[0]) == {(40, 30)}
    assert places(merge_detections(sets, "ri", pixel_scale=SCALE)[0]) == {(43, 30)}


def test_the_first_band_is_not_merged_with_itself_but_by_others():
    two = of(box(40, 30), box(46, 30))
    assert len(merged("i", i=two)) == 2
    (made,) = merged(i=two, r=of(box(43, 30)))
    # 6 pixels of 0.168 are more than an arcsecond; the peak between them is of neither.
    assert places(made) == {(40, 30), (46, 30)}
    assert places(made, "r") == set()
    close = of(box(40, 30), box(43, 30))
    (made,) = merged(i=close, r=of(box(40, 37, half=5)))
    assert places(made) == {(40, 30), (40, 37)}


def test_peaks_of_a_band_are_not_compared_with_each_other():
    pair = box(40, 30, peaks=[(40, 30), (42, 30)])
    assert places(merged("i", i=of(pair))[0]) == {(40, 30), (42, 30)}
    (made,) = merged(i=of(box(40, 36)), r=of(pair))
    assert places(made) == {(40, 36), (40, 30), (42, 30)}


def test_the_nearest_peak_is_marked_and_values_sort():
    known = box(40, 30, peaks=[(39, 30), (42, 30), (36, 30)])
    known = Footprint(known.spans, Peaks(known.peaks.x, known.peaks.y, [1.0, 3.0, 2.0]))
    late = Footprint(known.spans, Peaks([41, 40, 40], [30, 30, 22], [1.0, 9.0, 10.0]))
    (made,) = merged(i=of(known), r=of(late))
    assert list(zip(made.peaks.x, made.peaks.y, strict=True)) == [
        (40, 22),
        (42, 30),
        (36, 30),
        (39, 30),
    ]
    assert made.peaks.bands["r"].tolist() == [True, True, False, True]


def oracle(sets, priority, scale, same=0.3, new=1.0):
    """The same by sets of pixels and one peak after the other."""
    groups = []
    for band in priority:
        fresh = [
            (set(zip(*map(np.ndarray.tolist, f.spans.indices()), strict=True)), f.peaks)
            for f in sets[band]
        ]
        if groups:
            # Join everything that a footprint of this band links.
            members = [[{k}, set(), g[0]] for k, g in enumerate(groups)]
            for j, (pixels, _) in enumerate(fresh):
                hit = [m for m in members if m[2] & pixels]
                rest = [m for m in members if not m[2] & pixels]
                members = [
                    *rest,
                    [
                        set().union(*(m[0] for m in hit)),
                        {j}.union(*(m[1] for m in hit)),
                        pixels.union(*(m[2] for m in hit)),
                    ],
                ]
        else:
            members = [[set(), {j}, pixels] for j, (pixels, _) in enumerate(fresh)]
        members.sort(key=lambda m: (0, min(m[0])) if m[0] else (1, min(m[1])))
        made = []
        for known, late, pixels in members:
            peaks = []
            batches = [groups[k][1] for k in sorted(known)]
            arrivals = []
            for j in sorted(late):
                p = fresh[j][1]
                arrivals += [[x, y, {band}] for x, y in zip(p.x, p.y, strict=True)]
            for batch in [*batches, arrivals]:
                before = list(peaks)
                for x, y, seen in batch:
                    d = [scale * np.hypot(x - a, y - b) for a, b, _ in before]
                    if before and min(d) < same:
                        before[int(np.argmin(d))][2].update(seen)
                    elif not before or min(d) > new:
                        peaks.append([x, y, set(seen)])
            made.append((pixels, peaks))
        groups = made
    return groups


@settings(max_examples=40, deadline=None)
@example(322660, 2, 2)  # Nothing in the first band, two that overlap in the second.
@given(st.integers(0, 10**9), st.integers(1, 4), st.sampled_from([2, 6, 14]))
def test_any_bands_are_merged_as_one_by_one(seed, n_bands, n):
    random = np.random.default_rng(seed)
    names = "irzg"[:n_bands]
    sets = {}
    for name in names:
        found = []
        for _ in range(random.integers(0, n + 1)):
            x, y = random.integers(-3, 93), random.integers(-3, 63)
            half = int(random.integers(1, 8))
            peaks = np.array([x, y]) + random.integers(-half, half + 1, (random.integers(4), 2))
            found.append(box(x, y, half, random.normal(), np.unique(peaks, axis=0)))
        sets[name] = of(*found)
    got = merge_detections(sets, names, pixel_scale=SCALE)
    wanted = oracle(sets, names, SCALE)
    assert len(got) == len(wanted)
    for footprint, (pixels, peaks) in zip(got, wanted, strict=True):
        rows, columns = footprint.spans.indices()
        assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == pixels
        assert len(footprint.peaks) == len(peaks)
        for name in names:
            assert places(footprint, name) == {(x, y) for x, y, seen in peaks if name in seen}


def test_empty_sky_comes_last_and_joins_nothing():
    sky = of(box(20, 20), box(60, 40))
    made = merge_detections(
        {"i": of(box(22, 20)), "r": of(box(22, 20))}, "ir", pixel_scale=SCALE, sky=sky
    )
    assert len(made) == 3
    assert made.bands["sky"].tolist() == [False, True, True]
    assert made.bands["i"].tolist() == made.bands["r"].tolist() == [True, False, False]
    assert [one.peaks.bands["sky"].tolist() for one in made] == [[False], [True], [True]]
    assert made[2].spans == sky[1].spans


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda s: merge_detections(s, [], pixel_scale=1),
            "`priority` must name bands among",
        ),
        (lambda s: merge_detections(s, "i", pixel_scale=1), "`priority` must name"),
        (lambda s: merge_detections(s, "iir", pixel_scale=1), "`priority` must name"),
        (lambda s: merge_detections(s, "ir", pixel_scale=0), "`pixel_scale` must be a positive"),
        (lambda s: merge_detections(s, "ir", pixel_scale=1, same=2), "need 0 <= same <= new"),
        (
            lambda s: merge_detections(
                {**s, "r": FootprintSet.from_mask(np.ones((3, 3)))}, "ir", pixel_scale=1
            ),
            "on one grid of pixels",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act({"i": of(box(20, 20)), "r": of(box(30, 20))})


def family(n, bands):
    """A footprint of `n` peaks, each fainter than the one before, seen by `bands[k]` bands."""
    spans = SpanSet.from_box((0, 90, 0, 60))
    seen = {name: np.asarray(bands) > k for k, name in enumerate("irz")}
    value = np.arange(n, 0, -1.0)
    return Footprint(spans, Peaks(np.arange(n), np.zeros(n, int), value, bands=seen))


def test_which_peaks_of_sixty_stay():
    bands = np.ones(60, int)
    bands[[5, 25, 29, 30, 41, 59]] = (2, 2, 3, 1, 2, 3)
    made = cull_peaks(of(family(60, bands)))
    # Ranks below 20; below 30, as that is less than 0.7 x 60; and what two bands saw.
    assert made[0].peaks.x.tolist() == [*range(30), 41, 59]


def test_the_share_of_a_smaller_family_counts():
    made = cull_peaks(of(family(35, np.ones(35, int)), family(24, np.ones(24, int))))
    # 0.7 x 35 = 24.5; 0.7 x 24 is below the 20 that are always kept.
    assert made[0].peaks.x.tolist() == list(range(25))
    assert made[1].peaks.x.tolist() == list(range(20))


def test_limits_of_culling_can_be_set():
    found = of(family(60, np.r_[np.ones(50, int), np.full(10, 2)]))
    assert worth_keeping(found, rank_sufficient=5, rank_considered=0, enough_bands=3).sum() == 5
    assert worth_keeping(found, rank_sufficient=0, rank_considered=0).nonzero()[0][0] == 50
    with pytest.raises(ValueError, match="`rank_fraction` must be at least 0"):
        cull_peaks(found, rank_fraction=-1)


@pytest.mark.parametrize(
    ("own", "other", "reference"),
    [(12, 50, 0), (5, 7, 0), (5, 8, 0), (5, 9, 1), (10, 90, 0), (9.9, 90, 1), (0, 0, 0)],
)
def test_the_reference_is_the_first_band_unless_it_is_poor(own, other, reference):
    seen = {"i": [True], "r": [True]}
    got = reference_band(seen, {"i": [own], "r": [other]}, "ir")
    assert got.tolist() == [reference]


def test_the_reference_is_of_bands_that_saw_the_source():
    seen = {"i": [False, True, False], "r": [True, False, False], "z": [True, True, False]}
    ratio = {"i": [50.0, 50.0, 9.0], "r": [20.0, 2.0, 1.0], "z": [30.0, 2.0, 80.0]}
    got = reference_band(seen, ratio, ("i", "r", "z"), sky=[False, False, True])
    assert got.tolist() == [1, 0, 0]
    # Below 10 any band is good enough that knows the source well.
    poor = reference_band(seen, {**ratio, "r": [5.0, 2.0, 1.0]}, "irz", sky=[False, False, True])
    assert poor.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no band saw 1 sources, the first at place 2"):
        reference_band(seen, ratio, "irz")


def test_signal_to_noise_is_zero_where_nothing_is_known():
    flux = [10.0, -10.0, np.nan, 10.0, 10.0, 10.0, 10.0, 10.0]
    error = [2.0, 2.0, 2.0, 0.0, np.nan, np.inf, 2.0, 2.0]
    flags = [False] * 6 + [True, False]
    got = signal_to_noise(flux, error, flags, [False] * 7 + [True])
    np.testing.assert_array_equal(got, [5, 0, 0, 0, 0, 0, 0, 0])
    # A flagged band has lost.
    ratio = {"i": signal_to_noise([100.0], [1.0], [True]), "r": [4.0]}
    assert reference_band({"i": [True], "r": [True]}, ratio, "ir").tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": ()}, "`priority` must name bands"),
        ({"priority": "iz"}, "`priority` must name bands among .*'iz'"),
        ({"detected": {"i": [True], "r": [True, False]}}, "one row for each source"),
        ({"signal_to_noise": {"i": [np.nan], "r": [1.0]}}, "must be finite"),
        ({"sky": [True, False]}, "`sky` needs shape"),
    ],
)
def test_what_gives_no_reference_is_refused(options, message):
    given_options = {
        "detected": {"i": [True], "r": [True]},
        "signal_to_noise": {"i": [1.0], "r": [1.0]},
        "priority": "ir",
    }
    with pytest.raises(ValueError, match=message):
        reference_band(**(given_options | options))
