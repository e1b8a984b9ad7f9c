"""The fit of decoded galaxies against finite differences, GalSim and plain autodiff."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend import GaussianPSF, MoffatPSF, Scene, render
from diffdeblend.background import ConstantBackground
from diffdeblend.components import (
    AnySource,
    Decoded,
    Decoder,
    Frame,
    Kind,
    Stack,
    any_stack,
    stack_components,
)
from diffdeblend.fit.by_columns import chi2_of_columns, is_by_columns
from diffdeblend.fit.columns import columns_by_autodiff
from diffdeblend.fit.evaluate import evaluate
from diffdeblend.fit.normal_matrix import fixed_terms
from diffdeblend.fit.objective import chi2_by_band, make_problem, model_image, objective
from diffdeblend.fit.prior import shape_prior
from diffdeblend.fit.unknowns import free_numbers, scene_of, unknowns_of
from diffdeblend.grid import Quality, fine, make_grid


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


LATENT, SIZE = 2, 13


def decoder(dtype: type = np.float32, size=SIZE, mean=None):
    """Lopsided changes of a round galaxy, by a network of two layers."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - size // 2
    mean = -np.hypot(np.hypot(x, y), 1.0) / 1.3 if mean is None else mean
    basis = np.stack([x, y, x * y, x**2 - y**2], axis=-1).reshape(-1, 4) / size
    values = [
        (rng.standard_normal((4, LATENT)), 0.1 * rng.standard_normal(4)),
        (0.5 * basis @ rng.standard_normal((4, 4)), np.zeros(size**2)),
    ]
    key = jax.random.key(0)
    layers = []
    for weight, bias in values:
        empty = eqx.filter_eval_shape(eqx.nn.Linear, *weight.shape[::-1], key=key)
        parts = (jnp.asarray(weight, dtype), jnp.asarray(bias, dtype))
        layers.append(eqx.tree_at(lambda one: (one.weight, one.bias), empty, parts))
    return Decoder(tuple(layers), jnp.asarray(mean, dtype), Frame(size))


def scene(made, dtype: type = np.float32, flux=((90.0, 60.0), (70.0, 110.0), (1.0, 1.0))):
    """Two galaxies, one of them at the border, and a place that is empty; the bands are shifted."""
    latent = jnp.asarray([[0.4, -0.7], [-1.1, 0.3], [0.0, 0.0]], dtype)
    x, y = jnp.asarray([9.3, 16.4, 0.0], dtype), jnp.asarray([8.1, 5.7, 0.0], dtype)
    members = jax.vmap(lambda f, a, b, z: Decoded(f, a, b, z, None))(
        jnp.asarray(flux, dtype), x, y, latent
    )
    rank = jnp.array([0, 1, -1], jnp.int32)
    stack = Stack(members, jnp.array([True, True, False]), rank, shared=made)
    zero = jnp.zeros(2, dtype)
    return Scene([stack], dx=zero + jnp.asarray(0.2, dtype), dy=zero - jnp.asarray(0.1, dtype))


def problem_of(template, dtype, weight=None):
    rng = np.random.default_rng(1)
    shape = (2, 18, 19)
    weight = rng.uniform(0.5, 1.5, shape) if weight is None else weight
    free = free_numbers(template, None)
    free = eqx.tree_at(lambda f: (f.dx, f.dy), free, (free.dx + 1, free.dy + 1))
    return make_problem(
        jnp.asarray(rng.standard_normal(shape) + 0.3, dtype),
        jnp.asarray(weight, dtype),
        GaussianPSF(jnp.asarray([3.5, 4.0], dtype)),
        free,
        shape_prior(template),
        Quality(1.3, 0.8, False),
    )


@eqx.filter_jit
def known(unknowns, template, problem, exact):
    fixed = fixed_terms(template, problem)
    return evaluate(unknowns, template, problem, fixed, exact)


@pytest.mark.slow
def test_derivatives_are_those_of_finite_differences():
    with jax.enable_x64(True):
        template = scene(decoder(np.float64), np.float64)
        problem = problem_of(template, np.float64)
        unknowns = unknowns_of(template)
        flat, back = jax.flatten_util.ravel_pytree(unknowns)
        step = 1e-4 * np.eye(flat.size)

        @jax.jit
        def both(vectors):
            def one(vector):
                at = back(vector)
                image = model_image(scene_of(at, template), problem)
                return objective(at, template, problem), image

            return jax.lax.map(one, vectors)

        up, down = both(flat + step), both(flat - step)
        slope, images = ((a - b) / 2e-4 for a, b in zip(up, down, strict=True))
        result = known(unknowns, template, problem, jnp.asarray(True))
        got = jax.flatten_util.ravel_pytree(result.gradient)[0]
        np.testing.assert_allclose(got, slope, rtol=1e-6, atol=1e-6 * np.abs(slope).max())
        # The matrix is that of the images' derivatives, weighed by every pixel.
        n_shape = unknowns.flat_shape.size
        shapes = np.asarray(images[:n_shape]).reshape(n_shape, -1)
        gram = (shapes * np.asarray(problem.weight).reshape(-1)) @ shapes.T
        largest = np.abs(gram).max()
        np.testing.assert_allclose(result.normal.shape, gram, rtol=1e-5, atol=1e-7 * largest)
        # An empty place has none, and its latents keep the slope of their prior: zero.
        assert (np.asarray(result.normal.shape)[8:] == 0).all()
        assert (np.asarray(got)[8:n_shape] == 0).all()


def test_own_columns_are_those_of_autodiff():
    class ByAutodiff(Decoded):
        has_columns = False

    template = scene(decoder())
    own: Any = template.sources[0].members
    members = jax.vmap(lambda f, x, y, z: ByAutodiff(f, x, y, z, None))(
        own.flux, own.x, own.y, own.latent
    )
    other = eqx.tree_at(lambda s: s.sources[0].members, template, members)
    modes = make_grid((18, 19), Quality(1.3, 0.8, False)).modes
    first, second = (
        jax.jit(lambda s=s: columns_by_autodiff(unknowns_of(s), s, modes))()
        for s in (template, other)
    )
    np.testing.assert_allclose(first.modes, second.modes, atol=2e-5)
    np.testing.assert_array_equal(first.chain, second.chain)
    np.testing.assert_array_equal(first.slot, second.slot)
    np.testing.assert_array_equal(first.along, second.along)


@pytest.mark.parametrize("case", ["no flux", "all masked"])
def test_nothing_to_see_gives_no_nan(case, x64):
    # In double precision as above: one program for both.
    flux = np.zeros((3, 2)) if case == "no flux" else np.ones((3, 2))
    template = scene(decoder(np.float64), np.float64, flux)
    weight = np.zeros((2, 18, 19)) if case == "all masked" else None
    problem = problem_of(template, np.float64, weight)
    for exact in (True, False):
        result = known(unknowns_of(template), template, problem, jnp.asarray(exact))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_gradient_of_mixed_scenes_is_that_of_autodiff(x64):
    """Beside parametric sources gradient and matrix come from the same columns."""
    decoded = scene(decoder(np.float64), np.float64)
    rng = np.random.default_rng(4)
    galaxies = [
        AnySource(rng.uniform(5, 50, (4, 2)), x, 9.1, 2.0, 1.7, 0.4, [0.2, -0.1], kind)
        for x, kind in ((5.2, Kind.SERSIC), (12.9, Kind.BULGE_DISC), (15.3, Kind.POINT))
    ]
    mixed = Scene(
        [decoded.sources[0], any_stack(stack_components(galaxies))],
        ConstantBackground(jnp.asarray([0.3, -0.2])),
        decoded.dx,
        decoded.dy,
    )
    problem = problem_of(mixed, np.float64)
    assert is_by_columns(mixed, problem)
    unknowns = unknowns_of(mixed)

    def half(u):
        chi2 = chi2_by_band(u, mixed, problem)
        return 0.5 * jnp.sum(chi2), chi2

    def both(u):
        columns = columns_by_autodiff(u, mixed, problem.grid.modes)
        return chi2_of_columns(u, mixed, problem, columns)

    (_, wanted), slope = jax.jit(jax.value_and_grad(half, has_aux=True))(unknowns)
    chi2, gradient = jax.jit(both)(unknowns)
    np.testing.assert_allclose(chi2, wanted, rtol=1e-10)
    for name in ("flux", "sky", "dx", "dy", "flat_shape"):
        expected = np.asarray(getattr(slope, name))
        np.testing.assert_allclose(
            getattr(gradient, name), expected, atol=1e-8 * np.abs(expected).max(), err_msg=name
        )


@eqx.filter_jit
def render_fine(scene, psf, shape):
    return render(scene, psf, shape, quality=fine())


# Kolmogorov would do as well; widths of 3 to 5 pixels are those of the ground. The bound of a
# narrower one is what the frame cannot tell: power beyond the pixels' Nyquist frequency.
@pytest.mark.slow
@pytest.mark.parametrize(("fwhm", "bound"), [(3.0, 1e-3), (4.2, 2e-4)])
def test_a_galaxy_is_seen_as_galsim_sees_it(fwhm, bound):
    galsim = pytest.importorskip("galsim")
    size, frame = 41, Frame(41)
    disc = galsim.Exponential(half_light_radius=2.4).shear(g1=0.3, g2=-0.2)
    galaxy = 0.8 * disc + 0.2 * galsim.DeVaucouleurs(half_light_radius=1.5).shift(1.3, -0.6)
    narrow = galsim.Convolve(galaxy, galsim.Gaussian(sigma=frame.psf_sigma))
    drawn = narrow.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel", dtype=float).array
    made = decoder(size=size, mean=np.log(drawn))
    still = [eqx.tree_at(lambda one: one.weight, made.layers[-1], replace_fn=jnp.zeros_like)]
    made = eqx.tree_at(lambda d: d.layers, made, (made.layers[0], *still))
    psf = galsim.Moffat(beta=3.5, fwhm=fwhm)
    seen_through = MoffatPSF(np.array([fwhm]), np.array([3.5]))
    shape = (46, 57)
    # Near the middle, and at the border.
    for x, y in ((27.37, 20.81), (2.6, 43.2)):
        offset = (x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2)
        true = galsim.Convolve(galaxy, psf).drawImage(
            nx=shape[1], ny=shape[0], scale=1.0, offset=offset, dtype=float
        )
        source = Decoded(np.array([drawn.sum()], np.float32), x, y, jnp.zeros(LATENT), made)
        got = np.asarray(render_fine(Scene([source]), seen_through, shape))[0]
        assert np.abs(got - true.array).max() < bound * true.array.max()
