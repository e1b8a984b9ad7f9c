"""Priors of parametric galaxies: densities, what a fit asks of them, what they are learnt from."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend.batch import blend_of_arrays, fit_batch
from diffdeblend.components import AnySource, BulgeDisc, Kind, PointSource, Sersic, any_stack
from diffdeblend.components.stack import stack_components
from diffdeblend.exposure import make_exposure
from diffdeblend.fit import fit, shape_prior
from diffdeblend.fit.laplace import problem_of, weighted_samples
from diffdeblend.fit.objective import objective
from diffdeblend.fit.unknowns import scene_of, unknowns_of
from diffdeblend.grid import FIT
from diffdeblend.priors import ParametricPrior, gaussian_mixture
from diffdeblend.psf import GaussianPSF
from diffdeblend.scene import Scene, render
from diffdeblend.simulate import Catalog, Parts
from diffdeblend.simulate.synthetic import synthetic_catalog
from diffdeblend.train import MixtureSettings, catalog_features, learn_parametric


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


SHAPES = ("ln_radius", "e1", "e2", "logit_index")
ALL = (*SHAPES, "magnitude", "colour_g")


COST = eqx.filter_jit(lambda prior, unknowns, scene: prior.cost(unknowns, scene))


def drawn_mixture(n_components=3, n=6, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 0.4, (n_components, n, n)) + 0.5 * np.eye(n)
    means = rng.normal(0, 0.6, (n_components, n))
    if n == 6:
        means[:, 4] += 23
    weights = rng.uniform(0.5, 1, n_components)
    return gaussian_mixture(
        weights / weights.sum(), means, np.einsum("kij,klj->kil", root, root) + 0.05 * np.eye(n)
    )


@pytest.fixture(scope="module")
def prior():
    return ParametricPrior(drawn_mixture(), 0.05, "sersic", ALL, ("i", "g"))


def sersic(flux=(3.0, 2.0), x=10.0, radius=2.0, index=1.7, e=(0.2, -0.1)):
    return Sersic(np.array(flux), x, 12.0, radius, index, np.array(e))


def exposure(image=None, **changed):
    given = {"pixel_scale": 0.2, "zero_points": 23.9, "bands": ("g", "i")} | changed
    image = np.zeros((2, 24, 31), np.float32) if image is None else image
    psf = GaussianPSF(np.array([1.5, 1.6]))
    return make_exposure(image, np.ones_like(image), psf, **given)


@pytest.fixture(scope="module")
def scene():
    return Scene([sersic(), PointSource(np.array([2.0, 1.0]), 20.0, 8.0), sersic(x=25.0)])


def test_features_are_those_of_the_formulas(prior):
    source = sersic()
    found = prior.features_of(source, pixel_scale=0.2, zero_points=[23.9, 22.9])
    inside = np.array([0.2, -0.1]) / 0.92
    mapped = inside / np.sqrt(1 - inside @ inside)
    share = (1.7 - 0.5) / 5.7
    flux = np.array([3.0, 2.0 * 10**0.4])
    # Bright against the softening: plain magnitudes.
    magnitude = 23.9 - 2.5 * np.log10(flux)
    expected = [np.log(0.4), *mapped, np.log(share / (1 - share)), magnitude[0]]
    expected.append(magnitude[1] - magnitude[0])
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    dark = eqx.tree_at(lambda s: s.flux, source, jnp.array([-1.0, 0.0]))
    assert np.isfinite(prior.features_of(dark, pixel_scale=0.2, zero_points=[23.9, 23.9])).all()


def test_parts_of_the_prior_fit_together(prior):
    x = np.random.default_rng(1).normal(0, 0.7, 6).astype(np.float32)
    x[4] += 23
    light = prior.marginal(("magnitude", "colour_g"))
    assert light.names == ("magnitude", "colour_g")
    rest = prior.given(magnitude=float(x[4]), colour_g=float(x[5]))
    assert rest.names == SHAPES
    total = rest.log_prob(x[:4]) + light.log_prob(x[4:])
    np.testing.assert_allclose(total, prior.log_prob(x), rtol=1e-4, atol=1e-4)
    assert prior.sample(jax.random.key(0), 7).shape == (7, 6)


def test_gradient_of_a_scene_is_that_of_its_value(prior, scene):
    own = prior.scene_prior(scene, exposure(), temperature=1.3)
    shifted = jax.tree.map(lambda v: v + 0.1, unknowns_of(scene))
    flat, back = jax.flatten_util.ravel_pytree(shifted)

    @eqx.filter_jit
    def cost(numbers):
        return jax.lax.map(lambda v: own.cost(back(v), scene), numbers)

    # Finite differences, in one number after the other.
    step = 2e-2
    moves = step * jnp.eye(flat.size)
    value, slope, curvature = cost(jnp.concatenate([flat[None], flat + moves, flat - moves]))
    plain = eqx.filter_jit(lambda: own(scene_of(shifted, scene)))()
    np.testing.assert_allclose(value[0], -plain, rtol=1e-5)
    up, down = slice(1, flat.size + 1), slice(flat.size + 1, None)
    slopes = jax.jit(jax.vmap(lambda one: jax.flatten_util.ravel_pytree(one)[0]))(slope)
    expected = (value[up] - value[down]) / (2 * step)
    np.testing.assert_allclose(slopes[0], expected, rtol=2e-2, atol=2e-2)
    assert np.abs(slope.flux[0]).max() > 0.01
    # Of the Hessian in the shapes the curvature is an upper bound, and positive.
    n = shifted.flat_shape.size
    hessian = np.asarray((slopes[up] - slopes[down]) / (2 * step))[:n, :n]
    assert np.linalg.eigvalsh(curvature[0]).min() > 0
    assert np.linalg.eigvalsh(curvature[0] - 0.5 * (hessian + hessian.T)).min() > -0.02


@pytest.mark.slow
def test_fluxes_alone_are_not_judged(scene):
    """Summed over all shapes, the density is the same for any flux."""
    prior = ParametricPrior(
        drawn_mixture(2, 2, seed=3), 0.05, "sersic", ("ln_radius", "magnitude"), ("i",)
    )
    one = Scene([sersic()])
    own = prior.scene_prior(one, exposure())
    radius = jnp.linspace(-12, 12, 2001)

    @jax.jit
    def total(flux):
        unknowns = eqx.tree_at(lambda u: u.flux, unknowns_of(one), flux[None])
        shape = jnp.tile(unknowns.flat_shape, (2001, 1))
        values = jax.vmap(lambda v: own.cost(unknowns.with_flat_shape(v), one)[0])(
            shape.at[:, 2].set(radius)
        )
        return jnp.sum(jnp.exp(-values))

    sums = [float(total(jnp.array(f))) for f in ([3.0, 2.0], [0.1, 0.05], [-1.0, -2.0])]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-3)


@pytest.mark.slow
def test_mixed_sources_get_what_is_theirs(prior):
    shapes = prior.marginal(SHAPES)
    flux = np.zeros((4, 2)) + 1.0
    sources = [
        AnySource(flux, 5.0 + 5 * k, 9.0, 2.0, 1.5, 0.4, np.array([0.1, 0.2]), kind)
        for k, kind in enumerate((Kind.SERSIC, Kind.POINT, Kind.BULGE_DISC))
    ]
    stack = any_stack(stack_components(sources, size=4))
    scene = Scene([stack])
    own = shapes.scene_prior(scene, pixel_scale=0.2)
    moved = jax.tree.map(lambda v: v + 0.3, unknowns_of(scene))
    value, slope, curvature = COST(own, moved, scene)
    weak = COST(shape_prior(scene), moved, scene)
    np.testing.assert_allclose(slope.shape[0][1:], weak[1].shape[0][1:], rtol=1e-6)
    np.testing.assert_allclose(np.diag(curvature)[8:], np.asarray(weak[2])[8:], rtol=1e-6)
    np.testing.assert_allclose(slope.shape[0][0, :2], weak[1].shape[0][0, :2], rtol=1e-6)
    # Radius, index and both ellipticities are the mixture's; the ratio is nobody's.

    @eqx.filter_jit
    def slope_of_first():
        first = scene_of(moved, scene).sources[0].member(0)
        features = shapes.features_of(first, pixel_scale=0.2)
        return -jax.grad(shapes.log_prob)(features)

    slopes = slope_of_first()
    np.testing.assert_allclose(
        slope.shape[0][0, np.array([2, 5, 6, 3])], slopes, rtol=1e-3, atol=1e-4
    )
    quiet = eqx.tree_at(lambda s: s.sources[0].members.kind, scene, jnp.full(4, 3))
    silent = COST(shapes.scene_prior(quiet, pixel_scale=0.2), moved, quiet)
    np.testing.assert_allclose(silent[0], weak[0], rtol=1e-6)
    assert float(value) != pytest.approx(float(weak[0]))


@pytest.mark.slow
def test_a_fit_with_a_prior_is_the_best_scene():
    """Where the light says little, shapes are drawn to the prior; errors shrink with it."""
    rng = np.random.default_rng(0)
    true = Scene([sersic((40.0, 60.0), 13.0, 2.2, 1.2, (0.15, 0.1))])

    image = render(true, exposure().psf, (24, 31)) + rng.standard_normal((2, 24, 31)).astype(
        np.float32
    )
    seen = exposure(np.asarray(image, np.float32))
    narrow = gaussian_mixture(
        [1.0], [[np.log(0.44), 0.1, 0.1, -1.9]], [np.diag([0.1, 0.1, 0.1, 0.2]) ** 2]
    )
    prior = ParametricPrior(narrow, 1.0, "sersic", SHAPES)
    start = Scene([sersic((20.0, 20.0), 13.0, 3.0, 2.0, (0.0, 0.0))])
    own = prior.scene_prior(start, seen)
    found = fit(start, seen, prior=own)
    assert found.converged
    member, error = found.scene.sources[0].members, found.errors.sources[0].members
    # Sizes and indices are known better than by a tenth before any data, and no worse after.
    assert abs(np.log(member.radius[0] / 2.2)) < 0.15
    assert error.radius[0] / member.radius[0] < 0.1
    assert abs(member.flux[0, 1] - 60) < 4 * found.flux_error[0, 1]
    slope = jax.grad(lambda u: objective(u, found.scene, problem_of(found, seen, own, FIT)))
    left = slope(unknowns_of(found.scene)).flat_shape
    # A step that is left to go lowers the objective by less than the tolerance of the fit.
    assert 0.5 * left @ found.covariance.shape @ left < 0.05
    drawn = weighted_samples(found, seen, own, jax.random.key(1), 64)
    # A prior that is nearly normal leaves a posterior that is.
    assert drawn.effective_size > 30


@pytest.mark.slow
def test_a_batch_takes_the_prior_as_a_single_fit_does(compilations):
    rng = np.random.default_rng(4)
    psf = GaussianPSF(np.array([3.0, 3.2]))
    true = Scene([sersic((90.0, 120.0), 11.0, 2.2, 1.2, (0.15, 0.1))])
    stamps = []
    for _ in range(2):
        image = render(true, psf, (24, 31)) + rng.standard_normal((2, 24, 31))
        stamps.append(blend_of_arrays(np.asarray(image), 1.0, psf, [[11.0, 12.0]]))

    def prior_of(radius):
        """Of two kinds of galaxies; the brighter, the larger."""
        spread = np.diag([0.2, 0.1, 0.1, 0.4, 0.5, 0.3])
        spread[0, 4] = spread[4, 0] = -0.2
        means = [[np.log(radius), 0, 0, -1.5, 19, 0.3], [np.log(radius), 0, 0, 0.5, 19, 0.8]]
        mixture = gaussian_mixture([0.6, 0.4], means, [spread, 1.2 * spread])
        return ParametricPrior(mixture, 0.5, "sersic", ALL, ("i", "g"))

    prior = prior_of(0.4)
    given = {"pixel_scale": 0.2, "zero_points": [23.9, 23.9], "bands": ("g", "i")}
    settings = {"model": "sersic", "background": "none", "model_error": 0, "trim": False}
    settings["sizes"] = (32,)
    found = fit_batch(stamps, prior=prior.on(**given), **settings)
    assert found.converged.all()
    member = Sersic(
        found.flux[1],
        found.x[1],
        found.y[1],
        found.radius[1],
        found.index[1],
        found.ellipticity[1],
    )
    start = Scene([member])
    # The positions are those of the stamp, with the error that a batch assumes.
    home = eqx.tree_at(
        lambda s: (s.sources[0].members.x, s.sources[0].members.y),
        start,
        (jnp.array([11.0]), jnp.array([12.0])),
    )
    own = prior.scene_prior(home, position_error=0.5, **given)
    exposed = make_exposure(stamps[1].data, np.ones((2, 24, 31), np.float32), psf)
    single = fit(start, exposed, prior=own)
    values = single.scene.sources[0].members
    np.testing.assert_allclose(values.radius[0], found.radius[1], rtol=0.03)
    np.testing.assert_allclose(values.flux[0], found.flux[1], rtol=0.03)
    # Another prior compiles nothing.
    wider = prior_of(0.8).on(**given)
    compilations.clear()
    other = fit_batch(stamps, prior=wider, **settings)
    assert not compilations
    assert other.radius[1] > found.radius[1]
    with pytest.raises(ValueError, match="`prior`"):
        fit_batch(stamps, prior=prior, **settings)


# Learning.


def test_features_of_a_catalogue_and_of_its_sources_agree():
    rng = np.random.default_rng(2)
    n = 40
    radius, index = rng.uniform(0.2, 1, n), rng.uniform(0.8, 5, n)
    g = rng.uniform(-0.5, 0.5, (2, n))
    table = synthetic_catalog(n, rng).table
    table["size"] = radius
    parts = Parts(*(v[:, None] for v in (index, radius, g[0], g[1], np.ones(n))))
    features = catalog_features(Catalog(table, parts), bands=("i", "g"), softening=0.01)
    prior = ParametricPrior(drawn_mixture(), 0.01, "sersic", features.names, features.bands)
    for row in (0, 17):
        flux = 10 ** (0.4 * (23.9 - np.array([table[f"{b}_ab"][row] for b in "ig"])))
        source = Sersic(flux, 0, 0, radius[row] / 0.2, index[row], g[:, row])
        own = prior.features_of(source, pixel_scale=0.2, zero_points=[23.9, 23.9])
        np.testing.assert_allclose(features.values[row], own, rtol=1e-4, atol=1e-4)


def test_a_sum_of_equal_parts_is_one_of_them():
    table = synthetic_catalog(3, np.random.default_rng(0)).table
    one = np.tile([[0.8, 2.5, 5.0]], (2, 1)).T
    radius, half = np.full((3, 2), 0.5), np.full((3, 2), 0.5)
    table["size"] = 0.5
    parts = Parts(one, radius, 0.3 * one / one, 0 * one, half)
    features = catalog_features(Catalog(table, parts)).values
    share = (np.array([0.8, 2.5, 5.0]) - 0.5) / 5.7
    np.testing.assert_allclose(features[:, 3], np.log(share / (1 - share)), atol=0.01)
    inside = 0.3 / 0.92
    np.testing.assert_allclose(features[:, 1], inside / np.sqrt(1 - inside**2), rtol=1e-6)


@pytest.mark.slow
def test_a_prior_is_learnt_and_remembers_how():
    catalog = synthetic_catalog(1200, np.random.default_rng(1))
    settings = MixtureSettings(n_components=3, starts=1, outliers=0.02, max_steps=60)
    features = catalog_features(catalog, "bulge_disc", bands=("i",))
    prior = learn_parametric(features, population="drawn", settings=settings)
    again = learn_parametric(features, population="drawn", settings=settings)
    assert eqx.tree_equal(prior, again)
    assert prior.training.n_galaxies == len(features.rows)
    assert prior.training.settings_hash == again.training.settings_hash
    other = learn_parametric(features, population="drawn", settings=replace(settings, seed=1))
    assert other.training.settings_hash != prior.training.settings_hash
    # Brighter galaxies are larger: half a dex in five magnitudes, as they were drawn.
    sizes = [
        float(np.mean(prior.given(magnitude=m).sample(jax.random.key(0), 4000)[:, 0]))
        for m in (22.5, 25.0)
    ]
    assert abs((sizes[0] - sizes[1]) / 2.5 - 0.1 * np.log(10)) < 0.08
    turned = prior.sample(jax.random.key(2), 50)
    swapped = turned.at[:, 1].set(turned[:, 2]).at[:, 2].set(-turned[:, 1])
    density = jax.jit(jax.vmap(prior.log_prob))
    np.testing.assert_allclose(density(turned), density(swapped), rtol=1e-4, atol=1e-4)


# What is refused.


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: p.marginal(("size",)), "names"),
        (lambda p: p.given(size=1.0), "values"),
        (lambda p: p.given(magnitude=np.nan), "values"),
        (lambda p: p.features_of(PointSource(np.ones(2), 0, 0), pixel_scale=1.0), "component"),
        (lambda p: p.features_of(sersic(), pixel_scale=1.0), "zero_points"),
        (lambda p: p.scene_prior(Scene([sersic()])), "pixel_scale"),
        (lambda p: p.scene_prior(Scene([sersic()]), pixel_scale=0.2), "zero_points"),
        (
            lambda p: p.scene_prior(Scene([sersic()]), exposure(), pixel_scale=0.21),
            "pixel_scale",
        ),
        (
            lambda p: p.scene_prior(Scene([sersic()]), exposure(), zero_points=(25, 25)),
            "zero_points",
        ),
        (lambda p: p.scene_prior(Scene([sersic()]), exposure(bands=("i", "z"))), "bands"),
        (
            lambda p: p.scene_prior(
                Scene([BulgeDisc(np.ones((2, 2)), 0, 0, 1, 1, np.zeros(2))]), exposure()
            ),
            "start",
        ),
        (lambda p: ParametricPrior(p.mixture, 1.0, "spiral", ALL), "family"),
        (lambda p: ParametricPrior(p.mixture, 1.0, "sersic", ALL), "names"),
        (lambda p: ParametricPrior(p.mixture, 1.0, "sersic", SHAPES), "mixture"),
        (lambda p: ParametricPrior(p.mixture, 1.0, "sersic", ("ln_radius", "e1")), "names"),
    ],
)
def test_what_makes_no_sense_is_refused(prior, call, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        call(prior)
