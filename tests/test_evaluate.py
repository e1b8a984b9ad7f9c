"""The hand-written pass over a scene of `AnySource` against autodiff, and both matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from quick import quick_jit

from diffdeblend.background import PolynomialBackground
from diffdeblend.components import AnySource, Kind, any_stack, stack_components
from diffdeblend.fit import shape_prior
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.normal_matrix import fixed_terms
from diffdeblend.fit.objective import make_problem, model_image, objective
from diffdeblend.fit.unknowns import free_numbers, scene_of, unknowns_of
from diffdeblend.grid import FIT
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene

SHAPE = (22, 27)


def source(kind, x, y, seed):
    rng = np.random.default_rng(seed)
    return AnySource(
        flux=rng.uniform(50, 100, (4, 2)),
        x=x,
        y=y,
        radius=rng.uniform(1.5, 3.0),
        index=rng.uniform(0.8, 3.0),
        radius_ratio=0.4,
        ellipticity=rng.uniform(-0.3, 0.3, 2),
        kind=kind,
    )


@pytest.fixture
def case(x64):
    sources = [
        source(Kind.SERSIC, 8.3, 9.1, 1),
        source(Kind.BULGE_DISC, 14.6, 12.2, 2),
        source(Kind.POINT, 19.1, 7.7, 3),
    ]
    stack = any_stack(stack_components(sources, size=4))
    sky = PolynomialBackground(np.array([[0.3, 0.1, -0.2], [0.1, 0.0, 0.3]]))
    scene = Scene([stack], sky, dx=np.array([0.1, -0.2]), dy=np.array([0.0, 0.3]))
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.5, 2.0, (2, *SHAPE))
    weight[:, 5:7, 3] = 0
    data = rng.normal(size=weight.shape) + 3
    psf = GaussianPSF(np.array([2.7, 3.4]))
    free = free_numbers(scene, None)
    problem = make_problem(
        jnp.asarray(data), jnp.asarray(weight), psf, free, shape_prior(scene), FIT
    )
    return scene, problem


def test_gradient_is_that_of_autodiff(case):
    scene, problem = case
    moved = jax.tree.map(lambda v: v + 0.03, unknowns_of(scene))
    value, gradient = quick_jit(jax.value_and_grad(objective))(moved, scene, problem)
    found = quick_jit(lambda u: evaluate(u, scene, problem, fixed_terms(scene, problem), False))(
        moved
    )
    np.testing.assert_allclose(found.value, value, rtol=1e-12)
    # Dark slots do not exist for autodiff either: only lit ones count.
    lit = np.asarray(scene.sources[0].lit_slot)[:, None]
    held = eqx.tree_at(lambda g: g.flux, found.gradient, found.gradient.flux * lit)
    wanted = eqx.tree_at(lambda g: g.flux, gradient, gradient.flux * lit)
    np.testing.assert_allclose(ravel_pytree(held)[0], ravel_pytree(wanted)[0], rtol=1e-9, atol=1e-8)


@pytest.fixture
def jacobian(case):
    """Derivatives of the model image, by autodiff, in the order of linear unknowns and shapes."""
    scene, problem = case
    start = unknowns_of(scene)
    slopes = quick_jit(jax.jacfwd(lambda u: model_image(scene_of(u, scene), problem)))(start)
    return [np.asarray(slope) for slope in (slopes.shape[0], slopes.flux, slopes.sky, slopes.dx)]


def test_matrix_by_pixels_is_that_of_the_images(case, jacobian):
    scene, problem = case
    found = quick_jit(
        lambda u: evaluate(u, scene, problem, fixed_terms(scene, problem), True).normal
    )(unknowns_of(scene))
    by_shape, by_flux, by_sky, by_dx = jacobian
    weight = np.asarray(problem.weight)
    shape = by_shape.reshape(*weight.shape, -1)
    wanted = np.einsum("byxs,byx,byxt->st", shape, weight, shape)
    np.testing.assert_allclose(found.shape, wanted, rtol=1e-8, atol=1e-8)
    for b in range(2):
        linear = np.concatenate(
            [by_flux[b, ..., b], by_sky[b, :, :, b], by_dx[b, ..., b, None]], axis=-1
        )
        block = np.einsum("yxs,yx,yxt->st", linear, weight[b], linear)
        cross = np.einsum("yxs,yx,yxt->st", linear, weight[b], shape[b])
        n = linear.shape[-1]
        np.testing.assert_allclose(found.band[b][:n, :n], block, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found.cross[b][:n], cross, rtol=1e-8, atol=1e-7)


@pytest.mark.slow
def test_matrix_by_modes_is_near_that_by_pixels_under_even_noise(case):
    scene, problem = case
    problem = eqx.tree_at(lambda p: p.weight, problem, jnp.full_like(problem.weight, 0.7))
    # Compact and in the middle: what the low modes and the period leave out is small.
    fixed = fixed_terms(scene, problem)
    exact, fast = (
        quick_jit(lambda u, e=e: evaluate(u, scene, problem, fixed, e).normal)(unknowns_of(scene))
        for e in (True, False)
    )
    for name in ("band", "shape"):
        a, b = np.asarray(getattr(exact, name)), np.asarray(getattr(fast, name))
        diagonal = np.sqrt(np.diagonal(a, axis1=-2, axis2=-1))
        scale = diagonal[..., :, None] * diagonal[..., None, :]
        assert np.abs(b - a).max() < 0.25 * scale.max()
        safe = np.where(scale > 0, scale, 1)
        assert np.median(np.abs(b - a) / safe) < 0.05
