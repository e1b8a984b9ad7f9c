"""Noise that goes with its neighbours: measured, told, and in the errors of fits."""

import jax
import numpy as np
import pytest
from quick import quick_jit
from scipy.ndimage import convolve
from scipy.signal import convolve2d

from diffdeblend import (
    ConstantBackground,
    GaussianPSF,
    PointSource,
    Scene,
    Sersic,
    make_exposure,
    render,
)
from diffdeblend.batch import cut_blends, fit_batch, make_blend
from diffdeblend.components import Kind
from diffdeblend.detect import measure_noise_correlation
from diffdeblend.fit import fit, shape_prior
from diffdeblend.fit.arrow import from_vectors, linear_vector
from diffdeblend.fit.normal_matrix import prior_terms
from diffdeblend.fit.objective import make_problem, model_image
from diffdeblend.fit.unknowns import scene_of, unknowns_of
from diffdeblend.grid import FIT, Quality
from diffdeblend.io import read_npz, write_npz
from diffdeblend.io.fits import write_fits

SHAPE = (31, 36)
PSF = GaussianPSF(np.array([3.1, 2.8]))
# Not the same along x and y, nor in both bands, as errors could hide in symmetry.
KERNELS = (
    np.array([[0.1, 0.4, 0.2], [0.3, 1.0, 0.3], [0.2, 0.4, 0.1]]),
    np.array([[0.0, 0.1, 0.0], [0.4, 1.0, 0.4], [0.0, 0.1, 0.0]]),
)


def correlation() -> np.ndarray:
    """Of white noise filtered by the kernels."""
    stamps = np.stack([convolve2d(k, k[::-1, ::-1]) for k in KERNELS])
    return stamps / stamps[:, 2:3, 2:3]


def correlated(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Noise of variance 1, `(band, y, x)`."""
    white = rng.normal(size=(2, shape[0] + 4, shape[1] + 4))
    filtered = [convolve(w, k / np.sqrt((k**2).sum())) for w, k in zip(white, KERNELS, strict=True)]
    return np.stack(filtered)[:, 2:-2, 2:-2]


def scene() -> Scene:
    return Scene(
        [
            Sersic([900.0, 700.0], 13.3, 16.8, 2.6, 1.3, [0.15, -0.1]),
            PointSource([550.0, 420.0], 20.6, 14.1),
        ],
        ConstantBackground([0.7, -0.4]),
    )


def observe(truth: Scene, seed: int = 0, **settings):
    image = np.asarray(render(truth, PSF, SHAPE, quality=FIT))
    # Brighter sources, more noise; some pixels are bad.
    variance = 1 + 0.03 * np.maximum(image, 0)
    mask = np.zeros(SHAPE, bool)
    mask[5, 3:9] = mask[15:18, 22] = True
    noise = np.sqrt(variance) * correlated(np.random.default_rng(seed), SHAPE)
    return make_exposure(image + noise, variance, PSF, mask=mask, **settings)


def dense_sandwich(found, exposure, prior, quality):
    """Covariance of all free numbers by sums over all pairs of pixels, and which are free."""
    problem = make_problem(
        exposure.data, exposure.weight, exposure.psf, found.covariance.free, prior, quality
    )
    unknowns = unknowns_of(found.scene)

    def image(linear, shape):
        return model_image(scene_of(from_vectors(linear, shape, unknowns), found.scene), problem)

    linear, shape = linear_vector(unknowns), unknowns.flat_shape
    by_linear, by_shape = quick_jit(jax.jacfwd(image, (0, 1)))(linear, shape)
    pixels = exposure.image.shape
    jacobian = np.concatenate(
        [np.asarray(by_linear).reshape(*pixels, -1), np.asarray(by_shape)], axis=-1
    )
    jacobian = jacobian * np.sqrt(np.asarray(exposure.weight))[..., None]
    curvature = np.asarray(prior_terms(unknowns, found.scene, problem)[2])
    prior_part = np.diag(np.concatenate([np.zeros(linear.size), curvature]))
    seen = [
        convolve(images, stamp[..., None], mode="constant")
        for images, stamp in zip(jacobian, np.asarray(exposure.noise_correlation), strict=True)
    ]
    h = np.einsum("byxi,byxj->ij", jacobian, jacobian) + prior_part
    m = np.einsum("byxi,byxj->ij", np.stack(seen), jacobian) + prior_part
    free = found.covariance.free
    which = np.concatenate([np.ravel(linear_vector(free)), np.ravel(free.flat_shape)]) > 0
    inverse = np.linalg.inv(h[np.ix_(which, which)])
    return inverse @ m[np.ix_(which, which)] @ inverse, which


def off_from_sandwich(quality: Quality, drawn: Quality):
    """Largest difference of the covariance from the dense one, in errors: within bands, between."""
    exposure = observe(scene(), noise_correlation=correlation())
    prior = shape_prior(scene())
    found = fit(scene(), exposure, prior=prior, quality=quality)
    wanted, which = dense_sandwich(found, exposure, prior, drawn)
    have = np.asarray(found.covariance.dense())[np.ix_(which, which)]
    sigma = np.sqrt(np.diag(wanted))
    off = np.abs(have - wanted) / sigma / sigma[:, None]
    # Two fluxes and a sky in each of two bands, then the shapes.
    band = np.arange(len(off)) // 3
    between = (band[:, None] < 2) & (band < 2) & (band[:, None] != band)
    return off[~between].max(), off[between].max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
def test_covariance_is_the_sandwich(precision):
    within, between = off_from_sandwich(FIT, FIT)
    assert within < (1e-7 if precision == "float64" else 3e-3)
    assert between < 5e-3


@pytest.mark.slow
def test_covariance_is_the_sandwich_where_the_matrix_has_fewer_modes():
    within, _ = off_from_sandwich(Quality(1.4, 0.7, False, 0.5), Quality(1.4, 0.5, False))
    assert within < 3e-3


@pytest.mark.slow
def test_white_noise_changes_nothing_and_a_factor_scales():
    exposure = observe(scene())
    plain, white, four = (
        fit(scene(), exposure.with_noise_correlation(v)) for v in (None, 1.0, [4, 4])
    )
    for k, found in ((1, white), (2, four)):
        members, expected = (f.scene.sources[0].members for f in (found, plain))
        np.testing.assert_allclose(members.radius, expected.radius, rtol=1e-4)
        # The weak prior does not get weaker with the noise.
        np.testing.assert_allclose(found.flux_error, k * plain.flux_error, rtol=0.01)
        np.testing.assert_allclose(
            found.errors.sources[0].members.radius,
            k * plain.errors.sources[0].members.radius,
            rtol=0.01,
        )


@pytest.mark.slow
def test_another_correlation_compiles_nothing(compilations):
    exposure = observe(scene())
    fit(scene(), exposure.with_noise_correlation(correlation()))
    other = exposure.with_noise_correlation(0.5 * correlation() + 0.5 * np.pad([[1.0]], 2))
    jax.block_until_ready(other.noise_correlation)
    del compilations[:]
    fit(scene(), other)
    assert not compilations


POSITIONS = np.array([[13.4, 16.6], [20.5, 14.2]])
FLUX = np.array([[900.0, 700.0], [550.0, 420.0]])


def fitted(exposures):
    """One program for each of those that tell of their noise and those that do not."""
    return fit_batch(
        [make_blend(exposure, POSITIONS) for exposure in exposures],
        kinds=[np.array([Kind.SERSIC, Kind.POINT])] * len(exposures),
        model_error=0,
        sizes=(36,),
        trim=False,
    )


@pytest.mark.slow
def test_batch_covers_the_truth_where_it_is_told():
    n = 100
    told = [observe(scene(), seed=k, noise_correlation=correlation()) for k in range(n)]
    hidden = [exposure.with_noise_correlation(None) for exposure in told]
    # Side by side in one call: which program a blend goes through is its own affair.
    found = fitted([*told, *hidden])
    flux, error = (v.reshape(2, n, 2, 2) for v in (found.flux, found.flux_err))
    np.testing.assert_array_equal(flux[0], flux[1])
    spread = [
        np.diff(np.percentile((f - FLUX) / e, (16, 84)))[0] / 2
        for f, e in zip(flux, error, strict=True)
    ]
    # 400 pulls, bands and sources not independent.
    assert 0.87 < spread[0] < 1.13
    assert spread[1] > 1.4


@pytest.mark.slow
def test_batch_agrees_with_the_single_fit():
    exposure = observe(scene(), noise_correlation=correlation())
    start = Scene(
        [
            Sersic([0.0, 0.0], 13.4, 16.6, 2.5, 1.5, [0.0, 0.0]),
            PointSource([0.0, 0.0], 20.5, 14.2),
        ],
        ConstantBackground([0.0, 0.0]),
    )
    one, many = fit(start, exposure, quality=Quality(1.5, 0.78, False)), fitted([exposure])
    snr = np.sqrt((many.flux**2 / many.flux_err**2).sum(axis=1))
    # In batches errors of faint sources are wider by a factor of their own.
    linear = many.flux_err / np.sqrt(1 + 6.4**2 / snr**2)[:, None]
    np.testing.assert_allclose(linear, one.flux_error, rtol=0.05)


@pytest.mark.slow
def test_cut_blends_know_the_noise_of_their_image():
    exposure = observe(scene(), noise_correlation=correlation())
    for blend in cut_blends(exposure, POSITIONS):
        np.testing.assert_array_equal(blend.noise_correlation, exposure.noise_correlation)


def test_measured_from_empty_sky():
    rng = np.random.default_rng(3)
    noise = 7.0 * correlated(rng, (300, 280)) + 20.0
    exposure = make_exposure(noise, 49.0, PSF)
    stamp = measure_noise_correlation(exposure, size=7)
    assert stamp.shape == (2, 7, 7)
    np.testing.assert_allclose(stamp[:, 1:-1, 1:-1], correlation(), atol=0.03)
    np.testing.assert_allclose(stamp[:, [0, -1]], 0, atol=0.03)
    assert exposure.with_noise_correlation(stamp).noise_correlation is not None


@pytest.mark.slow
def test_sources_are_left_out_of_the_measurement():
    rng = np.random.default_rng(4)
    noise = correlated(rng, (200, 210))
    sources = np.zeros_like(noise)
    for x, y in rng.uniform(10, 190, (15, 2)):
        sources += np.asarray(
            render(Scene([PointSource([2000.0, 2000.0], x, y)]), PSF, (200, 210), quality=FIT)
        )
    exposure = make_exposure(noise + sources, 1.0, PSF)
    found = measure_noise_correlation(exposure, size=5)
    np.testing.assert_allclose(found, correlation(), atol=0.05)
    empty = sources.max(axis=0) < 1e-3
    found = measure_noise_correlation(exposure, size=5, empty=empty)
    np.testing.assert_allclose(found, correlation(), atol=0.05)
    everything = measure_noise_correlation(exposure, size=5, empty=np.ones((200, 210), bool))
    assert everything[:, 2, 0].min() > correlation()[:, 2, 0].max() + 0.2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 4, 5)), "h and w odd"),
        (np.ones((3, 5, 5)), "h and w odd"),
        ([1.0, -1.0], "positive at the centre"),
        ([np.nan, 1.0], "finite"),
        (np.pad([[1.0]], 1) + 2 * np.pad([[1.0]], ((0, 2), (0, 2))), "largest"),
        (np.pad([[1.0]], 1) + 0.5 * np.pad([[1.0]], ((0, 2), (0, 2))), "from the centre"),
        (np.array([[0.9, 1.0, 0.9]]), "negative power"),
        ("white", "real numbers"),
    ],
)
def test_what_is_no_correlation_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        make_exposure(np.zeros((2, 9, 9)), 1.0, PSF, noise_correlation=value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "`size`"),
        ({"size": 11}, "`size`"),
        ({"size": 3, "empty": np.ones((3, 3), bool)}, "`empty`"),
        ({"size": 3, "empty": np.zeros((9, 10), bool)}, "no empty pixel"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, message):
    exposure = make_exposure(np.random.default_rng(0).normal(size=(2, 9, 10)), 1.0, PSF)
    with pytest.raises(ValueError, match=message):
        measure_noise_correlation(exposure, **settings)


@pytest.mark.slow
def test_kept_with_the_exposure(tmp_path):
    exposure = observe(scene(), noise_correlation=correlation(), bands=("g", "r"))
    masked = exposure.with_mask("BAD", np.zeros(SHAPE, bool))
    np.testing.assert_array_equal(masked.noise_correlation, exposure.noise_correlation)
    write_npz(exposure, tmp_path / "a.npz")
    back = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.noise_correlation, exposure.noise_correlation)
    one = read_npz(tmp_path / "a.npz", bands=["r"])
    np.testing.assert_array_equal(one.noise_correlation, exposure.noise_correlation[1:])
    with pytest.raises(ValueError, match="write_npz"):
        write_fits(exposure, tmp_path / "a.fits")


@pytest.mark.slow
def test_held_numbers_have_no_error_under_correlated_noise():
    exposure = observe(scene(), noise_correlation=correlation())
    found = fit(
        scene(), exposure, free=lambda s: (s.sources[0].members.flux, s.sources[1].members.x)
    )
    assert found.finite
    galaxy, star = (stack.members for stack in found.errors.sources)
    assert float(galaxy.radius[0]) == float(star.y[0]) == 0
    np.testing.assert_array_equal(star.flux, 0)
    assert float(star.x[0]) > 0
    assert (np.asarray(galaxy.flux) > 0).all()
