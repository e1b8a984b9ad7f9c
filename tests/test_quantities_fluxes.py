"""Fluxes on stamps: points, circles, Gaussians and Kron's ellipses."""

from functools import partial
from typing import Any

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photutils.aperture import CircularAperture, EllipticalAperture, aperture_photometry
from quick import hasty

from diffdeblend.quantities import (
    MeasureApertures,
    MeasureKron,
    MeasureLocalBackground,
    MeasureShape,
    SourceStamp,
    aperture_flux,
    ellipse_flux,
    gaussian_flux,
    kron_radius,
    magnitudes,
    nanojanskys,
    psf_flux,
)
from diffdeblend.quantities.local_background import clipped_level
from diffdeblend.quantities.psf_on_stamp import psf_on_stamp
from diffdeblend.quantities.shape import measure_psf_shape


@pytest.fixture(autouse=True)
def hastily():
    """Programs that run once, soon compiled."""
    with hasty():
        yield


SHAPE = (37, 42)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]


# Arrays of numpy and plain numbers go in as well.
one_point: Any = jax.jit(psf_flux)
circle: Any = jax.jit(aperture_flux, static_argnums=(4, 5))
radius_of: Any = jax.jit(kron_radius)
through: Any = gaussian_flux


def star(x, y, sigma=1.6, shape=SHAPE):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    square = (columns - x) ** 2 + (rows - y) ** 2
    return np.exp(-0.5 * square / sigma**2) / (2 * np.pi * sigma**2)


def ellipse(x, y, a, b, theta):
    """A Gaussian of unit flux."""
    cos, sin = np.cos(theta), np.sin(theta)
    u, v = cos * (COLUMNS - x) + sin * (ROWS - y), cos * (ROWS - y) - sin * (COLUMNS - x)
    return np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2)) / (2 * np.pi * a * b)


PSF = star(12, 12, shape=(25, 25)).astype(np.float32)
points = jax.jit(jax.vmap(psf_flux, (0, 0, None, 0, 0)))


def test_the_psf_on_a_stamp_is_the_star_itself():
    rng = np.random.default_rng(1)
    place = jax.jit(psf_on_stamp, static_argnums=1)
    for x, y in [(20, 18), (0, 36), *rng.uniform(-3, 44, (10, 2))]:
        drawn = np.asarray(place(PSF, SHAPE, np.float32(x), np.float32(y)))
        near = (np.abs(COLUMNS - np.floor(x + 0.5)) <= 12) & (
            np.abs(ROWS - np.floor(y + 0.5)) <= 12
        )
        np.testing.assert_allclose(drawn, np.where(near, star(x, y), 0), atol=3e-7)


def test_psf_flux_is_the_closed_form_and_its_error_that_of_the_noise():
    rng = np.random.default_rng(2)
    n = 4000
    places = np.array([20, 17]) + rng.uniform(-0.5, 0.5, (n, 2))
    models = np.array([star(*place) for place in places])
    variance = rng.uniform(1, 3, (n, *SHAPE))
    data = 200 * models + np.sqrt(variance) * rng.normal(size=models.shape)
    given = [a.astype(np.float32) for a in (data, variance)]
    x, y = places.T.astype(np.float32)
    found = points(*given, PSF, x, y)
    near = (np.abs(COLUMNS - np.floor(x + 0.5)[:, None, None]) <= 12) & (
        np.abs(ROWS - np.floor(y + 0.5)[:, None, None]) <= 12
    )
    seen = np.where(near, models, 0)
    power = (seen**2).sum((1, 2))
    flux = (seen * data).sum((1, 2)) / power
    np.testing.assert_allclose(found.flux, flux, rtol=1e-5)
    error = np.sqrt((seen**2 * variance).sum((1, 2))) / power
    np.testing.assert_allclose(found.flux_err, error, rtol=1e-5)
    left = (data - flux[:, None, None] * seen) ** 2 / variance
    np.testing.assert_allclose(found.chi2, (left * near).sum((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(found.n_pixels, near.sum((1, 2)))
    np.testing.assert_allclose(found.area, 4 * np.pi * 1.6**2, rtol=1e-3)
    pull = (np.asarray(found.flux) - 200) / np.asarray(found.flux_err)
    assert abs(pull.mean()) < 0.05
    assert 0.95 < pull.std() < 1.05


def test_psf_flux_is_that_of_photutils():
    from astropy.table import Table
    from photutils.psf import CircularGaussianSigmaPRF, PSFPhotometry

    rng = np.random.default_rng(3)
    image = 300 * star(20.3, 17.6) + rng.normal(size=SHAPE)
    model = CircularGaussianSigmaPRF(sigma=np.sqrt(1.6**2 - 1 / 12), flux=1)
    model.x_0.fixed = model.y_0.fixed = True
    init = Table({"x": [20.3], "y": [17.6], "flux": [250.0]})
    theirs: Any = PSFPhotometry(model, (25, 25))(image, error=np.ones(SHAPE), init_params=init)
    ours = one_point(
        *(jnp.asarray(a, jnp.float32) for a in (image, np.ones(SHAPE), PSF)),
        jnp.float32(20.3),
        jnp.float32(17.6),
    )
    assert float(ours.flux) == pytest.approx(theirs["flux_fit"][0], rel=2e-3)
    assert float(ours.flux_err) == pytest.approx(theirs["flux_err"][0], rel=5e-3)


def test_psf_flux_without_pixels_and_its_derivative():
    def flux(x, image, variance):
        return one_point(image, variance, PSF, x, jnp.float32(17.0)).flux

    image, ones = jnp.asarray(100 * star(20.2, 17), jnp.float32), jnp.ones(SHAPE)
    nothing = jnp.zeros(SHAPE)
    slope_of = jax.jit(jax.grad(flux))
    assert np.isnan(flux(jnp.float32(20), nothing, nothing))
    # Also where the centre is just on a pixel.
    for x in (20.0, 20.2, 19.5):
        slope = slope_of(jnp.float32(x), image, ones)
        step = flux(jnp.float32(x + 0.02), image, ones) - flux(jnp.float32(x - 0.02), image, ones)
        assert np.isfinite(slope)
        if x != 19.5:
            np.testing.assert_allclose(slope, step / 0.04, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("sigma", [1.6, 2.0])
def test_band_limited_circles_hold_the_light_of_a_star(sigma):
    rng = np.random.default_rng(4)
    places = np.array([20, 18]) + rng.uniform(-0.5, 0.5, (25, 2))
    images = np.array([star(x, y, sigma) for x, y in places], np.float32)
    x, y = places.T.astype(np.float32)
    for radius in (2.0, 4.5, 9.0):
        of_radius = partial(aperture_flux, radius=radius)
        found = jax.jit(jax.vmap(of_radius))(images, np.ones_like(images), x, y)
        truth = 1 - np.exp(-0.5 * (radius / sigma) ** 2)
        np.testing.assert_allclose(found.flux, truth, atol=1e-5)
        np.testing.assert_allclose(found.area, np.pi * radius**2, rtol=1e-4)


def test_other_circles_are_those_of_photutils():
    rng = np.random.default_rng(5)
    image, variance = rng.normal(size=SHAPE), rng.uniform(1, 2, SHAPE)
    given = [jnp.asarray(a, jnp.float32) for a in (image, variance)]
    for method, radius in (("exact", 6.0), ("center", 12.0)):
        place = np.float32(19.3), np.float32(17.8)
        found = circle(*given, *(jnp.asarray(p) for p in place), radius, method)
        aperture: Any = CircularAperture(place, radius)
        table = aperture_photometry(image, aperture, method=method)
        assert float(found.flux) == pytest.approx(table["aperture_sum"][0], abs=1e-3)
        weight: Any = aperture.to_mask(method=method).to_image(SHAPE)
        assert float(found.flux_err) == pytest.approx(
            np.sqrt((weight**2 * variance).sum()), rel=1e-4
        )
    whole = circle(jnp.ones(SHAPE), jnp.ones(SHAPE), 20.0, 18.0, 12.0, "center")
    assert whole.area == 441


def test_errors_of_circles_are_those_of_noise():
    rng = np.random.default_rng(6)
    n = 3000
    variance = np.broadcast_to(1 + 30 * star(20.2, 17.9, 4.0), (n, *SHAPE)).astype(np.float32)
    noise = (np.sqrt(variance) * rng.normal(size=variance.shape)).astype(np.float32)
    x, y = np.full(n, 20.2, np.float32), np.full(n, 17.9, np.float32)
    found = jax.jit(jax.vmap(partial(aperture_flux, radius=4.5)))(noise, variance, x, y)
    pull = np.asarray(found.flux) / np.asarray(found.flux_err)
    assert abs(pull.mean()) < 0.06
    assert 0.95 < pull.std() < 1.05


def test_light_through_a_gaussian_of_given_shape():
    a, b, theta = 3.0, 1.8, 0.6
    cos2, sin2, both = np.cos(theta) ** 2, np.sin(theta) ** 2, np.sin(theta) * np.cos(theta)
    xx, yy = a**2 * cos2 + b**2 * sin2, a**2 * sin2 + b**2 * cos2
    place = [jnp.float32(v) for v in (20.3, 17.8, xx, yy, (a**2 - b**2) * both)]
    image = jnp.asarray(ellipse(20.3, 17.8, a, b, theta), jnp.float32)
    found = through(image, jnp.ones(SHAPE), *place)
    assert float(found.flux) == pytest.approx(1, abs=1e-4)
    assert float(found.flux_err) == pytest.approx(2 * np.sqrt(np.pi * a * b), rel=1e-4)
    nothing = through(image, jnp.ones(SHAPE), *place[:2], *(jnp.float32(v) for v in (1, 1, 2)))
    assert np.isnan(nothing.flux)


radii_of = jax.jit(jax.vmap(kron_radius))
ellipses = jax.jit(jax.vmap(ellipse_flux))


def test_kron_radius_and_flux_of_gaussians():
    rng = np.random.default_rng(7)
    n = 30
    b = rng.uniform(1.0, 2.4, n)
    a = np.minimum(b / rng.uniform(0.5, 1, n), 2.6)
    theta = rng.uniform(-np.pi / 2, np.pi / 2, n)
    x, y = 20 + rng.uniform(-0.5, 0.5, n), 18 + rng.uniform(-0.5, 0.5, n)
    images = np.array([ellipse(*one) for one in zip(x, y, a, b, theta, strict=True)], np.float32)
    given = [v.astype(np.float32) for v in (x, y, a, b, theta)]
    radius = np.asarray(radii_of(images, *given).radius)
    np.testing.assert_allclose(radius, np.sqrt(np.pi / 2 * a * b), atol=0.005)
    size, stretch = 2.5 * radius, np.sqrt(a / b)
    shape = [v.astype(np.float32) for v in (size * stretch, size / stretch, theta)]
    flux, error = ellipses(images, np.ones_like(images), *given[:2], *shape)
    np.testing.assert_allclose(np.asarray(flux)[b > 2], 0.9926, atol=3e-3)
    np.testing.assert_allclose(flux, 0.9926, atol=5e-3)
    for k in range(5):
        aperture: Any = EllipticalAperture(
            (x[k], y[k]), *(float(v[k]) for v in shape[:2]), theta=float(shape[2][k])
        )
        weight: Any = aperture.to_mask(method="exact").to_image(SHAPE)
        assert flux[k] == pytest.approx((weight * images[k]).sum(), abs=1e-5)
        assert error[k] == pytest.approx(np.sqrt((weight**2).sum()), rel=1e-4)


def test_kron_radius_of_no_light_and_derivatives():
    args = [jnp.float32(v) for v in (20, 18, 2, 1.5, 0.3)]
    dark = -jnp.asarray(star(20, 18), jnp.float32)
    assert np.isnan(radius_of(dark, *args).radius)

    def radius(image, a, b):
        return radius_of(image, *args[:2], a, b, args[4]).radius

    slope_of = jax.jit(jax.grad(radius, (0, 1, 2)))
    for image in (dark, -dark):
        slope = slope_of(image, args[2], args[2])
        assert all(np.isfinite(s).all() for s in slope)


def test_the_level_of_the_sky():
    rng = np.random.default_rng(8)
    values = rng.normal(5, 2, (60, 60))
    values[::7, ::5] += rng.exponential(200, values[::7, ::5].shape)
    used = np.ones((60, 60), bool)
    used[:10] = False
    values[:10] = 1e6
    found = jax.jit(clipped_level)(values.astype(np.float32), used)
    kept = values[used]
    q25, q50, q75 = np.quantile(kept, [0.25, 0.5, 0.75])
    kept = kept[np.abs(kept - q50) <= 3 * 0.741301109252802 * (q75 - q25)]
    for _ in range(2):
        kept = kept[np.abs(kept - kept.mean()) <= 3 * kept.std(ddof=1)]
    assert int(found.n_pixels) == len(kept)
    assert float(found.value) == pytest.approx(kept.mean(), abs=1e-3)
    assert float(found.rms) == pytest.approx(kept.std(ddof=1), rel=1e-3)
    assert np.isnan(clipped_level(jnp.ones((5, 5)), jnp.zeros((5, 5), bool)).value)


def test_magnitudes_and_nanojanskys():
    flux, error = np.array([1.0, 100.0, -2.0]), np.array([0.1, 1.0, 1.0])
    magnitude, magnitude_err = magnitudes(flux, error, 31.4)
    np.testing.assert_allclose(magnitude[:2], [31.4, 26.4])
    np.testing.assert_allclose(magnitude_err[:2], 1.085736 * np.array([0.1, 0.01]), rtol=1e-6)
    assert np.isnan(magnitude[2])
    np.testing.assert_allclose(nanojanskys(flux, error, 27.0)[0], flux * 10**1.76)
    # AB: 3631 Jy have magnitude 0.
    np.testing.assert_allclose(nanojanskys(1.0, 0.0, 0.0)[0], 3631e9, rtol=1e-3)


@pytest.mark.parametrize("radii", [(), (0.0,), (3.0, -1.0)])
def test_settings_that_cannot_be_are_refused(radii):
    with pytest.raises(ValueError, match="`radii`"):
        MeasureApertures(radii)
    with pytest.raises(ValueError, match="`inner`"):
        MeasureLocalBackground(5.0, 5.0)
    with pytest.raises(ValueError, match="`method`"):
        MeasureApertures(method="square")  # type: ignore[arg-type]


@pytest.mark.slow
def test_kron_flux_of_galaxies():
    """An exponential and a de Vaucouleurs galaxy, half-light radius 3 pixels, as they are seen."""
    # A cusp has no adaptive moments; what is seen has none.
    psf: Any = galsim.Moffat(beta=3, fwhm=3.5)
    size, images = 141, []
    for index in (1, 4):
        profile: Any = galsim.Convolve(galsim.Sersic(index, half_light_radius=3), psf)
        images.append(profile.drawImage(nx=size, ny=size, scale=1, method="auto").array)
    seen = jnp.ones((size, size), bool)
    middle, psf_image = (
        jnp.float32(size // 2),
        jnp.asarray(psf.drawImage(nx=25, ny=25, scale=1).array),
    )

    @jax.jit
    @jax.vmap
    def measured(image):
        ones, zero = jnp.ones_like(image), jnp.int32(0)
        mask = jnp.zeros(image.shape, jnp.int32)
        stamp = SourceStamp(image, ones, mask, seen, seen, psf_image, middle, middle, zero, zero)
        found: dict = {"centroid": {"x": middle, "y": middle, "flag": jnp.array(False)}}
        found["psf_shape"] = measure_psf_shape(stamp, found)
        found["shape"] = MeasureShape()(stamp, found)
        return [MeasureKron(iterations=n)(stamp, found) for n in (1, 3)]

    once, thrice = measured(jnp.asarray(np.array(images)))
    assert not (once["flag"] | thrice["flag"]).any()
    assert 0.94 < once["flux"][0] < 0.98
    assert 0.94 < thrice["flux"][0] < 0.98
    # The first moment does not reach the wings; with more of them it does, and is noisier.
    assert 0.7 < once["flux"][1] < 0.86
    assert 0.86 < thrice["flux"][1] < 0.93
