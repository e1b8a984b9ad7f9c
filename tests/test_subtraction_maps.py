"""Maps of one pair of images: noise, significance, flux, borders and missing pixels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty
from subtraction_fields import (
    SIGMA_NEW,
    SIGMA_REFERENCE,
    SKY_NEW,
    SKY_REFERENCE,
    field,
    gaussian_stamp,
)

from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.fill import fill_holes
from diffdeblend.subtract.fill_jointly import fill_jointly
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.padding import pad, padded_shape, unpad
from diffdeblend.subtract.variance import SystematicNoise
from diffdeblend.widths import equivalent_sigma

SHAPE, BETA = (88, 112), 0.7
POINT = (70, 41, 1500.0)
PSF_NEW, PSF_REFERENCE = (
    gaussian_stamp(s).astype(np.float32) for s in (SIGMA_NEW, SIGMA_REFERENCE)
)
maps_of = eqx.filter_jit(subtract_constant)


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def pair_of(images, noise=None, missing=None):
    new, reference, variance_new, variance_reference = map(jnp.asarray, images)
    missing = (None, None) if missing is None else tuple(map(jnp.asarray, missing))
    numbers = (
        jnp.asarray(v, new.dtype) for v in (SKY_NEW**0.5, SKY_REFERENCE**0.5, BETA, 0.0, 0.0)
    )
    return ImagePair(
        new,
        reference,
        variance_new,
        variance_reference,
        *missing,
        *numbers,
        SystematicNoise() if noise is None else noise,
    )


@pytest.fixture(scope="module")
def images():
    return field(SHAPE, beta=BETA, seed=2, extra=[POINT])[:4]


def textbook(new, reference, variance_new, variance_reference):
    """D, S_corr, flux and its error by the paper, on images that wrap around, in double."""

    def plane(stamp):
        padded = np.zeros(SHAPE)
        padded[:17, :17] = stamp
        return np.fft.fft2(np.roll(padded, (-8, -8), axis=(0, 1)))

    p_n, p_r = plane(PSF_NEW.astype(float)), plane(PSF_REFERENCE.astype(float))
    power = SKY_NEW * abs(p_r) ** 2 + SKY_REFERENCE * BETA**2 * abs(p_n) ** 2
    power += 1e-8 * (SKY_NEW + SKY_REFERENCE * BETA**2)
    n, r = np.fft.fft2(new), np.fft.fft2(reference)
    d = (p_r * n - BETA * p_n * r) / np.sqrt(power)
    k_n = BETA * p_n.conj() * abs(p_r) ** 2 / power
    k_r = BETA**2 * p_r.conj() * abs(p_n) ** 2 / power
    s = np.fft.ifft2(k_n * n - k_r * r).real
    variance = sum(
        np.fft.ifft2(np.fft.fft2(v) * np.fft.fft2(np.fft.ifft2(k).real ** 2)).real
        for v, k in ((variance_new, k_n), (variance_reference, k_r))
    )
    f_s = np.mean(BETA**2 * abs(p_n * p_r) ** 2 / power)
    return np.fft.ifft2(d).real, s / np.sqrt(variance), s / f_s, np.sqrt(variance) / f_s


def test_equals_the_paper_away_from_the_border(images):
    got = maps_of(pair_of(images), PSF_NEW, PSF_REFERENCE)
    inside = np.s_[26:-26, 26:-26]
    expected = [a[inside] for a in textbook(*(np.asarray(a, float) for a in images))]
    for name, values, least in (
        ("D", expected[0], 1e-4),
        ("S_corr", expected[1], 2e-3),
        ("flux", expected[2], 2e-4),
        ("flux_err", expected[3], 2e-4),
    ):
        scale = np.abs(values).max() if name.startswith("flux") else 1
        np.testing.assert_allclose(
            np.asarray(getattr(got, name))[inside] / scale, values / scale, atol=least
        )
    x, y, flux = POINT
    pull = (float(got.flux[y, x]) - flux) / float(got.flux_err[y, x])
    assert abs(pull) < 3.5
    assert float(got.S_corr[y, x]) > 5
    assert float(got.psf.sum()) == pytest.approx(1, abs=1e-5)


def test_noise_has_unit_variance_at_the_borders_too():
    rng = np.random.default_rng(0)
    deep = np.full(SHAPE, SKY_NEW, np.float32), np.full(SHAPE, SKY_REFERENCE, np.float32)
    edge, corner, inner = [], [], []
    for _ in range(60):
        noise = [(np.sqrt(v) * rng.normal(size=SHAPE)).astype(np.float32) for v in deep]
        sig = np.asarray(maps_of(pair_of((*noise, *deep)), PSF_NEW, PSF_REFERENCE).S_corr)
        edge.append(np.concatenate([sig[0, 9:-9], sig[-1, 9:-9], sig[9:-9, 0], sig[9:-9, -1]]))
        corner.append([sig[0, 0], sig[0, -1], sig[-1, 0], sig[-1, -1]])
        inner.append(sig[20:-20, 20:-20])
    # Without the mirror's share the border would have 1.4, the corners 2.
    assert np.std(edge) == pytest.approx(1, abs=0.05)
    assert np.std(corner) == pytest.approx(1, abs=0.2)
    assert np.std(inner) == pytest.approx(1, abs=0.02)


def test_registration_noise_is_that_of_moved_images(images):
    """Shifts of many draws: the spread of the score at each pixel is what was foretold."""
    noise = SystematicNoise(x=0.05, y=0.02)
    calm, unsure = (
        maps_of(pair_of(images, each), PSF_NEW, PSF_REFERENCE)
        for each in (SystematicNoise(), noise)
    )
    extra = np.asarray(unsure.flux_err) ** 2 - np.asarray(calm.flux_err) ** 2
    step = 0.05
    total = 0.0
    for which in (0, 1):
        for axis, rms in ((1, noise.x), (0, noise.y)):
            moved = [np.asarray(a) for a in images]
            k = 2j * np.pi * np.fft.fftfreq(SHAPE[axis])
            phase = np.exp(-step * (k[:, None] if axis == 0 else k))
            moved[which] = np.fft.ifft2(np.fft.fft2(moved[which]) * phase).real.astype(np.float32)
            other = maps_of(pair_of(moved), PSF_NEW, PSF_REFERENCE)
            slope = (np.asarray(other.flux) - np.asarray(calm.flux)) / step
            total = total + (float(rms) * slope) ** 2
    inside = np.s_[20:-20, 20:-20]
    # Differences of neighbouring pixels are a little flatter than slopes.
    ratio = extra[inside].sum() / total[inside].sum()
    assert 0.75 < ratio < 1.02
    assert np.corrcoef(extra[inside].ravel(), total[inside].ravel())[0, 1] > 0.97


def test_flux_ratio_noise_and_psf_noise_grow_with_the_light(images):
    calm = maps_of(pair_of(images), PSF_NEW, PSF_REFERENCE)
    y, x = np.unravel_index(np.argmax(images[1][20:-20, 20:-20]), (48, 72))
    y, x = y + 20, x + 20
    for noise in (SystematicNoise(flux_ratio=0.02), SystematicNoise(psf=0.02)):
        more = maps_of(pair_of(images, noise), PSF_NEW, PSF_REFERENCE)
        assert more.flux_err[y, x] > 1.5 * calm.flux_err[y, x]
        faint = np.argmin(images[3].sum(axis=1))
        np.testing.assert_allclose(more.flux_err[faint, 0], calm.flux_err[faint, 0], rtol=0.01)
    # A Gaussian wider by 1 % is itself and its Laplacian.
    y, x = np.mgrid[:17, :17] - 8
    wider = gaussian_stamp(SIGMA_NEW * 1.01) - gaussian_stamp(SIGMA_NEW)
    laplacian = ((x**2 + y**2) / SIGMA_NEW**4 - 2 / SIGMA_NEW**2) * gaussian_stamp(SIGMA_NEW)
    expected = 0.01 * float(equivalent_sigma(PSF_NEW)) ** 2 * laplacian
    np.testing.assert_allclose(wider, expected, atol=0.03 * np.abs(wider).max())


def test_missing_pixels_neither_ring_nor_hide_what_is_beside_them(images):
    new, reference, variance_new, variance_reference = images
    missing_new, missing_reference = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    missing_new[:, 50:52] = True
    missing_reference[30, :] = True
    y, x = np.unravel_index(np.argmax(np.where(missing_new, 0, new)), SHAPE)
    for missing in (missing_new, missing_reference):
        missing[y - 2 : y + 3, x - 2 : x + 3] = True
    holed = [
        fill_holes(np.where(missing, np.nan, image), missing)
        for image, missing in ((new, missing_new), (reference, missing_reference))
    ]
    assert np.isfinite(holed).all()
    pair = pair_of(
        (*holed, variance_new, variance_reference), None, (missing_new, missing_reference)
    )
    filled = eqx.filter_jit(fill_jointly)(pair, PSF_NEW, PSF_REFERENCE)
    np.testing.assert_array_equal(
        np.asarray(filled.new)[~missing_new], np.asarray(pair.new)[~missing_new]
    )
    before, after = (np.asarray(maps_of(p, PSF_NEW, PSF_REFERENCE).S_corr) for p in (pair, filled))
    got = maps_of(filled, PSF_NEW, PSF_REFERENCE)
    use = np.asarray(got.lost) < 0.5
    use[POINT[1] - 6 : POINT[1] + 7, POINT[0] - 6 : POINT[0] + 7] = False
    assert np.abs(before[use]).max() > 20
    assert np.abs(after[use]).max() < 5.5
    assert np.std(after[use]) == pytest.approx(1, abs=0.06)
    lost = np.asarray(got.lost)
    assert lost[y, x] > 0.9
    assert lost[70, 20] < 1e-3

    # In the column: the share of F_S in its two columns of pixels, by hand.
    def plane(stamp):
        return np.fft.fft2(np.roll(np.pad(stamp.astype(float), 16), (-24, -24), axis=(0, 1)))

    p_n, p_r = plane(PSF_NEW), plane(PSF_REFERENCE)
    power = SKY_NEW * abs(p_r) ** 2 + SKY_REFERENCE * BETA**2 * abs(p_n) ** 2
    power += 1e-8 * (SKY_NEW + SKY_REFERENCE * BETA**2)
    weight = np.fft.ifft2(p_n * abs(p_r) ** 2 / power).real * np.fft.ifft2(p_n).real
    assert lost[60, 50] == pytest.approx(weight[:, :2].sum() / weight.sum(), abs=0.01)


def test_batches_equal_a_loop_and_do_not_compile_again(images):
    pairs = [pair_of(field((48, 40), 8, beta=BETA, seed=k)[:4]) for k in range(5)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    count = []

    @jax.jit
    def of_batch(batch):
        count.append(1)
        return jax.vmap(lambda pair: subtract_constant(pair, PSF_NEW, PSF_REFERENCE))(batch)

    # Rounding is that of the brightest star, which cancels.
    bright = 3e-7 * float(batch.new.max()) / SKY_NEW**0.5
    together = of_batch(batch)
    of_batch(jax.tree.map(lambda leaf: leaf + 1, batch))
    assert len(count) == 1
    for k, pair in enumerate(pairs):
        for a, b in zip(
            jax.tree.leaves(together),
            jax.tree.leaves(maps_of(pair, PSF_NEW, PSF_REFERENCE)),
            strict=True,
        ):
            np.testing.assert_allclose(a[k], b, atol=bright * float(jnp.abs(b).max()) + 1e-7)


def test_padding_mirrors_and_comes_off():
    image = jnp.arange(35.0).reshape(5, 7)
    padded = pad(image, padded_shape((5, 7), 3))
    assert padded.shape == (12, 15)
    np.testing.assert_array_equal(unpad(padded, (5, 7)), image)
    np.testing.assert_array_equal(unpad(padded, (5, 7), 1)[0, 1:-1], image[0])
