"""Free pixels: the constraints on their image, and pixels that look like another component."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import quick_jit

from diffdeblend.components import (
    BulgeDisc,
    Exponential,
    Gaussian,
    Pixels,
    PointSource,
    Sersic,
    stack_components,
    to_pixels,
)
from diffdeblend.components.monotone import make_monotone, make_symmetric
from diffdeblend.grid import FIT, product_modes
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene, render

quick_to_pixels = partial(quick_jit, static_argnames=("size", "blur", "monotonic"))(to_pixels)
complex_modes = quick_jit(lambda component, modes: jax.lax.complex(*component.fourier(modes)))

SIZES = st.tuples(st.sampled_from([1, 3, 5, 9, 13]), st.sampled_from([1, 3, 7, 11]))


def image_of_size(size, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, size).astype(np.float32)


# The constraints.


def monotone_by_a_loop(image):
    """Every pixel capped by the point, one ring further in, on its line to the middle."""
    height, width = image.shape
    cy, cx = height // 2, width // 2
    new = image.astype(float).copy()
    for ring in range(1, max(cy, cx) + 1):
        for j in range(height):
            for i in range(width):
                dy, dx = j - cy, i - cx
                if max(abs(dy), abs(dx)) != ring:
                    continue
                if abs(dy) == ring:
                    row, column = cy + dy - np.sign(dy), cx + dx * (ring - 1) / ring
                    low = int(np.floor(column + 1e-9))
                    share = column - low
                    cap = (1 - share) * new[row, low]
                    cap += share * new[row, low + 1] if share > 1e-9 else 0
                else:
                    row, column = cy + dy * (ring - 1) / ring, cx + dx - np.sign(dx)
                    low = int(np.floor(row + 1e-9))
                    share = row - low
                    cap = (1 - share) * new[low, column]
                    cap += share * new[low + 1, column] if share > 1e-9 else 0
                new[j, i] = min(new[j, i], cap)
    return new


@settings(max_examples=30, deadline=None)
@given(size=SIZES, seed=st.integers(0, 100))
def test_monotone_is_the_slow_loop(size, seed):
    image = image_of_size(size, seed)
    # Outside jit every ring is compiled by itself.
    new = jax.jit(make_monotone)(image)
    np.testing.assert_allclose(new, monotone_by_a_loop(image), atol=1e-6)


def test_monotone_falls_and_leaves_the_middle():
    image = image_of_size((9, 13))
    new = np.asarray(jax.jit(make_monotone)(image))
    assert np.all(new <= image)
    assert new[4, 6] == image[4, 6]
    # Along the axes and the diagonals there is nothing to interpolate.
    for line in (new[4, 6:], new[4, 6::-1], new[4:, 6], new[4::-1, 6], np.diag(new[4:, 6:])):
        assert np.all(np.diff(line) <= 0)
    assert np.any(new[4, :] < image[4, :])


def test_monotone_leaves_what_falls_already():
    y, x = np.mgrid[-4:5, -6:7]
    image = np.exp(-0.3 * (x**2 + y**2 + 0.5 * x * y)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(make_monotone)(image), image, atol=1e-7)
    rough = jax.jit(make_monotone)(image_of_size((9, 13)))
    np.testing.assert_allclose(jax.jit(make_monotone)(rough), rough, atol=1e-7)


def test_monotone_has_finite_gradients():
    image = jnp.asarray(image_of_size((5, 7)))
    for start in (image, jnp.zeros_like(image), jnp.ones_like(image)):
        assert np.isfinite(jax.jit(jax.grad(lambda i: jnp.sum(make_monotone(i) ** 2)))(start)).all()


def test_symmetric_is_the_mean_of_opposite_points():
    image = image_of_size((5, 9))
    new = np.asarray(make_symmetric(image))
    np.testing.assert_allclose(new, new[::-1, ::-1])
    assert new[0, 1] == pytest.approx((image[0, 1] + image[4, 7]) / 2)
    assert new[2, 4] == image[2, 4]
    # Several parts: each for itself.
    parts = image_of_size((3, 5, 9))
    apart = [make_symmetric(part) for part in parts]
    np.testing.assert_array_equal(make_symmetric(parts), apart)


@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize("monotonic", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_constrained(parts, monotonic, symmetric):
    size = (5, 7) if parts is None else (parts, 5, 7)
    flux = np.ones(3) if parts is None else np.ones((parts, 3))
    image = image_of_size(size) - 0.2
    pixels = Pixels(flux, 3.0, 4.0, image, monotonic=monotonic, symmetric=symmetric)
    new = pixels.constrained()
    assert (new.monotonic, new.symmetric, new.blur) == (monotonic, symmetric, pixels.blur)
    wanted = np.maximum(image, 0)
    if symmetric:
        wanted = (wanted + wanted[..., ::-1, ::-1]) / 2
    if monotonic:
        flat = wanted.reshape(-1, 5, 7)
        wanted = np.stack([monotone_by_a_loop(part) for part in flat]).reshape(size)
    np.testing.assert_allclose(new.morphology, wanted, atol=1e-6)


# The component.


@pytest.mark.parametrize("size", [(4, 5), (5, 6), (5,), (1, 2, 3, 5)])
def test_sizes_that_have_no_middle_are_refused(size):
    with pytest.raises(ValueError, match=r"`morphology` needs shape .* odd h and w; got"):
        Pixels([1.0], 0, 0, np.ones(size))


@pytest.mark.parametrize(
    ("flux", "size"), [((2, 3), (5, 5)), ((3,), (2, 5, 5)), ((3, 1), (2, 5, 5)), ((), (5, 5))]
)
def test_fluxes_that_do_not_fit_are_refused(flux, size):
    with pytest.raises(ValueError, match="`flux` needs shape"):
        Pixels(np.ones(flux), 0, 0, np.ones(size))


def modes():
    return product_modes(jnp.linspace(0, 3.0, 6), jnp.linspace(-2.5, 2.5, 7))


def test_profile_is_a_sum_of_gaussians(x64):
    image = image_of_size((3, 5)).astype(float)
    pixels = Pixels([1.0], 2.3, -1.1, image, blur=0.8)
    kx, ky = np.asarray(modes().kx), np.asarray(modes().ky)
    wanted = sum(
        image[j, i] * np.exp(-1j * (kx * (2.3 + i - 2) + ky * (-1.1 + j - 1)))
        for j in range(3)
        for i in range(5)
    ) * np.exp(-0.5 * 0.8**2 * (kx**2 + ky**2)) / image.sum()  # fmt: skip
    np.testing.assert_allclose(complex_modes(pixels, modes()), wanted, atol=1e-12)
    # Linear in the weights, which are then not normalised.
    re, im = pixels.linear_fourier(pixels.morphology * 3, modes())
    np.testing.assert_allclose(re + 1j * np.asarray(im), wanted * 3 * image.sum(), atol=1e-11)


def test_brightness_of_the_image_does_not_matter():
    image = image_of_size((3, 5))
    one, other = Pixels([1.0], 2.3, 1.1, image), Pixels([1.0], 2.3, 1.1, 7 * image)
    np.testing.assert_allclose(
        complex_modes(one, modes()), complex_modes(other, modes()), atol=1e-6
    )


def test_an_empty_part_is_dark():
    image = np.stack([image_of_size((3, 5)), np.zeros((3, 5))])
    pixels = Pixels(np.ones((2, 1)), 2.3, 1.1, image)
    assert np.all(pixels.fourier(modes())[0][1] == 0)
    gradient = quick_jit(jax.grad(lambda p: jnp.sum(p.fourier(modes())[0])))(pixels)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# Pixels that look like something else.

SHEAR = np.array([0.25, -0.3])
SHAPE = (35, 42)
LIKE = {
    "gaussian": (Gaussian([3.0, 1.0], 19.7, 16.2, 3.0, SHEAR), 1e-4),
    "exponential": (Exponential([3.0, 1.0], 19.7, 16.2, 3.0, SHEAR), 0.01),
    "sersic": (Sersic([3.0, 1.0], 19.7, 16.2, 2.5, 1.7, SHEAR), 0.02),
    "bulge and disc": (
        BulgeDisc([[3.0, 1.0], [0.4, 0.9]], 19.7, 16.2, 3.0, 0.4, SHEAR),
        0.02,
    ),
    "point": (PointSource([3.0, 1.0], 19.7, 16.2), 1e-4),
}


@pytest.mark.parametrize("name", LIKE)
def test_pixels_look_like_another_component(name):
    component, limit = LIKE[name]
    pixels = quick_to_pixels(component, 31)
    assert type(pixels) is Pixels
    assert pixels.morphology.shape[-2:] == (31, 31)
    assert np.all(pixels.morphology >= 0)
    np.testing.assert_allclose(pixels.morphology.sum(axis=(-2, -1)), 1, rtol=1e-5)
    np.testing.assert_array_equal(pixels.flux, component.flux)
    assert (pixels.x, pixels.y) == (component.x, component.y)
    psf = GaussianPSF([3.5, 4.0])
    draw = quick_jit(lambda c: render(Scene([c]), psf, SHAPE, quality=FIT))
    before, after = np.asarray(draw(component)), np.asarray(draw(pixels))
    assert np.abs(after - before).max() < limit * np.abs(before).max()


def test_pixels_keep_their_settings():
    component = LIKE["gaussian"][0]
    pixels = quick_to_pixels(component, 21, blur=0.9, monotonic=True)
    assert (pixels.blur, pixels.monotonic, pixels.symmetric) == (0.9, True, False)
    assert quick_to_pixels(component, 31).monotonic is False


def test_pixels_of_many_components_at_once():
    members = [Gaussian([1.0], 4.2, 9.1, 2.0, SHEAR), Gaussian([2.0], 14.0, 3.3, 1.5, -SHEAR)]
    stack = stack_components(members)
    together = quick_jit(jax.vmap(lambda member: to_pixels(member, 15)))(stack.members)
    for place, member in enumerate(members):
        alone = quick_to_pixels(member, 15)
        np.testing.assert_allclose(together.morphology[place], alone.morphology, atol=1e-6)
