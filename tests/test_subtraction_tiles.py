"""Subtraction with PSFs that vary: against one pair of PSFs, and against filters of each place."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import hasty

from diffdeblend.psf import GaussianPSF, PixelPSF, PSFBasis
from diffdeblend.subtract.constant import subtract_constant
from diffdeblend.subtract.maps import ImagePair
from diffdeblend.subtract.nodes import node_psfs, tiling_for
from diffdeblend.subtract.tiles import subtract_tiles
from diffdeblend.subtract.tiling import make_tiling
from diffdeblend.subtract.variance import SystematicNoise

SHAPE = (150, 211)
SIZE = 21
SIGMA_NEW, SIGMA_REFERENCE, BETA = 3.0, 2.0, 0.7

in_tiles = jax.jit(subtract_tiles, static_argnames=("tiling", "systematics", "at_once"))
with_one_pair = jax.jit(subtract_constant, static_argnames=("border", "systematics"))


@pytest.fixture(scope="module", autouse=True)
def sooner():
    """Compiling takes most of the time here."""
    with hasty():
        yield


def moffat(width, lean=0.0):
    """A Moffat profile at the pixels, of unit sum: with wings, thus power at all frequencies."""
    v, u = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = (1 + ((u - lean * v) ** 2 + v**2) / (2 * width) ** 2) ** -3.5
    return image / image.sum()


def varying(widths, shape=SHAPE):
    """A PSF whose profile changes linearly along x and y: p0 + u p1 + v p2, exactly."""
    middle, along_x, along_y = (moffat(w, lean=0.1 * w - 0.1) for w in widths)
    images = np.stack([middle, along_x - middle, along_y - middle])[None]
    # Terms 1, u, v of the images: constant, u and v.
    coefficients = np.eye(3)[None]
    return PSFBasis(images, coefficients, shape, 1)


def make_pair(new, reference, sources=0.0, missing=None, dx=0.0, dy=0.0, noise=None):
    lit = np.maximum(reference, 0) * sources
    return ImagePair(
        *(jnp.asarray(v, jnp.result_type(float)) for v in (new, reference)),
        jnp.asarray(SIGMA_NEW**2 + BETA * lit, jnp.result_type(float)),
        jnp.asarray(SIGMA_REFERENCE**2 + lit, jnp.result_type(float)),
        missing,
        missing,
        *(jnp.asarray(v) for v in (SIGMA_NEW, SIGMA_REFERENCE, BETA, dx, dy)),
        noise or SystematicNoise(0.0, 0.0),
    )


def noise_images(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, SIGMA_NEW, SHAPE), rng.normal(0, SIGMA_REFERENCE, SHAPE)


def run(pair, psf_new, psf_reference, tile, **options):
    tiling = tiling_for(psf_new, psf_reference, pair.new.shape, tile)
    nodes = (node_psfs(psf, tiling)[0] for psf in (psf_new, psf_reference))
    return in_tiles(pair, *nodes, tiling=tiling, **options)


@pytest.fixture(scope="module")
def seamless():
    """A pair with everything in it, by tiles and by one pair of PSFs."""
    new, reference = noise_images()
    psfs = moffat(1.8, 0.2), moffat(1.2, -0.1)
    for image, psf, flux in ((new, psfs[0], 3e4 * BETA), (reference, psfs[1], 3e4)):
        image[80:101, 90:111] += flux * psf
    missing = np.zeros(SHAPE, bool)
    missing[60:66, 90:95] = True
    noise = SystematicNoise(0.1, 0.05, 0.02, 0.03)
    pair = make_pair(new, reference, 1.0, jnp.asarray(missing), 0.3, -0.2, noise)
    one = with_one_pair(pair, *(jnp.asarray(psf, jnp.float32) for psf in psfs), border=40)
    pixels = [PixelPSF(psf[None]) for psf in psfs]
    return one, run(pair, *pixels, 64), pair, pixels


@pytest.mark.parametrize("name", ["D", "S_corr", "flux", "flux_err", "lost"])
def test_with_constant_psfs_there_are_no_seams(seamless, name):
    one, tiles = (np.asarray(getattr(maps, name)) for maps in seamless[:2])
    unit = 1.0 if name in ("D", "S_corr", "lost") else float(np.median(seamless[0].flux_err))
    # What makes D reaches far: PSFs that end at a stamp have zeros in Fourier space.
    limit = {"D": 0.05, "flux": 2e-3}.get(name, 1e-3)
    # Tiles of 75 x 70 pixels: two corners are in the middle. The border differs by padding.
    assert np.abs(tiles - one)[40:-40, 40:-40].max() < limit * unit


@pytest.mark.slow
def test_tiles_together_are_tiles_one_by_one(seamless):
    _, tiles, pair, pixels = seamless
    together = run(pair, *pixels, 64, at_once=6)
    for name in ("D", "S_corr", "lost"):
        np.testing.assert_allclose(getattr(together, name), getattr(tiles, name), atol=1e-4)


def test_normalisations_are_those_of_one_pair(seamless):
    one, tiles = seamless[:2]
    assert float(tiles.F_S) == pytest.approx(float(one.F_S), rel=1e-5)
    assert float(tiles.F_D) == pytest.approx(float(one.F_D), rel=1e-6)
    np.testing.assert_allclose(tiles.psf, one.psf, atol=1e-6)
    # All the flags were on: what is compared above is not all zero.
    assert float(np.max(one.lost)) > 0.5


def place_psfs(x, y):
    """Both PSFs at a place, by their definition."""
    u, v = 2 * x / (SHAPE[1] - 1) - 1, 2 * y / (SHAPE[0] - 1) - 1
    made = []
    for widths in WIDTHS:
        middle, along_x, along_y = (moffat(w, lean=0.1 * w - 0.1) for w in widths)
        made.append(middle + u * (along_x - middle) + v * (along_y - middle))
    return made


WIDTHS = (1.9, 2.1, 1.8), (1.3, 1.2, 1.45)


@pytest.fixture(scope="module")
def of_tiles():
    """Noise through varying PSFs, in small tiles."""
    new, reference = noise_images(1)
    psfs = [varying(widths) for widths in WIDTHS]
    pair = make_pair(new, reference)
    return new, reference, {50: run(pair, *psfs, 50, systematics=False)}


@pytest.mark.slow
def test_each_place_has_the_filters_of_its_own_psfs(of_tiles):
    """Tiles become the exact thing with the square of their size."""
    new, reference, small = of_tiles
    psfs = [varying(widths) for widths in WIDTHS]
    large = run(make_pair(new, reference), *psfs, 150, systematics=False)
    by_tile = {150: large, **small}
    errors = {tile: [] for tile in by_tile}
    for x, y in [(31, 33), (104, 71), (66, 110), (171, 40), (150, 118), (119, 95)]:
        pair = make_pair(new, reference)
        psfs = (jnp.asarray(psf, jnp.float32) for psf in place_psfs(x, y))
        exact = with_one_pair(pair, *psfs, border=40, systematics=False)
        for tile, maps in by_tile.items():
            errors[tile].append(
                [
                    float(maps.D[y, x] - exact.D[y, x]),
                    float(maps.S_corr[y, x] - exact.S_corr[y, x]),
                    float(maps.flux_err[y, x] / exact.flux_err[y, x] - 1),
                ]
            )
    coarse, fine = (np.sqrt(np.mean(np.square(errors[t]), axis=0)) for t in (150, 50))
    # D reaches further than the margins of so small tiles.
    assert (fine < [0.03, 2e-3, 1e-3]).all(), fine
    assert (fine[1:] < 0.3 * coarse[1:]).all(), (coarse, fine)


def test_the_score_of_empty_sky_has_unit_variance(of_tiles):
    maps = of_tiles[2][50]
    assert float(jnp.std(maps.D)) == pytest.approx(1, abs=0.03)
    # The score is smooth: fewer numbers than pixels.
    assert float(jnp.std(maps.S_corr)) == pytest.approx(1, abs=0.06)


def star(x, y, shape, flux):
    """A star through both PSFs of its place, at the middle of a pixel."""
    images = []
    for psf, scale in zip(place_psfs(x, y), (BETA, 1.0), strict=True):
        image = np.zeros(shape)
        half = SIZE // 2
        image[y - half : y + half + 1, x - half : x + half + 1] = scale * flux * psf
        images.append(image)
    return images


def test_a_star_far_from_the_middle_of_its_tile_subtracts():
    """The reason for planes of filters: what a bright star leaves, in sigmas of the sky."""
    # In the corner of one tile of 150 pixels, where one filter a tile is at its worst.
    x, y = 138, 136
    pair = make_pair(*star(x, y, SHAPE, 1e5))
    psfs = [varying(widths) for widths in WIDTHS]
    inside = (slice(y - 12, y + 12), slice(x - 12, x + 12))
    left = {}
    for tile in (150, 50):
        maps = run(pair, *psfs, tile, systematics=False)
        left[tile] = float(jnp.abs(maps.D[inside]).max())
    middles = [jnp.asarray(psf, jnp.float32) for psf in place_psfs(105, 75)]
    one = with_one_pair(pair, *middles, border=40, systematics=False)
    constant = float(jnp.abs(one.D[inside]).max())
    assert left[150] < 0.35 * constant
    assert left[50] < 0.05 * constant, (left, constant)


def test_a_transient_has_its_flux_everywhere():
    """In the new image alone, through the PSF of its place: S / F_S is its flux."""
    psfs = [varying(widths) for widths in WIDTHS]
    total = np.zeros(SHAPE)
    places = [(40, 40), (100, 60), (170, 105), (60, 112), (141, 40)]
    for x, y in places:
        total += star(x, y, SHAPE, 500.0)[0]
    maps = run(make_pair(total, np.zeros(SHAPE)), *psfs, 50, systematics=False)
    found = [float(maps.flux[y, x]) for x, y in places]
    np.testing.assert_allclose(found, 500.0, rtol=2e-3)


def test_a_second_pair_does_not_compile(of_tiles):
    new, reference = noise_images(5)
    compiled = in_tiles._cache_size()
    psfs = [varying(widths) for widths in WIDTHS[::-1]]
    maps = run(make_pair(new, reference, 0.5), *psfs, 50, systematics=False)
    assert in_tiles._cache_size() == compiled
    assert float(jnp.abs(maps.D - of_tiles[2][50].D).max()) > 1


@pytest.mark.slow
def test_gradients_are_finite_and_right():
    new, reference = noise_images(2)
    pair = make_pair(new, reference, 1.0)
    psfs = [varying(widths) for widths in WIDTHS]
    tiling = tiling_for(*psfs, SHAPE, 110)
    nodes = [node_psfs(psf, tiling)[0] for psf in psfs]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(pair, nodes):
        maps = subtract_tiles(pair, *nodes, tiling=tiling)
        return jnp.sum(jnp.tanh(maps.S_corr) ** 2) + jnp.sum(jnp.sin(maps.D))

    value, slopes = loss(pair, nodes)
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
    # Against a difference, along beta.
    step = 1e-2
    up, down = (
        loss(pair.__class__(*(*list(vars(pair).values())[:8], pair.beta + d, *ends)), nodes)[0]
        for d in (step, -step)
        for ends in [list(vars(pair).values())[9:]]
    )
    assert float(slopes[0].beta) == pytest.approx(float(up - down) / (2 * step), rel=0.02)


@pytest.mark.parametrize(("shape", "tile"), [((150, 211), 64), ((31, 400), 100), ((17, 13), 256)])
def test_tiles_join_to_the_image(shape, tile):
    image = jnp.asarray(np.random.default_rng(3).normal(size=shape))
    tiling = make_tiling(shape, tile, 20)
    padded = tiling.pad(image)
    tiles = [
        tiling.tile(padded, jnp.asarray(row), jnp.asarray(column))
        for row in range(tiling.counts[0])
        for column in range(tiling.counts[1])
    ]
    assert tiles[0].shape == tiling.full
    np.testing.assert_array_equal(tiling.joined(tiling.cores(jnp.stack(tiles))), image)
    # A margin on every side, filled with the mirror image.
    top, left = tiling.margin
    assert min(top, left) >= 20
    assert (
        min(f - m - c for f, m, c in zip(tiling.full, (top, left), tiling.core, strict=True)) >= 20
    )
    np.testing.assert_array_equal(padded[top - 1, left : left + shape[1]], image[0])
    np.testing.assert_array_equal(padded[top : top + shape[0], left - 2], image[:, 1])


def test_what_is_no_tiling_is_refused():
    with pytest.raises(ValueError, match="`tile` must be at least 1 pixel; got 0"):
        make_tiling((10, 10), 0, 3)
    with pytest.raises(ValueError, match="`margin` must be at least 1 pixel; got 0"):
        make_tiling((10, 10), 5, 0)
    with pytest.raises(ValueError, match="`psf` must be a PixelPSF or a PSFBasis"):
        node_psfs(GaussianPSF([2.0]), make_tiling((10, 10), 5, 3))
