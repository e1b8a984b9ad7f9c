"""Kron and circular photometry, radii, windowed centroids and local backgrounds of sources."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crowded import crowded_field
from quick import hasty, quick_jit
from scipy.ndimage import gaussian_filter, label

from diffdeblend.measure.circular import brent_root, flux_radius
from diffdeblend.measure.kron import kron_photometry
from diffdeblend.measure.local_background import local_background, local_background_of
from diffdeblend.measure.photometry import (
    aperture_boxes,
    centroid_win_of,
    check_kron_params,
    circular_of,
    flux_radius_of,
    kron_of,
)
from diffdeblend.measure.pixels import list_pixels
from diffdeblend.measure.windowed import centroid_win
from diffdeblend.measure.windows import Planes, Window

RTOL = {"float32": 1e-4, "float64": 1e-10}


def field() -> dict[str, np.ndarray]:
    """A crowded field, wider than high, with bad pixels; labels touch one another."""
    data = crowded_field((100, 140), 60, seed=3).astype(float) - 1003
    smooth = gaussian_filter(data, 1.3)
    # Two thresholds part what touches: neighbours in each other's ellipses.
    labels, n = label(smooth > 60)
    labels = np.where(smooth > 20, labels, 0)
    rest, _ = label((smooth > 20) & (labels == 0))
    labels = np.where(rest > 0, rest + n, labels).astype(np.int32)
    size = np.bincount(labels.ravel())
    labels[size[labels] < 6] = 0
    rng = np.random.default_rng(4)
    error = np.sqrt(np.maximum(data + 1003, 1))
    mask = rng.random(data.shape) < 0.003
    data[rng.random(data.shape) < 0.002] = np.nan
    return {"data": data, "smooth": smooth, "labels": labels, "error": error, "mask": mask}


def peer(method: str, width: int = 0, kron_params=(2.5, 1.4, 0.0)):
    """The field as photutils measures it."""
    segmentation = pytest.importorskip("photutils.segmentation")
    image = field()
    return segmentation.SourceCatalog(
        image["data"],
        segmentation.SegmentationImage(image["labels"]),
        convolved_data=image["smooth"],
        error=image["error"],
        mask=image["mask"],
        aperture_mask_method=method,
        local_bkg_width=width,
        kron_params=kron_params,
    )


def planes_and_sources() -> tuple[Planes, dict]:
    image = field()
    planes = Planes(
        *(image["data"][None], image["labels"][None]),
        error=image["error"][None],
        mask=image["mask"][None],
    )
    sources = list_pixels(planes.labels)
    return planes, {"stamp": sources.stamp, "label": sources.label, "boxes": sources.boxes()}


def shapes_of(catalog) -> tuple[np.ndarray, ...]:
    x, y = (np.asarray(v, float) for v in (catalog.x_centroid, catalog.y_centroid))
    a, b = catalog.semimajor_axis.value, catalog.semiminor_axis.value
    return x, y, a, b, catalog.orientation.to_value("rad")


def assert_same(found, expected, rtol, atol=0.0):
    assert np.count_nonzero(np.isfinite(expected)) > 15
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.fixture
def few_programs(monkeypatch):
    """Every window is the whole image: one program in place of one for each size."""

    def whole(shape, x, *_):
        return np.tile(np.array([0, 0, *shape[-2:]], np.int32), (len(x), 1))

    monkeypatch.setattr("diffdeblend.measure.photometry.aperture_boxes", whole)
    with hasty():
        yield


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "method", ["correct", pytest.param("mask", marks=SLOW), pytest.param("none", marks=SLOW)]
)
def test_kron_is_that_of_photutils(method, x64, few_programs):
    check_kron(method, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["correct", "mask", "none"])
def test_kron_in_windows_of_all_sizes(method, precision):
    check_kron(method, precision)


def check_kron(method, precision):
    catalog = peer(method, width=5)
    planes, sources = planes_and_sources()
    shapes, sky = shapes_of(catalog), np.asarray(catalog.local_background)
    where = (planes, sources["stamp"], sources["label"])
    found = kron_of(*where, *shapes, sky, method)
    rtol = RTOL[precision]
    assert_same(found.kron_radius, catalog.kron_radius.value, rtol)
    # Sums of both signs: what rounding adds goes with the light in the aperture, not its sum.
    assert_same(found.aperture.flux, catalog.kron_flux, rtol, atol=rtol * 300)
    error = image_error(catalog, found, planes, method)
    assert_same(found.aperture.flux_err, error, rtol)
    least = catalog.kron_radius.value == 1.4
    assert np.array_equal(found.minimum_radius, least)
    assert 3 < least.sum() < least.size
    assert np.any(found.aperture.partial_overlap)
    assert np.any(found.aperture.neighbor_pixels) == (method != "none")
    assert np.any(found.aperture.uncorrected_pixels) == (method == "correct")


def image_error(catalog, found, planes, method) -> np.ndarray:
    """The root of the sum of squared weights times variances, with photutils' own weights."""
    import photutils
    from photutils.aperture import EllipticalAperture

    if tuple(map(int, photutils.__version__.split(".")[:2])) >= (3, 1):
        return np.asarray(catalog.kron_flux_err)
    expected = []
    x, y, *_, theta = shapes_of(catalog)
    rows = zip(catalog.labels, x, y, found.semimajor_axis, found.semiminor_axis, theta, strict=True)
    for number, x_, y_, major, minor, angle in rows:
        if not np.isfinite(major):
            expected.append(np.nan)
            continue
        cut = EllipticalAperture((x_, y_), major, minor, theta=angle).to_mask(method="exact")
        large, small = cut.get_overlap_slices(planes.data.shape[1:])
        weight, labels = cut.data[small], planes.labels[0][large]
        variance, bad = planes.error[0][large] ** 2, planes.mask[0][large].copy()
        bad |= ~np.isfinite(planes.data[0][large])
        others = (labels != 0) & (labels != number)
        if method == "mask":
            bad |= others
        elif method == "correct":
            # One by one, as the rule says it.
            middle = [
                int(np.floor(p + 0.5)) - part.start for p, part in zip((y_, x_), large, strict=True)
            ]
            old = variance.copy()
            for i, j in np.argwhere(others):
                k, m = 2 * middle[0] - i, 2 * middle[1] - j
                there = 0 <= k < old.shape[0] and 0 <= m < old.shape[1]
                free = there and not others[k, m]
                free = free and not (planes.mask[0][large][k, m])
                free = free and np.isfinite(planes.data[0][large][k, m])
                variance[i, j] = old[k, m] if free else 0.0
        expected.append(np.sqrt(np.sum(weight[~bad] ** 2 * variance[~bad])))
    return np.array(expected)


def test_other_kron_parameters_and_the_least_circle(few_programs):
    catalog = peer("correct", kron_params=(3.5, 1.0, 9.0))
    planes, sources = planes_and_sources()
    shapes = shapes_of(catalog)
    where = (planes, sources["stamp"], sources["label"])
    nothing = np.zeros(len(shapes[0]))
    found = kron_of(*where, *shapes, nothing, kron_params=(3.5, 1.0, 9.0))
    radius = catalog.kron_radius.value
    assert 2 < np.sum(radius == 0) < len(radius) - 2
    assert_same(found.kron_radius, radius, 1e-5)
    assert_same(found.aperture.flux, catalog.kron_flux, 1e-4, atol=0.03)
    # Some apertures are larger than the ellipse of the first moment.
    assert np.any(3.5 * radius > 6)


def test_circles_are_those_of_photutils(x64, few_programs):
    check_circles(peer("correct"), "float64")


def check_circles(catalog, precision):
    planes, sources = planes_and_sources()
    x, y, *_ = shapes_of(catalog)
    where = (planes, sources["stamp"], sources["label"], x, y)
    sky = np.zeros(len(x))
    light = circular_of(*where, 4.3, sky)
    assert_same(light.flux, catalog.circular_photometry(4.3)[0], RTOL[precision], atol=0.01)
    return where, sky


@pytest.mark.slow
def test_circles_radii_and_windows_are_those_of_photutils(precision):
    catalog = peer("correct")
    where, sky = check_circles(catalog, precision)
    a, double = catalog.semimajor_axis.value, precision == "float64"
    most = 2.5 * a * catalog.kron_radius.value
    kron_flux = np.asarray(catalog.kron_flux)
    half = np.asarray(catalog.flux_radius(0.5).value)
    found = flux_radius_of(*where, kron_flux, most, sky, 0.5)
    assert_same(found, half, 0, 1e-9 if double else 1e-3)
    found = centroid_win_of(
        *where, half, *(getattr(catalog, f"ellipse_{c}").value for c in ELLIPSE)
    )
    same = np.isfinite(half) & ~found.fallback
    # Before 3.1 photutils went back to the isophotal centroid more readily.
    same &= np.any(catalog.centroid_win != catalog.centroid, axis=1)
    assert np.mean(same) > 0.6
    tolerance = 1e-6 if double else 1e-3
    assert_same(found.x[same], catalog.centroid_win[same, 0], 0, tolerance)
    assert_same(found.y[same], catalog.centroid_win[same, 1], 0, tolerance)
    assert np.all(np.isfinite(found.xx[same]) & (found.xx[same] > 0))


ELLIPSE = ("cxx", "cyy", "cxy")


def test_local_background_is_that_of_photutils():
    catalog = peer("correct", width=7)
    planes, sources = planes_and_sources()
    level, n_used = local_background_of(planes, sources["stamp"], sources["boxes"], 7)
    known = ~np.isnan(np.asarray(catalog.local_background))
    assert_same(level[known], np.asarray(catalog.local_background)[known], 1e-10)
    # A ring without room: everything is somebody's.
    full = planes._replace(labels=np.ones_like(planes.labels))
    level, n_used = local_background_of(full, sources["stamp"], sources["boxes"], 7)
    assert not level.any()
    assert not n_used.any()
    assert local_background_of(full, sources["stamp"][:0], sources["boxes"][:0], 7)[0].shape == (0,)


def stamp(n: int = 41, at=(18.3, 21.8)) -> tuple[Window, tuple[float, ...]]:
    """A tilted Gaussian and its noise as one window, with a neighbour and a bad pixel."""
    y, x = np.mgrid[:n, :n] - np.array([at[1], at[0]])[:, None, None]
    cos, sin = np.cos(0.6), np.sin(0.6)
    u, v = (cos * x + sin * y) / 3.1, (cos * y - sin * x) / 2.0
    rng = np.random.default_rng(5)
    data = 100 * np.exp(-(u**2 + v**2) / 2) + rng.normal(size=x.shape)
    labels = np.where(u**2 + v**2 < 4, 1, 0)
    labels[28:34, 22:28] = 2
    good = np.ones(x.shape, bool)
    good[20, 20] = False
    nothing = np.zeros(x.shape)
    images = (np.where(good, data, 0), nothing, nothing + 1, nothing)
    window = Window(
        *map(jnp.asarray, images),
        labels=jnp.asarray(labels, jnp.int32),
        good=jnp.asarray(good),
        label=jnp.int32(1),
        x0=jnp.int32(3),
        y0=jnp.int32(0),
        ny=jnp.int32(n),
        nx=jnp.int32(n + 3),
    )
    return window, (*at, 3.1, 2.0, 0.6)


def test_a_ring_in_jax_and_on_the_host(x64):
    window, _ = stamp()
    box = np.array([14, 12, 29, 26])
    level, n = quick_jit(partial(local_background, width=6))(window, jnp.asarray(box))
    planes = Planes(
        *(np.asarray(v)[None] for v in (window.data, window.labels)),
        mask=~np.asarray(window.good)[None],
    )
    expected, n_used = local_background_of(planes, np.zeros(1, int), box[None], 6)
    assert n == n_used[0]
    assert level == pytest.approx(expected[0], rel=1e-10)


def test_derivatives_of_fluxes_are_those_of_finite_differences(x64):
    window, shape = stamp()
    shape = tuple(map(jnp.float64, shape))

    def fluxes(data):
        kron = kron_photometry(window._replace(data=data), *shape, jnp.float64(0.3))
        return kron.aperture.flux

    data, both = window.data, quick_jit(jax.value_and_grad(fluxes))
    slope = both(data)[1]
    assert np.all(np.isfinite(slope))
    way = jnp.asarray(np.random.default_rng(6).normal(size=data.shape))
    step = 1e-4
    change = (both(data + step * way)[0] - both(data - step * way)[0]) / (2 * step)
    assert float(jnp.sum(slope * way)) == pytest.approx(float(change), rel=1e-6)


def test_nothing_is_measured_where_there_is_no_source():
    window, (x, y, a, b, theta) = stamp()
    measure = quick_jit(jax.value_and_grad(lambda *v: kron_photometry(*v).aperture.flux, argnums=1))
    zero = jnp.float32(0)
    for wrong in ((jnp.nan, y, a, b), (x, y, jnp.nan, b), (x, y, a, 0.0)):
        values = (*map(jnp.float32, wrong), jnp.float32(theta))
        assert np.isnan(measure(window, *values, zero)[0])
    masked = window._replace(good=jnp.zeros_like(window.good), data=0 * window.data)
    assert np.isnan(measure(masked, *map(jnp.float32, (x, y, a, b, theta)), zero)[0])
    # An aperture all outside the image.
    values = (*map(jnp.float32, (-90.0, y, a, b, theta)), zero)
    assert np.isnan(measure(window, *values)[0])


def test_half_of_a_gaussian_is_within_its_half_light_radius(x64):
    window, (x, y, *_) = stamp()
    radius = np.hypot(np.arange(41) - x, (np.arange(41) - y)[:, None])
    round_ = window._replace(
        data=jnp.exp(-(jnp.asarray(radius) ** 2) / (2 * 2.5**2)),
        good=jnp.ones_like(window.good),
        labels=jnp.zeros_like(window.labels),
    )
    flux = 2 * np.pi * 2.5**2
    half = quick_jit(flux_radius)(round_, x, y, flux, 12.0, 0.0, 0.5)
    # Pixels blur: the second moment of a pixel is 1/12, the circle cuts them.
    assert half == pytest.approx(np.sqrt(2 * np.log(2)) * np.sqrt(2.5**2 + 1 / 12), rel=2e-3)
    place = quick_jit(centroid_win)(round_, x + 0.4, y - 0.3, half, 0.16, 0.16, 0.0)
    np.testing.assert_allclose([place.x, place.y], [x, y], atol=1e-3)
    assert not place.fallback


def test_roots(x64):
    roots = quick_jit(lambda low, high: brent_root(_cubic, low, high, _cubic(low), _cubic(high)))
    assert roots(0.5, 9.0) == pytest.approx(2.5, abs=1e-11)
    assert roots(2.5, 9.0) == 2.5
    assert roots(-1.0, 2.5) == 2.5


def _cubic(x):
    return (x - 2.5) * (x**2 + 1)


def test_boxes_hold_apertures():
    boxes = aperture_boxes(
        (1, 50, 70),
        np.array([10.2, 69.0, np.nan]),
        np.array([20.0, 3.0, 5.0]),
        np.array([4.0, 6.0, 1.0]),
        np.array([2.0, 6.0, 1.0]),
        np.array([np.pi / 2, 0.0, 0.0]),
    )
    assert boxes[:2].tolist() == [[16, 8, 25, 13], [0, 63, 10, 70]]
    assert np.all(boxes[:, 2:] > boxes[:, :2])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: check_kron_params((2.5,)), "kron_params"),
        (lambda: check_kron_params((2.5, -1.0)), "kron_params"),
        (lambda: kron_of(Planes(0, 0), *[0] * 8, method="mend"), "aperture_mask_method"),
        (lambda: circular_of(Planes(0, 0), *[0] * 4, -1.0, 0), "radius"),
        (lambda: flux_radius_of(Planes(0, 0), *[0] * 7, fraction=1.5), "fraction"),
        (lambda: local_background_of(Planes(0, 0), 0, 0, 0), "local_bkg_width"),
    ],
)
def test_bad_settings_are_named(call, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        call()
