"""Kernels, smoothing, thresholds, connected pixels: from an image to its first labels."""

import hashlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy import units
from astropy.convolution import Gaussian2DKernel, convolve
from guide_image import hundred_gaussians
from scipy import ndimage

from diffdeblend.background.mesh import estimate_background
from diffdeblend.segment import (
    NoDetectionsWarning,
    combined_significance,
    connected_components,
    detect_sources,
    detect_stamps,
    detect_threshold,
    drop_small,
    make_2dgaussian_kernel,
    psf_kernel,
    smooth,
)
from diffdeblend.segment.runs import label_stack


def masks(n, seed=0):
    """Random masks of all fillings and odd shapes, and the awkward ones."""
    rng = np.random.default_rng(seed)
    yield np.zeros((5, 7), bool)
    yield np.ones((6, 3), bool)
    yield spiral(31)
    yield spiral(31).T[:, ::-1]
    yield np.indices((9, 14)).sum(axis=0) % 2 == 0
    for _ in range(n):
        yield rng.random(rng.integers(1, 40, 2)) < rng.uniform(0.01, 0.99)


def spiral(n):
    """One long way of single pixels: the worst case of what hands labels on."""
    mask = np.zeros((n, n), bool)
    y, x, dy, dx = 0, 0, 0, 1
    for side in range(n - 1, 0, -2):
        for _ in range(4):
            for _ in range(side):
                mask[y, x] = True
                y, x = y + dy, x + dx
            dy, dx = dx, -dy
        mask[y, x] = False
        mask[y + 1, x] = mask[y + 1, x + 1] = False
        y, x = y + 2, x + 1
        mask[y, x - 1 : x + 1] = True
    return mask


def structure(connectivity):
    return np.ones((3, 3)) if connectivity == 8 else None


@pytest.mark.parametrize("connectivity", [4, 8])
def test_host_labels_are_those_of_scipy(connectivity):
    for mask in masks(300):
        expected, n = ndimage.label(mask, structure=structure(connectivity))
        found = label_stack(mask[None], 1, connectivity)
        np.testing.assert_array_equal(found.labels[0], expected)
        np.testing.assert_array_equal(
            found.areas, np.bincount(expected.ravel(), minlength=n + 1)[1:]
        )
        boxes = [(a.start, a.stop, b.start, b.stop) for a, b in ndimage.find_objects(expected)]
        np.testing.assert_array_equal(found.boxes, np.reshape(boxes, (-1, 4)))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_device_labels_are_those_of_scipy(connectivity):
    rng = np.random.default_rng(1)
    stack = rng.random((250, 33, 27)) < rng.uniform(0.01, 0.99, (250, 1, 1))
    stack[0], stack[1], stack[2] = False, True, spiral(33)[:, :27]
    labels, n = jax.jit(jax.vmap(lambda mask: connected_components(mask, connectivity)))(stack)
    for mask, ours, count in zip(stack, np.asarray(labels), np.asarray(n), strict=True):
        expected, number = ndimage.label(mask, structure=structure(connectivity))
        np.testing.assert_array_equal(ours, expected)
        assert count == number


def test_small_labels_are_dropped():
    labels = jnp.array([[1, 1, 0, 2], [0, 0, 3, 0], [4, 4, 0, 5], [4, 0, 5, 5]])
    left, n = drop_small(labels, 2)
    assert n == 3
    assert left.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 0, 3], [2, 0, 3, 3]]


@pytest.mark.parametrize("backend", ["host", "jax"])
@pytest.mark.parametrize(("n_pixels", "connectivity"), [(1, 8), (4, 8), (4, 4), (10**6, 8)])
def test_stamps_have_labels_of_their_own(n_pixels, connectivity, backend):
    rng = np.random.default_rng(2)
    stack = ndimage.gaussian_filter(rng.normal(size=(40, 19, 26)), (0, 1, 1))
    stack[3], stack[4] = -1, 1
    found = detect_stamps(
        stack, 0.15, n_pixels, connectivity=connectivity, mask=stack > 0.6, backend=backend
    )
    for image, labels, n in zip(stack, found.labels, found.n_labels, strict=True):
        every, _ = ndimage.label((image > 0.15) & (image <= 0.6), structure(connectivity))
        large = np.bincount(every.ravel()) >= n_pixels
        large[0] = False
        np.testing.assert_array_equal(labels, (np.cumsum(large) * large)[every])
        assert n == large.sum()


def test_another_number_of_pixels_or_content_compiles_nothing(compilations):
    stack = np.random.default_rng(0).normal(size=(3, 11, 13)).astype(np.float32)
    kernel = make_2dgaussian_kernel(2.0, 3)
    for image, n_pixels in ((stack, 2), (stack - 1, 5)):
        count = len(compilations)
        smooth(image, kernel, backend="jax")
        detect_stamps(image, 0.5, n_pixels, backend="jax")
    assert count > 0
    assert len(compilations) == count


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 5, 0)])
def test_stacks_of_nothing(shape):
    for backend in ("host", "jax"):
        found = detect_stamps(np.zeros(shape), 0.0, 1, backend=backend)
        assert found.labels.shape == shape
        np.testing.assert_array_equal(found.n_labels, np.zeros(shape[0]))
    assert smooth(np.zeros(shape), np.ones((3, 3)), backend="host").shape == shape


@pytest.mark.parametrize("n_pixels", [1, 3, 10])
def test_sources_are_those_of_photutils(n_pixels):
    segmentation = pytest.importorskip("photutils.segmentation")
    rng = np.random.default_rng(3)
    image = ndimage.gaussian_filter(rng.normal(size=(83, 61)), 1.2)
    image[20:23, :9], image[:, 60] = np.nan, 1.0
    level, mask = rng.uniform(0.1, 0.4, image.shape), rng.random(image.shape) < 0.05
    for connectivity in (4, 8):
        settings = {"connectivity": connectivity, "mask": mask}
        found = detect_sources(image, level, n_pixels, **settings)
        expected = segmentation.detect_sources(image, level, n_pixels, **settings)
        np.testing.assert_array_equal(found.data, expected.data)
        np.testing.assert_array_equal(found.areas, expected.areas)
        assert found.slices == expected.slices


def test_at_the_threshold():
    image = np.array([[0.0, 1, 2], [1, 2, 0]])
    assert detect_sources(image, 1, 1).areas.tolist() == [2]
    assert detect_sources(image, 1, 1, inclusive=True).areas.tolist() == [4]
    assert detect_sources(image, 1.5, 1, connectivity=4).areas.tolist() == [1, 1]


@pytest.mark.parametrize("backend", ["host", "jax"])
def test_nothing_is_an_empty_image(backend):
    image = np.full((4, 5), np.nan)
    with pytest.warns(NoDetectionsWarning, match="No sources"):
        found = detect_sources(image, 0.0, 1, backend=backend)
    assert found.shape == (4, 5)
    assert found.n_labels == 0


def test_units_must_fit():
    image = np.zeros((4, 5)) * units.mJy
    image[1:3, 1:3] = 2 * units.mJy
    assert detect_sources(image, 1e-3 * units.Jy, 4).n_labels == 1
    with pytest.raises(ValueError, match="unit"):
        detect_sources(image, 1.0, 4)
    with pytest.raises(ValueError, match="unit"):
        detect_sources(image.value, 1.0 * units.mJy, 4)
    level = detect_threshold(image, 2.0, background=1e-3 * units.Jy, error=1 * units.mJy)
    np.testing.assert_allclose(level.to_value("mJy"), 3.0)
    assert smooth(image, np.ones((3, 3))).unit == units.mJy


# Of the map of labels as int32; the second of four neighbours.
GUIDE = {
    "doc": (87, 87, "ab856bfc2232c29a", "ab856bfc2232c29a"),
    "v3": (86, 87, "7b2037a682908a0a", "f365c909c5ce7793"),
}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("variant", GUIDE)
def test_sources_of_the_guide(variant, kind):
    image = hundred_gaussians(variant).astype(kind)
    sky = estimate_background(image, (50, 50), estimator="median")
    smoothed = smooth(image - sky.background, make_2dgaussian_kernel(3.0, 5))
    assert smoothed.dtype == kind
    n_eight, n_four, *digests = GUIDE[variant]
    for connectivity, n, digest in zip((8, 4), (n_eight, n_four), digests, strict=True):
        found = detect_sources(smoothed, 1.5 * sky.background_rms, 10, connectivity=connectivity)
        assert found.n_labels == n
        assert hashlib.sha256(found.data.tobytes()).hexdigest().startswith(digest)


@pytest.mark.parametrize("size", [5, (3, 7)])
@pytest.mark.parametrize("mode", ["oversample", "center", "linear_interp", "integrate"])
def test_gaussians_are_those_of_astropy(mode, size):
    ny, nx = (size, size) if isinstance(size, int) else size
    expected = Gaussian2DKernel(3.0 / 2.3548200450309493, x_size=nx, y_size=ny, mode=mode)
    expected.normalize(mode="integral")
    kernel = make_2dgaussian_kernel(3.0, size, mode=mode)
    np.testing.assert_allclose(kernel, expected.array, atol=1e-15, rtol=0)
    if mode == "oversample" and size == 5:
        np.testing.assert_allclose(
            kernel[[2, 0], [2, 0]], [0.10324739669, 0.00991398010], rtol=1e-9
        )


KERNELS = {
    "product": make_2dgaussian_kernel(3.0, (5, 9)),
    "lopsided product": np.outer([1, 2, 0, 4, 0.5], [0, 3, 1]),
    "small": np.random.default_rng(0).random((3, 7)),
    "large": np.random.default_rng(1).random((15, 11)),
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_smoothing_is_that_of_astropy(kernel, missing):
    rng = np.random.default_rng(4)
    for shape in ((37, 53), (4, 3), (1100, 129)):
        image, mask = rng.normal(size=shape), None
        if missing:
            image[rng.random(shape) < 0.1] = np.nan
            image[:20, :30] = np.nan
            mask = rng.random(shape) < 0.1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a hole larger than the kernel
            hidden = image if mask is None else np.where(mask, np.nan, image)
            expected = convolve(hidden, KERNELS[kernel])
        for kind, tolerance in ((np.float64, 1e-13), (np.float32, 1e-6)):
            ours = smooth(image.astype(kind), KERNELS[kernel], mask=mask, backend="host")
            assert ours.dtype == kind
            np.testing.assert_allclose(ours, expected, atol=tolerance, rtol=0)
        if shape == (37, 53):
            ours = smooth(image, KERNELS[kernel], mask=mask, backend="jax")
            np.testing.assert_allclose(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["host", "jax"])
def test_stacks_are_smoothed_stamp_by_stamp(backend):
    stack = np.random.default_rng(5).normal(size=(9, 30, 21))
    stack[2, 3, 4] = np.inf
    for kernel in (KERNELS["lopsided product"], KERNELS["small"]):
        expected = [smooth(image, kernel, backend="host") for image in stack]
        ours = smooth(stack, kernel, backend=backend)
        np.testing.assert_allclose(ours, expected, atol=1e-14 if backend == "host" else 1e-6)


def test_sums_are_kept_on_request():
    image = np.random.default_rng(6).normal(size=(12, 17))
    edges = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = ndimage.convolve(image, edges, mode="constant")
    for backend in ("host", "jax"):
        ours = smooth(image, edges, normalize=False, backend=backend)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    counts = smooth(np.arange(12).reshape(3, 4), np.ones((3, 3)), normalize=False)
    assert counts[1, 1] == np.arange(12).reshape(3, 4)[:, :3].sum()


def test_gradients_pass_by_what_is_missing(x64):
    rng = np.random.default_rng(7)
    image, probe = rng.normal(size=(6, 8)), rng.normal(size=(6, 8))
    image[2, 3] = np.nan

    def total(values):
        found = smooth(values, KERNELS["small"], backend="jax")
        return jnp.sum(probe * jnp.where(jnp.isfinite(found), found, 0))

    slope = jax.grad(total)(jnp.asarray(image))
    assert np.isfinite(slope).all()
    assert slope[2, 3] == 0
    step = np.zeros_like(image)
    step[3, 2] = 1e-5
    difference = (total(jnp.asarray(image + step)) - total(jnp.asarray(image - step))) / 2e-5
    np.testing.assert_allclose(slope[3, 2], difference, rtol=1e-8)


def test_a_matched_filter_finds_a_point_best():
    y, x = np.mgrid[-4:5, -4:5]
    psf = np.exp(-0.5 * ((x - 0.4 * y) ** 2 / 2 + y**2 / 5))
    psf[0, :3] += 0.3  # not the same turned by half a turn
    image = np.zeros((25, 31))
    image[8:17, 12:21] = psf
    best = smooth(image, psf_kernel(psf))
    assert np.unravel_index(np.argmax(best), best.shape) == (12, 16)
    assert best[12, 16] == pytest.approx(np.sum(psf**2) / psf.sum())
    np.testing.assert_allclose(psf_kernel(psf, 5), psf[6:1:-1, 6:1:-1] / psf[2:7, 2:7].sum())


def test_significance_has_unit_noise_and_a_point_its_own():
    rng = np.random.default_rng(8)
    kernels = np.stack([make_2dgaussian_kernel(f, 15) for f in (2.5, 4.0)])
    sigma = np.array([0.5, 2.0])[:, None, None]
    weight = np.broadcast_to(1 / sigma**2, (2, 120, 90)).copy()
    weight[0, 30:40] = 0
    images = sigma * rng.normal(size=weight.shape)
    images[0, 35] = np.nan
    noise = combined_significance(images, weight, kernels)
    assert np.std(noise) == pytest.approx(1, abs=0.05)
    # Signal over noise of a point in white noise: its flux times the root of sum P^2 / variance.
    point = np.zeros_like(images)
    point[:, 53:68, 43:58] = 9 * kernels
    expected = 9 * np.sqrt(np.sum(kernels**2 / sigma**2))
    found = combined_significance(point, weight, kernels)
    assert found[60, 50] == pytest.approx(expected, rel=1e-6)
    assert np.argmax(found) == 60 * 90 + 50


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"mask": np.indices((60, 80))[0] < 5},
        {"background": 5.0},
        {"error": 2.0},
        {"error": np.full((60, 80), 2.0)},
    ],
)
def test_thresholds_are_those_of_photutils(known):
    segmentation = pytest.importorskip("photutils.segmentation")
    image = np.random.default_rng(9).normal(5, 2, (60, 80))
    image[10:20, 10:30] += 50
    expected = segmentation.detect_threshold(image, 2.0, **known)
    np.testing.assert_allclose(detect_threshold(image, 2.0, **known), expected, rtol=1e-12)
    single = detect_threshold(image.astype(np.float32), 2.0, **known)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-6)


IMAGE = np.zeros((6, 7))


@pytest.mark.parametrize(
    ("mistake", "match"),
    [
        (lambda: detect_sources(IMAGE[0], 1, 1), r"`data` needs shape \(y, x\)"),
        (lambda: detect_stamps(IMAGE, 1, 1), r"`data` needs shape \(stamp, y, x\)"),
        (lambda: detect_sources(IMAGE, np.ones(7), 1), "`threshold`"),
        (lambda: detect_sources(IMAGE, 1, 0), "`n_pixels`"),
        (lambda: detect_sources(IMAGE, 1, 2.5), "`n_pixels`"),
        (lambda: detect_sources(IMAGE, 1, 1, connectivity=6), "`connectivity`"),
        (lambda: detect_sources(IMAGE, 1, 1, mask=IMAGE[1:] > 0), "`mask`"),
        (lambda: detect_sources(IMAGE, 1, 1, backend="gpu"), "`backend`"),
        (lambda: connected_components(jnp.ones((2, 3, 4))), "`mask`"),
        (lambda: connected_components(jnp.ones((3, 4)), 6), "`connectivity`"),
        (lambda: smooth(IMAGE[0], np.ones((3, 3))), "`data`"),
        (lambda: smooth(IMAGE, np.ones((3, 4))), "`kernel`"),
        (lambda: smooth(IMAGE, np.full((3, 3), np.nan)), "`kernel`"),
        (lambda: smooth(IMAGE, np.array([[1, 0, -1]])), "`kernel` sums to 0"),
        (
            lambda: smooth(IMAGE * np.nan, np.array([[1, 0, -1]]), normalize=False),
            "`kernel` sums to 0",
        ),
        (lambda: smooth(IMAGE, np.ones((3, 3)), mask=IMAGE[1:]), "`mask`"),
        (lambda: make_2dgaussian_kernel(0, 5), "`fwhm`"),
        (lambda: make_2dgaussian_kernel(3, 4), "`size`"),
        (lambda: make_2dgaussian_kernel(3, 5, mode="mean"), "`mode`"),
        (lambda: make_2dgaussian_kernel(3, 5, oversampling=0), "`oversampling`"),
        (lambda: psf_kernel(np.ones((4, 5))), "`psf`"),
        (lambda: psf_kernel(-np.ones((5, 5))), "`psf`"),
        (lambda: psf_kernel(np.ones((5, 5)), 4), "`size`"),
        (lambda: detect_threshold(IMAGE, np.nan), "`n_sigma`"),
        (lambda: detect_threshold(IMAGE[0], 1), "`data`"),
        (lambda: detect_threshold(IMAGE * np.nan, 1), "no finite pixel"),
        (lambda: detect_threshold(IMAGE, 1, error=np.ones(7)), "`error`"),
        (lambda: detect_threshold(IMAGE, 1, sigma=0), "`sigma`"),
        (lambda: detect_threshold(IMAGE, 1, mask=IMAGE[1:]), "`mask`"),
        (lambda: combined_significance(IMAGE, IMAGE, IMAGE[None]), "`images`"),
        (lambda: combined_significance(IMAGE[None], IMAGE[None], []), "`kernels`"),
    ],
)
def test_what_cannot_be_is_refused(mistake, match):
    with pytest.raises(ValueError, match=match):
        mistake()


@pytest.mark.slow
@pytest.mark.parametrize("connectivity", [4, 8])
def test_labels_of_a_large_image_are_those_of_scipy(connectivity):
    image = ndimage.gaussian_filter(np.random.default_rng(10).normal(size=(4096, 4096)), 1.5)
    mask = image > 0.2
    expected, n = ndimage.label(mask, structure=structure(connectivity))
    np.testing.assert_array_equal(label_stack(mask[None], 1, connectivity).labels[0], expected)
    labels, count = jax.jit(connected_components, static_argnums=1)(mask, connectivity)
    assert count == n
    np.testing.assert_array_equal(labels, expected)
