"""Templates of sources: symmetric, smoothed, falling outwards; and points."""

import galsim
import jax
import numpy as np
import pytest
from scipy.ndimage import maximum_filter, median_filter

from diffdeblend.allocate import fit_points, median_smoothed, monotone, symmetric_templates
from diffdeblend.allocate.psf_test import moved_psf

RNG = np.random.default_rng(3)
SHIFTED = jax.jit(moved_psf, static_argnums=3)


def slow_monotone(template):
    """Pixel by pixel, ring by ring, each casting its shadow in turn."""
    height, width = template.shape
    cy, cx = height // 2, width // 2
    out = template.copy()
    dy, dx = np.indices(template.shape)
    dy, dx = dy - cy, dx - cx
    ring = np.maximum(np.abs(dx), np.abs(dy))
    for inner in range(0, max(cy, cx), 5):
        frozen = out.copy()
        for s in range(inner, inner + 5):
            for y, x in zip(*np.nonzero(ring == s), strict=True):
                value = frozen[y, x]
                if s == 0:
                    near = (ring > 0) & (ring <= 5)
                    out[near] = np.minimum(out[near], value)
                    continue
                v, u = int(y - cy), int(x - cx)
                for step in range(1, 6):
                    if abs(u) >= abs(v):
                        middle, a = v + step * v / abs(u), u + step * np.sign(u)
                        low, high = middle - 0.3 * step, middle + 0.3 * step
                        for b in range(int(np.floor(low + 0.5)), int(np.floor(high + 0.5)) + 1):
                            if abs(a) <= cx and abs(b) <= cy:
                                out[b + cy, a + cx] = min(out[b + cy, a + cx], value)
                    else:
                        middle, b = u + step * u / abs(v), v + step * np.sign(v)
                        low, high = middle - 0.3 * step, middle + 0.3 * step
                        for a in range(int(np.floor(low + 0.5)), int(np.floor(high + 0.5)) + 1):
                            if abs(a) <= cx and abs(b) <= cy:
                                out[b + cy, a + cx] = min(out[b + cy, a + cx], value)
    return out


def bumpy(n, height, width):
    y, x = np.indices((height, width))
    hill = np.exp(-((x - width // 2) ** 2 + (y - height // 2) ** 2) / (0.1 * height * width))
    return (3 * hill + RNG.random((n, height, width))).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (17, 17), (21, 39)])
def test_monotone_is_its_slow_version_bit_for_bit(shape):
    templates = bumpy(2, *shape)
    expected = np.stack([slow_monotone(one) for one in templates])
    np.testing.assert_array_equal(monotone(templates), expected)


def test_monotone_falls_along_rays():
    y, x = np.indices((41, 41))
    galaxy = np.exp(-np.hypot(x - 20, (y - 20) / 0.7) / 4)
    bumps = 0.3 * np.exp(-((x - 28) ** 2 + (y - 24) ** 2) / 6)
    bumps += 0.3 * np.exp(-((x - 12) ** 2 + (y - 16) ** 2) / 6)
    once = np.asarray(monotone((galaxy + bumps)[None].astype(np.float32)))[0]
    # Within a pixel: none is brighter than all of the nine about the one before.
    around = maximum_filter(once, 3)
    for angle in 2 * np.pi * np.arange(16) / 16:
        r = np.arange(20)
        y, x = (np.round(20 + r * f(angle)).astype(int) for f in (np.sin, np.cos))
        assert (once[y[1:], x[1:]] <= around[y[:-1], x[:-1]]).all()
    assert (once <= galaxy + bumps + 1e-7).all()
    assert once.sum() < 0.99 * (galaxy + bumps).sum()


def test_what_fell_already_hardly_changes_again():
    y, x = np.indices((41, 41))
    blend = sum(
        flux * np.exp(-np.hypot(x - a, (y - b) / 0.8) / 3)
        for flux, a, b in ((1, 20, 20), (1, 28, 25))
    )
    blend = blend[None].astype(np.float32)
    once = np.asarray(monotone(symmetric_templates(blend, np.ones(blend.shape, bool))))
    twice = np.asarray(monotone(once))
    assert 0 <= (once - twice).sum() < 1e-3 * once.sum()


def test_a_median_of_25_is_that_of_scipy():
    templates = bumpy(2, 15, 23)
    far = np.array([11, 4], np.int32), np.array([7, 7], np.int32)
    smoothed = np.asarray(median_smoothed(templates, *far))
    exact = np.stack([median_filter(one, 5) for one in templates])
    inner = np.s_[0, 2:-2, 2:-2]
    np.testing.assert_array_equal(smoothed[inner], exact[inner])
    # The second reaches 4 columns from its peak in the middle: 2 of them are margin.
    np.testing.assert_array_equal(smoothed[1, 2:-2, 9:14], exact[1, 2:-2, 9:14])
    changed = smoothed != templates
    assert not changed[0, :2].any()
    assert not changed[0, :, -2:].any()
    assert not changed[1, :, :9].any()
    assert not changed[1, :, 14:].any()
    small = bumpy(1, 3, 23)
    np.testing.assert_array_equal(median_smoothed(small, *(v[:1] for v in far)), small)


def test_a_symmetric_source_is_its_own_template():
    image = galsim.Sersic(n=1.5, half_light_radius=4).shear(g1=0.2, g2=-0.1)
    seen = galsim.Convolve(image, galsim.Moffat(3, fwhm=3.5)).drawImage(nx=31, ny=25, scale=1).array
    inside = np.ones((1, 25, 31), bool)
    template = np.asarray(symmetric_templates(seen[None], inside))[0]
    np.testing.assert_allclose(template, seen, atol=1e-6 * seen.max())
    # With a neighbour it is never above the image, and is less where the neighbour is.
    blend = seen + np.roll(seen, (3, 9), (0, 1))
    template = np.asarray(symmetric_templates(blend[None], inside))[0]
    assert (template <= blend).all()
    assert template[15, 24] < 0.5 * blend[15, 24]


def test_a_template_is_empty_where_one_of_two_pixels_is_outside_or_unknown():
    image = np.ones((1, 5, 7), np.float32)
    image[0, 0, 0], image[0, 2, 1] = np.nan, -1
    inside = np.ones((1, 5, 7), bool)
    inside[0, 4, 3] = inside[0, 0, 0] = False
    template = np.asarray(symmetric_templates(image, inside))[0]
    expected = np.ones((5, 7))
    expected[[4, 0, 0, 4, 2, 2], [3, 3, 0, 6, 1, 5]] = 0
    np.testing.assert_array_equal(template, expected)


def star_psf(dx=0.0, dy=0.0):
    return (
        galsim.Moffat(3.5, fwhm=4)
        .drawImage(nx=31, ny=31, scale=1, offset=(dx, dy), dtype=float)
        .array
    )


def test_a_psf_is_moved_as_galsim_draws_it():
    moved = np.asarray(
        SHIFTED(star_psf().astype(np.float32), np.float32(0.4), np.float32(-0.2), 31)
    )
    expected = star_psf(0.4, -0.2)
    np.testing.assert_allclose(moved, expected, atol=3e-5 * expected.max())


def test_points_have_their_flux_place_and_error():
    n, size = 256, 17
    psf = star_psf().astype(np.float32)
    star, other = (
        np.asarray(SHIFTED(psf, np.float32(x), np.float32(y), size))
        for x, y in ((0.2, -0.1), (5, 3))
    )
    noise = RNG.standard_normal((n, size, size))
    image = (800 * star + 500 * other + 3 + noise).astype(np.float32)
    x = np.tile(np.array([0, 5, 0, 0], np.float32), (n, 1))
    y = np.tile(np.array([0, 3, 0, 0], np.float32), (n, 1))
    there = np.tile(np.array([True, True, False, False]), (n, 1))
    given = (
        *(image, np.ones_like(image), np.broadcast_to(psf, (n, *psf.shape)), x, y, there),
        np.tile(np.array([4, 6], np.float32), (n, 1)),
    )
    moved = fit_points(*given, np.asarray(True))
    size_before = fit_points._cache_size()
    still = fit_points(*given, np.asarray(False))
    assert fit_points._cache_size() == size_before
    np.testing.assert_allclose(np.mean(moved.dx), 0.2, atol=0.01)
    np.testing.assert_allclose(np.mean(moved.dy), -0.1, atol=0.01)
    # The point is off its place by a fifth of a pixel, and loses a percent of its light so.
    pulls = (np.asarray(moved.flux) - 800) / np.asarray(moved.error)
    assert abs(pulls.mean()) < 0.7
    assert 0.85 < pulls.std() < 1.15
    assert 0.95 < np.mean(moved.chi2 / moved.dof) < 1.1
    assert np.mean(still.chi2 / still.dof) > np.mean(moved.chi2 / moved.dof) + 0.2
    # Against a least-squares fit by numpy, pixel by pixel.
    row, column = np.indices((size, size)) - size // 2
    ramp = np.clip((6 - np.hypot(row, column)) / 2, 0, 1)
    at_peak, beside = (
        np.asarray(SHIFTED(psf, np.float32(a), np.float32(b), size)) for a, b in ((0, 0), (5, 3))
    )
    columns = np.stack([at_peak, np.ones_like(ramp), column, row, beside]).reshape(5, -1)
    root = np.sqrt(ramp.ravel())
    found, *_ = np.linalg.lstsq((columns * root).T, image[0].ravel() * root, rcond=None)
    chi2 = np.sum((root * (image[0].ravel() - found @ columns)) ** 2)
    np.testing.assert_allclose(still.flux[0], found[0], rtol=1e-3)
    np.testing.assert_allclose(still.chi2[0], chi2, rtol=1e-3)
    np.testing.assert_allclose(still.dof[0], ramp.sum() - 5, rtol=1e-5)


def test_a_fit_without_pixels_is_finite():
    zeros = np.zeros((256, 17, 17), np.float32)
    psf = np.broadcast_to(star_psf().astype(np.float32), (256, 31, 31))
    place = np.zeros((256, 4), np.float32)
    ramp = np.tile(np.array([4, 6], np.float32), (256, 1))
    fit = fit_points(zeros, zeros, psf, place, place, place == 0, ramp, np.asarray(True))
    assert all(np.isfinite(np.asarray(one)).all() for one in fit)
    assert (fit.dof <= 0).all()


def test_programs_are_compiled_once():
    made = jax.jit(monotone)
    made(bumpy(2, 9, 9))
    made(bumpy(2, 9, 9))
    assert made._cache_size() == 1
