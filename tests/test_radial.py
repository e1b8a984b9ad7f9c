"""The radial function against exact integrals, closed forms, GalSim and finite differences."""

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaincinv, gammaln

from diffdeblend.build_radial_table import PATH, TERMS, build, exact_transform, fit_series
from diffdeblend.radial import (
    coefficients,
    radial,
    radial_transform,
    sersic_b,
    surface_brightness,
)

evaluate = jax.jit(radial_transform)
slopes = jax.jit(jax.vmap(jax.grad(radial_transform, argnums=(0, 1)), (0, None)))
curvatures = jax.jit(jax.vmap(jax.hessian(radial_transform, argnums=(0, 1)), (0, None)))
brightness = jax.jit(surface_brightness)
brightness_slopes = jax.jit(jax.vmap(jax.grad(surface_brightness, argnums=(0, 1)), (0, None)))

FREQUENCIES = np.logspace(-4, 5, 150)
# Between the nodes of the table, and the ends of the domain. Limits of |dS| / (S + 0.01).
LIMITS = {
    0.5: 1e-7,
    0.5013: 4e-7,
    0.53: 4e-7,
    0.61: 3e-7,
    0.77: 2e-7,
    1.0: 5e-9,
    1.37: 1e-7,
    2.5: 2e-8,
    4.0: 1e-7,
    5.03: 2e-7,
    6.0: 3e-7,
    6.2: 3e-7,
}


def transform(k, index, dtype=np.float64):
    """S at frequencies, computed in one precision, as float64 numpy."""
    with jax.enable_x64(True):
        q_squared = jnp.asarray(np.asarray(k) ** 2, dtype=dtype)
        value = evaluate(q_squared, jnp.asarray(index, dtype=dtype))
        assert value.dtype == dtype
        return np.asarray(value, dtype=np.float64)


def error(value, exact):
    return np.max(np.abs(value - exact) / (np.abs(exact) + 0.01))


# The exact transform itself.


def test_exact_transform_is_the_gaussian_at_one_half():
    exact = exact_transform(FREQUENCIES, 0.5)
    sigma = 1 / np.sqrt(2 * np.log(2))
    np.testing.assert_allclose(exact, np.exp(-0.5 * (sigma * FREQUENCIES) ** 2), atol=1e-12)


def test_exact_transform_is_the_disc_at_one():
    exact = exact_transform(FREQUENCIES, 1.0)
    scale = 1 / gammaincinv(2, 0.5)
    np.testing.assert_allclose(exact, (1 + (scale * FREQUENCIES) ** 2) ** -1.5, atol=1e-12)


@pytest.mark.parametrize("index", [0.46, 0.9, 2.7, 6.8])
def test_exact_transform_does_not_depend_on_the_step(index):
    k = FREQUENCIES[::10]
    np.testing.assert_allclose(
        exact_transform(k, index), exact_transform(k, index, step=0.019), atol=1e-11
    )


# The closed form.


@pytest.mark.parametrize(("index", "limit"), LIMITS.items())
def test_transform_is_exact(index, limit):
    exact = exact_transform(FREQUENCIES, index)
    assert error(transform(FREQUENCIES, index), exact) < limit
    assert np.max(np.abs(transform(FREQUENCIES, index, np.float32) - exact)) < 1.2e-6


def test_transform_is_exact_at_random_indices():
    for index in np.exp(np.random.default_rng(3).uniform(np.log(0.5), np.log(6.2), 40)):
        k = FREQUENCIES[::4]
        assert error(transform(k, index), exact_transform(k, index)) < 4e-7, index


def test_transform_is_the_gaussian_at_one_half():
    sigma = 1 / np.sqrt(2 * np.log(2))
    wanted = np.exp(-0.5 * (sigma * FREQUENCIES) ** 2)
    assert error(transform(FREQUENCIES, 0.5), wanted) < 1e-7


def test_transform_is_the_disc_at_one():
    wanted = (1 + (FREQUENCIES / 1.67834699) ** 2) ** -1.5
    assert error(transform(FREQUENCIES, 1.0), wanted) < 5e-9


@pytest.mark.parametrize("index", [0.5, 0.83, 1.0, 2.6, 4.0, 6.1])
def test_transform_is_that_of_galsim(index):
    # With its default parameters GalSim is itself wrong by up to 2e-4.
    accurate = galsim.GSParams(kvalue_accuracy=1e-8, maxk_threshold=1e-5)
    profile = galsim.Sersic(n=index, half_light_radius=1.0, gsparams=accurate)
    k = np.logspace(-2, np.log10(20), 20)
    wanted = np.array([profile.kValue(value, 0.0).real for value in k])
    np.testing.assert_allclose(transform(k, index), wanted, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("index", LIMITS)
def test_a_radius_of_zero_is_a_star(index):
    assert abs(transform(0.0, index) - 1) < 1e-12
    assert abs(transform(0.0, index, np.float32) - 1) < 5e-7


@pytest.mark.parametrize(("index", "limit"), [(0.5, 1e-5), (1.0, 1e-5), (2.6, 1e-4), (4.0, 2e-3)])
def test_slope_at_zero_is_the_second_moment(index, limit):
    b = gammaincinv(2 * index, 0.5)
    moment = np.exp(gammaln(4 * index) - gammaln(2 * index) - 2 * index * np.log(b))
    with jax.enable_x64(True):
        by_q, by_n = slopes(jnp.zeros(1), jnp.asarray(index))
    assert by_q[0] == pytest.approx(-moment / 4, rel=limit)
    assert by_n[0] == pytest.approx(0, abs=1e-12)


# Derivatives.


@pytest.mark.parametrize("index", [0.513, 1.0, 2.61, 4.0, 6.19])
def test_slopes_are_central_differences(index):
    step = 1e-4
    with jax.enable_x64(True):
        q, n = jnp.asarray(np.logspace(-4, 4, 30)), jnp.asarray(index)
        by_q, by_n = slopes(q, n)
        differences = (
            (evaluate(q * (1 + step), n) - evaluate(q * (1 - step), n)) / (2 * step),
            (evaluate(q, n + step) - evaluate(q, n - step)) / (2 * step),
        )
    np.testing.assert_allclose(q * by_q, differences[0], atol=3e-8)
    np.testing.assert_allclose(by_n, differences[1], atol=3e-7)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0.513, 2.61, 6.19])
def test_second_derivatives_are_central_differences(index):
    step = 1e-5
    with jax.enable_x64(True):
        q, n = jnp.asarray([0.1, 0.4, 7.0, 200.0]), jnp.asarray(index)
        computed = curvatures(q, n)
        up, down = slopes(q + step, n), slopes(q - step, n)
        by_q = [(up[i] - down[i]) / (2 * step) for i in range(2)]
        up, down = slopes(q, n + step), slopes(q, n - step)
        by_n = [(up[i] - down[i]) / (2 * step) for i in range(2)]
    for i in range(2):
        np.testing.assert_allclose(computed[i][0], by_q[i], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(computed[i][1], by_n[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("index", [0.55, 1.01, 2.61, 4.0, 6.1])
def test_index_slope_is_that_of_the_exact_transform(index):
    k, step = np.logspace(-2, 2, 40), 1e-3
    wanted = (exact_transform(k, index + step) - exact_transform(k, index - step)) / (2 * step)
    with jax.enable_x64(True):
        _, by_n = slopes(jnp.asarray(k**2), jnp.asarray(index))
    assert np.max(np.abs(by_n - wanted)) < 2e-5


@pytest.mark.parametrize("index", [0.5, 0.6, 1.0, 2.9, 4.0, 6.2])
def test_slopes_in_both_precisions_agree(index):
    q_squared = np.logspace(-6, 5, 60)

    def columns(dtype):
        with jax.enable_x64(True):
            by_q, by_n = slopes(jnp.asarray(q_squared, dtype), jnp.asarray(index, dtype))
            assert by_q.dtype == by_n.dtype == dtype
            return np.asarray(by_q, dtype=np.float64) * q_squared, np.asarray(by_n)

    single, double = columns(np.float32), columns(np.float64)
    np.testing.assert_allclose(single[0], double[0], atol=2e-6)
    np.testing.assert_allclose(single[1], double[1], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [-1.0, 0.0, 0.1, 0.5, 1.0, 4.0, 6.2, 20.0, 1e6])
def test_all_is_finite(index, dtype):
    with jax.enable_x64(True):
        q = jnp.asarray([0, 1e-38, 1e-12, 1e-3, 1, 1e3, 1e8, 1e14, 1e20], dtype=dtype)
        n = jnp.asarray(index, dtype=dtype)
        value = evaluate(q, n)
        assert all(np.isfinite(leaf).all() for leaf in (value, *slopes(q, n)))
    assert np.all(np.abs(value) < 1 + 1e-6)


def test_outside_the_domain_it_is_the_nearest_profile():
    k = np.logspace(-2, 2, 20)
    np.testing.assert_allclose(transform(k, 9.0), transform(k, 6.2), atol=0.02)
    np.testing.assert_allclose(transform(k, 0.2), transform(k, 0.5), atol=0.02)
    for index in (0.2, 9.0):
        assert not np.any(slopes(jnp.asarray(k**2), jnp.asarray(index))[1])


# How it behaves as a function of arrays.


def test_vmap_over_index_is_a_loop_with_ranks_checked():
    q = jnp.asarray(np.logspace(-3, 3, 35).reshape(5, 7), dtype=jnp.float32)
    index = jnp.asarray([0.5, 1.3, 4.0, 6.2])
    with jax.numpy_rank_promotion("raise"):
        together = jax.jit(jax.vmap(radial_transform, (None, 0)))(q, index)
        by_n = jax.jit(jax.vmap(jax.jacfwd(radial_transform, argnums=1), (None, 0)))(q, index)
    one_by_one = [evaluate(q, n) for n in index]
    assert together.shape == by_n.shape == (4, 5, 7)
    np.testing.assert_allclose(together, one_by_one, atol=3e-7)


def test_parts_make_the_whole():
    q, n = jnp.asarray([0.1, 3.0, 50.0]), jnp.asarray(2.3)
    kappa_squared, taper_squared, c = jax.jit(coefficients)(n)
    assert c.shape == (TERMS,)
    np.testing.assert_allclose(
        jax.jit(radial)(q, n, kappa_squared, taper_squared, c), evaluate(q, n), rtol=1e-6
    )


@pytest.mark.parametrize("index", [2.0, np.float32(2), jnp.float32(2)])
def test_float32_stays_float32(index):
    value = evaluate(jnp.ones(3, dtype=jnp.float32), index)
    assert value.dtype == jnp.float32
    assert not value.weak_type
    assert not brightness(jnp.ones(3, dtype=jnp.float32), index).weak_type


def test_new_values_do_not_recompile():
    traces = []

    @jax.jit
    def gradient(q, n):
        traces.append(None)
        return jax.grad(lambda q, n: jnp.sum(radial_transform(q, n)), argnums=(0, 1))(q, n)

    for index in (0.5, 1.0, 6.2):
        gradient(jnp.linspace(0, 9, 11), jnp.asarray(index))
    assert len(traces) == 1


def test_six_columns_cost_hardly_more_than_two():
    # XLA repeats the whole recurrence in every column unless the slopes end in a division.
    q = jnp.ones((8, 1540), dtype=jnp.float32)
    index = jnp.linspace(0.6, 6, 8)

    def flops(number):
        def columns(q, index):
            _, tangent = jax.linearize(jax.vmap(radial_transform), q, index)
            return [tangent(q * (i + 1), index * 0.1 * i) for i in range(number)]

        return jax.jit(columns).lower(q, index).compile().cost_analysis()["flops"]

    assert flops(6) < 1.5 * flops(2)


# The table.


def test_table_is_small_and_made_by_this_builder():
    assert PATH.stat().st_size < 100_000
    with np.load(PATH) as table:
        interval = 70
        index = np.exp(table["start"] + interval * table["step"])
        c, residual = fit_series(index)
        np.testing.assert_allclose(table["pieces"][interval, 3, 2:], c, atol=1e-8)
    assert residual < 3e-7
    # What float32 feels.
    assert np.abs(c).max() < 2


@pytest.mark.slow
def test_table_is_what_the_builder_makes():
    with np.load(PATH) as table:
        for name, value in build().items():
            np.testing.assert_allclose(value, table[name], atol=1e-7)


# Real space.


def test_sersic_b_holds_half_the_light():
    index = np.linspace(0.5, 6.2, 301)
    wanted = gammaincinv(2 * index, 0.5)
    with jax.enable_x64(True):
        b = jax.vmap(sersic_b)(jnp.asarray(index))
        slope = jax.vmap(jax.grad(sersic_b))(jnp.asarray(index))
    np.testing.assert_allclose(b, wanted, atol=2e-8)
    np.testing.assert_allclose(slope, np.gradient(wanted, index, edge_order=2), atol=3e-4)
    np.testing.assert_allclose(jax.vmap(sersic_b)(jnp.asarray(index)), wanted, rtol=3e-7)


@pytest.mark.parametrize("index", [0.5, 1.0, 2.6, 4.0, 6.2])
def test_surface_brightness_has_unit_flux_half_within_the_radius(index):
    log_r = np.linspace(-30, 0, 3001), np.linspace(0, 12, 3001)
    with jax.enable_x64(True):
        inner, outer = (
            np.trapezoid(2 * np.pi * np.exp(2 * x) * brightness(jnp.exp(2 * x), index), x)
            for x in log_r
        )
    assert inner == pytest.approx(0.5, abs=1e-5)
    assert outer == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("index", [0.5, 1.0, 2.6, 4.0, 6.2])
def test_surface_brightness_is_that_of_galsim(index):
    profile = galsim.Sersic(n=index, half_light_radius=1.0)
    r = np.array([0.0, 0.03, 0.5, 1.0, 4.0])
    wanted = [profile.xValue(value, 0.0) for value in r]
    np.testing.assert_allclose(
        surface_brightness(jnp.asarray(r**2, dtype=jnp.float32), index), wanted, rtol=3e-5
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [0.5, 1.0, 4.0, 6.2])
def test_surface_brightness_is_finite_with_its_slopes(index, dtype):
    with jax.enable_x64(True):
        r_squared = jnp.asarray([0, 1e-30, 1e-10, 1e-2, 1, 1e4, 1e12], dtype=dtype)
        n = jnp.asarray(index, dtype=dtype)
        value = surface_brightness(r_squared, n)
        by_r, by_n = brightness_slopes(r_squared, n)
        assert value.dtype == by_r.dtype == by_n.dtype == dtype
    assert all(np.isfinite(leaf).all() for leaf in (value, by_r, by_n))
    assert np.asarray(by_r)[0] == 0


def test_surface_brightness_slopes_are_central_differences():
    step = 1e-5
    with jax.enable_x64(True):
        r, n = jnp.asarray([0.01, 0.7, 3.0, 60.0]), jnp.asarray(2.3)
        up, down = surface_brightness(r * (1 + step), n), surface_brightness(r * (1 - step), n)
        by_r, by_n = brightness_slopes(r, n)
        np.testing.assert_allclose(by_r * r, (up - down) / (2 * step), rtol=1e-7)
        up, down = surface_brightness(r, n + step), surface_brightness(r, n - step)
        np.testing.assert_allclose(by_n, (up - down) / (2 * step), rtol=1e-6)
