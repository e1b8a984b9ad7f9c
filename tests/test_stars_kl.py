"""Principal components of star images."""

from pathlib import Path

import numpy as np
import pytest

from diffdeblend.stars import (
    centred_stamps,
    kl_psf,
    middling_stars,
    stamp_side,
    whole_pixel_stamps,
)

SHAPE = (300, 420)
DATA = Path(__file__).parents[2] / "shared" / "data"


def stars(n=60, noise=0.0, jitter=0.0, seed=1):
    """Stamps of stars that lean with x and widen with y."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1] - 1, n), rng.uniform(0, SHAPE[0] - 1, n)
    v, u = np.mgrid[-8:9, -9:10]
    stamps = []
    for a, b in zip(x, y, strict=True):
        sigma, lean = 1.7 + 0.3 * b / SHAPE[0], 0.2 * (a / SHAPE[1] - 0.5)
        p, q = u - rng.uniform(-1, 1) * jitter, v - rng.uniform(-1, 1) * jitter
        stamp = np.exp(-0.5 * (p**2 + q**2 - 2 * lean * p * q) / sigma**2)
        stamps.append(stamp / stamp.sum())
    stamps = np.array(stamps)
    return stamps + noise * rng.normal(size=stamps.shape), x, y


def test_components_are_those_of_the_covariance():
    stamps, x, y = stars(noise=1e-4)
    found = kl_psf(stamps, x, y, SHAPE, n_basis=5)
    flat = stamps.reshape(len(stamps), -1)
    flat = flat / flat.sum(axis=1, keepdims=True)
    power = np.linalg.eigvalsh(np.cov(flat))[::-1]
    np.testing.assert_allclose(found.power, power / power.sum(), atol=1e-12)
    images = found.at_stars @ flat
    np.testing.assert_allclose(found.psf.images[0].reshape(5, -1), images, atol=1e-6)
    np.testing.assert_allclose(found.at_stars @ found.at_stars.T, np.eye(5), atol=1e-10)


def test_the_psf_is_met_between_the_stars():
    stamps, x, y = stars(80, noise=1e-4)
    found = kl_psf(stamps, x, y, SHAPE, n_basis=4)
    clean, a, b = stars(20, seed=7)
    ours = np.asarray(found.psf.images_at(a, b))[:, 0]
    assert np.abs(ours - clean).max() < 0.02 * clean.max()
    # One component alone misses what the PSF varies by.
    mean = np.asarray(kl_psf(stamps, x, y, SHAPE, n_basis=1).psf.images_at(a, b))[:, 0]
    assert np.abs(mean - clean).max() > 0.1 * clean.max()
    np.testing.assert_allclose(ours.sum(axis=(1, 2)), 1, atol=1e-6)


def test_a_larger_loss_keeps_the_first_of_the_same_components():
    stamps, x, y = stars(noise=2e-3)
    whole = kl_psf(stamps, x, y, SHAPE, inf_loss=0.0)
    kept = [kl_psf(stamps, x, y, SHAPE, inf_loss=loss) for loss in (0.001, 0.01, 0.1, 0.5)]
    sizes = [found.n_basis for found in kept]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 3
    assert kept[-1].n_basis == 1
    assert kept[-1].psf.degree == 0
    for found, loss in zip(kept, (0.001, 0.01, 0.1, 0.5), strict=True):
        n = found.n_basis
        np.testing.assert_array_equal(found.psf.images, whole.psf.images[:, :n])
        assert 1 - found.power[:n].sum() <= loss
        assert 1 - found.power[: n - 1].sum() > loss
    again = kl_psf(stamps, x, y, SHAPE, inf_loss=0.01)
    np.testing.assert_array_equal(again.psf.coefficients, kept[1].psf.coefficients)


def test_few_stars_give_fields_of_low_degree():
    stamps, x, y = stars(5, noise=1e-3)
    assert kl_psf(stamps, x, y, SHAPE, n_basis=2).psf.degree == 0
    stamps, x, y = stars(12, noise=1e-3)
    assert kl_psf(stamps, x, y, SHAPE, n_basis=2).psf.degree == 2


def test_smoothing_widens():
    stamps, x, y = stars()
    narrow, wide = (kl_psf(stamps, x, y, SHAPE, n_basis=1, smooth=s).psf for s in (0.0, 1.0))
    v, u = np.mgrid[-8:9, -9:10]
    moments = [
        np.sum(np.asarray(p.images_at(9.0, 9.0)[0]) * (u**2 + v**2) / 2) for p in (narrow, wide)
    ]
    assert moments[1] - moments[0] == pytest.approx(1, abs=0.02)


def test_middling_stars_are_neither_small_nor_bright():
    area = np.array([5, 20, 21, 22, 23, 24, 25, 26, 27, 90.0])
    flux = np.array([1, 10, 11, 12, 13, 14, 15, 16, 500, 600.0])
    assert middling_stars(area, flux).tolist() == [2, 3, 4, 5, 6, 7]
    assert middling_stars(area, flux, np.arange(10) != 4).tolist() == [2, 3, 5, 6, 7]
    # Fewer than 5: all.
    assert middling_stars(area[:5], flux[:5]).tolist() == [0, 1, 2, 3, 4]
    assert middling_stars([], []).size == 0
    many = middling_stars(np.full(500, 9.0), np.full(500, 7.0), most=100, seed=3)
    assert len(set(many.tolist())) == 100
    np.testing.assert_array_equal(
        many, middling_stars(np.full(500, 9.0), np.full(500, 7.0), most=100, seed=3)
    )


def test_stamps_are_centred_or_not():
    v, u = np.mgrid[:40, :61]
    image = 500 * np.exp(-0.5 * ((u - 30.4) ** 2 + (v - 20.7) ** 2) / 1.8**2)
    image = image + np.exp(-0.5 * ((u - 1.0) ** 2 + (v - 38.0) ** 2) / 1.8**2)
    x, y = [30.4, 1.0], [20.7, 38.0]
    side = stamp_side([20.0, 25.0, 30.0])
    assert side == 21
    w, z = np.mgrid[-10:11, -10:11]
    for cut, middle in ((whole_pixel_stamps, (0.4, -0.3)), (centred_stamps, (0.0, 0.0))):
        stamps = cut(image, x, y, side)
        assert stamps.shape == (2, side, side)
        np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1)
        found = np.sum(stamps[0] * z), np.sum(stamps[0] * w)
        np.testing.assert_allclose(found, middle, atol=0.01)
    # Nothing is beyond the border.
    assert np.all(np.ptp(whole_pixel_stamps(image, x, y, side)[1][:, :9], axis=1) == 0)


@pytest.mark.slow
def test_the_published_numbers_of_a_real_image_come_out():
    path = DATA / "aligned_eso085-030-004.fit"
    if not path.exists():
        pytest.skip(f"shared/data/{path.name} is not beside the project")
    from astropy.io import fits

    from diffdeblend import make_exposure
    from diffdeblend.detect import Threshold, detect

    image = np.asarray(fits.getdata(path), np.float32)
    with pytest.warns(UserWarning, match="lost more than 10 %"):
        found = detect(
            make_exposure(image, 1.0, np.ones((3, 3))),
            n_sigma=8,
            segmentation=Threshold(n_pixels=9),
        )
    table = found.catalog
    parent = found.parents.data[found.labels.data > 0]
    pairs = np.unique(np.stack([found.labels.data[found.labels.data > 0], parent]), axis=1)
    alone = np.bincount(pairs[1])[pairs[1]] == 1
    chosen = middling_stars(table["area"], table["segment_flux"], alone)
    # ProperImage: 83 stars, the first at (25.261, 4.009), stamps of 21 pixels.
    assert len(chosen) == pytest.approx(83, abs=10)
    x, y = (np.asarray(table[f"{axis}_centroid"], float)[chosen] for axis in "xy")
    assert x[0] == pytest.approx(25.261, abs=0.1)
    assert y[0] == pytest.approx(4.009, abs=0.1)
    side = stamp_side(np.asarray(table["area"])[chosen])
    assert side == 21
    stamps = whole_pixel_stamps(image - found.background[0], x, y, side)
    sizes = [kl_psf(stamps, x, y, image.shape, inf_loss=loss).n_basis for loss in (0.01, 0.1, 0.15)]
    assert sizes[0] == pytest.approx(46, abs=5)
    assert 2 <= sizes[1] <= 4
    assert 1 <= sizes[2] <= 3
    # Stars that are centred need fewer.
    centred = centred_stamps(image - found.background[0], x, y, side)
    assert kl_psf(centred, x, y, image.shape, inf_loss=0.1).n_basis < sizes[1]


WRONG = {
    "one stamp": (lambda s, x, y: kl_psf(s[0], x, y, SHAPE), r"`stamps` needs shape \(n, h, w\)"),
    "an even size": (lambda s, x, y: kl_psf(s[:, 1:], x, y, SHAPE), r"odd; got \(60, 16, 19\)"),
    "dark": (lambda s, x, y: kl_psf(-s, x, y, SHAPE), "`stamps` must be finite, each with a pos"),
    "places": (lambda s, x, y: kl_psf(s, x[:3], y, SHAPE), r"`x` needs .* 60 stars.*\(3,\)"),
    "loss": (lambda s, x, y: kl_psf(s, x, y, SHAPE, inf_loss=1.0), "`inf_loss` must be at least 0"),
    "sizes": (lambda s, x, y: kl_psf(s, x, y, SHAPE, n_basis=61), "between 1 and the 60 stars"),
    "degree": (lambda s, x, y: kl_psf(s, x, y, SHAPE, degree=-1, n_basis=2), "`degree` must be"),
    "smooth": (lambda s, x, y: kl_psf(s, x, y, SHAPE, smooth=-1), "`smooth` must be a finite"),
    "lengths": (lambda s, x, y: middling_stars(x, y[:3]), r"got shapes \(60,\), \(3,\)"),
    "side": (lambda s, x, y: centred_stamps(s[0], x, y, 4), "`side` must be odd"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(*stars())
