"""Missing pixels filled on the host: against transforms of all of the image, and against truth."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from diffdeblend.exposure import make_exposure
from diffdeblend.grow import grown
from diffdeblend.psf import PSFBasis
from diffdeblend.psf.stamps import basis_stamps, basis_weights
from diffdeblend.subtract.fill_jointly import fill_jointly
from diffdeblend.subtract.fill_missing import fill_missing
from diffdeblend.subtract.inputs import band_pair
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.variance import SystematicNoise
from tests.subtraction_fields import SIGMA_NEW, SIGMA_REFERENCE, field, gaussian_stamp

SHAPE, BETA, SHIFT = (90, 118), 0.7, (0.2, -0.1)


def test_equals_what_transforms_of_the_image_find_in_as_many_steps():
    new, reference, variance_new, variance_reference, places, fluxes = field(
        SHAPE, 25, BETA, lambda x, y: (0 * x + SHIFT[0], 0 * y + SHIFT[1])
    )
    missing = np.zeros((2, *SHAPE), bool)
    missing[0, :, 40:42] = True
    missing[1, 30] = True
    x, y = np.rint(places[np.argmax(fluxes)]).astype(int)
    missing[:, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    missing[0, :3, :4] = True
    psfs = [gaussian_stamp(s)[None].astype(np.float32) for s in (SIGMA_NEW, SIGMA_REFERENCE)]
    exposures = [
        make_exposure(image, variance, psf, mask=hole)
        for image, variance, psf, hole in zip(
            (new, reference), (variance_new, variance_reference), psfs, missing, strict=True
        )
    ]
    pair = band_pair(exposures[0], exposures[1], 0)
    filled = fill_missing(
        pair, 2.0, BETA, lambda x, y: tuple(np.full(x.shape, shift) for shift in SHIFT)
    )
    dx, dy = (jnp.asarray(v, jnp.float32) for v in SHIFT)
    whole = ImagePair(
        new=jnp.asarray(pair.new) - 2,
        reference=jnp.asarray(pair.reference),
        variance_new=jnp.asarray(pair.variance_new),
        variance_reference=jnp.asarray(pair.variance_reference),
        missing_new=jnp.asarray(missing[0]),
        missing_reference=jnp.asarray(missing[1]),
        sigma_new=jnp.asarray(pair.sigma_new, jnp.float32),
        sigma_reference=jnp.asarray(pair.sigma_reference, jnp.float32),
        beta=jnp.asarray(BETA, jnp.float32),
        dx=dx,
        dy=dy,
        noise=SystematicNoise(),
    )
    expected = eqx.filter_jit(fill_jointly)(whole, *(psf[0] for psf in psfs), steps=30)
    for k, (got, wanted, first) in enumerate(
        zip(filled, (expected.new, expected.reference), (pair.new - 2, pair.reference), strict=True)
    ):
        np.testing.assert_array_equal(got[~missing[k]], first[~missing[k]])
        moved = np.asarray(wanted) - first
        off = np.asarray(got) - np.asarray(wanted)
        assert np.std(off[missing[k]]) < 0.05 * np.std(moved[missing[k]])


def test_grown_is_a_dilation():
    flags = np.random.default_rng(1).random((23, 31)) > 0.97
    flags[0, 0] = flags[-1, 5] = True
    for reach in (1, 4):
        np.testing.assert_array_equal(grown(flags, reach), binary_dilation(flags, iterations=reach))
        np.testing.assert_array_equal(
            grown(flags, reach, square=True),
            binary_dilation(flags, np.ones((3, 3)), iterations=reach),
        )


def test_stamps_on_the_host_are_those_of_the_psf():
    rng = np.random.default_rng(2)
    images = np.stack([[gaussian_stamp(s, 11) for s in (1.2, 1.6, 2.0)]] * 2).astype(np.float32)
    coefficients = rng.normal(0, 0.05, (2, 3, 3)).astype(np.float32)
    coefficients[:, :, 0] += 1
    psf = PSFBasis(jnp.asarray(images), jnp.asarray(coefficients), (50, 70), 1)
    x, y = np.array([0.0, 69.0, np.nan, 80.0]), np.array([3.0, 49.0, np.nan, -4.0])
    for band in (0, 1):
        np.testing.assert_allclose(
            basis_stamps(psf, band, x, y), psf.images_at(x, y)[:, band], atol=1e-6
        )
        np.testing.assert_allclose(
            basis_weights(psf, band, x, y).T, psf.weights(x, y)[band], rtol=1e-4
        )
    assert basis_stamps(psf, 0, x.reshape(2, 2), y.reshape(2, 2)).sum() == pytest.approx(
        4, rel=1e-5
    )
