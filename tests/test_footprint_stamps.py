"""Footprints as stamps on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from diffdeblend.footprints import (
    FootprintSet,
    FootprintStamps,
    Peaks,
    SpanSet,
    dilate_stamp,
    erode_stamp,
)

SHAPE = (70, 90)


def some(seed=0):
    random = np.random.default_rng(seed)
    smoothed = scipy.ndimage.gaussian_filter(random.normal(size=SHAPE), 1.5)
    mask = smoothed > np.quantile(smoothed, 0.92)
    y, x = np.nonzero(mask)
    return FootprintSet.from_mask(mask, Peaks(x, y, random.normal(size=len(x))))


@pytest.mark.parametrize("shape", [None, (40, 37)])
def test_stamps_lose_nothing(shape):
    made = some()
    stamps = FootprintStamps.from_footprints(made, shape, margin=1)
    back = stamps.to_footprints(made)
    for a, b in zip(made, back, strict=True):
        assert a.spans == b.spans
        np.testing.assert_array_equal(a.peaks.x, b.peaks.x)
    np.testing.assert_array_equal(stamps.areas, made.areas)
    if shape is None:
        assert not np.asarray(stamps.inside[:, [0, -1]]).any()
        assert not np.asarray(stamps.inside[:, :, [0, -1]]).any()


@pytest.mark.parametrize("stencil", ["circle", "manhattan", "box"])
@pytest.mark.parametrize("radius", [0, 1, 3, 5])
def test_pooling_is_scipys_morphology(radius, stencil):
    random = np.random.default_rng(radius)
    inside = random.random((4, 17, 23)) < np.array([0.02, 0.4, 0.9, 0.99])[:, None, None]
    window = SpanSet.from_stencil(radius, stencil).to_mask()
    grown = np.stack([scipy.ndimage.binary_dilation(one, window) for one in inside])
    left = np.stack([scipy.ndimage.binary_erosion(one, window) for one in inside])
    np.testing.assert_array_equal(dilate_stamp(jnp.asarray(inside), radius, stencil), grown)
    np.testing.assert_array_equal(erode_stamp(jnp.asarray(inside), radius, stencil), left)


def test_growth_on_the_device_is_that_on_the_host():
    made = some(2)
    stamps = FootprintStamps.from_footprints(made, margin=3)
    grown = stamps.dilate(3).to_footprints(made)
    shrunk = stamps.erode(1).to_footprints(made)
    for a, b in zip(grown, made.dilate(3, combined=False, clip=False), strict=True):
        assert a.spans == b.spans
    for a, b in zip(shrunk, made.erode(1), strict=True):
        assert a.spans == b.spans
        np.testing.assert_array_equal(a.peaks.x, b.peaks.x)


def test_one_stamp_at_a_time_under_vmap():
    stamps = FootprintStamps.from_footprints(some(3), margin=2)
    each = eqx.filter_vmap(lambda one: one.dilate(2))(stamps)
    np.testing.assert_array_equal(each.inside, stamps.dilate(2).inside)
    one = jax.tree.map(lambda leaf: leaf[0], stamps)
    np.testing.assert_array_equal(one.erode(1).inside, stamps.erode(1).inside[0])


def test_a_second_call_does_not_compile(compilations):
    made = some(4)
    stamps = FootprintStamps.from_footprints(made, (40, 40))
    stamps.dilate(2).inside.block_until_ready()
    compilations.clear()
    FootprintStamps.from_footprints(made, (40, 40)).dilate(2).inside.block_until_ready()
    assert not compilations


def test_no_footprint_is_an_empty_stack():
    none = FootprintSet.from_labels(np.zeros(SHAPE, int))
    stamps = FootprintStamps.from_footprints(none, (8, 8))
    assert stamps.inside.shape == (0, 8, 8)
    assert len(stamps.to_footprints(none)) == 0


def test_what_does_not_fit_is_refused():
    made = some()
    with pytest.raises(ValueError, match="`shape` must be at least"):
        FootprintStamps.from_footprints(made, (3, 3))
    stamps = FootprintStamps.from_footprints(made)
    with pytest.raises(ValueError, match="`like` needs"):
        stamps.to_footprints(made[1:])
    with pytest.raises(ValueError, match="`x0` and `y0` need shape"):
        FootprintStamps(stamps.inside, stamps.x0[1:], stamps.y0)
    with pytest.raises(ValueError, match="`stencil` must be"):
        stamps.dilate(2, "star")
