"""CModel fluxes against profiles drawn by GalSim."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.exposure import make_exposure
from diffdeblend.psf import PixelPSF
from diffdeblend.quantities import (
    STANDARD,
    MeasureCModel,
    MeasureExtendedness,
    measure_sources,
)
from diffdeblend.quantities.cmodel import cmodel, forced_cmodel
from diffdeblend.quantities.cmodel_images import shape_matrix, shape_numbers
from diffdeblend.quantities.cmodel_profiles import (
    DE_VAUCOULEURS,
    EXPONENTIAL,
    LUV,
    LUX,
    Mixture,
)
from diffdeblend.quantities.psf_flux import psf_flux
from diffdeblend.radial import radial_transform, surface_brightness

galsim = pytest.importorskip("galsim")

SHAPE = (40, 46)
FLUX, SNR = 1000.0, 100.0


@pytest.fixture(scope="module")
def psf():
    stamp = galsim.Moffat(beta=3, fwhm=3.5).shear(g1=0.05, g2=0.02)
    stamp = stamp.drawImage(nx=35, ny=31, scale=1).array
    return (stamp / stamp.sum()).astype(np.float32)


def drawn(profile, psf, x, y, shape=SHAPE):
    seen = galsim.InterpolatedImage(
        galsim.Image(psf.astype(float), scale=1), x_interpolant="lanczos15", flux=1
    )
    whole = seen if profile is None else galsim.Convolve(profile, seen)
    offset = (x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2)
    return whole.drawImage(
        nx=shape[1], ny=shape[0], scale=1, offset=offset, method="no_pixel"
    ).array


DISC = {"half_light_radius": 2.5}
PLACE = (22.3, 19.6)
SOURCES = {
    "disc": (galsim.Exponential(**DISC).shear(g1=0.2, g2=0.1), PLACE),
    "spheroid": (galsim.DeVaucouleurs(**DISC).shear(g1=-0.1, g2=0.2), PLACE),
    "star": (None, PLACE),
    "at the border": (galsim.Exponential(**DISC), (2.4, 30.2)),
    "mixture": (
        0.65 * galsim.Exponential(half_light_radius=3).shear(g1=0.2, g2=0.1)
        + 0.35 * galsim.DeVaucouleurs(half_light_radius=1.5),
        PLACE,
    ),
    "small": (galsim.DeVaucouleurs(half_light_radius=0.5), (21.6, 20.4)),
}


# Compiling takes longer than running: little is optimised.
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def measure(images, variances, goods, psf, x, y):
    def one(args):
        image, variance, good, x, y = args
        return cmodel(image, variance, good, psf, x, y), psf_flux(image, variance, psf, x, y, good)

    return jax.lax.map(one, (images, variances, goods, x, y))


def measured(images, variances, goods, psf, places):
    places = np.asarray(places, np.float32)
    return measure(
        np.asarray(images, np.float32),
        np.asarray(variances, np.float32),
        np.asarray(goods),
        psf,
        places[:, 0],
        places[:, 1],
    )


@pytest.fixture(scope="module")
def found(psf):
    """Each source without noise in its image, and then once more with pixels that are wrong."""
    images = [FLUX * drawn(profile, psf, *place) for profile, place in SOURCES.values()]
    places = [place for _, place in SOURCES.values()]
    variances = [np.full(SHAPE, np.sum(i**2) / SNR**2) for i in images]
    goods = [np.ones(SHAPE, bool) for _ in images]
    spoilt, good = images[0].copy(), goods[0].copy()
    spoilt[20:22, 21:23], good[20:22, 21:23] = np.nan, False
    spoilt[5], good[5] = 1e6, False
    rows = [
        (spoilt, variances[0], good, PLACE),
        (images[0], variances[0], np.zeros(SHAPE, bool), PLACE),
        (images[0], variances[0], goods[0], (np.nan, 3.0)),
        (-images[0], variances[0], goods[0], PLACE),
    ]
    made, point = measured(
        [*images, *(r[0] for r in rows)],
        [*variances, *(r[1] for r in rows)],
        [*goods, *(r[2] for r in rows)],
        psf,
        [*places, *(r[3] for r in rows)],
    )
    names = [*SOURCES, "spoilt", "empty", "nowhere", "negative"]
    return {
        name: jax.tree.map(lambda v, i=i: np.asarray(v[i]), (made, point))
        for i, name in enumerate(names)
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("disc", 0), ("spheroid", 1), ("at the border", 0)])
def test_pure_profiles_have_their_flux(found, name, share):
    made, _ = found[name]
    assert made.flux == pytest.approx(FLUX, rel=2e-3)
    assert made.frac_dev == pytest.approx(share, abs=0.02)
    assert not made.flag
    alone = made.de_vaucouleurs if share else made.exponential
    assert alone.radius == pytest.approx(2.5, rel=5e-3)
    assert alone.flux == pytest.approx(FLUX, rel=2e-3)


def test_the_ellipse_is_that_which_was_drawn(found):
    for name, shear, part in (("disc", (0.2, 0.1), 0), ("spheroid", (-0.1, 0.2), 1)):
        made = found[name][0]
        fit = (made.exponential, made.de_vaucouleurs)[part]
        # The prior rounds it a little. Reduced shear g makes the axes' ratio (1 - g) / (1 + g).
        g = np.hypot(*shear)
        expected = 2 * np.arctanh(g) * np.array(shear) / g
        np.testing.assert_allclose([fit.e1, fit.e2], expected, atol=6e-3)
        assert fit.xx * fit.yy - fit.xy**2 == pytest.approx(fit.radius**4, rel=1e-4)


def test_a_point_has_its_psf_flux(found):
    made, point = found["star"]
    assert made.flux == pytest.approx(float(point.flux), rel=2e-3)
    assert made.flux_err == pytest.approx(float(point.flux_err), rel=0.02)
    assert made.flux_err_held == pytest.approx(float(point.flux_err), rel=0.02)


def test_a_spheroid_smaller_than_a_pixel(found):
    assert found["small"][0].flux == pytest.approx(FLUX, rel=5e-3)


def test_a_disc_with_a_bulge_has_the_flux_of_both(found):
    made, _ = found["mixture"]
    assert made.flux == pytest.approx(FLUX, rel=0.015)
    assert made.frac_dev == pytest.approx(0.35, abs=0.06)
    # Either ellipse is near that which was drawn.
    assert made.exponential.radius == pytest.approx(3, rel=0.08)
    assert made.de_vaucouleurs.radius == pytest.approx(1.5, rel=0.25)


def test_bad_pixels_are_not_looked_at(found):
    made, _ = found["spoilt"]
    assert made.flux == pytest.approx(FLUX, rel=3e-3)
    assert made.n_pixels == SHAPE[0] * SHAPE[1] - 4 - SHAPE[1]


def test_a_source_without_pixels_or_place_has_no_flux(found):
    for name in ("empty", "nowhere"):
        made, _ = found[name]
        assert made.flag
        assert made.flag_no_pixels
        assert np.isnan(made.flux)
        assert np.isnan(made.flux_err)


def test_a_negative_source_has_negative_flux(found):
    made, _ = found["negative"]
    assert made.flux < -0.5 * FLUX
    assert made.flux_err > 0


def test_errors_are_right_and_another_call_compiles_nothing(psf, found):
    rng = np.random.default_rng(5)
    n = len(found)
    profile, place = SOURCES["spheroid"]
    image = drawn(profile, psf, *place)
    scale = SNR / np.sqrt(np.sum(image**2))
    pulls = []
    for _ in range(12):
        noisy = scale * image + rng.normal(size=(n, *SHAPE))
        ones = np.ones((n, *SHAPE))
        made, _ = measured(noisy, ones, ones > 0, psf, [place] * n)
        pulls.append((np.asarray(made.flux) - scale) / np.asarray(made.flux_err))
    pulls = np.concatenate(pulls)
    # 108 of them: the standard deviation is known to 7 %, the mean to 0.1.
    assert 0.75 < np.std(pulls) < 1.3
    assert abs(np.mean(pulls)) < 0.6
    assert measure._cache_size() == 1


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def force(image, variance, psf, x, y, forms, share):
    good = variance > 0
    held = forced_cmodel(image, variance, good, psf, x, y, forms[0], forms[1], share)
    return held, forced_cmodel(image, variance, good, psf, x, y, forms[0], forms[1])


def test_forced_fluxes_are_those_of_the_ellipses(psf, found):
    made, _ = found["spheroid"]
    forms = np.array(
        [[f.xx, f.yy, f.xy] for f in (made.exponential, made.de_vaucouleurs)], np.float32
    )
    image = FLUX * drawn(*SOURCES["spheroid"][:1], psf, *PLACE)
    variance = np.full(SHAPE, np.sum(image**2) / SNR**2, np.float32)
    x, y = (np.float32(v) for v in PLACE)
    held, both = force(
        image.astype(np.float32), variance, psf, x, y, forms, np.float32(made.frac_dev)
    )
    for one in (held, both):
        assert one.flux == pytest.approx(float(made.flux), rel=1e-3)
        assert not one.flag
    assert held.flux_err <= both.flux_err * 1.001
    # Linear: fainter than nothing is as far below.
    negative, _ = force(
        -image.astype(np.float32), variance, psf, x, y, forms, np.float32(made.frac_dev)
    )
    assert negative.flux == pytest.approx(-float(held.flux), rel=1e-5)
    assert negative.flux_err == pytest.approx(float(held.flux_err), rel=1e-5)


@pytest.mark.parametrize(("profile", "index"), [(EXPONENTIAL, 1.0), (DE_VAUCOULEURS, 4.0)])
def test_profiles_are_sersics(profile, index):
    q = jnp.asarray(np.concatenate([[0], np.logspace(-3, 4, 40)]), jnp.float32)
    value, slope = profile.transform(q)
    np.testing.assert_allclose(value, radial_transform(q, index), atol=5e-6)
    expected = jax.vmap(jax.grad(lambda v: radial_transform(v, index)))(q)
    np.testing.assert_allclose(slope, expected, rtol=2e-4)
    light, falls = profile.brightness(q[8:])
    np.testing.assert_allclose(light, surface_brightness(q[8:], index), rtol=1e-4, atol=1e-12)
    expected = jax.vmap(jax.grad(lambda v: surface_brightness(v, index)))(q[8:])
    np.testing.assert_allclose(falls, expected, rtol=1e-3, atol=1e-12)


def test_a_mixture_is_its_gaussians():
    mixture = Mixture((0.25, 0.75), (1.0, 4.0))
    q = jnp.asarray([0.0, 0.5, 2.0])
    value, slope = mixture.transform(q)
    np.testing.assert_allclose(value, 0.25 * np.exp(-q / 2) + 0.75 * np.exp(-2 * q), rtol=1e-5)
    np.testing.assert_allclose(slope, -0.125 * np.exp(-q / 2) - 1.5 * np.exp(-2 * q), rtol=1e-5)
    radii = np.linspace(0.005, 30, 6000)
    light, _ = mixture.brightness(jnp.asarray(radii**2))
    assert np.trapezoid(2 * np.pi * radii * light, radii) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("mixture", "index", "b", "end"), [(LUX, 1, 1.678, 4), (LUV, 4, 7.669, 8)])
def test_profiles_that_end_hold_the_light_of_a_sersic_until_then(mixture, index, b, end):
    radii = np.geomspace(1e-3, end, 4000)
    sersic = np.exp(-b * radii ** (1 / index)) * (1 - np.clip(radii - end + 1, 0, 1) ** 2) ** 2
    within = np.cumsum(sersic * radii * np.gradient(radii))
    weights, variances = np.array(mixture.weights), np.array(mixture.variances)
    made = np.sum(weights * (1 - np.exp(-0.5 * radii[:, None] ** 2 / variances)), axis=1)
    np.testing.assert_allclose(made, within / within[-1], atol=0.012)
    assert np.sum(weights) == pytest.approx(1, abs=1e-5)


def test_ellipses_go_to_numbers_and_back():
    for numbers in ([0.7, 0.4, -0.3], [-1.0, 0.0, 0.0], [0.1, 1e-4, 2e-4], [2.0, -2.0, 1.0]):
        form = shape_matrix(jnp.asarray(numbers, jnp.float32))
        np.testing.assert_allclose(shape_numbers(form), numbers, atol=2e-4)
    # The same ellipse as that of a component with the reduced shear of this axis ratio.
    xx, yy, _ = np.asarray(shape_matrix(jnp.asarray([0.0, 2 * np.arctanh(0.3), 0.0])))
    assert np.sqrt(xx / yy) == pytest.approx(1.3 / 0.7, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": np.ones((4, 4))}, "`image`, `variance` and `good` need one shape"),
        ({"psf": np.ones((4, 5))}, "`psf` needs shape"),
        ({"x": np.ones(2)}, "`x` and `y` are one number each"),
    ],
)
def test_wrong_input_is_named(change, message):
    given = {
        "image": np.ones((5, 6)),
        "variance": np.ones((5, 6)),
        "good": np.ones((5, 6), bool),
        "psf": np.ones((5, 5)),
        "x": 2.0,
        "y": 3.0,
    }
    with pytest.raises(ValueError, match=message):
        cmodel(**(given | change))


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(psf):
    with jax.enable_x64(True):
        profile, place = SOURCES["disc"]
        rng = np.random.default_rng(3)
        spheroid = SOURCES["spheroid"][0]
        image = FLUX * (0.6 * drawn(profile, psf, *place) + 0.4 * drawn(spheroid, psf, *place))
        sigma = np.sqrt(np.sum(image**2)) / SNR
        image = image + rng.normal(0, sigma, SHAPE)
        direction = rng.normal(0, sigma, SHAPE)
        good, wide = np.ones(SHAPE, bool), np.asarray(psf, float)

        @jax.jit
        def flux(step):
            made = cmodel(
                *(image + step * direction, np.full(SHAPE, sigma**2), good, wide),
                *(jnp.asarray(v) for v in place),
            )
            return made.flux

        step = 0.02
        expected = (float(flux(step)) - float(flux(-step))) / (2 * step)
        for derivative in (jax.jacfwd, jax.grad):
            assert float(derivative(flux)(0.0)) == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
def test_stars_and_galaxies_are_told_apart_in_an_image():
    size, n, rng = 41, 200, np.random.default_rng(101)
    pixel = 0.2
    seen = galsim.Kolmogorov(fwhm=0.7 / pixel)
    psf = seen.drawImage(nx=41, ny=41, scale=1).array
    psf = (psf / psf.sum()).astype(np.float32)
    image, places, extended = np.zeros((20 * 50, 20 * 50), np.float32), [], []
    for i in range(2 * n):
        galaxy = i % 2 == 1
        x, y = size // 2 + rng.uniform(-0.5, 0.5, 2)
        radius = rng.uniform(0.3, 1.0) / pixel
        kind = (galsim.Exponential, galsim.DeVaucouleurs)[i % 4 // 2]
        profile = kind(half_light_radius=radius).shear(g1=rng.uniform(-0.3, 0.3), g2=0.1)
        stamp = drawn(profile if galaxy else None, psf, x, y, (size, size))
        stamp = stamp * rng.uniform(50, 200) / np.sqrt(np.sum(stamp**2))
        left, top = 50 * (i % 20) + 4, 50 * (i // 20) + 4
        image[top : top + size, left : left + size] += stamp
        places.append((x + left, y + top))
        extended.append(galaxy)
    image += rng.normal(size=image.shape).astype(np.float32)
    exposure = make_exposure(image[None], np.ones_like(image)[None], PixelPSF(psf[None]))
    measurements = {
        **{name: STANDARD[name] for name in ("psf_shape", "centroid", "psf")},
        "cmodel": MeasureCModel(),
        "extendedness": MeasureExtendedness(),
    }
    columns = measure_sources(exposure, np.round(places), measurements=measurements, sizes=(48,))
    value, extended = columns["extendedness_value"], np.array(extended)
    assert np.mean(columns["extendedness_flag"]) < 0.01
    assert np.mean(value[extended] == 1) >= 0.98
    assert np.mean(value[~extended] == 1) <= 0.01
