"""Extendedness, blendedness and aperture corrections."""

import jax
import numpy as np
import pytest

from diffdeblend.quantities.aperture_correction import fit_aperture_correction
from diffdeblend.quantities.blendedness import blendedness
from diffdeblend.quantities.extendedness import (
    MeasureExtendedness,
    extendedness,
    measure_size_extendedness,
    size_extendedness,
)


def test_extended_is_what_has_more_light_than_a_point():
    model, point = np.array([1.0, 1.06, 2.0, np.nan, 1.0]), np.array([1.0, 1.0, 1.0, 1.0, np.inf])
    made = extendedness(model, point).value
    np.testing.assert_array_equal(made, [0, 1, 1, np.nan, np.nan])
    # Errors shift the line when they are asked to.
    made = extendedness(model, point, 0.1, 0.0, model_factor=-1.0).value
    np.testing.assert_array_equal(made[:3], [0, 0, 1])
    made = extendedness(model, point, 0.0, 0.1, psf_factor=1.0).value
    np.testing.assert_array_equal(made[:3], [0, 0, 1])
    assert extendedness(np.array([1.01]), np.array([1.0]), ratio=1.0).value[0] == 1


def test_size_extendedness_is_its_formula():
    made = size_extendedness(np.array([4.0, 6.0, np.nan, 50.0]), np.full(4, 4.0)).value
    np.testing.assert_allclose(made, [0, 1 - np.exp(-0.5), np.nan, 1], atol=1e-6)


def test_extendedness_as_a_column():
    found = {
        "cmodel": {"flux": np.float32(2), "flux_err": np.float32(1), "flag": np.asarray(False)},
        "psf": {"flux": np.float32(1), "flux_err": np.float32(1), "flag": np.asarray(False)},
        "shape": {"xx": np.float32(3), "yy": np.float32(3), "flag": np.asarray(True)},
        "psf_shape": {"xx": np.float32(2), "yy": np.float32(2)},
    }
    columns = MeasureExtendedness()(None, found)
    assert columns["value"] == 1
    assert not columns["flag"]
    found["psf"]["flag"] = np.asarray(True)
    assert MeasureExtendedness()(None, found)["flag"]
    assert measure_size_extendedness(None, found)["flag"]
    assert measure_size_extendedness(None, found)["value"] == pytest.approx(1 - np.exp(-0.5))


def gaussian(shape, x, y, sigma, flux):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    r2 = (columns - x) ** 2 + (rows - y) ** 2
    return flux * np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)


def test_blendedness_of_one_alone_is_zero_and_of_two_is_their_share():
    shape, sigma = (41, 51), 2.0
    child = gaussian(shape, 20.3, 19.8, sigma, 1000.0)
    other = gaussian(shape, 24.3, 19.8, sigma, 2000.0)
    variance = np.full(shape, 1e-4)
    form = (20.3, 19.8, sigma**2, sigma**2, 0.0)
    alone = blendedness(child, child, variance, *form)
    for value in (alone.old, alone.raw, alone.abs):
        assert value == pytest.approx(0, abs=1e-6)
    both = blendedness(child, child + other, variance, *form)
    # Gaussians four pixels apart: the product has exp(-d^2 / 4 sigma^2) of that of one with itself.
    share = 2 * np.exp(-(4.0**2) / (4 * sigma**2))
    assert both.old == pytest.approx(share, rel=1e-3)
    # The window ends at three standard deviations.
    assert both.raw == pytest.approx(share / (1 + share), rel=0.02)
    assert both.abs == pytest.approx(float(both.raw), abs=2e-3)
    # Through a window of its own shape a Gaussian's light is all seen.
    assert both.raw_child == pytest.approx(1000, rel=0.02)
    lost = blendedness(child, child, variance, 20.3, 19.8, np.nan, 4.0, 0.0)
    assert lost.flag
    assert np.isnan(lost.raw)


def test_noise_does_not_raise_the_absolute_fluxes():
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 3.0, (60, 60, 61)).astype(np.float32)
    variance = np.full(noise.shape[1:], 9.0, np.float32)

    def one(image):
        return blendedness(image, image, variance, 30.0, 29.0, 9.0, 9.0, 0.0).abs_parent

    values = jax.jit(jax.vmap(one))(noise)
    # Without the correction: 0.8 sigma a pixel of the window's 4 pi 9 pixels.
    plain = 0.798 * 3.0 * 4 * np.pi * 9
    assert abs(np.mean(values)) < 0.35 * plain


SHAPE = (900, 1400)


def stars(n, seed=0, scatter=0.004):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    truth = 1.05 + 2e-5 * x - 3e-5 * y + 1e-8 * x * y
    flux = rng.uniform(1e3, 1e5, n)
    return x, y, flux, flux * truth * (1 + scatter * rng.normal(size=n)), truth


def test_a_correction_is_the_ratio_and_its_error_is_right():
    pulls = []
    for seed in range(40):
        x, y, flux, reference, _ = stars(120, seed)
        made = fit_aperture_correction(x, y, flux, reference, SHAPE)
        factor, error = made(300.0, 700.0)
        truth = 1.05 + 2e-5 * 300 - 3e-5 * 700 + 1e-8 * 300 * 700
        assert abs(factor - truth) < 0.005
        pulls.append((factor - truth) / error)
    # Of 40: known to 11 %.
    assert 0.65 < np.std(pulls) < 1.4
    assert made.scatter == pytest.approx(0.004 * 1.05, rel=0.25)


def test_outliers_are_left_out_and_fluxes_are_corrected():
    x, y, flux, reference, truth = stars(200, 7)
    reference[:10] *= 1.5
    reference[10], flux[11] = np.nan, -5.0
    made = fit_aperture_correction(x, y, flux, reference, SHAPE, error=np.full(200, 0.004))
    assert not made.used[:12].any()
    fixed, error = made.apply(flux[12:], 0.01 * flux[12:], x[12:], y[12:])
    np.testing.assert_allclose(fixed, flux[12:] * truth[12:], rtol=0.004)
    assert (error >= 0.01 * fixed).all()


def test_few_stars_have_a_simpler_field():
    x, y, flux, reference, _ = stars(5, 3)
    made = fit_aperture_correction(x, y, flux, reference, SHAPE)
    assert made.degree == 0
    assert made(0.0, 0.0)[0] == pytest.approx(np.mean(reference / flux), rel=1e-2)
    one = fit_aperture_correction(x[:1], y[:1], flux[:1], reference[:1], SHAPE)
    assert one(5.0, 5.0)[0] == pytest.approx(reference[0] / flux[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flux": np.ones(3)}, "need one shape"),
        ({"flux": -np.ones(4)}, "no star"),
        ({"degree": -1}, "`degree` must be"),
        ({"error": np.ones(2)}, "`error` needs shape"),
    ],
)
def test_what_cannot_be_corrected_is_said(change, message):
    given = {name: np.ones(4) for name in ("x", "y", "flux", "reference")} | {"shape": (10, 10)}
    with pytest.raises(ValueError, match=message):
        fit_aperture_correction(**(given | change))
