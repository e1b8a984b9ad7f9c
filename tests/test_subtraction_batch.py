"""Stacks of stamp pairs against a loop over exposures, and their fits against the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import hasty
from subtraction_fields import SIGMA_NEW, SIGMA_REFERENCE, field, gaussian_stamp, stars

from diffdeblend.exposure import make_exposure
from diffdeblend.subtract import (
    SystematicNoise,
    fit_batch,
    fit_pair,
    misfit,
    subtract,
    subtract_batch,
)
from diffdeblend.subtract.fill import fill_holes, fill_layers
from diffdeblend.subtract.maps import ImagePair

N, SIDE = 32, 64
RNG = np.random.default_rng(5)
BETA = RNG.uniform(0.5, 1.5, N).astype(np.float32)
DX, DY = RNG.uniform(-0.4, 0.4, (2, N)).astype(np.float32)
PSFS = [
    np.stack([gaussian_stamp(s * w, lean=0.1) for w in np.linspace(0.9, 1.1, N)]).astype(np.float32)
    for s in (SIGMA_NEW, SIGMA_REFERENCE)
]
SCALE = {"beta": BETA, "dx": DX, "dy": DY}
MASKS = RNG.uniform(size=(2, N, SIDE, SIDE)) < 0.002
MASKS[:, :, 7:24, 33:50] = False  # where a star will appear
MASKS[:, N // 2 :] = False
HOLES = {"masks_new": MASKS[0], "masks_reference": MASKS[1]}


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def one_pair(k):
    """A galaxy of a few stars, blurred by the PSFs of pair k."""
    rng = np.random.default_rng(k)
    places = rng.uniform(14, SIDE - 15, (6, 2))
    fluxes = 10 ** rng.uniform(3.6, 4.6, 6)
    width = np.linspace(0.9, 1.1, N)[k]
    shape = SIDE, SIDE
    new = stars(shape, places + np.array([DX[k], DY[k]]), BETA[k] * fluxes, SIGMA_NEW * width, 0.1)
    reference = stars(shape, places, fluxes, SIGMA_REFERENCE * width, 0.1)
    variances = new + 400, reference + 200
    images = [
        image + np.sqrt(variance) * rng.normal(size=shape)
        for image, variance in zip((new, reference), variances, strict=True)
    ]
    return [a.astype(np.float32) for a in (*images, *variances)]


@pytest.fixture(scope="module")
def stacks():
    return [np.stack(a) for a in zip(*(one_pair(k) for k in range(N)), strict=True)]


@pytest.mark.slow
def test_equals_a_loop_and_compiles_once(stacks, compilations):
    noise = SystematicNoise(x=0.02, y=0.03)
    together = subtract_batch(*stacks, *PSFS, **SCALE, gamma=2.0, noise=noise, **HOLES)
    before = len(compilations)
    other = [a[::-1] for a in stacks]
    subtract_batch(*other, *PSFS, beta=1.1, dx=DY, noise=noise, **HOLES)
    assert len(compilations) == before
    new, reference, *variances = stacks
    for k in range(N):
        bright = float(np.abs(new[k]).max())
        one = slice(k, k + 1)
        given = {name: values[one] for name, values in (SCALE | HOLES).items()}
        alone = subtract_batch(
            *[a[one] for a in stacks], *[p[one] for p in PSFS], gamma=2.0, noise=noise, **given
        )
        for name in ("D", "S", "S_corr", "flux", "flux_err"):
            got, expected = (np.asarray(getattr(maps, name)) for maps in (together, alone))
            scale = max(1, np.abs(expected).max(), bright * 3e-2)
            np.testing.assert_allclose(got[k], expected[0], atol=1e-5 * scale)
        if MASKS[:, k].any():
            continue
        # As the images of one exposure each; registration noise is one number there.
        pair = [
            make_exposure(image[k], variance[k], psf[k])
            for image, variance, psf in zip((new, reference), variances, PSFS, strict=True)
        ]
        given = {name: values[k] for name, values in SCALE.items()}
        exposures = subtract(*pair, fit=None, gamma=2.0, **given)
        for name in ("D", "S"):
            got, expected = (np.asarray(getattr(maps, name)) for maps in (together, exposures))
            scale = max(1, np.abs(expected).max(), bright * 3e-2)
            np.testing.assert_allclose(got[k], expected[0], atol=1e-5 * scale)
        assert (np.asarray(together.flux_err[k]) >= 0.99 * np.asarray(exposures.flux_err[0])).all()
        np.testing.assert_array_equal(np.asarray(together.lost[k]) > 0.5, exposures.bad[0])
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(together))


@pytest.mark.slow
def test_fits_find_the_truth_and_the_difference_is_then_noise(stacks, compilations):
    found = fit_batch(*stacks, *PSFS, **HOLES)
    before = len(compilations)
    fit_batch(*(a[::-1] for a in stacks), *PSFS, beta=0.9, **HOLES)
    assert len(compilations) == before
    assert bool(found.converged.all())
    errors = np.sqrt(np.diagonal(np.asarray(found.covariance), axis1=1, axis2=2))
    pulls = [
        (np.log(np.asarray(found.beta)) - np.log(BETA)) / errors[:, 0],
        (np.asarray(found.dx) - DX) / errors[:, 1],
        (np.asarray(found.dy) - DY) / errors[:, 2],
        np.asarray(found.gamma) / errors[:, 3],
    ]
    # 128 normal deviates: their standard deviation is known to 6 %.
    assert 0.8 < np.std(pulls) < 1.2
    assert np.abs(pulls).max() < 4.5
    assert np.median(np.asarray(found.beta_err) / BETA) < 0.02
    scale = {"beta": found.beta, "dx": found.dx, "dy": found.dy, "gamma": found.gamma}
    maps = subtract_batch(*stacks, *PSFS, **scale, **HOLES)
    use = np.asarray(maps.lost)[:, 6:-6, 6:-6] < 0.5
    inside = np.asarray(maps.S_corr)[:, 6:-6, 6:-6][use]
    assert np.std(inside) == pytest.approx(1, abs=0.04)
    assert np.abs(inside).max() < 6
    np.testing.assert_allclose(np.mean(found.chi2), 1, atol=0.1)


def test_a_new_star_has_its_flux_and_does_not_spoil_the_fit(stacks):
    flux = 4000.0
    new = stacks[0].copy()
    for k in range(N):
        new[k, 7:24, 33:50] += BETA[k] * flux * PSFS[0][k]
    variances = stacks[2] + (new - stacks[0])
    images = new, stacks[1], variances, stacks[3]
    found = fit_batch(*images, *PSFS, **HOLES)
    error = np.asarray(found.beta) / BETA - 1
    assert np.median(np.abs(error)) < 0.02
    scale = {"beta": found.beta, "dx": found.dx, "dy": found.dy}
    maps = subtract_batch(*images, *PSFS, **scale, **HOLES)
    pulls = (np.asarray(maps.flux)[:, 15, 41] - flux) / np.asarray(maps.flux_err)[:, 15, 41]
    assert abs(np.mean(pulls)) < 0.7
    assert np.std(pulls) < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_of_the_fit_equal_differences(reverse):
    with jax.enable_x64(True):
        stacks = [np.asarray(a, float)[None, 12:-12, 12:-12] for a in one_pair(3)]
        psfs = [p[3].astype(float) / p[3].sum(dtype=float) for p in PSFS]
        direction = jnp.asarray(np.random.default_rng(0).normal(size=stacks[0].shape))

        @jax.jit
        def found(step):
            fit = fit_batch(stacks[0] + step * direction, *stacks[1:], *psfs, beta=0.8)
            return fit.beta[0] + fit.dx[0]

        slope, step = jax.jit((jax.jacrev if reverse else jax.jacfwd)(found))(0.0), 1e-3
        expected = (found(step) - found(-step)) / (2 * step)
        assert float(slope) == pytest.approx(float(expected), rel=1e-6)


def test_descents_reach_the_flux_ratio_from_far_away():
    """Gauss-Newton in 10 steps and Adam in 200, from beyond the pixel."""
    beta = 0.8
    images = field((96, 120), 40, beta, lambda x, y: (0 * x + 0.12, 0 * y - 0.08), seed=9)[:4]
    psfs = [jnp.asarray(gaussian_stamp(s), jnp.float32) for s in (SIGMA_NEW, SIGMA_REFERENCE)]

    def pair(theta):
        log_beta, dx, dy = theta
        numbers = jnp.float32(20), jnp.float32(200**0.5), jnp.exp(log_beta), dx, dy
        return ImagePair(*map(jnp.asarray, images), None, None, *numbers, SystematicNoise())

    start = jnp.asarray([np.log(0.5), 0.5, -0.5], jnp.float32)
    newton = jax.jit(lambda theta: fit_pair(pair(theta), *psfs, steps=10))(start)
    assert float(newton.beta) == pytest.approx(beta, abs=0.004)
    assert float(newton.dx) == pytest.approx(0.12, abs=0.01)
    assert float(newton.dy) == pytest.approx(-0.08, abs=0.01)

    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 200))
    slope = jax.grad(lambda theta: jnp.log(misfit(pair(theta), *psfs)))

    @jax.jit
    def descend(theta):
        def step(carried, _):
            theta, state = carried
            updates, state = optimiser.update(slope(theta), state)
            return (optax.apply_updates(theta, updates), state), None

        return jax.lax.scan(step, (theta, optimiser.init(theta)), None, length=200)[0][0]

    theta = descend(start)
    assert float(jnp.exp(theta[0])) == pytest.approx(beta, abs=0.004)
    np.testing.assert_allclose(theta[1:], [0.12, -0.08], atol=0.01)


def test_holes_are_filled_like_those_of_exposures():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(24, 31)).astype(np.float32)
    missing = rng.uniform(size=image.shape) < 0.3
    missing[5:15, 8:20] = True
    image[missing] = np.nan
    got = jax.jit(fill_layers)(image, missing)
    np.testing.assert_allclose(got, fill_holes(image, missing), atol=1e-6)


def test_bad_input(stacks):
    few = [a[:2] for a in stacks]
    psfs = [p[:2] for p in PSFS]
    with pytest.raises(ValueError, match="`references` needs the shape"):
        subtract_batch(few[0], few[1][:, 1:], *few[2:], *psfs)
    with pytest.raises(ValueError, match="`news` needs shape"):
        subtract_batch(*(a[0] for a in few), *psfs)
    with pytest.raises(ValueError, match="`psfs_new` needs shape"):
        subtract_batch(*few, np.ones((2, 99, 99)) / 99**2, psfs[1])
    with pytest.raises(ValueError, match="`psfs_reference` must sum to 1"):
        subtract_batch(*few, psfs[0], 2 * psfs[1])
    with pytest.raises(ValueError, match="`beta` must be positive"):
        subtract_batch(*few, *psfs, beta=-1.0)
    with pytest.raises(ValueError, match="`dx` needs one number"):
        subtract_batch(*few, *psfs, dx=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="`dy` must be finite"):
        subtract_batch(*few, *psfs, dy=np.nan)
    with pytest.raises(ValueError, match="`masks_new` needs the shape"):
        subtract_batch(*few, *psfs, masks_new=np.zeros((2, 3, 3), bool))
    with pytest.raises(ValueError, match="`sigma_new` must be positive"):
        subtract_batch(*few, *psfs, sigma_new=0.0)
    with pytest.raises(ValueError, match="`steps`"):
        fit_batch(*few, *psfs, steps=0)


def test_flawed_pairs_give_finite_maps(stacks):
    """NaN, no variance and no pixel at all in use, in some of the pairs only; no mask is given."""
    new, reference, variance_new, variance_reference = (a.copy() for a in stacks)
    new[0, 10:14, 20:30] = np.nan
    variance_reference[1, :, 40] = 0
    new[2] = np.nan
    flawed = new.astype(">f4"), reference, variance_new, variance_reference
    found = fit_batch(*flawed, *PSFS)
    maps = subtract_batch(*flawed, *PSFS, **SCALE)
    for leaf in jax.tree.leaves((found, maps)):
        assert bool(jnp.isfinite(leaf).all())
    # Nothing is known of the third pair; it stays where it began.
    assert float(found.beta[2]) == 1
    assert float(maps.lost[2].min()) > 0.5
    pulls = (np.asarray(found.beta) - BETA)[[0, 1]] / np.asarray(found.beta_err)[[0, 1]]
    assert np.abs(pulls).max() < 4
