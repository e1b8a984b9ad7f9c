"""Free pixels in a batch: what no model can be, found without a neighbour's light."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import convolve1d
from scipy.optimize import nnls
from scipy.stats import norm

from diffdeblend import GaussianPSF, PointSource, Scene, Sersic, render
from diffdeblend.batch import FreeForm, blend_of_arrays, fit_batch
from diffdeblend.batch.free_form import (
    ParametricBlend,
    contested,
    free_form_in_turn,
    non_negative,
)
from diffdeblend.batch.prepare import quality_for
from diffdeblend.batch.program import Setup, start_of
from diffdeblend.batch.task import Bucket, Task, first_guess, pack_tasks
from diffdeblend.components import AnyStack, Kind
from diffdeblend.deblend.catalog import Flag
from diffdeblend.grid import make_grid
from diffdeblend.psf.abstract import transfer

FWHM = np.array([3.2, 2.8], np.float32)
PSF = GaussianPSF(FWHM)
NOISE = np.array([1.0, 0.7])
SETTINGS = {"model": "sersic", "model_error": 0.0, "sizes": (32, 64), "restarts": 0, "trim": False}
HOW = FreeForm()
# All of these need programs of half a minute and more.
pytestmark = pytest.mark.slow
# A galaxy with a clump and an arm that no model has, and a fainter neighbour that has none.
GALAXY = np.array([6000.0, 5000.0])
CLUMPS = [(0.10, 2.6, 1.4), (0.06, -2.2, -1.9), (0.05, 1.0, -3.4)]
NEIGHBOUR = np.array([500.0, 700.0])


@jax.jit
def drawn_scene(x, y):
    sources = [
        Sersic(GALAXY * (1 - sum(c[0] for c in CLUMPS)), x, y, 2.6, 1.0, [0.2, 0.1]),
        *[PointSource(GALAXY * share, x + dx, y + dy) for share, dx, dy in CLUMPS],
        Sersic(NEIGHBOUR, x + 9.5, y + 5.0, 1.6, 1.2, [0.0, -0.1]),
    ]
    return render(Scene(sources), PSF, (32, 32))


def simulated(seed, **changes):
    """A lumpy galaxy beside a smooth one, with noise."""
    draw = np.random.default_rng(seed)
    x, y = 12.0 + draw.uniform(-0.5, 0.5), 13.0 + draw.uniform(-0.5, 0.5)
    image = np.asarray(drawn_scene(x, y), float)
    data = image + NOISE[:, None, None] * draw.normal(size=image.shape)
    places = [[x, y], [x + 9.5, y + 5.0]]
    settings = {"data": data.astype(np.float32), "variance": NOISE**2, "psf": PSF}
    return blend_of_arrays(**(settings | {"positions": places} | changes))


@pytest.fixture(scope="module")
def blends():
    return [simulated(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def plain(blends):
    return fit_batch(blends, **SETTINGS)


@pytest.fixture(scope="module")
def found(blends):
    return fit_batch(blends, **SETTINGS, free_form=HOW, images=True)


def test_clumps_are_found_and_the_neighbour_keeps_its_light(plain, found):
    lumpy, smooth = np.arange(0, 8, 2), np.arange(1, 8, 2)
    # Without free pixels the fit is plainly wrong; with them noise alone is left.
    assert (plain.reduced_chi2 > 1.5).all()
    assert ((found.reduced_chi2 > 0.85) & (found.reduced_chi2 < 1.15)).all()
    assert (found.flags[lumpy] & Flag.FREE_FORM > 0).all()
    before, after = (np.abs(f.flux[lumpy] / GALAXY - 1).mean() for f in (plain, found))
    assert after < 0.03
    assert after < before
    away = np.abs(found.flux[smooth] / NEIGHBOUR - 1)
    assert away.max() < 0.1
    assert (found.flags[smooth] & Flag.NEGATIVE_FLUX == 0).all()


def test_images_are_what_was_fitted(blends, found):
    for n, blend in enumerate(blends):
        assert found.images[n].shape == (2, *blend.data.shape)
        left = blend.data - found.images[n].sum(axis=0) - found.sky[n][:, :1, None]
        chi2 = np.sum(blend.weight * left**2, axis=(1, 2))
        np.testing.assert_allclose(found.chi2[n], chi2, rtol=1e-4)
        # Positive pixels seen through a positive PSF, but for modes that were left out.
        floor = -0.01 * found.images[n].max(axis=(2, 3), keepdims=True)
        assert (found.images[n] >= floor).all()
        # All light lies on the stamp but for a wing.
        within = found.images[n].sum(axis=(2, 3)) / found.flux[found.rows(n)]
        assert ((within > 0.97) & (within < 1.005)).all()


def test_errors_and_shapes_stay_those_of_the_model(plain, found):
    for name in ("x", "y", "radius", "index", "ellipticity", "flux_err", "steps", "value"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)


def test_nothing_depends_on_order_or_company(blends, found):
    order = [2, 0, 3]
    again = fit_batch([blends[n] for n in order], **SETTINGS, free_form=HOW)
    for place, n in enumerate(order):
        for name in ("flux", "contest", "flags"):
            one, other = getattr(again, name), getattr(found, name)
            np.testing.assert_array_equal(one[again.rows(place)], other[found.rows(n)])
        np.testing.assert_array_equal(again.chi2[place], found.chi2[n])


def test_a_bad_blend_disturbs_nobody(blends, found):
    hidden = simulated(9, mask=np.ones((32, 32), bool))
    wild = simulated(10, data=np.full((2, 32, 32), 1e7, np.float32))
    mixed = fit_batch([hidden, blends[0], wild, blends[1]], **SETTINGS, free_form=HOW)
    for n, place in enumerate((1, 3)):
        np.testing.assert_array_equal(mixed.flux[mixed.rows(place)], found.flux[found.rows(n)])
    bad = mixed.flags[mixed.rows(0)]
    assert (bad & Flag.NON_FINITE > 0).all()
    assert (bad & Flag.FREE_FORM == 0).all()


def test_a_second_call_compiles_nothing(found, compilations):
    others = [simulated(20 + n) for n in range(3)]
    compilations.clear()
    again = fit_batch(others, **SETTINGS, free_form=HOW, images=True)
    assert (again.flags & Flag.FREE_FORM > 0).any()
    assert compilations == []


def test_any_unit_gives_the_same(blends, found):
    unit = 2.0**-20
    scaled = simulated(0, data=blends[0].data * unit, variance=NOISE**2 * unit**2)
    again = fit_batch([scaled], **SETTINGS, free_form=HOW)
    np.testing.assert_allclose(again.flux / unit, found.flux[:2], rtol=1e-6)


@pytest.mark.slow
def test_free_form_as_a_model_refines_all_bright_sources(blends):
    found = fit_batch(blends[:1], **(SETTINGS | {"model": "free_form"}))
    assert (found.flags & Flag.FREE_FORM > 0).all()
    assert found.reduced_chi2[0] < 1.15


@pytest.mark.parametrize("name", ["freedom", "blur", "rounds", "steps"])
def test_wrong_settings_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        FreeForm(**{name: 0})


def test_non_negative_is_the_bounded_least_squares():
    draw = np.random.default_rng(3)
    for _ in range(20):
        columns = np.abs(draw.normal(size=(40, 4)))
        data = columns @ np.array([2.0, -0.3, 0.0, 1.0]) + 0.3 * draw.normal(size=40)
        matrix = (columns.T @ columns).astype(np.float32)
        right = (columns.T @ data).astype(np.float32)
        got = non_negative(jnp.asarray(matrix), jnp.asarray(right), jnp.ones(4, bool))[0]
        cost = np.sum((columns @ np.asarray(got, float) - data) ** 2)
        assert (np.asarray(got) >= 0).all()
        # A few passes need not find the very best set, but come near to it.
        assert cost <= nnls(columns, data)[1] ** 2 * 1.02


def test_non_negative_leaves_what_is_dark_at_zero():
    matrix = jnp.asarray([[2.0, 0.0], [0.0, 0.0]])
    found, inverse = non_negative(matrix, jnp.asarray([3.0, 0.0]), jnp.asarray([True, True]))
    np.testing.assert_allclose(found, [1.5, 0.0], rtol=1e-4)
    np.testing.assert_allclose(inverse, [[0.5, 0.0], [0.0, 0.0]], rtol=1e-4)


@pytest.mark.slow
def test_side_by_side_as_on_an_accelerator_finds_the_same(blends):
    tasks = []
    for blend in blends[:2]:
        kind, radius = np.full(2, int(Kind.SERSIC)), np.array([2.6, 1.6])
        guess = first_guess(blend.positions, radius, radius, kind, 1.0, (2, 1))
        guess.flux[:, 0] = [GALAXY, NEIGHBOUR]
        tasks.append(Task(blend, np.ones(2), guess, (32, 64)))
    packed, psfs = pack_tasks(tasks, Bucket(32, 4, 4), 2)
    one, other = (
        free_form_in_turn(
            packed,
            psfs,
            np.int32(2),
            HOW,
            Setup(quality_for([PSF]), together=together),
            False,
        )
        for together in (False, True)
    )
    assert one.chosen[:, 0].all()
    assert (one.value[:, 1] < 0.8 * one.value[:, 0]).all()
    for name in ("flux", "sky", "chi2", "value", "contest"):
        first, second = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3, err_msg=name)


def test_contest_needs_an_overlap_and_a_change():
    y, x = np.mgrid[:24, :40]
    images = [np.exp(-0.5 * ((x - at) ** 2 + (y - 12) ** 2) / 2.0**2) for at in (8, 11, 32)]
    before = jnp.asarray(np.stack(images).reshape(3, 1, -1), jnp.float32)
    weight = jnp.ones((1, before.shape[2]), jnp.float32)
    got = contested(before, jnp.asarray([[0.1], [0.0], [0.5]]), weight)
    # Two Gaussians of one width s at a distance d: exp(-d^2 / 4 s^2).
    np.testing.assert_allclose(got, [0.1 * np.exp(-9 / 16), 0, 0], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_free_pixels_are_seen_through_the_rest_of_the_psf():
    blend, size = _alone()
    z = np.zeros((1, size * size), np.float32)
    z[0, 15 * size + 17] = 3.0
    light = jnp.asarray(np.array([[700.0, 400.0], [0, 0]]), jnp.float32)
    got = np.asarray(blend.forward(light, jnp.asarray(z)))
    spread = (z * np.asarray(blend.template)[:1]).reshape(size, size)
    for band, width in enumerate(FWHM / np.sqrt(8 * np.log(2))):
        rest = np.sqrt(width**2 - HOW.blur**2)
        # A Gaussian averaged over a pixel.
        line = np.diff(norm.cdf((np.arange(-12, 14) - 0.5) / rest))
        want = light[0, band] * convolve1d(convolve1d(spread, line, axis=0), line, axis=1)
        np.testing.assert_allclose(got[band].reshape(size, size), want, atol=2e-3 * want.max())


def test_forward_and_adjoint_are_one_matrix():
    blend, size = _alone()
    draw = np.random.default_rng(0)
    light = jnp.asarray(np.array([[700.0, 400.0], [0, 0]]), jnp.float32)
    z = jnp.asarray(draw.normal(size=(1, size * size)), jnp.float32)
    image = jnp.asarray(draw.normal(size=(2, size * size)), jnp.float32)
    one = float(jnp.vdot(image, blend.forward(light, z)))
    other = float(jnp.vdot(blend.adjoint(light, image), z))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def _alone():
    """One Sersic galaxy on a stamp without a sky, ready to be refined."""
    size = 32
    guess = first_guess(
        np.array([[15.5, 15.0]]),
        np.array([2.0]),
        np.array([2.0]),
        np.array([Kind.SERSIC]),
        1.0,
        (2, 0),
    )
    stamp = blend_of_arrays(np.zeros((2, size, size), np.float32), 1.0, PSF, [[15.5, 15.0]])
    task = Task(stamp, np.ones(2), guess, (size,))
    packed, _ = pack_tasks([task], Bucket(size, 1, 2), 1)
    packed = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), packed)
    quality = quality_for([PSF])
    stack = start_of(packed, Setup(quality, "none"))[0].sources[0]
    assert isinstance(stack, AnyStack)
    grid = make_grid((size, size), quality)
    basis = jnp.zeros((0, size, size), jnp.float32)
    return ParametricBlend(stack, packed, transfer(PSF, grid, quality), basis, grid, HOW), size
