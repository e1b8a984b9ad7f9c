"""Models of the sky: what they look like, and that they are linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import legendre
from scipy.interpolate import RegularGridInterpolator

from diffdeblend.background import (
    ConstantBackground,
    MeshBackground,
    PolynomialBackground,
    SplineBackground,
)
from diffdeblend.components import PointSource
from diffdeblend.grid import FIT, STANDARD, make_grid
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene, render

SHAPE = (7, 12)
GRID = make_grid(SHAPE, STANDARD)
RANDOM = np.random.default_rng(8)
NODES = RANDOM.normal(size=(2, 3, 4))

# To check a new background, add a line.
BACKGROUNDS = {
    "constant": lambda: ConstantBackground([3.0, -1.0]),
    "polynomial of degree 0": lambda: PolynomialBackground(RANDOM.normal(size=(2, 1))),
    "polynomial of degree 3": lambda: PolynomialBackground(RANDOM.normal(size=(2, 10))),
    "mesh": lambda: MeshBackground(NODES),
    "spline": lambda: SplineBackground(NODES, (3, 3)),
}
every_background = pytest.mark.parametrize("make", BACKGROUNDS.values(), ids=BACKGROUNDS)


@every_background
def test_is_the_sum_of_its_basis(make, precision):
    background = make()
    basis = background.basis(GRID)
    n_bands, n = background.coefficients.shape
    assert n_bands == 2
    assert basis.shape == (n, *SHAPE)
    assert basis.dtype == precision
    image = background(GRID)
    assert image.dtype == precision
    assert image.shape == (2, *SHAPE)
    np.testing.assert_allclose(
        image, np.einsum("bn,nyx->byx", background.coefficients, basis), atol=1e-5
    )


@every_background
def test_takes_other_coefficients(make):
    background = make()
    new = background.with_coefficients(2 * background.coefficients + 1)
    assert type(new) is type(background)
    np.testing.assert_allclose(new.coefficients, 2 * background.coefficients + 1, rtol=1e-6)
    np.testing.assert_allclose(
        new(GRID), 2 * background(GRID) + background.basis(GRID).sum(axis=0), atol=1e-5
    )


@every_background
def test_basis_is_not_degenerate(make):
    basis = np.asarray(make().basis(GRID)).reshape(-1, SHAPE[0] * SHAPE[1])
    assert np.linalg.matrix_rank(basis) == len(basis)
    assert np.linalg.cond(basis) < 20


@every_background
def test_is_under_the_sources(make):
    background, psf = make(), GaussianPSF([2.5, 3.0])
    star = PointSource([5.0, 2.0], 8.2, 3.1)
    draw = jax.jit(lambda scene: render(scene, psf, SHAPE, quality=FIT))
    with_sky, without = draw(Scene([star], background)), draw(Scene([star]))
    np.testing.assert_allclose(with_sky, without + background(GRID), atol=1e-5)


@every_background
def test_gradient_is_the_basis(make):
    background = make()
    weights = jnp.asarray(RANDOM.normal(size=(2, *SHAPE)), dtype=jnp.float32)
    gradient = jax.grad(lambda c: jnp.sum(weights * background.with_coefficients(c)(GRID)))(
        background.coefficients
    )
    wanted = np.einsum("byx,nyx->bn", weights, background.basis(GRID))
    np.testing.assert_allclose(gradient, wanted, atol=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_polynomial_is_that_of_numpy(degree, x64):
    n = (degree + 1) * (degree + 2) // 2
    coefficients = RANDOM.normal(size=(2, n))
    table, place = np.zeros((2, degree + 1, degree + 1)), 0
    for j in range(degree + 1):
        for i in range(degree + 1 - j):
            table[:, j, i] = coefficients[:, place]
            place += 1
    y, x = np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1])
    wanted = [legendre.leggrid2d(y, x, of_band) for of_band in table]
    np.testing.assert_allclose(PolynomialBackground(coefficients)(GRID), wanted, atol=1e-12)


def test_mesh_is_bilinear(x64):
    y, x = np.linspace(0, SHAPE[0] - 1, 3), np.linspace(0, SHAPE[1] - 1, 4)
    points = np.stack(np.mgrid[: SHAPE[0], : SHAPE[1]], axis=-1)
    wanted = [RegularGridInterpolator((y, x), nodes)(points) for nodes in NODES]
    np.testing.assert_allclose(MeshBackground(NODES)(GRID), wanted, atol=1e-12)


def test_constant_is_constant():
    image = np.asarray(ConstantBackground([3.0, -1.0])(GRID))
    assert np.all(image[0] == 3)
    assert np.all(image[1] == -1)


@every_background
def test_one_pixel_is_enough(make):
    assert np.isfinite(make()(make_grid((1, 1), STANDARD))).all()


# Bad input.


@pytest.mark.parametrize("level", [3.0, [[3.0]]])
def test_level_of_another_shape_is_refused(level):
    with pytest.raises(ValueError, match="`level` needs one number per band; got shape"):
        ConstantBackground(level)


@pytest.mark.parametrize("shape", [(2,), (2, 2), (2, 5), (2, 0), (2, 3, 1)])
def test_coefficients_of_no_degree_are_refused(shape):
    with pytest.raises(ValueError, match=r"`coefficients` needs shape \(band, n\) with n = 1, 3"):
        PolynomialBackground(np.ones(shape))


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3), (2, 3, 1), (2, 2, 2, 2)])
def test_nodes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`nodes` needs shape \(band, my, mx\)"):
        MeshBackground(np.ones(shape))
