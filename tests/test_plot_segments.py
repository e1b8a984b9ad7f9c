"""Pictures of labels: what they show is what they were given."""

import io
import sys

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("matplotlib")

from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from diffdeblend.background.mesh import estimate_background
from diffdeblend.panels import panels
from diffdeblend.plot_segments import (
    label_colours,
    make_cmap,
    paint_labels,
    plot_apertures,
    plot_attractors,
    plot_background,
    plot_background_histogram,
    plot_children,
    plot_clusters,
    plot_labels,
)
from diffdeblend.segment import LabelImage, detect_sources

SHAPE = (48, 70)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    points = np.zeros(SHAPE)
    points[[10, 12, 30, 40], [12, 18, 55, 20]] = 900, 700, 800, 600
    return ndimage.gaussian_filter(points, 2.2) + rng.normal(10, 0.5, SHAPE)


@pytest.fixture(scope="module")
def labels(image):
    return detect_sources(image, 12.0, 5)


def collection(axes, kind):
    return next(one for one in axes.collections if isinstance(one, kind))


def drawn(page):
    """It can be drawn, without the user's session knowing."""
    content = io.BytesIO()
    page.savefig(content, format="png", dpi=40)
    # That module keeps a session's figures; another test may have loaded it.
    pyplot = sys.modules.get("matplotlib.pyplot")
    return content.getbuffer().nbytes > 2000 and (pyplot is None or not pyplot.get_fignums())


def test_the_colour_of_a_label_stays():
    labels = LabelImage(np.arange(24).reshape(4, 6))
    fewer = labels.keep_labels([5, 9, 20])
    here = fewer.data > 0
    np.testing.assert_array_equal(paint_labels(fewer)[here], paint_labels(labels)[here])
    assert not paint_labels(fewer)[~here].any()
    colours = label_colours(np.arange(1, 200))
    apart = np.abs(colours[:, None] - colours).max(axis=-1) + np.eye(199)
    assert apart.min() > 0.004
    assert np.diag(apart, 1).min() > 0.2  # neighbours in number
    cmap = make_cmap(fewer)
    assert cmap.N == 21
    np.testing.assert_allclose(cmap(20)[:3], label_colours(20))


def test_labels_are_outlined(image, labels):
    page = plot_labels(image, labels)
    assert isinstance(page, Figure)
    left, right = page.axes
    rings = [ring for own in labels.polygons for ring in own]
    for path, ring in zip(collection(left, LineCollection).get_segments(), rings, strict=True):
        np.testing.assert_array_equal(path, ring)
    assert [text.get_text() for text in right.texts] == [str(label) for label in labels.labels]
    np.testing.assert_array_equal(right.images[0].get_array(), paint_labels(labels))
    assert not plot_labels(image, labels, numbers=False).axes[1].texts
    assert drawn(page)


def test_parts_are_beside_their_parent(image, labels):
    parent = labels.data[10, 12]
    assert parent == labels.data[12, 18] > 0
    data = labels.data.copy()
    data[:, 15:][data[:, 15:] == parent] = 9
    after = LabelImage(data)
    page = plot_children(image, labels, after)
    assert [axes.get_title() for axes in page.axes] == ["image", f"label {parent}", "2: 1, 9"]
    shown = page.axes[2].images[0].get_array()
    colours = {tuple(pixel) for pixel in shown.reshape(-1, 3)}
    assert len(colours) == 3
    assert drawn(page)
    # Said by the labels themselves, or by the caller.
    told = LabelImage(data, {int(labels.data[30, 55]): np.array([1])})
    assert page_title(plot_children(image, labels, told)) == f"label {labels.data[30, 55]}"
    assert len(plot_children(image, labels, after, labels=[1, 2, 3]).axes) == 9
    with pytest.raises(ValueError, match="nothing to show"):
        plot_children(image, labels, labels)


def page_title(page):
    return page.axes[1].get_title()


def test_the_sky_and_its_boxes(image):
    mask = np.zeros(SHAPE, bool)
    mask[16:32, 16:32] = True
    sky = estimate_background(image, 16, mask=mask, exclude_percentile=80)
    page = plot_background(image, sky)
    dots, crosses = page.axes[1].lines
    assert [8.0 + 15.5, 8.0 + 15.5] in crosses.get_xydata().tolist()
    assert len(dots.get_xydata()) + len(crosses.get_xydata()) == sky.background_mesh.size
    np.testing.assert_array_equal(page.axes[1].images[0].get_array(), sky.background)
    assert drawn(page)


def test_the_histogram_has_all_pixels(image):
    values = image.copy()
    values[0, :3] = np.nan
    page = plot_background_histogram(values, level=10.0, threshold=11.5, window=(8.5, 11.5))
    (axes,) = page.axes
    assert sum(bar.get_height() for bar in axes.patches[:80]) == values.size - 3
    assert [line.get_xdata()[0] for line in axes.lines] == [10.0, 11.5]
    assert drawn(page)
    # All of one value; a threshold off the axis of the others.
    (axes,) = plot_background_histogram(np.full(9, 2.0), level=2.0, threshold=5.0).axes
    assert axes.get_xlim()[1] > 5.0
    with pytest.raises(ValueError, match="`values`"):
        plot_background_histogram([np.nan], level=0.0)


def test_apertures_are_ellipses_of_their_size(image):
    x, y = np.array([12.0, np.nan, 55]), np.array([10.0, 3, 30])
    page = plot_apertures(image, x, y, [4, 5, 6.0], 2.0, [0, 0, 30.0], labels=[3, 4, 5])
    found = collection(page.axes[0], EllipseCollection)
    np.testing.assert_array_equal(found.get_offsets(), [[12, 10], [55, 30]])
    np.testing.assert_allclose(found.get_widths(), [8, 12])
    np.testing.assert_allclose(found.get_heights(), [4, 4])
    np.testing.assert_allclose(found.get_angles(), [0, 30])
    np.testing.assert_allclose(found.get_edgecolors()[:, :3], label_colours([3, 5]))
    assert drawn(page)
    with pytest.raises(ValueError, match="must fit"):
        plot_apertures(image, x, y[:2], 3, 2, 0)
    with pytest.raises(ValueError, match="`labels`"):
        plot_apertures(image, x, y, 3, 2, 0, labels=[1])


def test_attractors_and_the_ways_there(image, labels):
    paths = [np.array([[9.0, 9], [11, 10], [12, 10]]), np.array([[20.0, 14], [18, 12]])]
    page = plot_attractors(image, [12.0, 18.0], [10.0, 12.0], labels=labels, paths=paths)
    (axes,) = page.axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[12, 10], [18, 12]])
    for way, path in zip(collection(axes, LineCollection).get_segments(), paths, strict=True):
        np.testing.assert_array_equal(way, path)
    assert axes.get_xlim() == (-0.5, SHAPE[1] - 0.5)
    assert drawn(page)
    with pytest.raises(ValueError, match="`paths`"):
        plot_attractors(image, [1.0], [2.0], paths=[[1, 2, 3]])
    with pytest.raises(ValueError, match="`x` and `y`"):
        plot_attractors(image, [1.0], [2.0, 3])


def test_clusters_and_the_noise(image, labels):
    selected = image > 11.5
    noise = selected & (labels.data == 0)
    page = plot_clusters(image, labels, selected=selected)
    shown = page.axes[1].images[0].get_array()
    grey = (np.ptp(shown, axis=-1) == 0) & (shown[..., 0] > 0)
    np.testing.assert_array_equal(grey, noise)
    title = f"{labels.n_labels} clusters, {noise.sum()} pixels of none"
    assert page.axes[1].get_title() == title
    assert drawn(page)
    with pytest.raises(ValueError, match="`selected`"):
        plot_clusters(image, labels, selected=selected[1:])


def test_where_to_draw_and_what_is_refused(image, labels):
    given = panels(None, [2], (2, 2))
    assert plot_labels(image, labels, on=given) is given[0].figure
    with pytest.raises(ValueError, match="`on`"):
        plot_labels(image, labels, on=given[0])
    with pytest.raises(ValueError, match="`data`"):
        plot_labels(image[1:], labels)
    # Nothing finite, and no labels.
    empty = LabelImage(np.zeros(SHAPE, int))
    plot_labels(np.full(SHAPE, np.nan), empty).savefig(io.BytesIO())
    assert to_rgb("black") == tuple(label_colours(0))
