"""Fits: every method finds the truth, errors are those of the data, nothing compiles twice."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import least_squares

from diffdeblend import (
    BulgeDisc,
    ConstantBackground,
    FirstOrder,
    GaussianPSF,
    LevenbergMarquardt,
    MultiGaussian,
    Pixels,
    PointSource,
    ProximalGradient,
    Scene,
    Sersic,
    make_exposure,
    render,
)
from diffdeblend.fit import fit, shape_prior
from diffdeblend.fit.objective import make_problem, objective
from diffdeblend.fit.unknowns import free_numbers, scene_of, unknowns_of
from diffdeblend.grid import FIT

SHAPE = (37, 43)
BANDS = ("g", "r")
PSF = GaussianPSF(np.array([3.1, 2.6]))
NOISE = np.array([0.5, 0.8])


def truth() -> Scene:
    return Scene(
        [
            Sersic([400.0, 700.0], 15.3, 20.8, 3.0, 1.3, [0.15, -0.1]),
            PointSource([250.0, 120.0], 27.6, 15.1),
        ],
        ConstantBackground([0.7, -0.4]),
    )


def start() -> Scene:
    return Scene(
        [
            Sersic([0.0, 0.0], 15.0, 21.0, 2.2, 1.8, [0.0, 0.0]),
            PointSource([0.0, 0.0], 27.3, 15.4),
        ],
        ConstantBackground([0.0, 0.0]),
    )


def observe(scene: Scene, seed: int = 0, scale: float = 1.0):
    image = np.asarray(render(scene, PSF, SHAPE, quality=FIT))
    noise = np.random.default_rng(seed).normal(size=image.shape) * NOISE[:, None, None]
    variance = np.broadcast_to(NOISE[:, None, None] ** 2, image.shape)
    return make_exposure(scale * (image + noise), scale**2 * variance, PSF, bands=BANDS)


def close(found, errors, true, n_sigma=5.0):
    """Every number of the scene within some of its own errors of the truth."""
    for stack, sigma, real in zip(found.sources, errors.sources, true.sources, strict=True):
        for name in ("flux", "x", "y", "radius", "index", "ellipticity"):
            if hasattr(stack.members, name):
                value, error, wanted = (
                    np.asarray(getattr(s.members, name)) for s in (stack, sigma, real)
                )
                assert (error > 0).all(), name
                assert (np.abs(value - wanted) < n_sigma * error).all(), name


@pytest.mark.slow
def test_default_method_finds_the_truth():
    found = fit(start(), observe(truth()))
    assert found.converged
    assert found.finite
    assert 0.9 < found.reduced_chi2 < 1.1
    assert found.steps < 30
    history = np.asarray(found.history)[: int(found.steps)]
    assert (np.diff(history) <= 1e-6 * history[:-1]).all()
    close(found.scene, found.errors, truth())


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_ends_where_scipy_ends(x64, exact):
    exposure = observe(truth(), seed=1)
    method = LevenbergMarquardt(tolerance=1e-9, exact=exact, max_steps=200)
    found = fit(start(), exposure, prior=None, method=method)
    problem = make_problem(
        exposure.data, exposure.weight, exposure.psf, free_numbers(start(), None), None, FIT
    )
    flat, unravel = jax.flatten_util.ravel_pytree(unknowns_of(found.scene))

    def residuals(vector):
        scene = scene_of(unravel(vector), found.scene)
        model = render(scene, exposure.psf, SHAPE, quality=FIT)
        return ((exposure.data - model) * jnp.sqrt(exposure.weight)).reshape(-1)

    # The shifts of the bands are held in the fit: keep them out here too.
    held = np.asarray(jax.flatten_util.ravel_pytree(free_numbers(start(), None))[0]) > 0
    begin = np.asarray(flat).copy()
    begin[held] += 1e-3 * np.random.default_rng(0).normal(size=held.sum())

    def of_free(vector):
        return np.asarray(residuals(jnp.asarray(np.where(held, _spread(vector, held), begin))))

    jacobian = jax.jit(jax.jacfwd(residuals))
    best = least_squares(
        of_free,
        begin[held],
        jac=lambda v: np.asarray(
            jacobian(jnp.asarray(_spread(v, held) + np.where(held, 0, begin)))
        )[:, held],
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-14,
        gtol=1e-12,
    )
    ours = float(objective(unknowns_of(found.scene), found.scene, problem))
    assert ours == pytest.approx(best.cost, abs=1e-6)
    # Errors: the inverse of the dense matrix that scipy's Jacobian gives.
    dense = np.linalg.inv(best.jac.T @ best.jac)
    sigma = np.sqrt(np.diag(dense))
    names = jax.flatten_util.ravel_pytree(unknowns_of(found.errors))[0]
    by_number = np.zeros(held.size)
    by_number[held] = sigma
    wanted = unravel(jnp.asarray(by_number))
    assert np.asarray(found.errors.sources[0].members.flux) == pytest.approx(
        np.asarray(wanted.flux[:1]), rel=1e-3
    )
    assert float(found.errors.sources[0].members.x[0]) == pytest.approx(
        float(wanted.shape[0][0, 0]), rel=1e-3
    )
    assert float(found.errors.background.coefficients[1, 0]) == pytest.approx(
        float(wanted.sky[1, 0]), rel=1e-3
    )
    assert names.shape == flat.shape


def _spread(vector, held):
    full = np.zeros(held.size)
    full[held] = vector
    return full


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(FirstOrder(optax.adam(0.3), max_steps=600), marks=pytest.mark.slow),
        pytest.param(FirstOrder(optax.lbfgs(), max_steps=200), marks=pytest.mark.slow),
        pytest.param(optax.adam(optax.exponential_decay(0.5, 200, 0.3)), marks=pytest.mark.slow),
    ],
    ids=["adam", "lbfgs", "bare transformation"],
)
def test_optax_reaches_the_same_optimum(method):
    exposure = observe(truth(), seed=2)
    prior = shape_prior(start())
    best = fit(start(), exposure, prior=prior)
    found = fit(start(), exposure, prior=prior, method=method)
    assert type(found) is type(best)
    assert float(jnp.nanmin(found.history)) < float(jnp.nanmin(best.history)) + 2
    moved = np.asarray(found.scene.sources[0].members.flux - best.scene.sources[0].members.flux)
    assert (np.abs(moved) < 2 * np.asarray(best.flux_error)[:1]).all()


@pytest.mark.slow
def test_errors_are_the_scatter_of_repeated_fits():
    template = observe(truth())
    method = LevenbergMarquardt()
    pulls = []
    for seed in range(40):
        exposure = observe(truth(), seed=100 + seed)
        found = fit(truth(), exposure, method=method, prior=None)
        flux = found.scene.sources[0].members.flux[0], found.scene.sources[1].members.flux[0]
        wanted = truth().sources[0].members.flux[0], truth().sources[1].members.flux[0]
        sigma = np.asarray(found.flux_error)
        pulls.append(
            [
                (np.asarray(f) - np.asarray(w)) / s
                for f, w, s in zip(flux, wanted, sigma, strict=True)
            ]
        )
    pulls = np.array(pulls)
    assert template.shape == SHAPE
    assert abs(pulls.mean()) < 0.35
    assert 0.8 < pulls.std() < 1.25


@pytest.mark.slow
def test_total_flux_error_counts_the_parts_together():
    scene = Scene(
        [BulgeDisc([[300.0, 400.0], [150.0, 250.0]], 20.2, 18.4, 4.0, 0.4, [0.1, 0.2])],
    )
    found = fit(scene, observe(scene), prior=None)
    both = found.covariance.band(0)[:2, :2]
    assert float(found.flux_error[0, 0]) == pytest.approx(float(jnp.sqrt(both.sum())), rel=1e-3)
    # Disc and bulge are confused: their sum is known better than either.
    assert found.flux_error[0, 0] < found.errors.sources[0].members.flux[0, 0, 0]


@pytest.mark.slow
def test_covariance_is_symmetric_and_positive():
    found = fit(start(), observe(truth()))
    dense = np.asarray(found.covariance.dense())
    assert np.allclose(dense, dense.T, rtol=1e-4, atol=1e-6 * np.abs(dense).max())
    free = np.diag(dense) > 0
    scale = np.sqrt(np.diag(dense)[free])
    correlation = dense[np.ix_(free, free)] / scale / scale[:, None]
    assert np.linalg.eigvalsh(correlation).min() > -1e-4
    # 2 bands x (2 fluxes + sky), 6 shapes of the Sersic, 2 of the point.
    assert free.sum() == 14
    assert 13 < found.covariance.n_effective <= 14


@pytest.mark.parametrize("scale", [2.0**-13, 2.0**13, 1e6, 1e-6])
def test_the_unit_of_the_data_does_not_matter(scale):
    plain = fit(start(), observe(truth(), seed=3))
    scaled = fit(start(), observe(truth(), seed=3, scale=scale))
    flux = np.asarray(plain.scene.sources[0].members.flux)
    other = np.asarray(scaled.scene.sources[0].members.flux) / scale
    assert (np.abs(flux - other) < 0.05 * np.asarray(plain.flux_error)[:1]).all()
    assert bool(scaled.converged) == bool(plain.converged)


def test_what_is_held_stays():
    found = fit(
        start(),
        observe(truth()),
        free=lambda s: (s.sources[0].members.flux, s.sources[1].members.flux),
    )
    before, after = start().sources[0].members, found.scene.sources[0].members
    assert np.asarray(after.x) == pytest.approx(np.asarray(before.x))
    assert np.asarray(after.radius) == pytest.approx(np.asarray(before.radius), rel=1e-6)
    assert np.asarray(found.errors.sources[0].members.radius) == pytest.approx(0)
    assert np.asarray(found.scene.background.coefficients) == pytest.approx(0)
    assert (np.asarray(after.flux) != 0).all()


def test_shift_of_a_band_is_found():
    true = eqx.tree_at(lambda s: s.dx, truth(), jnp.array([0.0, 0.21]))
    scene = start()
    free = free_numbers(scene, None)
    free = eqx.tree_at(lambda f: (f.dx, f.dy), free, (jnp.array([0.0, 1.0]),) * 2)
    found = fit(scene, observe(true), free=free)
    assert abs(float(found.scene.dx[1]) - 0.21) < 5 * float(found.errors.dx[1])
    assert 0 < float(found.errors.dx[1]) < 0.05
    assert float(found.scene.dx[0]) == 0


@pytest.mark.slow
def test_prior_is_any_function_of_the_scene():
    def round_ones(scene):
        return -0.5 * jnp.sum((scene.sources[0].members.ellipticity / 0.001) ** 2)

    found = fit(start(), observe(truth()), prior=round_ones)
    assert np.abs(np.asarray(found.scene.sources[0].members.ellipticity)).max() < 0.01
    assert found.covariance.n_effective < 13


def test_masked_and_infinite_pixels_are_left_out():
    clean = observe(truth(), seed=4)
    image = np.asarray(clean.image).copy()
    variance = np.asarray(clean.variance).copy()
    mask = np.zeros(image.shape, dtype=bool)
    image[0, 20, 15] = np.nan
    image[1, 10:12, 5] = 1e6
    mask[1, 10:12, 5] = True
    variance[0, 30, 30] = np.inf
    variance[1, 3, 3] = np.nan
    dirty = make_exposure(image, variance, PSF, mask=mask, bands=BANDS)
    found = fit(start(), dirty)
    reference = fit(start(), clean)
    assert found.finite
    assert int(found.n_pixels.sum()) == image.size - 5
    moved = np.asarray(
        found.scene.sources[0].members.flux - reference.scene.sources[0].members.flux
    )
    assert (np.abs(moved) < np.asarray(found.flux_error)[:1]).all()


def test_a_fit_without_signal_is_finite():
    blank = make_exposure(np.zeros((2, *SHAPE)), np.ones((2, *SHAPE)), PSF, bands=BANDS)
    found = fit(start(), blank)
    assert found.finite
    assert np.abs(np.asarray(found.scene.sources[0].members.flux)).max() < 1e-3


def test_second_fit_does_not_compile(compilations):
    method = LevenbergMarquardt()
    fit(start(), observe(truth(), seed=5), method=method)
    other = Scene(
        [
            Sersic([0.0, 0.0], 14.0, 20.0, 3.2, 1.1, [0.1, 0.0]),
            PointSource([0.0, 0.0], 28.0, 15.0),
        ],
        ConstantBackground([0.1, 0.0]),
    )
    exposure = observe(truth(), seed=6)
    compilations.clear()
    fit(other, exposure, method=method)
    assert not compilations


@pytest.mark.slow
def test_vmap_over_exposures_equals_one_by_one():
    scenes = [start(), start()]
    exposures = [observe(truth(), seed=s) for s in (7, 8)]
    problems = [
        make_problem(e.data, e.weight, e.psf, free_numbers(s, None), shape_prior(s), FIT)
        for s, e in zip(scenes, exposures, strict=True)
    ]
    from diffdeblend.fit.levenberg_marquardt import levenberg_marquardt

    method = LevenbergMarquardt()
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    both = jax.vmap(lambda p: levenberg_marquardt(method, scenes[0], p))(together)
    for number, problem in enumerate(problems):
        alone = levenberg_marquardt(method, scenes[0], problem)
        assert float(both.value[number]) == pytest.approx(float(alone.value), abs=0.05)


@pytest.mark.slow
def test_multi_gaussian_follows_a_galaxy():
    scene = Scene([Sersic([3000.0, 2000.0], 21.3, 17.6, 3.0, 1.2, [0.2, 0.1])])
    model = Scene([MultiGaussian(np.zeros((4, 2)), 21.0, 18.0, 3.0, [0.0, 0.0])])
    found = fit(model, observe(scene))
    total = np.asarray(found.scene.sources[0].members.flux[0].sum(axis=0))
    assert total == pytest.approx([3000, 2000], rel=0.05)
    assert found.reduced_chi2 < 1.15


@pytest.mark.slow
def test_free_pixels_find_a_galaxy_and_keep_their_constraints():
    scene = Scene([Sersic([3000.0, 2000.0], 21.0, 18.0, 3.0, 1.0, [0.3, 0.1])])
    yy, xx = np.mgrid[-10:11, -10:11]
    blob = np.exp(-np.hypot(xx, yy) / 3)
    pixels = Pixels([0.0, 0.0], 21.0, 18.0, blob, monotonic=True, symmetric=True)
    method = ProximalGradient(max_steps=80, freedom=10.0)
    found = fit(Scene([pixels]), observe(scene), method=method, prior=None)
    member = found.scene.components()[0]
    assert found.reduced_chi2 < 1.3
    assert np.asarray(member.flux) == pytest.approx([3000, 2000], rel=0.05)
    image = np.asarray(member.morphology)
    assert (image >= 0).all()
    assert image == pytest.approx(image[::-1, ::-1], abs=1e-5 * float(image.max()))
    row = image[10, 10:]
    assert (np.diff(row) <= 1e-5 * image.max()).all()


def test_bad_calls_say_what_is_wrong():
    exposure = observe(truth())
    one_band = Scene([PointSource([1.0], 3.0, 4.0)])
    with pytest.raises(ValueError, match="1 bands"):
        fit(one_band, exposure)
    with pytest.raises(ValueError, match="free"):
        fit(start(), exposure, free=lambda s: s.nothing)
    with pytest.raises(ValueError, match="one stack of `Pixels`"):
        fit(start(), exposure, method=ProximalGradient())
