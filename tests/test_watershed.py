"""The flood from markers, on the host and in JAX."""

import numpy as np
import pytest
from quick import hasty
from scipy.ndimage import gaussian_filter

from diffdeblend.segment import watershed

BACKENDS = ("host", "jax")


@pytest.fixture(autouse=True)
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


# One shape for all: it is compiled once.
SHAPE = (83, 61)


def scene(seed, n_markers=12, dtype=np.float64):
    """A rough sea, islands to flood and markers on it, most hills without one."""
    rng = np.random.default_rng(seed)
    data = gaussian_filter(rng.normal(size=SHAPE), 1.2).astype(dtype)
    mask = gaussian_filter(rng.normal(size=SHAPE), 3) > -0.1
    markers = np.zeros(SHAPE, np.int32)
    y, x = (rng.integers(0, n, n_markers) for n in SHAPE)
    markers[y, x] = np.arange(1, n_markers + 1)
    # One of some extent, and one at a corner.
    markers[30:34, 20:29] = n_markers + 1
    markers[0, 0] = n_markers + 2
    return data, markers * mask, mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_regions_are_those_of_a_flood_with_a_queue(backend, connectivity):
    peer = pytest.importorskip("skimage.segmentation")
    flooded = 0
    for seed in range(60, 90 if backend == "host" else 66):
        data, markers, mask = scene(seed, dtype=np.float32)
        found = watershed(data, markers, mask=mask, connectivity=connectivity, backend=backend)
        expected = peer.watershed(-data, markers, mask=mask, connectivity=connectivity // 4)
        np.testing.assert_array_equal(found, expected)
        flooded += np.count_nonzero(found)
    assert flooded > 6 * 2000


def test_many_pixels_are_flooded_as_with_a_queue():
    peer = pytest.importorskip("skimage.segmentation")
    rng = np.random.default_rng(5)
    data = gaussian_filter(rng.normal(size=(520, 611)), 1.5)
    markers = np.zeros(data.shape, np.int32)
    markers[rng.integers(0, 520, 400), rng.integers(0, 611, 400)] = np.arange(1, 401)
    found = watershed(data, markers, backend="host")
    assert (found != peer.watershed(-data, markers, connectivity=2)).sum() == 0
    assert found.size > 300_000


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers_are_flooded_alike_up_to_equal_heights(backend):
    peer = pytest.importorskip("skimage.segmentation")
    wrong = total = 0
    for seed in range(8):
        data, markers, mask = scene(seed)
        # As counts are: ties are common but not everywhere.
        data = np.round(2000 * data).astype(np.int64)
        found = watershed(data, markers, mask=mask, backend=backend)
        expected = peer.watershed(-data, markers, mask=mask, connectivity=2)
        assert np.array_equal(found > 0, expected > 0)
        wrong += (found != expected).sum()
        total += mask.sum()
    assert wrong <= 1e-3 * total


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plain_is_flooded_to_its_end(backend):
    markers = np.zeros(SHAPE, np.int32)
    markers[5, 7], markers[70, 50] = 3, 8
    found = watershed(np.ones(SHAPE), markers, backend=backend)
    assert set(np.unique(found)) == {3, 8}
    assert found[5, 7] == 3
    assert found[70, 50] == 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_reached_or_is_not_finite(backend):
    data, markers, mask = np.ones(SHAPE), np.zeros(SHAPE, np.int32), np.ones(SHAPE, bool)
    data[10, 10], data[40, 3], data[50:52, 50] = np.nan, np.inf, -np.inf
    markers[4, 4] = 2
    mask[20] = False
    found = watershed(data, markers, mask=mask, backend=backend)
    assert (found[:20] == 2).all()
    assert (found[20:] == 0).all()


def test_nothing_to_flood_is_no_fault():
    nothing = np.zeros((4, 5), int)
    assert not watershed(np.ones((4, 5)), nothing).any()
    assert not watershed(np.ones((4, 5)), nothing + 1, mask=nothing > 0).any()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": np.ones(3)}, "`data`"),
        ({"data": np.ones((4, 5), complex)}, "`data`"),
        ({"markers": np.zeros((4, 4), int)}, "`markers`"),
        ({"markers": -np.ones((4, 5), int)}, "`markers`"),
        ({"markers": np.zeros((4, 5))}, "`markers`"),
        ({"mask": np.ones(4, bool)}, "`mask`"),
        ({"connectivity": 6}, "`connectivity`"),
        ({"backend": "gpu"}, "`backend`"),
    ],
)
def test_bad_arguments_are_named(changed, words):
    good = {"data": np.ones((4, 5)), "markers": np.zeros((4, 5), int)}
    with pytest.raises(ValueError, match=words):
        watershed(**(good | changed))
