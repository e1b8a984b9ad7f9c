"""Fields of stars and galaxies in several bands."""

import numpy as np
import pytest

from diffdeblend.simulate import draw_field, make_field, moffat_basis

SHAPE = (110, 131)
# A disc, a star, a bulge with a disc beyond the border: the same programs for all tests.
SOURCES = {
    "x": [60.3, 20.2, 128.9],
    "y": [50.4, 30.7, 77.7],
    "flux_g": [1000.0, 500.0, 300.0],
    "flux_i": [2000.0, 400.0, 700.0],
    "index": [[1.0, 1.0], [1.0, 1.0], [1.0, 4.0]],
    "radius": [[4.0, 0.0], [0.0, 0.0], [3.0, 1.5]],
    "g1": [[0.2, 0.0], [0.0, 0.0], [-0.1, 0.0]],
    "g2": [[0.1, 0.0], [0.0, 0.0], [0.3, 0.1]],
    "share": [[1.0, 0.0], [1.0, 0.0], [0.7, 0.3]],
}


def galsims(psf):
    """The same sources in band g by GalSim, through its PSF."""
    import galsim

    total = galsim.ImageD(SHAPE[1], SHAPE[0])
    for k in range(3):
        parts = []
        for index, radius, g1, g2, share in zip(
            *(SOURCES[name][k] for name in ("index", "radius", "g1", "g2", "share")), strict=True
        ):
            if share and radius:
                part = galsim.Sersic(index, half_light_radius=radius, flux=share)
                parts.append(part.shear(g1=g1, g2=g2))
        seen = galsim.Convolve(galsim.Sum(parts), psf) if parts else psf
        image = galsim.ImageD(SHAPE[1], SHAPE[0])
        centre = galsim.PositionD(SOURCES["x"][k] + 1, SOURCES["y"][k] + 1)
        total += seen.withFlux(SOURCES["flux_g"][k]).drawImage(image, scale=1, center=centre)
    return total.array


@pytest.mark.slow
def test_it_is_as_galsim_draws_it():
    galsim = pytest.importorskip("galsim")
    field = draw_field(SOURCES, SHAPE, "gi", noise="none", fwhm=[0.8, 0.7])
    wanted = galsims(galsim.Moffat(beta=3, fwhm=4.0))
    sigma = float(np.sqrt(field.exposure.variance[0, 0, 0]))
    assert np.abs(field.noiseless[0] - wanted).max() < min(0.01 * sigma, 1e-3 * wanted.max())
    np.testing.assert_array_equal(field.truth["is_star"], [False, True, False])
    # A star's S/N by the best filter, of GalSim's star.
    star = galsim.Moffat(beta=3, fwhm=4.0).withFlux(500.0).drawImage(nx=65, ny=65, scale=1).array
    assert field.truth["snr_g"][1] == pytest.approx(np.sqrt(np.sum(star**2)) / sigma, rel=5e-3)


def test_depth_is_five_times_the_noise():
    flux = np.full(3, 10 ** (-0.4 * (25.0 - 31.4)))
    field = draw_field({**SOURCES, "flux_i": flux}, SHAPE, "gi", depth=[26.0, 25.0])
    assert field.truth["snr_i"][1] == pytest.approx(5.0, rel=0.01)
    assert field.truth["mag_i"][1] == pytest.approx(25.0)


def test_noise_has_the_variance_that_is_said():
    field = draw_field(SOURCES, SHAPE, "gi", noise="poisson", sky=[30.0, -7.0], sky_brightness=23.0)
    left = np.asarray(field.exposure.image) - field.noiseless - field.sky
    chi = left / np.sqrt(np.asarray(field.exposure.variance))
    n = chi[0].size
    assert np.abs(chi.mean(axis=(1, 2))).max() < 4 / np.sqrt(n)
    assert np.abs((chi**2).mean(axis=(1, 2)) - 1).max() < 4 * np.sqrt(2 / n)
    # Brighter where there is light.
    assert float(field.exposure.variance[0, 50, 60] / field.exposure.variance[0, 0, 60]) > 1.05


def test_noise_may_be_correlated():
    stamp = np.zeros((3, 3))
    stamp[1] = [0.4, 1.0, 0.4]
    field = draw_field(SOURCES, SHAPE, "gi", noise_correlation=stamp)
    noise = np.asarray(field.exposure.image - field.noiseless)
    along = (noise[:, :, 1:] * noise[:, :, :-1]).mean(axis=(1, 2)) / (noise**2).mean(axis=(1, 2))
    down = (noise[:, 1:] * noise[:, :-1]).mean(axis=(1, 2)) / (noise**2).mean(axis=(1, 2))
    np.testing.assert_allclose(along, 0.4, atol=0.05)
    np.testing.assert_allclose(down, 0, atol=0.05)


@pytest.mark.slow
def test_a_varying_psf_is_that_of_each_place():
    shape = (150, 190)
    psf = moffat_basis(shape, lambda u, v: 0.7 + 0.1 * u + 0.05 * v, n_bands=1)
    x, y = np.array([30.0, 160.0]), np.array([35.0, 110.0])
    stars = {"x": x, "y": y, "flux_r": [1000.0, 2000.0]}
    field = draw_field(stars, shape, "r", psf=psf, noise="none")
    for k, (i, j) in enumerate(zip(x.astype(int), y.astype(int), strict=True)):
        stamp = np.asarray(psf.images_at(x[k], y[k])[0]) * stars["flux_r"][k]
        image = field.noiseless[0][j - 20 : j + 21, i - 20 : i + 21]
        assert np.abs(image - stamp).max() < 1e-4 * stamp.max()
    galsim = pytest.importorskip("galsim")
    u, v = 2 * x[0] / (shape[1] - 1) - 1, 2 * y[0] / (shape[0] - 1) - 1
    there = galsim.Moffat(beta=3, fwhm=(0.7 + 0.1 * u + 0.05 * v) / 0.2)
    wanted = there.withFlux(1000.0).drawImage(nx=41, ny=41, scale=1).array
    image = field.noiseless[0][15:56, 10:51]
    # The stamp's light is brought to one, the wings beyond it are lost.
    assert np.abs(image - wanted / wanted.sum() * 1000).max() < 2e-3 * wanted.max()


@pytest.mark.slow
def test_stars_are_on_one_locus_and_a_seed_says_all():
    field, again = (
        make_field((96, 128), "gri", n_stars=30, n_galaxies=20, seed=3, separation=4.0)
        for _ in range(2)
    )
    np.testing.assert_array_equal(field.exposure.image, again.exposure.image)
    truth = field.truth
    assert len(truth) == 50
    assert truth["is_star"].sum() == 30
    stars = truth[truth["is_star"]]
    blue, red = stars["mag_g"] - stars["mag_r"], stars["mag_r"] - stars["mag_i"]
    order = np.argsort(blue)
    # One number, the temperature, says both colours.
    assert (np.diff(red[order]) > 0).all()
    assert np.ptp(blue) > 0.3
    places = np.stack([truth["x"], truth["y"]])
    apart = np.hypot(*(places[:, :, None] - places[:, None]))
    assert apart[np.triu_indices(50, 1)].min() >= 4.0
    assert (places > -0.5).all()
    assert (places.max(axis=1) < [127.5, 95.5]).all()


def test_another_field_compiles_nothing(compilations):
    draw_field(SOURCES, SHAPE, "gi", seed=1)
    moved = {**SOURCES, "x": [20.0, 90.0, 100.0]}
    compilations.clear()
    draw_field(moved, SHAPE, "gi", seed=2)
    assert not compilations


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"bands": "gq"}, "`bands`"),
        ({"n_stars": -1}, "`n_stars`"),
        ({"noise": "loud"}, "`noise`"),
        ({"separation": 90.0}, "`separation`"),
        ({"border": 60.0}, "`border`"),
        ({"fwhm": [0.7, 0.8]}, "`fwhm`"),
        ({"depth": np.nan}, "`depth`"),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        make_field((96, 128), **({"bands": "gri"} | wrong))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"x": [np.nan, 1.0, 2.0]}, "finite"),
        ({"radius": [1.0, 2.0]}, "`sources`"),
        ({"g1": [[2.0, 0], [0, 0], [0, 0]]}, "`g1`"),
        ({"index": [[9.0, 1], [1, 1], [1, 1]]}, "`index`"),
    ],
)
def test_wrong_sources_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        draw_field({**SOURCES, **wrong}, SHAPE, "gi")
    with pytest.raises(ValueError, match="lacks"):
        draw_field({**SOURCES, **wrong}, SHAPE, "gr")
