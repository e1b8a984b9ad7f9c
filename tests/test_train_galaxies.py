"""What a prior learns from: galaxies drawn, of catalogues, and stamps of a survey."""

import galsim
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import hasty, quick_jit

from diffdeblend.components.decoded import Frame
from diffdeblend.exposure import make_exposure
from diffdeblend.psf import GaussianPSF
from diffdeblend.simulate import synthetic_catalog
from diffdeblend.train import (
    BulgeDiscKnots,
    Galaxies,
    Irregulars,
    Mixture,
    NoisyStamps,
    Sersics,
    Sizes,
    augment,
    cut_stamps,
    draw_catalog,
    draw_population,
    join,
    population_of,
    read_population,
    read_stamps,
)
from diffdeblend.train.render import Shapes, draw_shapes

FRAME = Frame()
POPULATIONS = {
    "sersic": Sersics(),
    "knots": BulgeDiscKnots(),
    "irregular": Irregulars(),
}


@pytest.fixture(autouse=True, scope="module")
def compile_in_haste():
    with hasty():
        yield


def seen(profile, x, y):
    """A profile in arcseconds at an offset in pixels in the frame, by GalSim."""
    fine = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-5, kvalue_accuracy=1e-6)
    gaussian = galsim.Gaussian(sigma=FRAME.psf_sigma * FRAME.pixel_scale)
    through = galsim.Convolve([profile, gaussian], gsparams=fine)
    return through.drawImage(
        *(None, FRAME.size, FRAME.size),
        scale=FRAME.pixel_scale,
        offset=(x, y),
        method="no_pixel",
        dtype=float,
    ).array


# Drawing.


def test_sersic_profiles_are_those_of_galsim():
    # Radius in arcsec, index, axis ratio: from less than a pixel to light far beyond the stamp.
    cases = [(0.08, 6.0, 0.2), (0.1, 0.5, 0.5), (1.5, 1.0, 0.2), (0.8, 4.0, 0.3), (0, 1, 1)]
    radius, index, q = np.array(cases, float).T
    rng = np.random.default_rng(0)
    g, angle = (1 - q) / (1 + q), rng.uniform(0, np.pi, len(q))
    g1, g2 = g * np.cos(2 * angle), g * np.sin(2 * angle)
    x, y = rng.normal(0, 0.5, (2, len(q)))
    parts = (radius / 0.2, index, g1, g2, x, y, np.ones(len(q)))
    images, outside = draw_shapes(Shapes(*(v[:, None] for v in parts)), FRAME)
    for k, image in enumerate(images):
        profile = galsim.DeltaFunction()
        if radius[k] > 0:
            profile = galsim.Sersic(index[k], half_light_radius=radius[k])
            profile = profile.shear(g1=g1[k], g2=g2[k])
        expected = seen(profile, x[k], y[k])
        np.testing.assert_allclose(image * (1 - outside[k]), expected, atol=1e-4 * expected.max())
        assert outside[k] == pytest.approx(1 - expected.sum(), abs=3e-4)


def test_knots_and_parts_are_those_of_galsim():
    n = 2
    one, two = np.ones((n, 1)), np.array([[1.0, -2.3, 3.1] + 15 * [0.0]] * n)
    shapes = Shapes(
        *(np.array([[3.0, 1.0]] * n), np.array([[1.0, 4.0]] * n)),
        *(np.array([[0.3, 0.1]] * n), np.array([[-0.2, 0.0]] * n)),
        *(one * [0.2, 0.7], one * [-0.3, 0.1], one * [0.4, 0.3]),
        blob_x=two,
        blob_y=two * [[-1.2]] + 0.4,
        blob_sigma=one * [0.0, 0.5, 2.0, *15 * [0.0]],
        blob_share=one * [0.05, 0.1, 0.15, *15 * [0.0]],
    )
    images, outside = draw_shapes(shapes, FRAME)
    expected = 0.4 * seen(
        galsim.Exponential(half_light_radius=0.6).shear(g1=0.3, g2=-0.2), 0.2, -0.3
    )
    expected += 0.3 * seen(
        galsim.DeVaucouleurs(half_light_radius=0.2).shear(g1=0.1, g2=0), 0.7, 0.1
    )
    for k, (sigma, share) in enumerate([(1e-4, 0.05), (0.1, 0.1), (0.4, 0.15)]):
        at = shapes.blob_x[0, k], shapes.blob_y[0, k]
        expected += share * seen(galsim.Gaussian(sigma=sigma), *at)
    np.testing.assert_allclose(images[1] * (1 - outside[1]), expected, atol=1e-4 * expected.max())


def test_a_second_call_of_any_number_compiles_nothing(compilations):
    BulgeDiscKnots()(3, FRAME, 0)
    before = len(compilations)
    BulgeDiscKnots()(300, FRAME, 1)
    assert len(compilations) == before


@pytest.mark.parametrize("name", POPULATIONS)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20))
def test_a_population_is_normalised_and_of_its_seed(name, seed, n):
    drawn = POPULATIONS[name](n, FRAME, seed)
    assert len(drawn) == n
    assert drawn.images.dtype == np.float32
    assert drawn.images.min() >= 0
    np.testing.assert_allclose(drawn.images.sum(axis=(1, 2), dtype=float), 1, atol=1e-5)
    assert (drawn.outside > -1e-4).all()
    assert (drawn.outside < 0.7).all()
    assert drawn.sha256 == POPULATIONS[name](n, FRAME, seed).sha256
    assert drawn.sha256 != POPULATIONS[name](n, FRAME, seed + 1).sha256


@pytest.mark.parametrize("name", POPULATIONS)
def test_galaxies_are_centred_on_the_middle_pixel(name):
    images = POPULATIONS[name](192, FRAME, 3).images
    along = np.arange(33) - 16
    x, y = images.sum(axis=1) @ along, images.sum(axis=2) @ along
    # Of each: knots, and wings that the stamp cuts, move its centre of light.
    assert np.median(np.hypot(x, y)) < 0.5
    # Of all.
    assert abs(x.mean()) < 0.15
    assert abs(y.mean()) < 0.15


def test_sizes_are_lognormal_between_their_limits():
    sizes = Sizes(median=0.4, scatter=0.5, least=0.2, largest=1.0)
    drawn = sizes.draw(20000, np.random.default_rng(0))
    assert drawn.min() >= 0.2
    assert drawn.max() <= 1.0
    rejected = 0.4 * np.exp(0.5 * np.random.default_rng(1).normal(size=60000))
    rejected = rejected[(rejected > 0.2) & (rejected < 1)]
    levels = [10, 50, 90]
    np.testing.assert_allclose(
        np.percentile(drawn, levels), np.percentile(rejected, levels), rtol=0.03
    )


def test_knots_lie_as_the_light_of_their_disc():
    # As many as in all galaxies together they are the disc.
    settings = {"bulge": (0, 0), "knots": (1, 1), "n_knots": (32, 32), "axis_ratio": 1, "jitter": 0}
    light = BulgeDiscKnots(sizes=Sizes(0.6, 1e-6), **settings)(100, FRAME, 0).images.mean(axis=0)
    expected = seen(galsim.Exponential(half_light_radius=0.6), 0, 0)
    distance = np.hypot(*(np.indices((33, 33)) - 16))
    for reach in (2, 4, 8):
        inside = distance < reach
        assert light[inside].sum() == pytest.approx(expected[inside].sum(), abs=0.02)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Sersics(index=(0.3, 4)), "`index`"),
        (lambda: Sersics(axis_ratio=0.01), "`axis_ratio`"),
        (lambda: Sizes(least=2.0), "`largest`"),
        (lambda: BulgeDiscKnots(bulge=(0.5, 0.2)), "`bulge`"),
        (lambda: BulgeDiscKnots(n_knots=(0, 3)), "`n_knots`"),
        (lambda: BulgeDiscKnots(bulge_index=(1, 9)), "`bulge_index`"),
        (lambda: Irregulars(clumps=(0.5, 1.5)), "`clumps`"),
        (lambda: Irregulars(n_clumps=(3, 2)), "`n_clumps`"),
        (lambda: Irregulars(clump_size=(0, 2)), "`clump_size`"),
        (lambda: Sersics()(0, FRAME, 0), "`n`"),
        (lambda: Sersics()(2, Frame(pixel_scale=None), 0), "`pixel_scale`"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()


# Sets of galaxies.


def some(n=12, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return Galaxies.of_images(rng.random((n, 33, 33)), FRAME, "noise", **changes)


def test_a_set_knows_what_is_wrong_with_it():
    images = some().images
    for wrong, word in (
        (images[:, 1:], "`images`"),
        (-images, "`images`"),
        (2 * images, "`images`"),
        (images * np.nan, "`images`"),
    ):
        with pytest.raises(ValueError, match=word):
            Galaxies(wrong, np.zeros(12), FRAME, "")
    with pytest.raises(ValueError, match="`outside`"):
        Galaxies(images, np.zeros(11), FRAME, "")
    with pytest.raises(ValueError, match="`radius`"):
        Galaxies(images, np.zeros(12), FRAME, "", {"radius": np.zeros(3)})
    with pytest.raises(ValueError, match="galaxy 1 has none"):
        Galaxies.of_images(np.stack([images[0], 0 * images[0]]), FRAME, "")


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 1000), kinds=st.integers(2, 12))
def test_no_galaxy_is_on_both_sides_of_a_split(share, seed, kinds):
    whole = some(radius=np.arange(12.0))
    whole = Galaxies(whole.images, whole.outside, FRAME, "", whole.features, np.arange(12) % kinds)
    learnt, held = whole.split(share, seed)
    assert len(learnt) + len(held) == 12
    assert min(len(learnt), len(held)) > 0
    assert not set(learnt.origin) & set(held.origin)
    both = np.concatenate([learnt.features["radius"], held.features["radius"]])
    np.testing.assert_array_equal(np.sort(both), np.arange(12.0))
    assert learnt.sha256 == whole.split(share, seed)[0].sha256
    # Rows stay together.
    np.testing.assert_array_equal(
        learnt.images, whole.images[learnt.features["radius"].astype(int)]
    )


def test_sets_are_joined():
    both = join([some(3, radius=np.ones(3)), some(2, 1, index=np.ones(2))])
    assert len(both) == 5
    assert len(set(both.origin)) == 5
    np.testing.assert_array_equal(np.isnan(both.features["radius"]), [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="one frame"):
        join([some(), Galaxies.of_images(np.ones((1, 33, 33)), Frame(psf_sigma=1.0), "")])
    with pytest.raises(ValueError, match="`given`"):
        join([])
    with pytest.raises(ValueError, match="`held_out`"):
        both.split(1.0, 0)


def test_a_mixture_has_its_shares_and_no_galaxy_twice():
    mixed = Mixture((Sersics(), Sersics(), Irregulars()), (2, 1, 1))(40, FRAME, 0)
    assert np.isfinite(mixed.features["index"]).sum() == 30
    assert np.isfinite(mixed.features["clumps_share"]).sum() == 10
    assert len(np.unique(mixed.images[:, 16, 16])) == 40
    with pytest.raises(ValueError, match="`shares`"):
        Mixture((Sersics(),), (1, 2))
    with pytest.raises(ValueError, match="`shares`"):
        Mixture((Sersics(),), (0,))


# Catalogues.


def test_galaxies_of_a_catalogue_have_its_shapes():
    catalog = synthetic_catalog(30, np.random.default_rng(0))
    drawn = draw_catalog(catalog, 3, FRAME, 0, rows=[7], dilation=0, shear=0, jitter=0)
    parts = catalog.parts.select([7])
    # Turned and reflected: what does not change is how the light is spread in rings.
    profile = galsim.Sum(
        [
            share * galsim.Sersic(index, half_light_radius=radius).shear(g1=g1, g2=g2)
            for share, index, radius, g1, g2 in zip(
                *(v[0] for v in (parts.share, parts.index, parts.radius, parts.g1, parts.g2)),
                strict=True,
            )
            if share > 0
        ]
    )
    expected = seen(profile, 0, 0)
    squared = np.sum((np.indices((33, 33)) - 16) ** 2, axis=0)
    for image in drawn.images:
        for width in (1.5, 3, 4):
            window = np.exp(-0.5 * squared / width**2)
            found = (image * window).sum() * expected.sum()
            assert found == pytest.approx((expected * window).sum(), rel=2e-3)
    assert len({image.tobytes() for image in drawn.images}) == 3


def test_rows_of_a_catalogue_come_equally_often():
    catalog = synthetic_catalog(30, np.random.default_rng(0))
    drawn = draw_catalog(catalog, 25, FRAME, 0, rows=[3, 5, 9])
    rows, counts = np.unique(drawn.features["row"], return_counts=True)
    np.testing.assert_array_equal(rows, [3, 5, 9])
    assert counts.min() == 8
    for wrong in ([30], [-1], []):
        with pytest.raises(ValueError, match="`rows`"):
            draw_catalog(catalog, 2, FRAME, 0, rows=wrong)
    with pytest.raises(ValueError, match="`shear`"):
        draw_catalog(catalog, 2, FRAME, 0, shear=1.0)


# Turns.


def test_turns_and_reflections_are_all_eight_and_those_of_one_galaxy_alike():
    psf = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    given = np.tile(psf, (200, 1, 1))
    large = np.pad(given, [(0, 0), (2, 2), (2, 2)])
    both = jax.tree.map(
        np.asarray, quick_jit(augment)(jax.random.key(0), {"data": large, "psf": given})
    )
    ways = {np.rot90(side, k).tobytes() for side in (psf, psf.T) for k in range(4)}
    assert {one.tobytes() for one in both["psf"]} == ways
    np.testing.assert_array_equal(both["data"][:, 2:-2, 2:-2], both["psf"])
    for wrong in (jnp.zeros((2, 3, 4)), (given, large[:3])):
        with pytest.raises(ValueError, match="`images`"):
            augment(jax.random.key(0), wrong)


# Stamps of a survey.


def gaussian(sigma, size=25, x=0.0, y=0.0):
    along = np.arange(size) - size // 2
    return np.exp(-0.5 * ((along - x) ** 2 + (along[:, None] - y) ** 2) / sigma**2)


def test_bad_pixels_of_stamps_are_masked():
    data, variance = np.ones((3, 33, 33)), np.ones((3, 33, 33))
    data[0, 1, 2], variance[1, 3, 4], variance[2, 5, 6] = np.nan, -1, np.nan
    stamps = NoisyStamps(data, variance, gaussian(1.5), FRAME)
    masked = np.argwhere(np.isinf(stamps.variance))
    np.testing.assert_array_equal(masked, [[0, 1, 2], [1, 3, 4], [2, 5, 6]])
    assert np.isfinite(stamps.data).all()
    learnt, held = stamps.split(0.3, 0)
    assert (len(learnt), len(held)) == (2, 1)
    assert learnt.sha256 != held.sha256
    assert NoisyStamps(data, 2.0, gaussian(1.5), FRAME).variance.shape == data.shape


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": np.ones((3, 31, 33))}, "`data`"),
        ({"variance": np.ones((3, 33, 31))}, "`variance`"),
        ({"variance": np.full((3, 33, 33), np.inf)}, "no usable pixel"),
        ({"psf": np.ones((4, 4))}, "`psf`"),
        ({"psf": np.full((5, 5), np.nan)}, "finite"),
        ({"psf": np.ones((2, 5, 5))}, "one for each of 3"),
        ({"psf": gaussian(0.7)}, "no narrower"),
        ({"pixel_scale": 0.168}, "`pixel_scale`"),
    ],
)
def test_stamps_that_cannot_be_learnt_from_are_refused(changes, word):
    usual = {"data": np.ones((3, 33, 33)), "variance": 1.0, "psf": gaussian(1.5), "frame": FRAME}
    with pytest.raises(ValueError, match=word):
        NoisyStamps(**usual | changes)


def test_isolated_galaxies_are_cut_with_the_psf_at_their_place():
    y, x = np.indices((90, 130))
    # Isolated; two close to each other; one at the border.
    positions = np.array([[30.3, 40.8], [80.0, 40.0], [88.0, 43.0], [127.0, 40.0]])
    image = sum(np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 4) for a, b in positions)
    variance = np.ones_like(image)
    variance[50, 20] = np.inf
    exposure = make_exposure(image, variance, GaussianPSF(jnp.array([3.5])), pixel_scale=0.2)
    stamps = cut_stamps(exposure, positions, FRAME)
    assert len(stamps) == 1
    np.testing.assert_array_equal(np.argwhere(np.isinf(stamps.variance[0])), [[25, 6]])
    # Galaxy and PSF are off the middle by the same.
    psf = stamps.psf if stamps.psf.ndim == 2 else stamps.psf[0]
    along = np.arange(len(psf)) - len(psf) // 2
    assert psf.sum(axis=0) @ along == pytest.approx(0.3, abs=2e-3)
    assert psf.sum(axis=1) @ along == pytest.approx(-0.2, abs=2e-3)
    # With the pixel's own variance.
    assert psf.sum(axis=0) @ (along - 0.3) ** 2 == pytest.approx(
        (3.5 / 2.3548) ** 2 + 1 / 12, rel=0.01
    )
    row = np.exp(-0.5 * ((np.arange(33) - 16.3) ** 2 + 0.04) / 4)
    np.testing.assert_allclose(stamps.data[0, 16], row, atol=1e-4)
    with pytest.raises(ValueError, match="none has both"):
        cut_stamps(exposure, positions[1:], FRAME)
    assert len(cut_stamps(exposure, positions[1:2], FRAME)) == 1
    with pytest.raises(ValueError, match="none has both"):
        cut_stamps(exposure, positions[1:2], FRAME, others=positions)


def test_stamps_are_read_from_archives(tmp_path):
    import zarr

    rng = np.random.default_rng(0)
    arrays = {
        "data": rng.random((2, 33, 33)).astype(np.float32),
        "variance": np.ones((2, 33, 33), np.float32),
        "psf": gaussian(1.5).astype(np.float32),
        "pixel_scale": np.array(0.2),
        "mask": rng.random((2, 33, 33)) < 0.1,
    }
    np.savez(tmp_path / "a.npz", **arrays)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name, values in arrays.items():
        group.create_array(name, data=values)
    first = read_stamps(tmp_path / "a.npz", FRAME)
    assert first.sha256 == read_population(f"stamps:{tmp_path}/a.zarr", FRAME, 5, 0).sha256
    assert np.isinf(first.variance).sum() == arrays["mask"].sum()
    np.savez(tmp_path / "b.npz", data=arrays["data"])
    with pytest.raises(ValueError, match="no array variance"):
        read_stamps(tmp_path / "b.npz", FRAME)
    (tmp_path / "c.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        read_stamps(tmp_path / "c.npz", FRAME)


# Words.


def test_words_are_populations():
    assert draw_population("sersic", 5, FRAME, 1).sha256 == Sersics()(5, FRAME, 1).sha256
    mixed = population_of("sersic=3, bulge_disc")
    assert mixed.shares == (3, 1)
    assert mixed.populations[1] == BulgeDiscKnots(knots=(0.0, 0.0))
    broad = population_of("broad=0.5,sersic=0.5")
    assert sum(broad.shares) == pytest.approx(1)
    assert len(read_population("broad", FRAME, 20, 0)) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("spiral", "bulge_disc_knots"),
        ("sersic=much", "positive number after `=`"),
        ("sersic=-1", "positive number after `=`"),
        ("catalog:nowhere.fits", "no file"),
        ("sersic,stamps:a.npz", "alone"),
        ("stamps:nowhere.npz", "`path`"),
        ("", "bulge_disc_knots"),
    ],
)
def test_words_that_stand_for_nothing_are_refused(words, said):
    with pytest.raises(ValueError, match=said):
        read_population(words, FRAME, 3, 0)
