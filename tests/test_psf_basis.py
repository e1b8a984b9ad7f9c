"""A PSF that varies over the image: a few images with smooth fields."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval2d
from quick import quick_jit
from scipy.ndimage import convolve
from scipy.signal import fftconvolve

from diffdeblend import PointSource, Scene, make_exposure, render
from diffdeblend.detect import score_image
from diffdeblend.detect.score_image import as_basis, squared_correlation, squared_parts
from diffdeblend.grid import product_modes
from diffdeblend.polynomials import degree_of, n_terms, term_powers
from diffdeblend.psf import GaussianPSF, PixelPSF, PSFBasis, constant_basis, psf_basis_from_images
from diffdeblend.psf.varying import convolve_varying, correlate_varying
from diffdeblend.psf.varying import draw_points as draw
from diffdeblend.simulate import elliptical_stamp

SHAPE = (47, 70)
draw_points = quick_jit(draw)
HEIGHT, WIDTH = 15, 19


def gaussian(x, y, dx=0.0, dy=0.0, size=(HEIGHT, WIDTH)):
    """A PSF that grows to the right and leans to the top; samples, not integrals over pixels."""
    u, v = x / (SHAPE[1] - 1) - 0.5, y / (SHAPE[0] - 1) - 0.5
    j, i = np.mgrid[: size[0], : size[1]]
    i, j = i - size[1] // 2 - dx, j - size[0] // 2 - dy
    a, b, lean = 1.5 * (1 + 0.15 * u), 1.5 * (1 + 0.1 * v), 0.1 * v
    stamp = np.exp(-0.5 * ((i / a) ** 2 + (j / b) ** 2 - 2 * lean * i * j / a / b))
    return stamp / stamp.sum()


def nodes(n=5):
    x, y = np.meshgrid(np.linspace(2, SHAPE[1] - 3, n), np.linspace(1, SHAPE[0] - 4, n))
    return x.ravel(), y.ravel()


def from_nodes(**settings: Any):
    x, y = nodes()
    stamps = np.stack([gaussian(*place) for place in zip(x, y, strict=True)])
    return psf_basis_from_images(stamps, x, y, SHAPE, **settings)


def two_bands():
    """Images that are no PSF in themselves, different in the bands, with fields of degree 2."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 3, 5, 7)) * 0.02
    images[:, 0] += gaussian(20, 30, size=(5, 7))
    coefficients = rng.normal(size=(2, 3, n_terms(2))) * 0.1
    coefficients[:, 0, 0] = [1.0, 3.0]
    return PSFBasis(images, coefficients, (31, 46), 2)


def test_terms_of_a_lower_degree_come_first():
    assert term_powers(2) == ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    assert term_powers(4)[: n_terms(2)] == term_powers(2)
    assert [degree_of(n) for n in (1, 2, 3, 6, 10, 11)] == [0, None, 1, 2, 3, None]


def test_fields_are_chebyshev_products(x64):
    psf = two_bands()
    square = np.zeros((3, 3, 2, 3))
    for term, (i, j) in enumerate(term_powers(2)):
        square[i, j] = psf.coefficients[:, :, term]
    x, y = np.array([0.0, 45.0, 12.3]), np.array([30.0, 0.0, 7.9])
    wanted = chebval2d(2 * x / 45 - 1, 2 * y / 30 - 1, square)
    np.testing.assert_allclose(psf.fields(x, y), wanted, atol=1e-12)
    maps = psf.field_maps()
    assert maps.shape == (2, 3, 31, 46)
    np.testing.assert_allclose(maps[:, :, 0, 45], wanted[:, :, 1], atol=1e-12)
    np.testing.assert_allclose(
        psf.weight_maps()[:, :, 9, 33], psf.weights(33.0, 9.0), rtol=1e-9, atol=1e-12
    )


def test_is_of_unit_sum_everywhere(precision):
    psf = two_bands()
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-20, 70, 50), rng.uniform(-20, 60, 50)
    images = psf.images_at(x, y)
    assert images.shape == (50, 2, 5, 7)
    assert images.dtype == precision
    np.testing.assert_allclose(images.sum(axis=(2, 3)), 1, atol=1e-6)
    alone = psf.at(jnp.asarray(x[7]), jnp.asarray(y[7]))
    assert isinstance(alone, PixelPSF)
    np.testing.assert_allclose(alone.image, images[7], atol=1e-6)


def test_outside_it_is_that_of_the_border_and_unknown_is_the_middle():
    psf = two_bands()
    np.testing.assert_allclose(psf.images_at(80.0, -9.0), psf.images_at(45.0, 0.0))
    np.testing.assert_allclose(psf.images_at(np.nan, 3.0), psf.images_at(22.5, 3.0), atol=1e-7)
    np.testing.assert_allclose(psf.middle.image, psf.images_at(22.5, 15.0), atol=1e-7)


def test_its_fourier_transform_is_that_of_the_middle():
    psf = two_bands()
    modes = product_modes(jnp.asarray([0.0, 0.7, 3.5]), jnp.asarray([0.0, 2.1, -2.1]))
    for ours, wanted in zip(psf.fourier(modes), psf.middle.fourier(modes), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_places_can_be_traced_mapped_and_derived():
    psf = two_bands()
    x, y = jnp.asarray([3.0, 40.2, jnp.nan]), jnp.asarray([22.0, 1.3, 2.0])
    mapped = quick_jit(jax.vmap(lambda x, y: psf.at(x, y).image))(x, y)
    np.testing.assert_allclose(mapped, psf.images_at(x, y), atol=1e-6)
    derivative = quick_jit(jax.jacfwd(lambda x: psf.images_at(x, 9.0)))
    steps = (psf.images_at(12.5, 9.0) - psf.images_at(11.5, 9.0)) / 1.0
    np.testing.assert_allclose(derivative(12.0), steps, atol=1e-4)
    assert np.all(derivative(jnp.nan) == 0)
    gradient = quick_jit(jax.grad(lambda p: jnp.sum(p.images_at(x, y) ** 2)))(psf)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_nodes_and_the_places_between_them_are_met():
    psf = from_nodes(degree=3)
    for x, y in [(2.0, 1.0), (30.0, 11.0), (66.0, 25.0), (0.0, 46.0)]:
        wanted = gaussian(x, y)
        np.testing.assert_allclose(psf.images_at(x, y)[0], wanted, atol=2e-3 * wanted.max())


def test_a_larger_loss_keeps_the_first_images_of_the_same_basis(x64):
    whole = from_nodes(inf_loss=0.0)
    sizes = []
    for loss in (1e-7, 1e-5, 1e-3, 0.5):
        psf = from_nodes(inf_loss=loss)
        sizes.append(psf.n_basis)
        np.testing.assert_array_equal(psf.images, whole.images[:, : psf.n_basis])
        np.testing.assert_array_equal(psf.coefficients, whole.coefficients[:, : psf.n_basis])
        first = whole.first(psf.n_basis)
        np.testing.assert_allclose(first.images_at(9.0, 4.0), psf.images_at(9.0, 4.0), atol=1e-12)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2
    assert sizes[-1] == 1


def test_what_is_lost_is_what_was_allowed():
    x, y = nodes()
    stamps = np.stack([gaussian(*place) for place in zip(x, y, strict=True)])
    exact = np.asarray(from_nodes(inf_loss=0.0).images_at(x, y)[:, 0], dtype=float)
    np.testing.assert_allclose(exact, stamps, atol=1e-4)
    for loss in (1e-6, 1e-4):
        kept = np.asarray(from_nodes(inf_loss=loss).images_at(x, y)[:, 0], dtype=float)
        assert np.sum((kept - exact) ** 2) <= 1.01 * loss * np.sum(exact**2)


def test_weightless_nodes_have_no_say():
    x, y = nodes()
    stamps = np.stack([gaussian(*place) for place in zip(x, y, strict=True)])
    wrong = stamps.copy()
    wrong[7] = np.roll(stamps[7], 3, axis=0)
    weight = np.ones(len(x))
    weight[7] = 0
    ours = psf_basis_from_images(wrong, x, y, SHAPE, degree=2, weight=weight)
    wanted = psf_basis_from_images(
        np.delete(stamps, 7, axis=0), np.delete(x, 7), np.delete(y, 7), SHAPE, degree=2
    )
    np.testing.assert_allclose(ours.images_at(60.0, 5.0), wanted.images_at(60.0, 5.0), atol=1e-6)


def test_bands_are_their_own():
    x, y = nodes()
    one = np.stack([gaussian(*place) for place in zip(x, y, strict=True)])
    other = np.stack([gaussian(SHAPE[1] - 1 - a, b) for a, b in zip(x, y, strict=True)])
    both = psf_basis_from_images(np.stack([one, other], axis=1), x, y, SHAPE, degree=2, n_basis=4)
    for band, stamps in enumerate((one, other)):
        alone = psf_basis_from_images(stamps, x, y, SHAPE, degree=2, n_basis=4)
        np.testing.assert_allclose(
            both.images_at(51.0, 40.0)[band], alone.images_at(51.0, 40.0)[0], atol=1e-6
        )


def test_few_nodes_are_not_asked_for_much():
    one = psf_basis_from_images(gaussian(3, 4)[None], [3.0], [4.0], SHAPE)
    assert (one.n_basis, one.degree) == (1, 0)
    # On a line nothing is known across it.
    line = psf_basis_from_images(
        np.stack([gaussian(x, 20) for x in range(0, 60, 5)]),
        np.arange(0, 60, 5),
        [20.0] * 12,
        SHAPE,
    )
    assert line.degree == 0


# Whole images.


def wanted_image(psf, image):
    """A loop over the pixels."""
    ny, nx = psf.shape
    height, width = psf.images.shape[2:]
    wide = np.zeros((psf.n_bands, ny + height - 1, nx + width - 1))
    y, x = np.mgrid[:ny, :nx]
    stamps = np.asarray(psf.images_at(x.ravel(), y.ravel()))
    for stamp, j, i in zip(stamps, y.ravel(), x.ravel(), strict=True):
        wide[:, j : j + height, i : i + width] += image[:, j, i, None, None] * stamp
    return wide[:, height // 2 : height // 2 + ny, width // 2 : width // 2 + nx]


def test_convolution_is_a_sum_over_pixels_and_correlation_its_adjoint(x64):
    psf = two_bands()
    rng = np.random.default_rng(5)
    light, other = rng.normal(size=(2, 2, *psf.shape))
    seen = convolve_varying(jnp.asarray(light), psf)
    np.testing.assert_allclose(seen, wanted_image(psf, light), atol=1e-10)
    back = correlate_varying(jnp.asarray(other), psf)
    assert np.sum(other * np.asarray(seen)) == pytest.approx(np.sum(np.asarray(back) * light))


def test_points_are_deltas_times_the_fields_seen_through_the_images(x64):
    psf = two_bands()
    x, y, flux = np.array([0, 20, 45, 7]), np.array([3, 14, 30, 29]), np.array([1.0, 5, -2, 3])
    drawn = draw_points(psf, x, y, flux)
    by_hand = np.zeros((2, *psf.shape))
    weights = np.asarray(psf.weights(x.astype(float), y.astype(float)))
    for band in range(2):
        for k in range(3):
            deltas = np.zeros(psf.shape)
            deltas[y, x] = flux * weights[band, k]
            by_hand[band] += convolve(deltas, np.asarray(psf.images[band, k]), mode="constant")
    np.testing.assert_allclose(drawn, by_hand, atol=1e-6)


def test_points_between_pixels_are_moved():
    psf = from_nodes(degree=3)
    x, y, flux = np.array([30.3, 68.6, 0.2]), np.array([20.7, 1.1, 45.5]), np.array([100, 50, 20.0])
    wanted = np.zeros((SHAPE[0] + 40, SHAPE[1] + 40))
    for a, b, f in zip(x, y, flux, strict=True):
        i, j = round(a), round(b)
        stamp = gaussian(a, b, a - i, b - j)
        wanted[j + 20 - 7 : j + 28, i + 20 - 9 : i + 30] += f * stamp
    drawn = draw_points(psf, x, y, flux)
    np.testing.assert_allclose(drawn[0], wanted[20:-20, 20:-20], atol=5e-3)


def test_a_scene_takes_it_as_the_psf_of_the_middle():
    psf = from_nodes()
    scene = Scene([PointSource([10.0], 34.2, 21.9)])
    draw = quick_jit(partial(render, shape=SHAPE))
    np.testing.assert_allclose(draw(scene, psf), draw(scene, psf.middle), atol=1e-5)
    assert make_exposure(np.zeros(SHAPE), 1.0, psf).psf is psf


# The matched filter.


def test_empty_sky_has_unit_variance_and_stars_their_significance():
    psf = from_nodes(degree=3)
    rng = np.random.default_rng(8)
    variance = rng.uniform(1, 4, size=(1, *SHAPE))
    noise = rng.normal(size=(40, 1, *SHAPE)) * np.sqrt(variance)
    scores = np.stack([score_image(make_exposure(n, variance, psf)).score for n in noise])
    # 132,000 pixels, of which some 9,000 are independent; borders and corners are as good.
    assert scores.var() == pytest.approx(1, abs=0.03)
    assert scores[:, :, :3].var() == pytest.approx(1, abs=0.06)
    assert scores.mean() == pytest.approx(0, abs=0.03)
    x, y, flux = [10.0, 60.0, 35.0, 69.0], [5.0, 12.0, 20.0, 46.0], [300.0, 400.0, 500.0, 600.0]
    stars = np.asarray(draw_points(psf, x, y, flux))
    found = score_image(make_exposure(stars, variance, psf))
    for i, j, f in zip(map(int, x), map(int, y), flux, strict=True):
        # No filter does better than this: information of a known profile in noise.
        stamp = np.zeros((SHAPE[0] + HEIGHT - 1, SHAPE[1] + WIDTH - 1))
        stamp[j : j + HEIGHT, i : i + WIDTH] = gaussian(i, j)
        stamp = stamp[HEIGHT // 2 : -(HEIGHT // 2), WIDTH // 2 : -(WIDTH // 2)]
        best = f * np.sqrt(np.sum(stamp**2 / variance[0]))
        assert found.score[0, j, i] == pytest.approx(best, rel=0.02)
        assert found.flux[0, j, i] == pytest.approx(f, rel=0.02)
        assert found.flux[0, j, i] / found.flux_err[0, j, i] == pytest.approx(best, rel=0.02)


def test_pixels_not_in_use_weigh_nothing():
    psf = from_nodes(degree=2)
    image = np.zeros(SHAPE)
    image[10:13, 30:33] = 1e6
    mask = image > 0
    mask[:, :25] = True
    found = score_image(make_exposure(image, 1.0, psf, mask=mask))
    assert np.all(found.score == 0)
    assert np.all(np.isinf(found.flux_err[0, :, :10]))
    assert np.isfinite(found.flux_err[0, :, 25:]).all()


def test_a_psf_that_does_not_vary_is_a_matched_filter():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(2, 40, 33))
    psf = PixelPSF(np.stack([gaussian(0, 0), gaussian(60, 40)]))
    found = score_image(make_exposure(image, 1.0, psf))
    for band in range(2):
        kernel = np.asarray(psf.image[band], dtype=float)
        wanted = fftconvolve(image[band], kernel[::-1, ::-1], mode="same")
        norm = fftconvolve(np.ones((40, 33)), kernel[::-1, ::-1] ** 2, mode="same")
        np.testing.assert_allclose(found.score[band], wanted / np.sqrt(norm), atol=1e-5)


def test_a_psf_with_a_closed_form_is_taken_at_the_pixels():
    psf = as_basis(GaussianPSF([3.0, 4.0]), (60, 43))
    assert psf.images.shape == (2, 1, 41, 41)
    stamp = elliptical_stamp(4.0, 4.0, 0.0, 41)
    np.testing.assert_allclose(psf.images_at(3.0, 50.0)[1], stamp, atol=1e-4)


def test_squares_of_the_psf_are_summed(x64):
    psf = two_bands()
    weight = np.random.default_rng(4).uniform(size=(2, *psf.shape))
    found = squared_correlation(jnp.asarray(weight), psf, squared_parts(psf))
    stamp = np.asarray(psf.images_at(17.0, 11.0))
    wanted = np.sum(weight[:, 9:14, 14:21] * stamp**2, axis=(1, 2))
    np.testing.assert_allclose(found[:, 11, 17], wanted, rtol=1e-3)


def test_another_image_of_the_shape_compiles_nothing(compilations):
    psf = from_nodes(degree=1)
    exposure = make_exposure(np.ones(SHAPE), 1.0, psf)
    jax.block_until_ready(score_image(exposure))
    compilations.clear()
    jax.block_until_ready(score_image(make_exposure(np.full(SHAPE, 2.0), 3.0, psf)))
    assert not compilations


ONES = np.ones((1, 1, 3, 3))
WRONG = {
    "images of three axes": (lambda: PSFBasis(ONES[0], [[[1.0]]], (9, 9), 0), "`images` needs sh"),
    "an even size": (lambda: PSFBasis(ONES[..., :2], [[[1.0]]], (9, 9), 0), "odd height.*3 x 2"),
    "too few terms": (
        lambda: PSFBasis(ONES, [[[1.0]]], (9, 9), 1),
        r"`coefficients` needs .* \(1, 1, 3\).*degree 1; got \(1, 1, 1\)",
    ),
    "no degree": (lambda: PSFBasis(ONES, [[[1.0]]], (9, 9), -1), "`degree` must be an integer"),
    "no image": (lambda: PSFBasis(ONES, [[[1.0]]], (0, 9), 0), "`shape` must be"),
    "no number": (lambda: PSFBasis(ONES * np.nan, [[[1.0]]], (9, 9), 0), "`images` .*finite"),
    "dark in a corner": (
        lambda: PSFBasis(ONES, [[[1.0, 1.2, 0.0]]], (9, 9), 1),
        "positive sum all over the image; the smallest is -1.8",
    ),
    "more than there are": (lambda: two_bands().first(4), "`n` must be between 1 and 3; got 4"),
    "another shape": (
        lambda: convolve_varying(jnp.zeros((2, 5, 5)), two_bands()),
        r"`image` needs .*\(2, 31, 46\); got \(2, 5, 5\)",
    ),
    "an exposure of another shape": (
        lambda: score_image(make_exposure(np.zeros((2, 5, 5)), 1.0, two_bands())),
        r"`psf` is for an image of \(31, 46\) pixels; this one has \(5, 5\)",
    ),
    "a dark node": (
        lambda: psf_basis_from_images(0 * ONES[0], [0.0], [0.0], (9, 9)),
        "`images` must be finite, each with a positive sum",
    ),
    "a missing place": (
        lambda: psf_basis_from_images(ONES[0], [0.0, 1.0], [0.0], (9, 9)),
        r"`x` needs one finite number for each of the 1 images; got shape \(2,\)",
    ),
    "a degree that is not fixed": (
        lambda: psf_basis_from_images(
            np.ones((4, 3, 3)), np.arange(4), [5.0] * 4, (9, 9), degree=1
        ),
        "`degree` 1 has 3 terms, which 4 nodes",
    ),
    "two sizes": (
        lambda: psf_basis_from_images(ONES[0], [0.0], [0.0], (9, 9), n_basis=1, inf_loss=0.1),
        "`n_basis` must be at least 1, and stand without `inf_loss`",
    ),
    "a loss of all": (lambda: from_nodes(inf_loss=1.0), "`inf_loss` must be at least 0 and below"),
    "no weight": (lambda: from_nodes(weight=np.zeros(25)), "`weight` must be .* not all of it 0"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_image_everywhere():
    psf = constant_basis(PixelPSF(gaussian(5, 6)[None]), SHAPE)
    np.testing.assert_allclose(psf.images_at(3.0, 44.0)[0], gaussian(5, 6), atol=1e-7)
