"""The Fourier convention against slow sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.fourier import (
    cos_sin,
    low_modes,
    multiply,
    multiply_conjugate,
    sampled_modes,
    shift,
    to_image,
    to_modes,
)
from diffdeblend.grid import FIT, STANDARD, Grid, fine, make_grid, product_modes

# Not square, and fewer modes than the period could carry along x, more along y.
GRID = Grid(ny=5, nx=8, period_y=9, period_x=13, modes_y=6, modes_x=3)
RANDOM = np.random.default_rng(5)


def random_pair(*shape):
    return jnp.asarray(RANDOM.normal(size=shape)), jnp.asarray(RANDOM.normal(size=shape))


def as_complex(pair):
    return np.asarray(pair[0]) + 1j * np.asarray(pair[1])


# Cosine and sine.


@pytest.mark.parametrize("largest", [1.0, 100.0, 1e4])
def test_cos_sin_in_float32(largest):
    angle = RANDOM.uniform(-largest, largest, 100_001).astype(np.float32)
    cosine, sine = jax.jit(cos_sin)(angle)
    assert cosine.dtype == sine.dtype == np.float32
    np.testing.assert_allclose(cosine, np.cos(angle.astype(float)), atol=6e-7)
    np.testing.assert_allclose(sine, np.sin(angle.astype(float)), atol=6e-7)


def test_cos_sin_in_float64(x64):
    angle = jnp.asarray(RANDOM.uniform(-1e4, 1e4, 1001))
    cosine, sine = cos_sin(angle)
    assert cosine.dtype == np.float64
    np.testing.assert_allclose(cosine, np.cos(angle), atol=1e-15)
    np.testing.assert_allclose(sine, np.sin(angle), atol=1e-15)


def test_gradient_of_cos_sin(precision):
    angle = jnp.asarray(RANDOM.uniform(-100, 100, 1001), dtype=precision)
    (cosine, sine), (by_cosine, by_sine) = jax.jvp(cos_sin, (angle,), (2 * jnp.ones_like(angle),))
    np.testing.assert_array_equal(by_cosine, -2 * sine)
    np.testing.assert_array_equal(by_sine, 2 * cosine)
    second = jax.vmap(jax.grad(jax.grad(lambda a: cos_sin(a)[0])))(angle)
    np.testing.assert_allclose(second, -cosine, atol=1e-6)


# Products and shifts.


def test_products(x64):
    a, b = random_pair(7), random_pair(7)
    np.testing.assert_allclose(as_complex(multiply(a, b)), as_complex(a) * as_complex(b))
    np.testing.assert_allclose(
        as_complex(multiply_conjugate(a, b)), as_complex(a).conj() * as_complex(b)
    )


def test_shift(x64):
    modes = GRID.modes
    x, y = jnp.asarray([2.3, -4.0]), jnp.asarray([0.4, 11.0])
    wanted = np.exp(-1j * (np.outer(x, modes.kx) + np.outer(y, modes.ky)))
    np.testing.assert_allclose(as_complex(shift(modes, x, y)), wanted, atol=1e-13)
    np.testing.assert_allclose(as_complex(shift(modes, x[0], y[0])), wanted[0], atol=1e-13)


# Between image and modes.


def slow_image(values, grid, x, y):
    """The sum over all modes; those not stored are the conjugates of their opposites."""
    modes = grid.modes
    waves = np.exp(
        1j
        * (
            np.asarray(modes.kx) * np.asarray(x)[None, :, None]
            + np.asarray(modes.ky) * np.asarray(y)[:, None, None]
        )
    )
    twice = np.where(np.asarray(modes.kx) == 0, 1, 2)
    total = np.einsum("yxk,...k->...yx", waves, twice * as_complex(values))
    return total.real / (grid.period_y * grid.period_x)


def test_to_image_is_a_slow_sum(x64):
    values = random_pair(2, 3, GRID.modes.kx.size)
    np.testing.assert_allclose(
        to_image(values, GRID), slow_image(values, GRID, np.arange(8), np.arange(5)), atol=1e-13
    )


def test_to_image_between_pixels(x64):
    values = random_pair(GRID.modes.kx.size)
    x, y = np.array([0.5, -3.2, 40.0]), np.array([7.7, 0.1])
    image = to_image(values, GRID, x=jnp.asarray(x), y=jnp.asarray(y))
    assert image.shape == (2, 3)
    np.testing.assert_allclose(image, slow_image(values, GRID, x, y), atol=1e-13)


def test_to_modes_is_a_slow_sum(x64):
    image = RANDOM.normal(size=(2, 5, 8))
    y, x = np.mgrid[:5, :8]
    kx, ky = np.asarray(GRID.modes.kx), np.asarray(GRID.modes.ky)
    waves = np.exp(-1j * (x[..., None] * kx + y[..., None] * ky))
    wanted = np.einsum("byx,yxk->bk", image, waves)
    np.testing.assert_allclose(as_complex(to_modes(jnp.asarray(image), GRID)), wanted, atol=1e-12)


def test_sampled_modes_of_other_points(x64):
    values = RANDOM.normal(size=(2, 3))
    x, y = np.array([0.5, -3.2, 4.0]), np.array([7.7, 0.1])
    modes = product_modes(jnp.asarray([0.2, -1.0]), jnp.asarray([0.7, 0.0, 2.0]))
    wanted = sum(
        values[j, i] * np.exp(-1j * (np.asarray(modes.kx) * x[i] + np.asarray(modes.ky) * y[j]))
        for j in range(2)
        for i in range(3)
    )
    got = sampled_modes(jnp.asarray(values), modes, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(as_complex(got), wanted, atol=1e-13)


def test_there_and_back(x64):
    # A stamp as large as the period, with all of its modes.
    whole = Grid(ny=9, nx=13, period_y=9, period_x=13, modes_y=4, modes_x=6)
    image = RANDOM.normal(size=(2, 9, 13))
    np.testing.assert_allclose(to_image(to_modes(jnp.asarray(image), whole), whole), image)


def test_to_modes_is_the_adjoint_of_to_image(x64):
    values, image = random_pair(GRID.modes.kx.size), jnp.asarray(RANDOM.normal(size=(5, 8)))
    there = jnp.sum(to_image(values, GRID) * image)
    re, im = to_modes(image, GRID)
    back = jnp.sum(GRID.mode_weight * (values[0] * re + values[1] * im))
    assert there == pytest.approx(float(back), rel=1e-12)


def test_both_precisions_agree():
    grid = make_grid((40, 61), STANDARD)
    values = random_pair(3, grid.modes.kx.size)
    single = np.asarray(to_image(values, grid))
    assert single.dtype == np.float32
    with jax.enable_x64(True):
        double = to_image(tuple(jnp.asarray(np.asarray(v), dtype=float) for v in values), grid)
    np.testing.assert_allclose(single, double, atol=5e-6 * np.abs(double).max())


def test_low_modes_are_those_of_the_lower_grid(x64):
    low = GRID.low(0.5)
    assert (low.modes_y, low.modes_x) == (3, 2)
    assert (low.ny, low.nx, low.period_y, low.period_x) == (5, 8, 9, 13)
    values = [jnp.stack([10 * m.kx + m.ky, m.kx - m.ky]) for m in (GRID.modes, low.modes)]
    for part in low_modes((values[0], -values[0]), GRID, low)[:1]:
        np.testing.assert_array_equal(part, values[1])
    np.testing.assert_array_equal(
        low_modes((values[0], -values[0]), GRID, low)[1], -np.asarray(values[1])
    )


# Grids.


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (31, 44), (120, 61)])
@pytest.mark.parametrize("quality", [FIT, STANDARD, fine(), fine(3.0)])
def test_grid_of_a_stamp(shape, quality):
    grid = make_grid(shape, quality)
    assert (grid.ny, grid.nx) == shape
    for n, period, modes in (
        (grid.ny, grid.period_y, grid.modes_y),
        (grid.nx, grid.period_x, grid.modes_x),
    ):
        assert period % 2 == 1
        assert quality.padding * n <= period or period >= n + 6
        assert quality.cut * (period - 1) / 2 - 1 < modes <= quality.cut * (period - 1) / 2
    modes = grid.modes
    assert modes.kx.shape == modes.ky.shape == ((grid.modes_x + 1) * (2 * grid.modes_y + 1),)
    assert modes.kx.dtype == np.float32
    assert not modes.kx.weak_type
    # No mode sits on the Nyquist frequency, where real signals are ambiguous.
    assert np.all(np.abs(np.abs(modes.axis_x) - np.pi) > 1e-3)
    assert grid.mode_weight.shape == modes.kx.shape


@pytest.mark.parametrize("shape", [(0, 5), (5, -1), (5,), (5, 6, 7)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`shape` must be \(ny, nx\)"):
        make_grid(shape, STANDARD)


def test_coordinates_are_pixel_centres():
    np.testing.assert_array_equal(GRID.x, np.arange(8))
    np.testing.assert_array_equal(GRID.y, np.arange(5))
