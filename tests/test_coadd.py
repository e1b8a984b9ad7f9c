"""The proper coadd against its formulas in double precision, direct sums, and draws of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty, quick_jit
from scipy.signal import correlate

from diffdeblend import make_exposure
from diffdeblend.coadd import Epoch, coadd, epoch_sums, make_plane
from diffdeblend.detect import NoSky
from diffdeblend.measure.points import point_fluxes

SHAPE = (90, 131)
WIDTHS = (1.1, 1.6, 2.2)
SCALES = np.array([1.0, 0.7, 1.3])
SIGMAS = np.array([3.0, 2.0, 5.0])
_STARS = np.random.default_rng(5).uniform([6, 6, 2.5], [124, 83, 4.2], (25, 3))


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def moffat(width, size=25, dx=0.0, dy=0.0, stretch=1.0):
    y, x = np.mgrid[:size, :size] - size // 2.0
    image = (1 + ((x - dx) ** 2 * stretch + (y - dy) ** 2) / (3 * width**2)) ** -3.5
    return image / image.sum()


PSFS = [moffat(w, stretch=1 + 0.1 * k) for k, w in enumerate(WIDTHS)]


def sky(psf_width, stretch, shape=SHAPE):
    """Stars at fractions of a pixel, of unit flux scale."""
    image = np.zeros((shape[0] + 40, shape[1] + 40))
    for x, y, power in _STARS:
        ix, iy = round(x), round(y)
        stamp = moffat(psf_width, 25, x - ix, y - iy, stretch)
        image[iy + 8 : iy + 33, ix + 8 : ix + 33] += 10**power * stamp
    return image[20:-20, 20:-20]


def epochs(rng, stars=True, masks=None, **settings):
    made = []
    for k, width in enumerate(WIDTHS):
        light = SCALES[k] * sky(width, 1 + 0.1 * k) if stars else np.zeros(SHAPE)
        image = light + rng.normal(0, SIGMAS[k], SHAPE)
        mask = None if masks is None else masks[k]
        if mask is not None:
            image = np.where(mask, 6e4, image)
        made.append(make_exposure(image, SIGMAS[k] ** 2, PSFS[k], mask=mask, **settings))
    return made


def holes(rng):
    masks = np.zeros((3, *SHAPE), bool)
    masks[0, :, 40:42], masks[1, 33, :], masks[2, 60:67, 70:80] = True, True, True
    masks[:, 10:12, 20:22] = True
    return masks


def test_without_masks_it_is_what_the_formulas_say(x64):
    made = epochs(np.random.default_rng(0))
    found = coadd(made, scale=SCALES)
    # Far from the edges nothing depends on what is put around the images.
    size = (180, 256)
    light, power = 0, 0
    for k, exposure in enumerate(made):
        image = np.pad(np.asarray(exposure.image[0]), 40, "symmetric")[: size[0], : size[1]]
        psf = np.zeros(size)
        psf[:25, :25] = np.asarray(exposure.psf.image[0])
        psf = np.fft.fft2(np.roll(psf, (-12, -12), (0, 1)))
        light = light + SCALES[k] / SIGMAS[k] ** 2 * psf.conj() * np.fft.fft2(image, size)
        power = power + (SCALES[k] / SIGMAS[k]) ** 2 * np.abs(psf) ** 2
    proper = np.fft.ifft2(light / np.sqrt(power)).real[40:130, 40:171]
    inside = slice(30, -30), slice(30, -30)
    assert np.abs(np.asarray(found.exposure.image[0]) - proper)[inside].max() < 2e-3
    total = np.sqrt(((SCALES / SIGMAS) ** 2).sum())
    assert float(found.F_R[0]) == pytest.approx(total, rel=1e-12)
    whole = np.fft.fftshift(np.fft.ifft2(np.sqrt(power) / total).real)
    stamp = np.asarray(found.psf.image[0])
    half = stamp.shape[0] // 2
    cut = whole[90 - half : 91 + half, 128 - half : 129 + half]
    assert stamp.shape == (37, 37)
    assert cut.sum() == pytest.approx(1, abs=2e-3)
    assert np.abs(stamp - cut / cut.sum()).max() < 1e-6


def test_the_score_is_the_direct_sum_over_used_pixels_up_to_the_edge(x64):
    rng = np.random.default_rng(1)
    masks = holes(rng)
    made = epochs(rng, masks=masks)
    found = coadd(made, scale=SCALES, passes=1)
    top, weight = 0, 0
    for k, exposure in enumerate(made):
        inverse = ~masks[k] / SIGMAS[k] ** 2
        light = np.where(masks[k], 0, np.asarray(exposure.image[0]))
        psf = np.asarray(exposure.psf.image[0])
        top = top + SCALES[k] * correlate(light * inverse, psf, "same", "direct")
        weight = weight + SCALES[k] ** 2 * correlate(inverse, psf**2, "same", "direct")
    np.testing.assert_allclose(found.score[0], top / np.sqrt(weight), atol=1e-8)
    np.testing.assert_allclose(found.flux[0], top / weight, atol=1e-7)
    np.testing.assert_allclose(found.flux_err[0], 1 / np.sqrt(weight), rtol=1e-8)
    np.testing.assert_array_equal(found.n_epochs[0], 3 - masks.sum(axis=0))
    assert np.asarray(found.exposure.flag("NO_DATA")[0]).sum() == 4
    assert not np.asarray(found.exposure.good[0])[10:12, 20:22].any()


def test_noise_is_white_and_of_unit_variance():
    found = coadd(epochs(np.random.default_rng(2), stars=False), scale=SCALES)
    noise = np.asarray(found.exposure.image[0], float)
    n = noise.size
    assert noise.std() == pytest.approx(1, abs=3 / np.sqrt(2 * n))
    for axis in (0, 1):
        pairs = np.take(noise, range(1, SHAPE[axis]), axis) * np.take(
            noise, range(SHAPE[axis] - 1), axis
        )
        assert abs(pairs.mean()) < 3.5 / np.sqrt(n)
    # Smoothed by the PSF: far fewer independent values.
    assert np.asarray(found.score).std() == pytest.approx(1, abs=0.06)
    assert np.asarray(found.exposure.variance).min() == 1


def test_masked_pixels_are_filled_by_what_other_epochs_say():
    masks = holes(None)
    masks[:, 10:12, 20:22] = False
    whole = coadd(epochs(np.random.default_rng(3)), scale=SCALES)
    once, twice = (
        coadd(epochs(np.random.default_rng(3), masks=masks), scale=SCALES, passes=n) for n in (1, 3)
    )
    off = [np.asarray(c.exposure.image - whole.exposure.image)[0] for c in (once, twice)]
    assert np.sqrt((off[1] ** 2).mean()) < 0.6 * np.sqrt((off[0] ** 2).mean())
    touched = np.asarray(twice.exposure.flag("INTRP")[0])
    np.testing.assert_array_equal(touched, masks.any(axis=0))
    np.testing.assert_allclose(once.score, twice.score)


def test_scales_are_measured_on_light():
    found = coadd(epochs(np.random.default_rng(4)))
    np.testing.assert_allclose(found.scale[:, 0], SCALES, rtol=0.006)


def test_scales_come_from_zero_points_and_the_coadd_has_its_own():
    made = [
        make_exposure(np.ones((2, 20, 24)), 4.0, np.stack([moffat(1.2, 9)] * 2), zero_points=z)
        for z in ([25.0, 26.0], [24.5, 26.1])
    ]
    found = coadd(made, scale="zero_points")
    np.testing.assert_allclose(
        found.scale, [[1, 1], 10 ** (0.4 * np.array([-0.5, 0.1]))], rtol=1e-5
    )
    zero_points = np.array(found.exposure.header.zero_points)
    np.testing.assert_allclose(zero_points, [25, 26] + 2.5 * np.log10(found.F_R), rtol=1e-5)
    assert np.isnan(found.effective_gain).all()


def test_a_source_has_the_flux_and_the_gain_that_are_told():
    rng = np.random.default_rng(6)
    gains, y0, x0 = (2.0, 1.0, 4.0), 45, 60
    light = [np.zeros(SHAPE) for _ in WIDTHS]
    for k, psf in enumerate(PSFS):
        light[k][y0 - 12 : y0 + 13, x0 - 12 : x0 + 13] = 5e3 * SCALES[k] * psf
    made = [
        make_exposure(light[k], SIGMAS[k] ** 2 + light[k] / gains[k], PSFS[k], gain=gains[k])
        for k in range(3)
    ]
    found = coadd(made, scale=SCALES)
    assert float(found.flux[0, y0, x0]) == pytest.approx(5e3, rel=1e-3)
    stamp = np.asarray(found.exposure.image[0])[y0 - 18 : y0 + 19, x0 - 18 : x0 + 19]
    assert stamp.sum() / float(found.F_R[0]) == pytest.approx(5e3, rel=5e-3)
    square = ((SCALES / SIGMAS) ** 2).sum()
    cube = (SCALES**3 / SIGMAS**4 / gains).sum()
    assert float(found.effective_gain[0]) == pytest.approx(square**1.5 / cube, rel=1e-5)
    # Errors with photons, by drawing them.
    drawn = []
    for _ in range(40):
        draws = [
            rng.poisson(light[k] * gains[k]) / gains[k] + rng.normal(0, SIGMAS[k], SHAPE)
            for k in range(3)
        ]
        noisy = [
            make_exposure(d, made[k].variance[0], PSFS[k], gain=gains[k])
            for k, d in enumerate(draws)
        ]
        drawn.append(float(coadd(noisy, scale=SCALES).flux[0, y0, x0]))
    assert np.std(drawn) == pytest.approx(float(found.flux_err[0, y0, x0]), rel=0.35)
    assert np.mean(drawn) == pytest.approx(5e3, abs=4 * np.std(drawn) / np.sqrt(40))


def test_shifts_of_epochs_are_allowed_for():
    shifts = np.array([[0, 0], [0.4, -1.3], [-2.2, 0.7]])
    made = []
    for dx, dy in shifts:
        image = np.zeros(SHAPE)
        ix, iy = round(60 + dx), round(40 + dy)
        image[iy - 12 : iy + 13, ix - 12 : ix + 13] = 900 * moffat(
            1.5, 25, 60 + dx - ix, 40 + dy - iy
        )
        made.append(make_exposure(image, 1.0, moffat(1.5)))
    found = coadd(made, scale=[1, 1, 1], shift=shifts)
    assert float(found.flux[0, 40, 60]) == pytest.approx(900, rel=2e-3)
    assert float(coadd(made, scale=[1, 1, 1]).flux[0, 40, 60]) < 850


def test_a_vmap_over_epochs_is_the_loop_and_compiles_once(compilations):
    made = epochs(np.random.default_rng(7))
    plane = make_plane(SHAPE, (25, 25))
    parts = [
        Epoch(
            e.image[0],
            e.variance[0],
            e.good[0],
            e.psf.image[0],
            *(jnp.float32(v) for v in (SCALES[k], SIGMAS[k], 0, 0, 1)),
        )
        for k, e in enumerate(made)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    several = quick_jit(jax.vmap(lambda e: epoch_sums(e, plane)))(stacked)
    one = quick_jit(lambda e: epoch_sums(e, plane))
    loop = [one(e) for e in parts]
    for got, *wanted in zip(*(jax.tree.leaves(t) for t in (several, *loop)), strict=True):
        wanted = np.stack(wanted)
        assert np.abs(np.asarray(got) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    coadd(made, scale=SCALES)
    before = len(compilations)
    coadd(made, scale=SCALES * 1.1)
    assert len(compilations) == before


def test_an_iterator_is_read_once_and_a_function_for_each_pass():
    made = epochs(np.random.default_rng(8), masks=holes(None))
    calls = []

    def again():
        calls.append(1)
        return iter(made)

    once, listed = coadd(iter(made), scale=SCALES), coadd(made, scale=SCALES, passes=1)
    np.testing.assert_array_equal(once.exposure.image, listed.exposure.image)
    np.testing.assert_array_equal(
        coadd(again, scale=SCALES).exposure.image, coadd(made, scale=SCALES).exposure.image
    )
    assert len(calls) == 2


def test_skies_are_taken_away():
    made = epochs(np.random.default_rng(9))

    def flat(image, mask):
        return NoSky()(image, mask)._replace(level=np.full_like(image, 100.0))

    lifted = [make_exposure(e.image[0] + 100.0, e.variance[0], e.psf) for e in made]
    got = coadd(lifted, scale=SCALES, sky=flat)
    want = coadd(made, scale=SCALES)
    np.testing.assert_allclose(got.exposure.image, want.exposure.image, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": []}, "`epochs` is empty"),
        ({"epochs": 3}, "`epochs` must be exposures"),
        ({"scale": [1, 2]}, "`scale` needs one entry an epoch"),
        ({"scale": [1, 2, 3, 4]}, "`scale` needs one entry an epoch, 3; got 4"),
        ({"scale": [1, -2, 1]}, "`scale` must be finite and positive"),
        ({"scale": "stars"}, "`scale` must be light"),
        ({"scale": "zero_points"}, "`scale` is zero_points"),
        ({"shift": [1, 2]}, "`shift` needs finite numbers"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"psf_size": 8}, "`psf_size` must be odd"),
    ],
)
def test_bad_input_is_named(change, words):
    made = [make_exposure(np.ones((30, 24)), 1.0, moffat(1.2, 9)) for _ in range(3)]
    with pytest.raises(ValueError, match=words):
        coadd(**{"epochs": made, "scale": [1, 1, 1]} | change)


def test_epochs_that_do_not_go_together_or_have_no_stars_are_refused():
    first = make_exposure(np.zeros((30, 24)), 1.0, moffat(1.2, 9))
    with pytest.raises(ValueError, match="Align them"):
        coadd([first, make_exposure(np.zeros((30, 25)), 1.0, moffat(1.2, 9))], scale=[1, 1])
    with pytest.raises(ValueError, match="too little light"):
        coadd([first, first])


def test_point_fluxes_are_those_of_a_least_squares_fit(x64):
    rng = np.random.default_rng(10)
    psf = moffat(1.4, 19, stretch=1.2)
    image = rng.normal(0, 1, (40, 52))
    weight = rng.uniform(0.5, 2, image.shape)
    weight[20, 21] = 0
    image[20, 21] = np.nan
    x, y = np.array([20.0, 51.0, 300.0, np.nan]), np.array([21.0, 0.0, 10.0, 3.0])
    found = point_fluxes(image, weight, psf, x, y)
    for k in range(2):
        model = np.zeros((80, 92))
        model[y[k].astype(int) + 11 :][:19, x[k].astype(int) + 11 :][:, :19] = psf
        model = model[20:-20, 20:-20].ravel()
        root = np.sqrt(weight.ravel())
        data = np.where(weight > 0, image, 0).ravel()
        flux = np.linalg.lstsq((root * model)[:, None], root * data, rcond=None)[0][0]
        assert found.flux[k] == pytest.approx(flux, abs=1e-9)
        assert found.error[k] == pytest.approx(1 / np.sqrt((weight.ravel() * model**2).sum()))
    assert found.share[1] < 0.7
    assert np.isnan(found.flux[2:]).all()
    assert np.isinf(found.error[2:]).all()


def test_point_fluxes_between_pixels_are_right():
    image = 1e3 * np.pad(moffat(1.6, 31, 0.3, -0.45), 5)
    flux = point_fluxes(image, np.ones((41, 41)), moffat(1.6, 31), [20.3], [19.55]).flux
    assert flux[0] == pytest.approx(1e3, rel=2e-3)
