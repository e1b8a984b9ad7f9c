"""Windows around sources: what is in them, and that a second call compiles nothing."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from diffdeblend.measure.pixels import list_pixels
from diffdeblend.measure.windows import Planes, map_windows


def labelled(shape, seed, fill=0.35):
    rng = np.random.default_rng(seed)
    return np.stack([label(rng.random(shape[1:]) < fill)[0] for _ in range(shape[0])])


def corners(window, number):
    # Sums that depend on every value and on where it is.
    mine = window.labels == window.label
    y = jnp.arange(window.data.shape[0])[:, None] + window.y0
    x = jnp.arange(window.data.shape[1])[None] + window.x0
    value = jnp.where(mine & window.good, window.data, 0)
    return {
        "sum": jnp.sum(value),
        "place": jnp.sum(value * (3 * y + x)),
        "area": jnp.sum(mine),
        "bad": jnp.sum(~window.good),
        "number": number,
        "shape": jnp.array([window.ny, window.nx]),
    }


class Listed(NamedTuple):
    """Stamp, label and box of each source."""

    stamp: np.ndarray
    label: np.ndarray
    boxes: np.ndarray


def listed(labels):
    pixels = list_pixels(labels)
    return Listed(pixels.stamp, pixels.label, pixels.boxes())


@pytest.mark.parametrize("shape", [(1, 41, 67), (5, 23, 19), (3, 9, 40)])
def test_windows_hold_their_sources(shape):
    labels = labelled(shape, 1)
    rng = np.random.default_rng(2)
    data = rng.normal(size=shape).astype(np.float32)
    mask = rng.random(shape) < 0.05
    data[0, 2, 3] = np.nan
    sources = listed(labels)
    n = len(sources.label)
    assert n == labels.max(axis=(1, 2)).sum()
    planes = Planes(data, labels.astype(np.int32), mask=mask)
    found = map_windows(corners, planes, *sources, arguments=(np.arange(n),))
    assert np.array_equal(found["number"], np.arange(n))
    assert (found["shape"] == shape[1:]).all()
    good = ~mask & np.isfinite(data)
    y, x = np.mgrid[: shape[1], : shape[2]]
    for row in range(n):
        mine = labels[sources.stamp[row]] == sources.label[row]
        values = np.where(mine & good[sources.stamp[row]], data[sources.stamp[row]], 0)
        assert found["area"][row] == mine.sum()
        assert found["sum"][row] == pytest.approx(values.sum(), abs=1e-5)
        assert found["place"][row] == pytest.approx((values * (3 * y + x)).sum(), abs=2e-3)
    assert found["bad"].max() > 0


def test_a_second_call_compiles_nothing(compilations):
    shape = (4, 40, 33)

    def total(window):
        return jnp.sum(window.data)

    for seed, fill in ((1, 0.3), (2, 0.36), (3, 0.25)):
        labels = labelled(shape, seed, fill)
        sources = listed(labels)
        boxes = sources.boxes.copy()
        # Whatever the sizes of the sources, one window of each size at least.
        boxes[0], boxes[1], boxes[2] = (0, 0, 5, 5), (0, 0, 20, 4), (0, 0, 40, 33)
        boxes[3:] = np.minimum(boxes[3:], boxes[3:, [0, 1, 0, 1]] + 12)
        planes = Planes(np.ones(shape, np.float32), labels.astype(np.int32))
        before = len(compilations)
        map_windows(total, planes, sources.stamp, sources.label, boxes)
        assert (len(compilations) > before) == (seed == 1)


def test_nothing_to_map_has_the_right_shapes():
    planes = Planes(np.zeros((2, 8, 9), np.float32), np.zeros((2, 8, 9), np.int32))
    sources = listed(planes.labels)
    found = map_windows(corners, planes, *sources, arguments=(np.zeros(0),))
    assert found["sum"].shape == (0,)
    assert found["shape"].shape == (0, 2)


@pytest.mark.parametrize("scale", [1, 7, 10**7])
def test_pixel_lists_agree_with_a_loop(scale):
    labels = labelled((3, 30, 41), 4) * scale
    values = np.random.default_rng(5).normal(size=labels.shape)
    pixels = list_pixels(labels)
    rows = [(s, k) for s in range(3) for k in np.unique(labels[s]) if k]
    assert list(zip(pixels.stamp, pixels.label, strict=True)) == rows
    masks = [labels[s] == k for s, k in rows]
    packed = pixels.values(values)
    expected = [values[s][m].sum() for (s, _), m in zip(rows, masks, strict=True)]
    np.testing.assert_allclose(pixels.sum(packed), expected, rtol=1e-12, atol=1e-12)
    least = [values[s][m].min() for (s, _), m in zip(rows, masks, strict=True)]
    np.testing.assert_array_equal(pixels.reduce(np.minimum, packed, np.nan), least)
    boxes = [find_objects(m.astype(int))[0] for m in masks]
    expected = [(b[0].start, b[1].start, b[0].stop, b[1].stop) for b in boxes]
    np.testing.assert_array_equal(pixels.boxes(), expected)
    some = pixels.only(packed > 0.5)
    assert some.n_sources == pixels.n_sources
    assert (some.count == 0).any()
    assert np.isnan(some.reduce(np.minimum, some.values(values), np.nan)[some.count == 0]).all()


def test_more_sources_than_sixteen_bits_stay_in_order():
    labels = np.arange(300 * 400).reshape(1, 300, 400)[:, ::-1, ::-1]
    pixels = list_pixels(labels)
    np.testing.assert_array_equal(pixels.label, np.arange(1, 120_000))
    np.testing.assert_array_equal(labels.reshape(-1)[pixels.index], pixels.label)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), int), np.zeros((1, 4, 4))])
def test_bad_labels_are_refused(wrong):
    with pytest.raises(ValueError, match="`labels`"):
        list_pixels(wrong)
