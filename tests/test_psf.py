"""What every PSF must do."""

from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from scipy.special import erf, gamma, kv

from diffdeblend.detect.peaks import psf_images as peak_images
from diffdeblend.grid import FIT, STANDARD, make_grid, product_modes
from diffdeblend.io.stamps import psf_images as file_images
from diffdeblend.psf import (
    GaussianMixturePSF,
    GaussianPSF,
    KolmogorovPSF,
    MoffatPSF,
    PixelPSF,
    SampledPSF,
)
from diffdeblend.psf.abstract import transfer

FWHM = np.array([2.9, 4.1])
SIGMA, WEIGHT = np.array([[1.5, 2.9], [1.8, 4.1]]), np.array([[2.0, 1.0], [0.4, 0.3]])


def pixels(height=9, width=13):
    """Not symmetric, and different in the two bands."""
    y, x = np.mgrid[:height, :width] - np.array([height // 2, width // 2])[:, None, None]
    narrow = np.exp(-0.5 * ((x - 0.4) ** 2 + (y + 0.3) ** 2) / 1.5**2)
    return np.stack([narrow, np.exp(-0.5 * (x**2 + 0.3 * x * y + y**2) / 2.2**2)])


# To check a new PSF, add a line.
PSFS = {
    "gaussian": lambda: GaussianPSF(FWHM),
    "mixture": lambda: GaussianMixturePSF(SIGMA, WEIGHT),
    "moffat": lambda: MoffatPSF(FWHM, [2.5, 4.0]),
    "kolmogorov": lambda: KolmogorovPSF(FWHM),
    "pixels": lambda: PixelPSF(pixels()),
    "samples": lambda: SampledPSF(pixels(19, 27), 2),
}
every_psf = pytest.mark.parametrize("make", PSFS.values(), ids=PSFS)
AXIS_X, AXIS_Y = np.array([0.0, 0.3, -0.3, 2.9, -2.9]), np.array([0.0, 1.7, -1.7])


def modes():
    return product_modes(jnp.asarray(AXIS_X), jnp.asarray(AXIS_Y))


def as_complex(pair):
    return np.asarray(pair[0]) + 1j * np.asarray(pair[1])


@every_psf
def test_passes_all_light(make, precision):
    psf = make()
    assert psf.n_bands == 2
    re, im = quick_jit(lambda p: p.fourier(modes()))(psf)
    assert re.shape == im.shape == (2, 15)
    assert re.dtype == im.dtype == precision
    np.testing.assert_allclose(re[:, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(im[:, 0], 0, atol=1e-6)


@every_psf
def test_is_real_in_the_image(make):
    values = as_complex(make().fourier(modes())).reshape(2, 3, 5)
    opposite = values[:, [0, 2, 1]][:, :, [0, 2, 1, 4, 3]]
    np.testing.assert_allclose(values, opposite.conj(), atol=1e-6)


@every_psf
def test_is_the_same_everywhere(make):
    psf = make()
    assert psf.at(jnp.asarray(3.0), jnp.asarray(4.0)) is psf


@every_psf
def test_bands_are_their_own(make):
    both = as_complex(make().fourier(modes()))
    psf = make()
    for band in range(2):
        alone = jax.tree.map(lambda leaf, band=band: leaf[band : band + 1], psf)
        np.testing.assert_allclose(as_complex(alone.fourier(modes()))[0], both[band], atol=1e-6)


@every_psf
def test_gradient_is_finite(make):
    psf = make()
    gradient = quick_jit(jax.grad(lambda p: jnp.sum(p.fourier(modes())[0] ** 2)))(psf)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@every_psf
@pytest.mark.parametrize("quality", [FIT, STANDARD])
def test_transfer_on_a_wide_stamp_is_the_psf(make, quality):
    # Little light is outside of the box of one period: what is cut is the difference.
    grid = make_grid((61, 83), quality)
    psf = make()
    cut = as_complex(quick_jit(lambda p: transfer(p, grid, quality))(psf))
    whole = as_complex(psf.fourier(grid.modes))
    np.testing.assert_allclose(cut, whole, atol=1e-2 if isinstance(psf, MoffatPSF) else 3e-3)


def test_wings_beyond_the_box_are_cut(x64):
    psf = MoffatPSF([3.0], [2.0])
    grid = make_grid((15, 21), STANDARD)
    re, im = quick_jit(lambda p: transfer(p, grid, STANDARD))(psf)
    # What stays is the light within the box, (1 + r^2 / a^2)^-2 outside of which is known.
    y, x = np.mgrid[-500:501, -500:501] / 1000
    y, x = y * grid.period_y, x * grid.period_x
    a_squared = 1.5**2 / (np.sqrt(2) - 1)
    density = (1 + (x**2 + y**2) / a_squared) ** -2 / (np.pi * a_squared)
    within = density.mean() * grid.period_y * grid.period_x
    assert within < 0.99
    assert re[0, 0] == pytest.approx(within, abs=2e-3)
    np.testing.assert_allclose(im, 0, atol=1e-12)


# Closed forms.


def test_gaussian_is_that_of_its_width(x64):
    k = np.hypot(*np.broadcast_arrays(AXIS_X[None, :], AXIS_Y[:, None])).reshape(-1)
    pixel = np.outer(np.sinc(AXIS_Y / 2 / np.pi), np.sinc(AXIS_X / 2 / np.pi)).reshape(-1)
    sigma = FWHM[:, None] / np.sqrt(8 * np.log(2))
    re, im = GaussianPSF(FWHM).fourier(modes())
    np.testing.assert_allclose(re, pixel * np.exp(-0.5 * (sigma * k) ** 2), rtol=1e-12)
    assert np.all(im == 0)


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.5, 4.0, 4.765, 20.0])
def test_moffat_is_a_bessel_function(beta, x64):
    k = np.geomspace(0.003, 4, 60)
    scale = 3.1 / (2 * np.sqrt(2 ** (1 / beta) - 1))
    wanted = 2 * (k * scale / 2) ** (beta - 1) * kv(beta - 1, k * scale) / gamma(beta - 1)
    wanted *= np.sinc(k / 2 / np.pi)
    re, _ = MoffatPSF([3.1], [beta]).fourier(product_modes(jnp.asarray(k), jnp.zeros(1)))
    np.testing.assert_allclose(re[0], wanted, atol=1e-7)


def test_moffat_of_large_beta_is_a_gaussian():
    re, _ = MoffatPSF([3.1], [20.0]).fourier(modes())
    gaussian, _ = GaussianPSF([3.1]).fourier(modes())
    np.testing.assert_allclose(re, gaussian, atol=0.03)


def test_mixture_of_one_is_a_gaussian():
    sigma = FWHM[:, None] / np.sqrt(8 * np.log(2))
    for ours, theirs in zip(
        GaussianMixturePSF(sigma, [[3.0], [0.1]]).fourier(modes()),
        GaussianPSF(FWHM).fourier(modes()),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_mixture_is_normalised_by_band():
    one, other = GaussianMixturePSF(SIGMA, WEIGHT), GaussianMixturePSF(SIGMA, WEIGHT * [[7], [2]])
    np.testing.assert_allclose(one.fourier(modes())[0], other.fourier(modes())[0], rtol=1e-5)


def test_pixels_are_a_sum_over_points(x64):
    image = pixels()
    psf = PixelPSF(image)
    np.testing.assert_allclose(psf.image.sum(axis=(1, 2)), 1)
    kx, ky = np.asarray(modes().kx), np.asarray(modes().ky)
    wanted = sum(
        image[:, j, i, None] * np.exp(-1j * (kx * (i - 6) + ky * (j - 4)))
        for j in range(9)
        for i in range(13)
    ) / image.sum(axis=(1, 2))[:, None]  # fmt: skip
    np.testing.assert_allclose(as_complex(psf.fourier(modes())), wanted, atol=1e-12)


def test_pixels_have_no_power_beyond_nyquist():
    beyond = product_modes(jnp.asarray([3.2, 6.2]), jnp.asarray([0.0, 3.0]))
    for part in PixelPSF(pixels()).fourier(beyond):
        assert np.all(part == 0)
    beyond = product_modes(jnp.asarray([0.0, 3.0]), jnp.asarray([-3.2, 6.2]))
    for part in PixelPSF(pixels()).fourier(beyond):
        assert np.all(part == 0)


def test_pixels_keep_their_precision(x64):
    assert PixelPSF(jnp.ones((1, 3, 3), dtype=jnp.float32)).image.dtype == np.float32
    assert PixelPSF(np.ones((1, 3, 3))).image.dtype == np.float64


def test_samples_are_a_sum_over_points(x64):
    image = pixels()
    psf = SampledPSF(image, 3)
    kx, ky = np.asarray(modes().kx), np.asarray(modes().ky)
    wanted = sum(
        image[:, j, i, None] * np.exp(-1j * (kx * (i - 6) + ky * (j - 4)) / 3)
        for j in range(9)
        for i in range(13)
    ) / image.sum(axis=(1, 2))[:, None]  # fmt: skip
    np.testing.assert_allclose(as_complex(psf.fourier(modes())), wanted, atol=1e-12)


def test_samples_of_a_gaussian_are_that_gaussian(x64):
    # A third of a pixel apart, each what a whole pixel receives there.
    at = np.arange(-40, 41) / 3
    sigma = FWHM[:, None] / np.sqrt(8 * np.log(2))
    along = (erf((at + 0.5) / sigma / np.sqrt(2)) - erf((at - 0.5) / sigma / np.sqrt(2))) / 2
    psf = SampledPSF(along[:, :, None] * along[:, None, :], 3, normalise=False)
    re, im = psf.fourier(modes())
    np.testing.assert_allclose(re, GaussianPSF(FWHM).fourier(modes())[0], atol=1e-12)
    np.testing.assert_allclose(im, 0, atol=1e-12)


def test_samples_keep_their_share_of_the_light():
    image = 0.9 * pixels() / pixels().sum(axis=(1, 2), keepdims=True)
    kept, all_light = SampledPSF(4 * image, 2, normalise=False), SampledPSF(image, 2)
    np.testing.assert_allclose(kept.fourier(modes())[0][:, 0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(
        as_complex(kept.fourier(modes())), 0.9 * as_complex(all_light.fourier(modes())), atol=1e-6
    )


def test_one_sample_a_pixel_is_the_psf_of_pixels():
    ours, pixel = SampledPSF(pixels(), 1), PixelPSF(pixels())
    np.testing.assert_array_equal(ours.pixel_image, pixel.image)
    for axes in ([0.0, 2.9], [0.0, 3.3]):
        these = product_modes(jnp.asarray(axes), jnp.asarray([0.0, 1.7, -1.7]))
        np.testing.assert_allclose(
            as_complex(ours.fourier(these)), as_complex(pixel.fourier(these)), atol=1e-6
        )


@pytest.mark.parametrize("oversampling", [1, 2, 3, 5])
def test_samples_have_no_power_beyond_their_own_nyquist(oversampling):
    psf = SampledPSF(pixels(), oversampling)
    edge = oversampling * np.pi
    within = product_modes(jnp.asarray([0.9 * edge]), jnp.asarray([0.3]))
    assert np.all(np.hypot(*psf.fourier(within)) > 0)
    for axes in ([1.01 * edge], [0.3]), ([0.3], [-1.01 * edge]):
        beyond = product_modes(*(jnp.asarray(axis) for axis in axes))
        assert np.all(np.hypot(*psf.fourier(beyond)) == 0)


@pytest.mark.parametrize(("shape", "kept"), [((9, 13), (3, 5)), ((11, 7), (3, 3))])
def test_samples_at_the_pixels_are_around_the_middle(shape, kept):
    psf = SampledPSF(pixels(*shape), 3)
    assert psf.pixel_image.shape == (2, *kept)
    np.testing.assert_array_equal(
        psf.pixel_image[:, kept[0] // 2, kept[1] // 2], psf.image[:, shape[0] // 2, shape[1] // 2]
    )
    for images in (
        peak_images(psf, 5),
        file_images(psf) * np.asarray(psf.pixel_image).sum(axis=(1, 2), keepdims=True),
    ):
        np.testing.assert_allclose(images, psf.pixel_image, rtol=1e-6)


def test_samples_end_where_their_pixels_do():
    grid = make_grid((15, 21), STANDARD)
    for height, width, whole in (
        (2 * grid.period_y - 1, 2 * grid.period_x - 1, True),
        (2 * grid.period_y + 1, 3, False),
        (3, 2 * grid.period_x + 1, False),
    ):
        assert SampledPSF(np.ones((1, height, width)), 2).ends_within(grid) is whole


# Bad input.

NAN = np.array([[[0.0, 1.0, 0.0]] * 3, [[np.nan, 1.0, 0.0]] * 3])
WRONG = {
    "fwhm without bands": (lambda: GaussianPSF(3.0), r"`fwhm` needs .*\(band,\); got \(\)"),
    "fwhm of two axes": (lambda: KolmogorovPSF([[3.0]]), r"`fwhm` needs .*got \(1, 1\)"),
    "negative fwhm": (lambda: GaussianPSF([3.0, -1.0]), "`fwhm` .*must be positive; got"),
    "fwhm of zero": (lambda: KolmogorovPSF([0.0]), "`fwhm` .*must be positive; got"),
    "unknown fwhm": (lambda: MoffatPSF([np.nan], [3.0]), "`fwhm` .*must be positive; got"),
    "beta of another shape": (
        lambda: MoffatPSF([3.0, 4.0], [3.0]),
        r"`fwhm` and `beta` need .*got \(2,\) and \(1,\)",
    ),
    "beta too low": (lambda: MoffatPSF([3.0], [1.0]), "`beta` .*between 1.2 and 20; got"),
    "beta too high": (lambda: MoffatPSF([3.0], [30.0]), "`beta` .*between 1.2 and 20; got"),
    "mixture of one axis": (
        lambda: GaussianMixturePSF([1.0], [1.0]),
        r"`sigma` and `weight` need one shape .*got \(1,\) and \(1,\)",
    ),
    "mixture of two shapes": (
        lambda: GaussianMixturePSF(SIGMA, WEIGHT[:, :1]),
        r"`sigma` and `weight` need one shape .*got \(2, 2\) and \(2, 1\)",
    ),
    "negative sigma": (lambda: GaussianMixturePSF(-SIGMA, WEIGHT), "`sigma` .*must be positive"),
    "weights of no sum": (
        lambda: GaussianMixturePSF([[1.0, 2.0]], [[1.0, -1.0]]),
        "`weight` .*needs a positive sum in every band",
    ),
    "image of two axes": (lambda: PixelPSF(np.ones((3, 3))), r"needs shape \(band, h, w\); got"),
    "even height": (lambda: PixelPSF(np.ones((1, 4, 3))), "odd height and width.*got 4 x 3"),
    "even width": (lambda: PixelPSF(np.ones((1, 3, 4))), "odd height and width.*got 3 x 4"),
    "dark image": (lambda: PixelPSF(np.zeros((2, 3, 3))), r"positive sum .*got sums \[0"),
    "negative image": (lambda: PixelPSF(-np.ones((1, 3, 3))), r"positive sum .*got sums \[-9"),
    "samples of two axes": (lambda: SampledPSF(np.ones((3, 3)), 2), r"shape \(band, h, w\); got"),
    "even samples": (lambda: SampledPSF(np.ones((1, 4, 3)), 2), "odd height and width.*got 4 x 3"),
    "dark samples": (lambda: SampledPSF(np.zeros((2, 3, 3)), 2), r"positive sum .*got sums \[0"),
    "half a sample": (lambda: SampledPSF(np.ones((1, 3, 3)), 1.5), "`oversampling` must be an int"),
    "no samples": (lambda: SampledPSF(np.ones((1, 3, 3)), 0), "`oversampling` must be at least 1"),
    "unknown pixel": (lambda: PixelPSF(NAN), r"finite with a positive sum .*got sums \[3.0, nan"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_psf
def test_can_be_made_and_varied_under_jit(make):
    psf = make()
    leaves, treedef = jax.tree.flatten(psf)
    static = {f.name: getattr(psf, f.name) for f in fields(psf) if f.metadata.get("static")}
    changed = jax.jit(lambda leaves: type(psf)(*leaves, **static))(leaves)
    assert jax.tree.structure(changed) == treedef
    np.testing.assert_allclose(
        as_complex(changed.fourier(modes())), as_complex(psf.fourier(modes())), atol=1e-6
    )
