"""Areas of pixels in ellipses and circles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from scipy.integrate import quad

from diffdeblend.measure.overlap import arcsine, circle_overlap, ellipse_overlap, half_disc

SHAPE = (23, 31)
overlaps = quick_jit(jax.vmap(partial(ellipse_overlap, SHAPE)))


def ellipses(n: int = 300) -> np.ndarray:
    """Of all sizes and places, in and out of the image; every fifth along an axis or round."""
    rng = np.random.default_rng(1)
    a = 10 ** rng.uniform(-1, 1.2, n)
    b, theta = a * rng.uniform(0.05, 1, n), rng.uniform(-7, 7, n)
    x, y = rng.uniform(-4, 34, n), rng.uniform(-4, 26, n)
    b[::5] = a[::5]
    theta[1::5] = np.round(theta[1::5]) * np.pi / 2
    x[2::5], y[2::5] = np.round(x[2::5]), np.round(y[2::5]) + 0.5
    return np.stack([x, y, a, b, theta])


def test_shares_are_those_of_photutils(precision):
    geometry = pytest.importorskip("photutils.geometry")
    ny, nx = SHAPE
    given = ellipses()
    found = np.asarray(overlaps(*map(jnp.asarray, given)))
    assert found.dtype == precision
    tolerance = 1e-4 if precision == "float32" else 1e-12
    for (x, y, a, b, theta), share in zip(given.T, found, strict=True):
        ends = (-0.5 - x, nx - 0.5 - x, -0.5 - y, ny - 0.5 - y)
        expected = geometry.elliptical_overlap_grid(*ends, nx, ny, a, b, theta, 1, 1)
        np.testing.assert_allclose(share, expected, atol=tolerance)
        # What is out is just 0: far light must not leak in.
        assert np.all(share[expected == 0] < (1e-30 if precision == "float64" else 2e-5))
        far = np.hypot(np.arange(nx) - x, (np.arange(ny) - y)[:, None]) > a + 1
        assert not share[far].any()


def test_derivatives_are_those_of_finite_differences(x64):
    light = jnp.asarray(np.random.default_rng(2).normal(size=SHAPE)).cumsum(axis=1)

    def flux(values):
        return jnp.sum(light * ellipse_overlap(SHAPE, *values))

    # One program for all: the place itself, and steps of both signs.
    both = quick_jit(jax.vmap(jax.value_and_grad(flux)))
    step = 1e-5 * np.eye(5)
    steps = np.concatenate([np.zeros((1, 5)), step, -step])
    for values in ([14.2, 9.7, 6.3, 3.1, 0.7], [1.2, 20.7, 5.3, 4.1, -2.0]):
        light_in, slope = both(values + steps)
        by_hand = (light_in[1:6] - light_in[6:]) / 2e-5
        np.testing.assert_allclose(slope[0], by_hand, rtol=1e-5, atol=1e-5)
    # Edges of pixels touch the ellipse, or it is round, or there is none.
    for values in ([14, 9, 6.5, 3.5, 0], [14, 9, 6.5, 6.5, 0], [14, 9, np.nan, 1, 0]):
        assert np.all(np.isfinite(both(values + 0 * steps)[1]))


def test_what_is_no_ellipse_holds_nothing():
    given = np.array(
        [[5, 5, 0, 1, 0], [5, 5, 2, -1, 0], [np.nan, 5, 2, 1, 0], [5, 5, 2, 1, np.inf]]
    )
    given = np.concatenate([given, np.tile(ellipses()[:, :1].T, (296, 1))]).T
    assert not np.asarray(overlaps(*map(jnp.asarray, given)))[:4].any()


def test_circle_is_a_round_ellipse():
    circle = quick_jit(partial(circle_overlap, SHAPE))(14.3, 9.1, 4.2)
    assert np.sum(circle) == pytest.approx(np.pi * 4.2**2, rel=1e-6)


def test_inverse_sine_and_half_disc(precision):
    u = np.concatenate([np.linspace(-1, 1, 1001), [0.5, -0.5, 1e-9]]).astype(precision)
    rounding = np.finfo(precision).eps
    np.testing.assert_allclose(quick_jit(arcsine)(u), np.arcsin(u.astype(float)), atol=4 * rounding)
    area = [quad(lambda t: np.sqrt(1 - t * t), 0, end)[0] for end in u[::100]]
    np.testing.assert_allclose(quick_jit(half_disc)(u[::100]), area, atol=1e-7)
