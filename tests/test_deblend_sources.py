"""Sources taken apart, against photutils and a slow loop over levels."""

import warnings

import jax
import numpy as np
import pytest
from blend_stack import blend_stack, same_partition, tall
from guide_image import hundred_gaussians
from quick import hasty, quick_jit
from scipy.ndimage import convolve, label

from diffdeblend.segment import (
    DeblendWarning,
    LabelImage,
    NoDetectionsWarning,
    SourceFinder,
    deblend_sources,
    deblend_stamps,
    deblend_steps,
    detect_sources,
    detect_stamps,
    find_sources,
    watershed,
)
from diffdeblend.segment.bits import DEBLENDED, LOW_MINIMUM, MANY_MARKERS, NOT_CONNECTED
from diffdeblend.segment.deblend_stamp import deblend_stamp
from diffdeblend.segment.split import Settings
from diffdeblend.segment.split_on_device import _program

BACKENDS = ("host", "jax")


@pytest.fixture(autouse=True)
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


# Each of these compiles a program of its own.
SELDOM = ("host", pytest.param("jax", marks=pytest.mark.slow))
ALL = np.ones((3, 3))


def peer_of(data, image, n_pixels, **options):
    """What photutils makes of an image of labels."""
    peer = pytest.importorskip("photutils.segmentation")
    photutils = pytest.importorskip("photutils")
    if photutils.__version__ < "3.1":
        options["progress_bar"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.deblend_sources(data, peer.SegmentationImage(image), n_pixels, **options)


def found_in_guide(variant):
    """The guide's image, sky off and smoothed, and a threshold."""
    background = pytest.importorskip("photutils.background")
    segmentation = pytest.importorskip("photutils.segmentation")
    data = hundred_gaussians(variant)
    sky = background.Background2D(
        data, (50, 50), filter_size=(3, 3), bkg_estimator=background.MedianBackground()
    )
    kernel = segmentation.make_2dgaussian_kernel(3.0, size=5).array
    smooth = convolve(data - sky.background, kernel, mode="constant")
    return smooth, 1.5 * sky.background_rms


GUIDE = {
    "doc": (87, 94, [15, 22, 43, 58, 62, 83, 86], 81),
    "v3": (86, 93, [16, 44, 57, 62, 74, 75, 85], 80),
}


@pytest.mark.parametrize("variant", GUIDE)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_guides_image_comes_apart_as_in_the_guide(variant, dtype):
    data, threshold = found_in_guide(variant)
    data, threshold = data.astype(dtype), threshold.astype(dtype)
    n_before, n_after, parents, first = GUIDE[variant]
    before = detect_sources(data, threshold, 10)
    after = deblend_sources(data, before, 10)
    assert before.n_labels == n_before
    assert after.n_labels == n_after
    assert after.is_consecutive
    children = [(first + 2 * row, first + 2 * row + 1) for row in range(7)]
    found = {k: tuple(v) for k, v in after.parent_to_deblended_labels.items()}
    assert found == dict(zip(parents, children, strict=True))
    np.testing.assert_array_equal(after.deblended_labels, np.arange(first, n_after + 1))
    np.testing.assert_array_equal(after.flags, np.where(after.labels >= first, DEBLENDED, 0))
    np.testing.assert_array_equal(after.data, peer_of(data, before.data, 10).data)
    for mode in ("linear", "sinh"):
        assert deblend_sources(data, before, 10, mode=mode).n_labels == n_after
    np.testing.assert_array_equal(find_sources(data, threshold, 10).data, after.data)
    finer = SourceFinder((10, 4), contrast=0.01)(data, threshold)
    np.testing.assert_array_equal(finer.data, deblend_sources(data, before, 4, contrast=0.01).data)
    whole = SourceFinder(10, deblend=False)(data, threshold)
    np.testing.assert_array_equal(whole.data, before.data)


OPTIONS = {
    "plain": {},
    "linear": {"mode": "linear", "contrast": 0.03},
    "sinh": {"mode": "sinh", "n_levels": 7},
    "all peaks": {"contrast": 0.0, "n_levels": 40},
    "edges": {"connectivity": 4, "contrast": 0.01},
    "only the bright": {"contrast": 0.2},
}


CASES = [
    *((name, np.float64, 40) for name in OPTIONS),
    ("plain", np.float32, 40),
    *(pytest.param(name, np.float64, 1100, marks=pytest.mark.slow) for name in OPTIONS),
    pytest.param("plain", np.float32, 1100, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "dtype", "n_stamps"), CASES)
def test_partition_and_numbers_are_those_of_photutils(name, dtype, n_stamps):
    stack = blend_stack(n_stamps, seed=len(name)).astype(dtype)
    options = OPTIONS[name]
    connectivity = options.get("connectivity", 8)
    image = tall(stack)
    before = detect_sources(image, 1.5, 5, connectivity=connectivity)
    after = deblend_sources(image, before, 5, **options)
    expected = peer_of(image, before.data, 5, **options)
    assert after.n_labels > 1.05 * before.n_labels
    np.testing.assert_array_equal(after.data, expected.data)
    families = expected.parent_to_deblended_labels
    assert list(after.parent_to_deblended_labels) == list(families)
    for parent, children in families.items():
        np.testing.assert_array_equal(after.parent_to_deblended_labels[parent], children)
    # Stamp by stamp the same; only numbers begin anew.
    labels = detect_stamps(stack, 1.5, 5, connectivity=connectivity).labels
    stamps = deblend_stamps(stack, labels, 5, **options)
    rows = after.data.reshape(len(stack), -1, stack.shape[2])[:, :-1]
    assert all(same_partition(a, b) for a, b in zip(rows, stamps.labels, strict=True))
    np.testing.assert_array_equal(stamps.labels.max(axis=(1, 2)), stamps.n_labels)


def saddle_markers(data, mask, levels, n_pixels, least):
    """Markers by the 'saddle' rule, one level after the other: parts with light of their own.

    A part that stands apart is replaced by those parts of it that stand apart higher up.
    """

    def parts(region, level):
        if level == len(levels):
            return []
        found, count = label(region & (data > levels[level]), structure=ALL)
        return [found == k for k in range(1, count + 1)]

    def markers(region, level):
        inside = parts(region, level)
        stand = [
            part
            for part in inside
            if part.sum() >= n_pixels and (data[part] - levels[level]).sum() > least
        ]
        deeper = [(part, markers(part, level + 1)) for part in inside]
        if len(stand) >= 2:
            chosen = [part for part, below in deeper if not below and any(part is s for s in stand)]
        else:
            chosen = []
        return chosen + [one for _, below in deeper for one in below]

    return markers(mask, 0)


def test_saddle_contrast_is_that_of_a_slow_loop():
    stack = blend_stack(5, seed=21, n_sources=16)
    image = tall(stack)
    before = detect_sources(image, 1.5, 5)
    options = {"n_levels": 11, "contrast": 0.02, "contrast_method": "saddle"}
    after = deblend_sources(image, before, 5, **options)
    basin = deblend_sources(image, before, 5, **(options | {"contrast_method": "basin"}))
    assert before.n_labels < after.n_labels < basin.n_labels
    for k in before.labels:
        mask = before.data == k
        low, high = image[mask].min(), image[mask].max()
        levels = low * (high / low) ** (np.arange(1, 12) / 12)
        markers = np.zeros(image.shape, np.int32)
        found = saddle_markers(image, mask, levels, 5, 0.02 * image[mask].sum())
        for number, part in enumerate(found, 1):
            markers[part] = number
        if not found:
            markers[mask] = 1
        expected = watershed(image, markers, mask=mask, backend="host")
        assert same_partition(np.where(mask, after.data, 0), expected)


@pytest.mark.parametrize("contrast_method", ["basin", "saddle"])
def test_all_is_that_of_photutils_since_contrast_has_two_methods(contrast_method):
    photutils = pytest.importorskip("photutils", minversion="3.1")
    assert photutils
    image = tall(blend_stack(60, seed=33)) - 0.7
    before = detect_sources(image, -0.2, 5)
    for mode in ("exponential", "sinh", "linear"):
        options = {"mode": mode, "contrast": 0.01, "contrast_method": contrast_method}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeblendWarning)
            after = deblend_sources(image, before, 5, **options)
        expected = peer_of(image, before.data, 5, **options)
        np.testing.assert_array_equal(after.data, expected.data)
        np.testing.assert_array_equal(after.flags, expected.flags)


@pytest.mark.parametrize(
    "name",
    ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("edges", "saddle"))],
)
def test_the_device_makes_the_same_of_stamps(name):
    stack = blend_stack(40, seed=4).astype(np.float32)
    options = (OPTIONS | {"saddle": {"contrast_method": "saddle", "contrast": 0.01}})[name]
    labels = detect_stamps(stack, 1.5, 5, connectivity=options.get("connectivity", 8)).labels
    one, other = (deblend_stamps(stack, labels, 5, **options, backend=b) for b in BACKENDS)
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before, after)
    assert (one.n_labels - labels.max(axis=(1, 2))).sum() > 12


@pytest.mark.slow
@pytest.mark.parametrize("double", [False, True])
def test_the_device_makes_the_same_of_a_thousand_stamps(double):
    with jax.enable_x64(double):
        stack = blend_stack(1024, seed=5).astype(float if double else np.float32)
        labels = detect_stamps(stack, 1.5, 5).labels
        one, other = (deblend_stamps(stack, labels, 5, backend=b) for b in BACKENDS)
    differ = np.any(one.labels != other.labels, axis=(1, 2)).sum()
    # The powers of levels are rounded otherwise.
    assert differ <= (0 if double else 2)


def test_a_program_is_compiled_once_and_a_batch_is_as_one_by_one():
    # As many as elsewhere: that program is there already.
    stack = blend_stack(40, seed=6).astype(np.float32)
    labels = detect_stamps(stack, 1.5, 5).labels
    deblend_stamps(stack, labels, 5, backend="jax")
    size = _program._cache_size()
    together = deblend_stamps(stack[::-1] + 1, labels[::-1], 7, contrast=0.02, backend="jax")
    assert _program._cache_size() == size
    single = quick_jit(lambda data, label: deblend_stamp(data, label, Settings(7, contrast=0.02)))
    for row in range(3):
        alone = single(stack[::-1][row] + 1, labels[::-1][row])
        np.testing.assert_array_equal(alone.labels, together.labels[row])
        assert alone.n_labels == together.n_labels[row]


def two_peaks(shape=(31, 40), pedestal=1.0):
    """Two Gaussians on a pedestal, one source, at the edge of an image."""
    y, x = np.indices(shape)
    data = np.full(shape, pedestal)
    for height, xc, yc in ((50.0, 3.2, 8.1), (30.0, 14.4, 10.9)):
        data += height * np.exp(-((x - xc) ** 2 + (y - yc) ** 2) / 18)
    return data


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_goes_to_a_part(backend):
    data = two_peaks().astype(np.float32)
    before = detect_sources(data, 2.0, 5)
    plain = deblend_sources(data, before, 5, backend=backend)
    assert plain.n_labels == 2
    data[8, 3], data[10, 16], data[9, 14] = np.nan, np.inf, -np.inf
    after = deblend_sources(data, before, 5, backend=backend)
    assert np.array_equal(after.data > 0, before.data > 0)
    assert (after.data != plain.data).sum() < 12
    assert deblend_sources(np.full_like(data, np.nan), before, 5, backend=backend).n_labels == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_has_no_peaks_or_too_few_pixels_stays_whole(backend):
    data = np.zeros((31, 40), np.float32)
    data[2:9, 2:9] = 5.0
    data[20, 20] = 7.0
    data[25:28, 0:4] = [[9, 2, 2, 9]] * 3
    before = detect_sources(data, 1.0, 1)
    with pytest.warns(DeblendWarning, match="`n_pixels` is 7"):
        after = deblend_sources(data, before, 7, backend=backend)
    np.testing.assert_array_equal(after.data, before.data)
    # A saturated plateau is one peak, two of them are two.
    data[2:9, 9:12], data[2:9, 12:16] = 3.0, 5.0
    after = deblend_sources(data, detect_sources(data, 1.0, 1), 1, backend=backend)
    assert after.n_labels == 5
    assert after.flags_by_label == dict.fromkeys((2, 3, 4, 5), DEBLENDED)


@pytest.mark.parametrize("backend", SELDOM)
def test_negative_pixels_have_other_levels_and_a_flag(backend):
    data = two_peaks((31, 40), -0.5).astype(np.float32)
    before = LabelImage(np.ones(data.shape, np.int32))
    with pytest.warns(DeblendWarning, match='"sinh"'):
        after = deblend_sources(data, before, 5, backend=backend)
    expected = deblend_sources(data, before, 5, mode="sinh", backend=backend)
    np.testing.assert_array_equal(after.data, expected.data)
    assert after.n_labels == 2
    assert set(after.flags) == {DEBLENDED | LOW_MINIMUM}
    np.testing.assert_array_equal(after.info["non_positive_min_labels"], [1])


@pytest.mark.parametrize("backend", SELDOM)
def test_what_does_not_touch_is_left_whole_with_a_flag(backend):
    data = two_peaks().astype(np.float32)
    labels = np.where(data > 2, 4, 0)
    labels[:10, 30:], data[:10, 30:] = 7, 5.0
    data[4, 32:38] = [6, 9, 6, 6, 8, 6]
    data[9, 39] = 4.0
    # A pixel that touches by a corner only.
    labels[8, 39] = labels[9, 38] = 0
    with pytest.warns(DeblendWarning, match="7 stayed whole"):
        after = deblend_sources(data, LabelImage(labels), 1, connectivity=4, backend=backend)
    assert after.flags_by_label == {1: NOT_CONNECTED, 2: DEBLENDED, 3: DEBLENDED}
    np.testing.assert_array_equal(after.data == 1, labels == 7)
    np.testing.assert_array_equal(after.parent_to_deblended_labels[4], [2, 3])


@pytest.mark.parametrize("backend", SELDOM)
def test_too_many_markers_have_linear_levels(backend):
    shape = (60, 75)
    y, x = np.indices(shape)
    rng = np.random.default_rng(8)
    data = 1 + np.exp(3 * (np.sin(np.pi * (y + 0.5) / 4) ** 2 * np.sin(np.pi * (x + 0.3) / 4) ** 2))
    data *= 1 + 0.05 * rng.random(shape) + 0.01 * y
    before = LabelImage(np.ones(shape, np.int32))
    with pytest.warns(DeblendWarning, match='"linear"'):
        after = deblend_sources(data, before, 2, backend=backend)
    assert set(after.flags) == {DEBLENDED | MANY_MARKERS}
    expected = deblend_sources(data, before, 2, mode="linear", backend=backend)
    np.testing.assert_array_equal(after.data, expected.data)
    np.testing.assert_array_equal(after.data, peer_of(data, before.data, 2).data)


def test_labels_of_choice_and_old_numbers():
    image = tall(blend_stack(40, seed=9))
    before = detect_sources(image, 1.5, 5)
    every = deblend_sources(image, before, 5, relabel=False)
    split = list(every.parent_to_deblended_labels)
    assert len(split) > 5
    chosen = [split[4], split[1], split[4]]
    for relabel in (False, True):
        after = deblend_sources(image, before, 5, labels=chosen, relabel=relabel)
        expected = peer_of(image, before.data, 5, labels=chosen[:2], relabel=relabel)
        np.testing.assert_array_equal(after.data, expected.data)
        assert set(after.parent_to_deblended_labels) == set(chosen)
    np.testing.assert_array_equal(every.data, peer_of(image, before.data, 5, relabel=False).data)
    # Numbers too large for a table.
    far = LabelImage(np.where(before.data > 0, before.data + 10**9, 0))
    np.testing.assert_array_equal(deblend_sources(image, far, 5).data > 0, before.data > 0)
    assert same_partition(deblend_sources(image, far, 5).data, every.data)
    assert deblend_sources(image, far, 5, contrast=1).max_label == before.n_labels


def test_sources_that_border_on_each_other_are_kept_apart():
    data = two_peaks()
    labels = np.ones(data.shape, np.int32)
    labels[:, 6:] = 2
    labels[:, 20:] = 3
    after = deblend_sources(data, LabelImage(labels), 3, n_levels=10)
    with warnings.catch_warnings():
        # Cut by hand, they are not as from a detection.
        warnings.simplefilter("ignore", DeblendWarning)
        alone = [
            deblend_sources(data, LabelImage(np.where(labels == k, 1, 0)), 3, n_levels=10)
            for k in (1, 2, 3)
        ]
    assert after.n_labels == sum(one.n_labels for one in alone)
    for k, one in enumerate(alone, 1):
        assert same_partition(np.where(labels == k, after.data, 0), one.data)


def test_nothing_found_is_nothing_deblended():
    empty = LabelImage(np.zeros((5, 6), np.int32))
    assert deblend_sources(np.ones((5, 6)), empty, 3).n_labels == 0
    with pytest.warns(NoDetectionsWarning):
        assert find_sources(np.ones((5, 6)), 2.0, 3).n_labels == 0
    for backend in BACKENDS:
        stamps = deblend_stamps(np.ones((2, 5, 6)), np.zeros((2, 5, 6), int), 3, backend=backend)
        assert stamps.parents.shape == (2, 0)
        assert not stamps.labels.any()


def test_parents_and_flags_of_stamps_are_told():
    stack = np.stack([two_peaks(), two_peaks()[::-1, ::-1], np.ones((31, 40))])
    stack[0, 26:, 36:] = 4
    found = detect_stamps(stack, 2.0, 5)
    stamps = deblend_stamps(stack, found.labels, 5)
    np.testing.assert_array_equal(stamps.n_labels, [3, 2, 0])
    np.testing.assert_array_equal(stamps.parents, [[2, 1, 1], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(stamps.flags, [[0, 32, 32], [32, 32, 0], [0, 0, 0]])


def test_steps_lead_to_the_parts():
    image = tall(blend_stack(6, seed=12, n_sources=20))
    before = detect_sources(image, 1.5, 5)
    after = deblend_sources(image, before, 5, contrast=0.05, relabel=False)
    parent, children = max(after.parent_to_deblended_labels.items(), key=lambda item: len(item[1]))
    steps = deblend_steps(image, before, parent, 5, contrast=0.05)
    inside = np.isin(after.data[steps.slices], children)
    assert same_partition(steps.parts, np.where(inside, after.data[steps.slices], 0))
    assert steps.hills.max() >= steps.markers.max() >= steps.parts.max() >= len(children) >= 3
    assert np.array_equal(steps.n_above > 0, inside & (steps.data > steps.levels[0]))
    assert np.array_equal(steps.basins[steps.markers > 0], steps.markers[steps.markers > 0])


def test_data_that_labels_are_not_of_are_noticed():
    rng = np.random.default_rng(3)
    image = tall(blend_stack(20, seed=2)) + 100
    before = detect_sources(image, 101.5, 5)
    with pytest.warns(DeblendWarning, match="`data` cannot be"):
        deblend_sources(image + rng.normal(size=image.shape), before, 5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": np.ones(3)}, "`data`"),
        ({"data": np.ones((5, 6), complex)}, "`data`"),
        ({"data": np.ones((5, 5))}, "`segment_image`"),
        ({"segment_image": np.ones((5, 6), int)}, "`segment_image`"),
        ({"n_pixels": 0}, "`n_pixels`"),
        ({"n_levels": 2.5}, "`n_levels`"),
        ({"contrast": 1.5}, "`contrast`"),
        ({"contrast": None}, "`contrast`"),
        ({"mode": "log"}, "`mode`"),
        ({"connectivity": 6}, "`connectivity`"),
        ({"contrast_method": "peak"}, "`contrast_method`"),
        ({"labels": [3]}, "`labels`"),
        ({"backend": "gpu"}, "`backend`"),
    ],
)
def test_bad_arguments_are_named(changed, words):
    good = {
        "data": np.ones((5, 6)),
        "segment_image": LabelImage(np.ones((5, 6), int)),
        "n_pixels": 2,
    }
    with pytest.raises(ValueError, match=words):
        deblend_sources(**(good | changed))


def test_bad_arguments_of_other_calls_are_named():
    with pytest.raises(ValueError, match="`labels`"):
        deblend_stamps(np.ones((2, 5, 6)), np.ones((2, 5, 5), int), 2)
    with pytest.raises(ValueError, match="`data`"):
        deblend_stamps(np.ones((5, 6)), np.ones((5, 6), int), 2)
    for n_pixels in (0, (1, 2, 3), (5, 0)):
        with pytest.raises(ValueError, match="`n_pixels`"):
            SourceFinder(n_pixels)
    with pytest.raises(ValueError, match="`label` 1 has"):
        deblend_steps(np.ones((5, 6)), LabelImage(np.ones((5, 6), int)), 1, 2)
