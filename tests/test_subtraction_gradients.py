"""Derivatives of a subtraction by all that enters it, in double, against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from subtraction_fields import SKY_NEW, SKY_REFERENCE, field

from diffdeblend.psf import GaussianPSF, PSFBasis
from diffdeblend.psf.stamps import psf_stamp
from diffdeblend.subtract import SystematicNoise
from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.maps import ImagePair

SHAPE, POINT = (40, 36), (20, 17, 4000.0)
NAMES = ("beta", "dx", "dy", "gamma", "new", "reference", "fwhm", "coefficients")


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def basis_images():
    y, x = np.mgrid[:15, :15] - 7
    core = np.exp(-0.5 * (x**2 + y**2) / 1.2**2)
    return np.stack([core, core * (x * y + 0.3 * x) / 10])[None]


def results(theta, images, directions):
    """Of D, of S_corr, and the flux of the star that is new; NAMES say what theta is."""
    beta, dx, dy, gamma, new, reference, fwhm, coefficient = theta
    noise = SystematicNoise(x=jnp.asarray(0.02), y=jnp.asarray(0.03))
    sigmas = jnp.sqrt(jnp.asarray(SKY_NEW)), jnp.sqrt(jnp.asarray(SKY_REFERENCE))
    pair = ImagePair(
        images[0] + new * directions[0] - gamma,
        images[1] + reference * directions[1],
        images[2],
        images[3],
        None,
        None,
        *sigmas,
        beta,
        dx,
        dy,
        noise,
    )
    coefficients = jnp.asarray([[1.0, 0.1, -0.05], [0.2, 0.3, 0.1]]) + coefficient * directions[2]
    basis = PSFBasis(basis_images(), coefficients[None], (300, 200), 1)
    maps = subtract_constant(
        pair, psf_stamp(GaussianPSF([fwhm]), SHAPE)[0], basis.at(30.0, 250.0).image[0]
    )
    return jnp.stack(
        [
            jnp.mean(maps.D**2),
            jnp.mean(jnp.tanh(maps.S_corr / 5)),
            maps.flux[POINT[1], POINT[0]],
        ]
    )


@pytest.fixture
def setting():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images = [jnp.asarray(a, float) for a in field(SHAPE, 6, 0.7, seed=4, extra=[POINT])[:4]]
        directions = [jnp.asarray(rng.normal(size=s)) for s in (SHAPE, SHAPE, (2, 3))]
        theta = jnp.asarray([0.7, 0.1, -0.05, 0.5, 0.0, 0.0, 3.6, 0.0])
        yield theta, images, directions


@pytest.mark.slow
def test_gradients_equal_differences(setting):
    theta, images, directions = setting
    value = jax.jit(results)
    gradient = np.asarray(jax.jit(jax.jacrev(results))(theta, images, directions))
    assert np.isfinite(gradient).all()
    for k, name in enumerate(NAMES):
        step = 2e-4 * jnp.eye(len(NAMES))[k]

        def slope(h, step=step):
            ends = (
                value(theta + h * step, images, directions),
                value(theta - h * step, images, directions),
            )
            return np.asarray(ends[0] - ends[1]) / (2 * h * float(step.sum()))

        # Two step widths: the cubic term is gone.
        expected = (4 * slope(1.0) - slope(2.0)) / 3
        np.testing.assert_allclose(gradient[:, k], expected, rtol=1e-6, err_msg=name)
    # No derivative is small against its result by chance.
    assert (np.abs(gradient[:, :4]) > 1e-9).all()


@pytest.mark.slow
def test_without_compilation_it_is_the_same(setting):
    theta, images, directions = setting
    compiled = jax.jit(jax.value_and_grad(lambda t: jnp.sum(results(t, images, directions))))
    value, gradient = compiled(theta)
    with jax.disable_jit():
        eager, slope = jax.value_and_grad(lambda t: jnp.sum(results(t, images, directions)))(theta)
    assert float(value) == pytest.approx(float(eager), rel=1e-11)
    np.testing.assert_allclose(gradient, slope, rtol=1e-8)
