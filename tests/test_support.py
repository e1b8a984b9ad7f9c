"""Whether a galaxy is one of a prior's: against populations drawn by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from scipy.stats import kstest

from diffdeblend.fit.uncertainty import Covariance
from diffdeblend.fit.unknowns import Unknowns
from diffdeblend.priors.evidence import log_evidence
from diffdeblend.priors.morphology import morphology_of
from diffdeblend.priors.support import own_residuals, support_check
from tests.test_decoded import FRAME, decoder


@pytest.fixture(autouse=True, scope="module")
def hastily():
    """Programs that run once are compiled sooner and run slower."""
    with hasty():
        yield


CHECK = eqx.filter_jit(support_check)
SHAPE = eqx.filter_jit(morphology_of)
RESIDUALS = eqx.filter_jit(jax.vmap(own_residuals, in_axes=(None, 0, None, None)))


def observed(rng, n, temperature=1.0, stretch=1.0):
    """Latents of highest posterior of a linear instrument, and their covariance."""
    design = rng.standard_normal((9, 6)) * np.array([3.0, 2.0, 1.0, 0.6, 0.3, 0.05])
    inverse = design.T @ design + np.eye(6) / temperature
    covariance = np.linalg.inv(inverse)
    true = stretch * rng.standard_normal((n, 6))
    data = true @ design.T + rng.standard_normal((n, 9))
    return data @ design @ covariance, np.broadcast_to(covariance, (n, 6, 6))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_latents_of_the_population_have_even_quantiles(temperature):
    latent, covariance = observed(np.random.default_rng(1), 3000, temperature)
    found = CHECK(
        *(latent, covariance, np.ones(3000), np.full(3000, 60.0)),
        temperature=np.array(temperature),
        false_alarm=np.array(0.01),
    )
    # Two moments make the law of a sum of unequal squares; the rest of it is not exact.
    assert kstest(np.asarray(found.latent_quantile), "uniform").statistic < 0.04
    np.testing.assert_allclose(found.latent_norm, np.sum(latent**2, axis=1), rtol=1e-4)


def test_false_alarms_are_as_many_as_asked_for():
    rng = np.random.default_rng(2)
    n, freedom = 3000, 40
    latent, covariance = observed(rng, n)
    chi2 = rng.chisquare(freedom, n) / freedom

    def check(latent, chi2, rate=0.01):
        # Arrays, not numbers: one program for all.
        settings = {"temperature": np.array(1.0), "false_alarm": np.array(rate)}
        return CHECK(latent, covariance, chi2, np.full(n, float(freedom)), **settings)

    for rate in (0.01, 0.1):
        found = check(latent, chi2, rate)
        assert 0.6 * rate < np.mean(found.out_of_domain) < 1.6 * rate
    shifted, _ = observed(rng, n, stretch=3.0)
    found = check(shifted, chi2)
    assert np.mean(found.out_of_domain) > 0.5
    found = check(latent, chi2 + 1)
    assert np.mean(found.out_of_domain) > 0.9


def test_what_tells_nothing_is_never_out_of_domain():
    none = np.zeros((2, 3))
    found = CHECK(none, np.broadcast_to(np.eye(3), (2, 3, 3)), np.zeros(2), np.zeros(2))
    assert np.isfinite(np.asarray(found.latent_quantile)).all()
    assert not np.asarray(found.out_of_domain).any()


def test_own_residuals_of_a_right_model_are_one_beside_a_bad_neighbour():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:24, :31]
    images = np.stack(
        [100 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 3.0**2) for cx, cy in places()]
    )[:, None]
    weight = np.full((1, 24, 31), 0.25)
    weight[0, :, 20] = 0
    residual = 2.0 * rng.standard_normal((500, 1, 24, 31))
    mean, pixels = RESIDUALS(images, residual, weight, np.zeros(2))
    free = float(pixels[0, 0])
    assert np.mean(mean[:, 0]) == pytest.approx(1, abs=0.02)
    # As many freedoms as the scatter tells.
    assert np.var(np.asarray(mean[:, 0])) == pytest.approx(2 / free, rel=0.2)
    spoilt = residual + 0.2 * images[1]
    beside = RESIDUALS(images, spoilt, weight, np.zeros(2))[0]
    assert np.mean(beside[:, 1]) > 3
    assert np.mean(beside[:, 0]) < 1.1
    fewer, left = RESIDUALS(images, residual, weight, np.full(2, 10.0))
    assert float(left[0, 0]) == pytest.approx(free - 10, rel=1e-4)
    assert np.mean(fewer[:, 0]) == pytest.approx(free / (free - 10), rel=0.03)


def places():
    return (8.3, 11.6), (22.1, 12.2)


def test_evidence_is_the_integral_of_a_gaussian():
    rng = np.random.default_rng(4)
    root = rng.standard_normal((5, 5))
    full = np.linalg.inv(root @ root.T + np.eye(5))
    # Two fluxes of one band, three shapes; the last of these is held.
    shape, cross = full[2:, 2:], full[:2, 2:]
    response = -cross @ np.linalg.inv(shape)
    alone = full[:2, :2] - response @ shape @ response.T
    nothing = np.zeros((1, 0))
    held = np.array([1.0, 1.0, 0.0])
    linear = np.zeros((1, 4, 4))
    linear[0, :2, :2] = alone
    free = Unknowns(
        (jnp.asarray(held)[None],),
        (jnp.asarray(nothing),),
        jnp.ones((2, 1)),
        jnp.zeros((1, 0)),
        jnp.zeros(1),
        jnp.zeros(1),
    )
    found = Covariance(
        jnp.asarray(shape * held * held[:, None]),
        jnp.asarray(linear),
        jnp.zeros((1, 4, 3)),
        free,
        jnp.zeros(()),
    )
    prior = np.array([1.0, 0.25, 7.0])
    wanted = -3.5 + 0.5 * np.linalg.slogdet(shape[:2, :2])[1] + 0.5 * np.sum(np.log(prior[:2]))
    wanted += 0.5 * np.linalg.slogdet(alone)[1]
    got = jax.jit(log_evidence)(3.5, found, prior)
    assert float(got) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("shear", "centre"), [((0.0, 0.0), (0.0, 0.0)), ((0.25, -0.1), (0.3, -0.7))]
)
def test_place_size_and_shape_are_those_without_the_frames_psf(shear, centre):
    g1, g2 = shear
    y, x = np.mgrid[: FRAME.size, : FRAME.size] - FRAME.size // 2.0
    x, y = x - centre[0], y - centre[1]
    stretch = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
    covariance = 2.0**2 * stretch @ stretch.T + FRAME.psf_sigma**2 * np.eye(2)
    a, b, c = (np.linalg.inv(covariance)[i] for i in ((0, 0), (0, 1), (1, 1)))
    made = decoder(strength=0.0)
    made = eqx.tree_at(
        lambda d: d.mean, made, jnp.asarray(-0.5 * (a * x**2 + 2 * b * x * y + c * y**2), "float32")
    )
    centroid, radius, ellipticity = SHAPE(made, jnp.zeros(3))
    np.testing.assert_allclose(centroid, centre, atol=0.01)
    # Half of a Gaussian is within 1.1774 standard deviations.
    assert float(radius) == pytest.approx(1.1774 * 2.0, rel=0.04)
    np.testing.assert_allclose(ellipticity, shear, atol=0.01)
