"""Every source comes in exactly one blend, on a stamp that holds it, with what is its own."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

from diffdeblend import GaussianPSF, make_exposure
from diffdeblend.batch.blend import blend_of_arrays, make_blend
from diffdeblend.batch.cut import cut_blends
from diffdeblend.psf import AbstractPSF

SHAPE = 61, 83
PSF = GaussianPSF([2.6, 3.0])
ANY = 10_000


def image_of(positions, flux=60.0, sigma=1.6, shape=SHAPE, n_bands=2, noise=0.0):
    """Round Gaussians on a sky of 5, for a variance of 1."""
    lines, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = np.full(shape, 5.0)
    for x, y in positions:
        squared = (columns - x) ** 2 + (lines - y) ** 2
        image += flux * np.exp(-0.5 * squared / sigma**2) / (2 * np.pi * sigma**2)
    draw = np.random.default_rng(3).normal(size=(n_bands, *shape))
    return (image + noise * draw).astype(np.float32)


def exposure_of(positions, psf=PSF, mask=None, **options):
    return make_exposure(image_of(positions, **options), 1.0, psf, mask=mask)


def pixels(shape=SHAPE):
    """Places x, y of all pixels, row by row."""
    lines, columns = np.mgrid[: shape[0], : shape[1]]
    return np.stack([columns.ravel(), lines.ravel()], axis=1).astype(float)


def discs(positions, radii, shape=SHAPE):
    """Which pixels are nearer to each position than its radius."""
    return (cdist(positions, pixels(shape)) < np.asarray(radii)[:, None]).reshape(-1, *shape)


def used(blend, shape=SHAPE):
    """Where in the image the blend uses a pixel, in its first band."""
    (x0, y0), (height, width) = blend.origin, blend.shape
    whole = np.zeros(shape, bool)
    whole[y0 : y0 + height, x0 : x0 + width] = blend.weight[0] > 0
    return whole


def group_numbers(blends, n_sources):
    numbers = np.full(n_sources, -1)
    for number, blend in enumerate(blends):
        assert (numbers[blend.rows] == -1).all()
        numbers[blend.rows] = number
    return numbers


def same_partition(first, second):
    return ((first[:, None] == first) == (second[:, None] == second)).all()


@st.composite
def catalogues(draw):
    """Positions anywhere in the image, its rim included, with radii over two decades."""
    x = st.floats(-0.5, SHAPE[1] - 0.5, allow_subnormal=False)
    y = st.floats(-0.5, SHAPE[0] - 0.5, allow_subnormal=False)
    positions = np.array(draw(st.lists(st.tuples(x, y), min_size=1, max_size=25)))
    kept = []
    for row, position in enumerate(positions):
        if all(np.hypot(*(position - positions[other])) > 0.11 for other in kept):
            kept.append(row)
    radii = draw(
        st.lists(st.floats(0.2, 20.0), min_size=len(kept), max_size=len(kept)).map(np.array)
    )
    return positions[kept], radii


@settings(max_examples=150, deadline=None)
@given(
    catalogue=catalogues(),
    with_radius=st.booleans(),
    max_sources=st.integers(1, 8),
    max_size=st.integers(1, 90),
    margin=st.sampled_from([None, 0.0, 3.5]),
)
def test_each_source_is_whole_in_one_blend(catalogue, with_radius, max_sources, max_size, margin):
    positions, radii = catalogue
    exposure = exposure_of(positions, noise=1.0)
    blends = cut_blends(
        exposure,
        positions,
        radius=radii if with_radius else None,
        margin=margin,
        max_sources=max_sources,
        max_size=max_size,
    )
    assert (group_numbers(blends, len(positions)) >= 0).all()
    assert [blend.rows[0] for blend in blends] == sorted(blend.rows.min() for blend in blends)
    image = np.asarray(exposure.image)
    for blend in blends:
        (x0, y0), (height, width) = blend.origin, blend.shape
        assert blend.n_sources <= max_sources
        assert max(height, width) <= max_size
        np.testing.assert_allclose(blend.positions + blend.origin, positions[blend.rows])
        assert (blend.positions >= -0.5).all()
        assert (blend.positions <= (width - 0.5, height - 0.5)).all()
        assert blend.psf is exposure.psf
        assert blend.data.dtype == blend.weight.dtype == np.float32
        there = blend.weight > 0
        np.testing.assert_array_equal(blend.weight[there], 1)
        stamp = image[:, y0 : y0 + height, x0 : x0 + width]
        np.testing.assert_array_equal(blend.data, np.where(there, stamp, 0))
        # The pixel that a source lies on is never hidden.
        x, y = np.floor(blend.positions + 0.5).astype(int).T
        assert there[:, np.minimum(y, height - 1), np.minimum(x, width - 1)].all()


@settings(max_examples=100, deadline=None)
@given(catalogue=catalogues())
def test_groups_are_those_of_all_pairs(catalogue):
    positions, radii = catalogue
    linked = cdist(positions, positions) < radii[:, None] + radii
    expected = connected_components(linked, directed=False)[1]
    blends = cut_blends(
        exposure_of(positions), positions, radius=radii, max_sources=ANY, max_size=ANY
    )
    numbers = group_numbers(blends, len(positions))
    assert same_partition(numbers, expected)
    assert not any(blend.crowded for blend in blends)
    inside = discs(positions, radii)
    for number, blend in enumerate(blends):
        own, others = inside[numbers == number].any(axis=0), inside[numbers != number].any(axis=0)
        assert used(blend)[own].all()
        # Not hidden is only what is nearer to a source than the PSF's half-light radius.
        near = discs(positions[blend.rows], np.full(blend.n_sources, 2.0)).any(axis=0)
        assert not used(blend)[others & ~near].any()


def test_isophotes_that_touch_are_one_group():
    positions = np.array([[12.3, 15.6], [23.0, 18.0], [60.7, 40.2], [31.2, 50.9], [60.0, 12.0]])
    exposure = exposure_of(positions, flux=3000.0)
    blends = cut_blends(exposure, positions, max_sources=ANY, max_size=ANY)
    # Flooded from the image alone, by another filter of nearly the same width.
    flat = image_of(positions, flux=3000.0)[0] - 5.0
    flooded, _ = label(gaussian_filter(flat, 1.2, mode="constant") > 0.3)
    x, y = np.round(positions).astype(int).T
    numbers = group_numbers(blends, len(positions))
    assert same_partition(numbers, flooded[y, x])
    assert numbers[0] == numbers[1]
    assert len(blends) == 4


def test_a_bright_source_gets_a_larger_stamp_than_a_faint_one():
    positions = np.array([[20.2, 30.1], [62.3, 31.7]])
    image = image_of(positions[:1], flux=2e4, sigma=3.0) + image_of(positions[1:], flux=5.0) - 5
    bright, faint = cut_blends(make_exposure(image, 1.0, PSF), positions)
    assert min(bright.shape) > max(faint.shape)
    # 2.5 half-light radii of the PSF, seen through pixels, and twice its FWHM around.
    assert max(faint.shape) <= 2 * (1.25 + 2) * 3.1 + 2
    assert min(faint.shape) >= 2 * (1.25 + 2) * 3.0 - 1


def test_an_isophote_is_not_hidden_from_its_own_and_is_from_others():
    positions = np.array([[25.0, 30.0], [41.0, 31.0]])
    image = image_of(positions, flux=400.0)
    first, second = cut_blends(make_exposure(image, 1.0, PSF), positions, margin=12.0)
    bright = image[0] > 6.0
    places, _ = label(bright)
    assert used(first)[places == places[30, 25]].all()
    assert not used(first)[places == places[31, 41]].any()
    assert used(second)[places == places[31, 41]].all()
    assert not used(second)[places == places[30, 25]].any()


@pytest.mark.parametrize("limit", [{"max_sources": 4}, {"max_size": 36}])
def test_a_divided_group_gives_each_pixel_to_the_nearest(limit):
    # No pixel is as near to one as to another.
    positions = np.array([[10.13 + 5.171 * k, 30.21] for k in range(12)])
    exposure = exposure_of(positions, flux=2000.0)
    whole = cut_blends(exposure, positions)
    assert [blend.n_sources for blend in whole] == [12]
    assert not whole[0].crowded
    blends = cut_blends(exposure, positions, margin=0.0, **limit)
    assert len(blends) > 1
    assert all(blend.crowded for blend in blends)
    nearest = cdist(pixels(), positions).argmin(axis=1).reshape(SHAPE)
    bright = image_of(positions, flux=2000.0)[0] > 5.6
    least = discs(positions, np.full(12, 1.25 * 3.0))
    for blend in blends:
        mine = np.isin(nearest, blend.rows)
        near = discs(positions[blend.rows], np.full(blend.n_sources, 2.0)).any(axis=0)
        assert used(blend)[bright & mine].all()
        assert not used(blend)[bright & ~mine & ~near].any()
        (x0, y0), (height, width) = blend.origin, blend.shape
        own = least[blend.rows].any(axis=0)
        assert own[y0 : y0 + height, x0 : x0 + width].sum() == own.sum()


def test_a_divided_group_keeps_pixels_that_another_group_is_nearer_to():
    # A galaxy with a companion, and a pair of stars beyond its rim.
    galaxy, pair = [(20.0, 30.0), (13.0, 30.0)], [(42.0, 30.0), (45.0, 33.0)]
    positions = np.array(galaxy + pair)
    image = image_of(galaxy[:1], flux=2e4, sigma=4.0) + image_of(pair) - 5
    exposure = make_exposure(image, 1.0, PSF)
    assert [blend.n_sources for blend in cut_blends(exposure, positions)] == [2, 2]
    blends = cut_blends(exposure, positions, max_sources=1)
    assert image[0, 30, 33] > 5.6
    assert used(blends[0])[30, 20:34].all()
    assert not used(blends[2])[30, 33]


def test_the_cut_goes_through_the_widest_gap():
    x = np.array([10.0, 13.0, 16.0, 23.0, 26.0, 29.0, 32.0])
    positions = np.stack([x, np.full(7, 30.0)], axis=1)
    blends = cut_blends(exposure_of(positions), positions, radius=np.full(7, 4.0), max_sources=6)
    assert [blend.rows.tolist() for blend in blends] == [[0, 1, 2], [3, 4, 5, 6]]


def test_a_source_too_large_is_cut_short_around_its_position():
    positions = np.array([[40.0, 30.0], [45.0, 34.0], [3.0, 3.0]])
    blends = cut_blends(
        exposure_of(positions), positions, radius=np.array([30.0, 2.0, 1.0]), max_size=32
    )
    assert [blend.rows.tolist() for blend in blends] == [[0, 1], [2]]
    assert [blend.crowded for blend in blends] == [True, False]
    assert blends[0].shape == (32, 32)
    assert blends[0].origin == (24, 14)
    # Only as high as it would be too large, at the left edge.
    (tall,) = cut_blends(exposure_of([(3, 30)]), [[3, 30]], radius=[20.0], max_size=32, margin=4)
    assert tall.crowded
    assert tall.shape == (32, 28)
    assert tall.origin == (0, 14)


def test_masked_pixels_stay_out_and_disturb_nothing():
    positions = np.array([[20.0, 30.0], [60.0, 30.0]])
    image = image_of(positions, flux=500.0)
    clean = cut_blends(make_exposure(image, 1.0, PSF), positions)
    image[0, 30, 20], image[1, :, 40] = np.nan, 1e6
    mask = np.zeros(image.shape, bool)
    mask[1, :, 40] = True
    blends = cut_blends(make_exposure(image, 1.0, PSF, mask=mask), positions, margin=25.0)
    assert [blend.rows.tolist() for blend in blends] == [[0], [1]]
    for blend in blends:
        assert np.isfinite(blend.data).all()
        assert np.abs(blend.data).max() < 1e5
        assert ((blend.weight > 0) | (blend.data == 0)).all()
        assert (blend.weight[1, :, 40 - blend.origin[0]] == 0).all()
        assert (blend.weight[0, :, 40 - blend.origin[0]] > 0).any()
    assert blends[0].weight[0, 30 - blends[0].origin[1], 20 - blends[0].origin[0]] == 0
    assert [blend.rows.tolist() for blend in clean] == [[0], [1]]


def test_a_source_without_any_used_pixel_still_has_its_blend():
    positions = np.array([[20.0, 30.0], [70.0, 50.0]])
    mask = np.zeros(SHAPE, bool)
    mask[:, :45] = True
    blends = cut_blends(exposure_of(positions, mask=mask), positions)
    assert [blend.rows.tolist() for blend in blends] == [[0], [1]]
    assert not blends[0].weight.any()
    assert blends[1].weight.any()


def test_a_band_without_any_used_pixel_has_no_say():
    positions = np.array([[20.0, 30.0], [70.0, 50.0]])
    exposure = exposure_of(positions, flux=400.0)
    flagged = np.zeros((2, *SHAPE), bool)
    flagged[0] = True
    blends = cut_blends(exposure.with_mask("BAD", flagged), positions)
    assert not any(blend.weight[0].any() for blend in blends)
    assert all((blend.weight[1] == 1).all() for blend in blends)


def test_a_large_image_finds_its_sky_between_masked_pixels():
    positions = np.array([[200.0, 300.0], [700.0, 500.0]])
    image = np.full((1010, 1000), 5.0, np.float32)
    mask = np.zeros(image.shape, bool)
    mask[::2, ::2] = True
    exposure = make_exposure(image, 1.0, GaussianPSF([3.0]), mask=mask)
    blends = cut_blends(exposure, positions)
    assert [blend.rows.tolist() for blend in blends] == [[0], [1]]
    assert max(max(blend.shape) for blend in blends) < 25


def test_an_excluded_plane_on_bit_31_is_seen():
    positions = np.array([[20.0, 30.0]])
    planes = [f"P{k}" for k in range(31)] + ["LAST"]
    bits = np.zeros((2, *SHAPE), np.uint32)
    bits[:, 29] = np.uint32(1 << 31)
    exposure = make_exposure(
        image_of(positions), 1.0, PSF, mask=bits, mask_planes=planes, excluded=["LAST"]
    )
    blend = make_blend(exposure, positions)
    np.testing.assert_array_equal(blend.weight, np.asarray(exposure.weight))
    assert (blend.weight[:, 29] == 0).all()


@pytest.mark.parametrize("x", [-0.5, 0.0, SHAPE[1] - 0.5])
@pytest.mark.parametrize("y", [-0.5, 31.2, SHAPE[0] - 0.5])
@pytest.mark.parametrize("radius", [None, [0.3], [9.0]])
def test_a_source_at_the_border_has_a_stamp_within_the_image(x, y, radius):
    (blend,) = cut_blends(exposure_of([(x, y)], flux=300.0), [[x, y]], radius=radius)
    (x0, y0), (height, width) = blend.origin, blend.shape
    assert 0 <= x0 < x0 + width <= SHAPE[1]
    assert 0 <= y0 < y0 + height <= SHAPE[0]
    np.testing.assert_allclose(blend.positions + blend.origin, [[x, y]])
    assert (blend.weight == 1).all()


def test_two_sources_on_one_pixel_stay_visible_when_parted():
    positions = np.array([[30.1, 30.1], [30.3, 29.8]])
    for radius in (None, [5.0, 5.0], [0.2, 0.2]):
        blends = cut_blends(exposure_of(positions), positions, radius=radius, max_sources=1)
        assert len(blends) == 2
        for blend in blends:
            assert used(blend)[30, 30]


def test_many_sources_of_all_radii_group_alike():
    rng = np.random.default_rng(5)
    shape = 700, 900
    positions = rng.uniform(0, 699, (3000, 2))
    assert pdist(positions).min() > 0.1
    radii = np.exp(rng.uniform(np.log(0.5), np.log(60), len(positions)) * rng.random(3000))
    linked = cdist(positions, positions) < radii[:, None] + radii
    expected = connected_components(linked, directed=False)[1]
    exposure = make_exposure(np.ones(shape), 1.0, GaussianPSF([3.0]))
    blends = cut_blends(exposure, positions, radius=radii, max_sources=ANY, max_size=ANY)
    assert same_partition(group_numbers(blends, len(positions)), expected)
    bounded = cut_blends(exposure, positions, radius=radii)
    assert (group_numbers(bounded, len(positions)) >= 0).all()
    assert max(blend.n_sources for blend in bounded) <= 12
    assert max(max(blend.shape) for blend in bounded) <= 128


class DriftingPSF(AbstractPSF):
    """Wider to the right."""

    middle: GaussianPSF

    @property
    def n_bands(self):
        return self.middle.n_bands

    def fourier(self, modes):
        return self.middle.fourier(modes)

    def at(self, x, y):
        return GaussianPSF(self.middle.fwhm + 0.01 * x)


def test_a_psf_that_varies_is_taken_at_the_stamp():
    positions = np.array([[20.0, 30.0], [60.0, 30.0]])
    exposure = exposure_of(positions, psf=DriftingPSF(PSF))
    blends = cut_blends(exposure, positions, radius=[4.0, 4.0])
    for blend, x in zip(blends, positions[:, 0], strict=True):
        np.testing.assert_allclose(blend.psf.fwhm, PSF.fwhm + 0.01 * x, rtol=1e-6)


def test_double_precision_stays(precision):
    image = image_of([(20.0, 30.0)]).astype(np.float64)
    exposure = make_exposure(image, 1.0, GaussianPSF([2.6, 3.0]))
    (blend,) = cut_blends(exposure, [[20.0, 30.0]])
    arrays = blend_of_arrays(image, 1.0, exposure.psf, [[20.0, 30.0]])
    for each in (blend, arrays):
        assert each.data.dtype == each.weight.dtype == precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": [1.0]}, r"`radius` needs one number per source, shape \(2,\).*\(1,\)"),
        ({"radius": [1.0, np.nan]}, r"`radius` must be finite and positive.*row 1 \(nan\)"),
        ({"radius": [0.0, 1.0]}, r"`radius` must be finite and positive.*row 0 \(0\)"),
        ({"radius": ["a", "b"]}, "`radius` needs one number per source"),
        ({"threshold": 0.0}, "`threshold` must be one finite number, positive; got 0.0"),
        ({"threshold": np.inf}, "`threshold` must be one finite number"),
        ({"margin": -1.0}, "`margin` must be one finite number, at least 0; got -1.0"),
        ({"margin": "wide"}, "`margin` must be one finite number"),
        ({"max_sources": 0}, "`max_sources` must be an integer of at least 1; got 0"),
        ({"max_size": 12.5}, "`max_size` must be an integer of at least 1; got 12.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    positions = np.array([[20.0, 30.0], [70.0, 50.0]])
    with pytest.raises(ValueError, match=message):
        cut_blends(exposure_of(positions), positions, **options)


@pytest.mark.parametrize("positions", [[], [[200.0, 3.0]], [[np.nan, 3.0]], [[3.0, 3.0]] * 2])
def test_positions_are_checked(positions):
    exposure = exposure_of([(20.0, 30.0)])
    data = image_of([(20.0, 30.0)])
    for make in (
        lambda: cut_blends(exposure, positions),
        lambda: make_blend(exposure, positions),
        lambda: blend_of_arrays(data, 1.0, PSF, positions),
    ):
        with pytest.raises(ValueError, match="`positions`"):
            make()


def test_a_blend_of_arrays_is_that_of_the_exposure():
    positions = [[20.0, 30.0], [50.5, 12.25]]
    image, variance = image_of(positions, noise=1.0), np.full((2, *SHAPE), 0.5, np.float32)
    image[0, 3, 4], variance[1, 5, 6] = np.nan, np.inf
    mask = np.zeros(SHAPE, bool)
    mask[7, 8:12] = True
    exposure = make_exposure(image, variance, PSF, mask=mask)
    one, other = (
        make_blend(exposure, positions),
        blend_of_arrays(image, variance, PSF, positions, mask),
    )
    for blend in (one, other):
        np.testing.assert_array_equal(blend.data, np.asarray(exposure.data))
        np.testing.assert_array_equal(blend.weight, np.asarray(exposure.weight))
        np.testing.assert_array_equal(blend.positions, positions)
        np.testing.assert_array_equal(blend.rows, [0, 1])
        assert blend.origin == (0, 0)
        assert not blend.crowded
        assert (blend.n_bands, blend.n_sources, blend.shape) == (2, 2, SHAPE)
    # Neither the caller's arrays nor those of the exposure are those of the blend.
    assert np.isnan(image[0, 3, 4])
    assert jnp.isnan(exposure.image[0, 3, 4])


def test_a_blend_takes_what_an_exposure_takes():
    image, psf = image_of([(20.0, 30.0)], n_bands=1)[0], GaussianPSF([3.0])
    blend = blend_of_arrays(image, [2.0], psf, [[20.0, 30.0]])
    assert blend.data.shape == (1, *SHAPE)
    assert (blend.weight == 0.5).all()
    hidden = np.zeros(SHAPE, bool)
    hidden[2, 3] = True
    blend = blend_of_arrays(np.ma.array(image, mask=hidden), 2.0, psf, [[20.0, 30.0]])
    np.testing.assert_array_equal(blend.weight[0] == 0, hidden)
    blend = blend_of_arrays(image.astype(">f4"), image * 0 + 2, psf, [[20.0, 30.0]], hidden)
    np.testing.assert_array_equal(blend.weight[0] == 0, hidden)
    assert blend.data.dtype.isnative
    # What is masked may have any variance.
    variance = np.where(hidden, -1.0, 2.0)
    assert blend_of_arrays(image, variance, psf, [[20.0, 30.0]], hidden).weight[0, 2, 3] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": np.zeros(5)}, r"`data` needs shape \(band, y, x\)"),
        ({"data": np.zeros((2, 0, 5))}, r"`data` needs shape \(band, y, x\)"),
        ({"data": np.full((2, 9, 11), "a")}, "`data` must be real numbers"),
        ({"data": np.full((2, 9, 11), 1e30)}, "`data` and `variance` do not fit float32"),
        ({"variance": 1e-42}, "`data` and `variance` do not fit float32"),
        ({"variance": 1e60}, "`data` and `variance` do not fit float32"),
        ({"variance": np.ones((9, 11))}, "`variance` needs the shape of `data`"),
        ({"variance": -1.0}, "`variance` must be positive where a pixel is used; 198 pixels"),
        ({"psf": GaussianPSF([3.0])}, "`psf` must be a PSF.* of 2 bands; got 1"),
        ({"psf": np.ones((2, 5, 5))}, "`psf` must be a PSF.* of 2 bands; got ndarray"),
        ({"mask": np.zeros((9, 11))}, "`mask` needs booleans.*float64"),
        ({"mask": np.zeros((11, 9), bool)}, r"`mask` needs booleans.*\(11, 9\)"),
    ],
)
def test_arrays_that_cannot_be_are_refused(changed, message):
    arguments = {
        "data": np.zeros((2, 9, 11)),
        "variance": 1.0,
        "psf": PSF,
        "positions": [[3.0, 4.0]],
    }
    with pytest.raises(ValueError, match=message):
        blend_of_arrays(**(arguments | changed))
