"""The chain of ASTErIsM on a scene of known truth, and the rules of its parts."""

import numpy as np
import pytest
from asterism_scene import NOISE, SKY, noisy_scene
from crowded import crowded_field
from numpy.testing import assert_allclose, assert_array_equal

from diffdeblend.segment import (
    AsterismResult,
    LabelImage,
    NoDetectionsWarning,
    Validation,
    asterism,
    dbscan_segments,
    dbscan_stamps,
    denclue_deblend,
    glw_deblend,
)
from diffdeblend.segment.attractors import Children
from diffdeblend.segment.members import find_members

WAYS = {
    "grid": {},
    "exact": {"method": "exact"},
    "down-sampled": {"method": "exact", "gl_downsampling": True},
    "validated": {"method": "exact", "validation": Validation()},
}


def score(way, seeds):
    """On how many seeds the three clusters and the four sources are found."""
    right = 0
    for seed in seeds:
        scene = noisy_scene(seed)
        found = asterism(scene.image, deblending=WAYS[way])
        sources = found.deblended.sources
        right += len(found.deblended.parents.label) == 3 and found.labels.n_labels == 4
        for x, y in scene.centres[:2]:
            assert np.hypot(sources.x - x, sources.y - y).min() < 1.5
    return right


@pytest.mark.parametrize("way", WAYS)
def test_three_clusters_become_four_sources(way):
    assert score(way, range(8)) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_fifty_scenes(way):
    assert score(way, range(50)) >= 45


@pytest.fixture(scope="module")
def found() -> AsterismResult:
    return asterism(noisy_scene(1).image)


def test_what_each_step_has_to_tell(found):
    sky, segments, deblended = found.background, found.segments, found.deblended
    assert sky is not None
    assert found.threshold == sky.level + 3 * sky.sigma
    assert_allclose(sky.level, SKY, atol=0.01)
    assert_allclose(sky.sigma, 0.674 * NOISE, rtol=0.15)
    assert abs(sky.skewness) <= abs(sky.first_skewness)
    assert (sky.block_side, sky.n_blocks) == ((31, 31), 9)
    assert 1.5 * found.threshold == segments.K
    assert segments.labels.areas.min() >= 25
    parents, sources = deblended.parents, deblended.sources
    # Near the 27, 101 and 470 pixels of the tutorial's clusters.
    assert_allclose(np.sort(parents.n_pixels), [30, 101, 470], rtol=0.15)
    assert_allclose(parents.h, np.maximum(1, 0.1 * np.hypot(parents.r_max, parents.r_cluster)))
    assert deblended.converged
    assert_array_equal(np.sort(parents.n_children), [1, 1, 2])
    blend = int(parents.label[np.argmax(parents.n_pixels)])
    assert_array_equal(sources.parent_id[2:], blend)
    assert found.labels.parent_to_deblended_labels.keys() == {blend}
    assert_array_equal(found.labels.parent_to_deblended_labels[blend], [3, 4])


def test_the_table_has_one_row_a_source(found):
    table, data = found.table(), noisy_scene(1).image
    assert_array_equal(table["label"], [1, 2, 3, 4])
    for row in table:
        mask = found.labels.data == row["label"]
        y, x = np.nonzero(mask)
        assert row["n_pixels"] == mask.sum()
        assert_allclose(row["flux"], data[mask].sum())
        assert row["peak"] == data[mask].max()
        assert_allclose(row["x"], np.average(x, weights=data[mask]))
        assert_allclose(row["y"], np.average(y, weights=data[mask]))
        assert np.hypot(row["attractor_x"] - row["x"], row["attractor_y"] - row["y"]) < 2
        assert set(found.segments.labels.data[mask]) == {row["parent_id"]}
    assert {"r_cluster", "r_max", "h", "R_max"} <= set(table.colnames)


def test_down_sampled_pixels_see_as_far_as_the_cluster_is_wide():
    scene = noisy_scene(2)
    found = asterism(scene.image, deblending=WAYS["down-sampled"]).deblended
    assert_array_equal(found.parents.R_max, found.parents.r_cluster)
    full = asterism(scene.image, deblending=WAYS["exact"])
    assert np.count_nonzero(found.labels.data != full.labels.data) < 12


def test_a_threshold_may_be_given():
    scene = noisy_scene(1)
    found = asterism(scene.image, threshold=0.5, segmentation={"K": None})
    assert found.background is None
    assert_array_equal(found.segments.selected, scene.image > 0.5)
    with pytest.raises(ValueError, match="`background`"):
        asterism(scene.image, threshold=0.5, background={"sigma": "std"})


def test_an_empty_sky_has_no_sources():
    noise = np.random.default_rng(0).normal(0, 1, (40, 51)) + 100
    with pytest.warns(NoDetectionsWarning):
        found = asterism(noise, background={"n_std_th": 50.0})
    assert found.labels.n_labels == 0
    assert len(found.table()) == 0
    assert found.labels.shape == (40, 51)


def test_a_stack_is_its_stamps_one_by_one():
    stack = crowded_field((96, 132), 60, seed=2).reshape(2, 48, 3, 44).swapaxes(1, 2)
    stack = np.ascontiguousarray(stack.reshape(6, 48, 44))
    clusters = dbscan_stamps(stack, 1080.0, K=None, min_size=12, backend="host").labels
    for options in ({}, {"assignment": "watershed"}, {"validation": Validation()}):
        together = denclue_deblend(stack, clusters, h_frac=0.1, **options)
        assert together.n_sources > len(together.parents.label) > 6
        for k in range(6):
            alone = denclue_deblend(stack[k], clusters[k], h_frac=0.1, **options)
            assert_array_equal(alone.labels.data, together.labels[k])
            mine = together.sources.stamp == k
            assert_allclose(alone.sources.attractor_x, together.sources.attractor_x[mine])
            assert_array_equal(alone.sources.parent_id, together.sources.parent_id[mine])


def test_every_pixel_stays_with_a_part_of_its_cluster():
    image = crowded_field((90, 110), 90, seed=4)
    clusters = dbscan_segments(image, 1080.0, min_size=5).labels
    for labels in (
        denclue_deblend(image, clusters, h_frac=0.1).labels,
        denclue_deblend(image, clusters, h_frac=0.1, assignment="watershed").labels,
        glw_deblend(image, clusters),
    ):
        assert labels.n_labels > clusters.n_labels
        assert labels.is_consecutive
        assert_array_equal(labels.data > 0, clusters.data > 0)
        for label in labels.labels:
            assert len(set(clusters.data[labels.data == label])) == 1
        split = labels.parent_to_deblended_labels
        for parent, children in split.items():
            assert set(labels.data[clusters.data == parent]) == set(children.tolist())
            assert len(children) > 1
        # Those that stay whole come first, in old order.
        rest = [label for label in clusters.labels if int(label) not in split]
        first = [labels.data[clusters.data == label][0] for label in rest]
        assert_array_equal(first, np.arange(1, len(rest) + 1))


def test_floods_are_those_of_a_queue():
    segmentation = pytest.importorskip("skimage.segmentation")
    image = crowded_field((70, 90), 50, seed=6).astype(float)
    image += np.random.default_rng(1).uniform(0, 0.5, image.shape)
    clusters = dbscan_segments(image, 1080.0, min_size=9).labels
    found = denclue_deblend(image, clusters, h_frac=0.1, assignment="watershed")
    plain = denclue_deblend(image, clusters, h_frac=0.1)
    assert found.n_sources == plain.n_sources
    # The flood starts at the pixels of attractors.
    x, y = np.rint(found.sources.attractor_x), np.rint(found.sources.attractor_y)
    x, y = x.astype(int), y.astype(int)
    for parent, children in found.labels.parent_to_deblended_labels.items():
        markers = np.zeros(image.shape, int)
        rows = np.isin(found.sources.label, children)
        markers[y[rows], x[rows]] = found.sources.label[rows]
        assert_array_equal(found.labels.data[markers > 0], markers[markers > 0])
        mask = clusters.data == parent
        queue = segmentation.watershed(-image, markers, mask=mask, connectivity=2)
        assert_array_equal(queue[mask], found.labels.data[mask])


def test_laplacian_maxima_take_a_blend_apart():
    y, x = np.mgrid[:21, :34]
    image = np.zeros((21, 34))
    for cx, cy, peak in ((9, 8, 5.0), (16, 11, 3.0), (26, 12, 4.0)):
        image += peak * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    labels = glw_deblend(image, (image > 0.3).astype(int))
    assert labels.n_labels == 3
    assert len({labels.data[8, 9], labels.data[11, 16], labels.data[12, 26]}) == 3
    one = glw_deblend(image, (image > 0.3).astype(int), gl_th_rel=0.95)
    assert one.n_labels == 1


def judged(sizes, peaks, places=None, **fractions):
    """Which children of one cluster are valid, and who took in whom; fluxes are sizes + peaks."""
    n = len(sizes)
    places = range(n) if places is None else places
    labels = np.zeros((1, n, 200), np.int32)
    light = np.zeros(labels.shape)
    for k, (size, peak) in enumerate(zip(sizes, peaks, strict=True)):
        labels[0, places[k], :size] = 1
        light[0, places[k], :size] = 1
        light[0, places[k], 0] = peak
    members = find_members(light, labels)
    group, place = np.zeros(n, int), np.arange(n, dtype=float)
    children = Children(members.y, group, np.zeros(n), place)
    left, valid = Validation(**fractions)(members, children)
    return valid.tolist(), [int(left.y[left.of_pixel[members.y == k][0]]) for k in range(n)]


def test_rules_of_validation():
    strict = {"bright_frac_peak_flux": 2.0}
    # A compact child needs a peak; one with less than its share of light and of peak is none.
    assert judged([190, 9, 9], [100, 30, 5], **strict) == ([True, True, False], [0, 1, 1])
    # An extended one needs light, not a peak.
    assert judged([100, 60], [30, 2], **strict) == ([True, True], [0, 1])
    assert judged([100, 60], [900, 2], **strict) == ([True, False], [0, 0])
    # A bright peak is enough.
    bright = {"min_frac_integ_flux": 2.0, "min_frac_peak_flux": 2.0}
    assert judged([90, 60], [50, 20], **bright) == ([True, True], [0, 1])
    # Where none is valid the whole stays, under the brightest; an only child is valid.
    never = {"bright_frac_peak_flux": 2.0, **bright}
    assert judged([90, 60], [20, 50], **never) == ([False, False], [1, 1])
    assert judged([90], [20], **never) == ([True], [0])


def test_options_of_the_merging():
    scene = noisy_scene(1)
    clusters = dbscan_segments(scene.image, 0.37).labels
    plain = denclue_deblend(scene.image, clusters, h_frac=0.1, method="exact")
    rounded = denclue_deblend(
        scene.image, clusters, h_frac=0.1, method="exact", digitize_attractors=True
    )
    assert_array_equal(np.rint(rounded.sources.attractor_x), rounded.sources.attractor_x)
    assert rounded.n_sources == plain.n_sources
    still = denclue_deblend(scene.image, clusters, h_frac=0.1, method="exact", mask_unchanged=1.5)
    assert still.n_sources == plain.n_sources
    far = denclue_deblend(scene.image, clusters, h_frac=0.1, method="exact", attr_dbs_eps=30.0)
    assert far.n_sources == clusters.n_labels
    small = denclue_deblend(scene.image, clusters, h_frac=0.1, min_size=1000)
    assert_array_equal(small.labels.data, clusters.data)
    paths = denclue_deblend(scene.image, clusters, h_frac=0.1, paths=True).paths
    assert paths is not None
    assert paths.x.shape == paths.y.shape == (len(paths.x), len(paths.parent))


def test_odd_clusters_do_no_harm():
    image = np.zeros((20, 30))
    labels = np.zeros((20, 30), np.int32)
    labels[2, 2] = 3
    labels[5:9, 5:9] = 4
    labels[5:9, 20:25], image[5:9, 20:25] = 7, -5.0
    labels[12:18, 12:18], image[12:18, 12:18] = 9, 100.0
    image[14, 14] = np.nan
    for method in ("grid", "exact"):
        found = denclue_deblend(image, labels, method=method)
        assert_array_equal(found.labels.data > 0, labels > 0)
        assert found.sources.parent_id.tolist()[:3] == [3, 4, 7]
        for column in found.sources:
            assert np.isfinite(column).all()
    empty = denclue_deblend(image, np.zeros((20, 30), int))
    assert empty.n_sources == 0
    assert glw_deblend(image, LabelImage(np.zeros((20, 30), int))).n_labels == 0
    assert glw_deblend(image, labels).n_labels >= 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"method": "fast"}, "`method`"),
        ({"gl_downsampling": True}, "gl_downsampling"),
        ({"kernel": "uniform"}, "`kernel`|gauss"),
        ({"assignment": "flood"}, "`assignment`"),
        ({"min_size": -1}, "`min_size`"),
        ({"R_max_frac": 1.0, "R_max_kern_th": 0.1}, "exclude each other"),
        ({"attr_dbs_eps": 0.0}, "`attr_dbs_eps`"),
        ({"attr_dbs_K": np.nan}, "`attr_dbs_K`"),
        ({"clusters": np.ones((3, 3), int)}, "`clusters`"),
        ({"clusters": np.ones((9, 9))}, "`clusters`"),
        ({"data": np.ones(9)}, "`data`"),
    ],
)
def test_wrong_arguments_are_named(options, word):
    arguments = {"data": np.ones((9, 9)), "clusters": np.ones((9, 9), int), **options}
    with pytest.raises(ValueError, match=word):
        denclue_deblend(arguments.pop("data"), arguments.pop("clusters"), **arguments)


def test_wrong_fractions_are_named():
    with pytest.raises(ValueError, match="`ext_frac_size`"):
        Validation(ext_frac_size=-0.1)
    with pytest.raises(ValueError, match="`data` and `clusters`"):
        glw_deblend(np.ones((3, 4)), np.ones((4, 3), int))
