"""Clusters by DBSCAN: against a plain loop, scipy's labels, and each other's forms."""

import numpy as np
import pytest
from crowded import crowded_field
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import label

from diffdeblend.segment import (
    LabelImage,
    NoDetectionsWarning,
    cluster_points,
    dbscan_segments,
    dbscan_stamps,
)


def plain_dbscan(near, weights, least):
    """Ester et al.'s algorithm, one point after the other; `near` is a matrix of neighbours."""
    n = len(weights)
    core = [weights[near[i]].sum() >= least for i in range(n)]
    labels = np.full(n, -1)
    count = 0
    for i in range(n):
        if labels[i] >= 0 or not core[i]:
            continue
        queue, labels[i] = [i], count
        while queue:
            for j in np.flatnonzero(near[queue.pop()]):
                if labels[j] < 0:
                    labels[j] = count
                    if core[j]:
                        queue.append(j)
        count += 1
    return labels


def plain_segments(image, threshold, eps, least, box, norm="sum"):
    place = np.argwhere(image > threshold)
    d = np.abs(place[:, None] - place[None])
    near = d.max(-1) <= eps if box else (d**2).sum(-1) <= eps**2
    light = image[image > threshold]
    if norm == "mean":
        light = light - least
        least = 0
    labels = np.zeros(image.shape, int)
    labels[image > threshold] = plain_dbscan(near, light, least) + 1
    return labels


@pytest.fixture(scope="module")
def field():
    return crowded_field((60, 83), 22, seed=5).astype(float)


@pytest.mark.parametrize("eps", [0.6, 1.0, 1.5, 2.0, 3.3])
@pytest.mark.parametrize("method", ["dbscan_binned", "dbscan"])
def test_clusters_are_those_of_a_plain_loop(field, method, eps):
    found = dbscan_segments(field, 1060, eps=eps, K=3.4, method=method, min_size=1)
    expected = plain_segments(field, 1060, eps, 3.4 * 1060, method == "dbscan_binned")
    assert expected.max() > 5
    assert_array_equal(found.labels.data, expected)
    assert found.K == 3.4 * 1060
    assert_array_equal(found.selected, field > 1060)


@pytest.mark.parametrize("method", ["dbscan_binned", "dbscan"])
def test_norms_divide_the_light(field, method):
    options = {"eps": 1.5, "method": method, "min_size": 1, "K_pix": False}
    whole = dbscan_segments(field, 1060, K=9 * 650.0, **options)
    area = dbscan_segments(field, 1060, K=650.0, norm="area", **options)
    assert_array_equal(whole.labels.data, area.labels.data)
    mean = dbscan_segments(field, 1060, K=1150.0, norm="mean", **options)
    expected = plain_segments(field, 1060, 1.5, 1150.0, method == "dbscan_binned", "mean")
    assert_array_equal(mean.labels.data, expected)
    assert mean.K == 1150.0
    assert len({r.labels.n_labels for r in (whole, mean)}) == 2


def test_without_a_density_clusters_are_connected_pixels(field):
    expected = label(field > 1060, np.ones((3, 3)))[0]
    for options in ({"K": None}, {"method": "connected"}):
        found = dbscan_segments(field, 1060, min_size=1, **options)
        assert_array_equal(found.labels.data, expected)
    large = dbscan_segments(field, 1060, K=None, min_size=9).labels
    areas = np.bincount(expected.ravel())[1:]
    assert_array_equal(large.areas, areas[areas >= 9])
    assert large.is_consecutive


def test_a_threshold_of_each_pixel_and_a_mask(field):
    level = np.full(field.shape, 1060.0)
    level[:, 40:] = 1e9
    cut = field.copy()
    cut[:, 40:] = 0
    by_map = dbscan_segments(field, level, min_size=1)
    by_mask = dbscan_segments(field, 1060, min_size=1, mask=level > 1e6)
    expected = dbscan_segments(cut, 1060, min_size=1)
    assert_array_equal(by_map.labels.data, expected.labels.data)
    assert_array_equal(by_mask.labels.data, expected.labels.data)
    assert_allclose(by_map.K, 1.5 * level)


def test_parts_of_the_pixels_at_a_time_change_nothing(field):
    whole = dbscan_segments(field, 1060, method="dbscan", min_size=1)
    parts = dbscan_segments(field, 1060, method="dbscan", min_size=1, buffer_size=37)
    assert_array_equal(whole.labels.data, parts.labels.data)


def test_tiles_end_clusters(field):
    tiles = dbscan_segments(field, 1060, min_size=1, max_image_size=30 * 42)
    rows, columns = [0, 30, 60], [0, 41, 83]
    count = 0
    for i in range(2):
        for j in range(2):
            box = slice(*rows[i : i + 2]), slice(*columns[j : j + 2])
            part = dbscan_segments(field[box], 1060, min_size=1).labels
            assert_array_equal(
                tiles.labels.data[box], np.where(part.data > 0, part.data + count, 0)
            )
            count += part.n_labels
    central = dbscan_segments(
        field, 1060, min_size=1, max_image_size=20 * 28, use_only_central_sub_stamp=True
    )
    y, x = np.nonzero(central.labels.data)
    assert y.min() >= 20
    assert y.max() < 40
    assert x.min() >= 27
    assert x.max() < 56


def test_a_map_of_segments_brings_its_own_background(field):
    values = np.full(field.shape, -3.0)
    values[3:9, 4:12] = 7.0
    values[20:24, 30:40] = 0.0
    values[40:41, 50:52] = 2.0
    found = dbscan_segments(
        field, 0, method="from_seg_map", segment_map=values, seg_map_bkg_val=-3, min_size=5
    )
    assert_array_equal(found.labels.areas, [40, 48])
    assert found.labels.data[21, 31] == 1
    assert found.selected.sum() == 40 + 48 + 2


def test_nothing_is_an_empty_result():
    with pytest.warns(NoDetectionsWarning, match="threshold"):
        found = dbscan_segments(np.zeros((7, 9)), 1.0)
    assert isinstance(found.labels, LabelImage)
    assert found.labels.n_labels == 0
    with pytest.warns(NoDetectionsWarning):
        dbscan_segments(np.full((7, 9), np.nan), 1.0)


def spiral(size=33):
    """A long way through few pixels: the worst case for labels that are handed on."""
    turn = np.linspace(0, 7 * np.pi, 4000)
    radius = (size - 2) / 2 * turn / turn[-1]
    image = np.zeros((size, size), np.float32)
    places = (size // 2 + radius * np.sin(turn), size // 2 + radius * np.cos(turn))
    image[tuple(np.rint(place).astype(int) for place in places)] = 9000
    assert 0.1 < (image > 0).mean() < 0.3
    return image


@pytest.mark.parametrize(("eps", "norm", "K"), [(1.5, "sum", 3.4), (2.7, "mean", 1.03)])
def test_stamps_on_the_device_and_on_the_host(eps, norm, K):
    stack = crowded_field((120, 132), 80, seed=8).reshape(3, 40, 4, 33).swapaxes(1, 2)
    stack = np.ascontiguousarray(stack.reshape(12, 40, 33))
    stack[4] = 0
    stack[5, :33] = spiral()
    stack[5, 33:] = 0
    options = {"eps": eps, "norm": norm, "K": K, "min_size": 9}
    level = 1050 + 2.0 * np.arange(12)
    host = dbscan_stamps(stack, level, backend="host", **options)
    device = dbscan_stamps(stack, level, backend="jax", **options)
    assert_array_equal(host.labels, device.labels)
    assert_array_equal(host.n_labels, device.n_labels)
    assert host.n_labels[4] == 0
    assert host.n_labels[5] == 1
    for k in (0, 7, 11):
        alone = dbscan_segments(stack[k], np.float32(level[k]), **options).labels
        assert alone.n_labels > 1
        assert_array_equal(alone.data, host.labels[k])


def test_points_of_groups_do_not_see_each_other():
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 9, (240, 2))
    group = np.repeat([0, 1, 2, 5], 60)
    weights = rng.integers(1, 4, 240).astype(float)
    found = cluster_points(points, 0.8, 5.0, weights=weights, group=group)
    start = 0
    for g in np.unique(group):
        d = points[group == g][:, None] - points[group == g]
        expected = plain_dbscan((d**2).sum(-1) <= 0.64, weights[group == g], 5.0)
        assert expected.max() > 1
        assert_array_equal(found[group == g], np.where(expected >= 0, expected + start, -1))
        start += expected.max() + 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"eps": 0.0}, "`eps`"),
        ({"K": np.nan}, "`K`"),
        ({"norm": "median"}, "`norm`"),
        ({"method": "optics"}, "`method`"),
        ({"min_size": -1}, "`min_size`"),
        ({"method": "from_seg_map"}, "`segment_map`"),
        ({"segment_map": np.zeros((4, 5))}, "`segment_map`"),
        ({"max_image_size": 0}, "`max_image_size`"),
        ({"mask": np.zeros((5, 4), bool)}, "`mask`"),
        ({"threshold": np.zeros(5)}, "`threshold`"),
        ({"method": "dbscan", "buffer_size": 0}, "`buffer_size`"),
    ],
)
def test_wrong_arguments_are_named(options, word):
    arguments = {"threshold": 1.0, **options}
    with pytest.raises(ValueError, match=word):
        dbscan_segments(np.full((4, 5), 2.0), **arguments)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"`data` needs shape \(y, x\)"):
        dbscan_segments(np.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"`data` needs shape \(stamp, y, x\)"):
        dbscan_stamps(np.zeros((3, 3)), 1.0)
    with pytest.raises(ValueError, match="`weights`"):
        cluster_points(np.zeros((3, 2)), 1.0, 1.0, weights=np.ones(2))
