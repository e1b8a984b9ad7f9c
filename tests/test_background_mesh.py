"""The measured sky: photutils' numbers, in NumPy and in JAX."""

import warnings
from functools import partial

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.stats import SigmaClip
from guide_image import hundred_gaussians
from scipy.interpolate import CubicSpline
from scipy.ndimage import zoom

from diffdeblend.background import estimate_background, stamp_background
from diffdeblend.background.mesh_repair import spline_matrix

RANDOM = np.random.default_rng(4)
# Not a multiple of the boxes, and other on the two axes.
SHAPE, BOX = (83, 118), (16, 19)
MASK = RANDOM.random(SHAPE) < 0.02
MASK[20:45, 30:52] = True
COVERAGE = np.zeros(SHAPE, bool)
COVERAGE[:, 109:] = True


def field(dtype="float64", shape=SHAPE, seed=1):
    """A sloped sky with outliers."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 100 + 0.05 * x - 0.02 * y + random.normal(0, 3, shape)
    image[random.random(shape) < 0.01] += 60
    return image.astype(dtype)


CASES = {
    "plain": {},
    "no filter": {"filter_size": 1, "exclude_percentile": 30},
    "mask": {"mask": MASK},
    "coverage": {"mask": MASK, "coverage_mask": COVERAGE, "fill_value": -7.0},
    "all boxes": {"exclude_percentile": 99},
    "filter threshold": {"filter_threshold": 102.5, "filter_size": (3, 5)},
    "no clipping": {"sigma": None, "exclude_percentile": 50},
    "clip twice": {"sigma": 2.0, "max_iterations": 2, "exclude_percentile": 50},
    "to the end": {"sigma": 2.3, "max_iterations": None, "exclude_percentile": 60},
    "mean": {"estimator": "mean", "rms_estimator": "mad_std"},
    "median": {"estimator": "median", "rms_estimator": "biweight_scale"},
    "mode": {"estimator": "mode"},
    "mmm": {"estimator": "mmm"},
    "biweight": {"estimator": "biweight_location"},
}
PEERS = {
    "sextractor": "SExtractorBackground",
    "mean": "MeanBackground",
    "median": "MedianBackground",
    "mode": "ModeEstimatorBackground",
    "mmm": "MMMBackground",
    "biweight_location": "BiweightLocationBackground",
    "std": "StdBackgroundRMS",
    "mad_std": "MADStdBackgroundRMS",
    "biweight_scale": "BiweightScaleBackgroundRMS",
}


def photutils_background(image, box, case):
    peers = pytest.importorskip("photutils.background")
    case = dict(case)
    sigma = case.pop("sigma", 3.0)
    iterations = case.pop("max_iterations", 10)
    clip = None if sigma is None else SigmaClip(sigma, maxiters=iterations)
    level = getattr(peers, PEERS[case.pop("estimator", "sextractor")])(sigma_clip=None)
    scatter = getattr(peers, PEERS[case.pop("rms_estimator", "std")])(sigma_clip=None)
    return peers.Background2D(
        image, box, sigma_clip=clip, bkg_estimator=level, bkg_rms_estimator=scatter, **case
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_photutils(case, dtype):
    image = field(dtype)
    theirs = photutils_background(image, BOX, case)
    with warnings.catch_warnings():
        # That some boxes are crowded is so here by intention.
        warnings.simplefilter("ignore", UserWarning)
        ours = estimate_background(image, BOX, **case)
    mesh, whole = {"float32": (1e-6, 2e-6), "float64": (1e-12, 1e-10)}[dtype]
    np.testing.assert_array_equal(ours.n_pixels_mesh, theirs.n_pixels_mesh)
    np.testing.assert_array_equal(ours.n_pixels_map, theirs.n_pixels_map)
    for name in ("background", "background_rms"):
        # The scatter is a difference of levels: its digits are those of the level.
        scale = {"atol": mesh * 100, "rtol": mesh}
        ours_mesh, theirs_mesh = getattr(ours, name + "_mesh"), getattr(theirs, name + "_mesh")
        np.testing.assert_allclose(ours_mesh, theirs_mesh, **scale)
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=whole, atol=whole * 100
        )
        assert getattr(ours, name).dtype == getattr(ours, name + "_mesh").dtype == dtype
    np.testing.assert_allclose(ours.background_median, theirs.background_median, rtol=mesh)
    np.testing.assert_allclose(ours.background_rms_median, theirs.background_rms_median, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_guides_sky(dtype):
    image = hundred_gaussians("doc").astype(dtype)
    sky = estimate_background(image, (50, 50), filter_size=(3, 3), estimator="median")
    assert sky.background_mesh.shape == (6, 10)
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(sky.background_median, 5.163614820781, rtol=tolerance)
    np.testing.assert_allclose(sky.background_rms_median, 2.096824681416, rtol=tolerance)
    # The last digits are those of a version of scipy.
    np.testing.assert_allclose(sky.background.mean(), 5.168967552530, rtol=tolerance + 1e-10)
    assert "median 5.16361" in repr(sky)


ON_DEVICE = ("coverage", "to the end")


@pytest.mark.parametrize("case", [CASES[name] for name in ON_DEVICE], ids=ON_DEVICE)
def test_jax_equals_numpy(case, x64):
    image = field()
    image[7, 3], image[8, 9] = np.nan, -np.inf
    with pytest.warns(UserWarning, match="not finite"):
        host = estimate_background(image, BOX, **case)
    with pytest.warns(UserWarning, match="not finite"):
        device = estimate_background(image, BOX, backend="jax", **case)
    np.testing.assert_array_equal(device.n_pixels_mesh, host.n_pixels_mesh)
    np.testing.assert_array_equal(device.excluded, host.excluded)
    np.testing.assert_allclose(device.background, host.background, rtol=1e-12)
    np.testing.assert_allclose(device.background_rms, host.background_rms, rtol=1e-11)


# One program for several tests: 2 x 3 boxes of stamps of 24 x 33 pixels, few enough that a hole is
# filled from all others.
STAMP, STAMP_BOX = (24, 33), (12, 11)


@jax.jit
@jax.vmap
def on_device(data, good):
    return stamp_background(data, good, STAMP_BOX, exclude_percentile=25)


def stamps_and_mask():
    stamps = np.stack([field("float32", STAMP, seed) for seed in range(3)])
    mask = np.zeros(stamps.shape, bool)
    mask[1, :14, :10] = True
    return stamps, mask


def test_stacks_are_single_stamps_and_compile_once(compilations):
    stamps, mask = stamps_and_mask()
    stack = estimate_background(stamps, STAMP_BOX, mask=mask, exclude_percentile=25)
    for stamp in range(len(stamps)):
        single = estimate_background(
            stamps[stamp], STAMP_BOX, mask=mask[stamp], exclude_percentile=25
        )
        np.testing.assert_array_equal(stack.background_mesh[stamp], single.background_mesh)
        np.testing.assert_array_equal(stack.background[stamp], single.background)
        np.testing.assert_array_equal(stack.excluded[stamp], single.excluded)
    assert np.argwhere(stack.excluded).tolist() == [[1, 0, 0]]
    assert "1 excluded" in repr(stack)
    found = on_device(stamps, ~mask)
    np.testing.assert_allclose(found.background, stack.background, rtol=1e-6)
    np.testing.assert_allclose(found.background_rms, stack.background_rms, rtol=1e-5)
    np.testing.assert_array_equal(found.n_pixels_mesh, stack.n_pixels_mesh)
    np.testing.assert_array_equal(found.excluded, stack.excluded)
    compilations.clear()
    on_device(stamps[::-1], mask)
    assert not compilations


def test_stamps_without_a_good_box():
    stamps, mask = stamps_and_mask()
    stamps[0, ::2] += np.random.default_rng(0).exponential(300, (12, 33)).astype("float32") ** 1.5
    mask[2] = True
    with pytest.warns(UserWarning, match="crowded"):
        sky = estimate_background(stamps, STAMP_BOX, mask=mask, exclude_percentile=25)
    assert sky.excluded[[0, 2]].all()
    assert sky.crowded[0].all()
    assert not sky.crowded[1:].any()
    assert np.isfinite(sky.background[:2]).all()
    assert np.isnan(sky.background[2]).all()
    found = on_device(stamps, ~mask)
    np.testing.assert_allclose(found.background, sky.background, rtol=1e-6)
    empty = estimate_background(stamps[:0], STAMP_BOX)
    assert empty.background.shape == (0, *STAMP)


def test_the_map_follows_the_pixels(x64):
    """The gradient of the whole map, clipped and filled as it is, against finite differences."""
    image = field(shape=STAMP)
    good = np.ones(STAMP, bool)
    good[:13, :9] = False
    weight = RANDOM.normal(size=STAMP)
    # A pixel that is not used must not spoil it.
    image[3, 3] = np.nan
    host = estimate_background(image, STAMP_BOX, mask=~good, exclude_percentile=25)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def total(image):
        found = stamp_background(image, jnp.asarray(good), STAMP_BOX, exclude_percentile=25)
        return jnp.sum(weight * found.background) + jnp.sum(weight**2 * found.background_rms), found

    (_, found), gradient = total(image)
    assert host.n_excluded == 1
    np.testing.assert_array_equal(found.excluded, host.excluded)
    np.testing.assert_allclose(found.background, host.background, rtol=1e-12)
    gradient = np.asarray(gradient)
    assert np.isfinite(gradient).all()
    assert gradient[3, 3] == 0
    for seed in range(4):
        direction = 1e-6 * np.random.default_rng(seed).normal(size=STAMP)
        ahead, behind = total(image + direction)[0][0], total(image - direction)[0][0]
        np.testing.assert_allclose(2 * np.sum(gradient * direction), ahead - behind, rtol=1e-6)


@pytest.mark.parametrize(("n", "box", "length"), [(6, 50, 300), (1, 7, 7), (9, 4, 33)])
def test_splines_are_scipys(n, box, length):
    nodes = np.random.default_rng(n).normal(size=n)
    theirs = zoom(nodes, box, order=3, mode="reflect", grid_mode=True)[:length]
    np.testing.assert_allclose(spline_matrix(n, box, length) @ nodes, theirs, atol=1e-14)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_splines_of_few_nodes_are_exact(n):
    """A spline of a period of two reflections, by scipy's other code."""
    matrix = spline_matrix(n, 7, 7 * n)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-14)
    nodes = np.random.default_rng(n).normal(size=n)
    around = np.concatenate([nodes, nodes[::-1], nodes[:1]])
    spline = CubicSpline(np.arange(2 * n + 1), around, bc_type="periodic")
    at = (np.arange(7 * n) + 0.5) / 7 - 0.5
    np.testing.assert_allclose(matrix @ nodes, spline(at), atol=1e-13)


def test_single_precision_keeps_the_digits_of_a_high_sky():
    image = field("float32") + np.float32(1e5)
    ours = estimate_background(image, 20, backend="host")
    truth = estimate_background(image.astype(float), 20, backend="host")
    np.testing.assert_allclose(ours.background, truth.background, atol=0.02)
    np.testing.assert_allclose(ours.background_rms, truth.background_rms, rtol=1e-5)


def test_estimators_may_be_functions():
    image = field()
    ours = estimate_background(image, 20, estimator=np.nanmedian, rms_estimator=np.nanstd)
    named = estimate_background(image, 20, estimator="median")
    np.testing.assert_allclose(ours.background, named.background)
    np.testing.assert_allclose(ours.background_rms, named.background_rms)
    peers = pytest.importorskip("photutils.background")
    theirs = estimate_background(image, 20, estimator=peers.MedianBackground(sigma_clip=None))
    np.testing.assert_allclose(theirs.background, named.background)


def test_units_byte_order_and_integers():
    image = field()
    plain = estimate_background(image, 20)
    for given in (image * u.nJy, NDData(image, unit="nJy")):
        sky = estimate_background(given, 20)
        assert sky.background.unit == sky.background_rms_median.unit == u.nJy
        np.testing.assert_array_equal(sky.background.value, plain.background)
    hidden = estimate_background(NDData(image, mask=MASK), 20, mask=None)
    np.testing.assert_array_equal(
        hidden.background, estimate_background(image, 20, mask=MASK).background
    )
    swapped = estimate_background(image.astype(">f8"), 20)
    np.testing.assert_array_equal(swapped.background, plain.background)
    counts = image.astype(np.int16)
    whole = estimate_background(counts, 20)
    assert whole.background.dtype == np.float32
    np.testing.assert_array_equal(counts, image.astype(np.int16))


def test_the_image_is_left_alone():
    for box in (20, SHAPE):
        image = field()
        before = image.copy()
        sky = estimate_background(image, box, mask=MASK, exclude_percentile=60)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(sky.subtract_from(image), image - sky.background)
        np.testing.assert_array_equal(image, before)
    assert np.ptp(sky.background) == 0


def test_what_is_not_finite_is_masked_and_said():
    image = field()
    image[4, 5], image[40, 60], image[41, 60] = np.nan, np.inf, -np.inf
    odd = ~np.isfinite(image)
    with pytest.warns(UserWarning, match="not finite"):
        found = estimate_background(image, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked = estimate_background(image, 20, mask=odd)
    np.testing.assert_array_equal(found.background, masked.background)
    assert np.isfinite(found.background).all()


def test_a_crowded_box_is_said():
    image = field()
    # As many as clipping can just remove at once.
    image[:4, :11] += 2000
    with pytest.warns(UserWarning, match="1 of 30 boxes .* crowded"):
        sky = estimate_background(image, 20)
    assert sky.crowded[0, 0]
    assert sky.crowded.sum() == 1
    # At the top and the right boxes are too small, which is no news.
    assert sky.excluded[-1].all()
    x, y = sky.box_centres
    assert len(x) == len(y) == sky.excluded.size - sky.n_excluded
    assert (x.min(), y.min()) == (9.5, 9.5)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"data": np.ones(5)}, "`data`"),
        ({"data": np.ones((5, 5), complex)}, "`data`"),
        ({"box_size": 0}, "`box_size`"),
        ({"box_size": (3, 4, 5)}, "`box_size`"),
        ({"box_size": 2.5}, "`box_size`"),
        ({"mask": np.ones(SHAPE)}, "`mask`"),
        ({"coverage_mask": np.ones((3, 3), bool)}, "`coverage_mask`"),
        ({"filter_size": 2}, "`filter_size`"),
        ({"exclude_percentile": 101}, "`exclude_percentile`"),
        ({"sigma": 0}, "`sigma`"),
        ({"max_iterations": 0}, "`max_iterations`"),
        ({"estimator": "brightest"}, "`estimator`"),
        ({"rms_estimator": "mean"}, "`rms_estimator`"),
        ({"backend": "gpu"}, "`backend`"),
        ({"mask": np.ones(SHAPE, bool)}, "`mask`"),
    ],
)
def test_bad_input_is_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        estimate_background(**{"data": field(), "box_size": 20} | arguments)
    with pytest.raises(ValueError, match="`image`"):
        estimate_background(field(), 20).subtract_from(np.ones((2, 2)))


def test_an_image_that_is_all_crowded_is_measured_if_asked():
    rng = np.random.default_rng(5)
    image = rng.normal(20, 2, (40, 50))
    image[10:22, 10:30] = 1e4
    with pytest.raises(ValueError, match="exclude_percentile"):
        estimate_background(image, 64)
    with pytest.warns(UserWarning, match="crowded"):
        sky = estimate_background(image, 64, exclude_percentile=None)
    assert sky.background_median == pytest.approx(20, abs=0.3)
    assert sky.excluded.all()
    with pytest.raises(ValueError, match="exclude_percentile"):
        estimate_background(image, 64, exclude_percentile=None, mask=np.ones((40, 50), bool))
